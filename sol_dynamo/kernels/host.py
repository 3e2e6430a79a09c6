"""What the executables of all targets share: a program's buffers as tensors, ATen calls between
native runs, weights packed once, and memory for what is saved for backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from ..compat import (
    addresses,
    all_users,
    from_memory,
    memory_of,
    part_of,
    with_memory,
)
from ..ir import (
    DTYPES,
    FOREIGN,
    Buffer,
    Extern,
    Kernel,
    Load,
    Loops,
    Program,
    filled,
    is_op,
    read,
    written,
)
from ..lowering.graph import TORCH_DTYPE
from ..runtime.tensors import Counts
from ..schedule.memory import nbytes

KEPT = 16  # calls for which memory is kept that none of them took: others may be under way again
ALIGN = 8  # bytes: two packed float32 may be read as one
PartOf = tuple[str, tuple[int, ...], tuple[int, ...], int]  # a buffer: shape, strides, offset


def runs(program: Program) -> list:
    """(first step, last step) of each native run, and the externs between them."""
    bands = {d.first: d for d in program.depth_first}
    plan: list = []
    native = kernel = 0
    start = 0
    while kernel < len(program.kernels):
        k = program.kernels[kernel]
        if isinstance(k, Extern):
            if native > start:
                plan.append((start, native))
            plan.append(k)
            start = native
            kernel += 1
            continue
        band = bands.get(kernel)
        kernel = band.last if band else kernel + 1
        native += 1
    if native > start or not plan:
        plan.append((start, native))
    return plan


def in_turn(programs: Sequence[Callable]) -> Callable[[list[tuple]], list[Any]]:
    """Programs as one function of the arguments of each."""
    return lambda calls: [p(*c) for p, c in zip(programs, calls, strict=True)]


# -- buffers -------------------------------------------------------------------------------------


class Prepared(list[Any]):
    """The weights and what was packed of them, in order and by buffer name; can be referred to
    weakly."""

    def __init__(self, names: list[str], tensors: list[Any]):
        super().__init__(tensors)
        self.named = dict(zip(names, tensors, strict=True))


class Operands:
    """What a call brings and what it makes, by name, in the order in which each comes."""

    def __init__(self, program: Program):
        self.program = program
        buffers = program.buffers
        self.inputs = [n for n in program.inputs if buffers[n].scope == "input"]
        self._raw = [n for n in program.inputs if buffers[n].scope == "weight"]
        self.weights = [*self._raw, *(p.stores[0].buffers[0] for p in program.packs)]
        own = [b for b in buffers.values() if b.base is None]
        self.outputs = [b for b in own if b.scope == "output"]
        self.saved = [b for b in own if b.scope == "saved"]
        # the memory that kernels read or write: what only ATen reads may be anything
        self.touched = {
            program.base(b).name
            for k in program.kernels
            if isinstance(k, Kernel)
            for b in (*read(k), *written(k))
        }

    def prepare(self, weights: list[Any]) -> Prepared:
        """The weights as they are, then the packed ones."""
        values = dict(zip(self._raw, weights, strict=True))
        packs = (packed(self.program, p, values) for p in self.program.packs)
        return Prepared(self.weights, [*weights, *packs])

    def given(self, inputs: list[Any], weights: list[Any]) -> dict[str, Any]:
        """The arguments of a call by buffer name; `weights` as `prepare` gave them."""
        values = dict(zip(self.inputs, inputs, strict=True))
        return values | dict(zip(self.weights, weights, strict=True))


def memory(
    program: Program, name: str, arena: torch.Tensor, values: Mapping[str, Any]
) -> torch.Tensor:
    """A tensor that starts where a buffer with memory of its own does: one of `values`, or in the
    arena, whose bytes are counted from the first of a byte tensor."""
    if name in values:
        return values[name]
    start, dtype = program.arena[name], program.buffers[name].dtype
    size = DTYPES[dtype][0]
    return arena[start : start + (len(arena) - start) // size * size].view(TORCH_DTYPE[dtype])


def tensor(program: Program, name: str, arena: torch.Tensor, values: Mapping[str, Any]) -> Any:
    """A buffer as a tensor over its memory, or the foreign value that it stands for."""
    b = program.buffers[name]
    base = program.base(name).name
    if base in values and b.base is None:
        return values[base]
    t = memory(program, base, arena, values)
    return t.as_strided(b.shape, b.strides, t.storage_offset() + b.offset)


# -- ATen calls ----------------------------------------------------------------------------------


def call(
    operands: Operands, step: Extern, given: Mapping[str, Any], reused: torch.Tensor
) -> dict[str, Any]:
    """Run an extern on values by buffer name; gives its results by buffer name.

    They lie as the program says, in memory of their own: a copy where ATen gave a view. A foreign
    value may view others, but not `reused`, the memory of the call, which later kernels write. A
    result has the dtype that ATen gives it where its fake kernel says another and no kernel reads
    it: statistics that attention saves for backward, of float64. One that ATen leaves out, though
    its fake kernel does not, is left out.
    """
    program = operands.program
    args, kwargs = filled((step.args, dict(step.kwargs)), given.__getitem__)
    args = from_memory(step.op, args)
    result = step.op(*args, **kwargs)
    results = result if isinstance(result, (tuple, list)) else (result,)
    taken = {p for a in given.values() for p in _storages(a)}
    made: dict[str, Any] = {}
    for name, value in zip(step.outs, results, strict=False):
        if not name:
            continue
        b = program.buffers[name]
        if b.dtype == FOREIGN:
            made[name] = _kept(value, reused)
        elif value is not None:
            dtype = TORCH_DTYPE[b.dtype] if program.base(name).name in operands.touched else None
            made[name] = _placed(with_memory(value), b, dtype, taken)
    return made


def _storages(value: Any) -> tuple[int, ...]:
    """Addresses of the memory that a value lies in."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return ()
    return (value.untyped_storage().data_ptr(),)


