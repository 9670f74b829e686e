"""Defines how one operation changes what a position of a tensor sees of the picture.

Two facts are tracked for a tensor: the window of the picture that one of its positions sees (Araujo et al.
2019, along the widest path), and which of its axes count positions. The second determines whether an
operation mixes positions, whichever axis the channels are on: a linear layer on [N, H, W, C] does not, on
[N, C, H * W] it does. What is not known stays unknown and is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor, nn


class Axis(NamedTuple):
    """What the positions along one axis see of the picture, in pixels.

    Position n sees `size` pixels from `start + n * jump` on; some lie beyond the border if the network pads.
    """

    size: float
    jump: float
    start: float | None = 0  # None: unknown


@dataclass(frozen=True)
class Seen:
    """What one position of a tensor sees along rows and columns, and the axes that count positions."""

    rows: Axis
    columns: Axis
    positions: frozenset[int]

    def pixels(self) -> int:
        """Returns the longer side of the window in pixels, -1 for the whole picture."""
        side = max(self.rows[0], self.columns[0])
        return -1 if math.isinf(side) else math.ceil(side)


WHOLE = Seen(Axis(math.inf, math.inf), Axis(math.inf, math.inf), frozenset())
Judgement = Seen | None  # None: unknown


def joined(inputs: Sequence[Seen], ndims: Sequence[int], ndim: int) -> Seen:
    """Returns what a position sees through the widest of several inputs, axes aligned as in broadcasting."""
    rows, columns = map(_span, ([seen.rows for seen in inputs], [seen.columns for seen in inputs]))
    # Axes are counted from the last one, except for a single input, which keeps its own axes.
    shifts = [ndim - of for of in ndims] if len(inputs) > 1 else [0]
    axes = {axis + shift for seen, shift in zip(inputs, shifts, strict=True) for axis in seen.positions}
    return Seen(rows, columns, frozenset(axes))


def _span(axes: Sequence[Axis]) -> Axis:
    """Returns the span from the first start to the last end of several axes."""
    size, jump = max(axis.size for axis in axes), max(axis.jump for axis in axes)
    known = [axis for axis in axes if axis.start is not None and math.isfinite(size)]
    if len(known) < len(axes):
        return Axis(size, jump, None if math.isfinite(size) else 0)
    start = min(axis.start or 0 for axis in known)
    return Axis(max((axis.start or 0) + axis.size for axis in known) - start, jump, start)


def _slid(axis: Axis, kernel: int, stride: int, dilation: int, padding: int | None) -> Axis:
    start = None if axis.start is None or padding is None else axis.start - padding * axis.jump
    return Axis(axis.size + (kernel - 1) * dilation * axis.jump, axis.jump * stride, start)


def _pair(value: Any) -> tuple[int, int]:
    first, last = value if isinstance(value, tuple | list) else (value, value)
    return first, last


def _window(seen: Seen, kernel: Any, stride: Any, dilation: Any = 1, padding: Any = 0) -> Judgement:
    """Returns what is seen through a window that slides over [N, C, H, W]."""
    if seen.positions != {2, 3}:
        return None
    (high, wide), (down, right), (tall, broad) = _pair(kernel), _pair(stride or kernel), _pair(dilation)
    above, left = _pair(0 if padding == "valid" else padding)
    if padding == "same":
        above, left = tall * (high - 1) // 2, broad * (wide - 1) // 2
    return replace(
        seen,
        rows=_slid(seen.rows, high, down, tall, above),
        columns=_slid(seen.columns, wide, right, broad, left),
    )


def _adaptive_pool(seen: Seen, x: Tensor, result: Tensor) -> Judgement:
    """Returns what is seen through an adaptive pool, whose windows follow from its input and output sizes."""
    if seen.positions != {2, 3}:
        return None
    if tuple(result.shape[2:]) == (1, 1):
        return WHOLE
    if any(size % parts for size, parts in zip(x.shape[2:], result.shape[2:], strict=True)):
        return None  # windows of different sizes
    kernel = tuple(size // parts for size, parts in zip(x.shape[2:], result.shape[2:], strict=True))
    return _window(seen, kernel, kernel)


def _mixing(seen: Seen, axes: Iterable[int]) -> Judgement:
    """Mixes all positions along some axes: the whole picture is seen if no other axis counts positions."""
    mixed = seen.positions & frozenset(axes)
    if not mixed:
        return seen
    return WHOLE if mixed == seen.positions else None


def _reshaped(seen: Seen, before: Sequence[int], after: Sequence[int]) -> Judgement:
    """Changes the shape: axes merged from positions only, or from non-positions only, keep their meaning."""
    old = [axis for axis, size in enumerate(before) if size > 1]
    new = [axis for axis, size in enumerate(after) if size > 1]
    old_ends = list(accumulate((before[axis] for axis in old), lambda a, b: a * b))
    new_ends = list(accumulate((after[axis] for axis in new), lambda a, b: a * b))
    positions: set[int] = set()
    last = 1
    for end in sorted({*old_ends} & {*new_ends}):
        merged = [axis for axis, stop in zip(old, old_ends, strict=True) if last < stop <= end]
        made = [axis for axis, stop in zip(new, new_ends, strict=True) if last < stop <= end]
        last = end
        if all(axis in seen.positions for axis in merged):
            positions.update(made)
        elif any(axis in seen.positions for axis in merged):
            # Channels and positions in one vector: it sees the whole picture, and so does whatever reads it.
            return WHOLE if end == old_ends[-1] and len(made) == 1 and not positions else None
    return replace(seen, positions=frozenset(positions))


def _permuted(seen: Seen, order: Sequence[int]) -> Judgement:
    order = [axis % len(order) for axis in order]
    moved = [order.index(axis) for axis in sorted(seen.positions)]
    return replace(seen, positions=frozenset(moved)) if moved == sorted(moved) else None  # rows stay first


def product(seen: Seen, factors: int, first: bool, ndim: int) -> Judgement:
    """Applies a matrix product of two tensors that see the picture (attention), or of one and a constant."""
    if factors > 1:
        return WHOLE if seen.positions <= {ndim - 1, ndim - 2} else None
    return _mixing(seen, [ndim - 1 if first else ndim - 2])


def judge_module(module: nn.Module, seen: Seen, x: Tensor, result: Tensor) -> Judgement:
    """Returns what is seen through a module that is judged as a whole, from x to its result."""
    if isinstance(module, WINDOWS):
        windows: Any = module
        dilation = getattr(module, "dilation", 1)
        return _window(seen, windows.kernel_size, windows.stride, dilation, _padding(module))
    if isinstance(module, ADAPTIVE_POOLS):
        return _adaptive_pool(seen, x, result)
    if isinstance(module, nn.Linear):
        return _mixing(seen, [x.ndim - 1])
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return _mixing(seen, range(x.ndim - len(module.normalized_shape), x.ndim))
    if isinstance(module, nn.GroupNorm | nn.modules.instancenorm._InstanceNorm):
        return _mixing(seen, range(2, x.ndim))
    if isinstance(module, nn.Softmax | nn.LogSoftmax) and module.dim is not None:
        return _mixing(seen, [module.dim % x.ndim])
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return _reshaped(seen, x.shape, result.shape)
    if isinstance(module, nn.MultiheadAttention):
        return _mixing(seen, [x.ndim - 2 if module.batch_first else 0])
    if isinstance(module, nn.ZeroPad2d):
        return shifted(seen)
    return seen if isinstance(module, POINTWISE_MODULES) else None


def _padding(module: Any) -> Any:
    """Returns the padding; unknown for subclasses (as for TensorFlow's weights), which may pad otherwise."""
    return module.padding if type(module).__module__.startswith("torch.") else (None, None)


def shifted(seen: Seen) -> Seen:
    """Returns what is seen through an operation that moves positions by an amount that is not tracked."""
    return replace(seen, rows=seen.rows._replace(start=None), columns=seen.columns._replace(start=None))


def _argument(args: Any, kwargs: Any, place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _dimensions(args: Any, kwargs: Any) -> list[int]:
    """Returns the axes that a reduction runs over; all of them if none are given."""
    ndim, dims = args[0].ndim, _argument(args, kwargs, 1, "dim")
    if dims is None:
        return list(range(ndim))
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)]


