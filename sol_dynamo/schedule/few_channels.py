"""An image of few channels is laid out so that a row of its taps lies together.

    out[h, w, o] = sum over i, j, c of x[c, 2 h + i - 3, 2 w + j - 3] * k[o, c, i, j]
    ==>  rows[y, 4 u + c] = x[c, y - 3, u - 3], or 0 outside of x;
         terms[o, i, 4 j + c] = k[o, c, i, j];
         out[h, w, o] = sum over i, t of rows[2 h + i, 8 w + t] * terms[o, i, t]

Read as it is, each element of the product's operand has an address and a mask of its own, which
cost more than the product. It is for units that multiply blocks: plain pipes would multiply the
channels that are added, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from ..affine import Index, Range
from ..ir import (
    DTYPES,
    HALVES,
    Axis,
    Buffer,
    Expr,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Store,
    contiguous,
)
from ..target import Caps
from .nests import is_contraction, product_factors

CHANNELS = 4  # that lie side by side, of an image that has 2 to so many
TOGETHER = 16  # elements of a row of taps, at least
READ = 64 << 20  # bytes of an operand as the product reads it, at least


@dataclass(frozen=True)
class Image:
    """A contraction's operand: which of the factors it is, how it is read, its dimension of
    channels and the one of rows; the axes of its channels and of the taps along a row."""

    factor: int
    load: Load
    channels: int
    row: int
    channel: Axis
    tap: Axis


def lay_out_rows(program: Program, caps: Caps) -> Program:
    """The equation above, for each contraction that gains by it."""
    buffers = dict(program.buffers)
    kernels: list = []
    for k in program.kernels:
        image = _image(program, k, caps) if isinstance(k, Kernel) else None
        if image is not None:
            assert isinstance(k, Kernel)
            kernels += _laid_out(k, image, buffers)
        else:
            kernels.append(k)
    return replace(program, buffers=buffers, kernels=tuple(kernels))


def _image(program: Program, k: Kernel, caps: Caps) -> Image | None:
    (nest,) = k.body
    if not is_contraction(nest) or nest.binds or nest.stores[0].mask:
        return None
    (store,) = nest.stores
    factors = product_factors(store.values[0])
    assert factors is not None and store.reduce is not None
    loads = [_operand(f, caps) for f in factors]
    if store.reduce.acc_dtype != "f32" or any(e is None for e in loads):
        return None
    if any(type(a.extent) is not int for a in nest.axes):
        return None
    for n, e in enumerate(loads):
        weight = loads[1 - n]
        assert e is not None and weight is not None
        image = _read_along(program, nest, n, e)
        if image is None or weight.mask:
            continue
        own = {s for i in weight.index for s in i.symbols}
        if {image.channel.symbol, image.tap.symbol} <= own and not own & _parallel(nest, e):
            return image
    return None


def _operand(factor: Expr, caps: Caps) -> Load | None:
    """What a unit for products multiplies, where it is read from memory as it is."""
    if not isinstance(factor, Op):
        return None
    e = factor.args[0]
    widened = caps.half_products and factor.name == "cast" and e.dtype in HALVES
    return e if isinstance(e, Load) and (widened or factor.name == "tf32") else None


def _parallel(nest: Loops, e: Load) -> set[str]:
    axes = {a.symbol for a in nest.axes if a.kind == "parallel"}
    return axes & {s for i in e.index for s in i.symbols}


def _read_along(program: Program, nest: Loops, factor: int, e: Load) -> Image | None:
    shape = program.buffers[e.buffer].shape
    reduced = {a.symbol: a for a in nest.reduce_axes}
    channels = [d for d, i in enumerate(e.index) if i.symbols <= reduced.keys() and i.symbols]
    if len(channels) != 1 or not all(i.is_affine_in(s) for i in e.index for s in i.symbols):
        return None
    (c,) = channels
    channel = next((a for a in reduced.values() if e.index[c] == Index.of(a.symbol)), None)
    if channel is None or not 1 < channel.extent <= CHANNELS or channel.extent != shape[c]:
        return None
    others = [i for d, i in enumerate(e.index) if d != c]
    inside = {m for i, n in zip(e.index, shape, strict=True) for m in (i, n - 1 - i)}
    if any(channel.symbol in i.symbols for i in others) or not inside.issuperset(e.mask):
        return None
    if e.mask and e.other != 0:
        return None
    place = program.buffers[e.buffer].strides
    rows = sorted((s, d) for d, s in enumerate(place) if d != c and shape[d] > 1)
    for _, row in rows[:1]:
        i = e.index[row]
        taps = [reduced[s] for s in i.symbols if s in reduced]
        if len(taps) == 1 and i.coefficient(taps[0].symbol) == 1 and len(i.symbols) == 2:
            (tap,) = taps
            elsewhere = any(tap.symbol in x.symbols for x in others if x is not i)
            terms = prod(a.extent for a in reduced.values())
            points = prod(a.extent for a in nest.axes if a.symbol in _parallel(nest, e))
            read = points * terms * DTYPES[e.dtype][0]
            if not elsewhere and tap.extent * CHANNELS >= TOGETHER and read >= READ:
                return Image(factor, e, c, row, channel, tap)
    return None


def _laid_out(k: Kernel, image: Image, buffers: dict[str, Buffer]) -> list[Kernel]:
    (nest,) = k.body
    (store,) = nest.stores
    factors = product_factors(store.values[0])
    assert factors is not None
    together = Axis(f"{image.tap.symbol}_{image.channel.symbol}", image.tap.extent * CHANNELS)
    x, rows = _rows(nest, image, together, store.buffers[0], buffers)
    y, terms = _terms(nest, image, together, factors[1 - image.factor], store.buffers[0], buffers)
    made = [_with(f, e) for f, e in zip(factors, (x, y)[:: 1 - 2 * image.factor], strict=True)]
    gone = (image.tap, image.channel)
    axes = (*(a for a in nest.axes if a not in gone), replace(together, kind="reduce"))
    value = Op("mul", tuple(made), store.values[0].dtype)
    nest = replace(nest, axes=axes, stores=(replace(store, values=(value,)),))
    return [_kernel(k, rows), _kernel(k, terms), replace(k, body=(nest,))]


def _kernel(k: Kernel, nest: Loops) -> Kernel:
    return replace(k, name=nest.stores[0].buffers[0], body=(nest,))


def _rows(
    nest: Loops, image: Image, together: Axis, name: str, buffers: dict[str, Buffer]
) -> tuple[Load, Loops]:
    """How the product reads the image, and the copy of it: all that is read, zeros around it."""
    e, shape = image.load, buffers[image.load.buffer].shape
    ranges: dict[str, Range] = {a.symbol: (0, a.extent - 1) for a in nest.axes}
    dims = [d for d in range(len(shape)) if d not in (image.channels, image.row)]
    axes, there = [], [Index()] * len(shape)
    at: list[Index] = []
    for d in dims:
        first, last = _whole(e.index[d].bounds(ranges))
        axes.append(Axis(f"d{d}", last - first + 1))
        there[d] = Index.of(f"d{d}") + first
        at.append(e.index[d] - first)
    first, last = _whole(e.index[image.row].bounds(ranges))
    row = Axis("u", (last - first + 1) * CHANNELS)
    there[image.row] = Index.of("u") // CHANNELS + first
    there[image.channels] = Index.of("u") % CHANNELS
    start = e.index[image.row] - Index.of(image.tap.symbol) - first
    at.append(start * CHANNELS + Index.of(together.symbol))
    axes.append(row)
    load = _inside(e, there, shape, axes)
    return _copy(f"{name}_rows", axes, load, buffers, at)


def _terms(
    nest: Loops,
    image: Image,
    together: Axis,
    factor: Expr,
    name: str,
    buffers: dict[str, Buffer],
) -> tuple[Load, Loops]:
    """How the product reads the weights, and the copy of them: zeros for channels that are none."""
    assert isinstance(factor, Op)
    e = factor.args[0]
    assert isinstance(e, Load)
    own = {s for i in e.index for s in i.symbols} - {image.tap.symbol, image.channel.symbol}
    axes = [replace(a, kind="parallel") for a in nest.axes if a.symbol in own] + [together]
    t = Index.of(together.symbol)
    values = {image.tap.symbol: t // CHANNELS, image.channel.symbol: t % CHANNELS}
    there = [i.subst(values) for i in e.index]
    mask = (image.channel.extent - 1 - t % CHANNELS,) if image.channel.extent < CHANNELS else ()
    load = Load(e.buffer, tuple(there), e.dtype, mask, 0 if mask else None)
    return _copy(f"{name}_terms", axes, load, buffers, [Index.of(a.symbol) for a in axes])


def _inside(e: Load, there: list[Index], shape: tuple, axes: Iterable[Axis]) -> Load:
    """A load with the conditions that do not hold everywhere."""
    ranges: dict[str, Range] = {a.symbol: (0, a.extent - 1) for a in axes}
    mask = [m for i, n in zip(there, shape, strict=True) for m in (i, n - 1 - i)]
    mask = [m for m in mask if _whole(m.bounds(ranges))[0] < 0]
    return Load(e.buffer, tuple(there), e.dtype, tuple(mask), 0 if mask else None)


def _copy(
    name: str, axes: list[Axis], load: Load, buffers: dict[str, Buffer], at: list[Index]
) -> tuple[Load, Loops]:
    shape = tuple(a.extent for a in axes)
    buffers[name] = Buffer(name, load.dtype, shape, contiguous(shape))
    store = Store((name,), tuple(Index.of(a.symbol) for a in axes), (load,))
    return Load(name, tuple(at), load.dtype), Loops(tuple(axes), (store,))


def _with(factor: Expr, load: Load) -> Expr:
    assert isinstance(factor, Op)
    return Op(factor.name, (load,), factor.dtype)


def _whole(bounds: Range) -> tuple[int, int]:
    first, last = bounds
    assert isinstance(first, int) and isinstance(last, int)
    return first, last
