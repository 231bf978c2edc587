"""One branch in several processes, each with its share of every minibatch, by torch.distributed.

All processes hold the whole network and make the same steps: gradients are averaged by PyTorch's
DistributedDataParallel, and BatchNorm normalises by the statistics of the whole minibatch. So the
branch learns what it would learn in one process, up to the order of sums. The exception is dropout,
whose masks are each process's own.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from mrkd_ray.common.errors import UserError
from mrkd_ray.features.window_sources import Index


@dataclass(frozen=True)
class Ranks:
    """The processes of a branch, which are on one machine, as one of them sees them.

    Each of them calls the same methods of its `Branch` in the same order. All get the same results;
    the first writes the files.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, file: Path, device: str) -> Ranks:
        """Meet the other processes; waits for all of them.

        Args:
            rank, size: see above.
            file: that they all see and nobody else has used.
            device: "cpu" (they talk by gloo) or "cuda" (nccl).
        """
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=file.as_uri(), rank=rank, world_size=size)
        return cls(rank, size)

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which of `count` rows are this process's; the first processes have one more."""
        sizes = [(count - rank + self.size - 1) // self.size for rank in range(self.size)]
        begin = sum(sizes[: self.rank])
        return slice(begin, begin + sizes[self.rank])

    def places(self, sizes: list[int], *, with_next: bool) -> list[Index]:
        """Return this process's places in each of some batches that follow each other.

        Args:
            sizes: of the whole batches.
            with_next: also the row after its own, in a circle, where it has not all of them.
        """
        found = []
        for begin, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
            own = np.arange(size)[self.share(size)]
            if with_next and self.size > 1:
                own = np.append(own, (own[-1] + 1) % size)
            found.append(begin + own)
        return found

    def check(self, sizes: list[int], branch: str) -> None:
        """Refuse batches that are smaller than the number of processes. Raises UserError."""
        if min(sizes) < self.size:
            raise UserError(
                f"branch {branch}: a batch of {min(sizes)} windows has too few for {self.size} "
                "processes: take more (--batch-size), or fewer GPUs of a branch (--gpus-per-branch)"
            )

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' values, in their place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def joined(self, own: Tensor, count: int) -> Tensor:
        """Return all rows [count, M] of which each process has its `share`."""
        if self.size == 1:
            return own
        rows = own.new_zeros(count, own.shape[1])
        rows[self.share(count)] = own
        return self.total(rows)

    def learner(self, module: nn.Module) -> nn.Module:
        """Return what is called in place of a module in training: its gradients are averaged."""
        if self.size == 1:
            return module
        # Unused parameters are looked for so that the order of sums is that of the first step for
        # ever: else it changes after one step, and a branch that is resumed would differ.
        return nn.parallel.DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=True
        )

    def share_batch_statistics(self, network: nn.Module, branch: str) -> None:
        """Have BatchNorm in a network normalise by all processes' rows.

        PyTorch's SyncBatchNorm does the same, on GPUs only.

        Raises:
            UserError: the network has a BatchNorm of its own kind.
        """
        for module in network.modules() if self.size > 1 else ():
            if not isinstance(module, _BatchNorm):
                continue
            if type(module) not in SHARED:
                raise UserError(
                    f"branch {branch}: its network has a {type(module).__name__}, which cannot be "
                    "shared by several GPUs: take one of a branch (--gpus-per-branch 1), or "
                    "another network"
                )
            module.__class__ = SHARED[type(module)]  # type: ignore[assignment]


ALONE = Ranks()


def _total(values: Tensor) -> Tensor:
    """Return the sum of all processes' values; gradients flow to all of them."""
    found: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return found


class _SharedBatchNorm(_BatchNorm):
    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return super().forward(inputs)
        dims = [0, *range(2, inputs.ndim)]
        by_channel = [1, -1, *[1] * (inputs.ndim - 2)]
        values = inputs.float()
        rows = values.new_full([1], values.numel() / values.shape[1])
        sums = _total(torch.cat([values.sum(dims), rows]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(by_channel)
        variance = _total(centred.square().sum(dims)) / count
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        normal = centred * scale.view(by_channel)
        if self.affine:
            normal = normal + self.bias.view(by_channel)
        outputs: Tensor = normal.to(inputs.dtype)
        return outputs

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as BatchNorm does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # a mean over all batches
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _SharedBatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    pass


class _SharedBatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    pass


SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _SharedBatchNorm1d,
    nn.BatchNorm2d: _SharedBatchNorm2d,
}
