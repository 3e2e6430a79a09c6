"""Copies as addresses: a value that is only copied into a slice of a larger buffer is born there.

    x = f(...); cat[0:64] = x  ==>  x is a view of cat; x = f(...)

DenseNet's nested concatenations become one buffer per block in this way. Later copies are looked at
first, so that a chain of nested slices is resolved from its largest buffer down, each once.
"""

from __future__ import annotations

from dataclasses import replace

from ..affine import Index
from ..ir import Buffer, Extern, Kernel, Load, Program, written


def place_slices(program: Program) -> Program:
    """Turn producers of copied-from buffers into producers of the slices; drop those copies."""
    buffers = dict(program.buffers)
    views: dict[str, list[str]] = {}
    for b in buffers.values():
        if b.base is not None:
            views.setdefault(b.base, []).append(b.name)
    ours = {n for k in program.kernels if isinstance(k, Kernel) for n in written(k)}
    foreign = {n for k in program.kernels if isinstance(k, Extern) for n in k.outs}
    dropped: set[int] = set()
    for i in range(len(program.kernels) - 1, -1, -1):
        copy = copied(program.kernels[i])
        if copy is None:
            continue
        source, target = buffers[copy[0]], buffers[copy[1]]
        if target.base is None or source.base is not None or source.scope != "arena":
            continue
        if source.shape != target.shape:  # a crop: less than the source is copied
            continue
        own = [source.name, *views.get(source.name, ())]
        if source.name in foreign or not any(n in ours for n in own):
            continue
        if source.dtype != target.dtype or any(
            not slice_of(buffers[v], source) for v in views.get(source.name, ())
        ):
            continue
        for name in views.pop(source.name, ()):
            v = buffers[name]
            start = slice_start(v, source)
            offset = target.offset + sum(s * t for s, t in zip(start, target.strides, strict=True))
            buffers[name] = replace(v, base=target.base, strides=target.strides, offset=offset)
            views.setdefault(target.base, []).append(name)
        buffers[source.name] = replace(
            source,
            base=target.base,
            strides=target.strides,
            offset=target.offset,
            scope=target.scope,
        )
        views.setdefault(target.base, []).append(source.name)
        dropped.add(i)
    kernels = tuple(k for i, k in enumerate(program.kernels) if i not in dropped)
    return replace(program, buffers=buffers, kernels=kernels)


def copied(kernel: Kernel | Extern) -> tuple[str, str] | None:
    """(source, target) of a kernel that only copies: a whole target, at its indices."""
    if isinstance(kernel, Extern) or len(kernel.body) != 1:
        return None
    nest = kernel.body[0]
    (store,) = nest.stores[:1]
    value = store.values[0]
    if len(nest.stores) > 1 or store.reduce or store.mask or nest.binds:
        return None
    if not isinstance(value, Load) or value.mask or value.index != store.index:
        return None
    return value.buffer, store.buffers[0]


def slice_of(v: Buffer, base: Buffer) -> bool:
    """Whether v is a plain slice of base: same rank, same strides."""
    if len(v.shape) != len(base.shape):
        return False
    same = all(n == 1 or s == t for n, s, t in zip(v.shape, v.strides, base.strides, strict=True))
    start = slice_start(v, base)
    fits = all(a + n <= m for a, n, m in zip(start, v.shape, base.shape, strict=True))
    return same and fits and base.address(tuple(map(Index.of, start))).const == v.offset


def slice_start(v: Buffer, base: Buffer) -> list[int]:
    """The multi-dimensional position of v's first element in its dense base."""
    start, rest = [0] * len(base.shape), v.offset
    for d in sorted(range(len(base.shape)), key=lambda d: -base.strides[d]):
        if base.shape[d] > 1:
            start[d], rest = divmod(rest, base.strides[d])
    return start
