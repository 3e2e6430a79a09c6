"""What a valid program of the loop IR is: named checks, each a small function, in one tuple.

`check` runs after every pass in tests and under `SOL_CHECK=1`; a failure is a bug of the pass that
ran last, and its message names the check, the pass, the user's line and shows the IR around it. A
check is conservative: what it cannot prove it rejects, except where sizes are symbolic. It must not
know devices, nor whether a valid program is a fast one. One file, since validity is one list: a
newcomer reads here all that a pass must keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .affine import FloorDiv, Index, Mod, Range
from .ir import (
    AXIS_KINDS,
    COMPARISONS,
    DTYPES,
    FOREIGN,
    MONOIDS,
    OPS,
    SCOPES,
    Buffer,
    Const,
    Extern,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Schedule,
    Store,
    expressions,
    loads,
    read,
    show,
    walk,
    written,
)


class SpecError(Exception):
    """An invalid program: a bug in the pass that made it."""


class Problem(NamedTuple):
    """What is wrong, and where: the first piece of IR is shown, the buffers are the last one's."""

    text: str
    where: tuple[Any, ...] = ()


Problems = Iterator[Problem]
Check = Callable[[Program], Problems]


def check(program: Program, stage: str) -> None:
    """Raise `SpecError` for the first thing that is wrong with a program, as `stage` left it."""
    for f in CHECKS:
        for problem in f(program):
            raise SpecError(_report(f.__name__, stage, problem, program))


def _report(name: str, stage: str, problem: Problem, program: Program) -> str:
    lines = [f"{name.replace('_', '-')}, after {stage}: {problem.text}"]
    for x in problem.where:
        if isinstance(x, (Kernel, Extern)):
            origin = ", ".join((*x.origin.nodes, *x.origin.ops)) or "no FX node"
            lines.append(f"in {x.name}, from {origin} {x.origin.line}".rstrip())
    if problem.where:
        lines += ["    " + t for t in show(problem.where[0]).splitlines()]
        named = _buffers_in(problem.where[-1])
        lines += ["    " + show(b) for n, b in program.buffers.items() if n in named]
    return "\n".join(lines)


def _buffers_in(x: Any) -> set[str]:
    if isinstance(x, Loops):
        return {e.buffer for e in loads(x)} | {b for s in x.stores for b in s.buffers}
    return {*read(x), *written(x)} if isinstance(x, (Kernel, Extern)) else set()


def _nests(p: Program) -> Iterator[tuple[Loops, tuple[Any, ...]]]:
    """Every nest and where it is."""
    for nest in p.packs:
        yield nest, (nest,)
    for k in p.kernels:
        if isinstance(k, Kernel):
            for nest in k.body:
                yield nest, (k, nest)


# -- buffers ---------------------------------------------------------------------------------


def buffers_exist(p: Program) -> Problems:
    """Every name is a buffer's, and every buffer is known by its own name."""
    for name, b in p.buffers.items():
        if name != b.name:
            yield Problem(f"buffer {b.name} is filed under {name}", (b,))
        if b.base is not None and b.base not in p.buffers:
            yield Problem(f"{name} is a view of {b.base}, which does not exist", (b,))
    named: list[tuple[Iterable[str | None], tuple[Any, ...]]] = [
        (p.inputs, ()), (p.outputs, ()), (p.arena, ()), (p.band, ()), (p.chunked, ()),
    ]  # fmt: skip
    named += [((e.buffer for e in loads(n)), where) for n, where in _nests(p)]
    named += [((b for s in n.stores for b in s.buffers), where) for n, where in _nests(p)]
    named += [((*k.outs, *read(k)), (k,)) for k in p.kernels if isinstance(k, Extern)]
    for names, where in named:
        for used in names:
            if used and used not in p.buffers:
                yield Problem(f"there is no buffer {used}", where)


def buffers_are_typed(p: Program) -> Problems:
    for b in p.buffers.values():
        if b.dtype == FOREIGN and (b.shape or b.scope not in ("input", "weight", "extern")):
            yield Problem(f"{b.name} is foreign, but has sizes or is {b.scope} memory", (b,))
        if b.dtype not in (*DTYPES, FOREIGN):
            yield Problem(f"{b.name} has dtype {b.dtype}; known: {', '.join(DTYPES)}", (b,))
        if b.scope not in SCOPES:
            yield Problem(f"{b.name} has scope {b.scope}; known: {', '.join(SCOPES)}", (b,))
        if len(b.shape) != len(b.strides):
            yield Problem(f"{b.name} has {len(b.shape)} sizes, {len(b.strides)} strides", (b,))
        if any(isinstance(n, int) and n < 0 for n in (*b.shape, *b.strides, b.offset)):
            yield Problem(f"{b.name} has a negative size, stride or offset", (b,))


