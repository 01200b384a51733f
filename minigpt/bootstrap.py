"""Set-up with nothing but Python: a virtual environment, the CPU build of torch, the package, the texts.

Run it as a file, before anything is installed: `python minigpt/bootstrap.py [course|dev]`. It may be interrupted and
run again at any time; what is done is not done twice. It imports only the standard library.

MINIGPT_TORCH=cuda in the environment asks for the build for NVIDIA cards, which the course does not need.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
VENV = PROJECT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST, NEWEST = (3, 11), (3, 14)
TORCH = "2.13.0"  # the release that every number in the course was measured on
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of builds without CUDA, a tenth of the size
DISK_GB = 3.0  # all of .venv takes about 2
FULL_GB = 0.2  # a step that fails with less than this left failed for want of it
NETWORK = (
    "pip's last lines above say why. Mostly it is the network: check it, and where you sit behind a proxy or use a "
    "mirror, set HTTPS_PROXY or run: python -m pip config set global.index-url ADDRESS"
)


class StepFailed(Exception):
    """A step of the set-up did not work; `advice` says what to try."""

    def __init__(self, step: str, advice: str):
        again = "Then run the same command again: it goes on from here."
        super().__init__(f"\nThe set-up stopped at this step: {step}.\n{advice}\n{again}")


def say(text: str) -> None:
    """One line for each step."""
    print(f"==> {text}", flush=True)


def run(step: str, advice: str, *command: object) -> None:
    """Run one command and let it show its own progress; `StepFailed` when it fails.

    Where nobody looks on (a log), its last lines are shown, and only when it fails.
    """
    watched = sys.stdout.isatty()
    shown = (
        {} if watched else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    )
    done = subprocess.run([str(part) for part in command], cwd=PROJECT, **shown)
    if done.returncode:
        if not watched:
            print("\n".join(done.stdout.splitlines()[-20:]), flush=True)
        if shutil.disk_usage(PROJECT).free < FULL_GB * 1e9:
            advice = f"The disk is full. Free some space: the whole set-up takes {DISK_GB:.0f} GB."
        raise StepFailed(step, advice)


def pip(step: str, advice: str, *arguments: str) -> None:
    """Install with the environment's own pip."""
    run(step, advice, PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments)


def answers(code: str) -> str | None:
    """What the environment's Python prints for a piece of code; None when it fails."""
    try:
        done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    except OSError:  # a Python that is gone or of another machine
        return None
    return None if done.returncode else done.stdout.strip()


def check_python() -> None:
    """The Python that runs this file can make the environment."""
    found, wish = platform.python_version(), "Install Python 3.11 to 3.14, or name one: make PYTHON=python3.12 lab"
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise StepFailed("Python", f"This is Python {found}, for which torch {TORCH} has no build. {wish}")
    if sys.maxsize < 2**32:
        raise StepFailed("Python", f"This Python has 32 bits, and torch needs 64. {wish}")
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        package = "python{}.{}-venv".format(*sys.version_info)
        raise StepFailed("Python", f"Its module ensurepip is missing. On Debian and Ubuntu: sudo apt install {package}")


def make_environment() -> None:
    """A virtual environment in .venv with a pip that goes on with a broken download."""
    version = answers("import pip, sys; print('%d %d' % sys.version_info[:2])")
    if version is None or not OLDEST <= tuple(map(int, version.split())) <= NEWEST:
        check_python()
        if VENV.exists():  # half made: interrupted, or of a Python that is gone or too old
            say("the virtual environment .venv does not work with this Python; making it anew")
            shutil.rmtree(VENV)
        free = shutil.disk_usage(PROJECT).free / 1e9
        if free < DISK_GB:
            raise StepFailed("disk space", f"Free some: {free:.1f} GB are left, and the set-up takes {DISK_GB:.0f}.")
        say(f"making a virtual environment in .venv with Python {platform.python_version()}")
        run("virtual environment", "The lines above say why.", sys.executable, "-m", "venv", VENV)
    once("pip", lambda: pip("a recent pip", NETWORK, "pip>=25.2"))


def reachable(url: str) -> bool:
    """Whether something answers there within seconds."""
    try:
        with urllib.request.urlopen(url, timeout=6):
            return True
    except OSError:
        return False


