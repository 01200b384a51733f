import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigpt import bootstrap

FILES = ("pyproject.toml", "minigpt/corpus/catalog.toml", "minigpt/lab/minigpt.json5")


class Machine:
    """Stands in for `subprocess.run`: it installs nothing, and remembers what it was asked to run."""

    def __init__(self, project):
        self.project, self.ran, self.asked = project, [], []
        self.environment = None  # the Python in .venv
        self.torch = ""  # the version in .venv
        self.fails = ()  # words of the commands that fail
        self.interrupts = ()

    def run(self, command, **options):
        words = " ".join(command)
        if command[1] == "-c":
            self.asked.append(words)
            return self.answer(command[2])
        self.ran.append(words.replace(str(bootstrap.PYTHON), "python").replace(str(self.project), "."))
        if any(word in words for word in self.interrupts):
            raise KeyboardInterrupt
        if any(word in words for word in self.fails):
            return SimpleNamespace(returncode=1, stdout="\n".join(f"line {i} of the failure" for i in range(50)))
        if "-m venv" in words:
            self.environment, self.torch = "3 12", ""
            bootstrap.VENV.mkdir()
            (bootstrap.VENV / "pyvenv.cfg").write_text("version = 3.12")
        if "torch==" in words:
            self.torch = "2.13.0+cpu" if "--index-url" in words else "2.13.0"
        if "uninstall" in words:
            self.torch = ""
        return SimpleNamespace(returncode=0, stdout="")

    def answer(self, code):
        known = self.torch if "torch" in code else self.environment
        return SimpleNamespace(returncode=0 if known else 1, stdout=f"{known}\n")

    def steps(self):
        """What was run since the last look, shortened to its last words."""
        ran, self.ran = self.ran, []
        return [" ".join(words.split("--disable-pip-version-check ")[-1].split()[-4:]) for words in ran]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A project without an environment on a Linux machine that is online and has room."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    made = Machine(tmp_path)
    monkeypatch.setattr(bootstrap, "PROJECT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: nullcontext())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50e9))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("MINIGPT_TORCH", raising=False)
    monkeypatch.setenv("CMAKE_ARGS", "")  # to be as it was after the test
    monkeypatch.delenv("CMAKE_ARGS")
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return made


def python(monkeypatch, **changes):
    """Let the set-up see another Python than the one that runs the tests."""
    fields = {name: getattr(sys, name) for name in ("version_info", "maxsize", "executable", "stdout", "stderr")}
    monkeypatch.setattr(bootstrap, "sys", SimpleNamespace(**(fields | changes)))


def test_it_imports_only_the_standard_library():
    tree = ast.parse(Path(bootstrap.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names and {name.split(".")[0] for name in names} <= sys.stdlib_module_names


# The steps


def test_a_fresh_machine_gets_every_step_once_and_is_told_each(machine, capsys):
    assert bootstrap.main() == 0
    assert machine.steps() == [
        f"{sys.executable} -m venv ./.venv",
        "pip>=25.2",
        f"torch==2.13.0 --index-url {bootstrap.CPU_INDEX}",
        "--editable .[course]",
        "-m minigpt data fetch",
    ]
    out = capsys.readouterr().out
    for words in ("making a virtual environment", "installing torch, the CPU build", "installing minigpt", "fetching"):
        assert f"==> {words}" in out
    settings = bootstrap.VENV / "share/jupyter/lab/settings/overrides.d/minigpt.json5"
    assert settings.read_text() == FILES[2]


def test_nothing_is_done_twice(machine, capsys):
    bootstrap.main()
    machine.steps(), capsys.readouterr()
    assert bootstrap.main() == 0
    assert machine.steps() == [] and len(machine.asked) <= 4
    assert capsys.readouterr() == ("", "")


def test_the_tests_add_to_the_course_and_hold_it(machine):
    bootstrap.main("course")
    machine.steps()
    assert bootstrap.main("dev") == 0 and machine.steps() == ["--editable .[dev]", "--editable .[llama]"]
    assert bootstrap.main("course") == 0 and machine.steps() == []
    assert bootstrap.main("dev") == 0 and machine.steps() == []


def test_llama_cpp_is_for_the_tests_alone_and_compiled_without_what_reads_pictures(machine):
    bootstrap.main("course")
    assert "CMAKE_ARGS" not in os.environ and not any("llama" in step for step in machine.steps())
    bootstrap.main("dev")
    assert os.environ["CMAKE_ARGS"] == "-DLLAVA_BUILD=OFF" and "--editable .[llama]" in machine.steps()


def test_without_a_compiler_the_set_up_goes_on_without_llama_cpp_and_tries_it_once(machine, capsys):
    machine.fails = (".[llama]",)
    assert bootstrap.main("dev") == 0 and machine.steps()[-1] == "-m minigpt data fetch"
    shown = capsys.readouterr()
    assert "so its tests are skipped" in shown.out and not shown.err
    assert bootstrap.main("dev") == 0 and machine.steps() == []


def test_a_changed_project_file_installs_the_packages_anew_and_torch_only_once(machine):
    bootstrap.main()
    machine.steps()
    (machine.project / "pyproject.toml").write_text("changed")
    assert bootstrap.main() == 0
    assert machine.steps() == ["pip>=25.2", "--editable .[course]", "-m minigpt data fetch"]


def test_a_changed_catalog_or_an_emptied_cache_fetches_the_texts_again(machine):
    bootstrap.main()
    machine.steps()
    (machine.project / "minigpt/corpus/catalog.toml").write_text("changed")
    assert bootstrap.main() == 0 and machine.steps() == ["-m minigpt data fetch"]
    (machine.project / "cache").rmdir()
    assert bootstrap.main() == 0 and machine.steps() == ["-m minigpt data fetch"]


def test_an_environment_that_does_not_work_is_made_anew(machine, capsys):
    bootstrap.main()
    machine.steps()
    (bootstrap.VENV / "left behind").write_text("x")
    for broken in (None, "3 10"):
        machine.environment = broken
        assert bootstrap.main() == 0 and len(machine.steps()) == 5
        assert not (bootstrap.VENV / "left behind").exists()
        assert "does not work with this Python; making it anew" in capsys.readouterr().out


def test_a_python_that_is_gone_answers_nothing(machine, monkeypatch):
    def gone(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", gone)
    assert bootstrap.answers("print(1)") is None


# Torch


def test_where_pytorchs_index_cannot_be_reached_the_usual_one_is_used_and_said(machine, monkeypatch, capsys):
    def unreachable(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    assert bootstrap.main() == 0 and "torch==2.13.0" in machine.steps()
    out = capsys.readouterr().out
    assert "index cannot be reached" in out and "several GB; Ctrl-C stops it" in out


def test_where_pytorchs_index_breaks_off_the_usual_one_is_used(machine, capsys):
    machine.fails = (bootstrap.CPU_INDEX,)
    assert bootstrap.main() == 0
    steps = machine.steps()
    assert steps[2:4] == [f"torch==2.13.0 --index-url {bootstrap.CPU_INDEX}", "torch==2.13.0"]
    assert "did not deliver; trying the index that pip is set to" in capsys.readouterr().out


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_only_a_mac_takes_torch_from_the_usual_index_at_once(machine, monkeypatch, system):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: system)
    bootstrap.main()
    assert ("torch==2.13.0" in machine.steps()) == (system == "Darwin")


def test_an_intel_mac_is_told_that_there_are_no_builds(machine, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Darwin")
    machine.fails = ("torch==",)
    assert bootstrap.main() == 1 and "no builds for Intel Macs" in capsys.readouterr().err


def test_the_build_for_nvidia_cards_comes_only_when_asked_for(machine, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    bootstrap.main()
    assert f"torch==2.13.0 --index-url {bootstrap.CPU_INDEX}" in machine.steps()
    assert "MINIGPT_TORCH=cuda asks for" in capsys.readouterr().out
    monkeypatch.setenv("MINIGPT_TORCH", "cuda")
    assert bootstrap.main() == 0
    assert machine.steps() == ["uninstall --yes --quiet torch", "torch==2.13.0"]


def test_a_torch_that_serves_is_kept_and_another_is_replaced(machine):
    bootstrap.main()
    machine.steps()
    for version, replaced in (("2.12.1", False), ("2.13.0", False), ("2.9.0", True)):
        machine.torch = version
        bootstrap.stamp("torch").unlink()
        assert bootstrap.main() == 0
        assert bool(machine.steps()) == replaced


# What may go wrong


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 15, 0)])
def test_an_unsupported_python_is_told_which_to_install(machine, monkeypatch, capsys, version):
    python(monkeypatch, version_info=version)
    assert bootstrap.main() == 1 and machine.steps() == []
    assert "Install Python 3.11 to 3.14, or name one: make PYTHON=python3.12 lab" in capsys.readouterr().err


def test_a_python_of_32_bits_is_refused(machine, monkeypatch, capsys):
    python(monkeypatch, maxsize=2**31 - 1)
    assert bootstrap.main() == 1 and machine.steps() == []
    assert "This Python has 32 bits, and torch needs 64" in capsys.readouterr().err


def test_a_python_without_ensurepip_is_told_which_package_to_install(machine, monkeypatch, capsys):
    real = bootstrap.importlib.util.find_spec
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: name != "ensurepip" and real(name))
    assert bootstrap.main() == 1 and machine.steps() == []
    package = "python{}.{}-venv".format(*sys.version_info)
    assert f"sudo apt install {package}" in capsys.readouterr().err


def test_too_little_room_is_told_before_anything_is_made(machine, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1.23e9))
    assert bootstrap.main() == 1 and machine.steps() == []
    assert "1.2 GB are left, and the set-up takes 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "step", "advice"),
    [
        ("-m venv", "virtual environment", "The lines above say why"),
        ("pip>=", "a recent pip", "HTTPS_PROXY"),
        ("torch==", "torch", "HTTPS_PROXY"),
        ("--editable", "packages", "HTTPS_PROXY"),
    ],
)
def test_a_step_that_fails_is_named_with_what_to_try_and_the_next_run_goes_on_from_there(
    machine, capsys, word, step, advice
):
    machine.fails = (word,)
    assert bootstrap.main() == 1
    shown = capsys.readouterr()
    assert f"The set-up stopped at this step: {step}." in shown.err and advice in shown.err
    assert "run the same command again: it goes on from here" in shown.err
    assert "line 49 of the failure" in shown.out and "line 29 " not in shown.out
    done = machine.steps()
    machine.fails = ()
    assert bootstrap.main() == 0
    after = machine.steps()
    failed = next(number for number, words in enumerate(done) if word in words)  # torch is tried twice
    assert after[0] == done[failed] and not set(done[:failed]) & set(after)


