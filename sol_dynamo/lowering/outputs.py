"""What a graph gives back: each result in memory of its own, with eager's strides, or as a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from torch import fx

from ..ir import FOREIGN, Buffer
from .strides import dense, dense_strides, same_strides

if TYPE_CHECKING:
    from .graph import Lowering


def outputs_of(low: Lowering, node: fx.Node) -> tuple[str | None, ...]:
    """Give each output eager's strides, in memory of its own that nothing later writes, or as a
    view of another one (`meta["sol_output_views"]`); one that may have any strides
    (`meta["sol_output_strides"]` is None there) is returned where it lies."""
    flat: Any = node.args[0]
    names: list[str | None] = [None] * len(flat)
    values = [low.env[n] for n in flat if isinstance(n, fx.Node) and low.env[n] is not None]
    for name, count in Counter(b.base or b.name for b in values).items():
        if count == 1:
            _give_whole(low, next(b for b in values if name in (b.base, b.name)), flat)
    strides = node.meta.get("sol_output_strides")
    free = _free(low, flat, strides)
    views = list(node.meta.get("sol_output_views") or [None] * len(flat))
    for k, n in enumerate(flat):
        if not isinstance(n, fx.Node) or low.env[n] is None:
            continue
        wanted = strides[k] if strides else tuple(n.meta["val"].stride())
        if views[k] is None or wanted is None:
            views[k] = None
            names[k] = _output(low, n, wanted, names, free)
    for k, n in enumerate(flat):
        if views[k] is not None and names[k] is None:
            of, offset = views[k]
            wanted = strides[k] if strides else tuple(n.meta["val"].stride())
            names[k] = _output_view(low, n, wanted, names[of], offset)
            names[k] = names[k] or _output(low, n, wanted, names, free)
    return tuple(names)


def lent(low: Lowering, node: fx.Node, names: Sequence[str | None]) -> frozenset[str]:
    """What calls outside make that only backward gets: `Program.lent`."""
    strides = node.meta.get("sol_output_strides") or [()] * len(names)
    bases: dict[bool, set[str]] = {True: set(), False: set()}
    for name, wanted in zip(names, strides, strict=True):
        if name is not None:
            b = low.buffers[name]
            bases[wanted is None and b.dtype != FOREIGN].add(b.base or name)
    kept = bases[True] - bases[False]
    return frozenset(b for b in kept if low.buffers[b].scope == "extern")


def _free(low: Lowering, flat: Sequence[Any], strides: Sequence[Any] | None) -> dict[str, int]:
    """How much of each memory is returned where it lies: elements of the values in it that may have
    any strides. Attention's operands, saved for backward, are parts of one product."""
    parts: dict[str, set[Buffer]] = {}
    for k, n in enumerate(flat):
        b = low.env[n] if isinstance(n, fx.Node) else None
        if b is not None and strides and strides[k] is None:
            place = replace(b, name="")  # the same part by another name counts once
            parts.setdefault(b.base or b.name, set()).add(place)
    return {base: sum(prod(b.shape) for b in found) for base, found in parts.items()}


def _output(
    low: Lowering,
    n: fx.Node,
    wanted: tuple[int, ...] | None,
    names: Sequence[str | None],
    free: Mapping[str, int],
) -> str:
    b = low.env[n]
    if b.dtype == FOREIGN:
        return b.name
    if wanted is None and (base := _kept(low, b, free)) is not None:
        low.buffers[base.name] = base
        return b.name
    if wanted is None:
        wanted = dense(n.meta["val"])
    own = b.base is None and b.scope == "arena" and b.name not in names
    if own and same_strides(b.shape, b.strides, wanted):
        low.buffers[b.name] = replace(b, scope="output", strides=wanted)
        low.env[n] = low.buffers[b.name]
        return b.name
    foreign = b.scope == "extern" and b.base is None and b.name not in names
    if foreign and same_strides(b.shape, b.strides, wanted):
        low.buffers[b.name] = replace(b, strides=wanted)
        return b.name
    out = low.buffer(f"out_{b.name}", b.dtype, b.shape, wanted, scope="output")
    low.node = n
    low.copy(b, out)
    return out.name


def _give_whole(low: Lowering, b: Buffer, flat: Sequence[Any]) -> None:
    """A result that is all of the memory under it, in another shape, is memory of its own, which
    what was there before views: a sum over rows without its dimensions of one point, a gradient
    that was transposed twice."""
    base = low.buffers.get(b.base or "")
    if base is None or base.dtype != b.dtype or b.offset or base.base is not None:
        return
    alike = b.shape == base.shape and same_strides(b.shape, b.strides, base.strides)
    if base.scope not in ("arena", "extern") or (base.scope == "extern" and not alike):
        return
    both = (same_strides(x.shape, x.strides, dense_strides(x.shape, x.strides)) for x in (b, base))
    if b.numel != base.numel or not b.numel or not all(both):
        return
    if alike:
        new = base
    else:
        new = replace(b, name=low.unique(b.name), base=None, scope=base.scope)
        low.buffers[new.name] = new
        for v in list(low.buffers.values()):
            if base.name in (v.name, v.base):
                low.buffers[v.name] = replace(v, base=new.name)
    for n in flat:
        if isinstance(n, fx.Node) and low.env[n] is b:
            low.env[n] = new


def _output_view(
    low: Lowering, n: fx.Node, strides: tuple[int, ...], of: str | None, offset: int
) -> str | None:
    """An output as a view of another one, or None if that one is nothing to view."""
    base = low.buffers.get(of or "")
    if base is None or base.dtype == FOREIGN or low.env[n] is None:
        return None
    shape = tuple(n.meta["val"].shape)
    if (shape, strides, offset) == (base.shape, base.strides, 0):
        return base.name
    return low.view(base, shape, strides, offset, f"out_{n.name}").name


def _kept(low: Lowering, b: Buffer, free: Mapping[str, int]) -> Buffer | None:
    """The memory of a value as it is to be if the value is returned where it lies; None if that
    would keep much more memory than it and others there (`_free`) need."""
    base = low.buffers[b.base or b.name]
    if prod(base.shape) > 2 * max(free.get(base.name, 0), prod(b.shape)):
        return None
    return replace(base, scope="saved") if base.scope == "arena" else base
