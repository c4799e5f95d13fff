"""Rows, streams, this machine: the small parts that the others stand on."""

from __future__ import annotations

import threading

import psutil
import pytest
import torch

from pip_core.core import accelerator, device
from pip_core.core.batching import rows_of
from pip_core.core.cached import cached_property
from pip_core.core.disk_use import bytes_of, changed_at
from pip_core.core.limits import rows
from pip_core.core.progress import drain, map_progress, once_a_second
from pip_core.core.variables import VARIABLES, take_no_options


def test_the_page_says_what_it_takes_and_that_it_takes_no_options(capsys):
    take_no_options([])
    for arguments, code in ((["--help"], 0), (["--port", "80"], 2)):
        with pytest.raises(SystemExit) as ended:
            take_no_options(arguments)
        assert ended.value.code == code
    said = capsys.readouterr()
    assert [name for name, *_ in (*VARIABLES, *rows()) if f"\n  {name}\n" not in said.out] == []
    assert "--port" in said.err


def test_rows_are_filled_on_the_right():
    rows, lengths = rows_of([torch.arange(1, 6), torch.arange(10, 30)])
    assert rows.shape == (2, 32)
    assert lengths.tolist() == [5, 20]
    assert rows[0].tolist() == [1, 2, 3, 4, *[5] * 28]
    assert rows[1, :20].tolist() == list(range(10, 30))
    assert rows.dtype == torch.int64


@pytest.mark.parametrize(("length", "width"), [(1, 16), (16, 16), (17, 32)])
def test_rows_are_a_multiple_long(length, width):
    rows, _ = rows_of([torch.ones(length, dtype=torch.long)])
    assert rows.shape == (1, width)


def counting(closed: list):
    try:
        yield 1
        yield 2
        return "result"
    finally:
        closed.append(True)


def test_drain():
    closed: list[bool] = []
    assert drain(counting(closed)) == "result"
    assert closed == [True]


def test_mapped():
    work = map_progress(counting([]), lambda n: n * 10)
    assert [next(work), next(work)] == [10, 20]
    with pytest.raises(StopIteration) as end:
        next(work)
    assert end.value.value == "result"


def test_peak_memory_is_in_bytes():
    now = psutil.Process().memory_info().rss
    assert now * 0.99 <= device.peak_memory() < psutil.virtual_memory().total


def test_device_and_formats():
    assert accelerator.free_bytes(accelerator.device()) <= accelerator.total_bytes(accelerator.device())
    assert isinstance(device.fast_bfloat16(), bool)


@pytest.mark.parametrize(
    ("flags", "bfloat16", "fast"), [(True, 1, True), (True, 3, False), (False, 1, False)]
)
def test_bfloat16_is_used_where_it_is_no_slower(flags, bfloat16, fast, monkeypatch):
    """Flags are believed when a product bears them out."""
    monkeypatch.setenv(accelerator.VARIABLE, "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": flags}, raising=False)
    took = {torch.bfloat16: bfloat16, torch.float32: 2}
    monkeypatch.setattr(device, "_product_seconds", lambda inputs, _: took[inputs.dtype])
    device.fast_bfloat16.cache_clear()
    assert device.fast_bfloat16() is fast
    device.fast_bfloat16.cache_clear()


def test_one_report_a_second():
    def work():
        yield from (0.0, 0.1, 0.9, 1.0, 1.5, 3.2, 3.3)
        return "done"

    seen = []
    found = drain(map_progress(once_a_second(work()), seen.append))
    assert (seen, found) == ([0.0, 1.0, 3.2], "done")


def test_what_goes_away_while_it_is_counted_counts_nothing(tmp_path):
    (tmp_path / "kept").write_bytes(b"123")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "also").write_bytes(b"12345")
    gone = tmp_path / "gone"
    gone.symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    assert bytes_of(tmp_path) == 8
    assert bytes_of(tmp_path / "kept") == 3
    assert bytes_of(gone) == 0
    assert changed_at(gone) is None


def test_threads_do_not_wait_for_each_others_cached_properties():
    """Of one class, in another order: each thread is inside one property when it asks for the other."""
    inside = threading.Barrier(2)

    class Crossed:
        def __init__(self, first: str) -> None:
            self.first = first

        @cached_property
        def one(self) -> int:
            return self.crossing("one", "two")

        @cached_property
        def two(self) -> int:
            return self.crossing("two", "one")

        def crossing(self, here: str, there: str) -> int:
            if here != self.first:
                return 1
            inside.wait()
            return 1 + getattr(self, there)

    found: list[int] = []
    threads = [
        threading.Thread(
            target=lambda o: found.append(getattr(o, o.first)), args=(Crossed(name),), daemon=True
        )
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [2, 2]
