"""The box of a patch is what the gradient of its unit reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cnnvis_fast.inspection.patch_sheets import patch_box
from cnnvis_fast.networks.receptive_field_rules import Judgement
from cnnvis_fast.networks.receptive_fields import windows


def support(module: nn.Module, row: int, column: int, side: int) -> list[int]:
    """Left, top, right, bottom of the pixels that an output position has a gradient from."""
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    module.double()(x)[0, :, row, column].sum().backward()
    rows, columns = torch.nonzero(x.grad.abs().sum((0, 1)), as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def field_of(model: nn.Module, layer: str) -> Judgement:
    return windows(model.eval(), torch.zeros(1, 3, 64, 64, dtype=next(model.parameters()).dtype))[layer]


FIELDS = {
    "plain": nn.Sequential(nn.Conv2d(3, 2, 3)),
    "padded": nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, padding=1)),
    "same": nn.Sequential(nn.Conv2d(3, 2, 4, padding="same"), nn.Conv2d(2, 2, 2, padding="same", dilation=3)),
    "valid": nn.Sequential(nn.Conv2d(3, 2, (3, 5), padding="valid", stride=(2, 1))),
    "strided": nn.Sequential(nn.Conv2d(3, 2, 7, 2, 3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)),
    "dilated": nn.Sequential(nn.Conv2d(3, 2, 3, dilation=2, padding=2), nn.Conv2d(2, 2, 3, dilation=3)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_box_is_what_the_gradient_reaches(name: str) -> None:
    torch.manual_seed(0)
    model = FIELDS[name]
    last = str(len(model) - 1)
    field = field_of(model, last)
    height, width = model.double()(torch.zeros(1, 3, 64, 64).double()).shape[2:]
    for row, column in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
        left, top, right, bottom = patch_box(field, row, column, 64)
        seen = [max(left, 0), max(top, 0), min(right, 64), min(bottom, 64)]
        reached = support(model, row, column, 64)
        if 0 < row < height - 1:
            assert reached == seen
        else:  # of a dilated kernel at the border, the outermost tap may lie in the padding
            assert min(reached[0] - seen[0], reached[1] - seen[1]) >= 0
            assert max(reached[2] - seen[2], reached[3] - seen[3]) <= 0


def test_branches_are_spanned() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(3, 2, (1, 7), padding=(0, 3))
            self.high = nn.Conv2d(3, 2, (5, 1), padding=(2, 0))
            self.last = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.wide(x) + self.high(x))

    torch.manual_seed(0)
    model = Branches()
    box = patch_box(field_of(model, "last"), 10, 12, 64)
    assert list(box) == support(model, 10, 12, 64) == [9, 8, 16, 13]


def test_a_field_larger_than_the_picture_is_the_picture() -> None:
    field = field_of(nn.Sequential(nn.Conv2d(3, 1, 31, padding=15)), "0")
    assert patch_box(field, 0, 3, 20) == (0, 0, 20, 20)
    assert patch_box(None, 0, 3, 20) == (0, 0, 20, 20)


def test_a_shift_that_is_not_followed_is_not_known() -> None:
    model = nn.Sequential(nn.ZeroPad2d((3, 0, 3, 0)), nn.Conv2d(3, 2, 3))
    assert patch_box(field_of(model, "1"), 2, 2, 64) == (0, 0, 64, 64)
