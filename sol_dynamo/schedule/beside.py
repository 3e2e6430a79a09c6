"""What reads a result point by point is made where the result is, if the result is kept anyway.

    y = f(x); z = g(y), and y is read elsewhere  ==>  one kernel: y = f(x), z = g(f(x))

A ReLU and the mask that backward needs of it, say: the second kernel would read all of y again. It
is for machines that run kernel by kernel; those that walk images keep single results.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..ir import Expr, Kernel, Load, Loops, Program, Store, loads, read, rewrite, subst, written
from .group import same_points
from .inline import merge_origins
from .nests import dimensions, scans

MOST = 4  # stores of a kernel,
FEW, MOST_OF_FEW = 1 << 14, 16  # and of one with few points, which takes no longer than its launch


def merge_readers(program: Program) -> Program:
    """The equation above, in program order."""
    made: list[Kernel] = []
    writer: dict[str, int] = {}  # memory -> the last of `made` that writes it
    touched: set[str] = set(program.inputs)
    for k in program.kernels:
        place = _host(program, k, made, writer, touched)
        if place is not None:
            assert isinstance(k, Kernel)
            made[place] = _joined(made[place], k)
        else:
            place = len(made)
            made.append(k)  # type: ignore[arg-type]
        names = written(k) if isinstance(k, Kernel) else [b for b in k.outs if b]
        for b in names:
            writer[program.base(b).name] = place
        touched.update(program.base(b).name for b in (*names, *read(k)))
    return replace(program, kernels=tuple(made))


def _host(
    program: Program, k, made: list[Kernel], writer: dict[str, int], touched: set[str]
) -> int | None:
    """The kernel that makes what k reads last, if k's results may be made there."""
    if not isinstance(k, Kernel) or len(k.body) != 1 or not _is_pointwise(k.body[0]):
        return None
    (nest,) = k.body
    new = [program.buffers[b] for s in nest.stores for b in s.buffers]
    if any(b.base is not None or b.scope == "input" or b.name in touched for b in new):
        return None
    places = [writer[m] for b in read(k) if (m := program.base(b).name) in writer]
    host = made[max(places)] if places else None
    if not isinstance(host, Kernel) or not _is_pointwise(host.body[-1]):
        return None
    root = host.body[-1]
    names = same_points(nest, root)
    most = MOST_OF_FEW if prod(a.extent for a in root.axes) <= FEW else MOST
    if names is None or len(root.stores) + len(nest.stores) > most:
        return None
    results = {b: s.index for s in root.stores for b in s.buffers}
    memory = {program.base(b).name for b in written(host)}
    own = [e for e in loads(nest) if program.base(e.buffer).name in memory]
    for e in own:
        index = tuple(i.subst(names) for i in e.index)
        if e.mask or results.get(e.buffer) != index:
            return None
    return max(places) if own else None


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


def _is_pointwise(nest: Loops) -> bool:
    """Whether each point of a nest stores its own values, all of them for the same element."""
    plain = not (nest.reduce_axes or nest.binds or scans(nest))
    indices = {s.index for s in nest.stores}
    whole = not any(s.reduce or s.mask for s in nest.stores)
    return plain and whole and len(indices) == 1 and dimensions(nest) is not None