def views_lie_in_their_base(p: Program) -> Problems:
    """A base is memory of its own; a view has its dtype and stays inside (static sizes)."""
    for v in p.buffers.values():
        if v.base is None:
            continue
        base = p.buffers[v.base]
        if base.base is not None:
            yield Problem(f"{v.name} is a view of {base.name}, itself a view", (v,))
        elif base.dtype != v.dtype:
            yield Problem(f"{v.name} is a {v.dtype} view of {base.dtype} memory", (v,))
        elif base.scope == "local":
            yield Problem(f"{v.name} is a view of local {base.name}, whose layout is free", (v,))
        elif _static_buffer(v) and _static_buffer(base) and _end(v) > _end(base):
            yield Problem(f"{v.name} ends at {_end(v)}, its base at {_end(base)}", (v,))


def _static_buffer(b: Buffer) -> bool:
    return all(isinstance(n, int) for n in (*b.shape, *b.strides, b.offset))


def _end(b: Buffer) -> int:
    """Elements from the start of the memory to the end of b."""
    if 0 in b.shape:
        return 0
    return b.offset + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True)) + 1


# -- nests -----------------------------------------------------------------------------------


def axes_are_sound(p: Program) -> Problems:
    for nest, where in _nests(p):
        names = [a.symbol for a in nest.axes] + [b.symbol for b in nest.binds]
        for n in sorted({n for n in names if names.count(n) > 1}):
            yield Problem(f"{n} names two axes or binds", where)
        for a in nest.axes:
            if a.kind not in AXIS_KINDS:
                yield Problem(f"axis {a.symbol} is {a.kind}; known: {AXIS_KINDS}", where)
            if isinstance(a.extent, int) and a.extent < 0:
                yield Problem(f"axis {a.symbol} has extent {a.extent}", where)
        if not nest.stores:
            yield Problem("a nest without a store", where)
        scans = [a.symbol for a in nest.axes if a.kind == "scan"]
        if len(scans) > 1 or (scans and not all(s.reduce for s in nest.stores)):
            yield Problem("a scan is of one axis, and all stores reduce", where)


def symbols_are_bound(p: Program) -> Problems:
    """Every symbol is an axis, an earlier bind or a size; what a reduction gives does not depend on
    its reduce axes, nor what it starts from on the scan axis."""
    for nest, where in _nests(p):
        known = {a.symbol for a in nest.axes} | set(p.symbols)
        for b in nest.binds:
            yield from _unbound(_symbols(b.value), known, where)
            known.add(b.symbol)
        yield from _unbound(_symbols(*(v for s in nest.stores for v in s.values)), known, where)
        for s in nest.stores:
            inner = {a.symbol for a in nest.axes if s.reduce and a.kind == "reduce"}
            place = set().union(*(i.symbols for i in (*s.index, *s.mask)))
            if place & inner:
                text = f"the place of {s.buffers[0]} depends on reduce axis {min(place & inner)}"
                yield Problem(text, where)
            yield from _unbound(place, known, where)
            start = _symbols(*(s.reduce.init or ())) if s.reduce else set()
            inner |= {a.symbol for a in nest.axes if a.kind == "scan"}
            yield from _unbound(start, known - inner, where)


def _symbols(*roots: Any) -> set[str]:
    found: set[str] = set()
    for e in walk(*roots):
        if isinstance(e, (Load, Iota)):
            index = (*e.index, *e.mask) if isinstance(e, Load) else (e.index,)
            found.update(*(i.symbols for i in index))
    return found


def _unbound(used: set[str], known: set[str], where) -> Problems:
    if used - known:
        yield Problem(f"{min(used - known)} is bound nowhere that this may see", where)


