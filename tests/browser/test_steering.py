"""A hand in a run, in a real browser: reload, stop, undo, resume, lock and force, several methods."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from pip_core.scoring import get_scorer

from ..processes import LASTING
from .acts import MINUTE, fill_form, prune, removed, unfold, wait_for_state


@pytest.fixture(scope="module")
def model(llama_folder) -> str:
    return str(llama_folder)


def test_reload_stop_undo_resume(visitor, model):
    page = visitor()
    fill_form(page, model, windows=LASTING, target=30)
    run_id = prune(page)
    wait_for_state(page, "running")
    # A reload finds the run again, with the settings it was started with.
    page.reload()
    wait_for_state(page, "running")
    assert run_id in page.url
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    expect(page.locator("#runs input")).to_have_value(re.compile(r"^llama, 30 % by pip-gate · .* · [0-2]/3$"))

    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=2 * MINUTE)
    page.locator("#stop").click()
    wait_for_state(page, "stopped", 30)
    unfold(page, "Charts as numbers")
    # What is taken back stays: something else goes in its place.
    page.locator("#undo").click()
    expect(page.locator(".log")).to_contain_text("Undone")
    back = re.search(r"Undone: (block \d+)", page.locator(".log").inner_text()).group(1)
    expect(page.locator("#measurements")).not_to_contain_text(back)
    page.locator("#resume").click()
    wait_for_state(page, "finished", 240)
    expect(page.locator("#measurements tbody tr")).to_have_count(4)
    after = removed(page)
    assert len(after) == 3
    assert back not in after


def test_pause_and_export_as_it_is(visitor, model):
    page = visitor()
    fill_form(page, model, windows=LASTING, target=30)
    prune(page)
    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=2 * MINUTE)
    page.locator("#pause").click()
    wait_for_state(page, "paused", 30)
    page.locator("#export_now").click()
    wait_for_state(page, "finished", 90)
    unfold(page, "Charts as numbers")
    assert len(removed(page)) == 1
    # What was exported early is not done: it goes on to its target.
    expect(page.locator("#status")).to_contain_text("Exported after")
    page.locator("#resume").click()
    expect(page.locator("#measurements tbody tr")).to_have_count(4, timeout=2 * MINUTE)
    wait_for_state(page, "finished", 90)
    expect(page.locator("#resume")).to_be_hidden()


def test_locked_stays_and_forced_goes_first(visitor, model):
    """Stopped before it has begun, too."""
    page = visitor()
    fill_form(page, model, target=30)
    unfold(page, "Keep or drop single blocks")
    for name, block in (("Keep", "4"), ("Drop", "1")):
        page.get_by_label(name, exact=True).click()
        page.locator(f"#{name.lower()}").get_by_role("option", name=block, exact=True).or_(
            page.locator("ul.options:visible li[role=option]").filter(has_text=block)
        ).first.click()
        page.keyboard.press("Escape")
    expect(page.locator("#plan")).to_contain_text("Keeps block 4; removes block 1 first")
    expect(page.locator("#map .keep")).to_have_count(1)
    prune(page)
    page.locator("#stop").click()
    wait_for_state(page, "stopped", 60)
    page.locator("#resume").click()
    wait_for_state(page, "finished")
    unfold(page, "Charts as numbers")
    gone = removed(page)
    assert gone[0] == "block 1"
    assert "block 4" not in gone


def test_methods_side_by_side(visitor, model):
    """Two methods at once: the second waits in line, both are compared."""
    page = visitor()
    fill_form(page, model)
    page.get_by_role("tab", name="Compare").click()
    unfold(page, "Try several methods")
    for title in (get_scorer("pip-gate").title, get_scorer("pip").title):
        page.locator("#methods").get_by_label(title, exact=True).check()
    page.locator("#sweep").click()
    expect(page.locator("#chosen")).to_contain_text("queued", timeout=MINUTE)
    expect(page.locator("#chosen label:has-text('finished')")).to_have_count(2, timeout=3 * MINUTE)
    expect(page.locator("#summary tbody tr")).to_have_count(3)  # two runs, and the setting that differs
    expect(page.locator("#summary")).to_contain_text("pip-gate")
    with page.expect_download() as waiting:
        page.locator("#compare_csv").click()
    assert waiting.value.path().read_text().count("pip-gate") >= 2
