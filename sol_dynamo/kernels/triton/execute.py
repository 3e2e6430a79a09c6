"""Runs a program of Triton kernels: CUDA graphs of launches, ATen calls in between.

The kernels between two calls are a run. A run is launched kernel by kernel at its first call (which
compiles them), as one graph from then on; a graph is told the addresses of inputs, outputs and
saved tensors that changed since its last launch. The arena is one for all programs of a stream.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch

from ...compat import cuda_stream
from ...ir import Extern, Program, read
from ...lowering.graph import TORCH_DTYPE
from ..host import Blocks, Operands, call, memory, tensor
from .blocks import ALIGNED
from .compile import compile_ahead, load
from .graphs import Graph, NoGraph
from .launch import COUNTERS, PARTS, SCRATCH, Launch
from .program import launches_of

log = logging.getLogger("sol_dynamo")


class Scratch(NamedTuple):
    """What a program's kernels write for each other."""

    arena: torch.Tensor
    counters: torch.Tensor

    @classmethod
    def new(cls, device: torch.device, size: int, counters: int) -> Scratch:
        return cls(
            torch.empty(size, dtype=torch.uint8, device=device),
            torch.zeros(counters, dtype=torch.int32, device=device),
        )


class Arenas:
    """Scratch memory of one device, for all programs: a block for each stream that they run on."""

    def __init__(self) -> None:
        self._blocks: dict[int, Scratch] = {}

    def get(self, device: torch.device, stream: int, size: int, counters: int) -> Scratch:
        """At least so many bytes, whose contents last until the stream's next program, and so many
        counters, which are zero between kernels."""
        found = self._blocks.get(stream)
        if found is None or len(found.arena) < size or len(found.counters) < counters:
            self._blocks.pop(stream, None)
            if found is not None:
                size, counters = max(size, len(found.arena)), max(counters, len(found.counters))
            found = self._blocks[stream] = Scratch.new(device, size, counters)
        return found


_arenas: WeakValueDictionary[torch.device, Arenas] = WeakValueDictionary()