def _kept(value: Any, reused: torch.Tensor) -> Any:
    """A foreign value that outlives what `reused` holds now."""
    if not isinstance(value, torch.Tensor):
        return value
    own = value.layout == torch.strided and set(_storages(value)).isdisjoint(_storages(reused))
    return value if own else value.clone()


def _placed(t: torch.Tensor, b: Buffer, dtype: torch.dtype | None, taken: set[int]) -> torch.Tensor:
    """A tensor that lies as a buffer says, of a dtype or its own, in memory that is none of those
    taken."""
    dtype = dtype or t.dtype
    if not taken.isdisjoint(_storages(t)) or t.dtype != dtype or _lies_otherwise(t, b):
        return t.new_empty_strided(b.shape, b.strides, dtype=dtype).copy_(t)
    if tuple(t.stride()) != tuple(b.strides):  # in dimensions of size 1
        place = t.untyped_storage(), t.storage_offset()
        return t.new_empty(0).set_(*place, b.shape, b.strides)
    return t


def _lies_otherwise(t: torch.Tensor, b: Buffer) -> bool:
    """Whether a tensor's elements are not where a buffer's would be."""
    strides = zip(t.shape, t.stride(), b.strides, strict=True)
    return t.numel() > 0 and any(n != 1 and s != u for n, s, u in strides)


# -- weights and saved activations ---------------------------------------------------------------


