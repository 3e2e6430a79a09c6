"""Simulated times on the vector engine, kernel by kernel: what the simulator's cycle model says.

    python -m benchmarks.ve --net resnet50 --cores 1      # each op's kernels together
    python -m benchmarks.ve --net resnet50 --cores 8
    python -m benchmarks.ve --layers                      # convolutions and products by themselves

A program is compiled as for a user, then each of its steps runs alone: its units on as many cores
as asked for, each a context of its own, one behind the other, with caches as the step before left
them. A step's time is that of the slowest core and, with several, of the barrier behind it. Numbers
are simulated: none was measured on a card.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from dataclasses import dataclass
from math import prod
from typing import Any

os.environ.setdefault("SOL_VE_DRIVER", "sim")

import torch
from torch import nn

from sol_dynamo.backend import Backend
from sol_dynamo.ir import Extern, Kernel, Program, is_op, loads
from sol_dynamo.kernels.c.program import addresses
from sol_dynamo.schedule.memory import nbytes
from sol_dynamo.schedule.nests import is_contraction
from sol_dynamo.ve import compiler
from sol_dynamo.ve.driver import Driver, open_driver
from sol_dynamo.ve.driver import Kernel as Times
from sol_dynamo.ve.program import prelude

from .networks import images, network

PEAK = 384  # packed float32 flop of a core in a cycle
CLOCK = 1.6e9  # VE20B
BARRIER = 2000  # cycles: cycle_parameters.h
CALL = """
void bench(void (*fn)(const sol_call *, long), const sol_call *c, long first, long last, long n) {
  for (long at = 0; at < n; at += 128)
    __asm__ volatile("pfch 0(,%0)" ::"r"((const char *)fn + at));
  for (long u = first; u < last; u++) fn(c, u);
}
"""
# channels, height and width, outputs, taps, stride: resnet50's convolutions
LAYERS = [
    (3, 224, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1),
    (256, 56, 64, 1, 1), (256, 56, 128, 1, 1), (128, 56, 128, 3, 2), (128, 28, 512, 1, 1),
    (256, 56, 512, 1, 2), (512, 28, 128, 1, 1), (128, 28, 128, 3, 1), (512, 28, 256, 1, 1),
    (256, 28, 256, 3, 2), (256, 14, 1024, 1, 1), (512, 28, 1024, 1, 2), (1024, 14, 256, 1, 1),
    (256, 14, 256, 3, 1), (1024, 14, 512, 1, 1), (512, 14, 512, 3, 2), (512, 7, 2048, 1, 1),
    (1024, 14, 2048, 1, 2), (2048, 7, 512, 1, 1), (512, 7, 512, 3, 1),
]  # fmt: skip
PRODUCTS = [1024, 512, 256]


@dataclass(frozen=True)
class Row:
    """One kernel's, or one op's, simulated time."""

    name: str
    flops: int
    cycles: int
    times: tuple[Times, ...]  # of each core that had something to do
    cores: int

    @property
    def peak(self) -> float:
        return self.flops / (PEAK * self.cores * max(self.cycles, 1))

    @property
    def ratio(self) -> float:
        """The share of operations that vector instructions did."""
        done = sum(t.vector_elements for t in self.times)
        scalar = sum(t.instructions - t.vector_instructions for t in self.times)
        return done / max(done + scalar, 1)

    @property
    def length(self) -> float:
        done = sum(t.vector_elements for t in self.times)
        return done / max(sum(t.vector_instructions for t in self.times), 1)


class Card:
    """A simulated card's memory and cores."""

    def __init__(self, cores: int):
        self.driver: Driver = open_driver()
        self.lib = self.driver.lib
        self.process = self.lib.veo_proc_create(-1)
        assert self.process, self.driver.last_error()
        self.cores = [self.lib.veo_context_open(self.process) for _ in range(cores)]
        self.lib.vesim_cycles_enable(self.process, 2)
        self.lib.vesim_cycles_share(self.process, cores)

    def close(self) -> None:
        self.lib.veo_proc_destroy(self.process)

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        assert self.lib.veo_alloc_mem(self.process, ctypes.byref(address), max(size, 64)) == 0
        return address.value

    def write(self, address: int, words: list[int]) -> None:
        data = (ctypes.c_uint64 * len(words))(*words)
        size = ctypes.sizeof(data)
        assert self.lib.veo_write_mem(self.process, address, data, size) == 0

    def function(self, path: Any, name: str) -> int:
        library = self.lib.veo_load_library(self.process, str(path).encode())
        assert library, self.driver.last_error()
        return self.lib.veo_get_sym(self.process, library, name.encode())

    def call(self, core: int, function: int, *arguments: int) -> Times:
        """The simulated times of one call. Errors: `RuntimeError` for a fault."""
        context = self.cores[core]
        self.lib.vesim_report_clear(context)
        given = self.lib.veo_args_alloc()
        for n, value in enumerate(arguments):
            self.lib.veo_args_set_i64(given, n, value)
        request = self.lib.veo_call_async(context, function, given)
        result = ctypes.c_uint64()
        status = self.lib.veo_call_wait_result(context, request, ctypes.byref(result))
        self.lib.veo_args_free(given)
        if status:
            raise RuntimeError(self.lib.vesim_last_fault(context).decode())
        (row,) = self.driver.report(context)
        return row


