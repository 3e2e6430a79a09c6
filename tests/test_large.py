"""What only large sizes reach: reductions in parts, operands that lie apart, repeated producers."""

from __future__ import annotations

import pytest
import torch
from accuracy import check

from sol_dynamo.backend import Backend
from sol_dynamo.ir import Kernel

N, C, H, W = 5, 40, 43, 45
CASES = {
    "channels of images": (lambda x: x.sum((0, 2, 3)), (N, C, H, W)),
    "channels, innermost": (lambda x: x.permute(0, 3, 1, 2).sum((0, 2, 3)), (N, H, W, C)),
    "everything": (lambda x: x.mean() * 2, (N, C, H, W)),
    "siblings": (lambda x: (x.sum((0, 2, 3)), (x * x).sum((0, 2, 3))), (N, C, H, W)),
    "siblings of two inputs": (lambda x: ((x - 1).amax((0, 1)), x.amin((0, 1))), (N, H, W, C)),
    "one long axis": (lambda x: x.sum(0), (2**15 * 3, 8)),
    "a prime axis": (lambda x: x.sum(0), (100_003, 5)),
    "any and all": (lambda x: ((x > 3).any(), (x > -9).all()), (N, C, H, W)),
    "with an epilogue": (lambda x: torch.rsqrt(x.var((0, 2, 3)) + 1), (N, C, H, W)),
    "a sum and its use": (lambda x: x - x.mean((0, 1), keepdim=True), (131, 77, 33)),
    "normalized twice": (lambda x: torch.softmax(x, 1).sum(0), (3001, 133)),
}


@pytest.mark.parametrize("name", CASES)
def test_reduction(name):
    f, shape = CASES[name]
    torch.manual_seed(0)
    check(f, f, torch.randn(shape))


def test_siblings_are_one_sweep():
    torch._dynamo.reset()
    backend = Backend()
    torch.compile(CASES["siblings"][0], backend=backend)(torch.randn(N, C, H, W))
    kernels = [k for k in backend.graphs[0].compiled.program.kernels if isinstance(k, Kernel)]
    readers = [k for k in kernels if k.name.endswith("_parts")]
    assert len(readers) == 1 and len(readers[0].body[0].stores) == 2


@pytest.mark.parametrize(
    "a, b",
    [
        (lambda x: x.t(), lambda y: y),
        (lambda x: x.t(), lambda y: y * 2),
        (lambda x: torch.relu(x).t(), lambda y: y),
        (lambda x: x[:, 1:1024].t(), lambda y: y[:, 3:]),
    ],
)
@pytest.mark.parametrize("columns", [257, 1024])
def test_transposed_products(a, b, columns):
    torch.manual_seed(0)
    x, y = torch.randn(513, 1024), torch.randn(513, columns)
    f = lambda x, y: a(x) @ b(y)  # noqa: E731
    check(f, f, x, y)
    g = lambda x, y: (a(x) @ b(y)).t() + 1  # noqa: E731
    check(g, g, x, y)


def test_values_for_many_points_are_made_once():
    torch._dynamo.reset()
    backend = Backend()
    f = lambda x, s: x * (s * 2 + 1)  # noqa: E731
    x, s = torch.randn(300, 200), torch.randn(200)
    torch.testing.assert_close(torch.compile(f, backend=backend)(x, s), f(x, s))
    assert len(backend.graphs[0].compiled.program.kernels) == 2
