"""The command line: exit codes, one line for each mistake, and folders of others left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core.cli import commands
from pip_core.cli import main as command
from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.runs import run_directory

from .. import tiny, zoo
from ..bypass import logits_without
from ..processes import cli


@pytest.fixture(autouse=True)
def _signals():
    """The command takes over Ctrl-C; give it back to the test run."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def options(recipe) -> list[str]:
    """The tiny recipe as options, without a model."""
    return [
        f"--{name.replace('_', '-')}={','.join(value) if isinstance(value, tuple) else value}"
        for name, value in recipe.to_dict().items()
        if name != "model"
    ]


def refused(capsys, *arguments) -> str:
    """Run a command that must fail by the user's mistake; returns its one line."""
    assert command.main([str(a) for a in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    assert "Traceback" not in errors
    return errors


def test_prune(command_run):
    done, folder = command_run.process, command_run.folder
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert any("Will remove 2 of 5 blocks" in line for line in lines)
    assert sum(line.startswith("Removed block ") for line in lines) == 2
    assert lines[-2].startswith("Exported")
    assert lines[-1].startswith("Finished in")
    assert {p.name for p in folder.iterdir()} == {"recipe.json", "events.jsonl", "model", "worker.lock"}
    assert tiny.asked_recipe(folder) == command_run.recipe


def test_pruned_model_is_the_dense_one_with_blocks_bypassed(command_run):
    told = run_directory.read_events(command_run.folder)
    (finished,) = tiny.only(told, ev.Finished)
    gone = [block for e in tiny.only(told, ev.Removed) for block in e.blocks]
    model = AutoModelForCausalLM.from_pretrained(command_run.folder / "model").eval()
    AutoTokenizer.from_pretrained(command_run.folder / "model")
    dense, rows = zoo.build("llama"), tiny.token_rows(2, 30)
    torch.testing.assert_close(model(rows).logits, logits_without(dense, rows, gone), rtol=0, atol=1e-5)
    made = json.loads((command_run.folder / "model" / "pip_recipe.json").read_text())
    assert made["removed"] == finished.removed_description == "2 of 5 blocks"
    card = (command_run.folder / "model" / "README.md").read_text()
    assert f"from 0): {', '.join(f'block {b}' for b in gone)}" in card
    assert "--recipe pip_recipe.json" in card


def test_the_exported_recipe_makes_the_model_again(command_run, tmp_path, monkeypatch, capsys):
    recipe, out = command_run.folder / "model" / "pip_recipe.json", tmp_path / "again"
    assert command.main(["prune", "--recipe", str(recipe), "--out", str(out), "--items", "2"]) == 0
    assert tiny.asked_recipe(out) == command_run.recipe.replace(items=2)
    ours, theirs = (f / "model" / "model.safetensors" for f in (out, command_run.folder))
    assert ours.read_bytes() == theirs.read_bytes()
    assert "Finished" in capsys.readouterr().out


def test_options_are_the_recipe(options, llama_folder, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "work", lambda folder, **_: 0)
    arguments = ["prune", "--model", str(llama_folder), "--out", str(tmp_path / "run"), *options]
    assert command.main(arguments) == 0
    assert tiny.asked_recipe(tmp_path / "run") == recipe


def test_evaluate_json(llama_folder, tasks, capsys):
    arguments = ["evaluate", "--model", str(llama_folder), "--tasks", ",".join(tasks), "--limit", "4"]
    arguments += ["--perplexity-windows", "2"]
    assert command.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["windows"] == 2
    assert found["blocks"] == zoo.BLOCKS
    assert found["iteration"] == 0
    assert [(t["name"], t["items"]) for t in found["tasks"]] == [("choices", 4), ("words", 4)]
    assert found["perplexity"] > 1
    assert found["window_tokens"] == 256
    assert command.main(arguments) == 0
    table = capsys.readouterr().out
    assert f"perplexity {found['perplexity']:,.2f} ± {found['perplexity_se']:,.2f}" in table
    assert "choices" in table


def test_evaluate_a_run(command_run, tasks, capsys):
    whole = tuple(f"--tasks={t}" for t in tasks[:1])
    assert command.main(["evaluate", "--model", str(command_run.folder), *whole, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == zoo.BLOCKS - 2
    assert found["tasks"][0]["items"] == 8


def test_mistakes_in_a_process_of_their_own(llama_folder, tmp_path, options):
    done = cli("prune", "--model", llama_folder, "--out", tmp_path / "run", *options, "--target=0.999")
    assert done.returncode == 2
    assert done.stderr.startswith("error: A target of 99.9 % would leave no block")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--target=0", "A target of 0 % cannot be pruned"),
        ("--target=1", "A target of 100 % cannot be pruned"),
        ("--target=0.999", "would leave no block"),
        ("--method=magic", "Unknown method 'magic'"),
        ("--model=/nowhere/at/all", "The folder '/nowhere/at/all' does not exist"),
        ("--model=no spaces allowed", "is neither a folder nor a Hub id"),
        ("--calibration=gone.txt", "The calibration text 'gone.txt' does not exist"),
        ("--heldout=gone.txt", "The held-out text 'gone.txt' does not exist"),
        ("--tasks=gone.jsonl", "The task 'gone.jsonl' does not exist"),
        ("--tasks=,", "Tasks: choose at least one"),
        ("--kinds=shout", "Misspellings: enter one or more of swap"),
        ("--dtype=int4", "Number format: enter one of auto, float32, bfloat16"),
        ("--windows=0", "Windows: enter a whole number"),
        ("--window-tokens=300", "This model reads at most 256 tokens"),
    ],
)
def test_mistakes(capsys, llama_folder, tmp_path, options, option, message):
    line = refused(capsys, "prune", "--model", llama_folder, "--out", tmp_path / "run", *options, option)
    assert message in line


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\x7fELF\x00\x01\x02", "is not UTF-8 text")]
)
def test_unreadable_calibration(capsys, llama_folder, tmp_path, options, content, message):
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    model = ("--model", llama_folder, "--out", tmp_path / "run")
    assert message in refused(capsys, "prune", *model, *options, f"--calibration={path}")


def test_bad_task(capsys, llama_folder, tmp_path, options):
    path = tmp_path / "own.jsonl"
    path.write_text('{"query": "x", "choices": ["a", "b"], "gold": 2}\n')
    model = ("--model", llama_folder, "--out", tmp_path / "run")
    line = refused(capsys, "prune", *model, *options, f"--tasks={path}")
    assert "own.jsonl, row 1: 'gold' is 2" in line


def odd_folder(llama_folder: Path, target: Path, **changes) -> Path:
    """A copy of the tiny checkpoint with another config."""
    shutil.copytree(llama_folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "mystery", "auto_map": {"AutoModelForCausalLM": "modeling.Mystery"}},
            "needs code from its own repository",
        ),
        ({"model_type": "mystery"}, "does not know the model type 'mystery'"),
        ({"model_type": None}, "does not know the model type 'None'"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "not a text-generating"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a text-generating decoder"),
        ({"num_hidden_layers": 1}, "single block"),
        ({"num_hidden_layers": 9}, "lacks 36 tensors that its config promises"),
        ({"intermediate_size": 48}, "Its config is for another model"),
        ({"hidden_size": "big"}, "could not be loaded"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "is quantised",
        ),
    ],
)
def test_models_that_cannot_be_pruned(capsys, llama_folder, tmp_path, options, changes, message):
    model = odd_folder(llama_folder, tmp_path / "model", **changes)
    line = refused(capsys, "prune", "--model", model, "--out", tmp_path / "run", *options)
    assert message in line
    assert not (tmp_path / "run" / "model").exists()


