"""A corpus of bad input.

The corpus is generated: broken, truncated and malicious weights, photos, jobs and arguments, each with the
command that reads it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

QUICK = ["--filters", "0", "--steps", "1", "--size", "32", "--batch", "1"]
MARK = "/tmp/cnnvis_fast_hostile_code_ran"


@dataclass
class Case:
    """One bad input: the command, its output, and whether the command must refuse it."""

    name: str
    arguments: list[str]
    out: str
    refused: bool = True


def corpus(folder: Path, seed: int = 0) -> list[Case]:
    """Writes the corpus into a folder and returns its cases."""
    chance = random.Random(seed)
    makers = (weights, photos, jobs, arguments)
    return [case for make in makers for case in make(folder, chance)]


def mutations(content: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    """Yields copies with truncated, overwritten, inserted or deleted bytes."""
    for number in range(count):
        bent = bytearray(content)
        kind = number % 4
        place = chance.randrange(len(bent))
        if kind == 0:
            del bent[place:]
        elif kind == 1:
            for _ in range(chance.choice((1, 8, 64))):
                bent[chance.randrange(min(len(bent), 2000))] = chance.randrange(256)
        elif kind == 2:
            bent[place:place] = chance.randbytes(chance.choice((1, 16, 1000)))
        else:
            length = chance.choice((1, 4, 100))
            del bent[place : place + length]
        yield bytes(bent)


def weights(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Yields cases with files that claim to be weights of texturenet."""
    import torch
    from safetensors.torch import load, save

    from cnnvis_fast.texturenet import __file__ as package

    good = (Path(package).parent / "texturenet.safetensors").read_bytes()
    state = load(good)
    size = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + size])
    first = next(key for key in header if key != "__metadata__")

    def with_header(change: Callable[[dict[str, Any]], Any], claimed: int | None = None) -> bytes:
        changed = json.loads(json.dumps(header))
        text = change(changed)
        encoded = text if isinstance(text, bytes) else json.dumps(changed).encode()
        return struct.pack("<Q", len(encoded) if claimed is None else claimed) + encoded + good[8 + size :]

    def entry(**values: Any) -> bytes:
        return with_header(lambda changed: changed[first].update(values))

    bad: dict[str, bytes] = {
        "empty.safetensors": b"",
        "short.safetensors": good[:5],
        "header-only.safetensors": good[: 8 + size],
        "header-huge.safetensors": with_header(lambda _: None, 2**63),
        "header-100GB.safetensors": with_header(lambda _: None, 10**11),
        "header-zero.safetensors": with_header(lambda _: None, 0),
        "nested.safetensors": with_header(lambda _: b"[" * 100_000),
        "not-json.safetensors": with_header(lambda _: b"\xff" * 200),
        "null.safetensors": with_header(lambda _: b"null"),
        "duplicates.safetensors": with_header(lambda _: b'{"a":{},"a":{}}'),
        "shape-huge.safetensors": entry(shape=[2**40, 2**20]),
        "shape-negative.safetensors": entry(shape=[-1, 3, 5, 5]),
        "shape-float.safetensors": entry(shape=[1.5]),
        "shape-text.safetensors": entry(shape="24"),
        "shape-long.safetensors": entry(shape=[1] * 10_000),
        "dtype-unknown.safetensors": entry(dtype="Q99"),
        "dtype-null.safetensors": entry(dtype=None),
        "offsets-reversed.safetensors": entry(data_offsets=[100, 0]),
        "offsets-outside.safetensors": entry(data_offsets=[0, 2**62]),
        "offsets-overlapping.safetensors": entry(data_offsets=[0, 96]),
        "other-shapes.safetensors": save({key: value.flatten() for key, value in state.items()}),
        "one-tensor.safetensors": save({"x": torch.zeros(3)}),
        "names.safetensors": save({"\x1b[31m../../etc/passwd\n<script>": torch.zeros(3), **state}),
        "large.safetensors": save({**state, first: torch.zeros(3000, 3000)}),
        "pickle.safetensors": pickle.dumps(state),
        "empty.pth": b"",
        "text.pth": b"weights",
        "stop.pth": b".",
        "code.pth": pickle.dumps(Malicious()),
        "code-2.pth": pickle.dumps(Malicious(), protocol=2),
        "code-4.pth": pickle.dumps({"state_dict": Malicious()}, protocol=4),
        "bytearray.pth": b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.",
        "bytearray-2.pth": b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x05\x85R.",
        "storage.pth": b"\x80\x02ctorch\nFloatStorage\n\x8a\x05\x00\x00\x00\x00\x05\x85R.",
        "long-text.pth": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00abc.",
        "nested.pth": b"\x80\x02" + b"]" * 200_000 + b".",
        "not-zip.pth": b"PK\x03\x04" + bytes(100),
    }
    for name, content in (("deflated", zipfile.ZIP_DEFLATED), ("code-in-zip", zipfile.ZIP_STORED)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", content) as archive:
            archive.writestr("a/data.pkl", pickle.dumps(Malicious(), protocol=2))
            archive.writestr("a/data/0", bytes(200_000_000 if name == "deflated" else 100))
            archive.writestr("a/version", "3\n")
        bad[f"{name}.pth"] = packed.getvalue()
    saved = io.BytesIO()
    torch.save(state, saved)
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    for name, value in {
        "list": [1, 2],
        "number": 5,
        "nothing": {},
        "names": {1: 2},
        "strided": {**state, first: torch.zeros(1).expand(10**6, 10**6)},
        "sparse": {**state, first: torch.zeros(24, 3, 5, 5).to_sparse()},
        "deep": {"state_dict": {"state_dict": {"model": state}}},
    }.items():
        content = io.BytesIO()
        torch.save(value, content)
        bad[f"{name}-object.pth"] = content.getvalue()
    maybe = {}
    for name, content in (
        ("safetensors", good),
        ("pth", saved.getvalue()),
        ("legacy.pth", legacy.getvalue()),
    ):
        for number, bent in enumerate(mutations(content, 16, chance)):
            maybe[f"bent-{number}.{name}"] = bent
    place = folder / "weights"
    place.mkdir()
    for name, content in {**bad, **maybe}.items():
        (place / name).write_bytes(content)
        out = f"{folder}/out/weights-{name}.png"
        command = ["filters", "texturenet", "conv1", "--weights", str(place / name), "--out", out]
        yield Case(f"weights {name}", command, out, name in bad)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    )


