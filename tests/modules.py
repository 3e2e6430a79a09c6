"""PyTorch's own samples of every module of torch.nn, compiled by us: forward, gradients, buffers.

`failures(cases(...))` as in `opinfo`, which runs and compares them; here is how a module and its
samples become functions of tensors, and what PyTorch's database leaves out.

    python -m tests.modules [-k name,...] [--first]    # a table of all modules, what fails and why
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_flatten, tree_unflatten

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
from opinfo import Case, failures

MODES = {  # training, gradients
    "train": (True, True), "eval": (False, True), "inference": (False, False),
}  # fmt: skip
Sample = tuple[Callable[[], nn.Module], tuple]  # a module and what it is called with
normal = torch.randn

# modules that the database has no samples of
OTHERS: dict[str, Callable[[], list[Sample]]] = {
    "nn.AdaptiveLogSoftmaxWithLoss": lambda: [
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4, 8]), (normal(6, 8), torch.arange(6) * 2)),
    ],
    "nn.AlphaDropout": lambda: [(nn.AlphaDropout, (normal(5, 7),))],
    "nn.ChannelShuffle": lambda: [(lambda: nn.ChannelShuffle(3), (normal(2, 6, 3, 5),))],
    "nn.CosineSimilarity": lambda: [
        (nn.CosineSimilarity, (normal(5, 7), normal(5, 7))),
        (lambda: nn.CosineSimilarity(-1), (normal(3, 1, 7), normal(5, 7))),
    ],
    "nn.CrossMapLRN2d": lambda: [(lambda: nn.CrossMapLRN2d(3), (normal(2, 6, 3, 5),))],
    "nn.Dropout": lambda: [
        (nn.Dropout, (normal(5, 7),)), (lambda: nn.Dropout(0.3, inplace=True), (normal(5, 7),)),
        (lambda: nn.Dropout(0.0), (normal(5, 7),)), (lambda: nn.Dropout(1.0), (normal(5, 7),)),
    ],
    "nn.Dropout1d": lambda: [(nn.Dropout1d, (normal(2, 5, 7),))],
    "nn.Dropout2d": lambda: [(nn.Dropout2d, (normal(2, 5, 3, 4),))],
    "nn.Dropout3d": lambda: [(nn.Dropout3d, (normal(2, 5, 2, 3, 4),))],
    "nn.EmbeddingBag": lambda: [
        (lambda mode=mode: nn.EmbeddingBag(9, 5, mode=mode), (torch.randint(9, (3, 4)),))
        for mode in ("sum", "mean", "max")
    ] + [
        (
            lambda: nn.EmbeddingBag(9, 5, padding_idx=2),
            (torch.randint(9, (11,)), torch.tensor([0, 3, 3])),
        ),
        (
            lambda: nn.EmbeddingBag(9, 5, mode="sum", include_last_offset=True),
            (torch.randint(9, (11,)), torch.tensor([0, 3, 3, 11]), normal(11)),
        ),
    ],
    "nn.FeatureAlphaDropout": lambda: [(nn.FeatureAlphaDropout, (normal(2, 5, 7),))],
    "nn.Flatten": lambda: [
        (nn.Flatten, (normal(2, 3, 4),)), (lambda: nn.Flatten(0, 1), (normal(2, 3, 4).mT,)),
    ],
    "nn.Fold": lambda: [
        (lambda: nn.Fold((5, 6), 3, padding=1, stride=2), (normal(2, 18, 9),)),
        (lambda: nn.Fold((5, 6), (2, 3), dilation=(2, 1)), (normal(12, 12),)),
    ],
    "nn.Hardsigmoid": lambda: [(nn.Hardsigmoid, (normal(5, 7) * 4,))],
    "nn.Identity": lambda: [(nn.Identity, (normal(5, 7),))],
    "nn.LazyBatchNorm1d": lambda: [(nn.LazyBatchNorm1d, (normal(4, 5, 7),))],
    "nn.LazyBatchNorm2d": lambda: [(nn.LazyBatchNorm2d, (normal(4, 5, 3, 2),))],
    "nn.LazyBatchNorm3d": lambda: [(nn.LazyBatchNorm3d, (normal(4, 5, 3, 2, 2),))],
    "nn.LazyInstanceNorm1d": lambda: [(nn.LazyInstanceNorm1d, (normal(4, 5, 7),))],
    "nn.LazyInstanceNorm2d": lambda: [(nn.LazyInstanceNorm2d, (normal(4, 5, 3, 2),))],
    "nn.LazyInstanceNorm3d": lambda: [(nn.LazyInstanceNorm3d, (normal(4, 5, 3, 2, 2),))],
    "nn.LazyLinear": lambda: [(lambda: nn.LazyLinear(5), (normal(4, 7),))],
    "nn.MaxUnpool1d": lambda: [
        (lambda: nn.MaxUnpool1d(2), nn.MaxPool1d(2, return_indices=True)(normal(2, 3, 8))),
    ],
    "nn.MaxUnpool2d": lambda: [
        (lambda: nn.MaxUnpool2d(2), nn.MaxPool2d(2, return_indices=True)(normal(2, 3, 8, 6))),
    ],
    "nn.MaxUnpool3d": lambda: [
        (lambda: nn.MaxUnpool3d(2), nn.MaxPool3d(2, return_indices=True)(normal(2, 3, 4, 4, 6))),
    ],
    "nn.PairwiseDistance": lambda: [
        (nn.PairwiseDistance, (normal(5, 7), normal(5, 7))),
        (lambda: nn.PairwiseDistance(1, keepdim=True), (normal(5, 7), normal(7))),
    ],
    "nn.PixelShuffle": lambda: [(lambda: nn.PixelShuffle(2), (normal(2, 8, 3, 5),))],
    "nn.PixelUnshuffle": lambda: [(lambda: nn.PixelUnshuffle(2), (normal(2, 3, 4, 6),))],
    "nn.RReLU": lambda: [(nn.RReLU, (normal(5, 7),))],
    "nn.TripletMarginLoss": lambda: [
        (nn.TripletMarginLoss, (normal(5, 7), normal(5, 7), normal(5, 7))),
        (lambda: nn.TripletMarginLoss(swap=True), (normal(5, 7), normal(5, 7), normal(5, 7))),
    ],
    "nn.TripletMarginWithDistanceLoss": lambda: [
        (nn.TripletMarginWithDistanceLoss, (normal(5, 7), normal(5, 7), normal(5, 7))),
    ],
    "nn.TransformerDecoder": lambda: [
        (
            lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, 0.0), 2),
            (normal(3, 2, 8), normal(4, 2, 8)),
        ),
    ],
    "nn.Unflatten": lambda: [(lambda: nn.Unflatten(1, (2, 3)), (normal(4, 6),))],
    "nn.Unfold": lambda: [
        (lambda: nn.Unfold(3, padding=1, stride=2), (normal(2, 3, 5, 6),)),
        (lambda: nn.Unfold((2, 3), dilation=(2, 1)), (normal(2, 3, 5, 6),)),
    ],
    "nn.Upsample": lambda: [
        (lambda mode=mode: nn.Upsample(scale_factor=1.7, mode=mode), (normal(2, 3, 5, 6),))
        for mode in ("nearest", "bilinear", "bicubic")
    ] + [(lambda: nn.Upsample((7, 4), mode="bilinear", align_corners=True), (normal(2, 3, 5, 6),))],
    "nn.UpsamplingBilinear2d": lambda: [
        (lambda: nn.UpsamplingBilinear2d(scale_factor=2), (normal(2, 3, 5, 6),)),
    ],
    "nn.UpsamplingNearest2d": lambda: [
        (lambda: nn.UpsamplingNearest2d(scale_factor=2), (normal(2, 3, 5, 6),)),
    ],
    "nn.ZeroPad2d": lambda: [(lambda: nn.ZeroPad2d((1, -1, 0, 2)), (normal(2, 3, 5, 6),))],
}  # fmt: skip
# containers and bases have no samples; a process group is no part of a single process
WITHOUT = {
    "Container", "Module", "ModuleDict", "ModuleList", "NLLLoss2d", "ParameterDict",
    "ParameterList", "Sequential", "SyncBatchNorm", "RNNBase", "RNNCellBase",
    "LinearCrossEntropyOptions",
}  # fmt: skip
INFOS = {m.name: m for m in module_db}
MODULES = sorted({*INFOS, *OTHERS})


class Called(nn.Module):
    """A module with everything it is called with but tensors."""

    def __init__(self, module: nn.Module, leaves: list[Any], tree: Any, at: list[int]):
        super().__init__()
        self.module, self._leaves, self._tree, self._at = module, leaves, tree, at

    def forward(self, *tensors: torch.Tensor) -> Any:
        values = list(self._leaves)
        for i, t in zip(self._at, tensors, strict=True):
            values[i] = t
        args, kwargs = tree_unflatten(values, self._tree)
        return self.module(*args, **kwargs)


class Together(nn.Module):
    """Several modules as one."""

    def __init__(self, many: list[Case]):
        super().__init__()
        self._counts = [len(c.tensors) for c in many]
        self.parts = nn.ModuleList([c.f for c in many])

    def forward(self, *tensors: torch.Tensor) -> Any:
        found, start = [], 0
        for f, count in zip(self.parts, self._counts, strict=True):
            found.append(f(*tensors[start : start + count]))
            start += count
        return found


def cases(name: str, mode: str, dtype: torch.dtype, first: bool = False) -> list[Case]:
    """The samples of a module; the first alone."""
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, (module, args, kwargs) in enumerate(_samples(name, mode, dtype)):
            module.train(MODES[mode][0])
            leaves, tree = tree_flatten((args, kwargs))
            at = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
            rest = [None if i in at else x for i, x in enumerate(leaves)]
            f = Called(module, rest, tree, at)
            made.append(Case(f"{name} {mode} {k}", f, [leaves[i] for i in at], precise=True))
            if first:
                break
    return made


def _samples(name: str, mode: str, dtype: torch.dtype) -> Iterator[tuple[nn.Module, Any, Any]]:
    training, grad = MODES[mode]
    torch.manual_seed(0)
    if name in INFOS:
        info = INFOS[name]
        if dtype not in info.supported_dtypes("cpu") and dtype.itemsize > 2:
            return
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=grad, training=training
        )
        for x in inputs:
            module = info.module_cls(*x.constructor_input.args, **x.constructor_input.kwargs)
            args, kwargs = x.forward_input.args, x.forward_input.kwargs
            yield _known(module.to(dtype), args, kwargs), args, kwargs
    if name in OTHERS:
        for make, args in OTHERS[name]():
            args = tuple(a.detach().to(dtype) if a.is_floating_point() else a for a in args)
            for a in args:
                a.requires_grad_(grad and a.is_floating_point())
            yield _known(make().to(dtype), args, {}), args, {}


def _known(module: nn.Module, args: Any, kwargs: Any) -> nn.Module:
    """A lazy module with the sizes that its first call gives it."""
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        with torch.no_grad():
            module(*args, **kwargs)
    return module


def together(many: list[Case]) -> Case:
    return Case(many[0].name, Together(many), [t for c in many for t in c.tensors], precise=True)


def wrong(name: str, dtype: torch.dtype, first: bool = False) -> list[str]:
    """What is wrong with a module in any mode."""
    return [
        text
        for mode, (_, grad) in MODES.items()
        for text in failures(cases(name, mode, dtype, first), grad, 16, together)
    ]


def main() -> None:
    p = argparse.ArgumentParser(description="torch.nn's modules compiled by us, against eager.")
    p.add_argument("-k", default="", help="only modules with one of these in their names")
    p.add_argument("--first", action="store_true", help="the first sample of each only")
    p.add_argument("--dtype", default="float32", help="by default float32")
    options = p.parse_args()
    wanted = [n for n in MODULES if any(w in n.lower() for w in options.k.lower().split(","))]
    dtype, total, bad = getattr(torch, options.dtype), 0, 0
    for name in wanted:
        samples = len(cases(name, "train", dtype, options.first))
        found = wrong(name, dtype, options.first)
        total, bad = total + samples, bad + bool(found)
        print(f"{name:36} {samples:4} samples  {len(found):3} wrong", flush=True)
        for text in found:
            print(f"    {text}", flush=True)
    print(f"{len(wanted)} modules, {total} samples in {len(MODES)} modes; {bad} modules wrong")


if __name__ == "__main__":
    main()