def parts_at(program: Program) -> int:
    """Where partial sums begin, behind a program's arena."""
    return -(-program.arena_bytes // 256) * 256


class Run:
    """Launches that follow each other."""

    def __init__(self, program: Program, steps: list[tuple[Launch, Any]]):
        self.program, self.steps = program, steps
        used = dict.fromkeys(b for launch, _ in steps for b in launch.buffers)
        self._bases = [b for b in used if b not in program.arena and b not in SCRATCH]
        self._parts_at = parts_at(program)
        self._counters_at: list[int] = []
        self.counters = 0
        for launch, _ in steps:
            self._counters_at.append(self.counters)
            self.counters += -(-launch.counters // ALIGNED) * ALIGNED
        self.parts = max((launch.parts for launch, _ in steps), default=0)
        self.reason = ""  # why there is no graph
        self._graphs: dict[torch.device, Recorded] = {}
        self._warm: set[torch.device] = set()

    def __call__(self, values: Mapping[str, Any], scratch: Scratch) -> None:
        """The kernels, each on its own; `values` has every buffer that is not in the arena."""
        for n, (launch, function) in enumerate(self.steps):
            args = [self._memory(b, n, values, scratch) for b in launch.buffers]
            try:
                with np.errstate(all="ignore"):  # for the interpreter
                    function[(launch.grid,)](*args, **launch.options())
            except AssertionError as e:  # in the interpreter; a GPU's comes with its next call
                raise IndexError(str(e)) from None

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
        self, values: Mapping[str, Any], scratch: Scratch, device: torch.device, stream: int
    ) -> None:
        """The kernels as a graph, where that can be."""
        addresses = [t.data_ptr() for t in (*scratch, *(values[b] for b in self._bases))]
        if self.reason or any(a % ALIGNED for a in addresses):  # compiled for aligned memory
            self(values, scratch)
        elif device not in self._warm:
            self(values, scratch)
            self._warm.add(device)
        else:
            graph = self._graphs.get(device)
            try:
                if graph is None:
                    graph = self._graphs[device] = self._record(values, scratch, addresses)
                graph(addresses, stream)
            except NoGraph as e:
                self.reason = str(e)
                log.warning("kernels are launched one by one: %s", e)
                self(values, scratch)

    def _record(
        self, values: Mapping[str, Any], scratch: Scratch, addresses: list[int]
    ) -> Recorded:
        place = {b: i + 2 for i, b in enumerate(self._bases)} | {COUNTERS: 1}
        users: list[list[tuple[int, int, int]]] = [[] for _ in addresses]
        pointers: list[list[int]] = []
        for node, (launch, _) in enumerate(self.steps):
            pointers.append([])
            for argument, b in enumerate(launch.buffers):
                offset = self.program.arena.get(b, 0)
                offset += {PARTS: self._parts_at, COUNTERS: 4 * self._counters_at[node]}.get(b, 0)
                users[place.get(b, 0)].append((node, argument, offset))
                pointers[-1].append(addresses[place.get(b, 0)] + offset)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            graph = Graph(lambda: self(values, scratch), pointers, side.cuda_stream)
        return Recorded(graph, addresses, users)


class Recorded:
    """A run's graph, and which kernels take which address: (node, argument, offset) of each."""

    def __init__(self, graph: Graph, addresses: list[int], users: list[list[tuple[int, int, int]]]):
        self._graph, self._addresses, self._users = graph, addresses, users
        self._lock = threading.Lock()

    def __call__(self, addresses: list[int], stream: int) -> None:
        with self._lock:
            if addresses != self._addresses:
                self._move(addresses)
            self._graph.launch(stream)

    def _move(self, addresses: list[int]) -> None:
        nodes = set()
        for old, new, users in zip(self._addresses, addresses, self._users, strict=True):
            if old != new:
                for node, argument, offset in users:
                    self._graph.set(node, argument, new + offset)
                    nodes.add(node)
        for node in nodes:
            self._graph.update(node)
        self._addresses = addresses


class TritonExecutable:
    """See `target.Executable`."""

    def __init__(self, program: Program, sources: dict[str, str], device_type: str):
        self.program = program
        launches = launches_of(sources["program.py"])
        self._steps: list[Run | Extern] = []
        run: list[tuple[Launch, Any]] = []
        for k, launch in zip(program.kernels, launches, strict=True):
            if isinstance(k, Extern):
                if run:
                    self._steps.append(Run(program, run))
                run = []
                self._steps.append(k)
            elif launch is not None:
                module = load(launch.function, sources[f"{launch.function}.py"])
                run.append((launch, getattr(module, launch.function)))
        if run:
            self._steps.append(Run(program, run))
        own = [s for s in self._steps if isinstance(s, Run)]
        if device_type == "cuda":
            compile_ahead([x for s in own for x in s.steps], program)
        self._sizes = (
            parts_at(program) + 4 * max((s.parts for s in own), default=0) + ALIGNED,
            max((s.counters for s in own), default=0) + 1,
        )
        self._device_type = device_type
        self._operands = Operands(program)
        self._blocks = Blocks(self._operands.saved, device_type)
        self._lock = threading.Lock()
        self._arenas: dict[torch.device, Arenas] = {}

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

    def __call__(self, inputs: list[Any], weights: list[Any]) -> list[Any]:
        p = self.program
        values = self._operands.given(inputs, weights)
        device = self._device(values)
        for b in self._operands.outputs:
            values[b.name] = torch.empty_strided(
                b.shape, b.strides, dtype=TORCH_DTYPE[b.dtype], device=device
            )
        with self._lock:
            values |= self._blocks.take()
        # a call that the caller records goes into the caller's graph
        alone = self._device_type == "cuda" and not torch.cuda.is_current_stream_capturing()
        stream = cuda_stream(device) if alone else 0
        if alone:
            scratch = self._arenas_of(device).get(device, stream, *self._sizes)
        else:
            scratch = Scratch.new(device, *self._sizes)
        arena = scratch.arena
        for step in self._steps:
            if isinstance(step, Extern):
                given = {b: tensor(p, b, arena, values) for b in read(step)}
                values |= call(self._operands, step, given, arena)
            elif alone:
                step.as_graph(values, scratch, device, stream)
            else:
                step(values, scratch)
        return [None if o is None else tensor(p, o, arena, values) for o in p.outputs]

    def _device(self, values: Mapping[str, Any]) -> torch.device:
        """Of a call's tensors; where it has none, the current one."""
        for t in values.values():
            if isinstance(t, torch.Tensor) and t.device.type == self._device_type:
                return t.device
        cuda = self._device_type == "cuda"
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def _arenas_of(self, device: torch.device) -> Arenas:
        if device not in self._arenas:
            self._arenas[device] = _arenas.setdefault(device, Arenas())
        return self._arenas[device]
