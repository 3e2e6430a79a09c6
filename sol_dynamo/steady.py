"""A graph's calls that are like the one before but for their inputs, past what finds that out anew.

Dynamo's guards have passed when it calls. What is left to look at is where the weights are and
whether they have changed: one native call, from the modules that Dynamo passes to the versions of
the tensors (`Fetch.settled`). AOTAutograd's wrappers are left out, too, where a call showed that
they do nothing: for a graph without gradients whose program got the very objects that were fetched
and gave the very ones that were returned, and which left the grad mode as it was. All else, and any
call that differs in more, goes the long way, and is looked at for later ones when the weights were
those of the call before.
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


class Inner(Protocol):
    """What AOTAutograd's wrappers are around."""

    @property
    def parts(self) -> Parts | None:
        """None for a call that takes more."""

    @property
    def last(self) -> tuple[int, list[int], list[int]]:
        """The call before: how many arguments it had, the ids of those that the program took, and
        of what it returned."""


def calls(run: Callable, places: Sequence[tuple[int, Way]], inner: Inner | None = None) -> Callable:
    """`run`, called with modules instead of what is fetched from them (`compat.pass_modules`); or
    with all of its arguments, by who kept what the backend returned. `inner`: what `run` comes to,
    if it has no gradients."""
    fetch = Fetch([Member(argument, way) for argument, way in places])
    shortest: Call | None = None
    before: ref[Entry] | None = None  # the weights of the last call that went the long way
    vain = 0  # times that a shorter way was looked for in a row, and none that was taken was found

    def call(*args: Any) -> Any:
        nonlocal shortest, before, vain
        known = shortest  # which another thread may be replacing
        if known is not None and (made := known(args)) is not None:
            vain = 0
            return made
        given = args if len(args) == len(places) else fetch(args)
        grad = torch.is_grad_enabled()
        results = run(*given)
        parts = None if inner is None or vain == PATIENCE else inner.parts
        if parts is not None and not grad and not torch.is_grad_enabled():
            entry, found, was = parts.sets.last, None, before
            if entry is not None:
                if was is not None and was() is entry:
                    vain += 1
                    found = shorter(parts, entry, args, given, results)
                before = ref(entry)  # a prepared weight's memory goes with the weight
            shortest = found
        return results

    def shorter(
        parts: Parts, entry: Entry, args: tuple[Any, ...], given: Sequence[Any], results: Any
    ) -> Call | None:
        """What there is to do for calls like one that has just been made, if that is all."""
        took = [given[i] for i in parts.inputs], results
        assert inner is not None
        if inner.last != (len(given), *([*map(id, values)] for values in took)):
            return None  # something is done before it, or behind
        if any(places[i][1] for i in parts.inputs):  # an input that a module holds
            return None
        settled = fetch.settled(args, entry.snapshot)
        return None if settled is None else _call(parts, entry, settled, places)

    return call


def _call(
    parts: Parts,
    entry: Entry,
    settled: Callable[[tuple[Any, ...]], bool],
    places: Sequence[tuple[int, Way]],
) -> Call:
    """A call with the weights of an entry, None when they are not settled."""
    inputs = [places[i][0] for i in parts.inputs]
    sets, again, weak = parts.sets, parts.executable.again, ref(entry)

    def call(args: tuple[Any, ...]) -> list[Any] | None:
        entry = weak()  # `settled` reads its snapshot, which lives as long
        if entry is None or sets.last is not entry:
            return None
        if torch.is_grad_enabled() or not settled(args):
            return None
        return again([args[i] for i in inputs], entry.prepared)

    return call
