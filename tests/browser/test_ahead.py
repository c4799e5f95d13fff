"""What is drawn before gradio has come: it stands where the page will stand, and is not left behind."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from .conftest import visiting

# What is drawn ahead stands apart from the document; a test may look into it.
OPEN = """const attach = Element.prototype.attachShadow;
Element.prototype.attachShadow = function (options) {
    const root = attach.call(this, { ...options, mode: "open" });
    window.ahead ||= root;
    return root;
};"""
# What eyes rest on. Where a page scrolls, what is above the fold.
PLACES = {
    390: ("#masthead h1", "#runs", "#model", "#calibration", "#method", "#target"),
    768: ("#masthead h1", "#runs", "#form", "#method_note", "#plan"),
    1440: ("#masthead p", "#form", "#plan", "#go", "#status", "#see_method", "#map", "#views p", "#masthead"),
}
WHERE = """([root, places]) => Object.fromEntries(places.map(place => {
    const { x, y, width, height } = (window[root] || document).querySelector(place).getBoundingClientRect();
    return [place, [x, y, width, height]];
}))"""
# Pixels between what was drawn and what takes its place.
NEAR = 10
# Also what is set to be visible itself.
HIDES = "app => { const { visibility, opacity } = getComputedStyle(app); return [visibility, opacity]; }"
THEME = "() => getComputedStyle((window.ahead || document).querySelector('.card')).backgroundColor"


@pytest.mark.parametrize("width", sorted(PLACES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_where_it_was_drawn(browser, server, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, reduced_motion="reduce", color_scheme=scheme
    )
    page = context.new_page()
    page.add_init_script(OPEN)
    held: list[Route] | None = []

    def hold(route: Route) -> None:
        if held is None:
            route.continue_()
        else:
            held.append(route)

    page.route("**/assets/*.js", hold)  # gradio's, until the drawing has been looked at
    page.goto(server.url, wait_until="commit")
    page.wait_for_function("window.ahead?.querySelectorAll('#map .block-bar').length === 14")
    drawn, theme = page.evaluate(WHERE, ["ahead", PLACES[width]]), page.evaluate(THEME)
    assert page.evaluate("document.title") == "PIP Studio"
    assert page.evaluate("window.ahead.querySelectorAll('.method .bars .gone').length") > 0
    assert page.locator("gradio-app").evaluate(HIDES) == ["hidden", "0"]
    waiting, held = held, None
    for route in waiting:
        route.continue_()
    page.wait_for_function("!window.ahead.host.isConnected", timeout=60_000)
    assert page.locator("gradio-app").evaluate(HIDES) == ["visible", "1"]
    page.evaluate("delete window.ahead")
    expect(page.locator("#go")).to_be_enabled(timeout=60_000)
    for place, there in page.evaluate(WHERE, ["document", PLACES[width]]).items():
        assert there == pytest.approx(drawn[place], abs=NEAR), place
    assert page.evaluate(THEME) == theme
    context.close()


def test_where_gradio_does_not_come_the_page_says_so(browser, server):
    with visiting(browser, server) as open_:
        page = open_(forgiving=True)
        page.add_init_script(OPEN)
        page.route("**/assets/*.js", lambda route: route.abort())
        page.reload()
        page.wait_for_function("window.ahead?.querySelector('.problem')?.textContent.includes('Reload')")


def test_a_run_that_the_address_names_is_never_preceded_by_an_empty_page(browser, server, api_run):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    seen = """const seen = window.seen = new Set(), look = () => {
        const shown = document.querySelector("#status .status");
        if (shown?.checkVisibility({ visibilityProperty: true })) seen.add(shown.dataset.state);
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);"""
    page.add_init_script(seen)
    page.goto(f"{server.url}?run={api_run.id}")
    page.wait_for_function("window.seen.has('finished')")
    assert page.evaluate("[...window.seen]") == ["finished"]
    context.close()


def test_the_page_opens_where_a_browser_lets_it_keep_nothing(browser, server):
    """As in another site's frame: a Space is shown in one."""
    context, complaints = browser.new_context(), []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, {
            configurable: true, get() { throw new DOMException("Access is denied.", "SecurityError"); } });"""
    )
    page.goto(server.url)
    expect(page.locator("#go")).to_be_enabled(timeout=60_000)
    page.evaluate("pip.dark(true)")
    assert complaints == []
    context.close()
