"""What the C emitter takes: everything else of the loop IR is refused here, by name, before any
text is written. A wrong guess would be a wrong result.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from ...affine import FloorDiv, Index, Mod
from ...ir import (
    DTYPES,
    FOREIGN,
    MONOIDS,
    OPS,
    Const,
    Iota,
    Kernel,
    KernelError,
    Load,
    Loops,
    Op,
    Program,
    Schedule,
    expressions,
    loads,
    show,
    walk,
)
from .values import EmitError

GNU_VECTORS = (1, 2, 4, 8, 16)
BOOL_MONOIDS = ("any", "all")
FLOAT_MONOIDS = ("welford", "softmax", "attention")


def check_supported(program: Program, widths: Container[int] = GNU_VECTORS) -> None:
    """Raise `EmitError` for the first thing in a program that would not become right C; `widths`:
    the numbers of lanes that there are."""
    for text, where in _refused(program, widths):
        error = EmitError(f"{text}\n{show(where)}" if where is not None else text)
        if isinstance(where, Kernel):
            raise KernelError(where, error) from error
        raise error


def _refused(p: Program, widths: Container[int]) -> Iterator[tuple[str, Any]]:
    if p.symbols:
        yield f"symbolic sizes ({', '.join(p.symbols)}) are not emitted", None
    for b in p.buffers.values():
        if b.dtype not in (*DTYPES, FOREIGN):
            yield f"dtype {b.dtype} of {b.name}", b
        if not all(isinstance(n, int) for n in (*b.shape, *b.strides, b.offset)):
            yield f"{b.name} has symbolic sizes", b
    for pack in p.packs:
        yield from ((text, pack) for text in _pack(p, pack))
    for k in p.kernels:
        if not isinstance(k, Kernel):
            if k.symbols:
                yield f"{k.name} defines sizes ({', '.join(k.symbols)})", k
            continue
        if len(k.schedules) != len(k.body):
            yield f"kernel {k.name} has no schedules", k
        for nest, schedule in zip(k.body, k.schedules, strict=False):
            for text in (*_nest(p, nest), *_schedule(k, nest, schedule, widths)):
                yield text, k
        yield from ((text, k) for text in _exchange(p, k))


def _pack(p: Program, nest: Loops) -> Iterator[str]:
    """Packs are strided views of a weight, made contiguous: no arithmetic."""
    (store,) = nest.stores if len(nest.stores) == 1 else (None,)
    if store is None or store.reduce or store.mask or nest.binds or len(store.values) != 1:
        yield "a pack is one plain store"
        return
    load, packed = store.values[0], p.buffers[store.buffers[0]]
    if not isinstance(load, Load) or load.dtype != packed.dtype:
        yield "a pack copies, and computes nothing"
        return
    address = p.buffers[load.buffer].address(load.index)
    if not all(address.is_affine_in(a.symbol) for a in nest.axes):
        yield f"a pack's address is affine, not {address}"
    if any(address.coefficient(a.symbol) < 0 for a in nest.axes):
        yield f"a pack walks forward, not {address}"
    if store.index != tuple(Index.of(a.symbol) for a in nest.axes):
        yield "a pack fills its buffer axis by axis"
    step = 1
    for n, s in zip(reversed(packed.shape), reversed(packed.strides), strict=True):
        if n > 1 and s != step:
            yield f"the packed buffer {packed.name} is contiguous"
        step *= n


def _nest(p: Program, nest: Loops) -> Iterator[str]:
    for a in nest.axes:
        if not isinstance(a.extent, int):
            yield f"axis {a.symbol} of {nest.name} has a symbolic extent"
        if a.kind not in ("parallel", "reduce", "scan"):
            yield f"axis {a.symbol} of {nest.name} is {a.kind}"
    scans = [a for a in nest.axes if a.kind == "scan"]
    if len(scans) > 1 or (scans and not all(s.reduce for s in nest.stores)):
        yield f"{nest.name}: a scan is of one axis, and all stores reduce"
    points = all(a.extent != 0 for a in nest.axes)
    for b in nest.binds:
        if b.bound == 0 and points:
            yield f"{nest.name}: {b.symbol} indexes what is empty"
        if b.value.dtype not in ("i64", "i32", "i16", "i8", "u8", "u16", "u32"):
            yield f"{nest.name}: {b.symbol} is a {b.value.dtype}"
    for e in walk(*expressions(nest)):
        if isinstance(e, Op):
            if e.name not in OPS or len(e.args) != OPS[e.name].arity:
                yield f"no C for op {e.name}"
        elif not isinstance(e, (Load, Const, Iota)):
            yield f"no C for {type(e).__name__}"
        if e.dtype not in DTYPES:
            yield f"no C for dtype {e.dtype}"
        if isinstance(e, Load) and not all(map(_static, (*e.index, *e.mask))):
            yield f"{e.buffer} is read at symbolic indices"
    for s in nest.stores:
        if not all(map(_static, (*s.index, *s.mask))):
            yield f"{s.buffers[0]} is stored at symbolic indices"
        if len(s.buffers) != len(s.values):
            yield f"{len(s.values)} values for {len(s.buffers)} buffers"
        if s.reduce is None:
            continue
        monoid, kind = s.reduce.monoid, DTYPES[s.reduce.acc_dtype][1]
        if monoid not in MONOIDS or MONOIDS[monoid].arity != len(s.values):
            yield f"no C for monoid {monoid} of {len(s.values)} values"
        elif (kind == "b") != (monoid in BOOL_MONOIDS) or (kind != "f" and monoid in FLOAT_MONOIDS):
            yield f"no C for {monoid} of {s.reduce.acc_dtype}"


def _static(x: Index) -> bool:
    """Whether an index has numbers for coefficients."""
    for atom, c in (*x.terms, ("", x.const)):
        if not isinstance(c, int):
            return False
        if isinstance(atom, (FloorDiv, Mod)) and not (
            isinstance(atom.divisor, int) and _static(atom.numerator)
        ):
            return False
    return True


def _schedule(k: Kernel, nest: Loops, s: Schedule, widths: Container[int]) -> Iterator[str]:
    kinds = {a.symbol: a.kind for a in nest.axes}
    loops = [kinds.get(loop.rpartition(".")[0]) for loop in s.order]
    if None in loops:
        yield f"{nest.name} has loops {s.order} over axes {tuple(kinds)}"
        return
    named = {loop.rpartition(".")[0] for loop in s.order}
    for a in nest.axes:
        if a.symbol not in named and a.kind != "parallel":
            yield f"{nest.name} has no loop over {a.kind} axis {a.symbol}"
    if any(kind != "parallel" for kind in loops[: s.parallel]):
        yield f"{nest.name} shares a {'/'.join(map(str, loops[: s.parallel]))} loop among threads"
    if s.vector and kinds[s.vector[0].rpartition(".")[0]] == "scan":
        yield f"{nest.name} scans along lanes"
    if s.vector and s.vector[1] not in widths:
        yield f"vectors of {s.vector[1]} lanes"
    if "scan" in loops and "reduce" in loops:
        last = max(n for n, kind in enumerate(loops) if kind == "scan")
        if loops.index("reduce") < last:
            yield f"{nest.name} scans inside a reduction"
    if s.carry and not all(x.reduce and x.reduce.monoid == "sum" for x in nest.stores):
        yield f"{nest.name} carries what is no sum"
    if s.at is not None and s.at[0] not in {n.name for n in k.body}:
        yield f"{nest.name} is computed at {s.at[0]}, no nest of its kernel"
    if s.fold and len(s.fold) > 1:
        yield f"{nest.name} folds several buffers"


def _exchange(p: Program, k: Kernel) -> Iterator[str]:
    """Nests that others in the kernel read: one element for each point of their axes."""
    for n, nest in enumerate(k.body):
        outputs = {b for s in nest.stores for b in s.buffers}
        readers = [e for m in k.body for e in loads(m) if e.buffer in outputs]
        scheduled = n < len(k.schedules) and k.schedules[n].at is not None
        if not scheduled and n < len(k.body) - 1:
            yield f"{nest.name} is computed nowhere"
        if not scheduled:
            continue
        first = nest.stores[0].index
        for i in first if readers else ():
            if not i.is_const and i != Index.of(next(iter(i.symbols))):
                yield f"{nest.name} is attached and stores at {i}"
        for e in readers:
            store = next(s for s in nest.stores if e.buffer in s.buffers)
            if store.index != first:
                yield f"{e.buffer} has another index than {nest.stores[0].buffers[0]}"
    for name in (b for n in k.body for s in n.stores for b in s.buffers):
        if p.buffers[name].scope == "local" and p.buffers[name].base is not None:
            yield f"{name} is a view of a local buffer"
