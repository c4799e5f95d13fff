"""The package as others meet it: what it exports, what importing it does, what is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

import pip_core
from pip_core.comparing import sweep
from pip_core.core import environment, paths
from pip_core.core.errors import UserError
from pip_core.runs.worker import launch

from . import tiny
from .processes import warm_server
from .tiny import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:  # in the standard library from 3.11 on; pytest brings it before
    import tomli as tomllib

PUBLIC = ["Recipe", "compare", "evaluate", "inspect", "load", "run"]
FRESH = """
import json, os, sys
before, loaded = dict(os.environ), set(sys.modules)
import pip_core
listed = dir(pip_core)
others = {name.partition(".")[0] for name in set(sys.modules) - loaded} - set(sys.stdlib_module_names)
found = {"others": sorted(others), "changed": dict(os.environ) != before, "listed": listed}
pip_core.Recipe(target=0.3).units
found["after"] = [n for n in os.environ if os.environ[n] != before.get(n)]
import app
found["made"] = os.listdir()
print(json.dumps(found))
"""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def required(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and line[0] not in "#-"]


def test_importing_the_package_or_the_page_does_nothing_else(tmp_path):
    bare = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, cwd=tmp_path, env=bare, check=True
    )
    found = json.loads(done.stdout)
    # No library is imported before something of the package is used, so that this takes no time.
    assert found["others"] == ["pip_core"]
    assert not found["changed"]
    assert "runs" not in found["made"]
    assert set(PUBLIC) <= set(found["listed"])
    # Nor does making a recipe, which imports the engine. (Libraries may set variables of their own.)
    assert not set(found["after"]) & set(environment.VARIABLES)


def test_programs_prepare_the_environment_and_leave_what_the_user_set(monkeypatch):
    for name in environment.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    environment.prepare_environment()
    changed = {name: os.environ[name] for name in environment.VARIABLES}
    assert changed == {**environment.VARIABLES, "GOMP_SPINCOUNT": "7"}


AT_TORCH = """
import os, runpy, sys
class AtTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, AtTorch())
sys.path.insert(0, os.getcwd())
"""
PAGE = "runpy.run_path('app.py', run_name='__main__')"
COMMAND = "sys.argv[1:] = ['prune', '--help']; runpy.run_module('pip_core', run_name='__main__')"


@pytest.mark.parametrize("program", [PAGE, COMMAND], ids=["page", "command"])
def test_programs_prepare_the_environment_before_torch_is_imported(program):
    inherited = {n: v for n, v in os.environ.items() if n not in environment.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", AT_TORCH + program], capture_output=True, text=True, cwd=ROOT, env=inherited
    )
    assert done.stdout.strip() == environment.VARIABLES["GOMP_SPINCOUNT"], done.stderr


def test_what_the_package_exports():
    assert sorted(pip_core.__all__) == PUBLIC
    for name in PUBLIC:
        exported = getattr(pip_core, name)
        assert exported.__doc__.strip()
        assert getattr(pip_core, name) is exported
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        _ = pip_core.prune  # type: ignore[attr-defined]


def test_load_gives_a_model_that_generates(llama_folder):
    model, tokenizer = pip_core.load(str(llama_folder), dtype="float32")
    ids = tokenizer("The dog ran", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    with pytest.raises(UserError, match="Number format: enter"):
        pip_core.load(str(llama_folder), dtype="int4")


def test_load_reads_what_no_plain_config_describes(llama_folder, tasks, tmp_path):
    recipe = tiny.recipe_for(llama_folder, tasks, units=("mlp",), plain=False, target=0.1, measure="end")
    *_, last = pip_core.run(recipe, out=tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    model, tokenizer = pip_core.load(str(tmp_path / "model"))
    assert sum(p.numel() for p in model.parameters()) == last.parameters
    assert tokenizer("word").input_ids


def test_inspect_and_evaluate(llama_folder, tasks):
    found = pip_core.inspect(str(llama_folder), target=0.3)
    assert (found.blocks, found.target) == (5, 0.3)
    result = pip_core.evaluate(str(llama_folder), tasks=tasks, items=4, dtype="float32", perplexity_windows=2)
    assert [t.items for t in result.tasks] == [4, 4]
    with pytest.raises(UserError, match="colour"):
        pip_core.evaluate(str(llama_folder), colour="red")


def test_compare_gives_rows(llama_folder, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "launch", partial(launch, server=warm_server()))
    settings = tiny.recipe_for(llama_folder, tasks, measure="end").to_dict()
    kept = ("target", "calibration", "windows", "window_tokens", "items", "perplexity_windows", "dtype")
    given = {name: settings[name] for name in (*kept, "perplexity_tokens", "model", "tasks", "measure")}
    told = []
    rows = pip_core.compare(
        tmp_path / "all",
        ["random", "magnitude"],
        export=False,
        on_event=lambda label, event: told.append(label),
        units=("blocks",),
        **given,
    )
    assert [row.label for row in rows] == ["dense", "random", "magnitude"]
    assert len(rows) == 3
    assert set(told) == {"random", "magnitude"}
    assert (tmp_path / "all" / "comparison.csv").is_file()
    with pytest.raises(UserError, match="methods"):
        pip_core.compare(tmp_path / "none")


def test_requirements_agree():
    declared = project()["project"]
    assert declared["dependencies"] == required("requirements.txt")
    assert declared["optional-dependencies"]["dev"] == required("tests/requirements.txt")
    assert declared["optional-dependencies"]["benchmarks"] == required("benchmarks/requirements.txt")
    assert declared["version"] == pip_core.__version__


def test_every_library_that_is_imported_is_required():
    """As far as it is not part of one that is required."""
    # Of transformers, torch, pydantic and gradio.
    parts = {"huggingface_hub", "safetensors", "tokenizers", "numpy", "typing_extensions", "starlette"}
    named = {re.split(r"[<>=]", line)[0].replace("-", "_") for line in required("requirements.txt")}
    imported = set()
    for path in [ROOT / "app.py", *(ROOT / "pip_core").rglob("*.py")]:
        found = re.findall(r"^\s*(?:from|import) ([a-zA-Z_]\w*)", path.read_text(encoding="utf-8"), re.M)
        imported |= set(found)
    imported -= set(sys.stdlib_module_names) | {"pip_core", "app"}
    installed = {name for name in imported if importlib.util.find_spec(name)}
    assert installed - named - parts == set()


def test_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "PIP Studio contributors" in text
    assert project()["project"]["license"] == "Apache-2.0"


def test_a_wheel_holds_what_the_command_needs(tmp_path):
    """Assets and page are inside the package, where `core.paths` finds them."""
    pytest.importorskip("hatchling")
    build = "import sys\nfrom hatchling.build import build_wheel\nprint(build_wheel(sys.argv[1]))"  # PEP 517
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheel = tmp_path / done.stdout.splitlines()[-1]
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(tmp_path / "site")
    shipped = {p.relative_to(ROOT).as_posix() for p in paths.ASSETS.rglob("*") if p.is_file()}
    assert {f"pip_core/{name}" for name in shipped} <= names
    assert {"pip_core/app.py", "pip_core/__main__.py"} <= names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/")) or "__pycache__" in n]
    entry = next(n for n in names if n.endswith("entry_points.txt"))
    assert "pip-studio = pip_core.__main__:run" in (tmp_path / "site" / entry).read_text()
    inspected = subprocess.run(
        [sys.executable, "-m", "pip_core", "inspect", "--model", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert inspected.returncode == 0, inspected.stderr
    assert "14 blocks" in inspected.stdout
    where = "import pip_core.core.paths as p; print(p.ASSETS.parent.name, p.PAGE.parent.name)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["pip_core", "pip_core"]


def test_in_the_repository_assets_and_page_lie_beside_the_package():
    assert paths.ASSETS == ROOT / "assets"
    assert paths.PAGE == ROOT / "app.py"
    assert isinstance(paths.ROOT, Path)
