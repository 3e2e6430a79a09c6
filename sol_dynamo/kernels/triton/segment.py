"""Steps of a program that follow each other as one CUDA graph: launches of ours, calls of ATen.

A segment is run step by step at its first call (which compiles its kernels and lets ATen's
libraries make what they need), as a graph from then on. Kernels of ours are told the addresses that
changed since the graph's last launch. What ATen launches is as it was recorded: what its calls read
and write has to stay where it is. Weights and the arena do (the segment is recorded anew where
not); results lie in a pool of memory that goes with the arena, and what others read of them is
copied out behind each launch, or written to new memory where that can be (`Recorded.renew`). What
is saved for backward lies in one of a few blocks, with a graph for each, and so do results that
backward alone gets: these are lent as they lie, in a pool of their own, and while one of them is
still held, the steps run one by one. What else a call reads is taken to stay, as what was saved
does, until it does not: from then on it is copied to a place of the segment's own before each
launch, or the call is left out if that is too much.
"""

from __future__ import annotations

import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ...compat import OpOverload, addresses, is_random
from ...ir import FOREIGN, Buffer, Extern, Kernel, Program, read, written
from ...schedule.memory import nbytes
from ..host import Operands, Prepared, call, memory, tensor
from .blocks import ALIGNED
from .graphs import Graph, NoGraph
from .launch import COUNTERS, PARTS, SCRATCH, Launch
from .recorded import Places, Recorded, like
from .scratch import Pool, Scratch, Where, parts_at

log = logging.getLogger("sol_dynamo")
Step = tuple[Launch, Any] | Extern  # a launch with its function
COPIED = 1 << 24  # bytes of a buffer that are copied into or out of a graph; larger: no part of it
RECORDINGS = 8  # of one segment and pool, until calls of ATen are left out of it; and graphs of one


# -- which steps are a segment -------------------------------------------------------------------


def segments(
    operands: Operands,
    steps: Sequence[Step],
    calls: bool,
    wandering: Collection[str] = (),
    needed: Collection[str] = (),
) -> list[Segment | Extern]:
    """Steps in order; launches that follow each other are a segment, with the calls of ATen between
    them that can be part of one, if `calls`. Buffers that are `wandering` are somewhere else at
    each call; those `needed` are read behind these steps, as outputs are."""
    program = operands.program
    needed = {*needed, *(program.base(o).name for o in program.outputs if o is not None)}
    outside = left_out(program, steps, wandering, needed) if calls else None
    found: list[Segment | Extern] = []
    run: list[Step] = []
    for n, step in enumerate([*steps, None]):
        alone = isinstance(step, Extern) and (outside is None or n in outside)
        if step is not None and not alone:
            run.append(step)
            continue
        if len(run) == 1 and isinstance(run[0], Extern):
            found.append(run[0])
        elif run:
            later = {b for s in steps[n:] for b in _read(program, s)}
            found.append(Segment(operands, run, needed | later, wandering))
        run = []
        if isinstance(step, Extern):
            found.append(step)
    return found


