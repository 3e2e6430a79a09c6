"""Choosing among several ways to walk a kernel by timing them, as `mode="max-autotune"` asks.

Each way is one kernel with other blocks, on memory of its own. What was chosen is kept on disk, by
the kernels' text and the GPU's name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf

import torch

from ...ir import DTYPES, Kernel, Program
from ...lowering.graph import TORCH_DTYPE
from ...runtime import cache
from ...schedule.memory import nbytes
from ...schedule.plan import Plan
from ..host import Operands
from .binary import compile_ahead, function_of
from .launch import SCRATCH, Launch
from .nest import KernelText
from .program import HEADER, resources
from .scratch import Scratch, parts_at
from .segment import Segment

log = logging.getLogger("sol_dynamo")
LAUNCHES = 20  # in a row, in one CUDA graph
REPEATS = 5  # of these; the fastest counts


def fastest(plan: Plan, ways: list[Kernel], device: torch.device) -> Kernel:
    """The way that takes the least time on a device. One that does not compile takes forever."""
    program = Program(plan.buffers, tuple(ways), (), (), packs=tuple(plan.packs))
    emitted = [KernelText(program, k).emit(*resources(k)) for k in ways]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    key = cache.key("tuned", name, *map(repr, emitted))
    known = cache.lookup(key, ".txt")
    if known is None:
        times = [
            _time(program, k, text, x, device) for k, (text, x) in zip(ways, emitted, strict=True)
        ]
        log.info("%s: %s", plan.kernel.name, ", ".join(f"{1e6 * t:.1f} us" for t in times))
        known = cache.store(key, ".txt", str(times.index(min(times))).encode())
    return ways[int(known.read_text())]


def _time(program: Program, k: Kernel, text: str, launch: Launch, device: torch.device) -> float:
    """Seconds of one launch."""
    try:
        dtypes = [SCRATCH.get(b) or program.buffers[b].dtype for b in launch.buffers]
        function = function_of(launch, HEADER + text, dtypes, device.type)
        compile_ahead([function])
        run = Segment(Operands(program), [(launch, function)])
        scratch = Scratch.new(device, parts_at(program) + 4 * run.parts, run.counters + 1)
        values = {}
        for b in {program.base(b).name for b in launch.buffers if b in program.buffers}:
            dtype = program.buffers[b].dtype
            memory = torch.zeros(
                nbytes(program.buffers[b]) // DTYPES[dtype][0],
                dtype=TORCH_DTYPE[dtype], device=device,
            )  # fmt: skip
            values[b] = memory.uniform_() if memory.is_floating_point() else memory
        return _seconds(lambda: run(values, scratch), device)
    except Exception as e:  # too much shared memory, say
        log.info("%s with %s: %s", k.name, k.schedules[-1], e)
        return inf


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    return seconds_in_graph(lambda _: call())


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
