"""Bar charts of the benchmarks as PNG files, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _LABEL, _BAR, _GAP, _EDGE = 900, 330, 20, 6, 16
_OURS, _OTHERS, _INK, _SOFT = "#1f6f8b", "#c9ced6", "#1c1e21", "#6b7280"


def bars(
    path: Path,
    title: str,
    unit: str,
    groups: Mapping[str, Mapping[str, float]],
    ours: str = "cnnvis_fast",
    note: str = "",
    full: float | None = None,
) -> None:
    """Draws one bar per name in every group.

    Args:
        path: path of the PNG; missing folders are created. title: text of the first line. unit: unit after
        every value. groups: values by name, by group. ours: prefix of the names whose bars are colored. note:
        text of the last line: machine and versions. full: value of a full bar; None takes each group's
        largest value, or its second largest if the largest is
            more than twice that: a bar for a larger value has a gap.
    """
    head, small = ImageFont.load_default(19), ImageFont.load_default(14)
    rows = sum(len(group) for group in groups.values())
    height = 2 * _EDGE + 62 + rows * (_BAR + _GAP) + len(groups) * 34
    image = Image.new("RGB", (_WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    pen.text((_EDGE, _EDGE), title, fill=_INK, font=head)
    top = _EDGE + 32
    for heading, group in groups.items():
        pen.text((_EDGE, top + 8), heading, fill=_INK, font=small)
        top += 30
        whole = full or _whole(sorted(group.values()))
        room = _WIDTH - _LABEL - _EDGE - 110
        for name, value in group.items():
            pen.text((_LABEL - 10, top + _BAR / 2), name, fill=_INK, font=small, anchor="rm")
            end = _LABEL + max(1, round(room * min(1.0, value / whole)))
            pen.rectangle((_LABEL, top, end, top + _BAR), fill=_OURS if name.startswith(ours) else _OTHERS)
            if value > whole:
                pen.polygon(
                    [(end - 40, top + _BAR), (end - 32, top), (end - 24, top), (end - 32, top + _BAR)],
                    "white",
                )
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            pen.text((end + 6, top + _BAR / 2), f"{text} {unit}", fill=_INK, font=small, anchor="lm")
            top += _BAR + _GAP
        top += 4
    pen.text((_EDGE, height - _EDGE - 12), note, fill=_SOFT, font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _whole(values: list[float]) -> float:
    """Returns the value of a full bar, given values in ascending order."""
    if len(values) > 2 and values[-1] > 2 * values[-2]:
        return values[-2]
    return values[-1] or 1.0
