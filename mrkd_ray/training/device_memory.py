"""Whether a branch's windows stay on its device: as asked, or as memory allows."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mrkd_ray.common import environment
from mrkd_ray.training.branch_task import BranchTask

CPU_SHARE = 1 / 2  # of the memory that is available, for all branches of a machine together
GPU_SHARE = 1 / 4  # of a card, for all branches on it together: the networks need the most

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
CGROUP = Path("/sys/fs/cgroup")


def resident(task: BranchTask, needed: int) -> bool:
    """Return whether a branch keeps its windows on the device.

    Args:
        task: its `window_memory` is "resident", "streamed", or "auto": resident within the budget.
        needed: bytes that they would take.
    """
    if task.window_memory == "auto":
        return needed <= budget(task)
    return task.window_memory == "resident"


def budget(task: BranchTask) -> int:
    """Return the bytes that the windows of one branch may take on its device.

    A part of the memory by what the branch's actor has of the machine's CPUs, or of a card, so that
    actors that fill the machine stay below the share together. A cohort that has more CPUs than the
    machine, its branches taking turns, counts as all of it.
    """
    device = torch.device(task.device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total * min(1.0, task.gpus)) * GPU_SHARE)
    part = task.cpus / max(environment.cpus(), task.cohort_cpus)
    return int(available() * CPU_SHARE * part)


def available() -> int:
    """Return the bytes of main memory that this process can still have; 0 where not known.

    The kernel's estimate, or what the limit of a container leaves where that is less.
    """
    try:
        fields = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (AttributeError, OSError, ValueError):
            return 0
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is none
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, min(free, limit - int(stat["anon"])))  # cached files give way
    except (OSError, KeyError, ValueError):
        return free


def peak(device: torch.device) -> int:
    """Return the most bytes that PyTorch had on the card, or this process in main memory.

    Of the process so far: of branches before this one too. 0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
