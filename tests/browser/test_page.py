"""A visitor's story in a real browser, on a tiny model: look, prune, watch, download."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from contextlib import nullcontext, suppress

import pytest
from playwright.sync_api import expect

from .acts import chart, fill_form, prune, removed, state_of, unfold, wait_for_state

# Chromium's own measure of what moves on a page without anybody having touched it.
WATCH_SHIFTS = (
    "window.shifts = []; new PerformanceObserver(list => list.getEntries().forEach(e => {"
    " if (!e.hadRecentInput) window.shifts.push([e.value, ...e.sources.map(s =>"
    " s.node?.nodeName + ' in ' + s.node?.parentElement?.closest('[id]')?.id)]);"
    " })).observe({type: 'layout-shift'})"
)


@pytest.fixture(scope="module")
def model(llama_folder) -> str:
    return str(llama_folder)


def test_first_screen_explains_itself(visitor):
    page = visitor()
    wait_for_state(page, "none")
    expect(page.locator("#status")).to_contain_text("Press Prune")
    expect(page.locator("#plan")).to_contain_text("Will remove 3 of 14 blocks: 20.0 % of all parameters")
    expect(page.locator("#plan")).to_contain_text("3.0M → 2.4M")
    expect(page.locator("#form")).to_contain_text("loads in transformers")
    # The two texts and the map are drawn one after the other: wait for what comes last of each.
    expect(page.locator("#map .block-bar")).to_have_count(14)
    expect(page.locator("#views mark.edit").nth(5)).to_be_attached()
    edits = page.locator("#views mark.edit").count()
    expect(page.locator("#views mark:not(.edit)")).to_have_count(edits)
    for name in ("#stop", "#undo", "#resume", "#heatmap"):
        expect(page.locator(name)).to_be_hidden()


def test_the_form_answers_at_once(visitor, model):
    page = visitor()
    fill_form(page, model, target=40)
    expect(page.locator("#plan")).to_contain_text("of 5 blocks")
    expect(page.locator("#map .block-bar")).to_have_count(5)
    unfold(page, "See the two texts")
    rate = page.get_by_label("number input for Words misspelt, %")
    edits = page.locator("#views mark.edit")
    expect(edits.nth(5)).to_be_attached()
    before = edits.count()
    # What is folded is only made when it is unfolded, and takes what is typed only a moment later.
    for last in (False, False, False, True):
        rate.fill("10")
        rate.press("Tab")
        with nullcontext() if last else suppress(AssertionError):
            expect(edits).not_to_have_count(before, timeout=5_000)
            break
    assert edits.count() < before
    own, words = page.get_by_label("Your own text"), "The harbour was quiet and the boats were empty. "
    own.fill(words)
    expect(page.locator("#plan")).to_contain_text("too short")
    expect(page.locator("#pasted")).to_have_class(re.compile("faulty"))
    own.fill(words * 20)
    expect(page.locator("#plan")).to_contain_text("Will remove")
    expect(page.locator("#pasted")).not_to_have_class(re.compile("faulty"))
    expect(page.locator("#views")).to_contain_text("harbour")
    number = page.get_by_label("number input for How much, %")
    number.fill("20")
    number.press("Tab")
    page.get_by_label("Remove", exact=True).click()
    page.get_by_role("option", name="channels", exact=True).click()
    expect(page.locator("#plan")).to_contain_text("channels")


def test_a_fresh_form_takes_what_it_offers(visitor):
    """Blocks of the first model to keep, and a target beyond the slider's end."""
    page = visitor()
    expect(page.locator("#plan")).to_contain_text("Will remove 3 of 14 blocks")
    unfold(page, "Keep or drop single blocks")
    page.get_by_label("Keep", exact=True).click()
    page.get_by_role("option", name="10", exact=True).click()
    expect(page.locator("#plan")).to_contain_text("Keeps block 10")
    number = page.get_by_label("number input for How much, %")
    number.fill("61")
    expect(page.locator("#plan")).to_contain_text("the nearest to 60 %")
    number.press("Tab")
    expect(number).to_have_value("60")
    expect(page.locator(".toast-body")).to_have_count(0)


