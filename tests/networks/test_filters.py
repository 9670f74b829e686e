"""How `filters` is read, and which values are refused."""

import numpy as np
import pytest
import torch

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.names import parse_filters


@pytest.mark.parametrize(
    "given, meant",
    [
        (None, [*range(8)]),
        ("0-2,5", [0, 1, 2, 5]),
        ("5, 0-2 ,1", [5, 0, 1, 2]),
        ("7", [7]),
        ("007", [7]),
        ([3, 1, 3], [3, 1]),
        (range(2), [0, 1]),
        (np.array([4, 2]), [4, 2]),
        (torch.tensor([4, 2]), [4, 2]),
        (iter([6]), [6]),
        (5, [5]),
    ],
)
def test_filters_are_read(given, meant):
    found = parse_filters(given, 8, "conv")
    assert found == meant
    assert {type(number) for number in found} == {int}


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            ",",
            "1,",
            "a",
            "1-",
            "-1",
            "1--2",
            "3-1",
            "0-8",
            "8",
            "1.5",
            "1;2",
            "²",
            "0-999999999999999999",
        ),
        *([8], [-1], [], [1.5], ["x"], [None], 8, -1, 1.5),
    ],
    ids=repr,
)
def test_filters_that_are_none_are_refused(given):
    with pytest.raises(InputError) as caught:
        parse_filters(given, 8, "conv")
    assert "\n" not in str(caught.value)