def simulate(model: Any, *inputs: torch.Tensor, cores: int = 1) -> list[tuple[Kernel, Row]]:
    """Each kernel of a model's graph with its simulated time."""
    backend = Backend()
    placed = model.to("ve") if isinstance(model, nn.Module) else model
    run = torch.compile(placed, backend=backend, dynamic=False)
    with torch.no_grad():
        run(*(x.to("ve") for x in inputs))
    outcome: Any = backend.graphs[0]
    made = outcome.compiled if outcome.compiled is not None else outcome.runner.compiled
    program: Program = made.program
    built = made.executable.built
    kernels = [k for k in program.kernels if not isinstance(k, Extern)]
    assert not program.depth_first
    card = Card(cores)
    _, slots = addresses(program)
    table = [card.allocate(nbytes(program.buffers[n])) for n in slots]
    pointers, call = card.allocate(8 * len(table)), card.allocate(8 * 6 * cores)
    card.write(pointers, table or [0])
    arena = card.allocate(program.arena_bytes)
    scratch = max([64, *(s.scratch for s in built.steps)])
    for core in range(cores):
        words = [pointers, arena, card.allocate(scratch), 0, 0, card.allocate(64)]
        card.write(call + 48 * core, words)
    runner = compiler.compile_objects({"bench.c": prelude() + CALL})["bench.c"]
    bench = card.function(runner, "bench")
    rows = []
    for k, step, path in zip(kernels, built.steps, built.objects, strict=True):
        function, code = card.function(path, step.name), compiler.code_bytes(path, step.name)
        times = []
        for core in range(cores):
            first, last = step.units * core // cores, step.units * (core + 1) // cores
            if first < last:
                times.append(card.call(core, bench, function, call + 48 * core, first, last, code))
        cycles = max([0, *(t.cycles for t in times)]) + BARRIER * (cores > 1)
        rows.append((k, Row(k.name, flops(k), cycles, tuple(times), cores)))
    card.close()
    return rows


def flops(kernel: Kernel) -> int:
    """Two for each multiply-add of a sum of products, padding's too."""
    return sum(
        2 * prod(a.extent for a in n.axes)
        for n in kernel.body
        if n.reduce_axes and is_op(n.stores[0].values[0], "mul")
    )


def by_op(rows: list[tuple[Kernel, Row]]) -> list[Row]:
    """The kernels of one origin together: a product with the copies that it needs."""
    found: dict[Any, list[tuple[Kernel, Row]]] = {}
    for k, row in rows:
        found.setdefault(k.origin or k.name, []).append((k, row))
    merged = []
    for group in found.values():
        own = [r for _, r in group]
        main = next((k for k, r in group if r.flops), group[-1][0])
        what = ", ".join(o.removeprefix("aten.").split(".")[0] for o in main.origin.ops)
        name = f"{what} {shape(main)}"
        cycles = sum(r.cycles for r in own)
        times = tuple(t for r in own for t in r.times)
        merged.append(Row(name, sum(r.flops for r in own), cycles, times, own[0].cores))
    return merged


