"""The shape of the repository: who may import whom, what lies where, how long a file may be."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
from pathlib import Path

import pytest

from .tiny import ROOT

# From the ground up: a module may import only from those above it in this list.
LAYERS = (
    "reload_check",
    "errors",
    "units",
    "recipe",
    "events",
    "stats",
    "bundled",
    "files",
    "sources",
    "texts",
    "overlap",
    "items",
    "standard",
    "tasks",
    "families",
    "vocabulary",
    "anatomy",
    "shape",
    "sites",
    "rows",
    "machine",
    "streams",
    "views",
    "regression",
    "residual",
    "substitute",
    "scorers.base",
    "scorers.tokens",
    "scorers.weights",
    "scorers.watch",
    "scorers.moments",
    "scorers.chance",
    "scorers.domains",
    "scorers.entropy",
    "scorers.flap",
    "scorers.gate",
    "scorers.influence",
    "scorers.magnitude",
    "scorers.pip",
    "scorers.sleb",
    "scorers.taylor",
    "scorers",
    "goals",
    "allocate",
    "clock",
    "surgery",
    "uneven",
    "folder",
    "hub",
    "checkpoint",
    "refit",
    "latency",
    "encoding",
    "likelihood",
    "evaluation",
    "narrate",
    "card",
    "export",
    "measure",
    "repair",
    "history",
    "schedule",
    "course",
    "ending",
    "engine",
    "runs",
    "steering",
    "story",
    "listing",
    "cleaning",
    "studio",
    "plan",
    "preflight",
    "compare",
    "chat",
    "disagree",
    "page",
    "page.html",
    "page.ink",
    "page.words",
    "page.verdicts",
    "page.network",
    "page.form",
    "page.heatmap",
    "page.curves",
    "page.live",
    "page.comparison",
    "page.inspection",
    "page.download",
    "page.glance",
    "page.desk",
    "page.talk",
    "comparison",
    "bench",
    "commands",
    "__main__",
)
TOP_LEVEL = {
    "app.py",
    "pip_core",
    "assets",
    "benchmarks",
    "tests",
    "requirements.txt",
    "README.md",
    "pyproject.toml",
}
LONGEST = 400
PACKAGE = ROOT / "pip_core"


def module_name(path: Path) -> str:
    """`scorers.pip` for `pip_core/scorers/pip.py`; the package's own `__init__` is the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


FILES = {module_name(p): p for p in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str, source: str, is_package: bool = False) -> set[str]:
    """Absolute names of everything `source` imports, wherever in the file it does so."""
    home = ["pip_core", *(p for p in name.split(".") if p)]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (1 if is_package else 0)
            base = home[: len(home) - up] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
        ):
            found.add("an import by name, which this test cannot follow")
    return found


def used_modules(name: str) -> set[str]:
    """The modules of pip_core that `name` imports."""
    path = FILES[name]
    used = set()
    for full in imports_of(name, path.read_text(encoding="utf-8"), path.name == "__init__.py"):
        parts = full.split(".")
        if parts[0] != "pip_core":
            continue
        # `from .events import Event` names a thing in a module: find the module.
        while ".".join(parts[1:]) not in FILES:
            parts.pop()
        used.add(".".join(parts[1:]))
    return used


GRAPH = {name: used_modules(name) for name in FILES}


def test_imports_are_read_wherever_they_stand():
    source = """
import json
from . import events as ev
from .recipe import Recipe
from ..texts import ASSETS
def late():
    from .runs import work
    import gradio.themes
"""
    assert imports_of("scorers.gate", source) == {
        "json",
        "pip_core.scorers.events",
        "pip_core.scorers.recipe.Recipe",
        "pip_core.texts.ASSETS",
        "pip_core.scorers.runs.work",
        "gradio.themes",
    }
    assert imports_of("scorers", "from .base import Scorer", is_package=True) == {
        "pip_core.scorers.base.Scorer"
    }
    assert "recipe" in GRAPH["__main__"]


def test_every_module_has_its_layer():
    assert set(FILES) - {""} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_only_from_lower_layers(name):
    lower = {"", *LAYERS[: LAYERS.index(name)]}
    assert GRAPH[name] <= lower, f"{name} imports upwards: {sorted(GRAPH[name] - lower)}"


def test_the_package_itself_imports_nothing():
    assert GRAPH[""] == set()


def test_no_cycles():
    order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    assert set(order) == set(FILES)


@pytest.mark.parametrize("name", sorted(FILES))
def test_engine_knows_no_page(name):
    used = imports_of(name, FILES[name].read_text(encoding="utf-8"))
    assert not {u for u in used if u.split(".")[0] in ("gradio", "app", "tests")}
    assert not {u for u in used if u.startswith("an import by name")}


def test_reload_check_knows_nothing_of_this_project():
    assert GRAPH["reload_check"] == set()
    assert "pip_core" not in FILES["reload_check"].read_text(encoding="utf-8")


def test_only_the_page_imports_gradio():
    importers = {
        p.relative_to(ROOT).as_posix()
        for p in [*ROOT.glob("*.py"), *PACKAGE.rglob("*.py")]
        if any(u.split(".")[0] == "gradio" for u in imports_of("", p.read_text(encoding="utf-8")))
    }
    assert importers == {"app.py"}


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
    ]
]


@pytest.mark.parametrize("name", sorted(PYTHON_FILES))
def test_files_are_short(name):
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    assert lines < LONGEST, f"{name} has {lines} lines"


def test_readme_and_ci_run_the_same_tests():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = "\n".join(re.findall(r"^```[a-z]*\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE))
    commands = [line for line in shown.splitlines() if re.search(r"\bpytest\b", line)]
    assert commands, "the README shows no test command"
    run_by_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [c for c in commands if c not in run_by_ci] == []
