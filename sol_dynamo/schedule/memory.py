"""Where every intermediate lives: one arena per call, addresses shared by lifetime.

A greedy first fit over buffers by size, largest first; two buffers may overlap when the runs of
kernels in which they live do not. Buffers of externs are tensors of their own.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import DTYPES, Extern, Program, read, written

ALIGN = 64  # bytes: a cache line and the widest vector


def plan_memory(program: Program) -> Program:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for position, k in enumerate(program.kernels):
        for name in (*read(k), *written(k)):
            if not name or program.buffers[name].scope == "local":
                continue
            base = program.base(name).name
            first.setdefault(base, position)
            last[base] = position
    held = {program.base(b).name for k in program.kernels if isinstance(k, Extern) for b in read(k)}
    live = [
        b
        for b in program.buffers.values()
        if b.scope == "arena" and b.base is None and b.name in first
    ]
    del held
    live.sort(key=lambda b: (-nbytes(b), first[b.name], b.name))
    placed: list[tuple[int, int, int, int]] = []  # first, last, start, end
    arena, top = {}, 0
    for b in live:
        size = -(-nbytes(b) // ALIGN) * ALIGN
        a, z = first[b.name], last[b.name]
        busy = sorted((s, e) for f, g, s, e in placed if f <= z and a <= g)
        start = 0
        for s, e in busy:
            if start + size <= s:
                break
            start = max(start, e)
        arena[b.name] = start
        placed.append((a, z, start, start + size))
        top = max(top, start + size)
    return replace(program, arena=arena, arena_bytes=top)


def nbytes(b) -> int:
    """Bytes from a buffer's first to its last element."""
    if 0 in b.shape:
        return 0
    span = 1 + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True))
    return span * DTYPES[b.dtype][0]
