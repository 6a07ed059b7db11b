"""What the machine can do that decides how we compute on it."""

from functools import cache

import torch


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