def photos(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Yields cases with files that claim to be photos."""
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    bomb = zlib.compress(bytes(300_000_000), 1)
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({MARK}) (w) file closefile\nshowpage\n"
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    bad = {
        "empty.png": b"",
        "bomb.png": png_of(60_000, 60_000, bomb),
        "wide.png": png_of(2**31 - 1, 1, b""),
        "zero.png": png_of(0, 0, zlib.compress(b"")),
        "no-data.png": png_of(30, 30, b""),
        "text-bomb.png": png_of(9, 9, b"", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(150_000_000)))),
        "profile-bomb.png": png_of(9, 9, b"", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(150_000_000)))),
        "program.eps": postscript.encode(),
        "program.png": postscript.encode(),
        "drawing.svg": drawing.encode(),
        "page.png": b"<html><script>alert(1)</script></html>",
        "huge.ppm": b"P6 99999 99999 255\n" + bytes(1000),
        "huge.bmp": b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, 65000, 65000, 1, 24) + bytes(60),
        "huge.gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(800),
        "folder": b"",
    }
    maybe = {}
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        content = io.BytesIO()
        picture.save(content, kind)
        for number, bent in enumerate(mutations(content.getvalue(), 8, chance)):
            maybe[f"bent-{number}.{kind.lower()}"] = bent
    place = folder / "photos"
    place.mkdir()
    for name, content in {**bad, **maybe}.items():
        if name == "folder":
            (place / name).mkdir()
        else:
            (place / name).write_bytes(content)
        out = f"{folder}/out/photo-{name}"
        command = [
            "activations",
            "texturenet",
            str(place / name),
            "--layer",
            "conv1",
            "--size",
            "32",
            "--out",
            out,
        ]
        yield Case(f"photo {name}", command, out, name in bad)


def jobs(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Yields cases with folders that claim to hold a job; broken files of our own job are made again."""
    template = folder / "template"
    command = ["atlas", "texturenet", "--layer", "conv1", *QUICK, "--threads", "1", "--out"]
    from cnnvis_fast.commands import main

    with contextlib.redirect_stdout(io.StringIO()):
        assert main.main([*command, str(template)]) == 0
    layer = "features.0"
    tile = (template / layer / "0000.png").read_bytes()
    digest = json.loads(_text(tile))["job"]
    job = (template / "job.json").read_bytes()

    def record(**values: Any) -> bytes:
        text = json.dumps({"job": digest, "layer": layer, "filter": 0, "status": "ok", **values})
        return png_of(32, 32, zlib.compress(bytes(32 * 97)), chunk(b"tEXt", b"cnnvis_fast\0" + text.encode()))

    changes: dict[str, tuple[str, bytes, bool]] = {
        "empty": ("job.json", b"", True),
        "null": ("job.json", b"null", True),
        "list": ("job.json", b"[]", True),
        "nested": ("job.json", b"[" * 100_000, True),
        "nested-objects": ("job.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, True),
        "large": ("job.json", b" " * 3_000_000 + job, True),
        "no-text": ("job.json", b"\xff\xfe\x00", True),
        "numbers": ("job.json", job.replace(b'"steps": 1', b'"steps": ' + b"9" * 5000), True),
        "commands": ("job.json", job.replace(b"texturenet", b"\\u001b[31m\\nred"), True),
        "tile-without-layer": (f"{layer}/0000.png", record(layer=None), False),
        "tile-status-number": (f"{layer}/0000.png", record(status=5), False),
        "tile-filter-text": (f"{layer}/0000.png", record(filter="0"), False),
        "tile-page": (f"{layer}/0000.png", record(model="<script>", score="=1+1"), False),
        "tile-nested": (
            f"{layer}/0000.png",
            png_of(9, 9, b"", chunk(b"tEXt", b"cnnvis_fast\0" + b"[" * 100_000)),
            False,
        ),
        "tile-bomb": (f"{layer}/0000.png", png_of(60_000, 60_000, zlib.compress(bytes(10**8), 1)), False),
        "tile-text-bomb": (
            f"{layer}/0000.png",
            png_of(9, 9, b"", chunk(b"zTXt", b"cnnvis_fast\0\0" + zlib.compress(bytes(10**8)))),
            False,
        ),
        "tile-of-another-number": (f"{layer}/999999999.png", tile, False),
        "tile-of-no-number": (f"{layer}/\u0661\u0662\u0663\u0664.png", tile, False),
        "log-no-text": ("log.jsonl", bytes(range(256)) * 100, False),
        "log-nested": ("log.jsonl", b"[" * 100_000, False),
        "log-numbers": ("log.jsonl", b'{"layer": "features.0", "filters": 5, "seconds": 1e999}\n', False),
        "lock-left": (".lock", b"\x1b[31m somebody", False),
        "sheet-damaged": (f"{layer}/sheet.png", b"", False),
        "table-damaged": ("scores.csv", b"\xff", False),
    }
    for number, bent in enumerate(mutations(tile, 12, chance)):
        changes[f"tile-bent-{number}"] = (f"{layer}/0000.png", bent, False)
    for number, bent in enumerate(mutations(job, 12, chance)):
        changes[f"job-bent-{number}"] = ("job.json", bent, False)
    for name, (file, content, refused) in changes.items():
        out = folder / "out" / f"job-{name}"
        shutil.copytree(template, out)
        (out / file).write_bytes(content)
        yield Case(f"job {name}", [*command, str(out)], str(out), refused)
    links = {
        "layer": (layer, folder / "elsewhere"),
        "lock": (".lock", folder / "elsewhere" / "lock"),
        "log": ("log.jsonl", folder / "elsewhere" / "log"),
        "job": ("job.json", Path("/dev/zero")),
    }
    (folder / "elsewhere").mkdir()
    for name, (file, target) in links.items():
        out = folder / "out" / f"link-{name}"
        if name == "job":
            out.mkdir(parents=True)
        else:
            shutil.copytree(template, out)
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                (out / file).unlink()
            if (out / file).is_dir():
                shutil.rmtree(out / file)
            with contextlib.suppress(FileNotFoundError):
                (out / layer / "0000.png").unlink()
        (out / file).symlink_to(target)
        yield Case(f"link {name}", [*command, str(out)], str(out))


def _text(tile: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(tile)) as image:
        return str(image.info["cnnvis_fast"])


def arguments(folder: Path, _: random.Random) -> Iterator[Case]:
    """Yields cases with bad command lines."""
    out = str(folder / "out" / "arguments")
    words = {
        "MODEL": ["", "nosuch", "../texturenet", "/etc/passwd", "vgg16\0", "\udcff", "<b>", "x" * 100_000],
        "LAYER": ["", "..", "../conv1", "conv0", "conv99", "a\0b", "\x1b[31m", "\udcff", "x" * 9999],
        "--filters": ["-1", "a", "0-", "99", "0-99999999999999", "1e3", "٣", "0,,1", "0;1", "9" * 5000],
        "--steps": ["0", "-1", "1e9", "nan", "x", "1000001", "9" * 5000],
        "--size": ["0", "7", "-32", "8193", "8192", "99999999999", "x"],
        "--seed": ["-1", "9223372036854775808", "x", "1.5"],
        "--batch": ["0", "-1", "4097", "x"],
        "--device": ["tpu", "cuda:99", "cuda:x", "mps", "\udcff", ""],
        "--dtype": ["float16", "int8", ""],
        "--kernels": ["x", ""],
        "--preset": ["x", "", "natural "],
        "--objective": ["x", "neuron2", "logit"],
        "--weights": ["", "/dev/zero", "/proc/self/mem", "/etc", "no.pth", "x\0y.pth", "BEST", "\udcff.pth"],
        "--out": ["", "/proc/x", "/dev/null", "/dev/null/x", "a\0b", "/" + "x" * 300, "/sys/x"],
        "--engine": ["x", "", "Ray"],
        "--threads": ["0", "-1", "x", "100001"],
        "--workers": ["0", "1", "x"],
    }  # fmt: skip
    for option, values in words.items():
        for number, value in enumerate(values):
            chosen = {
                "MODEL": "texturenet",
                "LAYER": "conv5",
                "--filters": "0",
                "--steps": "1",
                "--size": "32",
            }
            chosen |= {"--batch": "1", "--out": out, option: value}
            command = ["atlas", chosen.pop("MODEL"), "--layer", chosen.pop("LAYER")]
            for name, text in chosen.items():
                command += [name, text]
            place = value if option == "--out" and value else out
            yield Case(f"argument {option} {number}", command, place)
    for command in (
        *([], ["nosuch"], ["maximize"], ["maximize", "texturenet"], ["layers", "texturenet", "--size", "3"]),
        ["layers", "texturenet", "--size", "8192"],
        ["maximize", "texturenet", "conv5", "--out", out, "--size", "8192", "--filters", "0"],
        ["filters", "texturenet", "conv5", "--out", f"{out}.txt"],
        ["filters", "texturenet", "conv5", "--out", f"{out}.png", "--channel", "999"],
        ["filters", "texturenet", "conv5", "--out", f"{out}.png", "--view", "x"],
        ["activations", "texturenet", "noise", "--out", out, "--size", "99999999"],
        ["activations", "texturenet", "noise", "--out", out, "--layer", "../x"],
        ["activations", "texturenet", "noise", "--out", out, "--follow", "-5"],
        ["activations", "texturenet", "no\0ise", "--out", out],
        ["activations", "texturenet", "/dev/zero", "--out", out],
    ):
        yield Case(f"command {' '.join(command)[:60]!r}", command, out)
