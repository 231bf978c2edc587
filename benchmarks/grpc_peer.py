"""The peer of `exchange`: soft labels averaged by a gRPC streaming server, as the paper had it.

Every client streams its [N, M] matrix up in shards; the server adds a shard when it arrives, and
streams the mean of a shard down as soon as all clients' parts of it are there. Raw bytes, no
generated code, one process for the server and one for each client.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

SHARD_BYTES = 4 * 2**20  # of 1, 2 and 4 MiB the fastest here
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcAggregation:
    """A server and its clients, each in a process of its own, for rounds of averaging."""

    def __init__(self, clients: int, rows: int, classes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

        def start(function: Any, *arguments: Any) -> Any:
            mine, its = context.Pipe()
            process = context.Process(target=function, args=(its, *arguments), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)
            return mine.recv()  # the server's port, or that a client is ready

        port = start(_serve, clients, rows, classes)
        for client in range(clients):
            start(_client, port, client, rows, classes)

    def round(self) -> tuple[float, float]:
        """Average once; return the seconds until every client has it, and a check sum."""
        self._pipes[0].send(True)
        self._pipes[0].recv()  # the server is ready for another round
        began = time.perf_counter()
        for pipe in self._pipes[1:]:
            pipe.send(True)
        sums = [pipe.recv() for pipe in self._pipes[1:]]
        seconds = time.perf_counter() - began
        assert len(set(sums)) == 1
        return seconds, sums[0]

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
            process.join()


def soft_labels(branch: int, rows: int, classes: int) -> Any:
    """Return what a branch holds: float32 [rows, classes]."""
    return np.random.default_rng(branch).random((rows, classes), dtype=np.float32)


def check_sum(teacher: Any) -> float:
    """Return a figure that tells wrong teachers from right ones."""
    return float(teacher[:: max(1, len(teacher) // 1000)].astype(np.float64).sum().round(2))


def _shards(rows: int, classes: int) -> list[slice]:
    step = max(1, SHARD_BYTES // (4 * classes))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


class _Round:
    """The sums of one round, and how many parts of each shard are there."""

    def __init__(self, shards: list[slice], rows: int, classes: int, sums: Any) -> None:
        self.sums = sums
        self.counts = [0] * len(shards)
        self.locks = [threading.Lock() for _ in shards]
        self.done = [threading.Event() for _ in shards]


def _serve(pipe: Connection, clients: int, rows: int, classes: int) -> None:
    import grpc

    shards = _shards(rows, classes)
    sums = np.zeros((rows, classes), np.float32)
    state = [_Round(shards, rows, classes, sums)]

    def upload(parts: Iterator[bytes], context: Any) -> bytes:
        current = state[0]
        for i, (shard, part) in enumerate(zip(shards, parts, strict=True)):
            values = np.frombuffer(part, np.float32).reshape(-1, classes)
            with current.locks[i]:
                if current.counts[i]:
                    sums[shard] += values
                else:
                    np.copyto(sums[shard], values)
                current.counts[i] += 1
                if current.counts[i] == clients:
                    sums[shard] *= np.float32(1 / clients)
                    current.done[i].set()
        return b""

    def download(request: bytes, context: Any) -> Iterable[bytes]:
        current = state[0]
        for shard, done in zip(shards, current.done, strict=True):
            done.wait()
            yield sums[shard].tobytes()

    handlers = {
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Download": grpc.unary_stream_rpc_method_handler(download),
    }
    server = grpc.server(ThreadPoolExecutor(2 * clients), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Aggregator", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    while pipe.recv():
        state[0] = _Round(shards, rows, classes, sums)
        pipe.send(True)


def _client(pipe: Connection, port: int, number: int, rows: int, classes: int) -> None:
    import grpc

    mine = soft_labels(number, rows, classes)
    teacher = np.zeros_like(mine)
    shards = _shards(rows, classes)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
    upload = channel.stream_unary("/Aggregator/Upload")
    download = channel.unary_stream("/Aggregator/Download")
    grpc.channel_ready_future(channel).result()
    pipe.send(True)
    while pipe.recv():
        sent = upload.future(mine[shard].tobytes() for shard in shards)
        for shard, part in zip(shards, download(b""), strict=True):
            np.copyto(teacher[shard], np.frombuffer(part, np.float32).reshape(-1, classes))
        sent.result()
        pipe.send(check_sum(teacher))
