import importlib.metadata
import importlib.util
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from minigpt import doctor, hardware
from minigpt.corpus import COURSE_SOURCES
from minigpt.doctor import diagnose
from minigpt.hardware import matmul_speed, memory_gb


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """A machine that lacks nothing; each test takes one thing away."""
    psutil = pytest.importorskip("psutil")
    monkeypatch.delenv("MEM_LIMIT", raising=False)
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8e9, available=5e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50e9))
    monkeypatch.setattr(doctor, "is_cached", lambda name: True)
    monkeypatch.setattr(doctor, "matmul_speed", lambda dtype, device: 99.4)
    return monkeypatch


def finding(what):
    (found,) = [found for found in diagnose() if found.what == what]
    return found


def test_a_healthy_machine_has_nothing_to_mend_and_is_left_as_it_was(healthy, tmp_path):
    findings = diagnose()
    assert not [found for found in findings if found.mend]
    assert {"Python", "torch", "jupyterlab", "memory", "disk for data", "data: shakespeare"} <= {
        f.what for f in findings
    }
    assert finding("memory").value == "5.0 of 8.0 GB free"
    assert not list(tmp_path.iterdir())


def test_a_missing_package_says_how_to_install_it(healthy):
    def version(name):
        if name == "jupyterlab":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    healthy.setattr(importlib.metadata, "version", version)
    assert (finding("jupyterlab").value, finding("torch").value) == ("missing", "1.2.3")
    assert 'pip install -e ".[course]"' in finding("jupyterlab").mend


def test_an_old_python_is_told_to_be_replaced(healthy):
    healthy.setattr(sys, "version_info", (3, 10, 1))
    assert "install Python 3.11 or later" in finding("Python").mend


def test_little_memory_and_a_full_disk_are_told(healthy):
    import psutil

    healthy.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8e9, available=1.4e9))
    healthy.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4e8))
    assert "close other programs" in finding("memory").mend
    assert finding("disk for data").value == "0.4 GB free" and "MINIGPT_DATA" in finding("disk for data").mend


def test_the_limit_of_a_binder_session_counts(healthy):
    healthy.setenv("MEM_LIMIT", str(1_500_000_000))
    assert memory_gb() == (1.5, 1.5) and finding("memory").mend
    healthy.setenv("MEM_LIMIT", "unlimited")
    assert memory_gb() == (8.0, 5.0)


def test_without_psutil_there_is_no_line_about_memory(healthy):
    real = importlib.util.find_spec
    healthy.setattr(importlib.util, "find_spec", lambda name: None if name == "psutil" else real(name))
    assert memory_gb() is None and "memory" not in {found.what for found in diagnose()}


def test_a_text_of_the_course_that_is_missing_is_to_be_fetched_and_others_may_be(healthy):
    healthy.setattr(doctor, "is_cached", lambda name: False)
    for needed in COURSE_SOURCES:
        assert finding(f"data: {needed}").mend == f"while online, run: minigpt data fetch {needed}"
    other = finding("data: milton")
    assert not other.mend and other.value.startswith("not fetched, and not needed")


def test_the_processor_is_told_with_bf16_only_where_it_is_fast(healthy):
    for fast in (True, False):
        healthy.setattr(doctor, "has_fast_bf16", lambda device, fast=fast: fast)
        (speed,) = [found.value for found in diagnose() if found.what.startswith("matrix products on")]
        assert speed.startswith("99 GFLOP/s in fp32") and ("bf16" in speed) == fast


def test_the_speed_of_a_matrix_product_counts_two_operations_for_each_of_its_cubes(monkeypatch):
    clock = iter(
        [0.0, 0.5, 1.0, 1.25, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    )  # the second of five is the best, a quarter second
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(clock))
    assert matmul_speed(torch.float32, torch.device("cpu"), size=100) == pytest.approx(2 * 100**3 / 0.25 / 1e9)
