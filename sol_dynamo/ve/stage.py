"""Copies that bring an operand into the order of a walk: planes with zeros around, blocks, pairs.

Elements are gathered through a vector of offsets, which is made once for 256 elements and kept
over the leading axes, where these only add to the address: 25 to 50 cycles for 256 elements in the
cycle model, whatever the pads, strides and phases are (KERNELS.md). The nest may compute something
of what it loads. Knows nothing of what it is copied for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..affine import FloorDiv, Index, Range
from ..ir import Axis, Kernel, Load, Loops, Program, Schedule, loads, walk
from ..kernels.c.nest import Code
from ..schedule.nests import substitute
from ..schedule.plan import Plan
from .packed import PRELUDE, Packed, Writer, skewed, supported, text, word

BLOCK = 256  # elements that are gathered at once
SETUP = 700  # cycles in which the offsets of a block are made
GATHER = 45  # cycles of a block's gather and store
AHEAD = 16  # gathers under way
LEAST = 1 << 12  # points from which a pointwise kernel is walked so,
WORTH = 16  # and pieces for which the same offsets hold


@dataclass(frozen=True)
class Copy:
    """`Schedule.own` of a copy: leading axes for each of which offsets are made, axes over which
    they are kept, and those of a contiguous piece, cut into blocks."""

    units: int  # how many axes lead
    kept: int  # how many behind them add to addresses and are in no mask
    halves: (
        int  # 0; 1: the last axis is both halves of 64 bits, which hold the same; 2: it is these
    )
    blocks: int
    groups: int  # units of each block
    gather: float = GATHER  # cycles of one

    def pieces(self, axes: Sequence[Axis]) -> int:
        """How many share their offsets."""
        return prod(a.extent for a in axes[self.units : self.units + self.kept])


def stage_kernel(plan: Plan, nest: Loops, twice: bool) -> Kernel:
    """A kernel of one nest that stores to contiguous memory, axis by axis; without a schedule, for
    the general emitter, where it computes what is not known here."""
    name = nest.name
    nest = min(_splits(nest, twice), key=lambda n: _guess(plan, n, twice))
    note = "moves data: an operand in the order of its walk"
    value = nest.stores[0].values[0]
    copy = _copy(plan, nest, twice)
    if copy is None or not supported(value):
        return Kernel(name, (nest,), (), plan.kernel.origin, note)
    order = tuple(f"{a.symbol}.0" for a in nest.axes)
    return Kernel(name, (nest,), (Schedule(order, own=copy),), plan.kernel.origin, note)


def _guess(plan: Plan, nest: Loops, twice: bool) -> float:
    copy = _copy(plan, nest, twice)
    return float("inf") if copy is None else _cost(copy, nest.axes)


def _splits(nest: Loops, twice: bool) -> Iterator[Loops]:
    """A nest, and those with an axis cut in two, so that a piece of some hundred elements is
    contiguous: for k < 2048, lane < 25  ==>  for high < 256, low < 8, lane < 25."""
    yield nest
    inner = 1
    for n in range(len(nest.axes) - twice - 1, -1, -1):
        a = nest.axes[n]
        if a.symbol == "half":
            continue
        for low in range(2, min(a.extent, 2 * BLOCK // inner + 1)):
            if a.extent % low == 0 and low * inner > BLOCK // 2:
                high, less = f"{a.symbol}_high", f"{a.symbol}_low"
                axes = (Axis(high, a.extent // low), Axis(less, low))
                point = Index({high: low, less: 1})
                yield substitute(
                    nest, {a.symbol: point}, (*nest.axes[:n], *axes, *nest.axes[n + 1 :])
                )
        inner *= a.extent
        if inner > BLOCK:
            break


def schedule_pointwise(plan: Plan) -> bool:
    """Schedule a nest that stores one float32 for each point, in order, as copies are."""
    (nest,) = plan.kernel.body
    store = nest.stores[0]
    if len(nest.stores) > 1 or len(store.buffers) > 1 or store.reduce or store.mask or nest.binds:
        return False
    if not all(isinstance(a.extent, int) and a.kind == "parallel" for a in nest.axes):
        return False
    target = plan.buffers[store.buffers[0]]
    strides = [s for e in loads(nest) for s in plan.buffers[e.buffer].strides]
    if target.dtype != "f32" or not all(isinstance(s, int) for s in (*target.strides, *strides)):
        return False
    address = plan.address(store.buffers[0], store.index)
    axes = tuple(sorted(nest.axes, key=lambda a: -address.coefficient(a.symbol)))
    if prod(a.extent for a in axes) < LEAST or not supported(store.values[0]):
        return False
    if not _in_order(address - address.const, axes):
        return False
    nest = replace(nest, axes=axes)
    for made in (nest, min(_splits(nest, False), key=lambda n: _guess(plan, n, False))):
        copy = _copy(plan, made, False)
        # for few pieces the offsets, and loads that nothing hides, are too much
        if copy is not None and copy.pieces(made.axes) >= WORTH:
            break
    else:
        return False
    nest = made
    order = tuple(f"{a.symbol}.0" for a in nest.axes)
    plan.kernel = replace(plan.kernel, body=(nest,), schedules=(Schedule(order, own=copy),))
    return True


def stage_cost(kernel: Kernel) -> float:
    """Cycles of one core."""
    axes = kernel.body[0].axes
    if not kernel.schedules:
        return 2.0 * prod(a.extent for a in axes)
    return _cost(kernel.schedules[0].own, axes)


def _cost(copy: Copy, axes: Sequence[Axis]) -> float:
    times = prod(a.extent for a in axes[: copy.units]) * copy.blocks
    kept = prod(a.extent for a in axes[copy.units : copy.units + copy.kept])
    return times * (SETUP + kept * copy.gather) + 500


def _copy(plan: Plan, nest: Loops, twice: bool) -> Copy | None:
    found = list(loads(nest))
    halves = 1 if twice else 2 * _paired(plan, nest)
    axes = nest.axes[: len(nest.axes) - (halves > 0)]
    if not 0 < len(found) <= 4 or any(e.dtype != "f32" for e in found):
        return None
    ranges = _ranges(nest)
    indices = [plan.address(e.buffer, e.index) for e in found]
    masks = [m for e in found for m in e.mask]
    if not all(_nonnegative(i, ranges) for i in (*indices, *masks)):
        return None
    if any(_valid(e, axes) is None for e in found):
        return None

    def adds(a: Axis) -> bool:
        return all(i.is_affine_in(a.symbol) for i in indices) and not any(
            a.symbol in m.symbols for m in masks
        )

    gather = float(GATHER * max(halves, 1))
    for i in indices:  # of each element in a line of its own, and all of them in one bank
        step = 4 * abs(i.coefficient(axes[-1].symbol))
        if step >= 128:
            gather = max(gather, BLOCK * (4 if step % 2048 == 0 else 0.6))
    best: Copy | None = None
    for units in range(len(axes)):
        for kept in range(len(axes) - units):
            if not all(map(adds, axes[units : units + kept])):
                break
            blocks = -(-prod(a.extent for a in axes[units + kept :]) // BLOCK)
            made = Copy(units, kept, halves, blocks, 1, gather)
            if best is None or _cost(made, axes) < _cost(best, axes):
                best = made
    if best is None:
        return None
    times = prod(a.extent for a in axes[: best.units]) * best.blocks
    over = prod(a.extent for a in axes[best.units : best.units + best.kept])
    wanted = -(-4 * max(plan.caps.cores, 1) // times)
    return replace(best, groups=max(1, min(wanted, over // (2 * AHEAD))))


def _paired(plan: Plan, nest: Loops) -> bool:
    """Whether the last axis is two halves that lie a fixed distance apart in what is read."""
    a = nest.axes[-1]
    return a.symbol == "half" and all(
        plan.address(e.buffer, e.index).is_affine_in("half")
        and not any("half" in m.symbols for m in e.mask)
        for e in loads(nest)
    )


def _valid(e: Load, axes: Sequence[Axis]) -> dict[str, int] | None:
    """A point at which a load is not masked: what is masked reads that instead."""
    used = set().union(*(m.symbols for m in e.mask)) if e.mask else set()
    free = {a.symbol: 0 for a in axes if a.symbol not in used}
    axes = [a for a in axes if a.symbol in used]
    if not axes:
        return free
    grid = np.indices([a.extent for a in axes]).reshape(len(axes), -1)
    point = {a.symbol: row for a, row in zip(axes, grid, strict=True)}
    ok = np.ones(grid.shape[1], bool)
    for m in e.mask:
        ok &= np.asarray(m.evaluate(point)) >= 0
    at = int(ok.argmax())
    return free | {s: int(row[at]) for s, row in point.items()} if ok[at] else None


def _ranges(nest: Loops) -> dict[str, Range]:
    return {a.symbol: (0, max(a.extent - 1, 0)) for a in nest.axes}


def _nonnegative(i: Index, ranges: dict[str, Range]) -> bool:
    """Whether what is divided in an index is never negative: C rounds towards zero."""
    return all(
        isinstance(atom, str)
        or (
            isinstance(atom.divisor, int)
            and atom.numerator.bounds(ranges)[0] >= 0
            and _nonnegative(atom.numerator, ranges)
        )
        for atom, _ in i.terms
    )


# -- C -------------------------------------------------------------------------------------------


class _Vectors:
    """Indices as vectors of 64-bit integers; `scalars` are C variables of their own."""

    def __init__(
        self,
        lines: list[str],
        symbols: dict[str, str],
        scalars: set[str],
        ranges: dict[str, Range],
    ):
        self.lines, self.symbols, self.scalars, self.ranges = lines, symbols, scalars, ranges
        self._made: dict[Index, str] = {}

    def name(self, text: str) -> str:
        made = f"v_{len(self.lines)}"
        self.lines.append(f"V {made} = {text};")
        return made

    def quotient(self, v: str, divisor: int, most: int) -> str:
        """v / divisor for 0 <= v <= most: by a product with the reciprocal where that is exact."""
        shift = 40
        if max(most, divisor) < 1 << 20:
            made = self.name(f"_vel_vmulsl_vsvl({-(-(1 << shift) // divisor)}L, {v}, n)")
            return self.name(f"_vel_vsrl_vvsl({made}, {shift}, n)")
        return self.name(f"_vel_vdivsl_vvsl({v}, {divisor}L, n)")

    def value(self, index: Index) -> str:
        if index in self._made:
            return self._made[index]
        total, scalar = "", Index((), index.const)
        for atom, c in index.terms:
            used = {atom} if isinstance(atom, str) else atom.numerator.symbols
            if used <= self.scalars:
                scalar = scalar + Index({atom: c})
                continue
            if isinstance(atom, str):
                v = self.symbols[atom]
            else:
                n, d = self.value(atom.numerator), atom.divisor
                v = self.quotient(n, d, atom.numerator.bounds(self.ranges)[1])
                if not isinstance(atom, FloorDiv):
                    whole = self.name(f"_vel_vmulsl_vsvl({d}L, {v}, n)")
                    v = self.name(f"_vel_vsubsl_vvvl({n}, {whole}, n)")
            if c != 1:
                v = self.name(f"_vel_vmulsl_vsvl({c}L, {v}, n)")
            total = v if not total else self.name(f"_vel_vaddsl_vvvl({total}, {v}, n)")
        if not total:
            total = self.name(f"_vel_vbrdl_vsl({text(scalar)}, n)")
        elif scalar is not Index():
            total = self.name(f"_vel_vaddsl_vsvl({text(scalar)}, {total}, n)")
        self._made[index] = total
        return total


def emit_copy(kernel: Kernel, program: Program, name: str, memory: dict[str, str]) -> Code:
    """C of a copy; `memory`: base buffer -> C expression of its first byte."""
    nest, copy = kernel.body[0], kernel.schedules[0].own
    axes = nest.axes[: len(nest.axes) - (copy.halves > 0)]
    lead, rest_axes = axes[: copy.units], axes[copy.units :]
    outer, inner = rest_axes[: copy.kept], rest_axes[copy.kept :]
    times, elements = prod(a.extent for a in outer), prod(a.extent for a in inner)
    length = -(-elements // copy.blocks)
    size = -(-times // copy.groups)
    out: list[str] = []
    w = out.append
    w(f"const i64 group = u % {copy.groups}; u /= {copy.groups};")
    w(f"const i64 block = u % {copy.blocks}; u /= {copy.blocks};")
    w("const i64 at_lead = u;")
    for a in reversed(lead):
        w(f"const i64 at_{a.symbol} = u % {a.extent}; u /= {a.extent};")
    w(f"const i64 e0 = block * {length};")
    w(f"const i64 n = SOL_MIN({length}L, {elements}L - e0);")
    w(f"const i64 o0 = group * {times}L / {copy.groups};")
    w("V e = _vel_vaddsl_vsvl(e0, _vel_vseq_vl(n), n);")
    symbols: dict[str, str] = {}
    most = {a.symbol: (0, a.extent - 1) for a in axes}
    vectors = _Vectors(out, symbols, {a.symbol for a in lead}, most)
    rest = "e"
    for k in range(len(inner) - 1, -1, -1):
        a = inner[k]
        if k == 0:
            symbols[a.symbol] = rest
            continue
        whole = vectors.quotient(rest, a.extent, elements)
        back = vectors.name(f"_vel_vmulsl_vsvl({a.extent}L, {whole}, n)")
        symbols[a.symbol] = vectors.name(f"_vel_vsubsl_vvvl({rest}, {back}, n)")
        rest = whole
    value = nest.stores[0].values[0]
    found = [e for e in walk(value) if isinstance(e, Load)]
    offsets: dict[int, str] = {}
    masks: dict[int, str] = {}
    names = {a.symbol for a in inner}
    zeros = {a.symbol: 0 for a in outer}
    for k, e in enumerate(found):
        address = program.buffers[e.buffer].address(e.index)
        inside = address.subst(zeros | ({"half": 0} if copy.halves else {}))
        inside = inside - inside.subst(dict.fromkeys(inside.symbols, 0)).const
        if inside.symbols.isdisjoint(names) and not e.mask:
            continue
        if not e.mask and _in_order(inside, inner):
            offsets[k] = ""
            continue
        offset = vectors.name(f"_vel_vmulsl_vsvl(4L, {vectors.value(inside)}, n)")
        if e.mask:
            least = vectors.value(e.mask[0])
            for m in e.mask[1:]:
                least = vectors.name(f"_vel_vminsl_vvvl({least}, {vectors.value(m)}, n)")
            w(f"const __vm256 m{k} = _vel_vfmklge_mvl({least}, n);")
            masks[k] = f"m{k}"
            safe = inside.evaluate(_valid(e, axes) or {})
            offset = vectors.name(f"_vel_vmrg_vsvml({4 * safe}L, {offset}, m{k}, n)")
        offsets[k] = offset
    gathered = [k for k in range(len(found)) if k in offsets]
    several = 1 + (copy.halves == 2)
    ahead = max(1, min(AHEAD, 40 // (several * max(len(gathered), 1))))
    turns = -(-size // ahead)
    ahead = -(-size // turns)
    starts = {
        k: _start(program, e, outer, None if k in offsets else names, memory)
        for k, e in enumerate(found)
    }

    def gather(k: int, u: int, at: str, half: int = 0) -> str:
        base = starts[k](f"({at} + {u})")
        if half:
            base += f" + {apart[k]}L"
        if not offsets[k]:
            op = "vldlzx" if copy.halves == 2 and not half else "vldu"
            return f"_vel_{op}_vssl(4, {base} + e0, n)"
        op = "vgtlzx" if copy.halves == 2 and not half else "vgtu"
        return f"_vel_{op}_vvssl(_vel_vaddsl_vsvl((i64)({base}), {offsets[k]}, n), 0, 0, n)"

    def gathers(u: int, at: str, new: str = "") -> list[str]:
        lines = [f"{new}a{k}_{u} = {gather(k, u, at)};" for k in gathered]
        if copy.halves == 2:
            lines += [f"{new}b{k}_{u} = {gather(k, u, at, 1)};" for k in gathered]
        return lines

    apart = [
        program.buffers[e.buffer].address(e.index).coefficient("half") if copy.halves == 2 else 0
        for e in found
    ]
    step, kind, put = (8, "u64", "vstot") if copy.halves else (4, "f32", "vstuot")
    target = memory[program.base(nest.name).name]
    first = program.buffers[nest.name].address(nest.stores[0].index)
    first = first.subst(dict.fromkeys(first.symbols, 0)).const
    assert not (first and copy.halves)
    w(f"{kind} *const y = ({kind} *){target} + {first} + at_lead * {times * elements}L + e0;")
    for u in range(ahead):
        out += gathers(u, "o0", "V ")

    def member(m: int) -> list[str]:
        """The lines that store one piece."""
        lines: list[str] = []
        writer = Writer(lines, "n", f"t{m}_")

        def leaf(e: Load) -> Packed:
            k = found.index(e)
            if k not in offsets:
                low = starts[k](f"(o + {m})")
                made = f"sol_pair({low}, {low} + {apart[k]}L)" if copy.halves == 2 else ""
                return Packed(writer.name(made or f"sol_twice({low})", "u64"), True)
            got = f"a{k}_{m}"
            if copy.halves == 2:
                got = writer.name(f"_vel_vor_vvvl({got}, b{k}_{m}, n)")
            if k not in masks:
                return Packed(got)
            other = word(0.0 if e.other is None else float(e.other))
            return Packed(writer.name(f"_vel_vmrg_vsvml({other}, {got}, {masks[k]}, n)"))

        (made,) = writer.member([value], leaf)
        v = made.text
        if copy.halves == 1:
            v = f"_vel_vshf_vvvsl({v}, {v}, 0, n)"
        lines.append(f"_vel_{put}_vssl({v}, {step}, y + (o + {m}) * {elements}L, n);")
        return lines

    def finish(last: bool) -> None:
        """A turn's pieces. The last turn goes back so that nothing is read outside; what is stored
        already is not stored again: it may lie where it was read."""
        members = [member(m) for m in range(ahead)]
        if not last:
            for m, lines in enumerate(members):
                lines += gathers(m, "next")
        else:
            if times % copy.groups:  # the last piece of some groups is the next one's first
                members[-1][-1] = (
                    f"if ((group + 1) * {times}L / {copy.groups} - o0 == {size}) "
                    + (members[-1][-1])
                )
            members = members[turns * ahead - size :]
        w("{")
        out.extend(skewed(members, 16))
        w("}")

    w("i64 o = o0;")
    if turns > 1:
        w(f"const i64 end = o0 + {size - ahead}L;")
        w("#pragma clang loop unroll(disable)")
        w(f"for (i64 left = {turns - 1}; left > 0; --left) {{")
        w(f"const i64 next = SOL_MIN(o + {ahead}, end);")
        finish(last=False)
        w("o = next;")
        w("}")
    finish(last=True)
    body = "\n".join(out)
    origin = ", ".join(kernel.origin.ops)
    code = (
        f"{PRELUDE}/* copy for {origin} */\nvoid {name}(const sol_call *c, long u) {{\n{body}\n}}\n"
    )
    units = prod(a.extent for a in lead) * copy.blocks * copy.groups
    return Code(code, units, 0, {}, set(), {})


def _in_order(inside: Index, inner: Sequence[Axis]) -> bool:
    """Whether elements lie as they are stored, one behind the other."""
    step = 1
    for a in reversed(inner):
        if inside.coefficient(a.symbol) != step or not inside.is_affine_in(a.symbol):
            return False
        step *= a.extent
    return inside.symbols <= {a.symbol for a in inner} and inside.const == 0


def _start(
    program: Program,
    e: Load,
    outer: tuple[Axis, ...],
    inner: set[str] | None,
    memory: dict[str, str],
) -> Callable[[str], str]:
    """C text of the address that an outer point's offsets are added to, as a function of that;
    where there are none (`inner`: these axes are in no address) of its element."""
    address = program.buffers[e.buffer].address(e.index)
    rest = address.symbols - {a.symbol for a in outer} if inner is None else inner
    point = address.subst(dict.fromkeys((*rest, *(a.symbol for a in outer)), 0))
    first = f"(const f32 *){memory[program.base(e.buffer).name]} + {text(point)}"
    steps = [address.coefficient(a.symbol) for a in outer]
    uniform = all(steps[n] == steps[n + 1] * outer[n + 1].extent for n in range(len(outer) - 1))

    def at(o: str) -> str:
        if not outer:
            return first
        if uniform:
            return f"{first} + {o} * {steps[-1]}L"
        parts, size = [], 1
        for n in range(len(outer) - 1, -1, -1):
            place = f"{o} / {size}L" if n == 0 else f"{o} / {size}L % {outer[n].extent}L"
            parts.append(f"({place}) * {steps[n]}L")
            size *= outer[n].extent
        return f"{first} + {' + '.join(parts)}"

    return at
