"""Sums of products and windows as tiles of vectors and scalars, on the simulator.

Drawn and chosen shapes, many in a graph: odd sizes, strides, dilations, groups, few channels, tiny
images, sums that no turn divides. Results are held to float64 as everywhere; a case says which way
it is to be walked, so that none passes by another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accuracy import relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from sol_dynamo.backend import Backend
from sol_dynamo.ir import Kernel
from sol_dynamo.ve.emit_dense import Product
from sol_dynamo.ve.packed import skewed
from sol_dynamo.ve.stage import Copy
from sol_dynamo.ve.window import Window

pytestmark = pytest.mark.ve


def setup_module():
    torch.ve.init()


class Several(nn.Module):
    """Modules and functions side by side, each with its own arguments."""

    def __init__(self, parts: Sequence[Any]):
        super().__init__()
        self.parts = list(parts)
        self.kept = nn.ModuleList(p for p in parts if isinstance(p, nn.Module))

    def forward(self, *groups: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(p(*g) for p, g in zip(self.parts, groups, strict=True))


def check(parts: Sequence[Any], *groups: tuple[Tensor, ...]) -> list[Kernel]:
    """Compile parts as one graph, hold each result to float64, and give the kernels."""
    torch._dynamo.reset()
    model = Several(parts).eval()
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        exact = wide(*([x.double() for x in g] for g in groups))
        eager = model(*groups)
        backend = Backend()
        placed = copy.deepcopy(model).to("ve")
        compiled = torch.compile(placed, backend=backend, dynamic=False)
        got = compiled(*([x.to("ve") for x in g] for g in groups))
    for n, (y, e, x) in enumerate(zip(got, eager, exact, strict=True)):
        error, allowed = relative_error(y.cpu(), x), relative_error(e, x)
        assert error <= 2 * allowed + 2.4e-7, f"part {n}: {error:.2e}, eager's {allowed:.2e}"
    outcome: Any = backend.graphs[0]
    return [k for k in outcome.compiled.program.kernels if isinstance(k, Kernel)]


def ways(kernels: Sequence[Kernel]) -> list[str]:
    """How the kernels are walked that are walked as here, but for copies."""
    found = []
    for k in kernels:
        own = k.schedules[0].own if k.schedules else None
        if isinstance(own, Product):
            found.append("pairs" if own.pairs else "lanes")
        elif isinstance(own, Window):
            found.append(f"window {own.monoid}")
    return sorted(found)


def conv(*args: Any, **more: Any) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[more.pop("d", 2) - 1](*args, **more)


def test_convolutions():
    parts = [
        conv(5, 64, 3, padding=1),
        conv(3, 33, 7, stride=2, padding=3),  # two phases, no whole blocks of outputs
        conv(16, 34, 1),
        conv(16, 34, 1, stride=2),
        conv(8, 32, 3, padding=2, dilation=2),
        conv(6, 30, (5, 1), padding=(2, 0)),
        conv(8, 32, 3, stride=3, padding=1, bias=False),
        conv(4, 40, 1, padding=1),  # all of the border is bias
        conv(70, 20, 3, padding=1),  # longer than a part of the sum
    ]
    sizes = [
        (17, 23),
        (29, 27),
        (13, 15),
        (25, 21),
        (19, 14),
        (23, 9),
        (31, 30),
        (14, 15),
        (11, 12),
    ]
    channels = [5, 3, 16, 16, 8, 6, 8, 4, 70]
    groups = [(torch.randn(1, c, *s),) for c, s in zip(channels, sizes, strict=True)]
    found = ways(check(parts, *groups))
    assert len(found) == len(parts) and found.count("pairs") > len(parts) // 2


def test_batches_groups_and_dimensions():
    parts = [
        conv(12, 36, 3, padding=1, groups=3),
        conv(8, 40, 3, padding=1),
        conv(6, 32, 5, padding=2, stride=2, d=1),
        conv(4, 32, 3, padding=1, d=3),
        conv(96, 128, 3, padding=1),  # few points, many outputs
        nn.ConvTranspose2d(16, 24, 3, stride=2, padding=1),
    ]
    groups = [
        (torch.randn(2, 12, 11, 13),),
        (torch.randn(3, 8, 9, 10),),
        (torch.randn(2, 6, 301),),
        (torch.randn(1, 4, 7, 8, 9),),
        (torch.randn(1, 96, 5, 5),),
        (torch.randn(1, 16, 12, 13),),
    ]
    assert len(ways(check(parts, *groups))) >= len(parts)


def test_products():
    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def by_transposed(a: Tensor, b: Tensor) -> Tensor:
        return a @ b.mT

    def of_transposed(a: Tensor, b: Tensor) -> Tensor:
        return a.mT @ b

    parts = [
        nn.Linear(513, 257),
        nn.Linear(100, 1001),
        nn.Linear(1031, 64),
        product,
        by_transposed,
        of_transposed,
        product,
    ]
    groups = [
        (torch.randn(2, 513),),
        (torch.randn(1, 100),),  # a matrix by a vector
        (torch.randn(37, 1031),),
        (torch.randn(33, 65), torch.randn(65, 130)),
        (torch.randn(2, 31, 70), torch.randn(2, 129, 70)),
        (torch.randn(90, 41), torch.randn(90, 67)),
        (torch.randn(3, 20, 40), torch.randn(3, 40, 300)),
    ]
    assert len(ways(check(parts, *groups))) == len(parts)


def test_a_factor_that_does_not_know_an_axis_of_the_sum():
    """Equal channels: the gradient of a sum over channels."""
    layer = nn.ConvTranspose2d(4, 64, 3, stride=2)
    x = torch.randn(2, 4, 8, 17)

    def gradient(layer: nn.Module, x: Tensor, way: Any = lambda f: f) -> Tensor:
        x = x.detach().requires_grad_()
        way(lambda x: layer(x).sum(1).square().sum())(x).backward()
        assert x.grad is not None
        return x.grad.cpu()

    torch._dynamo.reset()
    exact, eager = gradient(copy.deepcopy(layer).double(), x.double()), gradient(layer, x)
    placed = copy.deepcopy(layer).to("ve")
    got = gradient(placed, x.to("ve"), torch.compile(backend=Backend(), dynamic=False))
    assert relative_error(got, exact) <= 2 * relative_error(eager, exact) + 2.4e-7


class Odd(nn.Module):
    """Products by weights that begin at an odd element: no pair of theirs may be read as one."""

    def __init__(self):
        super().__init__()
        memory = torch.randn(1 + 256 * 64)
        self.across = nn.Parameter(memory.as_strided((64, 256), (256, 1), 1))
        self.along = nn.Parameter(memory.as_strided((512, 2), (2, 1), 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x @ self.across, x[:, :2] @ self.along.t()], 1)


def test_weights_at_an_odd_place():
    assert len(ways(check([Odd()], (torch.randn(40, 64),)))) == 2


class Followed(nn.Module):
    """A convolution and what its tiles' registers go through before they are stored."""

    def __init__(self, kind: str, outs: int = 36):
        super().__init__()
        self.kind, self.conv = kind, conv(9, outs, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(outs, 1, 1))

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        y = self.conv(x)
        if self.kind == "residual":
            return torch.relu(y * self.scale + more[0])
        if self.kind == "bounds":
            return torch.clamp(y, -0.4, 0.9)
        if self.kind == "maximum":
            return torch.maximum(y, more[0]) - more[1].abs()
        if self.kind == "gate":  # more than is computed on registers: a kernel of its own
            return y * torch.sigmoid(y)
        return y.permute(0, 2, 3, 1).contiguous()


