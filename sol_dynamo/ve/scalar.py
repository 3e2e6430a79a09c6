"""Schedules that need fewer vector registers, or none, in place of those that a kernel has.

Without vectors, every nest is computed point by point within the loops that all of its kernel have
in common, sums innermost: what can be said in the loop IR can be written so.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import Kernel, Loops, Schedule

UNITS = 64  # at least, where the common loops have as many points


def without_vectors(kernel: Kernel) -> Kernel:
    """for all points of the common axes: for each nest: for its other axes: for what it sums."""
    root = kernel.body[-1]
    common = [
        a
        for a in root.axes
        if a.kind == "parallel"
        and all(any(a.symbol == b.symbol for b in n.axes) for n in kernel.body)
    ]
    frame = tuple(f"{a.symbol}.0" for a in common)
    parallel, points = 0, 1
    for a in common:
        if points >= UNITS:
            break
        points *= a.extent
        parallel += 1
    names = {a.symbol for a in common}
    schedules = []
    for nest in kernel.body:
        inner = _inside(nest, names)
        if nest is root:
            schedules.append(Schedule((*frame, *inner), parallel=parallel))
        else:
            at = (root.name, frame[-1] if frame else "")
            own = tuple(f"{a.symbol}.0" for a in nest.axes if a.symbol in names)
            schedules.append(Schedule((*own, *inner), at=at))
    return replace(kernel, schedules=tuple(schedules))


def _inside(nest: Loops, outer: set[str]) -> tuple[str, ...]:
    """The loops of a nest within the common ones: points, then positions, then sums."""
    kinds = ("parallel", "scan", "reduce")
    rest = [a for a in nest.axes if a.symbol not in outer]
    return tuple(f"{a.symbol}.0" for kind in kinds for a in rest if a.kind == kind)


def one_vector_at_a_time(kernel: Kernel) -> Kernel:
    """tile = {v: (1024,)}, four vectors in a tile  ==>  tile = {v: (256,)}, one of them"""
    schedules = []
    for s in kernel.schedules:
        tiles = dict(s.tile)
        if s.vector is not None:
            axis = s.vector[0].rpartition(".")[0]
            sizes = tiles.get(axis, ())
            if sizes and sizes[-1] > s.vector[1]:
                tiles[axis] = (*sizes[:-1], s.vector[1])
        schedules.append(replace(s, tile=tiles))
    return replace(kernel, schedules=tuple(schedules))
