"""A browser, visits that must not complain, and a page to visit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.atlases import handmade_atlas

import cnnvis_fast as cv

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


def browser_path() -> str:
    """Of a Chromium; one that is asked for by name is not looked for elsewhere."""
    asked = os.environ.get("CNNVIS_FAST_BROWSER")
    found = asked or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium: install it, or set CNNVIS_FAST_BROWSER to its path")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; whatever it complains of, or loads from elsewhere, fails the test."""
    complaints: list[str] = []
    contexts = []

    def call(page_path: Path, address: str = "", expected: tuple[str, ...] = (), **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)

        def complain(text: str) -> None:
            if not any(word in text for word in expected):
                complaints.append(text)

        page.on("console", lambda message: message.type == "error" and complain(f"{message.text}"))
        page.on("pageerror", lambda error: complain(f"{error}"))
        page.on("requestfailed", lambda request: complain(f"failed: {request.url}"))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:")) or complain(request.url)
        )
        page.goto(page_path.as_uri() + address)
        return page

    yield call
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="module")
def atlas_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    more = {"checkerboard": lambda n: None if n == 5 else (n * 7 % 11) / 100}
    handmade_atlas(out, {"conv.2": 12, "conv.10": 90, "head": 2}, **more)
    Image.new("L", (40, 40), 200).save(out / "conv.10" / "0007.alpha.png")
    return cv.gallery(out)