def expressions_are_typed(p: Program) -> Problems:
    """Arity and dtypes of every op; loads have their buffer's dtype and rank."""
    for nest, where in _nests(p):
        for e in walk(*expressions(nest)):
            text = _load_error(p, e) if isinstance(e, Load) else None
            if e.dtype not in DTYPES:
                text = f"unknown dtype {e.dtype}"
            elif isinstance(e, Const) and DTYPES[e.dtype][1] in "iu" and e.value % 1 not in (0,):
                text = None if e.value in (float("inf"), -float("inf")) else "not an integer"
            elif isinstance(e, Iota) and DTYPES[e.dtype][1] not in "iuf":
                text = "an index is a number"
            elif isinstance(e, Op):
                text = _op_error(e)
            if text:
                yield Problem(f"{_brief(e)}: {text}", where)


def _brief(e: Any) -> str:
    """An expression as text, or its op alone where the text might be long."""
    many = isinstance(e, Op) and sum(1 for _ in walk(e)) > 12
    return f"{e.name}(...)" if many else show(e)


def _load_error(p: Program, e: Load) -> str | None:
    b = p.buffers[e.buffer]
    if b.dtype != e.dtype:
        return f"{e.dtype} load of a {b.dtype} buffer"
    return f"{len(e.index)} indices of {len(b.shape)}" if len(e.index) != len(b.shape) else None


def _op_error(e: Op) -> str | None:
    info = OPS.get(e.name)
    if info is None:
        return f"unknown op {e.name}"
    if len(e.args) != info.arity:
        return f"{e.name} takes {info.arity} arguments, not {len(e.args)}"
    dtypes = [a.dtype for a in e.args]
    if e.name == "cast":
        return None
    if e.name == "where" and dtypes.pop(0) != "bool":
        return "the condition is not bool"
    result = dtypes[0] if e.name in COMPARISONS else e.dtype
    if e.name in COMPARISONS and e.dtype != "bool":
        return f"a comparison gives bool, not {e.dtype}"
    if any(d != result for d in dtypes):
        return f"{e.name} of {', '.join(dtypes)} gives {e.dtype}"
    if DTYPES[result][1] not in info.kinds:
        return f"{e.name} is not for {result}"
    return None


def stores_are_typed(p: Program) -> Problems:
    for nest, where in _nests(p):
        for s in nest.stores:
            text = _reduce_error(s) if s.reduce else None
            if len(s.buffers) != len(s.values) or not s.buffers:
                text = f"{len(s.values)} values for {len(s.buffers)} buffers"
            for name, v in zip(s.buffers, s.values, strict=False):
                b = p.buffers[name]
                if len(s.index) != len(b.shape):
                    text = f"{len(s.index)} indices for the {len(b.shape)} dimensions of {name}"
                elif not s.reduce and v.dtype != b.dtype:
                    text = f"{v.dtype} value for {b.dtype} buffer {name}"
            if text:
                yield Problem(f"store to {', '.join(s.buffers)}: {text}", where)


def _reduce_error(s: Store) -> str | None:
    r = s.reduce
    assert r is not None
    if r.monoid not in MONOIDS or r.acc_dtype not in DTYPES:
        return f"unknown monoid {r.monoid} or dtype {r.acc_dtype}"
    arity = MONOIDS[r.monoid].arity
    if {len(s.values), len(r.init or s.values)} != {arity}:
        return f"{r.monoid} combines {arity} values"
    if r.monoid in ("any", "all") and r.acc_dtype != "bool":
        return f"{r.monoid} accumulates bool"
    if r.monoid in ("welford", "softmax", "attention") and DTYPES[r.acc_dtype][1] != "f":
        return f"{r.monoid} accumulates floats"
    for k, v in enumerate((*s.values, *(r.init or ()))):
        if r.monoid in ("argmax", "argmin") and k % 2:
            if DTYPES[v.dtype][1] not in "iu":
                return "a position is an integer"
        elif v.dtype != r.acc_dtype:
            return f"{v.dtype} value for a {r.acc_dtype} accumulator"
    return None


# -- bounds and races ------------------------------------------------------------------------


def loads_stay_in_bounds(p: Program) -> Problems:
    """Every index that a mask lets through is in its dimension, for static sizes."""
    for nest, where in _nests(p):
        ranges = _ranges(nest)
        for e in loads(nest):
            text = _outside(p.buffers[e.buffer], e.index, e.mask, ranges)
            if text:
                yield Problem(text, where)


