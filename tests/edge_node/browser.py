"""A headless Chromium for tests, where this machine has one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

HOST = "elsewhere.example"
"""A name that the browser finds on this machine, as if its owner had let it point here."""


@contextmanager
def chromium() -> "Iterator[Browser]":
    """A running browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'kvwire[browser]'")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Chat:
    """The page of an edge, and what a person does with it. complaints: errors on the console, and of scripts."""

    def __init__(self, browser: "Browser", address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"http://{address}/")
        self.started()

    def started(self) -> None:
        """Wait until the page knows what the edge runs."""
        self.page.locator("#node", has_text="at this edge").wait_for()

    def ask(self, question: str, document: str | None = None) -> None:
        if document is not None:
            self.page.fill("#document", document)
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    @property
    def card(self) -> "Locator":
        """The last answer."""
        return self.page.locator(".card").last

    def answered(self) -> "Locator":
        """The last answer, once nothing is on its way."""
        self.page.locator("#turns:not(:has([aria-busy])) .card").last.wait_for()
        return self.card

    def text(self, selector: str) -> str:
        return self.card.locator(selector).inner_text()

    def failed_calls(self) -> list[str]:
        """Complaints less those that a browser makes of every reply over 399."""
        return [said for said in self.complaints if not said.startswith("Failed to load resource")]
