"""Every way to walk the products of some networks, compiled and timed on a CUDA GPU.

    python -m benchmarks.tiles --net resnet50,mobilenet_v2 --batch 1,32 --out tiles.csv.gz
    python -m benchmarks.tiles --judge    # the model's choices in benchmarks/data/tiles_h100.csv.gz

What the constants in `kernels/triton/cost.py` were fitted to. Kernels are compiled by as many
processes as there are cores, then timed one after the other in CUDA graphs, each on several copies
of its memory in turn, so that a second-level cache does not hold what it would not in a network.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import random
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product as every
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from sol_dynamo import target
from sol_dynamo.backend import Backend
from sol_dynamo.ir import DTYPES, Kernel, Program
from sol_dynamo.kernels.triton import product
from sol_dynamo.kernels.triton.blocks import pow2
from sol_dynamo.kernels.triton.compile import compile_launch
from sol_dynamo.kernels.triton.cost import Machine, Shape, Tile, microseconds
from sol_dynamo.kernels.triton.launch import COUNTERS, PARTS, SCRATCH, Launch
from sol_dynamo.kernels.triton.nest import KernelText
from sol_dynamo.kernels.triton.program import HEADER, resources
from sol_dynamo.kernels.triton.target import TritonTarget
from sol_dynamo.kernels.triton.tune import FLUSHED, LAUNCHES, seconds_in_graph
from sol_dynamo.kernels.triton.walk import walk_kernel
from sol_dynamo.lowering.graph import TORCH_DTYPE
from sol_dynamo.schedule.memory import nbytes
from sol_dynamo.schedule.plan import Plan

from .networks import images, network

SIX = "resnet50,densenet121,mobilenet_v2,mnasnet0_5,shufflenet_v2_x0_5"
SIZES = (
    *((256, 64), (128, 128), (128, 64), (64, 128), (128, 32), (64, 64), (64, 32), (32, 128)),
    *((32, 64), (32, 32), (16, 64), (16, 32), (64, 16), (16, 128)),
)
DATA = Path(__file__).parent / "data" / "tiles_h100.csv.gz"  # 2026-11-26, triton 3.6
H100 = Machine(132, 227 << 10)
BLOCK = ("block_rows", "block_columns", "block_terms", "parts", "warps", "stages")
SHAPE = ("rows", "columns", "terms", "taps", "batch", "scattered", "unit")
COLUMNS = ("net", "images", *SHAPE, *BLOCK, "us")
MOST = 48  # tiles of a shape, drawn from what could do


@dataclass
class Job:
    """One way to walk one kernel of a network; `memory`: (bytes, dtype) of what it takes."""

    net: str
    images: int
    kernel: str
    shape: Shape
    tile: Tile
    text: str
    launch: Launch
    memory: list[tuple[int, str]]

    def compile(self) -> Any:
        """For an H100; Triton keeps it on disk."""
        return compile_launch(self.launch, HEADER + self.text, [d for _, d in self.memory], 90)

    def seconds(self) -> float:
        """Of one launch: the least of some means over as many copies of its memory."""
        kernel = self.compile()
        total = sum(size for size, _ in self.memory)
        copies = [self._memory() for _ in range(min(LAUNCHES, 1 + FLUSHED // max(total, 1)))]

        def launch(n: int) -> None:
            kernel[(self.launch.grid, 1, 1)](*copies[n % len(copies)], True)  # BEHIND, compiled in

        launch(0)
        return seconds_in_graph(launch)

    def _memory(self) -> list[torch.Tensor]:
        made = []
        for size, dtype in self.memory:
            t = torch.zeros(size // DTYPES[dtype][0], dtype=TORCH_DTYPE[dtype], device="cuda")
            made.append(t.uniform_() if t.is_floating_point() else t)
        return made


def wide(shape: Shape, machine: Machine) -> tuple[Tile, ...]:
    """Tiles to try: those that give most multiprocessors something to do, if any do."""
    found: dict[Tile, float] = {}
    for (bm, bn), bk, stages, parts in every(SIZES, (32, 64, 128), (2, 3, 4), (1, 2, 4, 8)):
        large = (bm > max(pow2(shape.rows), 16), bn > max(pow2(shape.columns), 16))
        if any(large) or bk > max(shape.terms, 32):
            continue
        trips = shape.taps * -(-shape.terms // bk)
        blocks = shape.batch * -(-shape.rows // bm) * -(-shape.columns // bn)
        if parts > 1 and (parts * 2 > trips or parts * blocks > 3 * machine.processors):
            continue
        if bk * (bm + bn) * stages * shape.bytes > machine.shared:
            continue
        if stages > max(2, trips // parts):
            continue
        few, many = bm * bn <= 1024, bm * bn >= 8192
        for warps in [w for w, ok in ((2, few), (4, bm * bn <= 8192), (8, many)) if ok]:
            tile = Tile(bm, bn, bk, parts, warps, stages)
            found[tile] = parts * blocks / machine.processors
    enough = min(0.4, max(found.values(), default=0))
    left = [t for t, f in found.items() if f >= enough]
    return tuple(random.Random(0).sample(left, min(len(left), MOST)))


def jobs(net: str, batch: int, precision: str, few: int) -> list[Job]:
    """Those of a network, for at most so many of its shapes."""
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision
    found: list[Job] = []
    asked: list[tuple[Shape, tuple[Tile, ...]]] = []

    def tiles(shape: Shape, machine: Machine) -> tuple[Tile, ...]:
        asked.append((shape, wide(shape, machine)))
        return asked[-1][1]

    def record(plan: Plan, ways: list[Kernel]) -> Kernel:
        shape, made = asked[-1]
        if any(j.shape == shape for j in found):
            return ways[0]
        program = Program(plan.buffers, tuple(ways), (), (), packs=tuple(plan.packs))
        rounded = frozenset(plan.buffers)  # by those who made it
        for k, tile in zip(ways, made, strict=True):
            text, launch = KernelText(program, k, rounded).emit(*resources(k))
            extra = {PARTS: 4 * launch.parts, COUNTERS: 4 * launch.counters}
            memory = [
                (extra[b], SCRATCH[b])
                if b in SCRATCH
                else (nbytes(program.base(b)), program.base(b).dtype)
                for b in launch.buffers
            ]
            found.append(Job(net, batch, plan.kernel.name, shape, tile, text, launch, memory))
        return ways[0]

    class Recording(TritonTarget):
        def walk(self, plan: Plan, measure: bool = False) -> None:
            walk_kernel(plan, record)

        def build(self, sources: dict[str, str], program: Program) -> Any:
            raise StopIteration

    target._loaded["cpu"] = Recording("cpu")
    product.tiles = tiles  # type: ignore[assignment]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.compile(network(net), backend=Backend(), dynamic=False)(images(batch, 224))
        except Exception:
            if not found:
                raise
    shapes = list(dict.fromkeys(j.shape for j in found))
    kept = shapes[:: -(-len(shapes) // few)]
    return [j for j in found if j.shape in kept]


def _compile(job: Job) -> str:
    try:
        job.compile()
        return ""
    except Exception as e:  # too much shared memory, say
        return f"{type(e).__name__}: {e}"[:100]


def _jobs(given: tuple[str, int, str, int]) -> list[Job]:
    return jobs(*given)


def rows(nets: Iterable[str], batches: Iterable[int], precision: str, few: int) -> list[dict]:
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {text}", flush=True)

    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        given = [(n, b, precision, few) for n in nets for b in batches]
        found = [j for own in pool.map(_jobs, given) for j in own]
        say(f"{len(found)} kernels")
        failed = list(pool.map(_compile, found, chunksize=8))
        say(f"compiled, {sum(map(bool, failed))} failed, {next(filter(None, failed), '')}")
    made = []
    for job, failure in zip(found, failed, strict=True):
        if not failure:
            try:
                seconds = job.seconds()
            except Exception as e:
                say(f"{job.kernel} {job.tile}: {e}"[:120])
                continue
            values = asdict(job.shape) | dict(zip(BLOCK, job.tile, strict=True))
            row = {"net": job.net, "images": job.images, **values, "us": round(1e6 * seconds, 2)}
            row["scattered"] = int(job.shape.scattered)
            made.append({name: row[name] for name in COLUMNS})
    say("timed")
    return made


def judge(path: Path) -> None:
    """How much slower the tile that the model prefers is than the best one, of those measured."""
    measured: dict[tuple[str, Shape], dict[Tile, float]] = {}
    with gzip.open(path, "rt") as f:
        for row in csv.DictReader(f):
            m, n, k, taps, batch = (
                int(row[k]) for k in ("rows", "columns", "terms", "taps", "batch")
            )
            shape = Shape(m, n, k, taps, batch, row["scattered"] == "1", unit=row["unit"])
            tile = Tile(*(int(row[k]) for k in BLOCK))
            if (tile.rows, tile.columns) in product.SIZES:
                measured.setdefault((row["net"], shape), {})[tile] = float(row["us"])
    for unit in ("tf32", "ieee"):
        losses = []
        for (_, shape), times in measured.items():
            if shape.unit == unit:
                cost = {t: microseconds(shape, t, H100) for t in times}
                losses.append(times[product.preferred(shape, cost)] / min(times.values()))
        mean = exp(sum(map(log, losses)) / len(losses))
        print(f"{unit}: {len(losses)} shapes, {mean:.3f} of the best, {max(losses):.2f} at worst")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--net", default=SIX)
    p.add_argument("--batch", default="1,32")
    p.add_argument("--precision", default="tf32", choices=("tf32", "ieee"))
    p.add_argument("--few", type=int, default=24, help="shapes of a network and batch, at most")
    p.add_argument("--out", type=Path, default=Path("tiles.csv.gz"))
    p.add_argument("--judge", type=Path, nargs="?", const=DATA, help="rows that --out wrote")
    args = p.parse_args()
    if args.judge:
        judge(args.judge)
        return
    nets, batches = args.net.split(","), [int(b) for b in args.batch.split(",")]
    with gzip.open(args.out, "wt") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(nets, batches, args.precision, args.few))


if __name__ == "__main__":
    main()
