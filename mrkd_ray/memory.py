"""Whether a branch's windows stay on its device: as asked, or as memory allows."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from mrkd_ray.environment import cpus

logger = logging.getLogger(__name__)

CPU_SHARE = 1 / 2  # of the memory that is available, for all branches of a machine together
GPU_SHARE = 1 / 8  # of what is free on the card, for one branch: the networks need the most

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def resident(asked: str, needed: int, device: torch.device, threads: int) -> bool:
    """Return whether windows are kept on the device, and log why.

    Args:
        asked: "resident", "streamed", or "auto": resident where `needed` is within the budget.
        needed: bytes that they would take.
        device: of the branch.
        threads: CPU threads of the branch.
    """
    allowed = budget(device, threads)
    chosen = needed <= allowed if asked == "auto" else asked == "resident"
    logger.info(
        "windows %s (asked: %s): %.1f MiB on %s, of which a branch may take %.1f MiB",
        "resident" if chosen else "streamed",
        asked,
        needed / 2**20,
        device,
        allowed / 2**20,
    )
    return chosen


def budget(device: torch.device, threads: int) -> int:
    """Return the bytes that the windows of one branch may take on its device.

    On a GPU an eighth of what is free. On a CPU half of what is available to this process, times
    the branch's part of the CPUs: however many branches run at once, they stay below the half.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * GPU_SHARE)
    return int(available() * CPU_SHARE * min(1.0, threads / cpus()))


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