def left_out(
    program: Program, steps: Sequence[Step], wandering: Collection[str], needed: Collection[str]
) -> dict[int, str]:
    """Positions of the calls that segments may not hold, and why."""
    why = {n: r for n, s in enumerate(steps) if isinstance(s, Extern) and (r := _impure(s))}
    changed = {
        program.base(b).name for k in program.kernels if isinstance(k, Kernel) for b in written(k)
    }
    made = {program.base(b).name: n for n, s in enumerate(steps) for b in _made(s)}
    readers: dict[str, list[int]] = {}
    for n, s in enumerate(steps):
        for b in _read(program, s):
            readers.setdefault(b, []).append(n)

    def together(first: int, last: int) -> bool:
        """Whether both are in one segment."""
        return why.keys().isdisjoint(range(first, last + 1))

    def moving(n: int) -> str:
        for b in _read(program, steps[n]):
            if program.buffers[b].dtype == FOREIGN and not (b in made and together(made[b], n)):
                return f"{b}, which it reads, is no tensor, or one that only ATen handles"
            here = b in program.arena or program.buffers[b].scope == "weight"
            if here or (b in made and together(made[b], n)):
                continue
            if b in changed and program.buffers[b].scope != "saved":
                return f"{b}, which it reads, is changed"
            if b in wandering and not _is_copied(program.buffers[b]):
                return f"{b}, which it reads, is somewhere else at each call, and large"
        for b in (program.base(b).name for b in _made(steps[n])):
            here = b not in needed and all(together(n, r) for r in readers.get(b, ()))
            if not here and b not in program.lent and not _is_copied(program.buffers[b]):
                return f"{b}, which it makes, is needed outside, and large"
        return ""

    calls = [n for n, s in enumerate(steps) if isinstance(s, Extern)]
    while new := {n: r for n in calls if n not in why and (r := moving(n))}:
        why |= new
    return why


def _is_copied(b: Buffer) -> bool:
    """Whether a buffer may be copied into or out of a graph: it is small, and no two of its
    elements are one."""
    reach = 0
    for stride, n in sorted((s, n) for n, s in zip(b.shape, b.strides, strict=True) if n > 1):
        if stride <= reach:
            return False
        reach += stride * (n - 1)
    return b.dtype != FOREIGN and nbytes(b) <= COPIED


def _impure(step: Extern) -> str:
    """Why a call may not do the same for the same values, or change some; "" if it is fine."""
    op = step.op
    if not isinstance(op, OpOverload) or op.namespace != "aten":
        return "nobody knows what it does"
    if step.symbols or {*op.tags} & {
        torch.Tag.data_dependent_output,
        torch.Tag.dynamic_output_shape,
    }:
        return "what it gives depends on data"
    if op._schema.is_mutable:
        return "it changes an argument"
    if is_random(op) and _argument(step, "dropout_p") != 0:
        return "it is random"
    return ""


def _argument(step: Extern, name: str) -> Any:
    """An argument of a call, or what it is by default; None if there is none of that name."""
    given = dict(step.kwargs)
    for a, value in zip_longest(step.op._schema.arguments, step.args):
        if a is not None and a.name == name:
            return given.get(name, a.default_value if value is None else value)
    return None


def _made(step: Step) -> list[str]:
    return [b for b in step.outs if b] if isinstance(step, Extern) else []


def _read(program: Program, step: Step) -> list[str]:
    """Memory that a step reads or writes, but for what a call makes."""
    names = read(step) if isinstance(step, Extern) else step[0].buffers
    return [program.base(b).name for b in names if b not in SCRATCH]


# -- running them --------------------------------------------------------------------------------


def advance(
    steps: Sequence[Segment | Extern],
    operands: Operands,
    values: dict[str, Any],
    weights: Prepared,
    where: Where,
) -> None:
    """Run them in order; `values` has every buffer that is no weight and not in the arena, and gets
    the results of calls."""
    for step in steps:
        if isinstance(step, Extern):
            both = ChainMap(values, weights.named)
            values |= _called(operands, step, both, where.scratch.arena)
        elif where.stream is not None:
            values |= step.as_graph(values, weights, where)
        else:
            values |= step(ChainMap(values, weights.named), where.scratch)


def _called(
    operands: Operands, step: Extern, values: Mapping[str, Any], arena: torch.Tensor
) -> dict[str, Any]:
    given = {b: tensor(operands.program, b, arena, values) for b in read(step)}
    return call(operands, step, given, arena)