def packed(program: Program, pack: Loops, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Evaluate a weight-only copy, as it is or rounded: an affine load is a strided view of the
    weight's memory, with another value where it is masked."""
    store = pack.stores[0]
    value = store.values[0]
    load = value.args[0] if is_op(value, "tf32") else value
    assert isinstance(load, Load), store
    source: Buffer = program.buffers[load.buffer]
    base = program.base(load.buffer)
    address = source.address(load.index)
    sizes = [a.extent for a in pack.axes]
    steps = [address.coefficient(a.symbol) for a in pack.axes]
    w = values[base.name].detach()
    have = 1 + sum((n - 1) * s for n, s in zip(base.shape, base.strides, strict=True))
    need = address.const + 1 + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
    flat = w.as_strided((have,), (1,), w.storage_offset())
    if need > have:  # the padded end of the last block: any value, no lane of it is stored
        longer = flat.new_zeros(need)
        longer[:have].copy_(flat)
        flat = longer
    view = flat.as_strided(sizes, steps, flat.storage_offset() + address.const)
    if load is not value:
        view = rounded_to_tf32(view)
    target = program.buffers[store.buffers[0]]
    if not (load.mask or _lies_otherwise(view, target) or view.data_ptr() % ALIGN):
        return view
    made = view.new_empty_strided(sizes, target.strides).copy_(view)
    if load.mask:
        # each axis in a dimension of its own, so that a condition is as large as what it is about
        points = {
            a.symbol: torch.arange(n, device=w.device).view(n, *(1,) * (len(sizes) - 1 - d))
            for d, (a, n) in enumerate(zip(pack.axes, sizes, strict=True))
        }
        for m in load.mask:
            made.masked_fill_(m.evaluate(points) < 0, load.other or 0)
    return made


def rounded_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """float32 with 10 bits of fraction, to nearest, ties away from zero."""
    bits = (x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF
    return torch.where(x.isnan(), x, bits.view(torch.float32))


class Blocks:
    """Memory for what a call returns as saved, used again as soon as nobody holds any of it.

    Fresh memory costs a page fault for every 4 KiB, which is more than writing it.
    """

    def __init__(
        self,
        buffers: list[Buffer],
        device: str,
        parts: Mapping[str, PartOf] = MappingProxyType({}),
    ):
        """`parts`: views of the buffers that are given as well, by name."""
        self._device = device
        self._names = [*(b.name for b in buffers), *parts]
        # dtype, shape, strides, first element
        self._places: list[tuple[torch.dtype, tuple, tuple, int]] = []
        self._size = 0
        for b in buffers:
            dtype = TORCH_DTYPE[b.dtype]
            place = tuple(b.shape), tuple(b.strides), self._size // dtype.itemsize
            self._places.append((dtype, *place))
            self._size += -(-nbytes(b) // 64) * 64
        of = dict(zip(self._names, self._places, strict=False))
        for base, shape, strides, offset in parts.values():
            dtype, _, _, first = of[base]
            self._places.append((dtype, shape, strides, first + offset))
        self._known: list[_Block] = []
        self._calls = 0

    def take(self) -> list[tuple[str, torch.Tensor]]:
        """A tensor for each buffer; no two calls may run this at once."""
        if not self._places:
            return []
        self._calls += 1
        self._known = [k for k in self._known if k.lent.is_whole()]
        free = [k for k in self._known if k.lent.is_free()]
        gone = [k for k in free if self._calls - k.call > KEPT]
        self._known = [k for k in self._known if k not in gone]
        block = next((k for k in free if k not in gone), None)
        if block is None:
            block = _Block(self._size, self._device, self._places)
            self._known.append(block)
        block.call = self._calls
        return list(zip(self._names, block.lent.tensors, strict=True))

    def lenders(self) -> list[Lent]:
        """Who lends the tensors of each block."""
        return [k.lent for k in self._known]

    def took(self, lent: Lent, calls: int) -> None:
        """So many calls have taken a block's tensors without asking here."""
        self._calls += calls
        for k in self._known:
            k.call = self._calls if k.lent is lent else k.call


_requires_grad = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]


class Lent:
    """Tensors that are handed out again and again, which costs nothing, and whether somebody has
    one of them, or another one in its memory."""

    def __init__(self, tensors: list[torch.Tensor]):
        """The list is kept as it is: nobody else is to have the tensors now."""
        self.tensors = tensors
        storages = [*{memory_of(t): t.untyped_storage() for t in tensors}.values()]
        self._who = tensors, storages, [s._cdata for s in storages]  # and nobody else has a storage
        self._at = addresses(tensors)
        self._free = all_users(*self._who)
        self.counts = Counts.of(tensors, storages)  # the same in one native call, if there is such

    def is_free(self) -> bool:
        if self._is_untouched():
            return True
        free = all_users(*self._who) == self._free
        if free and self.counts is not None and self.is_whole():
            self.counts.take()  # more is compared: what a first use makes of them is none
        return free

    def is_whole(self) -> bool:
        """Whether nobody has changed where they lie, or what autograd knows of them."""
        if self._is_untouched():
            return True
        known = any(map(_requires_grad, self.tensors))
        return not known and addresses(self.tensors) == self._at

    def _is_untouched(self) -> bool:
        return self.counts is not None and self.counts.same()


class _Block:
    """Memory, and its parts."""

    def __init__(self, size: int, device: str, places: Sequence[tuple]):
        with torch.inference_mode(False):  # of later calls, which may be in that mode or not
            memory = torch.empty(size, dtype=torch.uint8, device=device)
            whole = {d: memory[: size // d.itemsize * d.itemsize].view(d) for d, *_ in places}
            parts = [part_of(whole[d], n, s, at) for d, n, s, at in places]
        del memory, whole
        self.lent, self.call = Lent(parts), 0  # the last that took it
