"""A compiled call: what is kept of it on disk, and how it runs."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import compat, programs
from ..target import Target
from .trace import Input

NUMBERS = 1024  # numbers of calls that stay on the device, the latest


@dataclass(frozen=True)
class Write:
    """What one of the call's tensors becomes: an output of the program, which may store it right
    there if `direct`; a tensor of another size takes on shape and strides before."""

    tensor: int
    output: int
    direct: bool
    resized: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Plan:
    """A compiled call, as it is kept on disk."""

    kept: programs.Kept
    inputs: tuple[Input, ...]
    results: tuple[int | None, ...]  # outputs of the program; None for one that is left out
    writes: tuple[Write, ...]
    counts: tuple[int, ...]  # of how many tensors each result of the op consists; -1: it is one


class OneOp:
    """The program of a call, as a function of its tensors and numbers. Gives the results that are
    no arguments."""

    def __init__(self, plan: Plan, target: Target, device: torch.device):
        self._executable = target.build(plan.kept.sources, plan.kept.program)
        self._prepared = self._executable.prepare(_constants(plan.kept))
        self._device = device
        self.counts = plan.counts
        self._inputs = [
            (i.tensor, i.number, i.dtype)
            for kind, j in plan.kept.given
            if kind == "input"
            for i in (plan.inputs[j],)
        ]
        self._results, self._writes = plan.results, plan.writes
        self._direct = [(w.output, w.tensor) for w in plan.writes if w.direct]
        self.direct = all(w.direct for w in plan.writes)  # nothing that it stores is copied
        self._resized = [(w.tensor, *w.resized) for w in plan.writes if w.resized]

    def __call__(self, tensors: list[torch.Tensor], numbers: list[float]) -> list[Any]:
        made = self._executable(*self.begin(tensors, numbers))
        for place, value in self.copies(tensors, made):
            place.copy_(value)
        return self.results(made)

    def begin(
        self, tensors: list[torch.Tensor], numbers: list[float]
    ) -> tuple[list[Any], list[Any], dict[int, torch.Tensor]]:
        """What the program is called with."""
        device = self._device
        given = []
        for k, number, dtype in self._inputs:
            if k < 0:
                given.append(_number(numbers[number], dtype, device))
            else:
                t = tensors[k]
                given.append(t if t.device == device else t.to(device))
        for k, shape, strides in self._resized:
            _resize(tensors[k], shape, strides)
        return given, self._prepared, {output: tensors[k] for output, k in self._direct}

    def copies(self, tensors: list[torch.Tensor], made: list[Any]) -> list[tuple]:
        """Where to put what the program gave and could not store there itself, and what."""
        every = ((tensors[w.tensor], made[w.output]) for w in self._writes)
        return [(place, value) for place, value in every if value is not place]

    def results(self, made: list[Any]) -> list[Any]:
        """The call's results, from what the program gave."""
        return [None if r is None else made[r] for r in self._results]


def beside(programs: Sequence[OneOp]) -> Callable[[list[tuple]], list[list[Any]]]:
    """Programs that know nothing of each other, as one function of tensors and numbers of each."""
    run = programs[0]._executable.beside([p._executable for p in programs[1:]])

    def call(calls: list[tuple]) -> list[list[Any]]:
        every = run([p.begin(*c) for p, c in zip(programs, calls, strict=True)])
        made = [*zip(programs, calls, every, strict=True)]
        copies = [pair for p, c, m in made for pair in p.copies(c[0], m)]
        compat.copy_all([place for place, _ in copies], [value for _, value in copies])
        return [p.results(m) for p, _, m in made]

    return call


def _constants(kept: programs.Kept) -> list[torch.Tensor]:
    """What the program reads that depends on no argument, computed once."""
    chosen = [j for kind, j in kept.given if kind == "weight"]
    made = kept.weights() if chosen else ()
    found = []
    for j, v in zip(chosen, kept.traced, strict=True):
        t = made[j]
        if t.stride() != v.strides:
            t = t.new_empty_strided(v.shape, v.strides).copy_(t)
        found.append(t)
    return found


def _resize(t: torch.Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """As eager does with an argument `out`; it warns of one that is not empty."""
    if t.numel():
        warnings.warn(
            f"An output with one or more elements was resized since it had shape {list(t.shape)},"
            f" which does not match the required output shape {list(shape)}. This behavior is"
            " deprecated, and in a future PyTorch release outputs will not be resized unless they"
            " have zero elements.",
            stacklevel=2,
        )
    t.resize_(shape)
    if t.stride() != strides:
        t.as_strided_(shape, strides)


_numbers: OrderedDict[tuple, torch.Tensor] = OrderedDict()


def _number(value: float, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
    """A number on the device."""
    key = value, dtype, device
    found = _numbers.get(key)
    if found is None:
        found = _numbers[key] = torch.full((), value, dtype=dtype, device=device)
        while len(_numbers) > NUMBERS:
            _numbers.popitem(last=False)
    return found