def test_an_encoder(capsys, tokenizer, tmp_path, options):
    model = tiny.save_bert(tmp_path / "bert", tokenizer)
    line = refused(capsys, "prune", "--model", model, "--out", tmp_path / "run", *options)
    assert "not a text-generating decoder (model type 'bert', BertForMaskedLM)" in line


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "holds no safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"not weights"), "is damaged or not whole"),
        (lambda f: (f / "config.json").unlink(), "holds no model (no config.json)"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a model's config"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "could not be loaded"),
    ],
    ids=["pickle", "bad weights", "no config", "torn config", "odd config", "bad tokenizer"],
)
def test_damaged_folders(capsys, llama_folder, tmp_path, options, spoil, message):
    model = odd_folder(llama_folder, tmp_path / "model")
    spoil(model)
    line = refused(capsys, "prune", "--model", model, "--out", tmp_path / "run", *options)
    assert message in line


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_out_that_is_not_ours_is_left_alone(capsys, llama_folder, tmp_path, options, kind):
    out = tmp_path / "precious"
    inside = out / "mine.txt" if kind == "folder" else out
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("mine")
    line = refused(capsys, "prune", "--model", llama_folder, "--out", out, *options)
    assert "not a run of ours" in line
    assert inside.read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == (2 if kind == "folder" else 1)


