import sys
from pathlib import Path

import pytest
import torch

# The folder of `bench`; last, so that an installed package precedes the folder of the same name.
sys.path.append(str(Path(__file__).parents[1]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=("cpu", "cuda"),
        help="where the benchmarks run (default: the GPU if there is one)",
    )


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))
