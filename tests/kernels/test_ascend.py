"""`ascend_` is Adam or momentum, image by image, and one image's numbers never depend on another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.samples import EPSILON, Sample, sample_inputs
from support.tolerance import assert_as_exact, assert_reference_precise
from torch import Tensor

from cnnvis_fast.kernels import ops, reference

BETA1, BETA2, STEPS = 0.5, 0.99, 10
SAMPLES = sample_inputs("ascend_")
samples = pytest.mark.parametrize("sample", SAMPLES, ids=str)
every_implementation = pytest.mark.usefixtures("kernels")
decays = pytest.mark.parametrize("decay", [0.0, 0.1], ids=["no decay", "decay"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def schedule(step: int, batch: int, rate: float = 0.05) -> Tensor:
    """Returns the rate and bias corrections of step 1, 2, ..., the same for every image."""
    row = [rate, 1 / (1 - BETA1**step), 1 / (1 - BETA2**step)]
    return torch.tensor([row] * batch, dtype=torch.float64)


def plain_ascend(
    p: Tensor,
    m: Tensor,
    v: Tensor | None,
    dp: Tensor,
    schedule: Tensor,
    band: Tensor | None,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Computes the docstring's formula in NumPy, image by image; returns new p, m, v and the energy."""
    rows: list[tuple[Any, ...]] = []
    for k in range(len(p)):
        (rate, c1, c2), x = schedule[k].numpy(), p[k].numpy()
        g = dp[k].numpy() - weight_decay * x
        energy = np.mean(dp[k].numpy() ** 2)
        if v is None:
            moment = beta1 * m[k].numpy() + g / (np.sqrt(np.mean(g**2)) + epsilon)
            rows.append((x + rate * moment, moment, 0.0, energy))
            continue
        old = v[k].numpy()
        if band is not None:
            rings = [g[band.numpy() == ring] for ring in range(len(old))]
            square = np.array([np.mean(ring**2) if len(ring) else 0.0 for ring in rings])
        else:
            square = np.mean(g**2) if old.ndim == 0 else g**2
        moment = beta1 * m[k].numpy() + (1 - beta1) * g
        second = beta2 * old + (1 - beta2) * square
        spread = second[band.numpy()] if band is not None else second
        rows.append((x + rate * c1 * moment / (np.sqrt(c2 * spread) + epsilon), moment, second, energy))
    new_p, new_m, new_v, energies = (np.stack(column) for column in zip(*rows, strict=True))
    return new_p, new_m, None if v is None else new_v, energies


@decays
def test_a_second_moment_per_coefficient_is_the_adam_of_torch(decay: float) -> None:
    p, expected = draw(3, 2, 7), draw(3, 2, 7).requires_grad_()
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    adam = torch.optim.Adam(
        [expected], lr=0.05, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=decay, maximize=True
    )
    for step in range(1, STEPS + 1):
        expected.grad = draw(3, 2, 7, seed=step)
        adam.step()
        dp = expected.grad.clone()
        ops.ascend_(p, m, v, dp, schedule(step, 3), None, BETA1, BETA2, EPSILON, decay)
    torch.testing.assert_close(p, expected.detach(), rtol=1e-12, atol=1e-12)


