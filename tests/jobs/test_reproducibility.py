"""A picture has the same bits whatever else is computed with it, before it or beside it."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from support.jobs import FILTERS, OPTIONS, same

import cnnvis_fast as cv
from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.config import Config
from cnnvis_fast.networks.preprocessing import Source

pytestmark = pytest.mark.usefixtures("same_random_networks")


def native_bfloat16():
    return resolve_config(Config(), Source("", "", (0.0,), (1.0,), 64)).dtype == "bfloat16"


@pytest.mark.parametrize(
    "filters",
    [[3], [17], [40], [40, 3, 17], [*range(50, 57), 3, 17, 40], range(41)],
    ids=["3", "17", "40", "other order", "across batches", "many"],
)
def test_a_picture_does_not_depend_on_what_is_asked_for_with_it(filters, texturenet, pictures):
    found = cv.maximize(texturenet, "conv5", filters, **OPTIONS)
    for row, channel in enumerate(found.filters):
        if channel in FILTERS:
            reference = FILTERS.index(channel)
            assert torch.equal(found.pixels[row], pictures.pixels[reference]), channel
            assert torch.equal(found.history[row], pictures.history[reference]), channel
            assert found.scores[row] == pictures.scores[reference]


def test_in_float32_too_a_picture_does_not_depend_on_what_is_asked_for_with_it(texturenet):
    # Here libraries do sum in another order at another batch, so that only padding makes it so.
    options = {**OPTIONS, "dtype": "float32"}
    together = cv.maximize(texturenet, "conv5", [*FILTERS, 50, 51], **options)
    for row in (0, 4):
        alone = cv.maximize(texturenet, "conv5", [together.filters[row]], **options)
        assert torch.equal(alone.pixels[0], together.pixels[row])
        assert torch.equal(alone.history[0], together.history[row])
        assert alone.scores[0] == together.scores[row]


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_picture_does_not_depend_on_the_batch(batch, texturenet, pictures):
    if not native_bfloat16():
        pytest.skip("in float32 libraries sum in another order at another batch, as the documentation tells")
    assert same(cv.maximize(texturenet, "conv5", FILTERS, batch=batch, **OPTIONS), pictures)


def test_robust_scores_do_not_depend_on_the_neighbors(texturenet, pictures):
    alone = cv.maximize(texturenet, "conv5", [17], **OPTIONS)
    assert alone.robust_scores[0] == pictures.robust_scores[1]


PROCESS = """
import hashlib, torch, cnnvis_fast as cv
torch.rand(7)
found = cv.maximize("texturenet", "features.14", [40, 17, 3], steps=4, progress=False)
found = {n: found.pixels[row] for row, n in enumerate(found.filters)}
print(hashlib.sha256(torch.stack([found[n] for n in (3, 17, 40)]).numpy().tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def digest(texturenet):
    found = cv.maximize(texturenet, "conv5", FILTERS, steps=4, progress=False)
    return hashlib.sha256(found.pixels.numpy().tobytes()).hexdigest()


def test_another_process_makes_the_same_bits(digest):
    # Another hash seed, so that the order of sets shows where it matters.
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest


@pytest.mark.skipif(torch.cuda.is_available(), reason="the number of threads matters on a CPU")
def test_another_number_of_threads_is_another_job(texturenet, set_threads):
    jobs = []
    for threads in (1, 2):
        set_threads(threads)
        jobs.append(cv.maximize(texturenet, "conv1", [0], steps=1, size=32, progress=False).job)
    assert jobs[0] != jobs[1]


def test_the_global_random_numbers_neither_matter_nor_move(texturenet, pictures):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    assert same(cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS), pictures)
    assert torch.equal(torch.rand(2), expected)


def test_another_seed_and_another_filter_make_another_picture(texturenet, pictures):
    other = cv.maximize(texturenet, "conv5", FILTERS, seed=1, **OPTIONS)
    every = [*pictures.pixels, *other.pixels]
    assert len({picture.numpy().tobytes() for picture in every}) == 6
