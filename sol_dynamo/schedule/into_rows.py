"""A value that is stored, and that rows behind it read, is made by the rows' kernel.

    y = f(x); z = norm(y), and y is read elsewhere  ==>  one kernel: y = f(x), z = norm(f(x))

The sum that a transformer's next layer reads, and its norm. It is for machines that hold a row
while they walk it (`Caps.row_cost`): others would make y again in each sweep of the norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ..affine import Index
from ..ir import (
    OPS,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    loads,
    read,
    subst,
    walk,
    written,
)
from .beside import is_pointwise
from .inline import inlined, merge_origins
from .nests import is_contraction, map_leaves

HELD = 4096  # points of a row that is held for sure
OPERANDS = 4  # tensors that such a value is made of: a row of each is held


def into_rows(program: Program, row_cost: int) -> Program:
    """The equation above, in program order; `row_cost` as in `Caps`."""
    kernels: list[Kernel | Extern | None] = []
    writer: dict[str, int] = {}  # memory -> the kernel that alone writes it (-1: several do),
    reader: dict[str, int] = {}  # and the first one that reads it
    for k in program.kernels:
        here = len(kernels)
        names = read(k)
        for b in names if isinstance(k, Kernel) else ():
            place = writer.get(b, -1)
            p = kernels[place] if place >= 0 else None
            viewed = any(x != b and program.base(x).name == b for x in names)
            if isinstance(p, Kernel) and isinstance(k, Kernel) and b not in reader and not viewed:
                joined = _joined(program, p, k, row_cost)
                if joined is not None:
                    k, kernels[place] = joined, None
        for b in written(k):
            base = program.base(b).name
            writer[base] = -1 if base in writer else here
        for b in read(k):
            reader.setdefault(program.base(b).name, here)
        kernels.append(k)
    return replace(program, kernels=tuple(k for k in kernels if k is not None))


def _joined(program: Program, p: Kernel, k: Kernel, row_cost: int) -> Kernel | None:
    """Rows that make what a kernel before them does, too; None where they are not to."""
    (nest, *more), store = p.body, p.body[0].stores[0]
    name, value = store.buffers[0], store.values[0]
    if more or len(k.body) == 1 or any(map(is_contraction, k.body)):
        return None
    if len(written(p)) != 1 or program.buffers[name].base is not None or not is_pointwise(nest):
        return None
    cost = sum(OPS[e.name].cost for e in walk(value) if isinstance(e, Op))
    if cost > row_cost or len({e.buffer for e in loads(nest)}) > OPERANDS:
        return None
    readers = [(n, e) for n in k.body for e in loads(n) if e.buffer == name]
    if not all(_is_a_row(program, n, e) for n, e in readers):
        return None
    rows = next((n for n, e in readers if n.reduce_axes and e.index), None)
    if rows is None or not 1 < prod(a.extent for a in rows.reduce_axes) <= HELD:
        return None
    at = next(e.index for n, e in readers if n is rows)
    if not _in_step(at, rows):
        return None

    def made_here(e: Expr, ranges: Mapping[str, tuple[int, int]]) -> Expr:
        if isinstance(e, Load) and e.buffer == name:
            return inlined(e, value, store.index, ranges)
        return e

    names = {
        next(iter(i.symbols)): next(iter(j.symbols))
        for i, j in zip(store.index, at, strict=True) if not i.is_const
    }  # fmt: skip
    own = Loops(
        tuple(replace(a, kind="parallel") for a in rows.axes),
        (replace(store, index=at, values=(subst(value, names),)),),
    )
    *body, root = (map_leaves(n, made_here) for n in k.body)
    return replace(k, body=(*body, own, root), origin=merge_origins(p.origin, k.origin))


def _in_step(at: tuple[Index, ...], rows: Loops) -> bool:
    """Whether a load's dimensions are those of the sums that it is part of, in their order: other
    nests of a kernel know its rows by their place among the dimensions (`normal_form`)."""
    result, reduced = rows.stores[0].index, {a.symbol for a in rows.reduce_axes}
    return len(at) == len(result) and all(
        j.is_const if i.symbols & reduced or i.is_const else i == j
        for i, j in zip(at, result, strict=True)
    )


def _is_a_row(program: Program, nest: Loops, e: Load) -> bool:
    """Whether a load reads, point by point, all of what a nest walks, and the sum, if it is one,
    is of what lies together in memory."""
    b = program.buffers[e.buffer]
    extents = {a.symbol: a.extent for a in nest.axes if a.extent != 1}
    found: dict[str, int] = {}
    for i, n in zip(e.index, b.shape, strict=True):
        if i.is_const:
            if n != 1:
                return False
        elif i != Index.of(symbol := next(iter(i.symbols))) or symbol in found:
            return False
        else:
            found[symbol] = n
    address, reduced = b.address(e.index), [a.symbol for a in nest.reduce_axes]
    together = not reduced or any(address.coefficient(s) == 1 for s in reduced)
    return not e.mask and found == extents and together