def test_a_step_that_fails_on_a_full_disk_says_so(machine, monkeypatch, capsys):
    real = machine.run

    def fill(command, **options):
        if "--editable" in command:
            monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
        return real(command, **options)

    machine.fails = ("--editable",)
    monkeypatch.setattr(subprocess, "run", fill)
    assert bootstrap.main() == 1
    err = capsys.readouterr().err
    assert "this step: packages" in err and "The disk is full." in err and "HTTPS_PROXY" not in err


def test_texts_that_cannot_be_fetched_do_not_stop_the_set_up_and_are_tried_again(machine, capsys):
    machine.fails = ("data fetch",)
    assert bootstrap.main() == 0
    assert "The notebooks run on generated stories until then" in capsys.readouterr().err
    machine.steps()
    machine.fails = ()
    assert bootstrap.main() == 0 and machine.steps() == ["-m minigpt data fetch"]
    assert bootstrap.main() == 0 and machine.steps() == []


def test_ctrl_c_says_that_it_goes_on_from_here_and_it_does(machine, capsys):
    machine.interrupts = ("torch==",)
    assert bootstrap.main() == 130
    assert "Stopped. Run the same command again" in capsys.readouterr().err
    machine.interrupts = ()
    machine.steps()
    assert bootstrap.main() == 0 and len(machine.steps()) == 3


