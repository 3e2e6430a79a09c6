"""The calls of one compiled graph: which weights its program is prepared for, and which are inputs.

Nothing here knows how programs are made: `Find` gives one for the weights that are to be hoisted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from . import compat
from .fast_path import Parts
from .ir import FOREIGN, Program
from .programs import Kept, Value
from .runtime.weights import WeightSets
from .target import Executable, Target

log = logging.getLogger("sol_dynamo")
Strides = Sequence[tuple[int, ...] | None]


class Unfit(Exception):
    """A program was called with weights of other shapes or dtypes than it was made for: Dynamo's
    guards keep that out, who calls past them must expect it."""


class Found(NamedTuple):
    """What a graph became, and what that is kept under; None if it is not."""

    kept: Kept
    name: str | None = None


# (the inputs that are hoisted, the strides of outputs or None): the graph compiled so
Find = Callable[[Sequence[int], "Strides | None"], Found]


@dataclass(frozen=True)
class Graph:
    """What a runner has to know of a graph."""

    values: Sequence[Any]  # its inputs, fake
    static: frozenset[int]  # those that belong to the model, and that the target can take
    constants: Sequence[tuple[int, Any]] = ()  # outputs that are no tensors, by position
    updates: Sequence[tuple[int, int]] = ()  # outputs that are to be copied to inputs


@dataclass
class Compiled:
    """A graph as native code."""

    program: Program
    sources: dict[str, str]
    executable: Executable
    sets: WeightSets


class Runner:
    """The boxed callable of a compiled graph: takes a list of inputs and clears it.

    A weight that keeps changing (a KV cache, training) becomes an ordinary input: the graph is
    built again without hoisting it.
    """

    def __init__(
        self,
        graph: Graph,
        weights: frozenset[int],
        find: Find,
        target: Target,
        limit: int,
        output_strides: Strides | None = None,
        demotes: bool = True,
    ):
        """`weights`: the inputs that are hoisted, of which `limit` sets are kept prepared.
        `output_strides` as in `fx_passes.run`: those that were free are fixed from then on.
        `demotes`: weights that keep changing become inputs."""
        self._boxed_call = True  # in the instance: torch wraps backward graphs and copies its dict
        self._find, self._target, self._limit = find, target, limit
        self.graph = graph
        self._weights = weights
        self.output_strides = output_strides
        self._lock = threading.Lock()
        self._demotes = demotes
        self.noting, self.noted = False, (0, list[int](), list[int]())  # see `fast_path.Inner`
        self._build()

    def _build(self) -> None:
        weights = sorted(self._weights)
        kept, self.name = self._find(weights, self.output_strides)
        made = self._loaded(kept, weights)
        inputs = [i for kind, i in kept.given if kind == "input"]
        rest = sorted(self.graph.static - self._weights)
        traced = [Value.of(self.graph.values[i]) for i in rest]
        self._unhoisted = (
            rest,
            traced,
            compat.Layouts([(v.shape, v.strides, v.dtype) for v in traced]),
        )
        self._now = made.executable, made.sets, inputs  # in one step: other threads may be calling
        plain = not (rest or self.graph.constants or self.graph.updates)
        self.parts = Parts(made.executable, made.sets, inputs) if plain else None
        self.compiled = made
        results = (None if o is None else made.program.buffers[o] for o in made.program.outputs)
        self.output_strides = [
            None if b is None or b.dtype == FOREIGN else tuple(b.strides) for b in results
        ]

    def _loaded(self, kept: Kept, weights: Sequence[int]) -> Compiled:
        """A program as native code, with no set of weights yet."""
        executable = self._target.build(kept.sources, kept.program)
        given = [self.graph.values[i] for i in weights]
        chosen = [j for kind, j in kept.given if kind == "weight"]

        def prepare(weights: list[torch.Tensor]) -> list[torch.Tensor]:
            laid = [_laid_out(t, Value.of(v)) for t, v in zip(weights, given, strict=True)]
            made = kept.weights(*laid)
            taken = zip(chosen, kept.traced, strict=True)
            return executable.prepare([_laid_out(made[j], v) for j, v in taken])

        sets = WeightSets(prepare, self._limit, weights)
        return Compiled(kept.program, kept.sources, executable, sets)

    @property
    def unstable(self) -> set[int]:
        """Hoisted inputs that should rather not be."""
        found = [*self._now[1].unstable]  # in one step: other threads may add to them
        weights = sorted(self._weights) if found else []
        return {weights[i] for i in found}

    def __call__(self, args: list[Any]) -> list[Any]:
        executable, sets, wanted = self._now
        rest, traced, layouts = self._unhoisted
        if not layouts.fit([args[i] for i in rest]):
            for i, v in zip(rest, traced, strict=True):
                args[i] = _laid_out(args[i], v)
        prepared = sets.get(args)
        if sets.unstable and self._demotes:
            self._demote(sets)
        inputs = [args[i] for i in wanted]
        updated = [args[i] for _, i in self.graph.updates]
        given = len(args)
        args.clear()
        results = executable(inputs, prepared)
        if updated:
            self._update(updated, results)
        for k, value in self.graph.constants:
            results[k] = value
        if self.noting:
            self.noted = given, [*map(id, inputs)], [*map(id, results)]
        return results

    def _update(self, inputs: list[torch.Tensor], results: list[Any]) -> None:
        """Copy results to inputs, all of a dtype at once; they are given as the inputs' memory."""
        of_dtype: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for (k, _), x in zip(self.graph.updates, inputs, strict=True):
            places, values = of_dtype.setdefault(x.dtype, ([], []))
            places.append(x)
            values.append(results[k])
        for places, values in of_dtype.values():
            compat.copy_all(places, values)
        for (k, _), x in zip(self.graph.updates, inputs, strict=True):
            results[k] = compat.part_of(x, tuple(x.shape), x.stride(), 0)

    def _demote(self, sets: WeightSets) -> None:
        with self._lock:
            if sets is self._now[1]:
                self._keep_hoisted(self._weights - self.unstable)

    def demote(self, inputs: set[int]) -> None:
        """Have inputs that are hoisted be so no longer."""
        with self._lock:
            if inputs & self._weights:
                self._keep_hoisted(self._weights - inputs)

    def _keep_hoisted(self, weights: frozenset[int]) -> None:
        before, self._weights = self._weights, weights
        log.info("%d weights change often and are inputs from now on", len(before - weights))
        try:
            self._build()
        except Exception as e:  # the program at hand is right, and merely prepares each time
            self._weights, self._demotes = before, False
            log.warning("weights that change often stay as they are: %s", e)


def _kind(t: torch.Tensor | Value) -> tuple:
    """What a program relies on: dtype, shape, and strides where they matter."""
    v = t if isinstance(t, Value) else Value.of(t)
    empty = 0 in v.shape
    moves = tuple(s for n, s in zip(v.shape, v.strides, strict=True) if n != 1)
    return v.dtype, v.shape, () if empty else moves


def _laid_out(t: torch.Tensor, as_traced: Value) -> torch.Tensor:
    """A weight, or what was computed of weights, in the strides that it was traced with: older
    versions of torch do not guard those.

    Errors: `Unfit` for another shape or dtype.
    """
    if _kind(t) == _kind(as_traced):
        return t
    if tuple(t.shape) != as_traced.shape or t.dtype != as_traced.dtype:
        raise Unfit
    return t.new_empty_strided(as_traced.shape, as_traced.strides).copy_(t)
