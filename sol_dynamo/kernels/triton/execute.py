"""Runs a program of Triton kernels: CUDA graphs of launches, ATen calls in between.

The kernels between two calls are a run. A run is launched kernel by kernel at its first call (which
compiles them), as one graph from then on; a graph is told the addresses of inputs, outputs and
saved tensors that changed since its last launch. The arena is one for all programs of a stream.
"""

from __future__ import annotations

import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary, ref

import numpy as np
import torch

from ...compat import cuda_stream
from ...ir import Extern, Program, read
from ...lowering.graph import TORCH_DTYPE
from ..host import Blocks, Operands, Prepared, call, memory, tensor
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
    addresses: tuple[int, int]
    sizes: tuple[int, int]

    @classmethod
    def new(cls, device: torch.device, size: int, counters: int) -> Scratch:
        arena = torch.empty(size, dtype=torch.uint8, device=device)
        zeros = torch.zeros(counters, dtype=torch.int32, device=device)
        return cls(arena, zeros, (arena.data_ptr(), zeros.data_ptr()), (size, counters))


class Arenas:
    """Scratch memory of one device, for all programs: a block for each stream that they run on."""

    def __init__(self) -> None:
        self._blocks: dict[int, Scratch] = {}

    def get(self, device: torch.device, stream: int, size: int, counters: int) -> Scratch:
        """At least so many bytes, whose contents last until the stream's next program, and so many
        counters, which are zero between kernels."""
        found = self._blocks.get(stream)
        if found is None or found.sizes[0] < size or found.sizes[1] < counters:
            self._blocks.pop(stream, None)
            if found is not None:
                size, counters = max(size, found.sizes[0]), max(counters, found.sizes[1])
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
        own = [b for b in used if b not in program.arena and b not in SCRATCH]
        scopes = {b: program.buffers[b].scope for b in own}
        self._fixed = [b for b in own if scopes[b] == "weight"]
        self._moving = [b for b in own if scopes[b] != "weight"]
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
        self,
        values: dict[str, Any],
        weights: Prepared,
        scratch: Scratch,
        device: torch.device,
        stream: int,
    ) -> None:
        """The kernels as a graph, where that can be."""
        moving = [*scratch.addresses, *[values[b].data_ptr() for b in self._moving]]
        graph = self._graphs.get(device)
        try:
            if graph is None:
                graph = self._recorded(values, weights, scratch, moving, device)
            if graph is not None and graph(moving, weights, stream):
                return
        except NoGraph as e:
            self.reason = str(e)
            self._graphs.pop(device, None)
            log.warning("kernels are launched one by one: %s", e)
        self(values | weights.named, scratch)

    def _recorded(
        self,
        values: dict[str, Any],
        weights: Prepared,
        scratch: Scratch,
        moving: list[int],
        device: torch.device,
    ) -> Recorded | None:
        """The graph of a device; None before the second call there, or where there can be none."""
        addresses = [*moving, *self._weights_at(weights)]
        if self.reason or any(a % ALIGNED for a in addresses):
            return None
        if device not in self._warm:
            self._warm.add(device)
            return None
        names = ("", COUNTERS, *self._moving, *self._fixed)  # what lies in the arena at the first
        place = {b: i for i, b in enumerate(names)}
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
            everything = values | weights.named
            graph = Graph(lambda: self(everything, scratch), pointers, side.cuda_stream)
        found = self._graphs[device] = Recorded(graph, self._weights_at, addresses, users)
        return found

    def _weights_at(self, weights: Prepared) -> list[int]:
        return [weights.named[b].data_ptr() for b in self._fixed]


class Recorded:
    """A run's graph, and which kernels take which address: (node, argument, offset) of each.

    Addresses are those that a call gives, then those of `weights_at`, which are looked up only when
    a call brings other weights than the one before.
    """

    def __init__(
        self,
        graph: Graph,
        weights_at: Callable[[Any], list[int]],
        addresses: list[int],
        users: list[list[tuple[int, int, int]]],
    ):
        self._graph, self._weights_at, self._users = graph, weights_at, users
        self._addresses = addresses
        self._weights: Callable[[], Any] = lambda: None
        self._lock = threading.Lock()

    def __call__(self, given: list[int], weights: Any, stream: int) -> bool:
        """Launch it; False, and nothing is done, for memory that it was not compiled for."""
        with self._lock:
            known = self._weights() is weights
            now = given if known else given + self._weights_at(weights)
            moved = [(i, new) for i, new in enumerate(now) if new != self._addresses[i]]
            if moved:
                if any(new % ALIGNED for _, new in moved):
                    return False
                self._move(moved)
            if not known:
                self._weights = ref(weights)
            self._graph.launch(stream)
        return True

    def _move(self, moved: list[tuple[int, int]]) -> None:
        nodes = set()
        for i, address in moved:
            for node, argument, offset in self._users[i]:
                self._graph.set(node, argument, address + offset)
                nodes.add(node)
        for node in nodes:
            self._graph.update(node)
        for i, address in moved:
            self._addresses[i] = address


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
        self._made = [
            (b.name, b.shape, b.strides, TORCH_DTYPE[b.dtype]) for b in self._operands.outputs
        ]
        self._blocks = Blocks(self._operands.saved, device_type)
        self._lock = threading.Lock()
        self._arenas: dict[torch.device, Arenas] = {}

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

    def __call__(self, inputs: list[Any], weights: list[Any]) -> list[Any]:
        assert isinstance(weights, Prepared)
        device = self._device([*inputs, *weights])
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self._run(inputs, weights, device)
        return self._run(inputs, weights, device)

    def _run(self, inputs: list[Any], weights: Prepared, device: torch.device) -> list[Any]:
        p = self.program
        values: dict[str, Any] = dict(zip(self._operands.inputs, inputs, strict=True))
        for name, shape, strides, dtype in self._made:
            values[name] = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        if self._operands.saved:
            with self._lock:
                values |= self._blocks.take()
        # a call that the caller records goes into the caller's graph
        alone = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
        if alone:
            stream = cuda_stream(device)
            scratch = self._arenas_of(device).get(device, stream, *self._sizes)
        else:
            scratch = Scratch.new(device, *self._sizes)
        arena = scratch.arena
        for step in self._steps:
            if isinstance(step, Extern):
                both = ChainMap(values, weights.named)
                given = {b: tensor(p, b, arena, both) for b in read(step)}
                values |= call(self._operands, step, given, arena)
            elif alone:
                step.as_graph(values, weights, scratch, device, stream)
            else:
                step(values | weights.named, scratch)
        if any(o is not None and o not in values for o in p.outputs):  # a view, or a weight
            both = ChainMap(values, weights.named)
            return [None if o is None else tensor(p, o, arena, both) for o in p.outputs]
        return [None if o is None else values[o] for o in p.outputs]

    def _device(self, values: list[Any]) -> torch.device:
        """Of a call's tensors; where it has none, the current one."""
        for t in values:
            if isinstance(t, torch.Tensor) and t.device.type == self._device_type:
                return t.device
        cuda = self._device_type == "cuda"
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def _arenas_of(self, device: torch.device) -> Arenas:
        if device not in self._arenas:
            self._arenas[device] = _arenas.setdefault(device, Arenas())
        return self._arenas[device]