def test_a_folder_that_may_not_be_written_is_told_without_a_traceback(machine, monkeypatch, capsys):
    def in_use(path):
        raise PermissionError(13, "The process cannot access the file", "python.exe")

    bootstrap.VENV.mkdir()
    monkeypatch.setattr(shutil, "rmtree", in_use)
    assert bootstrap.main() == 1
    assert "python.exe" in (err := capsys.readouterr().err) and "Close what uses the folder .venv" in err


def test_an_unknown_part_is_refused(machine, capsys):
    assert bootstrap.main("everything") == 2 and machine.steps() == []
    assert "use course (to learn) or dev (to test and change)" in capsys.readouterr().err


def test_where_somebody_looks_on_a_step_shows_its_own_progress(machine, monkeypatch):
    captured = []
    python(monkeypatch, stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: captured.append(options) or SimpleNamespace(returncode=0)
    )
    bootstrap.run("step", "advice", "command")
    python(monkeypatch, stdout=SimpleNamespace(isatty=lambda: False))
    bootstrap.run("step", "advice", "command")
    assert "stdout" not in captured[0] and captured[1]["stdout"] == subprocess.PIPE


def test_a_second_run_in_a_real_environment_does_nothing(tmp_path, monkeypatch):
    for name in (*FILES, "minigpt/bootstrap.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(bootstrap.__file__).parents[1] / name, tmp_path / name)
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    spec = importlib.util.spec_from_file_location("copy", tmp_path / "minigpt" / "bootstrap.py")
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    packages = copy.answers("import sysconfig; print(sysconfig.get_path('purelib'))")
    (Path(packages) / "pip.py").write_text("assert __name__ != '__main__', 'nothing may be installed'")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    catalog = (tmp_path / FILES[1]).read_bytes()
    for name, also in {"pip": (), "torch": (None,), "dev": (), "llama": (), "texts": (str(cache), catalog)}.items():
        copy.stamp(name).write_text(copy.recipe(*also))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("MINIGPT_DATA", str(cache))
    monkeypatch.delenv("MINIGPT_TORCH", raising=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for part in ("course", "dev"):
        again = subprocess.run([sys.executable, copy.__file__, part], capture_output=True, text=True, timeout=60)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
