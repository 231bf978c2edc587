"""How a branch computes: threads, precision, memory format, compilation, and memory for reuse."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mrkd_ray.config.method import Training

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


class Compute:
    """The arithmetic of one branch, as its options and device decide.

    Args:
        training: `precision`, `channels_last` and `compile` are read.
        device: where the network is.
        threads: of the CPU: their number changes the order of sums, so it is fixed.
    """

    def __init__(self, training: Training, device: torch.device, threads: int) -> None:
        self.device = device
        self.precision = training.precision
        if self.precision == "auto":
            supported = device.type == "cuda" and torch.cuda.is_bf16_supported(
                including_emulation=False
            )
            self.precision = "bf16" if supported else "fp32"
        self._threads = threads
        self._channels_last = training.channels_last
        self._compile = training.compile
        if device.type == "cpu":
            _keep_freed_memory()

    def place(self, network: nn.Module) -> nn.Module:
        """Return the network on the device, in its memory format; names of tensors stay."""
        network = network.to(self.device)
        if self._channels_last:
            network = network.to(memory_format=torch.channels_last)
        if self._compile:
            network.compile()
        return network

    def logits(self, network: nn.Module, windows: Tensor) -> Tensor:
        """Apply the network; the logits [B, M] are float32 whatever it computes in."""
        if not self._channels_last:
            windows = windows.contiguous()
        if self._compile:  # one graph for all sizes of batches; 1 alone gets one of its own
            torch._dynamo.maybe_mark_dynamic(windows, 0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = network(windows)
        return logits.float()

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Compute with this branch's number of CPU threads inside."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@functools.cache
def _keep_freed_memory() -> None:
    """Let this process keep the memory of one step's activations for the next step's.

    By default glibc gives it back to the kernel, which clears every page of it again at each step:
    page faults instead of arithmetic. Does nothing where the C library is another one.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages, if torch has not asked yet
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
    mallopt(_M_TRIM_THRESHOLD, 2**30)
