"""Runs a program of Triton kernels: in segments, each a CUDA graph where that can be, with calls of
ATen between them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any
from weakref import ref

import torch

from ...compat import cuda_stream, part_of
from ...ir import FOREIGN, Extern, Program
from ..host import Operands, Prepared, in_turn, tensor
from .binary import compile_ahead, function_of
from .blocks import ALIGNED
from .fresh import Fresh
from .launch import SCRATCH
from .program import launches_of
from .replay import Replay
from .scratch import Arenas, Scratch, Where, arenas, parts_at
from .segment import Segment, Step, advance, left_out, segments

Again = Callable[[list[Any], list[Any]], "list[Any] | None"]


def _replayed(
    executable: ref[TritonExecutable], inputs: list[Any], weights: list[Any]
) -> list[Any] | None:
    known = executable()
    return None if known is None else known.replayed(inputs, weights)


class TritonExecutable:
    """See `target.Executable`."""

    def __init__(self, program: Program, sources: dict[str, str], device_type: str):
        self.program = program
        steps: list[Step] = []
        functions: dict[str, Any] = {}
        for k, launch in zip(program.kernels, launches_of(sources["program.py"]), strict=True):
            if isinstance(k, Extern):
                steps.append(k)
            elif launch is not None:
                name = launch.function
                if name not in functions:
                    dtypes = [SCRATCH.get(b) or program.buffers[b].dtype for b in launch.buffers]
                    functions[name] = function_of(
                        launch, sources[f"{name}.py"], dtypes, device_type
                    )
                steps.append((launch, functions[name]))
        compile_ahead(functions.values())
        self._operands, self._order = Operands(program), steps
        self._steps = segments(self._operands, steps, calls=device_type == "cuda")
        own = [s for s in self._steps if isinstance(s, Segment)]
        self._sizes = (
            parts_at(program) + 4 * max((s.parts for s in own), default=0) + ALIGNED,
            max((s.counters for s in own), default=0) + 1,
        )
        self._device_type = device_type
        # torch is to know that parts are views, but for those of what only backward gets
        returned = ((o, program.buffers[o], program.base(o)) for o in program.outputs if o)
        self._parts = {
            o: (
                base.name, (tuple(b.shape), tuple(b.strides), b.offset),
                base.scope != "saved" and base.name not in program.lent,
            )
            for o, b, base in returned if b.base and b.dtype != FOREIGN
        }  # fmt: skip
        saved = {b.name for b in self._operands.saved}
        unseen = {
            o: (base, *part) for o, (base, part, seen) in self._parts.items()
            if base in saved and not seen
        }  # fmt: skip
        self._fresh = Fresh(self._operands, device_type, unseen)
        self._arenas: dict[torch.device, Arenas] = {}
        self._replay: Replay | None = None
        self._replayed = partial(_replayed, ref(self))  # weakly, since it is held here
        self.again: Again = self._replayed

    def beside(self, others: Sequence[Any]) -> Callable[[list[tuple]], list[Any]]:
        return in_turn([self, *others])

    def notes(self) -> list[str]:
        p = self.program
        if self._device_type != "cuda":
            return []
        needed = {p.base(o).name for o in p.outputs if o is not None}
        why = left_out(p, self._order, (), needed)
        found = [s.note() for s in self._steps if isinstance(s, Segment)]
        calls = [(n, s) for n, s in enumerate(self._order) if isinstance(s, Extern)]
        outside = [f"{s.name} in no graph: {why[n]}" for n, s in calls if n in why]
        return [*found, *outside]

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

    def __call__(
        self, inputs: list[Any], weights: list[Any], into: Mapping[int, Any] | None = None
    ) -> list[Any]:
        assert isinstance(weights, Prepared)
        if (made := self.again(inputs, weights)) is not None:
            return made
        device = self._device(chain(inputs, weights))
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self._on(device, inputs, weights)
        return self._on(device, inputs, weights)

    def _on(self, device: torch.device, inputs: list[Any], weights: Prepared) -> list[Any]:
        # a call that the caller records goes into the caller's graph
        if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            where = Where(Scratch.new(device, *self._sizes), device, None)
            return self._run(inputs, weights, where)
        stream, blocks = cuda_stream(device), self._arenas_of(device)
        scratch = blocks.take(device, stream, *self._sizes)
        try:
            return self._run(inputs, weights, Where(scratch, device, stream))
        finally:
            blocks.give_back(stream, scratch)

    def _run(self, inputs: list[Any], weights: Prepared, where: Where) -> list[Any]:
        p, device = self.program, where.device
        values: dict[str, Any] = dict(zip(self._operands.inputs, inputs, strict=True))
        values |= zip(self._fresh.names, self._fresh.new(device, where.stream), strict=True)
        advance(self._steps, self._operands, values, weights, where)
        if self._replay is None or not self._replay.is_for(where):
            self._replay, self.again = self._replay_for(where), self._replayed
        both = ChainMap(values, weights.named)
        return [
            None if o is None else values[o] if o in values
            else part_of(values[place[0]], *place[1])
            if (place := self._parts.get(o)) and not place[2]
            else tensor(p, o, where.scratch.arena, both)
            for o in p.outputs
        ]  # fmt: skip

    def replayed(self, inputs: list[Any], weights: list[Any]) -> list[Any] | None:
        """`again` in Python; natively from the next call on, where that can be."""
        replay = self._replay
        made = None if replay is None else replay(inputs, weights)
        again = None if replay is None or made is None else replay.natively(self._replayed)
        if replay is self._replay:
            self.again = again or self._replayed
        return made

    def _replay_for(self, where: Where) -> Replay | None:
        """How calls like the one that has just been made go from now on, if that is known."""
        step = self._steps[0] if len(self._steps) == 1 else None
        if not isinstance(step, Segment) or where.stream is None or not step.is_recorded():
            return None
        free = self._arenas_of(where.device).free(where.stream)
        given, outputs = self._operands.inputs, self.program.outputs
        try:
            return Replay(step, where, free, given, self._fresh, outputs, self._parts)
        except KeyError:
            return None

    def _device(self, values: Iterable[Any]) -> torch.device:
        """Of a call's tensors; where it has none, the current one."""
        for t in values:
            if isinstance(t, torch.Tensor) and t.device.type == self._device_type:
                return t.device
        cuda = self._device_type == "cuda"
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def _arenas_of(self, device: torch.device) -> Arenas:
        if device not in self._arenas:
            self._arenas[device] = arenas(device)
        return self._arenas[device]