class Segment:
    """Launches, and calls between them."""

    def __init__(
        self,
        operands: Operands,
        steps: Sequence[Step],
        needed: Collection[str] = (),
        wandering: Collection[str] = (),
    ):
        """`needed`: what others need of the results of its calls; `wandering`: see `segments`."""
        self._operands, self.program = operands, operands.program
        self.steps = list(steps)
        self._calls = [s for s in self.steps if isinstance(s, Extern)]
        launches = [s[0] for s in self.steps if not isinstance(s, Extern)]
        made = {self.program.base(b).name for s in self._calls for b in _made(s)}
        scopes = {b.name: b.scope for b in self.program.buffers.values()}

        def others(steps: Iterable[Step]) -> list[str]:
            """Buffers from before that are no weights, and not in the arena."""
            used = dict.fromkeys(b for s in steps for b in _read(self.program, s))
            return [
                b for b in used
                if b not in self.program.arena and b not in made and scopes[b] != "weight"
            ]  # fmt: skip

        self.moving = others(s for s in self.steps if not isinstance(s, Extern))
        self._entering = others(self._calls)
        self.outside = (*self.moving, *self._entering)  # whose addresses may change
        self._wandering = {b for b in self._entering if b in wandering}
        # memory that is kept for backward: one of a few blocks, each with a graph of its own
        saved = {b.name for b in self.program.buffers.values() if b.scope == "saved"}
        saved = {b for b in saved if nbytes(self.program.buffers[b]) > 0}
        self.kept = next((b for b in self._entering if b in saved), None)
        self.leaving = made.intersection(needed)
        self._lent = self.leaving & self.program.lent
        results = ((o, self.program.buffers[o]) for o in self.program.outputs if o)
        self.lent_parts = {
            o: (b.base, tuple(b.shape), tuple(b.strides), int(b.offset))
            for o, b in results if b.base in self._lent
        }  # fmt: skip
        if self._lent and not self.kept:
            own = (b.name for b in self.program.buffers.values() if b.base is None)
            self.kept = next((b for b in own if b in saved), None)
        self._fixed = list(
            dict.fromkeys(
                b for s in self.steps for b in _read(self.program, s) if scopes[b] == "weight"
            )
        )
        last = {b: n for n, s in enumerate(self.steps) for b in _read(self.program, s) if b in made}
        self._read_here = set(last)
        self._gone: list[list[str]] = [[] for _ in self.steps]  # results that nobody reads later
        for b, n in last.items():
            if b not in self.leaving:
                self._gone[n].append(b)
        self._parts_at = parts_at(self.program)
        self._counters_at: dict[int, int] = {}
        self.counters = 0
        for n, s in enumerate(self.steps):
            if not isinstance(s, Extern):
                self._counters_at[n] = self.counters
                self.counters += -(-s[0].counters // ALIGNED) * ALIGNED
        self.parts = max((launch.parts for launch in launches), default=0)
        self.reason = ""  # why there is no graph
        self._apart: list[Segment | Extern] = []  # what runs instead where calls can't be recorded
        self._graphs: dict[Any, Recorded] = {}
        self._recordings: dict[Any, int] = {}

    def note(self) -> str:
        """How it runs."""
        kernels, calls = len(self.steps) - len(self._calls), len(self._calls)
        text = f"{kernels} kernels" + (f" and {calls} calls of ATen" if calls else "")
        if self._apart:
            return f"{text} in pieces: {self.reason}"
        return f"{text}, launched one by one: {self.reason}" if self.reason else f"{text}: a graph"

    def __call__(
        self,
        values: Mapping[str, Any],
        scratch: Scratch,
        launched: Callable[[Sequence[int]], None] | None = None,
        copies: Mapping[str, Any] = MappingProxyType({}),
        places: Callable[[Sequence[str]], AbstractContextManager] = lambda names: nullcontext(),
    ) -> dict[str, Any]:
        """The steps, each on its own; `values` has every buffer from before that is not in the
        arena, `copies` what calls are to read instead. `launched` is told the addresses that each
        kernel got; a call makes its results within `places`. Gives those that others need."""
        made: dict[str, Any] = {}
        everything = ChainMap(made, values)  # type: ignore[arg-type]
        for_calls = ChainMap(made, copies, values)  # type: ignore[arg-type]
        for n, step in enumerate(self.steps):
            if isinstance(step, Extern):
                with places(_made(step)):
                    made |= _called(self._operands, step, for_calls, scratch.arena)
                if launched:
                    _check_results(made)
            else:
                launch, function = step
                args = [self._memory(b, n, everything, scratch) for b in launch.buffers]
                try:
                    with np.errstate(all="ignore"):  # for the interpreter
                        function[(launch.grid,)](*args, **launch.options())
                except AssertionError as e:  # in the interpreter; a GPU's comes with its next call
                    raise IndexError(str(e)) from None
                if launched:
                    launched([a.data_ptr() for a in args])
            for b in self._gone[n]:
                made.pop(b, None)
        return {b: made[b] for b in self.leaving}

    def _memory(
        self, name: str, step: int, values: Mapping[str, Any], scratch: Scratch
    ) -> torch.Tensor:
        """A tensor that starts where a step's buffer does."""
        if name == COUNTERS:
            return scratch.counters[self._counters_at[step] :]
        if name == PARTS:
            return scratch.arena[self._parts_at :][: 4 * self.parts].view(torch.float32)
        return memory(self.program, name, scratch.arena, values)

    def as_graph(
        self, values: dict[str, Any], weights: Prepared, where: Where
    ) -> Mapping[str, Any]:
        """The steps as a graph, where that can be; gives results as a call does."""
        if self._apart:
            advance(self._apart, self._operands, values, weights, where)
            return {}
        scratch, stream = where.scratch, where.stream
        assert stream is not None
        given = [*scratch.addresses, *addresses([values[b] for b in self.outside])]
        block = values[self.kept].data_ptr() if self.kept else None
        key = (where.device, scratch.pool if self._calls else None, block)
        try:
            found = self.recorded(where.device, scratch, block)
            if found is not None and found.held():
                return self(ChainMap(values, weights.named), scratch)
            made = None if found is None else found(given, values, weights, stream)
            if made is None:
                self._look_after(found, given)
                new = self._record(key, values, weights, given, where)
                made = None if new is None else new(given, values, weights, stream)
            if made is not None:
                return made
        except NoGraph as e:
            self._graphs = {}
            self.reason = str(e)
            if self._calls:
                log.info("ATen's calls are made one by one: %s", e)
                self._apart = segments(self._operands, self.steps, False, (), self.leaving)
            else:
                log.warning("kernels are launched one by one: %s", e)
        if self._apart:
            advance(self._apart, self._operands, values, weights, where)
            return {}
        return self(ChainMap(values, weights.named), scratch)

    @property
    def pooled(self) -> bool:
        """Whether its graphs are for scratch of one pool."""
        return bool(self._calls)

    def is_recorded(self) -> bool:
        """Whether some call was a graph, and none is in pieces."""
        return bool(self._graphs) and not self._apart

    def recorded(
        self, device: torch.device, scratch: Scratch, block: int | None
    ) -> Recorded | None:
        """The graph for a call. A scratch is one call's at a time, and so are the graphs whose
        calls of ATen use its pool; `block`: the address of what is `kept`."""
        return self._graphs.get((device, scratch.pool if self._calls else None, block))

    def _look_after(self, found: Recorded | None, given: Sequence[int]) -> None:
        """Sort out what a call reads and did not find where the last graph has it."""
        first = 2 + len(self.moving)
        moved = found.moved(given) if found else []
        new = {self._entering[i - first] for i in moved if i >= first} - self._wandering
        self._wandering |= new
        if not all(_is_copied(self.program.buffers[b]) for b in new):
            self._graphs = {}
            self.reason = "large buffers that calls read move"
            self._apart = segments(self._operands, self.steps, True, self._wandering, self.leaving)

    def _record(
        self,
        key: Any,
        values: dict[str, Any],
        weights: Prepared,
        given: list[int],
        where: Where,
    ) -> Recorded | None:
        """Make a device's graph, or with calls a pool's; None before the second call there, or
        where there can be none."""
        known = [*given, *_addresses(self._fixed, weights)]
        kernels = 2 + len(self.moving)  # what they read, besides weights
        aligned = (*known[:kernels], *known[len(given) :])
        if self.reason or self._apart or any(a % ALIGNED for a in aligned):
            return None
        count = self._recordings[key] = self._recordings.get(key, -1) + 1
        if count == 0 or (key not in self._graphs and len(self._graphs) >= RECORDINGS):
            return None
        if count > RECORDINGS + len(self._entering):
            raise NoGraph("what they read moves from call to call")
        read_here = (weights.named[b] for b in self._fixed)
        tensors = [*read_here, *(values[b] for b in self._entering)]
        if self._calls and any(t.device != where.device for t in tensors):
            raise NoGraph("a tensor that is elsewhere")
        # what lies in the arena at the first
        names = ("", COUNTERS, *self.moving, *map(_own, self._entering), *self._fixed)
        place = {b: i for i, b in enumerate(names)}
        users: list[list[tuple[int, int, int]]] = [[] for _ in known]
        own = [n for n, s in enumerate(self.steps) if not isinstance(s, Extern)]
        for node, n in enumerate(own):
            step = self.steps[n]
            assert not isinstance(step, Extern)
            for argument, b in enumerate(step[0].buffers):
                offset = self.program.arena.get(b, 0)
                offset += {PARTS: self._parts_at, COUNTERS: 4 * self._counters_at[n]}.get(b, 0)
                at = 0 if b in self.program.arena or b == PARTS else place.get(b)
                if at is not None:  # and no result of a call, which stays
                    users[at].append((node, argument, offset))
        read_by_calls = {b for s in self._calls for b in _read(self.program, s)}
        still = {
            place.get(b, 0) for b in read_by_calls
            if b in self.program.arena or self.program.buffers[b].scope == "weight"
        }  # fmt: skip
        still |= {place[_own(b)] for b in self._entering if b not in self._wandering}
        with torch.inference_mode(False):  # of later calls, which may be in that mode or not
            copies = {b: like(values[b]) for b in self._entering if b in self._wandering}
        everything, results = ChainMap(values, weights.named), dict[str, Any]()
        # graphs of one pool write what others of it have written: not what is lent for longer
        pool = Pool() if self._lent else where.scratch.pool
        places = Places(pool, self.leaving - self._lent - self._read_here, where.device)
        side = where.scratch.pool.stream(where.device)
        with _recording, torch.cuda.stream(side):
            graph = Graph(
                lambda launched: results.update(
                    self(everything, where.scratch, launched, copies, places)
                ),
                side.cuda_stream,
            )
        found = Recorded(
            graph, partial(_addresses, self._fixed), known, users, still, copies,
            {b: t for b, t in results.items() if b not in self._lent},
            {b: t for b, t in results.items() if b in self._lent},
            self.lent_parts, [pool],
        )  # fmt: skip
        found.renew(places.alone, values, where.stream or 0)
        results = {b: t for b, t in results.items() if b not in found.renewed}
        # calls write to them: for a while, but for the last, where results lie that are not renewed
        found.kept += places.pools[:-1] if found.renewed == {*places.alone} else places.pools
        self._graphs[key] = found
        return found


_recording = threading.Lock()  # of one graph at a time


def _addresses(names: Sequence[str], weights: Prepared) -> list[int]:
    return [weights.named[b].data_ptr() for b in names]


def _own(name: str) -> str:
    """Where a call reads a buffer, which may be somewhere else for a kernel."""
    return f"{name} of calls"


def _check_results(made: Mapping[str, Any]) -> None:
    for name, value in made.items():
        if isinstance(value, torch.Tensor) and value.device.type != "cuda":
            raise NoGraph(f"{name} is on the {value.device.type}")