def test_out_that_holds_a_run(capsys, command_run):
    before = (command_run.folder / "events.jsonl").read_bytes()
    line = refused(capsys, "prune", "--model", "x/y", "--out", command_run.folder)
    assert "already holds a run" in line
    assert "python -m pip_core resume" in line
    assert (command_run.folder / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["resume", "export"])
def test_no_run_to_go_on_with(capsys, tmp_path, name):
    assert "is not a run" in refused(capsys, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_export(capsys, tmp_path, recipe):
    run_directory.create(tmp_path / "run", recipe)
    assert "Nothing has been removed yet" in refused(capsys, "export", tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"{", "not valid JSON"),
        (b'{"targt": 1}', "targt"),
        (b'{"recipe": {"target": 2}}', "A target of 200 % cannot be pruned"),
    ],
)
def test_bad_recipe_files(capsys, tmp_path, content, message):
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_bytes(content)
    assert message in refused(capsys, "prune", "--recipe", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mistakes_of_evaluate(capsys, llama_folder):
    assert "does not exist" in refused(capsys, "evaluate", "--model", "./nowhere")
    assert "cannot be negative" in refused(capsys, "evaluate", "--model", llama_folder, "--limit=-1")
    assert "Unknown task" in refused(capsys, "evaluate", "--model", llama_folder, "--tasks=chess")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "command"),
        (["dance"], "dance"),
        (["prune"], "--out"),
        (
            ["prune", "--out=x", "--target=much"],
            "How much: enter a number above 0 and below 1, not 'much'. The option is --target.",
        ),
        (["prune", "--out=x", "--colour=red"], "--colour"),
        (["prune", "--out=x", "--refit=maybe"], "--refit"),
        (["prune", "--out=x", "more"], "more"),
        (["resume"], "RUN"),
        (["extend", "x", "--target", "much"], "--target"),
        (["evaluate", "--model=demo", "--limit=some"], "--limit"),
        (["evaluate", "--model=demo", "--dtype=int4"], "Number format"),
        (["latency", "--model=demo", "--dtype=int4"], "Number format"),
        (["latency", "--model=demo", "--rounds=0"], "--rounds"),
    ],
)
def test_mistakes_in_the_command_line_itself(capsys, arguments, named):
    assert named in refused(capsys, *arguments)


def test_help_documents_every_setting_under_its_stage(capsys, monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    assert command.main(["prune", "--help"]) == 0
    text = capsys.readouterr().out
    for info in Recipe.settings():
        assert info.option in text
        assert info.stage_title in text
        if info.kind == "switch":
            assert f"--no-{info.option.removeprefix('--')}" in text


NO_TORCH = """
import sys
from pip_core.cli.main import main
codes = [main([*words.split(), "--help"]) for words in ("", "runs", "resume", "evaluate", "app")]
print(codes, sorted(m for m in ("torch", "transformers", "gradio", "huggingface_hub") if m in sys.modules))
"""


def test_help_does_not_wait_for_the_engine():
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, cwd=tiny.ROOT)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0] []", done.stderr


PLUGIN = """
from typing import ClassVar
from pip_core.core.settings import Settings, switch, whole
from pip_core.engine.stage import Stage

class Polish(Stage):
    name, title, after = "polish", "Polish the model", "refit"
    invalidated_by: ClassVar = ()
    class Settings(Settings):
        polish: bool = switch(False, "rub it")
        polish_strokes: int = whole(3, 1, 9, "how often")
    def run(self, state):
        yield from ()
"""


def test_settings_of_a_stage_of_another_package_are_options(tmp_path):
    (tmp_path / "shiny.py").write_text(PLUGIN)
    added = {"PIP_STUDIO_STAGES": "shiny:Polish", "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = cli("prune", "--help", TERMINAL_WIDTH="200", **added)
    assert done.returncode == 0, done.stderr
    for shown in ("Polish the model", "--no-polish", "--polish-strokes", "how often (default: 3)"):
        assert shown in done.stdout
    wrong = cli("prune", "--out", tmp_path / "run", "--polish", "--polish-strokes", "10", **added)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: Polish strokes: enter a whole number from 1 to 9")
    assert not (tmp_path / "run").exists()


def test_the_page_starts_by_the_command_app(tmp_path, monkeypatch, capsys):
    page = tmp_path / "app.py"
    page.write_text("import os\nprint(__name__, os.environ['GOMP_SPINCOUNT'])\n")
    monkeypatch.setattr(commands, "PAGE", page)
    assert command.main(["app"]) == 0
    assert capsys.readouterr().out == f"__main__ {os.environ['GOMP_SPINCOUNT']}\n"
