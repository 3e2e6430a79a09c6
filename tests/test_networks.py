"""The six networks: within the contract, in one native call, without ATen."""

from __future__ import annotations

import copy

import pytest
import torch
from accuracy import check

from sol_dynamo.backend import sol
from sol_dynamo.report import report

NETWORKS = [
    "resnet50",
    "densenet121",
    "densenet201",
    "mobilenet_v2",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
]


def network(name: str) -> torch.nn.Module:
    """A torchvision network with random batch-norm statistics."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    m = getattr(models, name)(weights=None).eval()
    for b in m.modules():
        if isinstance(b, torch.nn.BatchNorm2d):
            b.running_mean.normal_(0, 0.1)
            b.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(b.weight, 0.5, 1.5)
            torch.nn.init.normal_(b.bias, 0, 0.1)
    return m


def whole(name: str, batch: int, size: int) -> None:
    m = network(name)
    x = torch.rand(batch, 3, size, size)
    check(m, copy.deepcopy(m).double(), x)
    r = report(sol.graphs[-1].compiled.program)
    assert not r.aten_calls
    assert r.native_calls == 1
    moving = [k for k in r.kernels if k.note]
    assert all(k.note.startswith("moves data: ") for k in moving)
    print(f"{name}, batch {batch}: {len(r.kernels)} kernels", *(k.note for k in moving), sep="\n  ")


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, batch):
    whole(name, batch, 64)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_at_full_size(name, batch):
    whole(name, batch, 224)
