"""Make `docs/page.png`: run `python docs/make_picture.py`, with Chromium and the tests' requirements.

The page is started as a server of its own with an empty folder of runs. A visitor prunes the demo model with
the settings of the form, and the finished run is the picture.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from playwright.sync_api import sync_playwright  # noqa: E402

from tests.browser.server import FLAGS, Server, chromium  # noqa: E402

WIDTH, HEIGHT = 1440, 1000
RUN_MILLISECONDS = 300_000
# Charts and transitions have come to rest.
SETTLE_MILLISECONDS = 3000


def main() -> None:
    path = chromium()
    if path is None:
        sys.exit("Chromium is needed (Debian: apt-get install chromium).")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder))
        server.start()
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1)
            page.goto(server.url)
            page.locator("#go:not([disabled])").click()
            page.locator("#get:visible").wait_for(timeout=RUN_MILLISECONDS)
            page.wait_for_timeout(SETTLE_MILLISECONDS)
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=HERE / "page.png")
        finally:
            browser.close()
            server.end()
    print("docs/page.png")


if __name__ == "__main__":
    main()
