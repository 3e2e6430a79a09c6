"""PyTorch's own samples of every module, compiled by us: what passes with `aot_eager` passes.

Each run of `make test` takes the first sample of each module, several modules to a graph, but of
those that compile for long; `make test-all` every sample in every mode, and the other dtypes.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("expecttest")  # torch.testing's module database imports it
from modules import MODULES, WITHOUT, cases, together, wrong
from opinfo import failures

TOGETHER = 8
LONG = {"nn.Transformer", "nn.TransformerDecoder", "nn.TransformerEncoder"}
GROUPS = [MODULES[k : k + TOGETHER] for k in range(0, len(MODULES), TOGETHER)]


def test_every_module_has_samples():
    names = {f"nn.{n}" for n in torch.nn.modules.__all__ if n not in WITHOUT}
    assert names <= set(MODULES), names - set(MODULES)
    for name in MODULES:
        assert cases(name, "train", torch.float32, first=True), name


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}-{names[-1]}")
def test_first_samples(names):
    """Results, gradients and buffers in training."""
    quick = [n for n in names if n not in LONG]
    firsts = [c for n in quick for c in cases(n, "train", torch.float32, first=True)]
    found = failures(firsts, True, TOGETHER, together)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_all_samples(name):
    found = wrong(name, torch.float32)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}-{names[-1]}")
def test_dtypes(names, dtype):
    """The first sample of each module, in each mode."""
    found = [text for n in names for text in wrong(n, dtype, first=True)]
    assert not found, "\n".join(found)
