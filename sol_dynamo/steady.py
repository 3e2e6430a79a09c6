"""A graph's calls that are like the one before but for their inputs, past what finds that out anew.

Dynamo's guards have passed when it calls. What is left to look at is where the weights are and
whether they have changed: one native call, from the modules that Dynamo passes to the versions of
the tensors (`Fetch.settled`). AOTAutograd's wrappers are left out, too, where they were seen to do
nothing: for a graph without gradients whose program got what they were given, and gave what they
returned. All else, and any call that differs in more, goes the long way, and is looked at for later
ones when the weights were those of the call before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import ref

import torch

from .compat import Way
from .runtime.modules import Fetch, Member
from .runtime.weights import Entry, WeightSets
from .target import Executable

PATIENCE = 8  # times in vain
Call = Callable[[tuple[Any, ...]], "list[Any] | None"]


@dataclass(frozen=True)
class Parts:
    """What a graph's call consists of."""

    executable: Executable
    sets: WeightSets
    inputs: Sequence[int]  # which of the graph's arguments the program takes, beside weights


class Program(Protocol):
    """What calls the program of a graph."""

    @property
    def parts(self) -> Parts | None:
        """None for a call that takes more."""

    @property
    def last(self) -> tuple[int, list[int], list[int]]:
        """The call before: how many arguments it had, the ids of those that the program took, and
        of what it returned."""


def calls(
    run: Callable, places: Sequence[tuple[int, Way]], program: Program | None = None
) -> Callable:
    """`run`, called with modules instead of what is fetched from them (`compat.pass_modules`); or
    as it is, with all of its arguments. `program`: what `run` comes to, if it has no gradients."""
    fetch = Fetch([Member(argument, way) for argument, way in places])
    shortest: Call | None = None
    before: ref[Entry] | None = None  # the weights of the last call that went the long way
    vain = 0  # times that a shorter way was looked for in a row, and none that was taken was found

    def call(*args: Any) -> Any:
        nonlocal shortest, before, vain
        if shortest is not None and (made := shortest(args)) is not None:
            vain = 0
            return made
        given = args if len(args) == len(places) else fetch(args)
        results = run(*given)
        if program is not None and vain < PATIENCE and (parts := program.parts) is not None:
            entry, shortest = parts.sets.last, None
            if entry is not None:
                if before is not None and before() is entry:
                    vain += 1
                    shortest = _shortest(program, parts, entry, fetch, places, args, given, results)
                before = ref(entry)  # a prepared weight's memory goes with the weight
        return results

    return call


def _shortest(
    program: Program,
    parts: Parts,
    entry: Entry,
    fetch: Fetch,
    places: Sequence[tuple[int, Way]],
    args: tuple[Any, ...],
    given: Sequence[Any],
    results: Sequence[Any],
) -> Call | None:
    """What to do for calls like one that has just been made with these arguments, if that is all
    that is to be done."""
    took = [given[i] for i in parts.inputs], results
    if program.last != (len(given), *([*map(id, values)] for values in took)):
        return None  # something is done before it, or behind
    if any(places[i][1] for i in parts.inputs):  # an input that a module holds
        return None
    settled = fetch.settled(args, entry.snapshot)
    if settled is None:
        return None
    inputs = [places[i][0] for i in parts.inputs]
    sets, again, weak = parts.sets, parts.executable.again, ref(entry)

    def call(args: tuple[Any, ...]) -> list[Any] | None:
        entry = weak()
        if entry is None or sets.last is not entry:
            return None
        if torch.is_grad_enabled() or not settled(args):
            return None
        return again([args[i] for i in inputs], entry.prepared)

    return call
