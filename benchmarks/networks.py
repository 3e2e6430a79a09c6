"""Networks to measure with, and how far a result is from float64.

Weights are seeded and batch norms get statistics that are not the identity, so that nothing folds
away that a trained network would keep. Networks of torchvision that map one image tensor to one
tensor: classification, and segmentation by its main output.
"""

from __future__ import annotations

import copy
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torchvision import models

ULPS = 2.4e-7  # two units in the last place of float32


class MainOutput(nn.Module):
    """A segmentation network as one tensor -> one tensor."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)["out"]


def network(name: str, seed: int = 0) -> nn.Module:
    """A torchvision network in eval mode with seeded weights and batch-norm statistics.

    Errors: `ValueError` for an unknown name, with the nearest valid one.
    """
    known = models.list_models(module=models) + models.list_models(module=models.segmentation)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise ValueError(
            f"unknown network {name!r}{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(seed)
    segmentation = name in models.list_models(module=models.segmentation)
    extra = {"weights_backbone": None} if segmentation else quick
    model = models.get_model(name, weights=None, **extra)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.1)
        if isinstance(m, nn.Linear) and not m.weight.any():  # as vision transformers' heads begin
            nn.init.normal_(m.weight, 0, 0.02)
    return (MainOutput(model) if segmentation else model).eval()


def training(model: nn.Module) -> nn.Module:
    """A model in training mode without dropout: float64's masks are others than float32's."""
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return model.train()


def images(batch: int, size: int = 224, seed: int = 1) -> Tensor:
    """A float32 batch (batch, 3, size, size) in [0, 1)."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def exact(model: nn.Module, x: Tensor) -> Tensor:
    """Eager's result in float64."""
    return copy.deepcopy(model).double()(x.double())


def relative_rms(y: Tensor, reference: Tensor) -> float:
    """Root mean square of the error over that of the float64 reference."""
    difference = y.detach().double() - reference
    return float(difference.square().mean().sqrt() / reference.square().mean().sqrt())


def allowed(eager_error: float) -> float:
    """The accuracy contract: at most twice eager's own error plus two units in the last place."""
    return 2 * eager_error + ULPS
