"""The fast path of a graph's calls: for those that are like the one before but for their inputs.

Dynamo's guards have passed when it calls. What is left to look at is where the weights are and
whether they have changed: from the modules that Dynamo passes to the versions of the tensors. That
and the program are one native call (`runtime.steady`). AOTAutograd's wrappers are left out, too,
where a call showed that they do nothing: for a graph without gradients whose program got the very
objects that were fetched and gave the very ones that were returned, and which left the grad mode as
it was. All else, and any call that differs in more, takes the slow path; a fast one is looked for
when the weights were those of the call before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import ref

import torch

from .compat import Member
from .runtime import steady
from .runtime.modules import Fetch
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

    noting: bool

    @property
    def parts(self) -> Parts | None:
        """None for a call that takes more."""

    @property
    def noted(self) -> tuple[int, list[int], list[int]]:
        """The last call, if it is noting: how many arguments it had, the ids of those that the
        program took, and of what it returned."""


def calls(run: Callable, members: Sequence[Member], inner: Inner | None = None) -> Callable:
    """`run`, called with modules instead of what is fetched from them (`compat.pass_modules`); or
    with all of its arguments, by who kept what the backend returned. `inner`: what `run` comes to,
    if it has no gradients."""
    fetch = Fetch(members)
    fast: Call | None = None
    before: ref[Entry] | None = None  # the weights of the last call by the slow path
    vain = 0  # times in a row that a fast path was looked for, and none was found that was taken
    if inner is not None:
        inner.noting = True

    def call(*args: Any) -> Any:
        nonlocal fast, before, vain
        known = fast  # which another thread may be replacing
        if known is not None:
            if (made := known(args)) is not None:
                vain = 0
                return made
            if vain >= PATIENCE:
                fast = None
        given = args if len(args) == len(members) else fetch(args)
        grad = torch.is_grad_enabled()
        results = run(*given)
        parts = None if inner is None or vain >= PATIENCE else inner.parts
        if parts is not None and not grad and not torch.is_grad_enabled():
            entry, found, was = parts.sets.last, None, before
            if entry is not None:
                if was is not None and was() is entry:
                    vain += 1
                    found = search(parts, entry, args, given, results)
                before = ref(entry)  # a prepared weight's memory goes with the weight
            fast = found
        return results

    def search(
        parts: Parts, entry: Entry, args: tuple[Any, ...], given: Sequence[Any], results: Any
    ) -> Call | None:
        """The fast path of calls like one that has just been made, if there is one."""
        took = [given[i] for i in parts.inputs], results
        assert inner is not None
        if inner.noted != (len(given), *([*map(id, values)] for values in took)):
            return None  # something is done before it, or behind
        if any(members[i].way for i in parts.inputs):  # an input that a module holds
            return None
        guard = fetch.guard(args, entry.snapshot)
        if guard is None:
            return None
        inputs = [members[i].argument for i in parts.inputs]
        return steady.call(guard, parts.sets, entry, parts.executable, inputs)

    return call
