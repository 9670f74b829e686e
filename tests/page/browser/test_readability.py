"""The page in a real browser: contrast, and names for screen readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def contrast(first: list[float], second: list[float]) -> float:
    """Of two sRGB colors (WCAG 2.2)."""
    lights = []
    for color in (first, second):
        values = np.asarray(color[:3]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(theme: str, atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, color_scheme=theme)
    page.wait_for_selector(".tile")
    colors = """(names) => names.map((name) => {
        const probe = document.createElement('span');
        probe.style.color = `var(--${name})`;
        document.body.append(probe);
        return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
    })"""
    paper, raised, *inks = page.evaluate(colors, ["paper", "raised", "ink", "soft", "accent", "alarm"])
    assert (sum(paper) > 600) == (theme == "light")
    for ink in inks:
        assert contrast(ink, paper) >= 4.5
        assert contrast(ink, raised) >= 4.5
    button = page.locator("#theme")
    button.click()
    assert button.inner_text() == "Light"
    assert sum(page.evaluate(colors, ["paper"])[0]) > 600
    button.click()
    assert sum(page.evaluate(colors, ["paper"])[0]) < 200


def test_everything_has_a_name_for_screen_readers(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, "#conv.10/7")
    page.wait_for_selector("#alike .tile")
    nameless = page.evaluate(
        """[...document.querySelectorAll('a, button, input, select, img, svg')].filter((node) =>
            !(node.getAttribute('aria-label') || node.getAttribute('alt') || node.textContent.trim()
              || node.querySelector('img[alt]')
              || node.labels?.length)).map((node) => node.outerHTML)"""
    )
    assert nameless == []
    tile = page.locator("#alike .tile").first.get_attribute("aria-label")
    assert tile.startswith("conv.10 unit ")
    assert "score" in tile
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .tile")
    page.keyboard.press("End")
    rows = page.locator("#rows .row").evaluate_all("all => all.map((row) => +row.ariaRowIndex)")
    assert page.locator("#grid").get_attribute("aria-rowcount") == str(max(rows))