def test_what_follows_a_sum():
    kinds = ["residual", "bounds", "maximum", "gate", "permuted"]
    parts = [Followed(k) for k in kinds]
    x = torch.randn(1, 9, 15, 14)
    like = [torch.randn(1, 36, 15, 14) for _ in range(3)]
    groups = [(x, like[0]), (x,), (x, *like[1:]), (x,), (x,)]
    kernels = check(parts, *groups)
    assert len(ways(kernels)) == len(parts)
    assert any(k.name.endswith("_rest") for k in kernels)


def test_windows():
    parts = [
        conv(16, 16, 3, padding=1, groups=16),
        conv(7, 7, 5, stride=2, padding=2, groups=7, bias=False),  # a channel without a partner
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Sequential(conv(10, 10, 3, groups=10, dilation=2, padding=2), nn.ReLU6()),
    ]
    groups = [
        (torch.randn(1, 16, 29, 31),),
        (torch.randn(2, 7, 33, 35),),
        (torch.randn(1, 12, 37, 41),),
        (torch.randn(1, 8, 24, 23),),
        (torch.randn(1, 10, 25, 22),),
    ]
    found = ways(check(parts, *groups))
    assert found == ["window max", *["window sum"] * (len(parts) - 1)]


def test_pointwise_in_order():
    """What is computed of a channel's values is walked as copies are; so are other orders."""

    def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.relu(x * scale[:, None, None] + shift[:, None, None])

    def joined(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([torch.relu(x), y.abs() - 1], 1)

    def turned(x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) * 2).contiguous()

    kernels = check(
        [scaled, scaled, joined, turned],
        (torch.randn(1, 96, 7, 7), torch.randn(96), torch.randn(96)),
        (torch.randn(2, 24, 20, 21), torch.randn(24), torch.randn(24)),
        (torch.randn(1, 40, 11, 13), torch.randn(1, 24, 11, 13)),
        (torch.randn(1, 40, 11, 13),),
    )
    walked = [isinstance(k.schedules[0].own, Copy) for k in kernels if k.schedules]
    assert sum(walked) >= 3


