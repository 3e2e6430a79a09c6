"""Pooling and resampling through torch.compile: whole modules are kernels, forward and backward,
within the contract, with eager's strides and indices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accuracy import ULP2, relative_error
from torch import nn

from sol_dynamo.backend import Backend
from sol_dynamo.compat import core_decompositions
from sol_dynamo.ir import Extern
from sol_dynamo.lowering.upsampling import cover, nearest, nearest_positions

SHAPES = {1: (2, 3, 13), 2: (2, 5, 11, 9), 3: (1, 3, 5, 7, 6)}
POOLS: dict[str, Callable[[int], Any]] = {
    "max": lambda d: getattr(nn, f"MaxPool{d}d")(3, 2, 1),
    "max, dilated": lambda d: getattr(nn, f"MaxPool{d}d")(2, 1, 0, 2),
    "max, ceil": lambda d: getattr(nn, f"MaxPool{d}d")(2, 2, ceil_mode=True),
    "average": lambda d: getattr(nn, f"AvgPool{d}d")(2),
    "average, ceil": lambda d: getattr(nn, f"AvgPool{d}d")(3, 2, 1, True, False),
    "adaptive average": lambda d: getattr(nn, f"AdaptiveAvgPool{d}d")(4),
    "adaptive average, more": lambda d: getattr(nn, f"AdaptiveAvgPool{d}d")(17),
    "adaptive max": lambda d: getattr(nn, f"AdaptiveMaxPool{d}d")(4),
    "power": lambda d: getattr(nn, f"LPPool{d}d")(2, 2),
}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
RESIZES = [
    (d, mode, align, how)
    for d in SHAPES
    for mode in ("nearest", "nearest-exact", LINEAR[d], *(["bicubic"] if d == 2 else []))
    for align in ((None,) if mode.startswith("nearest") else (False, True))
    for how in ({"scale_factor": 2}, {"scale_factor": 1.7}, {"size": 6})
]


def gradients(f: Callable, x: torch.Tensor) -> list[torch.Tensor]:
    """The results of f and the gradient of its input."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y, *rest = (z,) if isinstance(z := f(x), torch.Tensor) else z
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    assert x.grad is not None
    return [y.detach(), *rest, x.grad]


def check(f: Callable, x: torch.Tensor, kernels: bool = True) -> None:
    """Forward and backward within the contract, and no call to ATen in them."""
    torch._dynamo.reset()
    backend = Backend()
    got = gradients(torch.compile(f, backend=backend, dynamic=False), x)
    for a, e, w in zip(got, gradients(f, x), gradients(f, x.double()), strict=True):
        assert a.stride() == e.stride() or a.numel() == 0
        if e.is_floating_point():
            assert relative_error(a, w) <= 2 * relative_error(e, w) + ULP2
        else:
            assert torch.equal(a, e)
    programs = [g.compiled.program for g in backend.graphs]
    calls = [f"{k.op}: {k.reason}" for p in programs for k in p.kernels if isinstance(k, Extern)]
    assert len(programs) == 2 and not (kernels and calls), calls


@pytest.mark.parametrize("d", SHAPES)
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str, d: int) -> None:
    check(POOLS[name](d), torch.randn(SHAPES[d], generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["max", "average, ceil", "adaptive average", "adaptive max"])
def test_pooling_of_channels_last_and_of_one_image(name: str) -> None:
    x = torch.randn(SHAPES[2], generator=torch.Generator().manual_seed(0))
    check(POOLS[name](2), x.contiguous(memory_format=torch.channels_last))
    check(POOLS[name](2), x[0])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_positions_of_ties(d: int) -> None:
    """Eager's index where several points are the greatest, and the gradient goes there alone."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-1, 2, SHAPES[d], generator=g).float()
    check(getattr(nn, f"MaxPool{d}d")(3, 2, 1, return_indices=True), x)
    check(getattr(nn, f"AdaptiveMaxPool{d}d")(4, return_indices=True), x)


@pytest.mark.parametrize("d, mode, align, how", RESIZES)
def test_resizing(d: int, mode: str, align: bool | None, how: dict[str, Any]) -> None:
    x = torch.randn(SHAPES[d], generator=torch.Generator().manual_seed(0))
    f = partial(F.interpolate, mode=mode, align_corners=align, **how)
    check(f, x)
    if d == 2:
        check(f, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradient_by_positions_that_lie_otherwise(dtype: torch.dtype) -> None:
    """ATen's backward takes them to be contiguous; ours saves them channels last."""
    x = torch.randn(2, 3, 5, 6, 7).to(dtype).requires_grad_()
    f = F.adaptive_max_pool3d
    y = f(x, (3, 2, 2))
    g = torch.randn_like(y)
    (wanted,) = torch.autograd.grad(y, x, g)
    got = torch.compile(f, backend=Backend(), dynamic=False)(x, (3, 2, 2))
    assert torch.equal(got, y) and torch.equal(torch.autograd.grad(got, x, g)[0], wanted)


def test_resizing_of_nothing() -> None:
    """torch's fake kernels of the nearest fail here: traced again, decomposed."""
    for mode in ("nearest", "bilinear"):
        check(partial(F.interpolate, mode=mode, scale_factor=2), torch.randn(0, 3, 4, 5), False)


def test_resizing_of_symbolic_sizes() -> None:
    torch._dynamo.reset()
    for mode in ("nearest", "bilinear", "bicubic"):
        f = partial(F.interpolate, mode=mode, scale_factor=2)
        run = torch.compile(f, backend=Backend(), dynamic=True)
        for n in (5, 5, 8, 8):
            x = torch.randn(1, 2, n, 7)
            torch.testing.assert_close(run(x), f(x))


def test_torch_is_left_as_it_was() -> None:
    """Others trace resampling as before: kernels that are away while we trace come back."""
    ops = [getattr(torch.ops.aten.upsample_bilinear2d, n) for n in ("vec", "default")]
    core_decompositions(composite=True)  # loads them
    before = [dict(op.py_kernels) for op in ops]
    check(partial(F.interpolate, mode="bilinear", scale_factor=2), torch.randn(1, 2, 3, 4))
    assert [dict(op.py_kernels) for op in ops] == before and all(before)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("layout", [False, True])
def test_nearest_positions_are_an_index(exact: bool, layout: bool) -> None:
    """For whole ratios of sizes, and rational scales, an index says eager's positions."""
    found = 0
    for n in (1, 2, 7, 13, 56):
        for size in (1, 3, n, 2 * n, 3 * n, 5 * n + 1):
            table = nearest_positions(exact, n, size, None, layout, "f32")
            dim = nearest(n, table, None)
            if dim is not None:
                found += 1
                at = [dim.position(o) for o in map(_index, range(size))]
                assert tuple(i.const for i in at) == table
    assert found >= 25


def test_positions_that_are_no_line_have_no_index() -> None:
    assert nearest(5, (0, 3, 1, 4), None) is None


def test_a_cover_holds_every_output_point() -> None:
    spans = [(0, 1), (0, 1), (1, 3), (3, 4), (4, 4), (4, 4), (4, 4)]
    c = cover(spans, 5)
    for o, (first, last) in enumerate(spans):
        for p in range(first, last + 1):
            start = c.first(_index(p)).const
            assert start <= o < start + c.count


def _index(value: int) -> Any:
    from sol_dynamo.affine import Index

    return Index.of(value)
