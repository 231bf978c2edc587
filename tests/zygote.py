"""A process that has imported what every command imports, and is copied for each of them.

`python -m tests.zygote SOCKET` serves; `python -S tests/zygote.py SOCKET [-m MODULE | -c TEXT |
FILE] ARGUMENTS...` runs as `python` would, in a copy with its own folder, environment and
streams, and ends with its exit code. Importing torch takes seconds, which most commands of the
documentation's pages would spend; they are processes of their own all the same.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from typing import Any

_ALL = socket.MSG_WAITALL


def ask(address: str) -> int:
    """Have a copy run the arguments of this process; return its exit code."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        request = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(line, [struct.pack("!Q", len(request))], [0, 1, 2])
        line.sendall(request)
        (copy,) = struct.unpack("!i", line.recv(4, _ALL))
        for number in (signal.SIGTERM, signal.SIGINT):  # as if they were sent to the copy
            signal.signal(number, lambda sent, _: os.kill(copy, sent))
        (code,) = struct.unpack("!i", line.recv(4, _ALL))
        return code if code >= 0 else 128 - code


def serve(address: str) -> None:
    """Import, then copy this process for each request, until standard input ends."""
    import select

    import mrkd_ray.cells.run
    import mrkd_ray.cli.main
    import mrkd_ray.grid.run
    import mrkd_ray.inference.classifier
    import mrkd_ray.training.local_cohort  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those that wait have ended
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if 0 in ready:
                return
            line, _ = listening.accept()
            if os.fork() == 0:  # it waits for the copy, so that this one goes on listening
                listening.close()
                _answer(line)
            line.close()


def _answer(line: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(line, 8, 3)
    words, folder, environment = json.loads(line.recv(*struct.unpack("!Q", size), _ALL))
    child = os.fork()
    if child:
        line.sendall(struct.pack("!i", child))
        _, status = os.waitpid(child, 0)
        line.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
        os._exit(0)
    line.close()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(_run(words))


def _run(words: list[str]) -> Any:
    """Do what `python WORDS` does."""
    import runpy

    sys.path[0] = ""
    if words[0] == "-c":
        sys.argv = words[:1] + words[2:]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    if sys.flags.no_site:
        sys.exit(ask(sys.argv[1]))
    serve(sys.argv[1])
