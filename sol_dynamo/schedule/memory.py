"""Where every intermediate lives: one arena per call, addresses shared by lifetime.

A greedy first fit over buffers by size, largest first; two buffers may overlap when the runs of
kernels in which they live do not. Buffers of externs are tensors of their own.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import DTYPES, Buffer, Program, read, written

ALIGN = 64  # bytes: a cache line and the widest vector


def plan_memory(program: Program) -> Program:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    band_of = {p: d for d in program.depth_first for p in range(d.first, d.last)}
    users: dict[str, set] = {}
    for position, k in enumerate(program.kernels):
        band = band_of.get(position)
        for name in (*read(k), *written(k)):
            if not name or program.buffers[name].scope == "local":
                continue
            base = program.base(name).name
            users.setdefault(base, set()).add(band)
            # what crosses a band's border lives through all of it: chunks run at any time
            first[base] = min(first.get(base, position), position)
            last[base] = max(last.get(base, position), position)
    for base, bands in users.items():
        if len(bands) > 1:
            for d in bands - {None}:
                first[base] = min(first[base], d.first)
                last[base] = max(last[base], d.last - 1)
    live = [
        b
        for b in program.buffers.values()
        if b.scope == "arena" and b.base is None and b.name in first
    ]
    private = [b for b in live if len(users[b.name]) == 1 and None not in users[b.name]]
    names = {b.name for b in private}
    arena, top = _place([b for b in live if b.name not in names], first, last)
    private_places, band_top = _place(private, first, last)
    return replace(program, arena=arena, arena_bytes=top, band=private_places, band_bytes=band_top)


def _place(
    live: list[Buffer], first: dict[str, int], last: dict[str, int]
) -> tuple[dict[str, int], int]:
    """Offsets by first fit, largest buffers first; and the end of the highest.

    Who lives at the same time is found by position, so that the cost is that of the lifetimes.
    """
    alive: dict[int, list[tuple[int, int]]] = {}  # position -> spans of memory in use there
    born: dict[int, list[tuple[int, int]]] = {}  # position -> those that start to live there
    offsets, top = {}, 0
    for b in sorted(live, key=lambda b: (-nbytes(b), first[b.name], b.name)):
        size = -(-nbytes(b) // ALIGN) * ALIGN
        a, z = first[b.name], last[b.name]
        taken = list(alive.get(a, ()))
        for position in range(a + 1, z + 1):
            taken += born.get(position, ())
        start = 0
        for s, e in sorted(taken):
            if start + size <= s:
                break
            start = max(start, e)
        offsets[b.name] = start
        top = max(top, start + size)
        born.setdefault(a, []).append((start, start + size))
        for position in range(a, z + 1):
            alive.setdefault(position, []).append((start, start + size))
    return offsets, top


def nbytes(b: Buffer) -> int:
    """Bytes from a buffer's first to its last element."""
    if 0 in b.shape:
        return 0
    span = 1 + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True))
    return span * DTYPES[b.dtype][0]
