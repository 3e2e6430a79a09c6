"""Choosing among several ways to walk a kernel by timing them, as `mode="max-autotune"` asks.

Each way is one kernel with other blocks, on memory of its own. What was chosen is kept on disk, by
the kernels' text and the GPU's name. Whole programs are timed likewise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import torch

from ...compat import plain_dispatch
from ...ir import DTYPES, Buffer, Kernel, Program
from ...lowering.graph import TORCH_DTYPE
from ...runtime import cache
from ...schedule.memory import nbytes
from ...schedule.plan import Plan
from ...target import Executable
from ..host import Operands
from .binary import compile_those_that_do, function_of
from .launch import SCRATCH, Launch
from .nest import KernelText
from .program import HEADER, resources
from .scratch import Scratch, parts_at
from .segment import Segment

log = logging.getLogger("sol_dynamo")
LAUNCHES = 20  # in a row, in one CUDA graph
REPEATS = 5  # of these; the fastest counts
FLUSHED = 100 << 20  # bytes that launches in a row touch, at least


def fastest(plan: Plan, ways: list[Kernel], device: torch.device) -> Kernel:
    """The way that takes the least time on a device. One that does not compile takes forever."""
    program = Program(plan.buffers, tuple(ways), (), (), packs=tuple(plan.packs))
    emitted = [KernelText(program, k).emit(*resources(k)) for k in ways]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    # kernels of equal names have equal texts and dtypes: layers that repeat are timed once
    key = cache.key("tuned", name, *(f"{launch.function} {launch.grid}" for _, launch in emitted))
    known = cache.lookup(key, ".txt")
    if known is None:
        functions = []
        for text, launch in emitted:
            dtypes = [SCRATCH.get(b) or program.buffers[b].dtype for b in launch.buffers]
            functions.append(function_of(launch, HEADER + text, dtypes, device.type))
        failed = compile_those_that_do(functions)
        times = [
            inf if n in failed else _time(program, launch, functions[n], device)
            for n, (_, launch) in enumerate(emitted)
        ]
        log.info("%s: %s", plan.kernel.name, ", ".join(f"{1e6 * t:.1f} us" for t in times))
        for n, error in failed.items():  # too much shared memory, say
            log.info("%s with %s: %s", plan.kernel.name, ways[n].schedules[-1], error)
        if min(times) == inf:
            log.warning("%s: none of %d ways could be timed", plan.kernel.name, len(ways))
            return ways[0]
        known = cache.store(key, ".txt", str(times.index(min(times))).encode())
    return ways[int(known.read_text())]


def _time(program: Program, launch: Launch, function: Any, device: torch.device) -> float:
    """Seconds of one launch; infinite for one that the GPU refuses. Launches in a row have memory
    of their own: second-level caches hold no more of it than in a network."""
    try:
        run = Segment(Operands(program), [(launch, function)])
        own = {program.base(b).name for b in launch.buffers if b in program.buffers}
        with plain_dispatch():  # torch.compile calls a backend where new tensors are fake
            scratch = Scratch.new(device, parts_at(program) + 4 * run.parts, run.counters + 1)
            values = [
                {b: _filled(program.buffers[b], device) for b in own}
                for _ in range(_copies(program, own, device))
            ]
            return _seconds(lambda n: run(values[n % len(values)], scratch), device)
    except Exception as e:
        log.info("%s: %s", launch.function, e)
        return inf


def seconds(executable: Executable, program: Program, device: torch.device) -> float:
    """Seconds of a call of a program, on memory of its own as above."""
    buffers = [program.buffers[b] for b in program.inputs]
    with plain_dispatch():
        calls: list[tuple[list[Any], list[Any]]] = []
        for _ in range(_copies(program, program.inputs, device)):
            own = {
                scope: [_laid(b, device) for b in buffers if b.scope == scope]
                for scope in ("input", "weight")
            }
            calls.append((own["input"], executable.prepare(own["weight"])))
        return _seconds(lambda n: executable(*calls[n % len(calls)]), device)


def _copies(program: Program, names: Iterable[str], device: torch.device) -> int:
    """How many sets of some buffers are used in turn."""
    total = sum(nbytes(program.buffers[b]) for b in names)
    return min(LAUNCHES, 1 + FLUSHED // max(total, 1)) if device.type == "cuda" else 1


def _laid(b: Buffer, device: torch.device) -> torch.Tensor:
    return _filled(b, device).as_strided(b.shape, b.strides)


def _filled(b: Buffer, device: torch.device) -> torch.Tensor:
    memory = torch.zeros(nbytes(b) // DTYPES[b.dtype][0], dtype=TORCH_DTYPE[b.dtype], device=device)
    return memory.uniform_() if memory.is_floating_point() else memory


def _seconds(call: Callable[[int], object], device: torch.device) -> float:
    call(0)
    if device.type != "cuda":
        began = time.perf_counter()
        call(0)
        return time.perf_counter() - began
    return seconds_in_graph(call)


def seconds_in_graph(launch: Callable[[int], object]) -> float:
    """Of one of the launches 0 to LAUNCHES - 1, on the current GPU, which were made before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for n in range(LAUNCHES):
            launch(n)
    found = []
    for _ in range(REPEATS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e-3 / LAUNCHES)
    return min(found[1:])
