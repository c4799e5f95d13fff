"""The shape of the repository: which package may import which, what lies where, how long a file may be."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from .tiny import ROOT

# From the ground up: a package imports only from itself and from those before it in this list.
PACKAGES = (
    "core",
    "structure",
    "data",
    "reconstruction",
    "checkpoints",
    "evaluation",
    "scoring",
    "recovery",
    "inspection",
    "budget",
    "reporting",
    "engine",
    "runs",
    "planning",
    "comparing",
    "ui",
    "cli",
)
TOP_LEVEL = {
    "app.py",
    "pip_core",
    "assets",
    "benchmarks",
    "docs",
    "tests",
    "requirements.txt",
    "README.md",
    "LICENSE",
    "pyproject.toml",
}
LONGEST = 420
PACKAGE = ROOT / "pip_core"


def module_name(path: Path) -> str:
    """`scoring.pip` for `pip_core/scoring/pip.py`; the package's own `__init__` is the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


FILES = {module_name(p): p for p in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str, source: str, is_package: bool = False, types: bool = True) -> set[str]:
    """Absolute names of everything `source` imports, wherever in the file it does so.

    Args:
        types: also what is imported for type checkers alone.
    """
    home = ["pip_core", *(p for p in name.split(".") if p)]
    found = set()
    tree = ast.parse(source)
    if not types:
        tree.body = [
            n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (1 if is_package else 0)
            base = home[: len(home) - up] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def used_modules(name: str, types: bool = True) -> set[str]:
    """The modules of pip_core that `name` imports."""
    path = FILES[name]
    used = set()
    for full in imports_of(name, path.read_text(encoding="utf-8"), path.name == "__init__.py", types):
        parts = full.split(".")
        if parts[0] != "pip_core":
            continue
        # `from .events import Event` names a thing in a module: find the module.
        while ".".join(parts[1:]) not in FILES:
            parts.pop()
        used.add(".".join(parts[1:]))
    return used - {name}


GRAPH = {name: used_modules(name) for name in FILES}


def test_imports_are_read_wherever_they_stand():
    source = """
import json
from . import base
from ..core.recipe import Recipe
def late():
    from ..runs.run_directory import work
    import gradio.themes
"""
    assert imports_of("scoring.pip_gate", source) == {
        "json",
        "pip_core.scoring.base",
        "pip_core.core.recipe.Recipe",
        "pip_core.runs.run_directory.work",
        "gradio.themes",
    }
    assert imports_of("scoring", "from .base import Scorer", is_package=True) == {
        "pip_core.scoring.base.Scorer"
    }
    assert "core.recipe" in GRAPH["scoring.base"] | GRAPH["runs.run_directory"]


def test_nothing_lies_flat_in_the_package():
    assert {name for name in FILES if "." not in name and FILES[name].name != "__init__.py"} == {"__main__"}


def test_every_package_is_in_the_list():
    assert {name.split(".")[0] for name in FILES} - {"", "__main__"} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_those_before_it(package):
    allowed = set(PACKAGES[: PACKAGES.index(package) + 1])
    upwards = {
        f"{name} -> {used}"
        for name in FILES
        if name.split(".")[0] == package
        for used in GRAPH[name]
        if used.split(".")[0] not in allowed
    }
    assert not upwards


def test_no_cycles_between_modules():
    order = list(graphlib.TopologicalSorter({n: used_modules(n, types=False) for n in FILES}).static_order())
    assert set(order) == set(FILES)


def test_the_package_knows_no_page_and_no_tests():
    used = {
        f"{name} imports {used}"
        for name, path in FILES.items()
        for used in imports_of(name, path.read_text(encoding="utf-8"))
        if used.split(".")[0] in ("gradio", "app", "tests")
    }
    assert not used


def test_reload_check_knows_nothing_of_this_project():
    assert GRAPH["checkpoints.reload_check"] == set()
    assert "pip_core" not in FILES["checkpoints.reload_check"].read_text(encoding="utf-8")


def test_only_the_page_imports_gradio():
    importers = {
        p.relative_to(ROOT).as_posix()
        for p in [*ROOT.glob("*.py"), *PACKAGE.rglob("*.py")]
        if any(u.split(".")[0] == "gradio" for u in imports_of("", p.read_text(encoding="utf-8")))
    }
    assert importers == {"app.py"}


def test_tests_mirror_the_packages():
    mirrored = {p.name for p in (ROOT / "tests").iterdir() if (p / "__init__.py").is_file()}
    # The page in a real browser; README and docs; attacks; a bad day.
    assert mirrored == {*PACKAGES, "browser", "docs", "security", "faults"}
    # What concerns the repository or the package as a whole has no room of its own.
    whole = {"test_structure.py", "test_package.py"}
    assert {p.name for p in (ROOT / "tests").glob("test_*.py")} == whole


def test_tests_import_nothing_private():
    private = {
        f"{path.relative_to(ROOT).as_posix()} imports {used}"
        for path in (ROOT / "tests").rglob("*.py")
        for used in imports_of("", path.read_text(encoding="utf-8"))
        if re.match(r"pip_core\..*\._[a-zA-Z]", used)
    }
    assert not private


def test_top_level_is_what_it_should_be():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {n for n in names if not n.startswith(".")} == TOP_LEVEL


PYTHON_FILES = [
    p.relative_to(ROOT).as_posix()
    for p in [
        *ROOT.glob("*.py"),
        *PACKAGE.rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "docs").glob("*.py"),
    ]
]


def test_files_are_short():
    lines = {name: (ROOT / name).read_text(encoding="utf-8").count("\n") for name in PYTHON_FILES}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_readme_and_ci_run_the_same_tests():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = "\n".join(re.findall(r"^```[a-z]*\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE))
    commands = [line for line in shown.splitlines() if re.search(r"\bpytest\b", line)]
    assert commands, "the README shows no test command"
    run_by_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [c for c in commands if c not in run_by_ci] == []


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all tests run in one process")
def test_tests_of_a_file_run_in_one_process(request):
    """They share fixtures that are dear. xdist marks the groups of `tests/conftest.py` in the ids."""
    assert request.node.nodeid.endswith("@test_structure.py")
