"""Sizes that come once: what to do where calls of one kind have ever other sizes.

    f(x[1000]), f(x[1001]), ...  ==>  f(x[0:512]), f(x[512:768]), f(x[768:896]), ...

A program is for the sizes that it was made for, and takes a tenth of a second to make. After
`PROGRAMS` of a kind, an op that works element by element on tensors that lie alike runs in pieces
whose sizes are powers of two: some twenty programs then serve all sizes. Other ops get a program
when the same sizes come a second time, and run on the CPU until then, so that a growing cache costs
no compiler for each of its lengths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .calls import Call, Unfit
from .trace import functional

PROGRAMS = 64
SEEN = 4096  # calls remembered of those that came once

_programs: Counter[tuple] = Counter()
_seen: dict[tuple, None] = {}
_pieces: dict[tuple, Any] = {}


def kind(call: Call) -> tuple:
    """What calls have in common that differ in sizes and numbers only."""
    tensors = tuple((t.dtype, t.dim(), t.device.type) for t in call.tensors)
    shown = tuple(_kind(a) for a in call.arguments)
    return call.name_of_op, tensors, shown, tuple(call.numbers_at)


def _kind(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return type(value) if isinstance(value, (torch.Tensor, int, float)) else value


def wanted(call: Call, name: str) -> bool:
    """Whether a call, known by a name, is to have a program of its own; counts those that have."""
    k = kind(call)
    if _programs[k] >= PROGRAMS:
        first = (*k, name) not in _seen
        if first:
            _seen[(*k, name)] = None
            while len(_seen) > SEEN:
                del _seen[next(iter(_seen))]
            return False
        del _seen[(*k, name)]
    _programs[k] += 1
    return True


class InPieces:
    """A call that works element by element, as calls of powers of two elements.

    Errors: `Unfit` for another call.
    """

    def __init__(self, call: Call, make: Callable[[Call], Any]):
        """`make` gives the program of a call."""
        op = functional(call.op, frozenset()) if call.resized else call.op
        if torch.Tag.pointwise not in op.tags or not call.written or call.lists:
            raise Unfit("no op that works element by element")
        whole = [t for t in call.tensors if t.dim()]
        if not alike([call.tensors[call.written[0]], *whole]):
            raise Unfit("tensors that lie otherwise")
        self._pieces: list[tuple[int, int, Any]] = []  # first element, elements, program
        for at, size in powers_of_two(call.tensors[call.written[0]].numel()):
            left = iter([_part(t, at, size) for t in call.tensors])
            arguments = [next(left) if isinstance(a, torch.Tensor) else a for a in call.arguments]
            piece = Call(call.op, arguments, list(call.numbers_at))
            name = kind(piece), size, piece.same_places()
            if name not in _pieces:
                _pieces[name] = make(piece)
            self._pieces.append((at, size, _pieces[name]))

    def __call__(self, tensors: list[torch.Tensor], numbers: list[float]) -> list[Any]:
        for at, size, program in self._pieces:
            program([_part(t, at, size) for t in tensors], numbers)
        return []


def powers_of_two(count: int) -> Iterator[tuple[int, int]]:
    """First element and number of elements of each piece."""
    at = 0
    while at < count:
        size = 1 << (count - at).bit_length() - 1
        yield at, size
        at += size


def alike(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors have their elements one behind the other, in the same order of dimensions."""
    t = tensors[0]
    if not all(x.shape == t.shape and x.stride() == t.stride() for x in tensors):
        return False
    step = 1
    for s, n in sorted(zip(t.stride(), t.shape, strict=True)):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def _part(t: torch.Tensor, at: int, size: int) -> torch.Tensor:
    return t.as_strided((size,), (1,), t.storage_offset() + at) if t.dim() else t
