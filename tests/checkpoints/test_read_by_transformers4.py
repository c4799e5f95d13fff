"""Exports are read by transformers 4 as by 5: equal logits, generated tokens, token ids and settings.

Runs where the environment variable `PIP_STUDIO_TRANSFORMERS4` names a Python with transformers 4, as
`.ci/run` makes one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pip_core.checkpoints.export import write_checkpoint
from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import Loaded, load_folder
from pip_core.core.units import BLOCKS, WIDTH, Units
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

from .. import tiny, zoo
from ..structure.test_family_contract import SUPPORTED, losses
from ..transformers4.read import answers, read

PYTHON4 = os.environ.get("PIP_STUDIO_TRANSFORMERS4", "")
pytestmark = pytest.mark.skipif(
    not PYTHON4, reason="PIP_STUDIO_TRANSFORMERS4 names no Python with transformers 4"
)
SCRIPTS = tiny.ROOT / "tests" / "transformers4"
# Difference of logits as a share of the largest one: some families compute with other kernels.
ALLOWED = 1e-4
COMPUTED = ("logits", "unread")


@dataclass(frozen=True)
class Export:
    """One exported checkpoint, and what was answered: by the model in memory, and after reading it."""

    name: str
    folder: Path
    memory: dict[str, Any]
    five: dict[str, Any]
    four: dict[str, Any]


def under4(script: str, *arguments: Path) -> None:
    ended = subprocess.run(
        [PYTHON4, SCRIPTS / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def without(loaded: Loaded, gone: list[tuple]) -> Shape:
    anatomy = anatomy_of(loaded.config)
    dense = Shape.dense(anatomy)
    shape = dense.without(Units(*unit) for unit in gone)
    reshape(loaded.model, anatomy, dense, shape)
    return shape


def fewer_tokens(loaded: Loaded) -> Loaded:
    """Half of the tokens removed that may go, by a fixed draw."""
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config, loaded.model.generation_config)
    scores = torch.rand(vocabulary.rows, generator=torch.Generator().manual_seed(3))
    count = (len(loaded.tokenizer) + len(vocabulary.fixed)) // 2
    subset = VocabularySubset(vocabulary, vocabulary.keep(scores, count))
    tokenizer = subset.tokenizer(loaded.tokenizer)
    subset.apply(loaded.model)
    return Loaded(loaded.model, tokenizer, loaded.source, loaded.stored, loaded.config)


def exports(dense: Path, made: Path, out: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Everything that is exported: its name, where it is, and what it answered in memory."""

    def opened(folder: Path) -> Loaded:
        return load_folder(Source(folder, folder.name, "made for the tests", None))

    def export(name: str, loaded: Loaded, shape: Shape) -> tuple[str, Path, dict[str, Any]]:
        write_checkpoint(loaded, shape, out / name, {})
        return name, out / name, answers(loaded.model, loaded.tokenizer)

    for folder in sorted(p for p in made.iterdir() if p.is_dir()):
        loaded = opened(folder)
        yield export(folder.name, loaded, tiny.without_blocks(loaded, [1]))
        if folder.name.startswith("tokenizer-"):
            loaded = fewer_tokens(opened(folder))
            yield export(f"{folder.name}-fewer", loaded, Shape.dense(anatomy_of(loaded.config)))
    tokenizer = tiny.fixed_tokenizer(bos=True)
    for name in zoo.CONFIGS:
        folder = tiny.save(dense / name, name, tokenizer)
        loaded = opened(folder)
        yield export(f"{name} blocks", loaded, without(loaded, losses(name, BLOCKS)["alternating"]))
        kinds = [kind for kind in WIDTH if (name, kind) in SUPPORTED]
        loaded = opened(folder)
        shape = without(loaded, [unit for kind in kinds for unit in losses(name, kind)["even"]])
        yield export(f"{name} {' '.join((*kinds, 'tokens'))}", fewer_tokens(loaded), shape)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> list[Export]:
    dense, made, out = (tmp_path_factory.mktemp(name) for name in ("dense", "made", "out"))
    under4("make.py", made)
    found = list(exports(dense, made, out))
    asked, answered = out / "asked.json", out / "answers.pt"
    asked.write_text(json.dumps([str(folder) for _, folder, _ in found]), encoding="utf-8")
    under4("read.py", asked, answered)
    four = torch.load(answered)
    return [Export(name, folder, memory, read(folder), four[str(folder)]) for name, folder, memory in found]


def difference(expected: dict[str, Any], found: dict[str, Any]) -> float:
    """Largest difference of logits, as a share of the largest one."""
    gap = (expected["logits"] - found["logits"]).abs().max()
    return float(gap / expected["logits"].abs().max())


def wrong(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What `found` says otherwise, or why it was not read."""
    if "error" in found:
        return {"error": found["error"]}
    told = {k: (v, found[k]) for k, v in expected.items() if k not in COMPUTED and found[k] != v}
    if (gap := difference(expected, found)) > ALLOWED:
        told["logits"] = gap
    return told | ({"unread": found["unread"]} if found["unread"] else {})


def test_read_by_4(exported):
    assert {e.name: told for e in exported if (told := wrong(e.memory, e.four))} == {}
    gap, name = max((difference(e.memory, e.four), e.name) for e in exported)
    families = {e.memory["family"] for e in exported}
    print(f"{len(exported)} exports of {len(families)} families; largest difference {gap:.1e} ({name})")


def test_read_by_5(exported):
    """What is written for version 4 leads 5 to nothing else."""
    assert {e.name: told for e in exported if (told := wrong(e.memory, e.five))} == {}