def special(*shape: int) -> Tensor:
    """Random numbers among which are NaN of both signs, infinities and zeros of both signs."""
    x = torch.randn(shape)
    flat = x.view(-1)
    negative = torch.tensor([-1], dtype=torch.int32).view(torch.float32)
    values = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, float(negative))
    for n, v in enumerate(values):
        flat[n * 7 :: 97] = v
    return x


def test_special_values():
    """NaN wins a maximum and stays through ReLU, infinities and -0 are as in eager."""

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)

    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(8, 32, 1, bias=False)
            nn.init.zeros_(self.conv.weight)
            with torch.no_grad():
                self.conv.weight[:8, :, 0, 0] = torch.eye(8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x))

    x, z = special(1, 8, 40, 40), torch.randn(1, 8, 16, 16)
    z[0, 0, 3, 3], z[0, 5, 7, 9] = float("nan"), float("inf")
    torch._dynamo.reset()
    kept = Kept()
    with torch.no_grad():
        eager = pooled(x), kept(z)
        both = torch.compile(Several([pooled, copy.deepcopy(kept).to("ve")]), backend=Backend())
        got = both((x.to("ve"),), (z.to("ve"),))
    for y, e in zip(got, eager, strict=True):
        assert torch.equal(y.cpu().isnan(), e.isnan())
        assert torch.equal(y.cpu().nan_to_num(3.0), e.nan_to_num(3.0))


def test_weights_that_are_inputs():
    """While it trains, weights are brought into the order of the walk at each call."""
    torch._dynamo.reset()
    model = nn.Sequential(conv(8, 32, 3, padding=1), nn.ReLU(), conv(32, 48, 1))
    wide, eager = copy.deepcopy(model).double(), copy.deepcopy(model)
    placed = copy.deepcopy(model).to("ve")
    compiled = torch.compile(placed, backend=Backend(), dynamic=False)
    x = torch.randn(2, 8, 12, 13)
    for m, f, given in (
        (wide, wide, x.double()), (eager, eager, x), (placed, compiled, x.to("ve")),
    ):  # fmt: skip
        f(given).square().sum().backward()
        with torch.no_grad():
            for p in m.parameters():
                p -= 1e-3 * p.grad
    exact, reference = wide(x.double()), eager(x)
    error = relative_error(compiled(x.to("ve")).detach().cpu(), exact)
    assert error <= 2 * relative_error(reference, exact) + 2.4e-7
    for p, e, w in zip(placed.parameters(), eager.parameters(), wide.parameters(), strict=True):
        got = p.grad.cpu()
        assert relative_error(got, w.grad) <= 2 * relative_error(e.grad, w.grad) + 2.4e-7


def test_what_is_not_for_tiles():
    """Too little work, and products of float64."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    little = check([product], (torch.randn(4, 8), torch.randn(8, 5)))
    assert ways(little) == []
    torch._dynamo.reset()
    backend = Backend()
    a, b = torch.randn(40, 50, dtype=torch.float64), torch.randn(50, 60, dtype=torch.float64)
    y = torch.compile(product, backend=backend, dynamic=False)(a.to("ve"), b.to("ve")).cpu()
    assert torch.allclose(y, a @ b, rtol=1e-13)
    outcome: Any = backend.graphs[0]
    assert ways([k for k in outcome.compiled.program.kernels if isinstance(k, Kernel)]) == []


def test_a_chosen_walk_for_resnets_layers():
    """Many points: pairs of outputs by points. Few points, many outputs: lanes of outputs."""
    kernels = check(
        [conv(64, 64, 3, padding=1), conv(64, 512, 1)],
        (torch.randn(1, 64, 28, 28),),
        (torch.randn(1, 64, 7, 7),),
    )
    assert ways(kernels) == ["lanes", "pairs"]
    own = [k.schedules[0].own for k in kernels if isinstance(k.schedules[0].own, Product)]
    for p in own:
        assert p.vectors * (p.scalars * p.sets + p.ring + p.pairs) <= 58
    assert any(isinstance(k.schedules[0].own, Copy) for k in kernels)


def test_lines_of_results_are_skewed():
    """Loads come ahead and lines of several results alternate, as far as there are registers."""
    members = [
        [f"V a_{m} = _vel_vld_vssl(p)", f"V b_{m} = f(a_{m})", f"V c_{m} = f(b_{m})", f"g(c_{m})"]
        for m in range(9)
    ]
    lines = skewed(members, room=30)
    assert lines[:9] == [m[0] for m in members]
    for m in range(9):
        assert [lines.index(x) for x in members[m]] == sorted(lines.index(x) for x in members[m])
    assert lines.index(members[1][1]) < lines.index(members[0][2])
    assert sorted(lines) == sorted(x for m in members for x in m)
    assert skewed(members, room=1) == [x for m in members for x in m]