@decays
@pytest.mark.parametrize("second", ["coefficient", "band", "image", "none"])
def test_many_steps_are_the_formula_in_numpy(second: str, decay: float) -> None:
    p = draw(2, 3, 4, 2)
    band = torch.arange(24).view(3, 4, 2) % 5 if second == "band" else None
    sizes = {"coefficient": p.shape, "band": (2, 5), "image": (2,)}
    v = p.new_zeros(sizes[second]) if second in sizes else None
    state: list[Any] = [p, torch.zeros_like(p), v]
    expected = [None if t is None else t.clone() for t in state]
    for step in range(1, STEPS + 1):
        rest = draw(2, 3, 4, 2, seed=step), schedule(step, 2), band, BETA1, BETA2, EPSILON, decay
        ops.ascend_(*state, *rest)
        *arrays, _ = plain_ascend(*expected, *rest)
        expected = [None if a is None else torch.from_numpy(a) for a in arrays]
    for found, wanted in zip(state, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@samples
def test_one_step_is_the_formula_in_numpy(sample: Sample) -> None:
    inputs = sample.inputs(torch.float64)
    *expected, energy = plain_ascend(*sample.inputs(torch.float64))
    found = ops.ascend_(*inputs)
    np.testing.assert_allclose(found, energy, rtol=1e-12)
    for t, wanted in zip(inputs[:3], expected, strict=True):
        if wanted is not None:
            np.testing.assert_allclose(t, wanted, rtol=1e-12, atol=1e-14)


@every_implementation
@samples
def test_float32_is_as_exact_as_it_can_be(sample: Sample) -> None:
    found, low, exact = sample.inputs(), sample.inputs(), sample.inputs(torch.float64)
    energies = ops.ascend_(*found), reference.ascend_(*low), reference.ascend_(*exact)
    assert_as_exact(*energies)
    for name, *results in zip("pmv", found[:3], low[:3], exact[:3], strict=True):
        if results[0] is not None:
            assert_as_exact(*results)
            # p moves by m over a root of v, so an error of v counts in it as well.
            scale = float(max(results[2].abs().max(), exact[1].abs().max() if name == "p" else 0.0))
            assert_reference_precise(*results[1:], scale=scale)


@samples
def test_the_energy_is_the_mean_square_of_the_gradient_alone(sample: Sample) -> None:
    inputs = sample.inputs(torch.float64)
    expected = inputs[3].square().flatten(1).mean(1)
    energy = ops.ascend_(*inputs)
    assert energy.shape == (len(inputs[0]),)
    torch.testing.assert_close(energy, expected, rtol=1e-12, atol=0)


@every_implementation
@samples
def test_only_the_state_changes(sample: Sample) -> None:
    inputs, before = sample.inputs(), sample.inputs()
    ops.ascend_(*inputs)
    for name, now, old in zip(("p", "m", "v", "dp", "schedule", "band"), inputs[:6], before[:6], strict=True):
        if now is not None:
            assert torch.equal(now, old) == (name in ("dp", "schedule", "band")), name


@every_implementation
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("sample", [s for s in SAMPLES if "-5x" in s.name], ids=str)
def test_an_image_without_a_finite_gradient_stays_as_it_is(sample: Sample, value: float) -> None:
    inputs, before, healthy = sample.inputs(), sample.inputs(), sample.inputs()
    bad = 2
    inputs[3][bad].view(-1)[-1] = value
    energy = ops.ascend_(*inputs)
    expected = ops.ascend_(*healthy)
    assert not energy[bad].isfinite()
    others = torch.arange(len(energy)) != bad
    assert torch.equal(energy[others], expected[others])
    for now, old, moved in zip(inputs[:3], before[:3], healthy[:3], strict=True):
        if now is not None:
            assert torch.equal(now[bad], old[bad])
            assert torch.equal(now[others], moved[others])


# The parameters of a 224 px picture in both forms, of a small one, and of one row of 64.
@every_implementation
@pytest.mark.parametrize("shape", [(3, 224, 113, 2), (3, 224, 224), (3, 32, 17, 2), (64,)], ids=str)
@pytest.mark.parametrize("second", ["coefficient", "band", "image", "none"])
def test_the_bits_of_an_image_depend_on_nothing_beside_it(
    shape: tuple[int, ...], second: str, set_threads: Callable[[int], None]
) -> None:
    count = int(np.prod(shape))
    assert count % 64 == 0
    band = torch.arange(count).view(shape) % 7 if second == "band" else None
    generator = torch.Generator().manual_seed(0)
    p, dp = torch.randn(2, 5, *shape, generator=generator)
    dp = dp * torch.tensor([1.0, 1e-3, 10.0, 1.0, 0.1]).view(-1, *[1] * len(shape))

    def bits(images: list[int], threads: int) -> list[tuple[Tensor, ...]]:
        """Returns p, m, v and energy of each of these images, computed together."""
        set_threads(threads)
        state, gradient = p[images].clone(), dp[images].clone()
        sizes = {"coefficient": state.shape, "band": (len(images), 7), "image": (len(images),)}
        v = state.new_zeros(sizes[second]) if second in sizes else None
        m, rates = torch.zeros_like(state), schedule(1, len(images)).float()
        energy = ops.ascend_(state, m, v, gradient, rates, band, BETA1, BETA2, 1e-12, 0.1)
        return list(zip(state, m, energy if v is None else v, energy, strict=True))

    for image in (0, 3):
        expected = bits([image], 1)[0]
        others = [k for k in range(5) if k != image]
        for threads in (1, 2):
            alone = bits([image], threads)[0]
            first = bits([image, *others], threads)[0]
            last = bits([*others, image], threads)[4]
            for place, found in (("alone", alone), ("slot 0", first), ("slot 4", last)):
                for name, now, wanted in zip(("p", "m", "v", "energy"), found, expected, strict=True):
                    assert torch.equal(now, wanted), f"{name} {place} on {threads} threads"


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@samples
def test_nothing_is_read_that_was_not_written(sample: Sample) -> None:
    inputs = sample.inputs()
    assert ops.ascend_(*inputs).isfinite().all()
    assert all(t.isfinite().all() for t in inputs[:3] if t is not None)


@every_implementation
@pytest.mark.parametrize("sample", [s for s in SAMPLES if "2x3" in s.name], ids=str)
def test_opcheck_accepts_ascend(sample: Sample) -> None:
    torch.library.opcheck(
        ops.ascend_,
        sample.inputs(),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def arguments(**replaced: Any) -> dict[str, Any]:
    """Returns valid arguments, some of them replaced."""
    valid = {
        "p": torch.zeros(2, 4, 3),
        "m": torch.zeros(2, 4, 3),
        "v": torch.zeros(2, 4, 3),
        "dp": torch.zeros(2, 4, 3),
        "schedule": torch.ones(2, 3),
        "band": None,
        "beta1": BETA1,
        "beta2": BETA2,
        "epsilon": EPSILON,
        "weight_decay": 0.0,
    }
    return valid | replaced


BAND = torch.zeros(4, 3, dtype=torch.int64)
BAD = {
    "a batch of no images": (ValueError, "p", {"p": torch.zeros(0, 4, 3)}),
    "parameters without a batch": (ValueError, "p", {"p": torch.zeros(4)}),
    "bfloat16 parameters": (TypeError, "p", {"p": torch.zeros(2, 4, 3).bfloat16()}),
    "a first moment of another shape": (ValueError, "m", {"m": torch.zeros(2, 3, 4)}),
    "a first moment of another dtype": (TypeError, "m", {"m": torch.zeros(2, 4, 3).double()}),
    "parameters that are not contiguous": (ValueError, "p", {"p": torch.zeros(2, 3, 4).mT}),
    "a first moment that is not contiguous": (ValueError, "m", {"m": torch.zeros(2, 3, 4).mT}),
    "a second moment that is not contiguous": (ValueError, "v", {"v": torch.zeros(2, 3, 4).mT}),
    "a gradient of another shape": (ValueError, "dp", {"dp": torch.zeros(1, 4, 3)}),
    "a gradient of another dtype": (TypeError, "dp", {"dp": torch.zeros(2, 4, 3).double()}),
    "a second moment of another batch": (ValueError, "v", {"v": torch.zeros(3)}),
    "a second moment of another dtype": (TypeError, "v", {"v": torch.zeros(2).double()}),
    "a schedule for one image of two": (ValueError, "schedule", {"schedule": torch.ones(1, 3)}),
    "a schedule of another dtype": (TypeError, "schedule", {"schedule": torch.ones(2, 3).double()}),
    "bands of another shape": (
        ValueError,
        "band",
        {"band": BAND[:3], "v": torch.zeros(2, 1)},
    ),
    "bands that are no integers": (
        TypeError,
        "band",
        {"band": BAND.float(), "v": torch.zeros(2, 1)},
    ),
    "bands without a second moment": (ValueError, "v", {"band": BAND, "v": None}),
    "bands with a second moment per image": (ValueError, "v", {"band": BAND, "v": torch.zeros(2)}),
}


@pytest.mark.parametrize(("error", "name", "replaced"), BAD.values(), ids=BAD)
def test_ascend_refuses(error: type[Exception], name: str, replaced: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^`{name}` must "):
        ops.ascend_(**arguments(**replaced))


def test_a_refused_call_changes_nothing() -> None:
    given = arguments(dp=torch.ones(2, 4, 3), schedule=torch.ones(1, 3))
    with pytest.raises(ValueError, match="schedule"):
        ops.ascend_(**given)
    assert not given["p"].any()
    assert not given["m"].any()
