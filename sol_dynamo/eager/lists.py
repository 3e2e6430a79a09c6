"""Ops of lists of tensors, as optimizers call them: a program for each element, all in one call.

    _foreach_add_([x, y], [a, b], alpha=2)  ==>  x := program(x, a, 2) beside y := other(y, b, 2)

One program of the whole list would have to be compiled for each list; elements of equal size share
a program, whatever list they are in. Tensors of an element that lie alike count as flat ones, and
beyond `pieces.PROGRAMS` sizes are walked in pieces. Elements that share memory are left to ATen,
which does one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ..config import Config
from ..forms import BY_ELEMENT, FLAT
from . import pieces
from .calls import Call, Unfit, memory, span
from .run import OneOp, beside

_programs: dict[str, OneOp] = {}


class NotYetError(Exception):
    """Sizes that come for the first time, after many others."""


class Elements:
    """A call with lists, as calls of their elements.

    Errors: `Unfit` for another call, or one whose elements share memory; `NotYetError`.
    """

    def __init__(self, call: Call, c: Config, make: Callable[[Call], OneOp]):
        """`make` gives the program of a call."""
        if call.name_of_op not in BY_ELEMENT:
            raise Unfit("no op that works tensor by tensor")
        self._parts: list[tuple[list[int], list[int], tuple[int, int] | None]] = []
        found: list[OneOp] = []
        elements = list(_elements(call))
        _check_apart(call, [tensors for _, tensors, _ in elements])
        results = 0
        for arguments, tensors, numbers in elements:
            element = Call(call.op, arguments, [*call.numbers_at])
            flat = _flattened(element) if call.name_of_op in FLAT else None
            for part, size in _sizes(flat or element, c):
                piece = (flat or element) if size is None else _piece(element, part, size)
                name = piece.name(c)
                if name not in _programs:
                    _programs[name] = make(piece)
                one = _programs[name]
                if flat is not None and size is None and not one.direct:
                    size = flat.tensors[0].numel()
                found.append(one)
                self._parts.append((tensors, numbers, None if size is None else (part, size)))
            results += sum(abs(n) for n in found[-1].counts)
        if any(n != 1 for one in found for n in one.counts):
            raise Unfit("results of another kind")
        self._run = beside(found)
        self.counts = (results,) if any(one.counts for one in found) else ()

    def __call__(self, tensors: list[torch.Tensor], numbers: list[float]) -> list[Any]:
        calls = []
        for at, numbers_at, part in self._parts:
            own = [tensors[k] for k in at]
            if part is not None:
                own = [_part(t, *part) for t in own]
            calls.append((own, [numbers[k] for k in numbers_at]))
        return [r for results in self._run(calls) for r in results]


def is_list_call(call: Call) -> bool:
    return call.name_of_op in BY_ELEMENT


def _elements(call: Call) -> Iterator[tuple[list[Any], list[int], list[int]]]:
    """For each element of a call's lists: arguments, with lists of one, and positions of its
    tensors and numbers among the call's."""
    lists = [a for a in call.arguments if _is_list(a)]
    count = len(lists[0]) if lists else 0
    if not count or any(len(a) not in (0, count) for a in lists):
        raise Unfit("lists of several lengths")
    for i in range(count):
        arguments: list[Any] = []
        tensors, numbers = [], []
        tensor = number = 0  # those before
        for k, a in enumerate(call.arguments):
            every = _is_list(a)
            own = [a[i]] if every and a else a
            arguments.append(own)
            values = a if every else [a]
            chosen = range(i, i + 1) if every else range(1)
            if k in call.numbers_at:
                numbers += [number + j for j in chosen if j < len(values)]
                number += len(values)
            else:
                tensors += [
                    tensor + sum(isinstance(v, torch.Tensor) for v in values[:j])
                    for j in chosen
                    if j < len(values) and isinstance(values[j], torch.Tensor)
                ]
                tensor += sum(isinstance(v, torch.Tensor) for v in values)
        yield arguments, tensors, numbers


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _check_apart(call: Call, elements: Sequence[Sequence[int]]) -> None:
    """Raise `Unfit` where an element stores what another one reads or stores."""
    shared: dict[int, list[tuple[int, tuple[int, int], bool]]] = {}
    written = set(call.written)
    for i, element in enumerate(elements):
        for k in element:
            t = call.tensors[k]
            if t.numel():
                shared.setdefault(memory(t), []).append((i, span(t), k in written))
    for group in shared.values():
        if not any(stores for _, _, stores in group):
            continue
        ordered = sorted(group, key=lambda x: x[1])
        for n, (i, (_, end), stores) in enumerate(ordered):
            for j, (start, _), other in ordered[n + 1 :]:
                if start >= end:
                    break
                if i != j and (stores or other):
                    raise Unfit("elements of a list that share memory")


def _flattened(element: Call) -> Call | None:
    """The same call of tensors of one dimension, where all of them lie alike."""
    whole = [t for t in element.tensors if t.dim()]
    if not whole or not pieces.alike(whole):
        return None
    return _piece(element, 0, whole[0].numel())


def _piece(element: Call, at: int, size: int) -> Call:
    def of(a: Any) -> Any:
        if _is_list(a):
            return [of(x) for x in a]
        return _part(a, at, size) if isinstance(a, torch.Tensor) else a

    return Call(element.op, [of(a) for a in element.arguments], [*element.numbers_at])


def _part(t: torch.Tensor, at: int, size: int) -> torch.Tensor:
    return t.as_strided((size,), (1,), t.storage_offset() + at) if t.dim() else t


def _sizes(element: Call, c: Config) -> Iterator[tuple[int, int | None]]:
    """First element and number of elements of each piece; (0, None) for all at once."""
    name = element.name(c)
    whole = [t for t in element.tensors if t.dim()]
    empty = bool(whole) and not whole[0].numel()
    if name in _programs or empty or pieces.wanted(element, name):
        yield 0, None
        return
    if element.name_of_op not in FLAT or not whole or not pieces.alike(whole):
        raise NotYetError
    yield from pieces.powers_of_two(whole[0].numel())
