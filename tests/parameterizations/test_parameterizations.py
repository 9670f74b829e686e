"""Every parameterization has autograd's adjoint, independent bits, and gives back a photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.ascent.loop import gradient_function
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.ascent.transforms import inside, noise_table, normal_noise, warp_table
from cnnvis_fast.config import configure
from cnnvis_fast.images.statistics import literature
from cnnvis_fast.kernels.reference.render import _warp
from cnnvis_fast.networks.preprocessing import Source
from cnnvis_fast.parameterizations.cppn import Cppn
from cnnvis_fast.parameterizations.fourier import Fourier, Phase
from cnnvis_fast.parameterizations.pixels import Pixel

CPU = torch.device("cpu")
KEYS = ("0/conv1/0", "0/conv1/1")
SIZES = (16, 17)


def parameterization(name: str, size: int) -> Fourier | Phase | Cppn | Pixel:
    if name == "maco":
        return Phase(literature(3).magnitude_at(size), CPU)
    if name == "cppn":
        return Cppn(3, size, 1.0, CPU)
    return Pixel(3, size, 0.5) if name == "pixel" else Fourier(3, size, 1.0, 1.0, 0.25, CPU)


def widened(parameters: Fourier | Phase | Cppn | Pixel) -> None:
    """Converts to float64, so that only the formula is tested."""
    for part in (parameters, getattr(parameters, "fourier", None)):
        for name, value in vars(part).items() if part is not None else ():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(part, name, value.double())


names = pytest.mark.parametrize("name", ["fourier", "maco", "cppn", "pixel"])


@names
@pytest.mark.parametrize("size", SIZES)
def test_the_adjoint_is_the_gradient_of_autograd(name: str, size: int) -> None:
    parameters = parameterization(name, size)
    widened(parameters)
    p = parameters.start(KEYS).double().requires_grad_()
    dz = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (expected,) = torch.autograd.grad(parameters.decode(p), p, dz)
    found = parameters.adjoint(dz, p.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["fourier", "maco", "pixel"])
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_comes_back_out_of_its_parameters(name: str, size: int) -> None:
    parameters = parameterization(name, size)
    z = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    if isinstance(parameters, Phase):  # which keeps the phases alone
        parameters.magnitude = torch.fft.rfft2(z[0], norm="forward").abs()
    found = parameters.decode(parameters.encode(z))
    torch.testing.assert_close(found[0], z[0], rtol=1e-4, atol=1e-4)


@names
def test_a_start_depends_on_its_key_alone(name: str) -> None:
    parameters = parameterization(name, 17)
    together = parameters.start(KEYS)
    assert together.dtype == torch.float32
    for key, row in zip(KEYS, together, strict=True):
        assert torch.equal(parameters.start([key])[0], row)
    assert not torch.equal(together[0], together[1])


def test_phases_leave_the_magnitude_as_it_is() -> None:
    parameters = parameterization("maco", 17)
    assert isinstance(parameters, Phase)
    z = parameters.decode(parameters.start(KEYS) * 3)
    found = torch.fft.rfft2(z, norm="forward").abs()[..., 1:]  # the first column is its own mirror image
    torch.testing.assert_close(found, parameters.magnitude[..., 1:].expand_as(found), rtol=1e-4, atol=1e-5)


def test_hidden_units_of_a_small_network_keep_their_scale() -> None:
    z = Cppn(3, 48, 1.0, CPU).decode(Cppn(3, 48, 1.0, CPU).start([f"key {n}" for n in range(20)]))
    assert 0.02 < float(z.std()) < 0.5
    assert z.isfinite().all()


@pytest.mark.parametrize("parameters", ["fourier", "maco", "cppn", "pixel"])
@pytest.mark.parametrize("layer", ["2", "3", "logits"])
@pytest.mark.parametrize(
    "more",
    [{}, {"crop": 0.5, "pad": 0.1}, {"input_noise": 0.3, "transforms": "jitter"}],
    ids=["affine", "crop and pad", "noise"],
)
def test_the_gradient_of_a_step_is_that_of_plain_autograd_in_float64(parameters, layer, more) -> None:
    # Smooth, so that rounding cannot switch a unit on in one computation and off in the other.
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2), nn.SiLU(), nn.Conv2d(6, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 6))
    config = configure(
        parameters=parameters, size=32, dtype="float32", batch=2, steps=3, saturation=0.0, **more
    )
    plan = make_plan(network, layer, config, Source("small", "given", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 32))
    keys = [plan.key(channel) for channel in (3, 5)]
    p = plan.first_parameters([3, 5])
    warp, noise = warp_table(plan.config, keys, 32)[1], noise_table(plan.config, keys)[1]
    selection = plan.objective.select([3, 5], CPU)
    dp, _, scores = gradient_function(plan, plan.module)(p, warp, noise, *selection)

    widened(plan.parameters)
    wide = p.double().requires_grad_()
    warp = warp.double() if warp is not None and warp.ndim == 3 else warp
    z = plan.parameters.decode(wide)
    s = _warp(torch.sigmoid(torch.einsum("cd,bdhw->bchw", plan.color.double(), z)), warp)
    x = (s - plan.mean.double().view(-1, 1, 1)) / plan.std.double().view(-1, 1, 1)
    if "pad" in more and warp is not None:
        x = x * inside(warp, 32, 32)
    if noise is not None:
        x = x + 0.3 * normal_noise(noise, (3, 32, 32)).double()
    h = plan.trunk.module.double()(x)
    output = h if plan.trunk.tail is None else plan.trunk.tail.double()(h)
    value = torch.stack([output[0, 3].mean(), output[1, 5].mean()])
    (expected,) = torch.autograd.grad(value.sum(), wide)
    torch.testing.assert_close(scores.double(), value.detach(), rtol=1e-5, atol=1e-6)
    error = (dp.double() - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert float(error.max()) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"parameters": "maco"},
        {"parameters": "cppn"},
        {"parameters": "pixel"},
        {"blur": 0.7, "total_variation": 0.2, "l1": 0.1, "l2": 0.1, "saturation": 0.1},
        {"crop": 0.4, "pad": 0.1, "input_noise": 0.2, "alpha": True},
        {"color": "gray"},
    ],
    ids=lambda options: next(iter(options.values())) if len(options) == 1 else next(iter(options)),
)
def test_same_bits_whatever_runs_beside(options) -> None:
    network = cv.load_model("texturenet")
    shared = {"steps": 5, "size": 40, "progress": False, **options}
    together = cv.maximize(network, "conv4", range(6), **shared)
    for filters in ([4, 1], [5]):
        some = cv.maximize(network, "conv4", filters, **shared)
        assert torch.equal(some.pixels, together.pixels[filters])
        assert torch.equal(some.robust_scores, together.robust_scores[filters])
        if together.alpha is not None and some.alpha is not None:
            assert torch.equal(some.alpha, together.alpha[filters])
    assert len({picture.numpy().tobytes() for picture in together.pixels}) == 6


def test_gray_pictures_are_gray() -> None:
    pixels = cv.maximize("texturenet", "conv2", [1], steps=5, size=40, color="gray", progress=False).pixels
    assert int((pixels.amax(1).int() - pixels.amin(1).int()).max()) <= 1
    assert int(pixels.max()) - int(pixels.min()) > 20


def test_a_start_is_the_photo() -> None:
    photo = (np.random.default_rng(0).random((40, 40, 3)) * 200 + 25).astype(np.uint8)
    options = {"size": 40, "progress": False, "steps": 1, "rate": 1e-9}
    for parameters in ("fourier", "pixel"):
        found = cv.maximize("texturenet", "conv4", [1, 2], start=photo, parameters=parameters, **options)
        away = found.pixels.int() - torch.from_numpy(photo).permute(2, 0, 1).int()
        assert int(away.abs().max()) <= 1
        assert found.job["start"]
    with pytest.raises(cv.InputError, match="cannot start from a photo"):
        cv.maximize("texturenet", "conv4", [1], start=photo, parameters="cppn", **options)
    with pytest.raises(cv.InputError, match="cannot start from a photo"):
        cv.maximize("texturenet", "conv4", [1], start=photo, preset="original", progress=False)


@pytest.mark.parametrize(
    "options",
    [
        {"parameters": "maco", "blur": 1.0},
        {"preset": "original", "alpha": True},
        {"preset": "original", "l2": 0.1},
        {"transforms": "jitter", "crop": 0.5},
        {"transforms": "none", "pad": 0.5},
        {"color": "sepia"},
        {"crop": 0.0},
        {"statistics": 3},
    ],
)
def test_options_that_do_not_go_together_are_refused(options) -> None:
    with pytest.raises(cv.InputError, match="`"):
        configure(**options)