def install_torch() -> None:
    """The CPU build of torch, unless a build that serves is there already."""
    system, wants_cuda = platform.system(), os.environ.get("MINIGPT_TORCH") == "cuda"
    version = answers("import importlib.metadata as m; print(m.version('torch'))") or ""
    if version.startswith(("2.12.", "2.13.")) and not (wants_cuda and version.endswith("+cpu")):
        return
    if version:
        run("torch", "The lines above say why.", PYTHON, "-m", "pip", "uninstall", "--yes", "--quiet", "torch")
    if shutil.which("nvidia-smi") and not wants_cuda:
        say("an NVIDIA card is here; the course needs none, and MINIGPT_TORCH=cuda asks for torch's build for it")
    if system != "Darwin" and not wants_cuda:
        if reachable(f"{CPU_INDEX}/torch/"):
            say("installing torch, the CPU build (about 200 MB)")
            try:
                return pip("torch", NETWORK, f"torch=={TORCH}", "--index-url", CPU_INDEX)
            except StepFailed:
                say("PyTorch's own index did not deliver; trying the index that pip is set to")
        elif system == "Linux":
            say("PyTorch's own index cannot be reached, so torch comes from the index that pip is set to")
            say("unless that index has a CPU build, this is the one for NVIDIA cards, several GB; Ctrl-C stops it, and")
            say(f"the same command takes the small build once {CPU_INDEX} can be reached")
    advice = NETWORK
    if system == "Darwin" and platform.machine() == "x86_64":
        advice = "PyTorch makes no builds for Intel Macs any more: use Binder (see README.md) or a Linux machine."
    say("installing torch")
    pip("torch", advice, f"torch=={TORCH}")


def install_package(extra: str) -> None:
    """The package itself, editable, with what the course or its tests need."""
    say(f"installing minigpt and the packages of its {'tests' if extra == 'dev' else 'notebooks'}")
    pip("packages", NETWORK, "--editable", f".[{extra}]")
    place = VENV / "share/jupyter/lab/settings/overrides.d"  # an editable install cannot put a file there
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "minigpt/lab/minigpt.json5", place)


def install_llama() -> None:
    """llama.cpp, compiled here without what reads pictures; a failure is told in a line, and its tests are skipped then."""
    say("compiling llama.cpp for the tests (some minutes, once)")
    os.environ.setdefault("CMAKE_ARGS", "-DLLAVA_BUILD=OFF")
    try:
        pip("llama.cpp", "It needs a compiler for C++.", "--editable", ".[llama]")
    except StepFailed:
        say("llama.cpp could not be compiled here (is there a compiler for C++?), so its tests are skipped")


def fetch_texts() -> None:
    """The texts of the course, into the cache; it shows its own progress."""
    say("fetching the texts")
    advice = "The notebooks run on generated stories until then. To fetch the texts, connect to the network."
    run("texts", advice, PYTHON, "-m", "minigpt", "data", "fetch")


def recipe(*also: object) -> str:
    """A hash of what decides the outcome of a step: this file, pyproject.toml, the environment and its place."""
    files = [file.read_bytes() for file in (Path(__file__), PROJECT / "pyproject.toml", VENV / "pyvenv.cfg")]
    return hashlib.sha256(repr((files, str(PROJECT), also)).encode()).hexdigest()


def stamp(name: str) -> Path:
    """The file that tells by which recipe a step was last done."""
    return VENV / f"minigpt-{name}.stamp"


def done(name: str, *also: object) -> bool:
    """Whether a step was done by today's recipe."""
    return stamp(name).exists() and stamp(name).read_text(encoding="utf-8") == recipe(*also)


def once(name: str, work: Callable[[], None], *also: object) -> None:
    """Do `work` unless it is done."""
    if not done(name, *also):
        work()
        stamp(name).write_text(recipe(*also), encoding="utf-8")


def texts() -> None:
    """Fetch the texts unless they are there; a failure is told and changes nothing: the course runs without them."""
    cache = Path(os.environ.get("MINIGPT_DATA") or PROJECT / "data" / "cache").expanduser()
    if not cache.exists():
        stamp("texts").unlink(missing_ok=True)
    try:
        once("texts", fetch_texts, str(cache), (PROJECT / "minigpt/corpus/catalog.toml").read_bytes())
    except StepFailed as error:
        print(error, file=sys.stderr)


def main(extra: str = "course") -> int:
    """Set everything up for `extra` (course or dev); 0 when the course can run."""
    if extra not in ("course", "dev"):
        print(f"unknown part {extra!r}; use course (to learn) or dev (to test and change)", file=sys.stderr)
        return 2
    try:
        make_environment()
        once("torch", install_torch, os.environ.get("MINIGPT_TORCH"))
        if not (extra == "course" and done("dev")):  # which holds all of the course
            once(extra, lambda: install_package(extra))
        if extra == "dev":
            once("llama", install_llama)
        texts()
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # .venv is in use (Windows), or its disk is full or may not be written
        advice = f"{error}. Close what uses the folder .venv, and look at its disk: is it full, may it be written?"
        print(StepFailed("files", advice), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again: it goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
