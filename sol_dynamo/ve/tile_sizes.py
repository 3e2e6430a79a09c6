"""How large a tile is: vectors, scalars, and what is under way, for the fewest cycles.

A rough model of the cycle model: what limits one term of a tile's sum, how long a tile takes to
start and to end, and how many tiles a core gets.
"""

from __future__ import annotations

from math import ceil, prod

from ..ir import Axis
from ..schedule.plan import Plan
from .emit_dense import LANES, Product

REGISTERS = 54  # for sums, the ring and copies: the others are for totals and what follows
FMA = 3  # pipes
LATENCY = 26  # cycles of an FMA, which sums must cover
AHEAD = 400  # cycles that a load from memory takes
PART = 256  # terms of a sum that one accumulator takes: longer ones are added in parts
START = 700  # cycles in which a tile's first loads come


def tile(
    plan: Plan,
    pairs: bool,
    elements: int,
    points: int,
    columns: int,
    deep: tuple[Axis, ...],
    taps: tuple[Axis, ...],
    batch: tuple[Axis, ...],
    apart: bool,
) -> tuple[float, Product] | None:
    """The tile that takes the fewest cycles, and these. `apart`: results along the vectors lie
    apart in memory."""
    lanes = elements if pairs else -(-elements // 2)
    words = -(-columns // 2) if pairs else columns
    depth, written = prod(a.extent for a in deep), prod(a.extent for a in taps)
    terms, times = depth * written, prod(a.extent for a in batch)
    cores = max(plan.caps.cores, 1)
    best: tuple[float, float, Product] | None = None
    for vectors in (1, 2, 4, 8):
        if vectors > 1 and lanes < vectors * 16:
            continue
        # the second of two vectors may start one early or end one late only where there are gaps
        if pairs and (vectors > 2 or (vectors == 2 and elements % 2 and elements == points)):
            continue
        least = -(-lanes // (LANES * vectors))
        for groups in dict.fromkeys((least, least + 1, -(-least // cores) * cores)):
            length = -(-lanes // (groups * vectors))
            count = -(-lanes // (length * vectors))
            if length > LANES or count != groups:
                continue
            for scalars in range(1, min(32 // vectors, words) + 1):
                blocks = -(-words // scalars)
                if scalars != -(-words // blocks):
                    continue
                sets = _sets(vectors * scalars, length)
                steps, ring = _ring(depth, written, vectors, scalars, pairs, length, sets)
                while steps * written % sets:
                    sets //= 2
                step = _step_cost(vectors, scalars, pairs, length, sets)
                turns = -(-length // 32)
                flushes = terms // PART * vectors * scalars * turns * 1.5
                tail = vectors * scalars * (length if apart else 4 * turns)
                tile = START + terms * step + flushes + tail + steps * written * scalars * vectors
                if ring * step < AHEAD:
                    tile += terms / ring * (AHEAD - ring * step) / 2
                units = times * groups * blocks
                cost = -(-units // cores) * tile
                part = max(1, PART // (steps * written))
                p = Product(
                    pairs, (), (), (), tuple(a.symbol for a in deep), tuple(a.symbol for a in taps),
                    vectors, scalars, length, groups, steps, ring, part, sets,
                )  # fmt: skip
                key = (cost, -vectors * scalars)
                if best is None or key < best[:2]:
                    best = (*key, p)
    return None if best is None else (best[0], best[2])


def _sets(sums: int, length: int) -> int:
    """Sets of sums that take turns: with few of them each would wait for itself."""
    busy = sums * -(-length // 32) / FMA
    return 1 if 2 * busy > LATENCY else 2 if 4 * busy > LATENCY or sums > 8 else 4


def _step_cost(vectors: int, scalars: int, pairs: bool, length: int, sets: int = 1) -> float:
    """Cycles of one term of the sum for a tile: pipes, issue, latency, and lines of scalars."""
    turns = -(-length // 32)
    fma = vectors * scalars * turns / FMA
    issue = vectors * scalars + scalars * 1.07 + vectors * (3 if pairs else 2)
    lines = scalars * 8 / 128 * 30
    return max(fma, issue, LATENCY / sets, lines, vectors * 8.5)


def _ring(
    depth: int, written: int, vectors: int, scalars: int, pairs: bool, length: int, sets: int
) -> tuple[int, int]:
    """How many steps of the deep axes a turn has, and how many loads are under way: so many divide
    the turn's, reach back for the latency of memory and leave registers."""
    free = REGISTERS - vectors * scalars * sets - (2 * vectors if pairs else 0)
    most = max(1, free // vectors)
    want = ceil(AHEAD / _step_cost(vectors, scalars, pairs, length, sets))
    best, choice = None, (1, 1)
    for steps in range(1, min(depth, 32) + 1):
        size = steps * written
        if steps > 1 and size > 32:
            break
        if size % sets and depth * written >= sets:
            continue
        rest = depth % steps
        for ring in range(1, min(most, size) + 1):
            if size % ring:
                continue
            key = (max(want - ring, 0) + rest * written * 0.5 + size * 0.05, size)
            if best is None or key < best:
                best, choice = key, (steps, ring)
    return choice
