"""A few bytes of config must not ask for any memory and time."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from pip_core.checkpoints.load import config_of
from pip_core.core.errors import UserError
from pip_core.data.files import _rows_at_once, iterate


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
    ],
)
def test_a_config_that_asks_for_everything_is_refused(llama_folder, tmp_path, changes):
    config = json.loads((llama_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match="more than any model has"):
        config_of(str(tmp_path))


def test_a_table_of_a_few_bytes_is_not_unpacked_at_once(tmp_path):
    """One cell of 8 MB that stands in 200 rows: a file of some kilobytes, and gigabytes in memory."""
    column = pyarrow.array(["x" * 8_000_000] * 200).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "small.parquet", compression="zstd")
    assert (tmp_path / "small.parquet").stat().st_size < 100_000
    assert _rows_at_once(parquet.ParquetFile(tmp_path / "small.parquet").metadata, "text") <= 8
    assert len(next(iterate(tmp_path / "small.parquet", "text"))["text"]) == 8_000_000
