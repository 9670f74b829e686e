"""Photos: what a person sees is what the network reads, or one sentence says why not."""

import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models as zoo

import cnnvis_fast as cv
from cnnvis_fast.images.photos import read_photo
from cnnvis_fast.networks.preprocessing import Source, describe, network_input

COLOR = Source("toy", "none", (0.5,) * 3, (0.5,) * 3, 32)
GRAY = Source("toy", "none", (0.5,), (0.5,), 32)
RED, WHITE = (200, 30, 60), (255, 255, 255)


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """Four quarters: red, green, blue and gray, so that any turn shows."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, (30, 180, 40)
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = (40, 50, 190), (128,) * 3
    return Image.fromarray(pixels)


def read(image: Image.Image, path: Path, **options) -> np.ndarray:
    """Through a file and back, as RGB."""
    image.save(path, **options)
    found = read_photo(path)
    assert isinstance(found, Image.Image)
    return np.asarray(found.convert("RGB"))


def close(found: np.ndarray, expected: Image.Image, within: int = 0) -> None:
    wanted = np.asarray(expected.convert("RGB")).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= within


# To the network's size


@pytest.mark.parametrize("name", ["squeezenet1_0", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v2"])
@pytest.mark.parametrize("size", [(400, 300), (301, 500), (20, 90)], ids=str)
def test_photos_become_what_the_weights_own_preprocessing_makes_of_them(name, size):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    source = describe(cv.load_model(name, None))
    found = network_input(read_photo(photo), source)
    mean, std = (torch.tensor(values)[:, None, None] for values in (source.mean, source.std))
    expected = zoo.get_model_weights(name).DEFAULT.transforms()(photo)
    assert torch.equal((found[0] - mean) / std, expected)


def test_weights_from_a_file_keep_the_preprocessing(tmp_path):
    network = cv.load_model("squeezenet1_0", None)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    source = describe(cv.load_model("squeezenet1_0", tmp_path / "mine.pth"))
    assert (source.resize, source.size, source.bicubic) == (256, 224, False)
    assert describe(network, [0.1] * 3, [0.2] * 3).resize == 256


def test_without_metadata_the_shorter_side_becomes_the_size():
    found = network_input(scene(), COLOR)
    expected = scene().resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
    assert found.shape == (1, 3, 32, 32)
    assert np.array_equal((found[0] * 255).round().byte().permute(1, 2, 0).numpy(), np.asarray(expected))


def test_squeezing_keeps_the_whole_photo():
    found = network_input(scene(), COLOR, "squeeze", 20)
    expected = np.asarray(scene().resize((20, 20), Image.Resampling.BILINEAR))
    assert np.array_equal((found[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_another_size_keeps_the_share_of_the_margin():
    source = Source("toy", "none", (0.5,) * 3, (0.5,) * 3, 224, resize=256)
    found = network_input(scene(), source, size=112)
    assert torch.equal(found, network_input(scene(), Source(*("", "", (0,) * 3, (1,) * 3, 112), resize=128)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("resize", ["weights", "squeeze"])
def test_tiny_photos_and_ribbons_work(size, resize):
    found = network_input(read_photo(Image.new("RGB", size, RED)), COLOR, resize)
    assert found.shape == (1, 3, 32, 32)
    assert torch.equal((found[0] * 255).round()[:, 5, 7], torch.tensor(RED).float())


def test_a_network_of_one_channel_reads_gray():
    found = network_input(scene(), GRAY, "squeeze")
    assert found.shape == (1, 1, 32, 32)
    assert torch.equal(found, network_input(scene().convert("L"), GRAY, "squeeze"))


def test_wrong_options_and_channels_are_refused():
    four = Source("toy", "none", (0.5,) * 4, (0.5,) * 4, 32)
    with pytest.raises(cv.InputError, match="weights, squeeze"):
        network_input(scene(), COLOR, "crop")
    with pytest.raises(cv.InputError, match="8 to 8192"):
        network_input(scene(), COLOR, size=4)
    with pytest.raises(cv.InputError, match=r"tensor \[4, H, W\]"):
        network_input(scene(), four)
    with pytest.raises(cv.InputError, match="reads 4 channels"):
        network_input(torch.zeros(3, 8, 8), four)
    assert network_input(torch.zeros(4, 8, 9), four).shape == (1, 4, 8, 9)


# Modes and orientations


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp"])
def test_photos_are_turned_upright(orientation, kind, tmp_path):
    # What to do to an upright picture so that a viewer's turn brings it back.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene().transpose(undo[orientation]) if orientation in undo else scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(kind, {})
    close(read(stored, tmp_path / f"photo.{kind}", exif=exif, **options), scene(), 4 if kind == "jpg" else 0)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "YCbCr", "CMYK", "HSV"])
def test_every_mode_shows_the_same_picture(mode):
    image = scene().quantize(8) if mode == "P" else scene().convert(mode)
    found = read_photo(image)
    assert isinstance(found, Image.Image)
    close(np.asarray(found.convert("RGB")), image.convert("RGB"))
    if mode in ("CMYK", "YCbCr", "HSV", "P"):
        close(np.asarray(found.convert("RGB")), scene(), within=8)


@pytest.mark.parametrize("kind", ["jpg", "tiff"])
def test_cmyk_files_keep_their_colors(kind, tmp_path):
    close(read(scene().convert("CMYK"), tmp_path / f"photo.{kind}"), scene(), within=30)


@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
def test_transparency_is_laid_on_white(kind, tmp_path):
    image = scene().convert("RGBA")
    image.paste((10, 20, 30, 0), (30, 0, 60, 20))
    expected = scene()
    expected.paste(WHITE, (30, 0, 60, 20))
    options = {"lossless": True} if kind == "webp" else {}
    close(read(image, tmp_path / f"photo.{kind}", **options), expected, within=12 if kind == "gif" else 0)


def test_half_transparent_colors_mix_with_white():
    found = read_photo(Image.new("RGBA", (2, 2), (*RED, 128)))
    assert isinstance(found, Image.Image)
    assert np.abs(np.asarray(found)[0, 0] - (np.array(RED) + WHITE) / 2).max() <= 1


def test_gray_with_alpha_and_a_transparent_color(tmp_path):
    image = Image.merge("LA", (Image.new("L", (2, 1), 90), Image.frombytes("L", (2, 1), b"\xff\x00")))
    assert read(image, tmp_path / "alpha.png")[0].tolist() == [[90] * 3, [255] * 3]
    assert (
        read(Image.new("RGB", (1, 1), RED), tmp_path / "key.png", transparency=RED)[0, 0].tolist()
        == [255] * 3
    )
    gray = Image.new("L", (1, 1), 7)
    assert read(gray, tmp_path / "gray.png", transparency=7)[0, 0].tolist() == [255] * 3


def test_palettes_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 0])
    image.putpixel((1, 0), 1)
    found = read(image, tmp_path / "palette.png", transparency=bytes((255, 0)))
    assert found[0].tolist() == [list(RED), [255] * 3]


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_sixteen_bits_become_eight(kind, tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    found = read(Image.fromarray(values), tmp_path / f"photo.{kind}")
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_colors(tmp_path):
    rows = b"\0" + struct.pack(">6H", *(257 * value for value in (*RED, *WHITE)))
    chunks = [
        (b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    (tmp_path / "deep.png").write_bytes(png(chunks))
    found = read_photo(tmp_path / "deep.png")
    assert isinstance(found, Image.Image)
    assert np.asarray(found)[0].tolist() == [list(RED), list(WHITE)]


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_of_an_animation_counts(kind, tmp_path):
    later = [Image.new("RGB", (60, 40), (0, 0, 255))] * 2
    options = {"lossless": True} if kind == "webp" else {}
    found = read(scene(), tmp_path / f"photo.{kind}", save_all=True, append_images=later, **options)
    close(found, scene(), within=12 if kind == "gif" else 0)


def test_the_users_image_is_left_as_it_is():
    image = scene().convert("RGBA")
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    found = read_photo(image)
    assert isinstance(found, Image.Image)
    assert (found.size, image.size) == ((40, 60), (60, 40))
    assert image.tobytes() == before
    assert image.getexif()[0x0112] == 6


# Arrays and tensors


def test_arrays_are_photos():
    pixels = np.asarray(scene())
    for array in (pixels, pixels / 255, pixels.astype(np.uint16) * 257, (pixels / 255).astype(np.float32)):
        found = read_photo(array)
        assert isinstance(found, Image.Image)
        close(np.asarray(found), scene())
    for array in (pixels[:, :, 0], pixels[:, :, :1]):
        found = read_photo(array)
        assert isinstance(found, Image.Image)
        assert np.array_equal(np.asarray(found), pixels[:, :, 0])
    found = read_photo(np.asarray(scene().convert("RGBA")))
    assert isinstance(found, Image.Image)
    close(np.asarray(found), scene())


def test_tensors_are_taken_as_they_are():
    values = torch.rand(3, 7, 9, dtype=torch.float64)
    for tensor in (values, values[None], values.clone().requires_grad_()):
        found = read_photo(tensor)
        assert isinstance(found, torch.Tensor)
        assert torch.equal(found, values.float())
        assert not found.requires_grad
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(read_photo(pixels), pixels / 255)  # type: ignore[arg-type]
    assert network_input(read_photo(values), COLOR).shape == (1, 3, 7, 9)


@pytest.mark.parametrize(
    "photo, words",
    [
        (torch.rand(7, 9), "one image"),
        (torch.rand(2, 3, 7, 9), "one image"),
        (torch.rand(3, 0, 9), "one image"),
        (torch.full((3, 7, 9), 255.0), "undo its normalization"),
        (torch.full((3, 7, 9), float("nan")), "undo its normalization"),
        (torch.zeros(3, 7, 9, dtype=torch.int64), "uint8 or floating"),
        (np.zeros((3, 7, 9), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((0, 9), np.uint8), r"\[H, W, 3\]"),
        (np.full((7, 9), 2.0), r"in \[0, 1\]"),
        (np.zeros((7, 9), np.int64), "uint8, uint16"),
        (Image.new("F", (3, 3)), "floating-point"),
        (Image.fromarray(np.array([[70000]], np.int32)), "32-bit"),
        (17, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(photo, words):
    with pytest.raises(cv.InputError, match=words):
        read_photo(photo)


# Files that are not photos


def png(chunks) -> bytes:
    parts = (struct.pack(">I", len(data)) + name + data + crc(name + data) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def header(width: int, height: int) -> bytes:
    """The head of a PNG file: what it says of its size, and nothing more."""
    return png([(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")])


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((300, 200), 90).save(content, "JPEG")
    return content.getvalue()


def test_files_that_are_no_photos_are_refused_in_one_sentence(tmp_path):
    contents = {
        "text.jpg": b"not a photo at all\n" * 50,
        "empty.jpg": b"",
        "truncated.jpg": jpeg()[: len(jpeg()) // 2],
        "head.jpg": jpeg()[:30],
        "truncated.png": header(20, 20),
        "vector.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "broken.gif": b"GIF89a" + bytes(3),
        "broken.tiff": b"II*\0" + bytes(range(60)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(cv.InputError, match=name) as caught:
            read_photo(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(cv.InputError, match="is a folder"):
        read_photo(tmp_path)
    for missing in (tmp_path / "missing.jpg", "", "\0", "https://example.org/dog.jpg"):
        with pytest.raises(cv.InputError, match="no photo at"):
            read_photo(missing)


@pytest.mark.parametrize("size", [(20_000, 20_000), (13_000, 13_000), (10_001, 10_000)], ids=str)
def test_huge_photos_are_refused_by_their_header(size, tmp_path):
    (tmp_path / "huge.png").write_bytes(header(*size))
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(cv.InputError, match=r"huge\.png has more than 100 megapixels"):
            read_photo(tmp_path / "huge.png")
    assert time.perf_counter() - began < 1


def test_a_hundred_megapixels_are_allowed(tmp_path):
    (tmp_path / "large.png").write_bytes(header(1000, 100_000))
    with pytest.raises(cv.InputError, match="damaged"):  # decoded, that is
        read_photo(tmp_path / "large.png")


# Noise


def test_noise_is_uniform_integers():
    noise = cv.noise_image()
    assert noise.shape == (3, 224, 224)
    values = (noise * 255).round()
    assert torch.equal(values / 255, noise)
    assert values.unique().tolist() == list(range(125, 190))
    counts = torch.bincount(values.long().flatten())[125:].float()
    assert float((counts / counts.mean() - 1).abs().max()) < 0.15
    assert torch.equal(noise, cv.noise_image(224, 0))
    assert not torch.equal(noise, cv.noise_image(seed=1))
    assert cv.noise_image(32, 0, 1).shape == (1, 32, 32)
    with pytest.raises(cv.InputError, match="seed"):
        cv.noise_image(seed=-1)
