"""A visitor's story in a real browser, on a tiny model: prune, watch, reload, stop, download."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile

import pytest
from playwright.sync_api import Page, expect

MINUTE = 60_000


@pytest.fixture(scope="module")
def model(llama_folder) -> str:
    return str(llama_folder)


def fill_form(page: Page, model: str, windows: int = 4, target: int | None = None) -> None:
    field = page.get_by_label("Model", exact=True)
    field.fill(model)
    field.press("Tab")
    if target is not None:
        number = page.get_by_label("number input for How much, %")
        number.fill(str(target))
        number.press("Tab")
    page.get_by_role("button", name="Perturbation and more").click()
    for label, value in (("Windows", windows), ("Items per task", 4)):
        number = page.get_by_label(label, exact=True)
        number.fill(str(value))
        number.press("Tab")


def wait_for_state(page: Page, state: str, seconds: int = 90) -> None:
    expect(page.locator("#status .status")).to_have_attribute("data-state", state, timeout=seconds * 1000)


def state_of(page: Page) -> str:
    return page.locator("#status .status").get_attribute("data-state")


def removed_blocks(page: Page) -> list[str]:
    page.get_by_role("tab", name="Removed").click()
    return page.locator("table.removals tbody tr td:nth-child(2)").all_inner_texts()


def chart(page: Page, name: str) -> dict:
    """What Plotly has drawn: the data and layout it was given."""
    return page.evaluate(
        "name => { const p = document.querySelector('#' + name + ' .js-plotly-plot');"
        " return {data: p.data.map(d => ({type: d.type, points: (d.x || []).length})),"
        " shapes: (p.layout.shapes || []).length, height: p.clientHeight}; }",
        name,
    )


def test_first_screen_explains_itself(visitor):
    page = visitor()
    wait_for_state(page, "none")
    expect(page.locator("#status")).to_contain_text("press Prune")
    expect(page.locator(".plan")).to_contain_text("8 of 30 blocks will go: 21.1% of all parameters")
    expect(page.locator(".plan")).to_contain_text("on this machine")
    assert page.locator("#views mark.edit").count() > 5
    expect(page.locator("#stop")).to_be_hidden()


def test_whole_run_then_download_loads_in_a_fresh_process(visitor, model, tmp_path):
    page = visitor()
    fill_form(page, model)
    expect(page.locator(".plan")).to_contain_text("of 5 blocks will go")
    heights = chart(page, "heatmap")["height"]
    page.locator("#go").click()
    wait_for_state(page, "finished")

    assert len(removed_blocks(page)) == chart(page, "heatmap")["shapes"] >= 1
    assert chart(page, "heatmap")["height"] == heights  # nothing jumps
    assert [d["points"] for d in chart(page, "curves")["data"] if d["type"] == "scatter"]
    expect(page.locator(".tiles")).to_contain_text("fewer")
    page.get_by_role("tab", name="Events").click()
    expect(page.locator(".log")).to_contain_text("a fresh process loaded it")

    page.get_by_role("tab", name="Download").click()
    expect(page.locator("#verdict")).to_contain_text("Reloaded and verified")
    with page.expect_download() as waiting:
        page.locator("#download").click()
    archive = tmp_path / "model.zip"
    waiting.value.save_as(archive)
    zipfile.ZipFile(archive).extractall(tmp_path)
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M;"
        "m = M.from_pretrained(sys.argv[1]);"
        "m.generate(torch.ones(1, 4, dtype=torch.long), max_new_tokens=4);"
        "print(m.config.num_hidden_layers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) == 5 - len(removed_blocks(page))


def test_both_models_answer(visitor, model):
    page = visitor()
    fill_form(page, model)
    page.locator("#go").click()
    wait_for_state(page, "finished")
    page.get_by_role("tab", name="Talk to both").click()
    page.locator("#ask").click()
    for name in ("#dense-says", "#pruned-says"):
        expect(page.locator(f"{name} textarea")).not_to_have_value("", timeout=MINUTE)
        expect(page.locator(f"{name} textarea")).not_to_have_value("loading...", timeout=MINUTE)
    # A second question must be answered too.
    page.get_by_label("Prompt").fill("And the sea?")
    page.locator("#ask").click()
    expect(page.locator("#pruned-says textarea")).not_to_have_value("loading...", timeout=MINUTE)


def test_reload_stop_resume(visitor, model):
    page = visitor()
    fill_form(page, model, windows=150, target=40)
    page.locator("#go").click()
    wait_for_state(page, "running")
    expect(page.locator("#status")).to_contain_text(
        re.compile(r"Iteration 1 of \d · scoring"), timeout=MINUTE
    )
    run_id = re.search(r"run=(\w{24})", page.url).group(1)

    # A reload finds the run again, with the settings it was started with.
    page.reload()
    wait_for_state(page, "running")
    assert run_id in page.url
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)

    # Stop keeps what was decided; Resume goes on to the end.
    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=2 * MINUTE)
    page.locator("#stop").click()
    wait_for_state(page, "stopped", 30)
    before = removed_blocks(page)
    assert before
    page.locator("#resume").click()
    wait_for_state(page, "running")
    wait_for_state(page, "finished", 240)
    assert removed_blocks(page)[: len(before)] == before


def test_strangers_see_nothing(visitor, model):
    page = visitor()
    fill_form(page, model)
    page.locator("#go").click()
    wait_for_state(page, "finished")
    run_id = re.search(r"run=(\w{24})", page.url).group(1)
    stranger = visitor()
    stranger.wait_for_timeout(2000)
    assert state_of(stranger) == "none"
    assert run_id not in stranger.content()
    for guess in ("..", ".", f"{run_id[:-1]}0", "../" + run_id):
        other = visitor(path=f"?run={guess}")
        other.wait_for_timeout(1000)
        assert state_of(other) == "none"
    friend = visitor(path=f"?run={run_id}")  # knowing the id is the right to see it
    wait_for_state(friend, "finished")


def test_stopped_run_exports_as_pruned_so_far(visitor, model):
    page = visitor()
    fill_form(page, model, windows=150, target=40)
    page.locator("#go").click()
    expect(page.locator("#status")).to_contain_text("Iteration 2", timeout=2 * MINUTE)
    page.locator("#stop").click()
    wait_for_state(page, "stopped", 30)
    page.locator("#export").click()
    wait_for_state(page, "finished", 90)
    assert len(removed_blocks(page)) == 1
    page.get_by_role("tab", name="Download").click()
    expect(page.locator("#verdict")).to_contain_text("Reloaded and verified")


def test_refusals_are_sentences_and_make_no_run(visitor, server):
    page = visitor()
    known = set(server.runs.iterdir())
    fill_form(page, "./no/such/folder")
    page.locator("#go").click()
    expect(page.locator(".plan.problem")).to_contain_text("does not exist")
    assert state_of(page) == "none"
    assert set(server.runs.iterdir()) == known


def test_page_restart_in_mid_run_loses_nothing(visitor, server, model):
    page = visitor()
    fill_form(page, model, windows=150, target=40)
    page.locator("#go").click()
    expect(page.locator("#status")).to_contain_text("Iteration 1", timeout=MINUTE)
    run_id = re.search(r"run=(\w{24})", page.url).group(1)
    page.context.close()
    server.end()
    server.start()
    again = visitor(path=f"?run={run_id}")
    wait_for_state(again, "finished", 240)


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out_sideways(visitor, width):
    page = visitor(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
