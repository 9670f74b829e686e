"""The page in a real browser, opened as a file: layers, units, links, sorting, searching, keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import numbers, shows_unit, wait_until


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id")


def test_it_opens_with_all_layers_in_order(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.wait_for_selector(".tile")
    assert page.locator("nav .name").all_inner_texts() == ["conv.2", "conv.10", "head"]
    assert page.locator("nav .about").all_inner_texts() == [
        *("conv1 · 12 of 14", "conv2 · 90 of 92", "conv3 · 2 of 4"),
    ]
    assert page.locator("#count").inner_text() == "104 of 104 units"
    assert numbers(page)[:14] == [*range(12), 0, 1]
    assert page.title() == "handmade: what its filters look for"
    loaded = page.evaluate(
        """async () => {
            const source = getComputedStyle(document.querySelector('.thumb')).backgroundImage.slice(5, -2);
            const image = new Image();
            image.src = source;
            await image.decode();
            return image.naturalWidth;
        }"""
    )
    assert loaded == 8 * 40


def test_rows_out_of_sight_are_not_in_the_document(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, viewport={"width": 700, "height": 500})
    page.wait_for_selector(".tile")
    assert page.locator(".tile").count() < 80
    seen = set(page.locator(".tile").evaluate_all("all => all.map((a) => a.getAttribute('href'))"))
    while True:
        before = page.evaluate("document.getElementById('grid').scrollTop")
        page.evaluate("document.getElementById('grid').scrollBy(0, 400)")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        tiles = page.locator(".tile")
        assert tiles.count() < 80
        seen |= set(tiles.evaluate_all("all => all.map((a) => a.getAttribute('href'))"))
        if page.evaluate("document.getElementById('grid').scrollTop") == before:
            break
    assert len(seen) == 104


def test_from_a_layer_to_a_unit_and_back(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.get_by_role("link", name="conv.10").first.click()
    wait_until(page, "document.getElementById('count').textContent === '90 of 90 units'")
    assert page.url.endswith("#conv.10")
    assert page.locator("nav a[aria-current]").get_attribute("data-layer") == "conv.10"
    page.locator(".tile", has=page.get_by_text("7", exact=True)).first.click()
    shows_unit(page, "conv.10", 7)
    assert page.url.endswith("#conv.10/7")
    wait_until(page, "document.querySelector('#unit img.large').naturalWidth === 40")
    row = page.locator("#unit tr[data-column=score]")
    assert row.inner_text().split("\t") == ["score", "8.25"]
    assert page.locator("#unit tr[data-column=checkerboard] td").inner_text() == "0.05"
    label = page.locator("#unit svg.curve").get_attribute("aria-label")
    assert label == "Score over 16 steps: from 0.25 to 15.25, lowest 0.25, highest 15.25"
    assert page.locator("#unit img[src='conv.10/0007.alpha.png']").count() == 1
    assert page.locator("#alike .tile").count() == 8
    page.locator("#provenance summary").first.click()
    assert "natural" in page.locator("#provenance").inner_text()
    page.get_by_role("link", name="Next").click()
    shows_unit(page, "conv.10", 8)
    page.get_by_role("link", name="Previous").click()
    shows_unit(page, "conv.10", 7)
    page.get_by_role("link", name="Back to the grid").click()
    page.wait_for_selector("#grid .tile")
    assert focused(page) == "#conv.10/7"
    page.go_back()
    shows_unit(page, "conv.10", 7)


def test_neighbors_lead_to_their_units(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, "#conv.2/0")
    first = page.locator("#alike .tile").first
    target = first.get_attribute("href")
    first.click()
    shows_unit(page, "conv.2", int(target.rsplit("/", 1)[1]))


@pytest.mark.parametrize("address, title", [("#conv.10/89", "conv.10 / 89"), ("#head/0", "head / 0")])
def test_a_link_opens_its_unit(address: str, title: str, atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, address)
    page.wait_for_selector("#unit h2")
    assert page.locator("#unit h2").inner_text() == title
    assert page.title() == title.replace(" ", "")


@pytest.mark.parametrize("address", ["#conv.11", "#conv.10/90", "#conv.10/x", "#%", "#/"])
def test_a_wrong_link_says_so(address: str, atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, address)
    page.wait_for_selector(".tile")
    assert page.locator("#count").inner_text().startswith("There is no ")


def test_sorting_by_any_number(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, "#conv.2")
    page.wait_for_selector(".tile")
    options = page.locator("#sort option").evaluate_all("all => all.map((option) => option.value)")
    assert {"filter", "score", "robust_score", "checkerboard"} <= {*options}
    page.locator("#sort").select_option("checkerboard")
    ranked = sorted((n for n in range(12) if n != 5), key=lambda n: (n * 7 % 11, n))
    assert numbers(page) == [*ranked, 5]  # what has no number comes last
    page.locator("#direction").click()
    falling = sorted((n for n in range(12) if n != 5), key=lambda n: (-(n * 7 % 11), n))
    assert numbers(page) == [*falling, 5]
    page.locator(".tile").first.click()
    page.get_by_role("link", name="Next").click()
    shows_unit(page, "conv.2", falling[1])  # previous and next go in the grid's order


def test_filtering_by_status(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.locator("#status").select_option("dead")
    assert numbers(page) == [3, *range(3, 90, 10)]
    assert page.locator("#count").inner_text() == "10 of 104 units"
    assert set(page.locator(".tile .bad").all_inner_texts()) == {"dead"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("conv.2", list(range(12))),
        ("11", [11, 11]),
        ("conv2 11", [11]),
        ("conv.10/8", [8, *range(80, 90)]),
        ("DEAD conv.2", [3]),
        ("nothing", []),
    ],
)
def test_searching(text: str, expected: list[int], atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.locator("#search").fill(text)
    assert numbers(page) == expected
    assert page.locator("#count").inner_text().startswith(f"{len(expected)} of 104 units")


def test_the_keyboard_is_enough(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.wait_for_selector(".tile")
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("conv.10/17")
    page.keyboard.press("Enter")
    shows_unit(page, "conv.10", 17)
    page.keyboard.press("ArrowRight")
    shows_unit(page, "conv.10", 18)
    page.keyboard.press("ArrowLeft")
    shows_unit(page, "conv.10", 17)
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .tile")
    assert focused(page) == "#conv.10/17"
    page.wait_for_timeout(100)  # the grid has been measured again meanwhile
    assert focused(page) == "#conv.10/17"
    for key, expected in [
        *(
            ("ArrowRight", 18),
            ("ArrowLeft", 17),
            ("Home", 0),
            ("End", 89),
            ("ArrowUp", 80),
            ("ArrowDown", 89),
        ),
        *(("ArrowLeft", 88), ("Home", 0), ("ArrowDown", 9), ("ArrowUp", 0), ("ArrowUp", 0)),
    ]:
        page.keyboard.press(key)
        assert focused(page) == f"#conv.10/{expected}", key
    page.keyboard.press("PageDown")
    assert int(focused(page).rsplit("/", 1)[1]) > 8
    page.keyboard.press("Enter")
    page.wait_for_selector("#unit h2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .tile")
    # Only one tile is a stop of the Tab key.
    assert page.locator(".tile[tabindex='0']").count() == 1


def test_the_first_tab_stop_skips_to_the_pictures(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page)
    page.wait_for_selector(".tile")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert focused(page) == "#conv.2/0"


def test_a_finger_turns_the_pages(atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, "#conv.2/4", has_touch=True, viewport={"width": 400, "height": 800})
    shows_unit(page, "conv.2", 4)
    session = page.context.new_cdp_session(page)

    def swipe(start: int, end: int) -> None:
        points = [("touchStart", [{"x": start, "y": 300}]), ("touchMove", [{"x": end, "y": 305}])]
        for kind, touches in [*points, ("touchEnd", [])]:
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    swipe(300, 100)
    shows_unit(page, "conv.2", 5)
    swipe(100, 300)
    shows_unit(page, "conv.2", 4)


@pytest.mark.parametrize("address", ["", "#conv.10", "#conv.10/7"])
def test_a_narrow_screen_has_a_menu_and_no_sideways_scrolling(
    address: str, atlas_page: Path, visit: Callable[..., Any]
) -> None:
    page = visit(atlas_page, address, viewport={"width": 400, "height": 800})
    page.wait_for_selector(".tile:visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 400
    menu = page.get_by_role("button", name="Layers")
    assert not page.locator("nav").is_visible()
    menu.click()
    assert menu.get_attribute("aria-expanded") == "true"
    page.locator("nav a[data-layer=head]").click()
    wait_until(page, "document.getElementById('count').textContent === '2 of 2 units'")
    assert not page.locator("nav").is_visible()
