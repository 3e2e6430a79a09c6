"""Results of the same points are made by one kernel: readers of a result, and neighbouring slices.

    y = f(x); z = g(y), and y is read elsewhere  ==>  one kernel: y = f(x), z = g(f(x))
    c[:n] = f(x); c[n:] = g(y)  ==>  one kernel: c[:n] = f(x), c[n:] = g(y)

A ReLU and the mask that backward needs of it, say: the second kernel would read all of y again; or
the halves of a channel shuffle. It is for machines that run kernel by kernel; those that walk
images keep single results.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..ir import (
    Buffer,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Program,
    Store,
    loads,
    read,
    rewrite,
    subst,
    written,
)
from .group import same_points
from .inline import merge_origins
from .nests import dimensions, scans

MOST = 4  # stores of a kernel,
FEW, MOST_OF_FEW = 1 << 14, 16  # and of one with few points, which takes no longer than its launch
NEXT = 1 << 16  # points up to which a slice is made beside another: large ones run as fast alone


@dataclass
class _Made:
    """Kernels so far, and what they do to memory."""

    kernels: list[Kernel | Extern]
    writer: dict[str, int]  # memory -> the last of them that writes it,
    reader: dict[str, int]  # and that reads it


def merge_beside(program: Program) -> Program:
    """The equations above, in program order."""
    made = _Made([], {}, dict.fromkeys(program.inputs, -1))
    for k in program.kernels:
        place = _host(program, k, made)
        if place is not None:
            host = made.kernels[place]
            assert isinstance(k, Kernel) and isinstance(host, Kernel)
            made.kernels[place] = _joined(host, k)
        else:
            place = len(made.kernels)
            made.kernels.append(k)
        for b in written(k) if isinstance(k, Kernel) else [b for b in k.outs if b]:
            made.writer[program.base(b).name] = place
        for b in (program.base(b).name for b in read(k)):
            made.reader[b] = max(place, made.reader.get(b, -1))
    return replace(program, kernels=tuple(made.kernels))


def _host(program: Program, k: Kernel | Extern, made: _Made) -> int | None:
    """The kernel that is to make k's results, too."""
    if isinstance(k, Extern) or len(k.body) != 1 or not is_pointwise(k.body[0]):
        return None
    (nest,) = k.body
    new = [program.buffers[b] for s in nest.stores for b in s.buffers]
    if any(b.scope == "input" for b in new):
        return None
    source = max((made.writer.get(program.base(b).name, -1) for b in read(k)), default=-1)
    beside = any(b.base is not None for b in new)
    if beside:
        place = _beside(program, new[0], made) if len(new) == 1 else -1
        if source >= place:  # which has to be there before
            return None
    else:
        place = source
        if any(b.name in made.reader or b.name in made.writer for b in new):
            return None
    if place < 0:
        return None
    host = made.kernels[place]
    if isinstance(host, Extern) or not is_pointwise(host.body[-1]):
        return None
    root = host.body[-1]
    names = same_points(nest, root)
    most = MOST_OF_FEW if prod(a.extent for a in root.axes) <= FEW else MOST
    if names is None or len(root.stores) + len(nest.stores) > most:
        return None
    return place if beside or _reads_results(program, nest, host, names) else None


def _beside(program: Program, part: Buffer, made: _Made) -> int:
    """The last kernel that writes the tensor of which a result is a slice, if it wrote others and
    nobody has read the tensor since; -1: there is none."""
    base = program.base(part.name).name
    place = made.writer.get(base, -1)
    if place < 0 or part.numel > NEXT or made.reader.get(base, -1) >= place:
        return -1
    host = made.kernels[place]
    if isinstance(host, Extern):
        return -1
    others = [program.buffers[b] for b in written(host) if program.base(b).name == base]
    return place if all(_apart(part, b) for b in others) else -1


def _apart(a: Buffer, b: Buffer) -> bool:
    """Whether two slices of equal layout share no element: they follow each other along an axis."""
    if a.base is None or (a.base, a.shape, a.strides) != (b.base, b.shape, b.strides):
        return False
    if not all(isinstance(n, int) for n in (a.offset, b.offset, *a.shape, *a.strides)):
        return False
    between = abs(a.offset - b.offset)
    dims = sorted((s, n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1)
    for at, (stride, extent) in enumerate(dims):
        outer = dims[at + 1][0] if at + 1 < len(dims) else None
        follows = between % stride == 0 and between >= stride * extent
        if follows and (outer is None or between + stride * extent <= outer):
            return True
    return False


def _reads_results(program: Program, nest: Loops, host: Kernel, names: dict[str, str]) -> bool:
    """Whether a nest reads something of what a kernel's last nest stores, all of it point by
    point."""
    results = {b: s.index for s in host.body[-1].stores for b in s.buffers}
    memory = {program.base(b).name for b in written(host)}
    own = [e for e in loads(nest) if program.base(e.buffer).name in memory]
    for e in own:
        index = tuple(i.subst(names) for i in e.index)
        if e.mask or results.get(e.buffer) != index:
            return False
    return bool(own)


def _joined(host: Kernel, k: Kernel) -> Kernel:
    (nest,), root = k.body, host.body[-1]
    names = same_points(nest, root)
    assert names is not None
    values = {
        (b, s.index): v for s in root.stores for b, v in zip(s.buffers, s.values, strict=True)
    }

    def made_here(e: Expr) -> Expr:
        return values.get((e.buffer, e.index), e) if isinstance(e, Load) else e

    stores = tuple(
        Store(
            s.buffers,
            tuple(i.subst(names) for i in s.index),
            tuple(rewrite(subst(v, names), made_here) for v in s.values),
        )
        for s in nest.stores
    )
    root = replace(root, stores=(*root.stores, *stores))
    origin = merge_origins(host.origin, k.origin)
    return replace(host, body=(*host.body[:-1], root), origin=origin)


def is_pointwise(nest: Loops) -> bool:
    """Whether each point of a nest stores its own values, all of them for the same element."""
    plain = not (nest.reduce_axes or nest.binds or scans(nest))
    indices = {s.index for s in nest.stores}
    whole = not any(s.reduce or s.mask for s in nest.stores)
    return plain and whole and len(indices) == 1 and dimensions(nest) is not None
