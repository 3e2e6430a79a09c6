"""A call of a program that is one CUDA graph, in as little Python as that takes.

The first calls find their way through `execute` and `segment`. What they found there is a `Replay`,
which stands for them as long as a call differs from the last ones in the places of its inputs and
results only. Memory that is saved for backward has a graph for each of its blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from ...compat import addresses, cuda_device, cuda_stream, part_of
from ..host import KEPT, Lent
from . import native
from .fresh import Fresh, Part
from .graphs import NoGraph
from .native import Native
from .recorded import Recorded
from .scratch import Pool, Scratch, Where
from .segment import Segment


class Replay:
    """What calls on one stream have in common."""

    def __init__(
        self,
        segment: Segment,
        where: Where,
        free: list[Scratch],
        inputs: Sequence[str],
        fresh: Fresh,
        results: Sequence[str | None],
        parts: Mapping[str, tuple[str, Part, bool]],
    ):
        """`free`: the stream's scratch that nobody uses; `results` by name, of which `parts` are in
        memory of others, as views that torch is to know of or not. Errors: `KeyError` for memory
        that is neither an input nor made by a call."""
        self._segment, self._free = segment, free
        self._size, self._counters = where.scratch.sizes
        assert where.stream is not None
        self._device, self._stream, self._fresh = where.device, where.stream, fresh
        names = (*inputs, *fresh.names)
        self._names, self._results, self._every_part = inputs, results, parts
        self._inputs = len(inputs)
        self._at = at = {b: i for i, b in enumerate(names)}
        self._first_saved = at[fresh.saved[0]] if fresh.saved else None
        self._moving = itemgetter(*(at[b] for b in segment.outside), 0, 0)
        self._block = None if segment.kept is None else at[segment.kept]
        # an input that kernels read
        self._read = next((at[b] for b in segment.moving if at[b] < len(inputs)), None)
        self._leaving = [*segment.leaving, *segment.lent_parts]
        places = at | {b: len(names) + n for n, b in enumerate(self._leaving)}
        # a part is behind all that are whole: its memory's place, shape, strides, offset
        parts = {o: part for o, part in parts.items() if o not in places}
        wholes = [None if o is None or o in parts else places[o] for o in results]
        found = [(n, *parts[o]) for n, o in enumerate(results) if o is not None and o in parts]
        self._wholes = wholes
        self._parts = [(n, places[b], *part) for n, b, part, seen in found if not seen]
        self._views = [(n, places[b], *part) for n, b, part, seen in found if seen]
        # the graph of the last call, whose scratch it is for, and the id of the first tensor that
        # was saved: in one, for threads
        self._last: tuple[Recorded, Pool | None, int | None] | None = None
        # what is called natively, and the block that it takes
        self._handed_out: tuple[Native, Lent] | None = None
        self._native: dict[tuple[Pool | None, Lent | None], tuple[Recorded, Native | None]] = {}

    def is_for(self, where: Where) -> bool:
        """Whether it is for a call's device and stream."""
        return (where.device, where.stream) == (self._device, self._stream)

    def __call__(self, inputs: list[Any], weights: Any) -> list[Any] | None:
        """The results; None, and nothing is done, for a call that it is not for."""
        index, stream = self._device.index, self._stream
        if cuda_device() != index or cuda_stream(self._device) != stream:
            return None
        if self._read is not None and inputs[self._read].get_device() != index:
            return None
        if stream and torch.cuda.is_current_stream_capturing():
            return None
        try:
            scratch = self._free.pop()
        except IndexError:
            return None
        try:
            size, counters = scratch.sizes
            if size < self._size or counters < self._counters:
                return None
            every = [*inputs, *self._fresh.new(self._device, stream)]
            block = None if self._block is None else every[self._block].data_ptr()
            recorded = self._segment.recorded(self._device, scratch, block)
            if recorded is None:
                # memory of a graph goes with it
                self._last, self._native, self._handed_out = None, {}, None
                return None
            if recorded.held():
                return None
            *moving, _, _ = self._moving(every)
            given = [*scratch.addresses, *addresses(moving)]
            values = {b: every[self._at[b]] for b in recorded.copied}
            made = recorded(given, values, weights, stream)
            if made is None:
                return None
            pool = scratch.pool if self._segment.pooled else None
            first = None if self._first_saved is None else id(every[self._first_saved])
            self._last = recorded, pool, first
        except NoGraph:
            return None
        finally:
            self._free.append(scratch)
        every += [made[b] for b in self._leaving]
        results = [None if i is None else every[i] for i in self._wholes]
        for n, i, shape, strides, offset in self._parts:
            results[n] = part_of(every[i], shape, strides, offset)
        for n, i, shape, strides, offset in self._views:
            t = every[i]
            results[n] = t.as_strided(shape, strides, t.storage_offset() + offset)
        return results

    def natively(self, otherwise: Callable) -> Callable | None:
        """Calls like the last one as one of C, which gives those that are not to `otherwise`; None
        where there is no such."""
        last, handed = self._last, self._handed_out  # which another thread may be replacing
        if last is None:
            return None
        recorded, pool, saved = last
        block, lenders, uses = None, list[Lent | None]([None]), None
        if saved is not None:
            with self._fresh.lock:
                blocks = self._fresh.blocks(self._device, self._stream)
                lenders = [] if blocks is None else [*blocks.lenders()]
                block = next((k for k in lenders if k and id(k.tensors[0]) == saved), None)
                if blocks is None or block is None:
                    return None
                if handed is not None:  # whose calls the blocks have not seen
                    left = handed[0].left()
                    blocks.took(handed[1], 0 if left is None else KEPT - left)
                blocks.took(block, 0)
                # with several, Python comes by to see whether there is one that nobody takes
                uses = None if len(lenders) == 1 else KEPT
        # the memory of other blocks goes with them
        known = {k: n for k, n in self._native.items() if k[1] in lenders}
        found = known.get((pool, block))
        if found is None or found[0] is not recorded:
            found = recorded, self._natively(recorded, pool, block, otherwise)
        self._native = known | {(pool, block): found}
        self._handed_out = (found[1], block) if found[1] and block else None
        return found[1] and found[1].allow(uses)

    def _natively(
        self, recorded: Recorded, pool: Pool | None, block: Lent | None, otherwise: Callable
    ) -> Native | None:
        fresh, told = self._fresh, recorded.told()
        if told is None:
            return None
        # where tensors stand: see `native.Call`
        at = {b: i for i, b in enumerate(self._names)}
        at |= {b: len(at) + i for i, b in enumerate((*fresh.saved, *told.names))}
        new = len(at)
        renewed = (place for place, _ in told.renewed.values())
        places = [*fresh.places, *renewed, *told.copied.values()]
        at |= {b: new + i for i, b in enumerate(fresh.alone)}
        at |= {b: new + len(fresh.places) + i for i, b in enumerate((*told.renewed, *told.copied))}
        after = new + len(places)
        at |= {b: after + i for i, b in enumerate(fresh.small)}
        parts = [((new + whole, *part), False) for whole, part in fresh.parts]
        for b in self._results:
            if b is not None and b not in at:
                of, part, seen = self._every_part[b]
                at[b] = after + len(parts)
                parts.append(((at[of], *part), seen))
        moving = [*self._segment.outside, *told.renewed]
        first = 2 + len(self._segment.outside)
        slots = [*range(2, first), *(slot for _, slot in told.renewed.values())]
        return native.replay(
            native.Call(
                self._device, self._stream, self._free, pool, (self._size, self._counters),
                self._read, len(self._names), [k for k in (block, told.lent) if k],
                fresh.lock if block else None, places, parts, [at[b] for b in moving], slots,
                [at[b] for b in told.copied], [None if b is None else at[b] for b in self._results],
            ),
            told, recorded, otherwise,
        )  # fmt: skip
