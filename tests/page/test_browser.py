"""The page in a real browser, opened as a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.atlases import HOSTILE, JOB, handmade_atlas, made_store, record, stripes

import cnnvis_fast as cv
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.storage.files import plain_name

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


def numbers(page: Any) -> list[int]:
    """Units in the grid, as far as they are drawn, in reading order."""
    rows = page.locator("#rows .row").all()
    rows.sort(key=lambda row: int(row.get_attribute("aria-rowindex")))
    return [int(text) for row in rows for text in row.locator(".tile b").all_inner_texts()]


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id")


def wait_until(page: Any, expression: str) -> None:
    """Waits until it is true in the page, whose policy forbids how Playwright itself would ask again."""
    ends = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"never true: {expression}"
        page.wait_for_timeout(20)


def shows_unit(page: Any, name: str, number: int) -> None:
    title = json.dumps(f"{name} / {number}")
    wait_until(page, f"document.querySelector('#unit h2')?.textContent === {title}")
    assert not page.locator("#grid").is_visible()


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


def test_neighbours_lead_to_their_units(atlas_page: Path, visit: Callable[..., Any]) -> None:
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


def contrast(first: list[float], second: list[float]) -> float:
    """Of two sRGB colours (WCAG 2.2)."""
    lights = []
    for colour in (first, second):
        values = np.asarray(colour[:3]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(theme: str, atlas_page: Path, visit: Callable[..., Any]) -> None:
    page = visit(atlas_page, color_scheme=theme)
    page.wait_for_selector(".tile")
    colours = """(names) => names.map((name) => {
        const probe = document.createElement('span');
        probe.style.color = `var(--${name})`;
        document.body.append(probe);
        return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
    })"""
    paper, raised, *inks = page.evaluate(colours, ["paper", "raised", "ink", "soft", "accent", "alarm"])
    assert (sum(paper) > 600) == (theme == "light")
    for ink in inks:
        assert contrast(ink, paper) >= 4.5
        assert contrast(ink, raised) >= 4.5
    button = page.locator("#theme")
    button.click()
    assert button.inner_text() == "Light"
    assert sum(page.evaluate(colours, ["paper"])[0]) > 600
    button.click()
    assert sum(page.evaluate(colours, ["paper"])[0]) < 200


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


# How it bears 4,224 units, as many as the convolutions of VGG16 have

SCROLL = """() => new Promise((done) => {
    const grid = document.getElementById('grid');
    const frames = [];
    grid.scrollTop = 0;
    let last = performance.now();
    const step = (now) => {
        frames.push(now - last);
        last = now;
        const before = grid.scrollTop;
        grid.scrollTop += 200;
        if (grid.scrollTop === before) done(frames); else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""

VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


def many_units(out: Path) -> Path:
    """A page of 4,224 units; tiles share 48 pictures, else making them would take longer than looking."""
    store = made_store(out, JOB)
    pictures = [to_image(stripes(number, 112)) for number in range(48)]
    rows = [{"name": f"features.{n}", "alias": f"conv{n}", "kind": "Conv2d"} for n in range(len(VGG16))]
    store.write_layers(rows)
    for place, channels in enumerate(VGG16):
        name = f"features.{place}"
        (out / plain_name(name)).mkdir()
        for number in range(channels):
            info = PngImagePlugin.PngInfo()
            row = {"job": store.digest, **record(name, number, channels)}
            info.add_text("cnnvis_fast", json.dumps(row))
            picture = pictures[(number * 7 + place) % len(pictures)]
            picture.save(out / name / f"{number:04d}.png", pnginfo=info, compress_level=1)
    return cv.gallery(out)


def resident(kind: str, session: Any) -> float:
    """Megabytes that the largest process of a kind holds: of renderers, the one that has the page."""
    sizes = [0]
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] == kind:
            status = Path(f"/proc/{process['id']}/status").read_text()
            sizes.append(int(status.split("VmRSS:")[1].split()[0]))
    return max(sizes) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_four_thousand_units_stay_smooth(tmp_path: Path, browser: Any, visit: Callable[..., Any]) -> None:
    began = time.perf_counter()
    path = many_units(tmp_path)
    print(f"page made in {time.perf_counter() - began:.1f} s")
    page = visit(path)
    page.wait_for_selector(".tile")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    tiles = page.evaluate("new Promise((d) => requestAnimationFrame(() => d(performance.now())))")
    session = browser.new_browser_cdp_session()
    frames, worst, renderer = [], float("inf"), 0.0
    for _ in range(3):  # the best pass counts: in any of them, another process may take the processor away
        frames = page.evaluate(SCROLL)
        renderer = renderer or resident("renderer", session)  # all of it seen once
        worst = min(worst, max(frames[1:]))
        if worst < 100:
            break
    assert numbers(page)[-1] == 511
    assert len(frames) > 200
    typical = sorted(frames)[len(frames) // 2]
    print(f"first paint {paint:.0f} ms, tiles by {tiles:.0f} ms, {len(frames)} frames of {typical:.0f} ms")
    print(f"the longest {worst:.0f} ms; page {renderer:.0f} MB, drawing {resident('GPU', session):.0f} MB")
    assert paint < 1000
    assert worst < 100
    assert renderer < 500
