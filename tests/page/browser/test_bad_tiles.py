"""The page in a real browser: broken tiles say so, and hostile names do nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.atlases import HOSTILE, handmade_atlas
from support.browser import shows_unit, wait_until

import cnnvis_fast as cv


def test_broken_tiles_say_so(tmp_path: Path, visit: Callable[..., Any]) -> None:
    store = handmade_atlas(tmp_path, {"conv": 4})
    tile = store.folder("conv") / "0001.png"
    tile.write_bytes(tile.read_bytes()[:-20])
    path = cv.gallery(tmp_path)
    (store.folder("conv") / "0002.png").unlink()
    page = visit(path, "#conv", expected=("0002.png", "ERR_FILE_NOT_FOUND"))
    page.wait_for_selector(".tile")
    assert page.locator(".tile .bad").all_inner_texts() == ["damaged", "dead"]
    page.locator(".tile").nth(1).click()
    shows_unit(page, "conv", 1)
    assert "damaged" in page.locator("#unit [role=alert]").inner_text()
    page.get_by_role("link", name="Next").click()
    page.wait_for_selector("#unit [role=alert]:has-text('0002.png cannot be shown')")
    page.get_by_role("link", name="Next").click()
    shows_unit(page, "conv", 3)
    wait_until(page, "document.querySelector('#unit img.large').naturalWidth === 40")
    (store.folder("conv") / "units.js").unlink()
    page = visit(path, "#conv/0", expected=("units.js", "ERR_FILE_NOT_FOUND"))
    page.wait_for_selector("#unit [role=alert]:has-text('The curve and the similar pictures are missing')")


def test_hostile_names_do_nothing(tmp_path: Path, visit: Callable[..., Any]) -> None:
    layers = dict.fromkeys(HOSTILE, 2)
    store = handmade_atlas(tmp_path, layers, hints=lambda _: HOSTILE[0])
    path = cv.gallery(tmp_path)
    page = visit(path)
    page.wait_for_selector(".tile")
    assert page.locator("nav .name").all_inner_texts() == list(layers)
    for place, name in enumerate(layers):
        page.locator("nav a[data-layer]").nth(place + 1).click()
        # The address changes at once, what is shown a moment later; all layers have as many units.
        shown = "document.querySelector('#grid h2')?.textContent.startsWith"
        wait_until(page, f"{shown}({json.dumps(name)})")
        assert page.locator("#count").inner_text() == "2 of 2 units"
        page.locator(".tile").nth(1).click()
        shows_unit(page, name, 1)
        wait_until(page, "document.querySelector('#unit img.large').naturalWidth === 40")
        page.wait_for_selector("#alike .tile")
        assert page.locator("#unit tr[data-column=hints] td").inner_text() == HOSTILE[0]
        address = page.url
        assert page.title() == f"{name}/1"
        page.goto("about:blank")
        page.goto(address)
        shows_unit(page, name, 1)
    assert len({store.folder(name).name for name in layers}) == len(layers)
