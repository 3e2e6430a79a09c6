"""How long a product of blocks takes on a GPU, by a model fitted to measured times.

`benchmarks/tiles.py` timed 9,758 kernels in TF32 and 2,235 in float32, of 112 and 70 shapes of
five networks, on an H100 (benchmarks/data). The tile that `product.preferred` takes by the model is
3 % slower than the best in the mean (float32: 4 %), 22 % at worst (31 %):
`python -m benchmarks.tiles --judge`. The constants of loads, sums and parts were fitted again to
what `mode="max-autotune"` timed on four networks (RESULTS, 2026-11-27 10:25): they order tiles
better than they tell times, of which large products' are a sixth too long (`product.GAIN`).
`EIGHT_WARPS` was fitted to the former (RESULTS, 2026-11-29 02:10). Times are in us, rates those of
a multiprocessor per us.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LAUNCH = 2.25  # in a graph, with the memory of a first load and a last store
ROUND_TRIP = 0.13  # of a load, divided among the stages behind the first
STEP = 0.1  # barriers of an iteration
SMALL_ROWS = 64  # a product of fewer rows, or by fewer than four warps, is by slower instructions
LOADED = 93_600  # bytes from the second-level cache
STORED = 59_100  # bytes
ADDRESSED = 223  # elements loaded by a thread: their addresses
SCATTERED = 8_000  # elements whose addresses have terms to divide
PARTLY = 0.25  # more of an iteration where the last block of terms is not full
DRAM = 2.46e6  # bytes, of the whole GPU
EIGHT_WARPS = 0.6  # of a program that has them: where they are few iterations, waits fill less
SHARED_STEP, SHARED_BYTES, SHARED_STORED = 0.73, 53_900, 4.24  # of programs that share a block
WARPS, REGISTERS, OWN_REGISTERS = 64, 65536, 60  # of a multiprocessor; of a thread, beside sums,
MORE_REGISTERS = 30  # and for each loop behind the first (as compiled: 22 to 41)
SLOW, FAST = 0.98e6, 2.34e6  # flop of TF32
WAITING = 2.41  # the share of a load's wait that is left with one in flight


class Tile(NamedTuple):
    """A product's block."""

    rows: int
    columns: int
    terms: int
    parts: int  # programs that share it
    warps: int
    stages: int  # of the loop's loads


@dataclass(frozen=True)
class Shape:
    """A batch of products of (rows, terms) by (terms, columns) for each of some taps."""

    rows: int
    columns: int
    terms: int
    taps: int = 1
    batch: int = 1
    scattered: bool = False  # whether terms do not lie together
    bytes: int = 4  # of an operand's element
    unit: str = "tf32"  # what multiplies: "tf32", "half", or "ieee" for the plain pipes
    loops: int = 1  # one behind the other, of which `terms` are all


@dataclass(frozen=True)
class Machine:
    processors: int
    shared: int  # bytes of a multiprocessor


UNITS = {"tf32": 1.0, "half": 2.0}  # rates of units, to those of TF32
PLAIN, HALF_PLAIN = 0.4e6, 90  # flop of plain pipes; the sums of a thread that get half of them
SPILLS = 1024  # sums of a block beyond which plain products of more than 32 terms leave registers


# ATen's products: flop of the whole machine for each unit, and the share of it that is reached
ATEN = {"ieee": 0.39e6, "tf32": 3.1e6, "half": 6e6}
REACHED, REACHED_BY_FEW = 0.9, 0.7
CONVOLVED = {"ieee": 0.22e6, "tf32": 1.9e6, "half": 3.2e6}  # of convolutions, channels last


def aten_microseconds(
    s: Shape, machine: Machine, convolution: bool = False, followed: bool = True
) -> float:
    """The time of ATen's product (cuBLAS) or convolution (cuDNN), with that of a kernel for what
    follows it, if something does that would be part of ours. By rates of large ones; blocks of 128
    by 128, and of 64 by 64 where those are too few."""
    blocks = s.batch * -(-s.rows // 128) * -(-s.columns // 128)
    few = 4 * blocks / machine.processors
    reached = REACHED * min(1.0, few)
    if not convolution and blocks < machine.processors:
        reached = REACHED_BY_FEW * min(1.0, few)
    if convolution and s.unit != "ieee":
        reached *= min(1.0, s.columns / 128)
    rate = (CONVOLVED if convolution else ATEN)[s.unit] * machine.processors * reached
    flop = 2.0 * s.batch * s.rows * s.columns * s.terms * s.taps
    results = s.batch * s.rows * s.columns * s.bytes
    operands = s.batch * (s.rows + s.columns) * s.terms * s.bytes
    time = LAUNCH + max(flop / rate, (operands + results) / DRAM)
    return time + LAUNCH + 2 * results / DRAM if followed else time


def microseconds(s: Shape, t: Tile, machine: Machine) -> float:
    """The time of a kernel; infinite where its operands do not fit."""
    programs = s.batch * -(-s.rows // t.rows) * -(-s.columns // t.columns) * t.parts
    trips = -(-s.taps * -(-s.terms // t.terms) // t.parts)
    loaded = (t.rows + t.columns) * t.terms * s.bytes
    if loaded * t.stages > machine.shared:
        return float("inf")
    sums, threads = t.rows * t.columns, 32 * t.warps
    flop = 2 * sums * t.terms
    if s.unit == "ieee":
        if t.terms > 32 and sums > SPILLS:
            return float("inf")
        multiply = flop / PLAIN * (1 + HALF_PLAIN * threads / sums)
        multiply *= 1.25 if t.rows < SMALL_ROWS else 1
    elif t.rows >= SMALL_ROWS and t.warps >= 4:
        multiply = flop / (FAST * UNITS[s.unit])
    else:
        multiply = flop / (SLOW * UNITS[s.unit])
    multiply += STEP
    own = OWN_REGISTERS + MORE_REGISTERS * (s.loops - 1)
    together = min(
        machine.shared // (loaded * t.stages),
        WARPS // t.warps,
        int(REGISTERS // (threads * (sums / threads + own))),
    )
    together = max(together, 1)
    each = -(-programs // machine.processors)
    addresses = (t.rows + t.columns) * t.terms / threads / ADDRESSED
    share = SHARED_STEP + 4 * t.parts * sums / SHARED_BYTES if t.parts > 1 else 0.0
    waited = -(-each // together) * (
        trips * max(ROUND_TRIP / (t.stages - 1), multiply + addresses) + share
    )
    in_flight = min(together, each) * (t.stages - 1)
    read = (min(t.rows, s.rows) + min(t.columns, s.columns)) * t.terms * s.bytes
    worked = max(multiply, read / LOADED) * (1 + WAITING / in_flight)
    if s.terms % t.terms:
        worked *= 1 + PARTLY
    if s.scattered:
        worked += t.rows * t.terms / SCATTERED * (1 + (t.stages - 2) / 4)
    stored = 4 * sums / STORED * (1 + SHARED_STORED if t.parts > 1 else 1)
    busy = each * (trips * worked + stored + (EIGHT_WARPS if t.warps > 4 else 0))
    memory = s.batch * s.rows * (s.columns + s.terms) * s.bytes / DRAM
    return LAUNCH + (waited**4 + busy**4 + memory**4) ** 0.25


def loads_of(s: Shape, t: Tile) -> int:
    """The elements of operands that a kernel's programs load for each term."""
    blocks = s.batch * -(-s.rows // t.rows) * -(-s.columns // t.columns)
    return blocks * (min(t.rows, s.rows) + min(t.columns, s.columns))
