"""The page's look: every width, both themes, for eyes, keyboards and screen readers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from .acts import MINUTE, settle, unfold

# Gradio's own, which the page cannot mend.
GRADIOS = {"aria-allowed-attr", "aria-valid-attr-value", "nested-interactive"}


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: PIP_STUDIO_SHOTS, or a temporary folder."""
    folder = Path(os.environ.get("PIP_STUDIO_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def faults(page) -> list[str]:
    """What axe finds, of our own making."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['help']} ({v['nodes'][0]['html'][:120]})" for v in found if v["id"] not in GRADIOS
    ]


def sideways(page) -> list[str]:
    """What is wider than its place; of tables only that of scores may be, which grows with the run."""
    return page.evaluate(
        "[...document.querySelectorAll('.scroll, #form *, main')].filter(e => e.offsetParent"
        " && !e.closest('#scores') && /auto|scroll/.test(getComputedStyle(e).overflowX)"
        " && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 120))"
    )


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["empty", "finished"])
def test_screens(pages, shots, name, width):
    page = pages(name, width)
    expect(page.locator("#plan")).to_contain_text("Will remove", timeout=MINUTE)
    for dark in (False, True):
        page.evaluate("dark => pip.dark(dark)", dark)
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(
            path=shots / f"{name}-{width}-{'dark' if dark else 'light'}.png", full_page=width < 1000
        )
        assert faults(page) == [], dark


def test_every_tab_is_accessible(pages, shots):
    page = pages("finished")
    page.evaluate("pip.dark(false)")
    for name in ("Chat", "Inspect", "Compare", "Download"):
        page.get_by_role("tab", name=name).click()
        settle(page)
        page.screenshot(path=shots / f"{name.lower()}.png", full_page=True)
        assert faults(page) == [], name
        assert sideways(page) == [], name


def test_tables_have_room_on_a_phone(pages):
    page = pages("finished", 390)
    page.get_by_role("tab", name="Live").click()
    unfold(page, "Charts as numbers")
    expect(page.locator("#measurements td[data-label='perplexity']").first).to_be_visible()
    assert sideways(page) == []
    page.get_by_role("tab", name="Inspect").click()
    settle(page)
    assert sideways(page) == []


def test_what_is_refused_marks_its_field_wherever_that_is(pages):
    """Below what was asked, and in a fold of its own; the mark goes with the refusal."""
    page = pages("finished")
    page.get_by_role("tab", name="Chat").click()
    page.locator("#prompt textarea").fill("word " * 3000)
    page.locator("#ask").click()
    expect(page.locator("#chat-note .problem")).to_contain_text("Write a shorter one", timeout=MINUTE)
    expect(page.locator("#chat-note .problem")).to_be_in_viewport()
    expect(page.locator("#prompt")).to_have_class(re.compile("faulty"))
    page.locator("#prompt textarea").fill("The sky")
    page.locator("#ask").click()
    expect(page.locator("#prompt")).not_to_have_class(re.compile("faulty"), timeout=MINUTE)
    page.get_by_role("tab", name="Live").click()
    unfold(page, "Continue or branch")
    for wrong, said in (("1.5", "whole number"), ("99", "iterations to keep")):
        page.locator("#upto input").fill(wrong)
        page.locator("#fork").click()
        expect(page.locator("#onward .problem")).to_contain_text(said)
        expect(page.locator("#upto")).to_have_class(re.compile("faulty"))
    page.locator("#upto input").fill("1")
    expect(page.locator("#upto")).not_to_have_class(re.compile("faulty"))


def test_looking_into_a_run(pages, api_run):
    page = pages("finished")
    page.get_by_role("tab", name="Inspect").click()
    assert api_run.states[-1]["iterations"] >= 1
    expect(page.locator("#tabs .pair .map:last-child .block-bar.removed")).to_have_count(
        api_run.states[-1]["iterations"]
    )
    expect(page.locator("#tasks tbody tr")).to_have_count(5)
    assert page.locator("#tasks .scroll").evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    expect(page.locator("#scores tbody tr")).to_have_count(5)
    page.get_by_role("tab", name="Chat").click()
    page.locator("#ask").click()
    for name in ("#dense-answer", "#pruned-answer"):
        expect(page.locator(f"{name} h3")).to_contain_text("tokens/s", timeout=MINUTE)
    page.locator("#differ").click()
    expect(page.locator("#places table.places tbody tr")).to_have_count(8, timeout=MINUTE)
    page.get_by_role("tab", name="Inspect").click()
    page.locator("#measure").click()
    expect(page.locator("#speed")).to_contain_text("tokens/s", timeout=MINUTE)


def test_a_slider_is_cut_off_by_nothing(pages):
    """Gradio's forms hide what reaches beyond them: half of the thumb."""
    page = pages("empty")
    cut = """[...document.querySelectorAll('#form input[type="range"]')].filter(slider => {
        for (let e = slider.parentElement; e.id !== "form"; e = e.parentElement)
            if (getComputedStyle(e).overflowY !== "visible"
                && e.getBoundingClientRect().bottom < slider.getBoundingClientRect().bottom + 5) return true;
        return false;
    }).length"""
    expect(page.locator("#go")).to_be_enabled()
    assert page.locator('#form input[type="range"]').count() > 0
    assert page.evaluate(cut) == 0


def test_by_keyboard_alone(pages):
    """Help opens and closes, and Prune is reached, without a mouse."""
    page = pages("empty")
    page.get_by_role("button", name="Help").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    # Prune cannot be reached while the plan for it is still being made.
    expect(page.locator("#go")).to_be_enabled()
    expect(page.locator("#map .block-bar")).to_have_count(14)
    page.get_by_label("Model", exact=True).focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "go":
            return
    raise AssertionError("Prune was not reached with 25 presses of Tab")


def test_light_or_dark_is_remembered(pages):
    page = pages("empty")
    was = page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("document.body.classList.contains('dark')") != was
    page.reload()
    page.wait_for_selector("#model")
    page.wait_for_function("was => document.body.classList.contains('dark') != was", arg=was)


def test_numbers_behind_the_charts(pages, api_run):
    page = pages("finished")
    page.get_by_role("tab", name="Live").click()
    unfold(page, "Charts as numbers")
    expect(page.locator("#measurements tbody tr")).to_have_count(1 + api_run.states[-1]["iterations"])


def test_an_answer_outlives_a_refresh_that_was_on_its_way(pages):
    """What stood in its place before comes once more, and goes only with another run."""
    shown = pages("empty").evaluate(
        """values => {
            values = values.map(value => value.replace("at", "data-run"));
            const element = document.createElement("div"), props = { value: values[0] }, seen = [];
            element.innerHTML = "<div class='answered'></div>";
            let changed;
            pip.answers(element, props, (_, then) => { changed = then; });
            for (const value of values) { props.value = value; changed(); seen.push(element.textContent); }
            return seen;
        }""",
        ["<p at='a'>none yet</p>", "<p>two found</p>", "<p at='a'>none yet</p>", "<p at='b'>another</p>"],
    )
    assert shown == ["none yet", "two found", "two found", "another"]


def test_the_picture_to_share_says_where_an_answer_goes_on(pages):
    """An answer that was cut off, or has no room, ends in an ellipsis; one that is whole does not."""
    ends = pages("empty").evaluate(
        """async ([fits, long]) => {
            const pen = CanvasRenderingContext2D.prototype, own = pen.fillText, ends = [];
            for (const [text, more] of [[fits, false], [fits, true], [long, false]]) {
                const written = [];
                pen.fillText = function (words, ...place) {
                    written.push(words);
                    own.call(this, words, ...place);
                };
                const point = { answer: [[text, false]], more, blocks: [[1, 1]], left: 1, kept: "" };
                const data = { model: "m", prompt: "Why?", sizes: [[1, 1]], points: [point] };
                Object.assign(data, { notes: [], whole: 1 });
                await pip.sharePicture(data, 0, "whole");
                ends.push(written.slice(0, -1).at(-1).trim());
            }
            pen.fillText = own;
            return ends;
        }""",
        ["It is so.", "It is so, and on it goes. " * 40],
    )
    assert ends == ["so.", "…", "…"]