def shape(kernel: Kernel) -> str:
    """Extents of the points and, in brackets, of what is summed."""
    nest = kernel.body[0]
    points = "x".join(str(a.extent) for a in nest.axes if a.kind == "parallel")
    terms = "x".join(str(a.extent) for a in nest.reduce_axes)
    dense = "" if not is_contraction(nest) or not list(loads(nest)) else way(kernel)
    return f"{points}{f' ({terms})' if terms else ''}{dense}"


def way(kernel: Kernel) -> str:
    own = kernel.schedules[0].own if kernel.schedules else None
    if own is None:
        return ""
    kind = "pairs" if own.pairs else "lanes"
    return f", {kind} {own.vectors}x{own.scalars} VL {own.length}"


def table(title: str, rows: list[Row], cores: int) -> None:
    print(f"{title}: simulated, VE20B, {cores} core{'s' * (cores > 1)}")
    print("| op | cycles | simulated us | % of peak | vector ops | average VL |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in rows:
        peak = f"{100 * r.peak:.0f}" if r.flops else ""
        print(
            f"| {r.name} | {r.cycles} | {1e6 * r.cycles / CLOCK:.1f} | {peak} |"
            f" {100 * r.ratio:.1f} % | {r.length:.0f} |",
            flush=True,
        )
    cycles, done = sum(r.cycles for r in rows), sum(r.flops for r in rows)
    share = done / (PEAK * cores * cycles)
    print(
        f"all: {cycles} cycles, {1e3 * cycles / CLOCK:.2f} ms simulated, "
        f"{100 * share:.1f} % of peak\n"
    )


def layer(c: int, size: int, outs: int, taps: int, stride: int) -> tuple[str, nn.Module, Any]:
    conv = nn.Conv2d(c, outs, taps, stride, taps // 2)
    name = f"{taps}x{taps}{f' s{stride}' if stride > 1 else ''} {c}->{outs}@{-(-size // stride)}"
    return name, nn.Sequential(conv, nn.ReLU()).eval(), torch.randn(1, c, size, size)


def layers(cores: int) -> None:
    """Each convolution of resnet50 and some products, alone: inputs and weights are in memory."""
    rows = []
    for sizes in LAYERS:
        name, model, x = layer(*sizes)
        rows.append(_alone(name, simulate(model, x, cores=cores), cores))
    for n in PRODUCTS:
        made = simulate(torch.matmul, torch.randn(n, n), torch.randn(n, n), cores=cores)
        rows.append(_alone(f"matmul {n}^3", made, cores))
    table("resnet50's convolutions with bias and ReLU, and products", rows, cores)


def _alone(name: str, made: list[tuple[Kernel, Row]], cores: int) -> Row:
    torch._dynamo.reset()
    main = next((k for k, r in made if r.flops), made[-1][0])
    times = tuple(t for _, r in made for t in r.times)
    cycles, done = sum(r.cycles for _, r in made), sum(r.flops for _, r in made)
    return Row(f"{name}{way(main)}", done, cycles, times, cores)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--net", default="")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--cores", type=int, default=1)
    p.add_argument("--layers", action="store_true", help="resnet50's convolutions, products")
    p.add_argument("--kernels", action="store_true", help="every kernel in a row of its own")
    a = p.parse_args()
    if not (a.layers or a.net):
        p.error("nothing to run: give --net, or --layers")
    torch.manual_seed(0)
    if a.layers:
        layers(a.cores)
    if a.net:
        made = simulate(network(a.net), images(a.batch), cores=a.cores)
        rows = [r for _, r in made] if a.kernels else by_op(made)
        table(f"{a.net}, batch {a.batch}", rows, a.cores)


if __name__ == "__main__":
    main()