def stores_stay_in_bounds(p: Program) -> Problems:
    for nest, where in _nests(p):
        ranges = _ranges(nest)
        for s in nest.stores:
            for name in s.buffers:
                text = _outside(p.buffers[name], s.index, s.mask, ranges)
                if text:
                    yield Problem(text, where)


def _ranges(nest: Loops) -> dict[str, Range] | None:
    """What each symbol takes, those of symbolic extent left out; None: the nest has no points."""
    extents = {a.symbol: a.extent for a in nest.axes} | {b.symbol: b.bound for b in nest.binds}
    if 0 in extents.values():
        return None
    return {s: (0, n - 1) for s, n in extents.items() if isinstance(n, int)}


def _outside(b: Buffer, index, mask, ranges: dict[str, Range] | None) -> str | None:
    if ranges is None:
        return None
    known = [m for m in mask if _static(m, ranges)]
    facts = [f for m in known for f in _meanings(m)]
    if any(m.bounds(ranges)[1] < 0 for m in facts):
        return None  # nothing is touched
    for d, (i, n) in enumerate(zip(index, b.shape, strict=True)):
        if not (_static(i, ranges) and isinstance(n, int)) or len(known) != len(mask):
            continue
        lo, hi = i.bounds(ranges)
        above = lo >= 0 or _follows(i, facts, ranges)
        if not above or not (hi < n or _follows(n - 1 - i, facts, ranges)):
            place = f"{b.name}[{', '.join(map(str, index))}]"
            return f"{place}: index {d} may be {lo}..{hi}, the dimension is 0..{n - 1}"
    return None


def _meanings(m: Index) -> Iterator[Index]:
    """m >= 0, and what it says of a dividend: y // d >= 2 is y >= 2 * d."""
    yield m
    if len(m.terms) == 1 and isinstance(m.terms[0][0], FloorDiv):
        yield from _meanings(_of_dividend(*m.terms[0], m.const))


def _of_dividend(q: FloorDiv, c: int, k: int) -> Index:
    """c * (y // d) + k >= 0  <=>  y + d * floor(k / c) >= 0, and for a negative factor
    k - c * (y // d) >= 0  <=>  d * floor(k / c) + d - 1 - y >= 0."""
    most = k // abs(c)
    return q.numerator + most * q.divisor if c > 0 else (most + 1) * q.divisor - 1 - q.numerator


def _static(x: Index, ranges: Mapping[str, Range]) -> bool:
    if not isinstance(x.const, int) or not x.symbols <= ranges.keys():
        return False
    for atom, c in x.terms:
        if not isinstance(c, int):
            return False
        if isinstance(atom, str):
            continue
        if not isinstance(atom.divisor, int) or not _static(atom.numerator, ranges):
            return False
    return True


