"""The rules of the files around the package: environments, set-up, workflow, README, and what no file may contain."""

import ast
import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import minigpt
from minigpt import bootstrap

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
GENERATED = re.compile(  # what .gitignore names, for a copy without git
    r"(^|/)(\.git|\.venv|build|runs|data/cache|__pycache__|\.\w+_cache|\.hypothesis|\.ipynb_checkpoints|[^/]+\.egg-info)/"
)


def _git(*arguments: str) -> list[str] | None:
    """The paths that git lists, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments, "-z"], cwd=PROJECT, capture_output=True, text=True, encoding="utf-8")
    except OSError:
        return None
    return None if done.returncode else [path for path in done.stdout.split("\0") if path]


def _files() -> list[Path]:
    """What is in git or could be added to it; without git, what is no cache and no build."""
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard")
    if listed is not None:
        return sorted(path for path in {PROJECT / name for name in listed} if path.is_file())
    walked = (path for path in PROJECT.rglob("*") if path.is_file())
    return sorted(path for path in walked if not GENERATED.search(path.relative_to(PROJECT).as_posix()))


FILES = _files()
NAMES = {path.relative_to(PROJECT).as_posix() for path in FILES}


def _text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def _without_pictures(path: Path) -> str:
    """The text of a file; empty for a binary one. A picture in a notebook is letters that mean nothing."""
    content = path.read_bytes()
    if b"\0" in content:
        return ""
    return re.sub(r'"image/png": "[^"]*"', "", content.decode("utf-8", "replace"))


# The words below are written in two parts, so that this file does not contain them.
FORBIDDEN = {
    "a path of the machine it was written on": rf"(?<![\w.~-])/{'(work|root|home|tmp|Users)'}/[\w.-]|[A-Z]:\\\\?Users\\",
    "the host of a package registry": r"(pypi|pythonhosted|npmjs|anaconda|yarnpkg)"
    + r"\.(org|com)|download\.pytorch"
    + r"\.org",
    "a task left for later": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}
DELIBERATE = {("minigpt/bootstrap.py", "the host of a package registry")}  # PyTorch's own index of builds for CPUs


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what):
    found = {}
    for path in FILES:
        name = path.relative_to(PROJECT).as_posix()
        hit = re.search(FORBIDDEN[what], _without_pictures(path))
        if hit and (name, what) not in DELIBERATE:
            found[name] = hit[0]
    assert not found


def test_code_is_formatted_and_linted():
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed; make setup-dev")
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=PROJECT, capture_output=True, text=True, encoding="utf-8"
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\nmake lint mends most of it"


def test_binder_has_the_same_environment():
    assert (PROJECT / "environment.yml").read_bytes() == (PROJECT / "binder/environment.yml").read_bytes()


def _pins() -> dict[str, str]:
    entries = yaml.safe_load(_text("environment.yml"))["dependencies"]
    entries += entries.pop()["pip"] if isinstance(entries[-1], dict) else []  # what conda-forge lacks comes by pip
    return dict(re.split("=+", entry) for entry in entries)


def test_every_package_of_the_environment_has_a_minor_pin_and_a_reason():
    environment = yaml.safe_load(_text("environment.yml"))
    assert environment["channels"] == ["conda-forge"]
    lines = _text("environment.yml").partition("dependencies:\n")[2].splitlines()
    assert len(lines) == len(_pins()) + ("  - pip:" in lines)
    for line in lines:
        assert line == "  - pip:" or re.fullmatch(r"(  - [\w-]+=|      - [\w-]+==)\d+\.\d+ +# \w.{9,}", line), (
            f"{line!r}: NAME=MAJOR.MINOR  # why it is there"
        )


def _requirements() -> dict[str, SpecifierSet]:
    project = PYPROJECT["project"]
    listed = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["course"]])
    return {requirement.name: requirement.specifier for requirement in listed}


def test_the_environment_holds_what_the_course_needs_in_versions_that_it_allows():
    pins = {CONDA_NAMES.get(name, name): version for name, version in _pins().items()}
    python = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert python.contains(pins.pop("python")) and pins.pop("pip")
    requirements = _requirements()
    assert pins.keys() == requirements.keys()
    outside = {
        name: version
        for name, version in pins.items()
        if not all(map(requirements[name].contains, (f"{version}.0", f"{version}.999")))  # a pin allows any patch
    }
    assert not outside


def test_what_is_said_twice_is_said_alike():
    project, oldest = PYPROJECT["project"], ".".join(map(str, bootstrap.OLDEST))
    assert project["version"] == minigpt.__version__
    assert yaml.safe_load(_text("CITATION.cff"))["version"] == minigpt.__version__
    assert project["requires-python"] == f">={oldest}"
    assert _requirements()["torch"].contains(bootstrap.TORCH)
    in_the_makefile = re.search(r"(\([\d, ]+\)) <= sys\.version_info\[:2\] <= (\([\d, ]+\))", _text("Makefile"))
    assert tuple(map(ast.literal_eval, in_the_makefile.groups())) == (bootstrap.OLDEST, bootstrap.NEWEST)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mark")
@pytest.mark.parametrize("name", [".ci/run", "binder/postBuild"])
def test_a_script_can_be_run(name):
    assert (PROJECT / name).stat().st_mode & 0o111 == 0o111
    assert _text(name).startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in _text(name)


def test_ci_runs_the_command_of_the_readme():
    assert "make test" in _text(".ci/run").splitlines()
    assert "make test" in _text("README.md")


def test_the_workflow_covers_three_systems_with_the_oldest_and_the_newest_python():
    workflow = yaml.safe_load(_text(".github/workflows/test.yml"))
    assert workflow["permissions"] == {"contents": "read"}
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert sorted(system.partition("-")[0] for system in matrix["os"]) == ["macos", "ubuntu", "windows"]
    assert matrix["python"] == [".".join(map(str, version)) for version in (bootstrap.OLDEST, bootstrap.NEWEST)]
    commands = " ".join(step.get("run", "") for step in workflow["jobs"]["test"]["steps"])
    assert "make test" in commands and "-m pytest" in commands


def tree(readme: str) -> dict[str, str]:
    """The paths of the README's tree and what it says of each; a folder ends in a slash.

    The tree is the fenced block with a line for README.md. A line is a name, two spaces or more, and what it is; a line
    that is indented further lies in the folder above it. A name may be a pattern (test_*.py).
    """
    block = next(block for block in re.findall(r"^```\w*\n(.*?)^```", readme, re.S | re.M) if "README.md " in block)
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, block.splitlines()):
        parts = re.fullmatch(r"( *)(\S+)  +(\S.*)", line)
        assert parts, f"{line!r} is no name with a word on what it is"
        indent, name, what = parts.groups()
        while folders and folders[-1][0] >= len(indent):
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        found[path] = what
        if name.endswith("/"):
            folders.append((len(indent), path))
    return found


def test_the_tree_is_read_as_it_looks():
    readme = (
        "# x\n\n```\nREADME.md   this\na/          one\n  b/        two\n    c.py    three\n  d.py      four\n```\n"
    )
    assert tree(readme) == {"README.md": "this", "a/": "one", "a/b/": "two", "a/b/c.py": "three", "a/d.py": "four"}


def test_the_tree_of_the_readme_names_every_file_and_nothing_else():
    listed = tree(_text("README.md"))
    everything = NAMES | {f"{parent.as_posix()}/" for name in NAMES for parent in Path(name).parents if parent.name}
    missing = [path for path in listed if not fnmatch.filter(everything, path)]
    assert not missing, "in the tree and not on the disk"
    opened = {path for path in listed if path.endswith("/") and any(p != path and p.startswith(path) for p in listed)}
    assert "minigpt/" in opened
    unlisted = []
    for path in everything:
        parent = "/".join(path.rstrip("/").split("/")[:-1])
        visible = not path.startswith(".") and Path(path).name != "__init__.py"
        if visible and (not parent or f"{parent}/" in opened) and not any(fnmatch.fnmatch(path, p) for p in listed):
            unlisted.append(path)
    assert not unlisted, "on the disk and not in the tree; a folder that is opened there has a line for each file"


def test_the_table_of_the_readme_lists_the_notebooks_with_minutes_and_memory():
    rows = re.findall(r"^\| *\[(\d\d) (.+?)\]\((notebooks/\S+?)\) *\|(.*)\|$", _text("README.md"), re.M)
    there = sorted(name for name in NAMES if re.fullmatch(r"notebooks/\d\d_\w+\.ipynb", name))
    assert [path for *_, path, _ in rows] == there
    for number, title, path, cells in rows:
        head = "".join(json.loads(_text(path))["cells"][0]["source"])
        assert head.startswith(f"# {number} · {title}\n"), path
        minutes, memory = (float(cell) for cell in cells.split("|")[-2:])
        assert 0 < minutes < 10 and 0 < memory <= 1.5, f"{path}: minutes and GB of memory, as measured"
