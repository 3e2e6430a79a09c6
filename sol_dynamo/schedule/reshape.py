"""A pointwise nest in the shape of a result that it reads through a view.

  y[i, j, n] = f(x[197 * i + j, n])  ==>  y'[m, n] = f(x[m, n]), where y' views y
So what follows a linear layer of three-dimensional data can be part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod

from ..affine import Index
from ..ir import Axis, Buffer, Expr, Iota, Load, Loops, loads
from .nests import map_leaves, substitute


def in_shape_of(
    results: Collection[str], shape: Sequence[int], nest: Loops, buffers: dict[str, Buffer]
) -> Loops | None:
    """A pointwise nest with one axis for each dimension of the results that it reads, which have a
    shape; views of what it reads and stores are added to `buffers`. None where there is no such
    form."""
    (store,) = nest.stores
    masked = store.mask or any(e.mask for e in loads(nest))
    index = next((e.index for e in loads(nest) if e.buffer in results), ())
    if masked or nest.binds or len(index) != len(shape):
        return None
    found = [_joined(i, n, nest) for i, n in zip(index, shape, strict=True)]
    if None in found:
        return None
    axes, at, values = [], [], dict[str, Index]()
    for joined in found:
        assert joined is not None
        at.append(Index())
        if joined:
            one = Axis("".join(a.symbol for a in joined), prod(a.extent for a in joined))
            at[-1] = rest = Index.of(one.symbol)
            axes.append(one)
            for a in joined[:0:-1]:
                values[a.symbol] = rest % a.extent
                rest = rest // a.extent
            values[joined[0].symbol] = rest
    if {a.symbol for a in nest.axes} != values.keys():
        return None
    nest = substitute(nest, values, tuple(axes))
    view = _viewed(buffers, nest.stores[0].buffers[0], nest.stores[0].index, axes, at)
    if view is None:
        return None

    def leaf(e: Expr, ranges) -> Expr:
        if isinstance(e, Iota):
            return Iota(e.index.simplify(ranges), e.dtype)
        if not isinstance(e, Load):
            return e
        there = tuple(i.simplify(ranges) for i in e.index)
        plain = all(isinstance(atom, str) for i in there for atom, _ in i.terms)
        name = None if plain else _viewed(buffers, e.buffer, there, axes, at)
        return Load(e.buffer, there, e.dtype) if name is None else Load(name, tuple(at), e.dtype)

    nest = map_leaves(nest, leaf)
    return replace(nest, stores=(replace(nest.stores[0], buffers=(view,), index=tuple(at)),))


def _joined(index: Index, extent: int, nest: Loops) -> list[Axis] | None:
    """The axes of which an index counts the points, outermost first; None where it does not count
    all of a dimension's."""
    if not all(isinstance(atom, str) for atom, _ in index.terms) or index.const:
        return None
    axes = [nest.axis(atom) for atom, _ in sorted(index.terms, key=lambda t: -t[1])]
    step = 1
    for a in reversed(axes):
        if index.coefficient(a.symbol) != step:
            return None
        step *= a.extent
    return axes if step == extent else None


def _viewed(
    buffers: dict[str, Buffer],
    name: str,
    index: tuple[Index, ...],
    axes: Sequence[Axis],
    at: Sequence[Index],
) -> str | None:
    """A view of a buffer in which `at` is what the index is there; None where there is none."""
    b = buffers[name]
    ranges = {a.symbol: (0, a.extent - 1) for a in axes}
    address = (b.address(index) - b.offset).simplify(ranges)
    if address.const or not all(isinstance(atom, str) for atom, _ in address.terms):
        return None
    extents = {a.symbol: a.extent for a in axes}
    symbols = [next(iter(i.symbols), "") for i in at]
    shape = tuple(extents.get(s, 1) for s in symbols)
    strides = tuple(address.coefficient(s) if s else 1 for s in symbols)
    if 0 in strides:
        return None
    own = f"{name}_as_{'x'.join(map(str, shape))}"
    view = replace(b, name=own, shape=shape, strides=strides, base=b.base or b.name)
    return own if buffers.setdefault(own, view) == view else None
