"""What this machine has, what is missing, and how to mend it. Returns findings; `minigpt doctor` prints them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass

import torch

from minigpt.corpus import COURSE_SOURCES, cache_folder, catalog, is_cached
from minigpt.hardware import has_fast_bf16, matmul_speed, memory_gb, pick_device

COURSE_PACKAGES = ("torch", "tokenizers", "datasets", "matplotlib", "ipywidgets", "jupyterlab", "transformers")
MEMORY_GB, DISK_GB = 2.0, 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; `mend` says what to do and is empty when all is well."""

    what: str
    value: str
    mend: str = ""


def diagnose() -> list[Finding]:
    """Look at Python, packages, processor, memory, disk and data. Takes about a second, changes nothing."""
    findings = [_python()]
    findings += [_package(name) for name in COURSE_PACKAGES]
    device = pick_device()
    speeds = f"{matmul_speed(torch.float32, device):.0f} GFLOP/s in fp32"
    if has_fast_bf16(device):
        speeds += f", {matmul_speed(torch.bfloat16, device):.0f} in bf16, which training uses by itself"
    findings.append(
        Finding("processor", f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    )
    findings.append(Finding(f"matrix products on {device.type}", speeds))
    memory = memory_gb()
    if memory:
        low = f"close other programs: a notebook takes up to 1.5 GB, and less than {MEMORY_GB:.0f} GB is free"
        findings.append(
            Finding("memory", f"{memory[1]:.1f} of {memory[0]:.1f} GB free", low if memory[1] < MEMORY_GB else "")
        )
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    full = "free some space, or set MINIGPT_DATA to a folder on a larger disk"
    findings.append(Finding("disk for data", f"{free:.1f} GB free", full if free < DISK_GB else ""))
    return findings + [_data(source.name) for source in catalog() if source.downloads]


def _data(name: str) -> Finding:
    if is_cached(name):
        return Finding(f"data: {name}", "here")
    if name in COURSE_SOURCES:
        return Finding(f"data: {name}", "not fetched", f"while online, run: minigpt data fetch {name}")
    return Finding(f"data: {name}", f"not fetched, and not needed; while online: minigpt data fetch {name}")


def _python() -> Finding:
    old = "install Python 3.11 or later and run the set-up again" if sys.version_info < (3, 11) else ""
    return Finding("Python", f"{platform.python_version()} on {platform.system()}", old)


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", 'run the set-up again, or: pip install -e ".[course]" in the project folder')
