"""README and docs: links lead somewhere, generated pages are what the code says, shown commands parse."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex

import pytest

import pip_core
from pip_core.cli.commands import COMMANDS as PROGRAMS
from pip_core.cli.main import build, given_settings
from pip_core.core.recipe import Recipe
from pip_core.data.corpora import KNOWN, SHIPPED
from pip_core.engine.stages import USUAL
from pip_core.evaluation.tasks import NAMES
from pip_core.evaluation.tasks import SHIPPED as SHIPPED_TASKS
from pip_core.scoring import METHODS
from pip_core.structure.families import FAMILIES

from ..processes import run_code
from ..test_structure import PACKAGES
from ..tiny import ROOT
from .pages import PAGES, anchors, blocks, commands, links, options, source_of

LARGEST_README = 6000
GENERATED = ("docs/recipe.md", "docs/recipe.schema.json", "docs/cli.md", "docs/page-and-api.md")
COMMANDS = [(page, line) for page, text in PAGES.items() for line in commands(text)]


def generator():
    """`docs/generate.py` as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    broken = []
    for target in links(PAGES[page]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        name = found.relative_to(ROOT).as_posix()
        if not found.exists() or (anchor and anchor not in anchors(PAGES.get(name, ""))):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_readme():
    linked = set(links(PAGES["README.md"]))
    assert {page for page in PAGES if page != "README.md"} <= linked


def test_readme_is_short():
    """With the fields that the Hub reads."""
    assert len(PAGES["README.md"].encode("utf-8")) <= LARGEST_README


def test_generated_pages_are_up_to_date():
    made = {f"docs/{name}": page() for name, page in generator().PAGES.items()}
    assert set(made) == set(GENERATED)
    stale = [name for name, text in made.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert not stale, "run python docs/generate.py"


def test_commands_are_shown():
    shown = {line.split()[3] for _, line in COMMANDS if line.startswith("python -m pip_core ")}
    assert {"prune", "resume", "undo", "extend", "fork", "compare", "evaluate", "inspect"} <= shown


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_shown_command_parses(page, line):
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "pip_core"]:
        _parse(words[3:])
    elif words[0] == "pip-studio":
        _parse(words[1:])
    elif words[:2] == ["python", "-m"]:
        if words[2] == "pytest":
            return
        path = source_of(words[2])
        assert path is not None, line
        known = path.read_text(encoding="utf-8")
        assert [w for w in words[3:] if w.startswith("--") and f'"{w}"' not in known] == []
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), line
    elif words[:3] == ["pip", "install", "-r"]:
        assert (ROOT / words[3]).is_file(), line


def _parse(words: list[str]) -> None:
    """Let the command line read `words`; a word in capitals in a command's place stands for any."""
    if not words or words[0].isupper():
        return
    known = {function.__name__ for function in PROGRAMS}
    assert words[0] in known
    if words[1:] or words[0] in ("app", "bench", "runs"):
        given_settings(words)


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    """Every option of the command line."""
    found = set()
    for name in (function.__name__ for function in PROGRAMS):
        for parameter in build([name])[0].commands[name].params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_the_text_exist(page, known_options):
    benchmarks = " ".join(p.read_text(encoding="utf-8") for p in (ROOT / "benchmarks").rglob("*.py"))
    unknown = options(PAGES[page]) - known_options - {"--help"}
    assert {option for option in unknown if f'"{option}"' not in benchmarks} == set()


@pytest.mark.parametrize(
    ("page", "code"), [(page, code) for page, text in PAGES.items() for code in blocks(text, "python")]
)
def test_shown_python_imports_what_there_is(page, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pip_core"):
            module = importlib.import_module(node.module)
            assert [a.name for a in node.names if not hasattr(module, a.name)] == []
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pip_core":
            assert node.attr in pip_core.__all__


def test_the_tree_in_the_readme_names_real_folders():
    tree = next(code for code in blocks(PAGES["README.md"], "text") if "pip_core/" in code)
    names = [line.split()[0] for line in tree.splitlines()]
    inside = [line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")]
    missing = [
        name for name in names if not (ROOT / name).exists() and not (ROOT / "pip_core" / name).exists()
    ]
    assert not missing
    assert sorted(inside) == sorted(PACKAGES)


def test_the_architecture_lists_packages_in_their_order():
    page = PAGES["docs/architecture.md"]
    assert tuple(re.findall(r"^\| `(\w+)` \|", page.split("## The stage protocol")[0], re.M)) == PACKAGES
    assert [name for name in (kind.__name__ for kind in USUAL) if name not in page] == []


def test_what_there_is_is_documented():
    assert [m.name for m in METHODS if f"`{m.name}`" not in PAGES["docs/methods.md"]] == []
    families = set(re.findall(r"\w+", PAGES["docs/models.md"]))
    assert [f for f in FAMILIES if f not in families] == []
    evaluation = PAGES["docs/evaluation.md"]
    assert [n for n in (*SHIPPED, *KNOWN, *SHIPPED_TASKS, *NAMES) if f"`{n}`" not in evaluation] == []
    sources = [ROOT / "app.py", *(ROOT / "pip_core").rglob("*.py")]
    variables = {v for p in sources for v in re.findall(r"PIP_STUDIO_[A-Z_]+", p.read_text(encoding="utf-8"))}
    assert {v for v in variables if f"`{v}`" not in PAGES["docs/page-and-api.md"]} == set()
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    packages = re.findall(r"^([a-z_-]+)[>=<~]", required, re.M)
    table = PAGES["README.md"].split("dependency is for")[1]
    assert [p for p in packages if not re.search(rf"\b{p}\b", table)] == []


def test_the_stage_shown_in_the_architecture_joins_a_run(tmp_path, tiny_stage_run):
    """The minimal stage is taken from the page, and a run is made with it in a process of its own."""
    code = next(c for c in blocks(PAGES["docs/architecture.md"], "python") if "class Soften" in c)
    (tmp_path / "soften.py").write_text(code, encoding="utf-8")
    events = tiny_stage_run(tmp_path, "soften:Soften", {"soften": 0.9})
    assert "Softened" in events


@pytest.fixture
def tiny_stage_run(llama_folder):
    """Run the recipe of a tiny model with a further stage; the names of its events."""

    def run(folder, stage: str, settings: dict) -> list[str]:
        recipe = {
            **{"model": str(llama_folder), "target": 0.2, "windows": 2, "window_tokens": 24, "items": 4},
            **{"perplexity_windows": 2, "perplexity_tokens": 32, "units": ("blocks",), "method": "random"},
            **settings,
        }
        script = (
            "from pip_core.engine.run import run\nfrom pip_core.core.recipe import Recipe\n"
            f"for event in run(Recipe(**{recipe!r})): print(type(event).__name__, event)"
        )
        made = run_code(script, PYTHONPATH=str(folder), PIP_STUDIO_STAGES=stage)
        assert made.returncode == 0, made.stderr
        assert "Finished" in made.stdout, made.stdout
        return [line.split()[0] for line in made.stdout.splitlines()]

    return run


def test_every_setting_is_on_the_page_of_recipes():
    page = PAGES["docs/recipe.md"]
    assert [s.name for s in Recipe.settings() if f"`{s.name}`" not in page] == []
