"""What this machine computes with: its devices, the precisions it is fast in, its speed, its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import platform
import sys
import time

import torch


def pick_device(wish: str = "auto") -> torch.device:
    """The device named, or the fastest there is. ValueError when the one named is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish != "auto" and not present[wish]:
        raise ValueError(
            f"device={wish!r} is not available here; use 'auto' or one of {[d for d in present if present[d]]}."
        )
    return torch.device(next(d for d in present if present[d]) if wish == "auto" else wish)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 has instructions of its own: AMX or AVX512-BF16 on CPUs, Ampere and later on NVIDIA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    present = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(present.get(name) for name in ("amx_bf16", "avx512_bf16"))


def pick_precision(wish: str, device: torch.device) -> str:
    """The precision named, or the fastest that needs no care: bf16 where it has instructions of its own, else fp32.

    ValueError for one that the device does not have: fp16 is for accelerators, tf32 for NVIDIA's.
    """
    only_on = {"fp16": ("cuda", "mps"), "tf32": ("cuda",)}
    if device.type not in only_on.get(wish, (device.type,)):
        raise ValueError(
            f"precision={wish!r} is for {' and '.join(only_on[wish])}, and this run is on {device.type}; use 'auto', "
            "'bf16' or 'fp32'."
        )
    return ("bf16" if has_fast_bf16(device) else "fp32") if wish == "auto" else wish


def matmul_speed(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """GFLOP/s of a square matrix product of `size`, the best of five."""
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for an accelerator to be done
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def memory_gb() -> tuple[float, float] | None:
    """Memory in GB: all of it, and what is free to use; a container's limit counts. None where psutil is missing."""
    if importlib.util.find_spec("psutil") is None:
        return None
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = os.environ.get("MEM_LIMIT")  # Binder tells its limit in bytes here
    if limit and limit.isdigit():
        total = min(total, int(limit))
        free = min(free, total)
    return total / 1e9, free / 1e9


def release_memory() -> None:
    """Give memory that is no longer used back to the system; Arrow and the C library of Linux would keep it for later."""
    gc.collect()
    if (arrow := sys.modules.get("pyarrow")) is not None:  # what read the texts, where they were read
        arrow.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # other systems have no such library, or no such function in it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def machine() -> str:
    """This machine in a line: processor, threads, the instructions that matter here, torch."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    device = pick_device()
    if device.type == "cuda":
        names = [torch.cuda.get_device_name()]
    name = names[0] if names else platform.processor() or platform.machine()
    bf16 = "bf16 instructions" if has_fast_bf16(device) else "no bf16 instructions"
    return f"{name}, {torch.get_num_threads()} threads, {bf16}, torch {torch.__version__.partition('+')[0]}"


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:  # only Linux has it
        return []
