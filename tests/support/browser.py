"""Reads what a page shows in a browser."""

from __future__ import annotations

import json
import time
from typing import Any


def numbers(page: Any) -> list[int]:
    """Returns the numbers of the grid's drawn units, in reading order."""
    rows = page.locator("#rows .row").all()
    rows.sort(key=lambda row: int(row.get_attribute("aria-rowindex")))
    return [int(text) for row in rows for text in row.locator(".tile b").all_inner_texts()]


def wait_until(page: Any, expression: str) -> None:
    """Waits until an expression is true in the page, whose policy forbids Playwright's own way of polling."""
    ends = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"never true: {expression}"
        page.wait_for_timeout(20)


def shows_unit(page: Any, name: str, number: int) -> None:
    title = json.dumps(f"{name} / {number}")
    wait_until(page, f"document.querySelector('#unit h2')?.textContent === {title}")
    assert not page.locator("#grid").is_visible()
