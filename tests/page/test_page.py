"""The page of an atlas as files: what they hold, that they repeat themselves, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.atlases import HOSTILE, JOB, handmade_atlas, made_store, record, stripes

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.page.look_alikes import descriptor, most_alike
from cnnvis_fast.page.thumbnails import PER_SIDE, SpriteWriter
from cnnvis_fast.results.pictures import short_history
from cnnvis_fast.storage.atlas_reader import natural
from cnnvis_fast.storage.files import plain_name
from cnnvis_fast.storage.job_folder import Store


def called(path: Path) -> dict[str, Any]:
    """What a script hands to the page."""
    text = path.read_text()
    match = re.fullmatch(r"cnnvis\.(atlas|details)\((.*)\);\n", text, re.DOTALL)
    assert match
    return json.loads(match[2])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept")
    handmade_atlas(out, {"features.10": 3, "features.2": 70, "head": 1})
    return out


@pytest.fixture
def store(kept: Path, tmp_path: Path) -> Store:
    shutil.copytree(kept, tmp_path / "atlas")
    return made_store(tmp_path / "atlas", JOB)


# What is in the files


def test_layers_keep_the_order_of_the_network(store: Store) -> None:
    cv.gallery(store.out)
    told = called(store.out / "units.js")["layers"]
    assert [layer["name"] for layer in told] == ["features.10", "features.2", "head"]
    assert [layer["channels"] for layer in told] == [5, 72, 3]
    assert [layer["alias"] for layer in told] == ["conv1", "conv2", "conv3"]
    page = (store.out / "index.html").read_text()
    places = [page.index(f'data-layer="{name}"') for name in ("features.10", "features.2", "head")]
    assert places == sorted(places)
    assert "70 of 72" in page


def test_without_a_list_of_layers_they_come_in_natural_order(store: Store) -> None:
    (store.out / "layers.json").unlink()
    cv.gallery(store.out)
    assert [layer["name"] for layer in called(store.out / "units.js")["layers"]] == [
        *("features.2", "features.10", "head"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["a1", "a2", "a10"],
        ["features.2.x", "features.10.x"],
        ["1", "a"],
        ["layer1.0", "layer1.0.conv", "layer2"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    assert sorted(reversed(names), key=natural) == names


def test_every_number_of_a_record_is_a_column(tmp_path: Path) -> None:
    more = {"checkerboard": lambda n: n / 8, "hints": lambda n: ["raise the rate"] * (n == 1)}
    store = handmade_atlas(tmp_path, {"conv": 3}, **more)
    cv.gallery(tmp_path)
    (layer,) = called(tmp_path / "units.js")["layers"]
    columns = layer["columns"]
    assert columns["checkerboard"] == [0, 0.125, 0.25]
    assert columns["hints"] == ["", "raise the rate", ""]
    assert columns["score"] == [10, 9.75, 9.5]
    assert columns["status"] == ["ok"] * 3
    assert not {"history", "config", "job", "model", "layer"} & {*columns}
    assert len(store.records("conv")) == 3


def test_a_column_of_the_table_alone_is_shown_too(store: Store) -> None:
    path = store.out / "scores.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "border"])
        writer.writeheader()
        writer.writerows({**row, "border": int(row["filter"]) + 0.5} for row in rows if row["filter"] != "1")
    cv.gallery(store.out)
    first = called(store.out / "units.js")["layers"][0]
    assert first["columns"]["border"] == [0.5, None, 2.5]
    assert first["columns"]["score"][1] == 9.75


def test_a_record_of_an_older_version_is_enough(tmp_path: Path) -> None:
    store = made_store(tmp_path, JOB)
    old = record("conv", 0, 4)
    for name in ("history", "channels", "saturated", "robust_score"):
        del old[name]
    store.write("conv", 0, stripes(0, 32), old)
    cv.gallery(tmp_path)
    (layer,) = called(tmp_path / "units.js")["layers"]
    assert layer["channels"] is None
    assert called(tmp_path / "conv" / "units.js")["histories"] == [None]


def test_an_empty_atlas_has_a_page_that_says_so(tmp_path: Path) -> None:
    made_store(tmp_path, JOB)
    page = cv.gallery(tmp_path)
    assert called(tmp_path / "units.js")["layers"] == []
    assert page.is_file()


def test_a_damaged_tile_is_told(store: Store) -> None:
    tile = store.folder("features.2") / "0005.png"
    tile.write_bytes(tile.read_bytes()[:60])
    foreign = store.folder("features.2") / "0006.png"
    foreign.write_bytes((store.folder("features.2") / "0007.png").read_bytes())
    cv.gallery(store.out)
    columns = called(store.out / "units.js")["layers"][1]["columns"]
    assert [columns["status"][n] for n in (4, 5, 6, 7)] == ["ok", "damaged", "damaged", "ok"]
    assert columns["score"][5] is None
    alike = called(store.folder("features.2") / "units.js")["alike"]
    assert alike[5] == alike[6] == []
    assert not {5, 6} & {other for others in alike for other in others}


def test_alpha_maps_are_found_and_are_no_tiles(store: Store) -> None:
    Image.new("L", (8, 8)).save(store.folder("head") / "0000.alpha.png")
    cv.gallery(store.out)
    assert called(store.folder("head") / "units.js")["alphas"] == [0]
    assert called(store.out / "units.js")["layers"][2]["columns"]["filter"] == [0]


def test_thumbnails_show_the_tiles_in_order(store: Store) -> None:
    cv.gallery(store.out)
    sheets = sorted(store.folder("features.2").glob("thumbnails-*.jpg"))
    assert [path.name for path in sheets] == ["thumbnails-00.jpg", "thumbnails-01.jpg"]
    for number in (0, 13, 63, 64, 69):
        sheet = np.asarray(Image.open(sheets[number // 64]).convert("RGB"), float)
        side = sheet.shape[0] // PER_SIDE
        assert side == 40
        row, column = divmod(number % 64, PER_SIDE)
        cell = sheet[row * side :, column * side :][:side, :side]
        assert abs(cell - stripes(number, 40).transpose(1, 2, 0)).mean() < 8, number


def test_a_layer_that_shrank_leaves_no_sheet_behind(tmp_path: Path) -> None:
    for count in (PER_SIDE**2 + 1, 3):
        writer = SpriteWriter(tmp_path, "thumbnails")
        for number in range(count):
            writer.add(to_image(stripes(number, 16)))
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["thumbnails-00.jpg"]


def test_pictures_of_any_shape_have_thumbnails(tmp_path: Path) -> None:
    writer = SpriteWriter(tmp_path, "maps", lossless=True)
    writer.add(None)
    writer.add(Image.new("L", (10, 20), 255))
    writer.add(Image.new("RGB", (1, 1), (255, 0, 0)))
    writer.close()
    with Image.open(tmp_path / "maps-00.png") as sheet:
        assert sheet.size == (160, 160)
        assert sheet.getpixel((30, 10)) == (255, 255, 255)
        assert sheet.getpixel((21, 10)) == (128, 128, 128)
        assert sheet.getpixel((50, 10)) == (255, 0, 0)


# That it is a function of the tiles


def test_written_again_it_is_the_same(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.out, tmp_path / "copy")
    cv.gallery(store.out)
    first = contents(store.out)
    cv.gallery(store.out)
    cv.gallery(tmp_path / "copy")
    assert contents(store.out) == first == contents(tmp_path / "copy")


def test_the_page_loads_nothing_from_elsewhere(store: Store) -> None:
    page = cv.gallery(store.out).read_text()
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert addresses
    assert not [address for address in addresses if "//" in address]
    assert set(re.findall(r"https?://[^\s\"'`]+", page)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, not a place


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    handmade_atlas(tmp_path, {name: 2})
    page = cv.gallery(tmp_path).read_text()
    if "<" in name:
        assert name not in page
    assert page.count("<script") == 3
    assert (
        "</" not in (tmp_path / plain_name(name) / "units.js").read_text().replace("<\\/", "") or "<" in name
    )
    assert called(tmp_path / "units.js")["layers"][0]["name"] == name


def test_a_hostile_job_stays_text(tmp_path: Path) -> None:
    made_store(tmp_path, {**JOB, "model": HOSTILE[1], "weights": HOSTILE[0]})
    page = cv.gallery(tmp_path).read_text()
    assert HOSTILE[0] not in page
    assert HOSTILE[1] not in page


# What is refused


def test_a_folder_without_an_atlas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"job\.json"):
        cv.gallery(tmp_path)
    with pytest.raises(InputError, match="no atlas"):
        cv.gallery(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, content",
    [
        ("job.json", "{"),
        ("job.json", "[]"),
        ("layers.json", "[1]"),
        ("layers.json", "{"),
        ("scores.csv", "a,b\n1,2\n"),
    ],
)
def test_damaged_files_are_refused_by_name(name: str, content: str, store: Store) -> None:
    (store.out / name).write_text(content)
    with pytest.raises(InputError, match=name):
        cv.gallery(store.out)
    assert not (store.out / "index.html").exists()


# Look-alikes and curves


def test_alike_is_who_shares_colors_and_direction() -> None:
    pictures = [to_image(stripes(number, 64)) for number in range(6)]
    pictures.append(to_image(np.roll(stripes(2, 64), (16, 16), (1, 2))))
    nearest = most_alike(np.stack([descriptor(picture) for picture in pictures]))
    assert nearest[2][0] == 6
    assert nearest[6][0] == 2
    assert all(sorted([row, *others]) == list(range(7)) for row, others in enumerate(nearest))


def test_a_descriptor_has_length_one() -> None:
    for picture in (Image.new("L", (7, 5), 90), to_image(stripes(1, 50)), Image.new("RGB", (300, 2))):
        values = descriptor(picture)
        assert np.isfinite(values).all()
        assert np.square(values[:64]).sum() == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 128, 1000])
def test_a_short_history_keeps_both_ends(steps: int) -> None:
    history = torch.arange(steps).float() * 1.23456
    short = short_history(history)
    assert len(short) == min(steps, 64)
    assert short[0] == 0
    assert short[-1] == pytest.approx(float(history[-1]), rel=1e-3)
    assert short == sorted(short)


def test_a_short_history_of_what_is_not_finite() -> None:
    assert short_history(torch.tensor([1.0, float("nan"), float("inf")])) == [1.0, None, None]


# With a network


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real")
    cv.atlas("texturenet", ["conv1", "logits"], out, filters="0-2", steps=3, size=32, progress=False)
    return out


def test_a_real_atlas_has_curves_and_channels(real: Path) -> None:
    cv.gallery(real)
    told = called(real / "units.js")["layers"]
    assert [(layer["name"], layer["channels"]) for layer in told] == [("features.0", 24), ("logits", 20)]
    histories = called(real / "features.0" / "units.js")["histories"]
    assert all(len(history) == 3 for history in histories)


def test_a_photo_shows_every_map_and_goes_with_the_next_page(real: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    to_image(stripes(1, 60)).save(photo)
    cv.gallery(real, photo)
    assert called(real / "units.js")["photo"] == {"layers": ["features.0"]}  # logits have no maps
    assert (real / "photo.png").is_file()
    with Image.open(real / "features.0" / "maps-00.png") as sheet:
        cell = np.asarray(sheet.convert("L"))[:96, 96:192]
    maps = cv.activation_maps("texturenet", photo, "conv1")["conv1"][1].numpy()
    assert np.corrcoef(cell.ravel(), maps.ravel())[0, 1] > 0.9
    cv.gallery(real)
    assert not list(real.rglob("maps-*")) + list(real.glob("photo.png"))


def test_a_network_with_other_weights_is_refused(real: Path, tmp_path: Path) -> None:
    to_image(stripes(1, 60)).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match="other weights"):
        cv.gallery(real, tmp_path / "photo.png", weights="none")


def test_a_module_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "steps": 2, "size": 32, "progress": False}
    cv.atlas(model, "0", tmp_path / "mine", **options)
    assert weights_digest(model)
    photo = stripes(2, 32).transpose(1, 2, 0)
    with pytest.raises(InputError, match="model="):
        cv.gallery(tmp_path / "mine", photo)
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match="pass as model= the network with the atlas's weights"):
        cv.gallery(tmp_path / "mine", photo, model=other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # at the size of its pictures, so that there is none to ask for
        cv.gallery(tmp_path / "mine", photo, model=model)
    assert called(tmp_path / "mine" / "units.js")["photo"] == {"layers": ["0"]}


def test_pictures_show_themselves_in_notebooks() -> None:
    pictures = cv.maximize("texturenet", "conv1", filters=[0, 1], steps=2, size=32, progress=False)
    assert pictures._repr_png_().startswith(b"\x89PNG")
    html = pictures._repr_html_()
    assert "features.0: 2 pictures" in html
    assert html.count("data:image/png;base64,") == 1
