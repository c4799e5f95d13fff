"""What a visitor does and sees, in words of the page."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

MINUTE = 60_000


def fill_form(page: Page, model: str, windows: int = 4, target: int | None = None) -> None:
    field = page.get_by_label("Model", exact=True)
    field.fill(model)
    field.press("Tab")
    page.keyboard.press("Escape")  # the list of the next field opens over those below it
    if target is not None:
        number = page.get_by_label("number input for How much, %")
        number.fill(str(target))
        number.press("Tab")
    page.get_by_label("Remove", exact=True).click()
    page.get_by_role("option", name="whole blocks", exact=True).click()
    unfold(page, "What is measured")
    unfold(page, "Advanced")
    page.locator("#setting_refit").get_by_label("no", exact=True).check()
    fields = (("#setting_vocabulary input", 0), ("#setting_windows input", windows), ("#items input", 4))
    for field, value in fields:
        number = page.locator(field)
        number.fill(str(value))
        number.press("Tab")


def settle(page: Page) -> None:
    """Wait until what moves has arrived, and what was changed last is drawn."""
    page.evaluate(
        "Promise.all(document.getAnimations().filter(a => a.effect.getComputedTiming().endTime < Infinity)"
        ".map(a => a.finished.catch(() => null)))"
        ".then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))"
    )


def unfold(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def prune(page: Page) -> str:
    """Press Prune; the id of the run."""
    page.locator("#go").click()
    expect(page).to_have_url(re.compile(r"run=[0-9a-f]{24}"), timeout=MINUTE)
    return re.search(r"run=([0-9a-f]{24})", page.url).group(1)


def wait_for_state(page: Page, state: str, seconds: int = 90) -> None:
    expect(page.locator("#status .status")).to_have_attribute("data-state", state, timeout=seconds * 1000)


def state_of(page: Page) -> str:
    return page.locator("#status .status").get_attribute("data-state")


def removed(page: Page) -> list[str]:
    """What was removed, in order, from the table behind the charts, which must be unfolded."""
    expect(page.locator("#measurements tbody tr").first).to_be_visible()
    return page.locator("#measurements tbody tr:not(:first-child) td:nth-child(2)").all_inner_texts()


def chart(page: Page, name: str) -> dict:
    """What Plotly has drawn: the data and layout it was given."""
    return page.evaluate(
        "name => { const p = document.querySelector('#' + name + ' .plot');"
        " return {data: p.data.map(d => ({type: d.type, points: (d.x || []).length})),"
        " shapes: (p.layout.shapes || []).length, height: p.clientHeight}; }",
        name,
    )