def _multiples(x: Index, m: Index) -> set[int]:
    """By which factors a mask's terms cancel terms of x: 2 - 2*i is twice 1 - i."""
    terms = dict(m.terms)
    return {1} | {c // terms[a] for a, c in x.terms if a in terms and c // terms[a] > 1}


def _follows(x: Index, facts: Sequence[Index], ranges: Mapping[str, Range]) -> bool:
    """Whether x >= 0 follows from the ranges and a sum of multiples of masks: of those that share a
    term with what is left of x, which nearly always do, or of all; where the masks tell of parts of
    a symbol, of these."""
    if any(_nonnegative(x, facts, ranges, near, set()) for near in (True, False)):
        return True
    parts = _in_parts(x, facts, ranges)
    return parts is not None and _follows(*parts)


def _in_parts(
    x: Index, facts: Sequence[Index], ranges: Mapping[str, Range]
) -> tuple[Index, list[Index], dict[str, Range]] | None:
    """The same with a symbol of x as its digits, by which it and the masks divide; None without."""
    for s in sorted(x.symbols & ranges.keys()):
        low, high = ranges[s]
        radices = sorted({d for i in (x, *facts) for a, _ in i.terms for d in _radices(a, s)})
        ends = [1, *radices, high + 1]
        if not radices or low or any(b % a for a, b in pairwise(ends)):
            continue
        digits = {f"{s}/{a}": (a, b // a - 1) for a, b in pairwise(ends) if b > a}
        split = {**ranges, **{name: (0, most) for name, (_, most) in digits.items()}}
        whole = {s: Index({name: size for name, (size, _) in digits.items()})}
        return (
            x.subst(whole).simplify(split),
            [f.subst(whole).simplify(split) for f in facts],
            split,
        )
    return None


def _radices(atom: Any, s: str) -> Iterator[int]:
    """By what s is divided: 8 in s // 8 and s % 8, 8 and 48 in (s // 8) % 6."""
    if isinstance(atom, str):
        return
    inner = atom.numerator.terms[0][0] if len(atom.numerator.terms) == 1 else s
    if atom.numerator is Index.of(s):
        yield atom.divisor
    elif isinstance(inner, FloorDiv) and inner.numerator is Index.of(s):
        yield from (inner.divisor, inner.divisor * atom.divisor)
    else:
        for a, _ in atom.numerator.terms:
            yield from _radices(a, s)


def _nonnegative(
    x: Index,
    facts: Sequence[Index],
    ranges: Mapping[str, Range],
    near: bool,
    tried: set[tuple[Index, tuple[Index, ...]]],
) -> bool:
    x, facts = x.simplify(ranges), tuple(dict.fromkeys(facts))
    if x.bounds(ranges)[0] >= 0:
        return True
    if (x, facts) in tried:  # by masks in another order
        return False
    tried.add((x, facts))
    for p, m in enumerate(facts):
        if m.symbols.isdisjoint(x.symbols):  # nothing of x that it could cancel
            continue
        if near and not {a for a, _ in m.terms} & {a for a, _ in x.terms}:
            continue
        others = (*facts[:p], *facts[p + 1 :])
        if any(_nonnegative(x - m * k, others, ranges, near, tried) for k in _multiples(x, m)):
            return True
        for k in _multiples(m, x) - {1}:  # k * x > -k is enough
            if _nonnegative(x * k + (k - 1) - m, others, ranges, near, tried):
                return True
    for atom, c in x.terms:
        if not isinstance(atom, FloorDiv):
            continue
        least = (x - Index({atom: c})).bounds(ranges)[0]  # of the rest
        if _nonnegative(_of_dividend(atom, c, least), facts, ranges, near, tried):
            return True
    return False


def stores_do_not_race(p: Program) -> Problems:
    """Two points of a nest never store to one element: the index determines the axes."""
    for nest, where in _nests(p):
        ranges = _ranges(nest)
        if ranges is None:
            continue
        for s in nest.stores:
            loops = [
                a for a in nest.axes if a.extent != 1 and not (s.reduce and a.kind == "reduce")
            ]
            free = {a.symbol for a in loops} - determined(s.index, ranges)
            if free:
                text = f"{', '.join(sorted(free))} may vary and {s.buffers[0]}'s element not"
                yield Problem(text, where)


def determined(index: Iterable[Index], ranges: Mapping[str, Range]) -> set[str]:
    """Symbols whose values follow from the index's, where mixed radix and x // d, x % d say so."""
    atoms: set[Any] = set()
    pending, before = list(index), (-1, 0)
    while before != (len(atoms), len(pending)):
        before = len(atoms), len(pending)
        for x in pending:
            rest = [(a, c) for a, c in x.terms if a not in atoms]
            if _mixed_radix(rest, ranges):
                atoms.update(a for a, _ in rest)
        wholes = {_whole(a) for a in atoms}
        for a in [a for a in atoms if isinstance(a, Mod)]:
            quotient = a.numerator // a.divisor
            if _static(quotient, ranges):
                quotient = quotient.simplify(ranges)
            known = all(b in atoms or _whole(b) in wholes for b, _ in quotient.terms)
            if known and a.numerator not in pending:
                pending.append(a.numerator)
    return {a for a in atoms if isinstance(a, str)}


def _whole(atom: Any) -> Any:
    """A quotient without quotients in its dividend: (x // a + y) // b is (x + a * y) // (a * b)."""
    while isinstance(atom, FloorDiv):
        terms = dict(atom.numerator.terms)
        inner = next((q for q, c in terms.items() if isinstance(q, FloorDiv) and c == 1), None)
        if inner is None:
            break
        rest = atom.numerator - Index({inner: 1})
        flat = (inner.numerator + rest * inner.divisor) // (inner.divisor * atom.divisor)
        if len(flat.terms) != 1 or flat.const != 0 or flat.terms[0][1] != 1:
            break
        atom = flat.terms[0][0]
    return atom


def _mixed_radix(terms: list[tuple[Any, Any]], ranges: Mapping[str, Range]) -> bool:
    """Whether sum(c * a) determines every a: each coefficient exceeds what lies below it."""
    if len(terms) <= 1:
        return True
    if not all(isinstance(c, int) and _static(Index({a: 1}), ranges) for a, c in terms):
        return False
    span = 0
    for a, c in sorted(terms, key=lambda t: abs(t[1])):
        lo, hi = Index({a: 1}).bounds(ranges)
        if lo != hi and abs(c) <= span:
            return False
        span += abs(c) * (hi - lo)
    return True


# -- order -----------------------------------------------------------------------------------


def buffers_are_written_once(p: Program) -> Problems:
    """No two stores write one buffer (or the same slice under two names)."""
    seen: dict[Any, str] = {}
    steps: list[tuple[Iterable[str], tuple[Any, ...]]] = [
        ([b for s in n.stores for b in s.buffers], (n,)) for n in p.packs
    ]
    steps += [(written(k), (k,)) for k in p.kernels]
    for names, where in steps:
        for name in filter(None, names):
            b = p.buffers[name]
            slot = (b.base or name, b.offset, b.shape, b.strides)
            if slot in seen:
                yield Problem(f"{name} is written twice (as {seen[slot]} before)", where)
            seen[slot] = name


def writes_match_scopes(p: Program) -> Problems:
    """Inputs and weights are read only, but for packs, which make weights of weights."""
    for nest in p.packs:
        names = [b for s in nest.stores for b in s.buffers]
        for name in names:
            if p.base(name).scope != "weight" or p.base(name).name in p.inputs:
                yield Problem(f"a pack writes {name}, which is no packed weight", (nest,))
        for e in loads(nest):
            if p.base(e.buffer).scope != "weight":
                yield Problem(f"a pack reads {e.buffer}, which is no weight", (nest,))
    for k in p.kernels:
        touched = (*read(k), *written(k)) if isinstance(k, Kernel) else ()
        for name in touched:
            if p.buffers[name].dtype == FOREIGN:
                yield Problem(f"{name} is foreign to kernels", (k,))
        forbidden = ("input", "weight", "local" if isinstance(k, Extern) else "extern")
        for name in written(k):
            if p.base(name).scope in forbidden:
                yield Problem(f"{name} is {p.base(name).scope} memory and written", (k,))


def reads_follow_writes(p: Program) -> Problems:
    """Memory is written before it is read; locals live in one kernel; no nest reads its result."""
    ready = set(p.inputs)
    for nest in p.packs:
        yield from _read_early(p, {e.buffer for e in loads(nest)}, ready, (nest,))
        ready.update(b for s in nest.stores for b in s.buffers)
    for k in p.kernels:
        if isinstance(k, Extern):
            yield from _read_early(p, set(read(k)), ready, (k,))
            ready.update(p.base(b).name for b in k.outs if b)
            continue
        for nest in k.body:
            own = {b for s in nest.stores for b in s.buffers}
            sources = {e.buffer for e in loads(nest)}
            if own & sources:
                yield Problem(f"a nest reads {min(own & sources)}, its own result", (k, nest))
            yield from _read_early(p, sources, ready, (k, nest))
            ready.update(p.base(b).name for b in own)
        ready = {b for b in ready if p.buffers[b].scope != "local"}
    results = {b for b in p.outputs if b is not None}
    for problem in _read_early(p, results, ready, ()):
        yield Problem(f"at the end, {problem.text}")


def outputs_outlive_the_call(p: Program) -> Problems:
    for b in p.outputs:
        if b is not None and p.base(b).scope in ("arena", "local"):
            yield Problem(f"output {b} lies in memory that the next call uses", (p.buffers[b],))


def _read_early(p: Program, names: set[str], ready: set[str], where) -> Problems:
    for name in sorted(names):
        if p.base(name).name not in ready and 0 not in p.buffers[name].shape:
            yield Problem(f"{name} is read before it is written", where)


# -- schedules -------------------------------------------------------------------------------


def _scheduled(p: Program) -> Iterator[tuple[Kernel, int, Loops, Schedule]]:
    for k in p.kernels:
        if isinstance(k, Kernel) and len(k.schedules) == len(k.body):
            for n, (nest, s) in enumerate(zip(k.body, k.schedules, strict=True)):
                yield k, n, nest, s


def every_nest_has_a_schedule(p: Program) -> Problems:
    for k in p.kernels:
        if isinstance(k, Kernel) and len(k.schedules) not in (0, len(k.body)):
            yield Problem(f"{len(k.schedules)} schedules for {len(k.body)} nests", (k,))


def tiles_descend(p: Program) -> Problems:
    for k, _, nest, s in _scheduled(p):
        for axis, sizes in s.tile.items():
            if axis not in {a.symbol for a in nest.axes}:
                yield Problem(f"tile of {axis}, which is no axis of {nest.name}", (k,))
            if any(n <= 0 for n in sizes) or list(sizes) != sorted(sizes, reverse=True):
                yield Problem(f"tiles {sizes} of {axis} in {nest.name} do not descend", (k,))


def orders_name_every_loop(p: Program) -> Problems:
    """Each loop once, outer levels first. An attached nest may leave out an axis of which its
    place needs one point only, with all its levels, but never a reduce or scan axis."""
    for k, _, nest, s in _scheduled(p):
        left = list(s.order)
        for a in nest.axes:
            levels = _levels(a.symbol, s)
            got = [x for x in s.order if x.rpartition(".")[0] == a.symbol]
            left = [x for x in left if x not in got]
            if got != levels and not (not got and s.at is not None and a.kind == "parallel"):
                text = f"{nest.name} has loops {levels} of {a.symbol}, its order {got}"
                yield Problem(text, (k,))
        if left:
            yield Problem(f"the order of {nest.name} has loops {left} of no axis", (k,))


def _levels(axis: str, s: Schedule) -> list[str]:
    return [f"{axis}.{n}" for n in range(len(s.tile.get(axis, ())) + 1)]


def parallel_loops_are_parallel(p: Program) -> Problems:
    """Only the last nest's loops are shared out, and only over parallel axes."""
    for k, _, nest, s in _scheduled(p):
        kinds = {a.symbol: a.kind for a in nest.axes}
        if not 0 <= s.parallel <= len(s.order) or (s.parallel and s.at is not None):
            yield Problem(f"{s.parallel} parallel loops in {nest.name}", (k,))
        for loop in s.order[: s.parallel]:
            if kinds.get(loop.rpartition(".")[0]) != "parallel":
                yield Problem(f"parallel loop {loop} of {nest.name} is not parallel", (k,))


def vectors_are_innermost(p: Program) -> Problems:
    """Lanes are the points of an axis's last level, a power of two of them."""
    for k, _, nest, s in _scheduled(p):
        if s.vector is None:
            continue
        loop, lanes = s.vector
        if loop not in s.order or loop != _levels(loop.rpartition(".")[0], s)[-1]:
            yield Problem(f"vector loop {loop} of {nest.name} is no innermost level", (k,))
        if lanes < 1 or lanes & (lanes - 1):
            yield Problem(f"{lanes} lanes in {nest.name}", (k,))


def loop_options_name_loops(p: Program) -> Problems:
    for k, _, nest, s in _scheduled(p):
        outline = {s.outline} if s.outline is not None else set()
        for option, names in (
            ("unroll", s.unroll),
            ("peel", s.peel),
            ("outline", outline),
            ("block", set(s.block)),
        ):
            if names - set(s.order):
                text = f"{option} of {min(names - set(s.order))}, no loop of {nest.name}"
                yield Problem(text, (k,))
        reduces = {x for a in nest.reduce_axes for x in _levels(a.symbol, s)}
        if s.ahead is not None and s.ahead not in s.order:
            yield Problem(f"weights fetched ahead of {s.ahead}, no loop of {nest.name}", (k,))
        if s.split < 1 or (s.split > 1 and not reduces & set(s.order) - set(s.block)):
            yield Problem(f"{s.split} programs share no reduce loop of {nest.name}", (k,))
        for axis, points in s.halo.items():
            if axis not in s.tile or min(points) < 0 or sum(points) >= s.tile[axis][0]:
                text = f"a halo of {points} leaves no tile of {axis} in {nest.name} its own points"
                yield Problem(text, (k,))
        for option, name in (("partial", s.partial), ("carried", s.carry)):
            if name is not None and name not in reduces & set(s.order):
                yield Problem(f"{option} sums of {name}, no reduce loop of {nest.name}", (k,))


def nests_are_attached(p: Program) -> Problems:
    """Every nest but the last is computed at a loop of a later one ("": before all of its loops),
    its local buffers kept there or further out; only those fold."""
    for k, n, nest, s in _scheduled(p):
        if s.at is None:
            if n < len(k.body) - 1:
                yield Problem(f"{nest.name} is computed nowhere", (k,))
            if s.store_at is not None or s.fold:
                yield Problem(f"{nest.name} has store_at or fold and no place", (k,))
            continue
        host = next((m for m in range(n + 1, len(k.body)) if k.body[m].name == s.at[0]), None)
        if host is None:
            yield Problem(f"{nest.name} is computed at {s.at[0]}, no later nest", (k,))
            continue
        order = ("", *k.schedules[host].order)
        if s.at[1] not in order:
            yield Problem(f"{nest.name} is computed at {s.at[1]}, no loop of {s.at[0]}", (k,))
        elif s.store_at is not None and s.store_at not in order[: order.index(s.at[1]) + 1]:
            yield Problem(f"{nest.name} is stored at {s.store_at}, not around {s.at[1]}", (k,))
        own = {b for x in nest.stores for b in x.buffers if p.buffers[b].scope == "local"}
        for b, rows in s.fold.items():
            if b not in own or rows < 1:
                yield Problem(f"{nest.name} folds {b} to {rows} rows", (k,))


# -- memory ----------------------------------------------------------------------------------


def depth_first_runs_kernels(p: Program) -> Problems:
    end = 0
    for d in sorted(p.depth_first, key=lambda d: d.first):
        inside = p.kernels[d.first : d.last]
        if not end <= d.first < d.last <= len(p.kernels) or d.chunk < 1 or d.trips < 1:
            yield Problem(f"{d} of {len(p.kernels)} kernels, after {end}")
        elif any(isinstance(k, Extern) for k in inside):
            yield Problem(f"{d} runs a call outside by chunks")
        end = d.last
    for name, step in p.chunked.items():
        b = p.buffers[name]
        if b.base is not None or step % DTYPES[b.dtype][0]:
            yield Problem(f"chunks of {name} are {step} bytes apart", (b,))


def arena_keeps_what_lives(p: Program) -> Problems:
    """Buffers in the arena fit, and share bytes only if one dies where or before the other is
    born. Buffers of a depth-first run are left out: chunks of several may share memory."""
    life: dict[str, list[int]] = {}
    for n, k in enumerate(p.kernels):
        for name in (*read(k), *written(k)):
            life.setdefault(p.base(name).name, []).append(n)
    runs = {n for d in p.depth_first for n in range(d.first, d.last)}
    placed = []
    for name, start in p.arena.items():
        b = p.buffers[name]
        if not _static_buffer(b):
            continue
        end = start + _end(b) * DTYPES[b.dtype][0]
        if b.base is not None or start < 0 or end > p.arena_bytes:
            yield Problem(f"{name} is at {start}..{end} of {p.arena_bytes} bytes", (b,))
        if life.get(name) and runs.isdisjoint(life[name]):
            placed.append((start, end, life[name][0], life[name][-1], b))
    placed.sort(key=lambda x: x[:2])
    for i, (_, end, first, last, b) in enumerate(placed):
        for start, _, born, dies, other in placed[i + 1 :]:
            if start >= end:
                break
            if first == born or (first < dies and born < last):
                yield Problem(f"{b.name} and {other.name} live at once at byte {start}", (b,))


CHECKS: tuple[Check, ...] = (
    buffers_exist,  # first: the others look buffers up
    buffers_are_typed,
    views_lie_in_their_base,
    axes_are_sound,
    symbols_are_bound,
    expressions_are_typed,  # before bounds: ranks agree
    stores_are_typed,
    loads_stay_in_bounds,
    stores_stay_in_bounds,
    stores_do_not_race,
    buffers_are_written_once,
    writes_match_scopes,
    reads_follow_writes,
    outputs_outlive_the_call,
    every_nest_has_a_schedule,
    tiles_descend,
    orders_name_every_loop,
    parallel_loops_are_parallel,
    vectors_are_innermost,
    loop_options_name_loops,
    nests_are_attached,
    depth_first_runs_kernels,
    arena_keeps_what_lives,
)
