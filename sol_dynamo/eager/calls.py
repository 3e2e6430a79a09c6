"""An op of the dispatcher with its arguments, and what there is to know of how they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import compat, programs
from ..config import Config
from ..forms import WRITTEN
from ..lowering.graph import DTYPE
from ..target import Target, get_target


class Unfit(Exception):
    """Why a call has no program: the CPU runs it."""


def operator(name: str, overload: str) -> Any:
    """An op by the names that its schema has."""
    namespace, _, packet = name.partition("::")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")


class Call:
    """An op with its arguments as Python wants them.

    Errors: `Unfit` for what no program takes.
    """

    def __init__(self, op: Any, arguments: Sequence[Any], numbers_at: Sequence[int]):
        self.op, self.name_of_op = op, str(op)
        self.parameters = op._schema.arguments
        self.numbers_at = tuple(numbers_at)  # in order
        self.arguments = [
            compat.enumerated(str(p.real_type), a)
            for p, a in zip(self.parameters, arguments, strict=True)
        ]
        self.tensors: list[torch.Tensor] = []
        self.lists = any(isinstance(a, (list, tuple)) for a in self.arguments)
        self.written: list[int] = []  # positions of tensors
        self.resized: list[int] = []  # of those, the arguments `out`
        for i, a in enumerate(self.arguments):
            found = [t for t in _flat(a) if isinstance(t, torch.Tensor)]
            info = self.parameters[i].alias_info
            if (info is not None and info.is_write) or i in WRITTEN.get(self.name_of_op, ()):
                self.written += range(len(self.tensors), len(self.tensors) + len(found))
                if self.parameters[i].is_out:
                    self.resized.append(len(self.tensors))
            self.tensors += found
        places = [t.device for t in self.tensors if t.device.type != "cpu"]
        places += [a for a in self.arguments if isinstance(a, torch.device)]
        if not places:
            raise Unfit("no device is named")
        self.device = places[0]
        target = get_target(self.device.type)
        if target is None:
            raise Unfit(f"no target for {self.device.type}")
        self.target: Target = target
        for t in self.tensors:
            if t.dtype not in DTYPE or t.layout != torch.strided:
                raise Unfit(f"a tensor of {t.dtype}, {t.layout}")
        for k in self.written:
            if _overlaps(self.tensors[k]):
                raise Unfit("a result whose elements share memory")
            if self.tensors[k].device != self.device:
                raise Unfit("a result on another device")
        # for each tensor that is written to, those that are the same one
        beside: dict[int, list[int]] = {}
        for k, t in enumerate(self.tensors):
            beside.setdefault(memory(t), []).append(k)
        self.alike = {j: self._same_as(j, beside[memory(self.tensors[j])]) for j in self.written}

    def _same_as(self, j: int, beside: Sequence[int]) -> list[int]:
        t = self.tensors[j]
        found = []
        for k in beside:
            other = self.tensors[k]
            if k == j or not _meet(other, t):
                continue
            if _place(other) != _place(t):
                raise Unfit("tensors that share some memory")  # which most ops refuse
            found.append(k)
        return found

    def count_of(self, i: int) -> int:
        """How many numbers an argument is."""
        a = self.arguments[i]
        return len(a) if isinstance(a, (list, tuple)) else 1

    def same_places(self) -> tuple:
        """What matters of numbers and of memory, besides sizes."""
        numbers = [
            _near(a) if i in self.numbers_at else _shown(a) for i, a in enumerate(self.arguments)
        ]
        return str(numbers), tuple((k, tuple(v)) for k, v in self.alike.items()), self.device

    def name(self, c: Config) -> str:
        """What the program of such calls is kept under."""
        tensors = [(str(t.dtype), _place(t)[1:], t.device.type) for t in self.tensors]
        rest = [
            f"number {_near(a)}" if i in self.numbers_at else repr(_shown(a))
            for i, a in enumerate(self.arguments)
        ]
        about = (self.name_of_op, tensors, self.alike, rest, torch.get_default_dtype(), self.device)
        return programs.key("op", self.target.caps, self.target.describe(), *about, c)


def _flat(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _near(value: Any) -> Any:
    """All that a program knows of numbers to come: where `lerp` changes its formula."""
    return [_near(v) for v in value] if isinstance(value, (list, tuple)) else abs(value) < 0.5


def _shown(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return "a tensor"
    return [_shown(v) for v in value] if isinstance(value, (list, tuple)) else value


def memory(t: torch.Tensor) -> int:
    """Where the memory begins that a tensor lies in."""
    return t.untyped_storage().data_ptr()


def _place(t: torch.Tensor) -> tuple:
    return t.storage_offset() * t.itemsize, tuple(t.shape), tuple(t.stride())


def _meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the spans of two tensors in the same memory have bytes in common."""
    (first, last), (start, end) = span(a), span(b)
    return first < end and start < last


def span(t: torch.Tensor) -> tuple[int, int]:
    """The first byte that a tensor takes in its memory, and the one behind its last."""
    first: Any = t.storage_offset() * t.itemsize
    if not t.numel():
        return first, first
    last: Any = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1
    return first, first + last * t.itemsize


def _overlaps(t: torch.Tensor) -> bool:
    """Whether elements may share memory."""
    end = 1
    for step, n in sorted(zip(t.stride(), t.shape, strict=True)):
        if n > 1:
            if step < end:
                return t.numel() > 0
            end = step * n
    return False
