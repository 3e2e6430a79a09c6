"""Where every intermediate lives: one arena per call, addresses shared by lifetime.

A greedy first fit over buffers by size, largest first; two buffers may overlap when the runs of
kernels in which they live do not. Buffers of externs are tensors of their own.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import DTYPES, Program, read, written

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
    band, band_top = _place(private, first, last)
    return replace(program, arena=arena, arena_bytes=top, band=band, band_bytes=band_top)


def _place(live: list, first: dict[str, int], last: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets by first fit, largest buffers first."""
    placed: list[tuple[int, int, int, int]] = []  # first, last, start, end
    offsets, top = {}, 0
    for b in sorted(live, key=lambda b: (-nbytes(b), first[b.name], b.name)):
        size = -(-nbytes(b) // ALIGN) * ALIGN
        a, z = first[b.name], last[b.name]
        start = 0
        for s, e in sorted((s, e) for f, g, s, e in placed if f <= z and a <= g):
            if start + size <= s:
                break
            start = max(start, e)
        offsets[b.name] = start
        placed.append((a, z, start, start + size))
        top = max(top, start + size)
    return offsets, top


def nbytes(b) -> int:
    """Bytes from a buffer's first to its last element."""
    if 0 in b.shape:
        return 0
    span = 1 + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True))
    return span * DTYPES[b.dtype][0]