def test_a_visitor_who_only_presses_prune_takes_home_a_model(visitor, tmp_path):
    """The demo model, everything as it stands; what is downloaded loads in a fresh process."""
    page = visitor()
    expect(page.locator("#plan")).to_contain_text("Will remove 3 of 14 blocks")
    run_id = prune(page)
    wait_for_state(page, "running")
    page.evaluate(WATCH_SHIFTS)
    drawn = page.locator("#heatmap .main-svg").first.element_handle()
    height = chart(page, "heatmap")["height"]
    wait_for_state(page, "finished", 240)
    # Nothing jumped while charts, tiles and log filled.
    shifts = page.evaluate("window.shifts")
    assert sum(value for value, *_ in shifts) < 0.02, shifts

    unfold(page, "Charts as numbers")
    gone = removed(page)
    assert len(gone) == chart(page, "heatmap")["shapes"] == 3
    # Redrawn in place: the very chart that stood there before, as high as it was.
    assert page.evaluate("e => e.isConnected", drawn)
    assert chart(page, "heatmap")["height"] == height
    assert [d for d in chart(page, "curves")["data"] if d["type"] == "scatter" and d["points"] > 1]
    expect(page.locator("#tiles")).to_contain_text("fewer")
    expect(page.locator("#banner")).to_contain_text("smaller · keeps")
    expect(page.locator(".log")).to_contain_text("a fresh process loaded it")
    expect(page.locator("#undo")).to_be_visible()

    page.locator("#get").click()
    expect(page.locator("#verdict")).to_contain_text("Reloaded and verified")
    expect(page.locator("#command")).to_contain_text("python -m pip_core prune --model")
    with page.expect_download() as waiting:
        page.locator("#zip").click()
    archive = tmp_path / "model.zip"
    waiting.value.save_as(archive)
    zipfile.ZipFile(archive).extractall(tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 14 - len(gone)
    # What the page says of loading it is true, word by word.
    said = page.locator("#load code").inner_text()
    written = subprocess.run([sys.executable, "-c", said], cwd=tmp_path, capture_output=True, text=True)
    assert "The sky is" in written.stdout, written.stderr
    for name in ("card", "recipe", "events", "csv", "scores_csv"):
        with page.expect_download() as waiting:
            page.locator(f"#{name}").click()
        assert waiting.value.path().stat().st_size > 50

    # A link shows the run to a friend, who cannot change it; what would be refused is not offered.
    friend = visitor(path=f"?run={run_id}")
    wait_for_state(friend, "finished")
    expect(friend.locator("#get")).to_be_visible()
    expect(friend.locator("#undo")).to_be_hidden()
    friend.get_by_role("tab", name="Compare").click()
    expect(friend.locator("#chosen")).to_be_visible()
    expect(friend.locator("#table button")).to_have_count(0)


def test_strangers_see_nothing(visitor, api_run):
    stranger = visitor()
    wait_for_state(stranger, "none")
    assert api_run.id not in stranger.content()
    stranger.goto(f"{stranger.url.split('?')[0]}?run=../{api_run.id}")
    stranger.wait_for_selector("#model")
    expect(stranger).not_to_have_url(re.compile("run="))  # what the address names was looked for in vain
    assert state_of(stranger) == "none"


def test_refusals_are_sentences_and_make_no_run(visitor, server):
    page = visitor()
    known = {p.name for p in server.runs.iterdir()}
    fill_form(page, "./no/such/folder")
    expect(page.locator("#form .problem")).to_contain_text("does not exist")
    page.locator("#go").click()
    expect(page.locator("#notice")).to_contain_text("does not exist")
    assert state_of(page) == "none"
    # At the button that was pressed, and gone once something is entered.
    page.get_by_role("tab", name="Compare").click()
    unfold(page, "Try several methods")
    page.locator("#sweep").click()
    expect(page.locator("#sweep ~ .problem")).to_contain_text("Choose the methods")
    page.locator("#methods input").first.check()
    expect(page.locator("#sweep ~ .problem")).to_have_count(0)
    assert {p.name for p in server.runs.iterdir()} == known
