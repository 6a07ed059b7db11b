"""What the machine can do, and what is free of it, that decides how we compute on it."""

import os
import resource
from functools import cache
from pathlib import Path

import torch

CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Where a container's limit and its use stand, by the second and the first version of control groups; and what the file
``memory.stat`` beside them calls the cached pages of files, which count as used and give way."""


@cache
def native_bf16(kind: str) -> bool:
    """Whether a device of this kind, ``cpu`` or ``cuda``, has instructions for bfloat16: it is faster there."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return kind == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)


def free_memory() -> int | None:
    """Return the bytes that this process could take, None where the system does not say.

    The least of what the machine has without swapping, what its container's limit leaves, and what is left of the
    address space that it may have (``ulimit -v``).
    """
    known = [size for size in (_available(), _left_to_container(), _left_of_addresses()) if size is not None]
    return min(known) if known else None


def resident_memory() -> int:
    """Return the bytes of memory that this process has taken; the most it ever had, where the system says no more."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory()


def peak_memory() -> int:
    """Return the bytes of memory that this process had when it had most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if os.uname().sysname == "Darwin" else most * 1024  # the unit is the system's own


def _available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:  # not Linux: what is installed is the best known bound
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _left_to_container() -> int | None:
    for most, used, cached in CGROUPS:
        try:
            left = int(Path(most).read_text()) - int(Path(used).read_text())
            stat = dict(line.split() for line in Path(used).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return max(0, left + int(stat.get(cached, 0)))
    return None


def _left_of_addresses() -> int | None:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    try:
        return max(0, most - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return most


def is_alive(process: str) -> bool:
    """Whether a process of this machine, told by its number in a file's name, is still running."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True
