"""PyTorch's own samples of every operator, compiled by us: what passes with `aot_eager` passes.

Each run of `make test` takes every twentieth operator, `make test-all` all of them.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("expecttest")  # torch.testing's operator database imports it
from opinfo import OPS, cases, failures

FEW = sorted(OPS)[::20]
REST = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(OPS) if name not in FEW]
DTYPES = [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]


@pytest.mark.parametrize("name", [*FEW, *REST])
def test_forward(name):
    """All samples in float32."""
    if torch.float32 not in OPS[name].supported_dtypes("cpu"):
        pytest.skip("no float32")
    found = failures(cases(name, torch.float32))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", [*FEW, *REST])
def test_backward(name):
    """The gradients of the first sample in float32."""
    op = OPS[name]
    if not op.supports_autograd or torch.float32 not in op.supported_backward_dtypes("cpu"):
        pytest.skip("not differentiable")
    found = failures(cases(name, torch.float32, first=True, grad=True), grad=True)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPS))
def test_dtypes(name):
    """The first sample in each other dtype."""
    found = []
    for dtype in DTYPES:
        if dtype in OPS[name].supported_dtypes("cpu"):
            found += [f"{dtype}: {t}" for t in failures(cases(name, dtype, first=True))]
    assert not found, "\n".join(found)
