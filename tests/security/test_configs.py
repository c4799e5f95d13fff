"""A few bytes of config must not ask for any memory and time."""

from __future__ import annotations

import json
import random
import shutil
import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from pip_core.checkpoints.folder import tokenizer_in
from pip_core.checkpoints.load import config_of, load
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.data.corpora import columns_for, documents
from pip_core.data.files import iterate, rows_at_once
from pip_core.data.perturbation import PERTURBATION_KINDS, Perturber
from pip_core.data.writing import writing_of


@pytest.mark.parametrize(
    "changes",
    [
        {"intermediate_size": 10**9},
        {"num_hidden_layers": 100_000},
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**12},
        {"vocab_size": 10**15},
        {"num_hidden_layers": 900, "intermediate_size": 10**6},
        {"text_config": {"num_hidden_layers": 10**8}},
        {"head_dim": 10**9},
        {"num_labels": 10**9},
        {"id2label": dict.fromkeys(range(200_000), "x")},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M" * 10**5},
        {"hidden_size": 0},
        {"vocab_size": -1},
    ],
)
def test_a_config_that_asks_for_everything_or_nothing_is_refused(llama_folder, tmp_path, changes):
    config = json.loads((llama_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match="cannot be a model's"):
        config_of(str(tmp_path))


def test_a_table_of_a_few_bytes_is_not_unpacked_at_once(tmp_path):
    """One cell of 8 MB that stands in 200 rows: a file of some kilobytes, and gigabytes in memory."""
    column = pyarrow.DictionaryArray.from_arrays([0] * 200, ["x" * 8_000_000])
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "small.parquet", compression="zstd")
    assert (tmp_path / "small.parquet").stat().st_size < 100_000
    assert rows_at_once(parquet.ParquetFile(tmp_path / "small.parquet").metadata, "text", ["text"]) <= 8
    assert len(next(iterate(tmp_path / "small.parquet", "text"))["text"]) == 8_000_000


def test_only_the_column_that_is_needed_is_read(tmp_path):
    """Beside the texts a picture of 8 MB in every row, which is never unpacked."""
    pictures = pyarrow.DictionaryArray.from_arrays([0] * 300, [b"x" * 8_000_000])
    own = pyarrow.array([{"b": f"Text {n}.", "c": 1} for n in range(300)])
    table = pyarrow.table({"picture": pictures, "text": [f"Row {n}." for n in range(300)], "a": own})
    path = tmp_path / "rows.parquet"
    parquet.write_table(table, path, compression="zstd")
    assert documents(str(path))[299] == "Row 299."
    assert documents(f"{path}#a.b")[299] == "Text 299."
    assert list(next(iterate(path, "text", lambda names: columns_for(names, None)))) == ["text"]
    assert rows_at_once(parquet.ParquetFile(path).metadata, "text", ["text", "a"]) > 100
    with pytest.raises(UserError, match="picture, text, a"):
        documents(f"{path}#nothing")
    (tmp_path / "wide.json").write_text(json.dumps({f"c{n}" * 50: ["x"] for n in range(1000)}))
    with pytest.raises(UserError, match="and 988 more") as caught:
        documents(str(tmp_path / "wide.json"))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("letter", ["a", "ж"])
def test_a_word_of_ten_thousand_letters_takes_no_memory_in_its_square(letter):
    word = letter * 10_000
    perturber = Perturber((), PERTURBATION_KINDS, writing_of([word] if letter == "a" else ["жук и дом " * 9]))
    tracemalloc.start()
    try:
        edited = perturber.edit(word, random.Random(0))
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
    assert edited != word
    assert abs(len(edited) - 10_000) <= 1


def test_a_tokenizer_of_hundreds_of_megabytes_is_refused_before_it_is_read(llama_folder, tmp_path):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(290_000_000)  # a hole, which takes no disk
    for read in (lambda: drain(load(str(folder))), lambda: tokenizer_in(folder, "x")):
        with pytest.raises(UserError, match=r"tokenizer\.json .* has 290 MB"):
            read()
