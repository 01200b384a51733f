"""JupyterLab served from a folder, and a real browser looking at it: what the tests here and the README's picture need.

Settings and workspaces of the person who runs this are left alone, and the browser reaches nothing but this machine.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from minigpt.course import KERNEL

PATIENCE = 60_000  # milliseconds that a condition may take on a busy machine
TRIES = 4
BEGUN = """() => document.body.innerText.includes("| Busy") ||
    [...document.querySelectorAll(".jp-InputPrompt")].some(prompt => /\\[\\d+\\]/.test(prompt.textContent))"""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def find_browser() -> str | None:
    """An installed Chromium, Chrome or Edge; None where there is none."""
    return next(filter(None, map(shutil.which, (*NAMES, *PLACES))), None)


@dataclass
class Lab:
    """A JupyterLab that runs, and the addresses elsewhere that its pages asked for, in vain."""

    root: Path
    url: str
    token: str
    asked_outside: list[str] = field(default_factory=list)

    def write(self, name: str, *cells: str) -> None:
        """A notebook with these code cells."""
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata["kernelspec"] = KERNEL
        nbformat.write(made, self.root / name)

    def ask(self, path: str, method: str = "GET") -> Any:
        """The server's answer to one request."""
        asked = urllib.request.Request(self.url + path, None, {"Authorization": f"token {self.token}"}, method=method)
        with urllib.request.urlopen(asked) as answer:
            return json.loads(answer.read() or "null")


@contextmanager
def serve(root: Path) -> Iterator[Lab]:
    """JupyterLab as `make lab` starts it, over the folder `root`, on a free port; stopped with its kernels at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(root, f"http://127.0.0.1:{port}", secrets.token_hex(8))
    options = {"port": port, "ServerApp.root_dir": root, "IdentityProvider.token": lab.token}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    with tempfile.TemporaryDirectory() as private:
        places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        places += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        environment = os.environ | {place: str(Path(private, place)) for place in places}
        environment["OMP_NUM_THREADS"] = "1"  # two threads wait for each other when the machine has other work
        with Path(private, "log").open("w+b") as log:
            command += [f"--{name}={value}" for name, value in options.items()]
            server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                _wait_until_it_answers(lab, server, log)
                yield lab
            finally:
                with suppress(urllib.error.URLError):
                    lab.ask("/api/shutdown", "POST")
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()


def _wait_until_it_answers(lab: Lab, server: subprocess.Popen[bytes], log: Any) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            lab.ask("/api/status")
            return
        except urllib.error.URLError:
            if server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
        log.seek(0)
        raise RuntimeError(f"JupyterLab did not start:\n{log.read().decode(errors='replace')}")


@contextmanager
def browse(lab: Lab, **options: Any) -> Iterator[Any]:
    """A fresh profile of an installed browser, which finds no other machine. Options are Playwright's."""
    from playwright.sync_api import sync_playwright

    def watch(request: Any) -> None:
        if request.url.startswith("http") and not request.url.startswith(lab.url):
            lab.asked_outside.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(QUIET))
        profile = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        profile.set_default_timeout(PATIENCE)
        profile.on("request", watch)
        try:
            yield profile
        finally:
            profile.close()
            browser.close()


def open_notebook(page: Any, lab: Lab, path: str) -> None:
    """Open a notebook in JupyterLab and wait until its kernel is ready."""
    page.goto(f"{lab.url}/lab/tree/{path}?reset&token={lab.token}")
    page.get_by_text("| Idle").wait_for()


def run_all_cells(page: Any) -> None:
    """As a learner does: from the menu. Raises Playwright's TimeoutError when the first cell has not begun.

    Where the page missed the kernel's first answer, its cells wait for ever, beside a kernel that is idle: it is loaded again.
    """
    from playwright.sync_api import TimeoutError

    for _ in range(TRIES):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[(\*|\d+)\]")).first.wait_for()
        with suppress(TimeoutError):
            page.wait_for_function(BEGUN, timeout=PATIENCE / TRIES)
            return
        page.reload()
        page.get_by_text("| Idle").wait_for()
    raise TimeoutError(f"no cell has begun, and the page was loaded {TRIES} times")