def _reduction(seen: Seen, args: Any, kwargs: Any, result: Tensor) -> Judgement:
    dims = _dimensions(args, kwargs)
    mixed = _mixing(seen, dims)
    if mixed is not seen or result.ndim == args[0].ndim:
        return mixed
    left = [axis for axis in range(args[0].ndim) if axis not in dims]
    return replace(seen, positions=frozenset(left.index(axis) for axis in seen.positions))


def _softmax(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    return _mixing(seen, _dimensions(args, kwargs))


def _permute(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    order = kwargs.get("dims", args[1:])
    return _permuted(seen, order[0] if isinstance(order[0], tuple | list) else order)


def _transpose(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    order = list(range(args[0].ndim))
    one, other = _argument(args, kwargs, 1, "dim0"), _argument(args, kwargs, 2, "dim1")
    order[one], order[other] = order[other], order[one]
    return _permuted(seen, order)


def _reshape(seen: Seen, args: Any, _kwargs: Any, result: Tensor) -> Judgement:
    return _reshaped(seen, args[0].shape, result.shape)


def _index(seen: Seen, args: Any, _kwargs: Any, result: Tensor) -> Judgement:
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not all(isinstance(part, int | slice) or part is None or part is Ellipsis for part in index):
        return None
    full = args[0].ndim - sum(isinstance(part, int | slice) for part in index)
    where = next((place for place, part in enumerate(index) if part is Ellipsis), len(index))
    index = (*index[:where], *[slice(None)] * full, *index[where + 1 :])
    old = new = 0
    positions = set()
    for part in index:
        if isinstance(part, slice) and old in seen.positions:
            if part != slice(None):
                return None  # positions shift relative to those of other slices
            positions.add(new)
        old += part is not None
        new += not isinstance(part, int)
    return replace(seen, positions=frozenset(positions))


def _parts(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    dim = _argument(args, kwargs, 2, "dim", 0) % args[0].ndim
    return None if dim in seen.positions else seen


def _unbound(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    gone = _argument(args, kwargs, 1, "dim", 0) % args[0].ndim
    return replace(seen, positions=frozenset(axis - (axis > gone) for axis in seen.positions if axis != gone))


def _layer_norm(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    ndim = args[0].ndim
    return _mixing(seen, range(ndim - len(_argument(args, kwargs, 1, "normalized_shape")), ndim))


def _pool(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    kernel, stride = _argument(args, kwargs, 1, "kernel_size"), _argument(args, kwargs, 2, "stride")
    return _window(seen, kernel, stride, 1, _argument(args, kwargs, 3, "padding", 0))


def _max_pool(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    kernel, stride = _argument(args, kwargs, 1, "kernel_size"), _argument(args, kwargs, 2, "stride")
    padding, dilation = _argument(args, kwargs, 3, "padding", 0), _argument(args, kwargs, 4, "dilation", 1)
    return _window(seen, kernel, stride, dilation, padding)


def _convolution(seen: Seen, args: Any, kwargs: Any, _result: Tensor) -> Judgement:
    kernel = tuple(_argument(args, kwargs, 1, "weight").shape[2:])
    stride, dilation = _argument(args, kwargs, 3, "stride", 1), _argument(args, kwargs, 5, "dilation", 1)
    return _window(seen, kernel, stride, dilation, _argument(args, kwargs, 4, "padding", 0))


def _attention(seen: Seen, args: Any, _kwargs: Any, _result: Tensor) -> Judgement:
    return _mixing(seen, [args[0].ndim - 2])


ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.Identity, nn.ZeroPad2d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus),
)
_POINTWISE_NAMES = """
    add sub mul div truediv iadd isub imul itruediv neg pow sqrt rsqrt square exp log abs
    clamp clamp_min clamp_max where maximum minimum
    relu relu6 leaky_relu prelu elu celu selu gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh
    softplus dropout dropout2d feature_dropout stochastic_depth drop_path
    contiguous clone detach to float double half bfloat16 type_as cat concat concatenate batch_norm pad
"""
POINTWISE = frozenset(_POINTWISE_NAMES.split())
PRODUCTS = frozenset(("matmul", "bmm", "imatmul"))
REDUCTIONS = frozenset(("mean", "sum", "amax", "amin", "norm", "var", "std", "logsumexp"))
_Rule = Callable[[Seen, Any, Any, Tensor], Judgement]
RULES: dict[str, _Rule] = {
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("chunk", "split", "tensor_split"), _parts),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("avg_pool2d", "avg_pool"), _pool),
    **dict.fromkeys(
        ("adaptive_avg_pool2d", "adaptive_max_pool2d"),
        lambda seen, args, _kwargs, result: _adaptive_pool(seen, args[0], result),
    ),
    **dict.fromkeys(
        ("group_norm", "instance_norm"),
        lambda seen, args, _kwargs, _result: _mixing(seen, range(2, args[0].ndim)),
    ),
    "linear": lambda seen, args, _kwargs, _result: _mixing(seen, [args[0].ndim - 1]),
    "permute": _permute,
    "getitem": _index,
    "unbind": _unbound,
    "layer_norm": _layer_norm,
    "max_pool2d": _max_pool,
    "conv2d": _convolution,
    "scaled_dot_product_attention": _attention,
}
