"""A run is never lost: a killed worker, a second tab, a page that restarts."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from playwright.sync_api import expect

from pip_core.runs import files

from ..processes import GO_ON, LASTING
from .acts import MINUTE, fill_form, prune, removed, unfold, wait_for_state


@pytest.fixture(scope="module")
def model(llama_folder) -> str:
    return str(llama_folder)


def test_a_killed_worker_is_told_and_resumed(visitor, server, model):
    page = visitor()
    fill_form(page, model, windows=LASTING, target=30)
    run_id = prune(page)
    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=2 * MINUTE)
    launched = json.loads((server.runs / run_id / files.LAUNCHED).read_text())
    os.kill(launched["pid"], signal.SIGKILL)
    wait_for_state(page, "interrupted", 30)
    expect(page.locator("#status")).to_contain_text("ended from outside")
    unfold(page, "Charts as numbers")
    before = removed(page)
    assert len(before) >= 1
    page.reload()
    wait_for_state(page, "interrupted", 30)
    page.locator("#resume").click()
    wait_for_state(page, "finished", 240)
    unfold(page, "Charts as numbers")
    assert removed(page)[: len(before)] == before
    assert len(removed(page)) == 3


def test_two_tabs_of_one_browser(visitor, server, model):
    page = visitor()
    fill_form(page, model, windows=LASTING, target=30)
    run_id = prune(page)
    wait_for_state(page, "running")
    other = page.context.new_page()
    other.goto(server.url)
    wait_for_state(other, "running")
    expect(other).to_have_url(re.compile(run_id))
    other.locator("#stop").click()
    for tab in (page, other):
        wait_for_state(tab, "stopped", 30)
    # What one tab throws away is gone from the other, though nothing goes on there.
    other.get_by_role("tab", name="Compare").click()
    mine = other.locator("#table tbody tr").first
    mine.get_by_role("button", name="Edit").click()
    other.get_by_label("Name", exact=True).fill("mine")
    other.get_by_role("button", name="Save").click()
    expect(page.locator("#runs input")).to_have_value(re.compile("^mine · .* · stopped$"), timeout=MINUTE)
    # A click too many deletes nothing, and what is deleted can be brought back.
    delete = other.get_by_role("button", name="Delete mine")
    delete.click()
    expect(other.locator("#delete-run")).to_contain_text("“mine”")
    other.get_by_role("button", name="Keep it").click()
    expect(other.locator("#delete-run")).to_be_hidden()
    assert (server.runs / run_id).exists()
    delete.click()
    other.get_by_role("button", name="Delete it").click()
    wait_for_state(other, "none")
    wait_for_state(page, "none", 30)
    assert not (server.runs / run_id).exists()
    other.get_by_role("button", name="Undo deleting mine").click()
    expect(delete).to_be_visible()
    assert (server.runs / run_id).exists()


def test_page_restart_in_mid_run_loses_nothing(visitor, server, model):
    """The tab that was open finds its way back by itself, as a laptop does that was closed."""
    page = visitor(forgiving=True)  # the browser itself complains of a server that is away
    fill_form(page, model, windows=LASTING, target=30)
    run_id = prune(page)
    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=MINUTE)
    with page.expect_event("requestfailed"):  # the tab has noticed
        server.end()
    go_on = server.runs.parent / GO_ON
    go_on.touch()
    try:
        server.start()
        wait_for_state(page, "finished", 240)
    finally:
        go_on.unlink()
    again = visitor(path=f"?run={run_id}")
    wait_for_state(again, "finished")
    page.context.close()
