"""C of a product of vectors and scalars (`dense.Product`), in the order in which it is issued.

One unit is one tile. Its sums are named registers; each term of the sum loads P vectors a ring
ahead and Q scalars eight ahead, and both streams start anew where the tile's turns end, so that
nothing outside is read. Sums of more than `PART` terms are added to totals in memory. What follows
the sum (bias, residual, ReLU) is computed on the registers, then stored past the caches. The rules
and figures are KERNELS.md's; the compiler must not change the order (-enable-misched=false).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..affine import Index
from ..ir import Buffer, Expr, Kernel, Load, Op, Program, expressions, walk
from ..kernels.c.nest import Code
from .packed import PRELUDE, Packed, Writer, skewed, text

LINE = 16  # elements of 64 bits in a line of memory
LANES = 256  # elements of 64 bits in a vector register
REGISTERS = 58  # that may be live: at 61 results were wrong (KERNELS.md, traps of the compiler)
TIGHT = 42  # the same where so many were too many for what follows the sums
SCALARS_AHEAD = 8
LINES_AHEAD = 8  # lines of 16 scalars that are fetched into the first cache ahead of their use
STREAM_AHEAD = 1024  # scalars that are fetched into the last one


@dataclass(frozen=True)
class Product:
    """How a contraction is walked; `Schedule.own` of its nest."""

    pairs: bool  # two neighbouring results share a scalar; else two lanes an element
    v: tuple[str, ...]  # axes of the vectors, outermost first
    s: tuple[str, ...]  # of the scalars
    batch: tuple[str, ...]
    deep: tuple[str, ...]  # of the sum, in a loop
    taps: tuple[str, ...]  # of the sum, written out
    vectors: int  # P
    scalars: int  # Q
    length: int  # elements of a vector
    groups: int  # of P vectors
    steps: int  # of the deep axes in a turn
    ring: int  # vectors under way
    part: int  # turns after which the sums are added to the totals
    sets: int = 1  # of sums that take turns, where there are too few for the latency of one


@dataclass(frozen=True)
class Moves:
    """An address as what does not move with the tile, a step of the scalars' axes and one of the
    vectors'."""

    start: str  # C, in elements
    s: int
    v: int


class Tile:
    """What the sums of a tile have in common: addresses, and what follows them."""

    def __init__(
        self,
        kernel: Kernel,
        program: Program,
        product: Product,
        memory: dict[str, str],
        roomy: bool = True,
    ):
        self.roomy = roomy
        self.kernel, self.program, self.memory = kernel, program, memory
        self.nest, self.root = kernel.body
        self.p = product
        self.extent = {a.symbol: a.extent for a in self.nest.axes}
        self.points = prod(self.extent[a] for a in self.p.v)
        self.columns = prod(self.extent[a] for a in self.p.s)
        self.depth = prod(self.extent[a] for a in self.p.deep)
        self.taps = prod(self.extent[a] for a in self.p.taps)
        self.width = self.p.scalars * (2 if self.p.pairs else 1)
        self.vector, self.scalar = self.operands(self.nest.stores[0].values[0])
        self.out: list[str] = []
        self.places = self._places()

    def operands(self, value: Expr) -> tuple[Load, Load]:
        assert isinstance(value, Op)
        vector, scalar = value.args
        assert isinstance(vector, Load) and isinstance(scalar, Load)
        return vector, scalar

    def w(self, line: str) -> None:
        self.out.append(line)

    # -- addresses -------------------------------------------------------------------------------

    def _point(self, axes: tuple[str, ...], flat: int | np.ndarray) -> dict:
        """The axes' values at a place of theirs together."""
        values = {}
        for a in reversed(axes):
            values[a] = flat % self.extent[a]
            flat = flat // self.extent[a]
        return values

    def _evaluate(self, buffer: Buffer, index: tuple[Index, ...], **at: int | np.ndarray):
        """An address, in elements, with the batch at 0 and each group of axes at a place."""
        values: dict = dict.fromkeys(self.p.batch, 0)
        for group, axes in (
            ("v", self.p.v), ("s", self.p.s), ("deep", self.p.deep), ("taps", self.p.taps),
        ):  # fmt: skip
            values |= self._point(axes, at.get(group, 0))
        return buffer.address(index).evaluate(values)

    def _places(self) -> np.ndarray:
        """Of each of the vectors' points: its distance from the first in what vectors read."""
        load = self.vector
        buffer = self.program.buffers[load.buffer]
        every = np.arange(self.points)
        width = 2 * self.p.vectors * self.p.length
        if not self.p.pairs:
            every = every[:width]
        places = np.asarray(self._evaluate(buffer, load.index, v=every))
        places = np.broadcast_to(places, every.shape)
        return places - places[0]

    def start(self, e_buffer: Buffer, index: tuple[Index, ...]) -> str:
        """C of the address at the first point of all axes but the batch's, in elements."""
        rest = (*self.p.v, *self.p.s, *self.p.deep, *self.p.taps)
        address = e_buffer.address(index).subst(dict.fromkeys(rest, 0))
        return text(address)

    def base(self, buffer: Buffer) -> str:
        return f"(f32 *){self.memory[self.program.base(buffer.name).name]}"

    def moves(self, buffer: Buffer, index: tuple[Index, ...]) -> Moves:
        zero = self._evaluate(buffer, index)
        s = self._evaluate(buffer, index, s=1) - zero if self.columns > 1 else 0
        v = self._evaluate(buffer, index, v=1) - zero if self.points > 1 else 0
        return Moves(self.start(buffer, index), int(s), int(v))

    # -- the tile --------------------------------------------------------------------------------

    def code(self, name: str) -> Code:
        p = self.p
        blocks = -(-self.columns // self.width)
        units = blocks * p.groups * prod(self.extent[a] for a in p.batch)
        gaps = p.pairs and int(self.places[-1]) + 1 != self.points
        elements = int(self.places[-1]) + 1 if p.pairs else -(-self.points // 2)
        self.w(f"const i64 vb = u % {p.groups}; u /= {p.groups};")
        self.w(f"const i64 sb = u % {blocks}; u /= {blocks};")
        for a in reversed(p.batch):
            self.w(f"const i64 at_{a} = u % {self.extent[a]}; u /= {self.extent[a]};")
        self.w("(void)u;")
        span = p.vectors * p.length
        last = elements - (p.groups - 1) * span
        short = -(-last // p.vectors)
        if p.pairs and short != p.length:
            self.w(f"const i64 n = vb == {p.groups - 1} ? {short} : {p.length};")
        else:
            self.w(f"enum {{ n = {p.length} }};")
        x, s = self.vector, self.scalar
        xb, sbuf = self.program.buffers[x.buffer], self.program.buffers[s.buffer]
        if p.pairs:
            first = f"vb * {span}L"
        else:
            width = 2 * span
            step = 0
            if p.groups > 1:
                step = self._evaluate(xb, x.index, v=width) - self._evaluate(xb, x.index)
            first = f"vb * {int(step)}L"
        self.w(f"const f32 *const x0 = {self.base(xb)} + {self.start(xb, x.index)} + {first};")
        step = 0
        if blocks > 1:
            step = self._evaluate(sbuf, s.index, s=self.width) - self._evaluate(sbuf, s.index)
        at = f"{self.start(sbuf, s.index)} + sb * {int(step)}L"
        self.w(f"const u64 *const w0 = (const u64 *)({self.base(sbuf)} + {at});")
        self._sum()
        self._follow(gaps, elements)
        body = "\n".join(self.out)
        tables = self._table(name, gaps, elements, span, short)
        what = ", ".join(self.kernel.origin.ops)
        form = "pairs of scalars" if p.pairs else "pairs of lanes"
        made = (
            f"{PRELUDE}{tables}/* {what}: {p.vectors} x {p.scalars}, {form} */\n"
            f"void {name}(const sol_call *c, long u) {{\n{body}\n}}\n"
        )
        made = made.replace("@masks@", f"{name}_masks")
        return Code(made, units, self.scratch(), {}, set(), {})

    def _scalars(self) -> tuple[list[int], int]:
        """Where a turn's scalars lie, in elements of 64 bits, and how far the next turn's are."""
        p, load = self.p, self.scalar
        buffer = self.program.buffers[load.buffer]
        wide = 2 if p.pairs else 1
        zero = self._evaluate(buffer, load.index)
        found = [
            self._evaluate(buffer, load.index, deep=u, taps=t, s=q * wide) - zero
            for u in range(p.steps) for t in range(self.taps) for q in range(p.scalars)
        ]  # fmt: skip
        self._step(load)
        found.append(self._evaluate(buffer, load.index, deep=p.steps) - zero)
        assert not any(x % 2 for x in found)
        *places, advance = (int(x) // 2 for x in found)
        return places, advance

    def _step(self, load: Load) -> int:
        """How far the terms of the sum's loop are apart, in elements."""
        terms = np.arange(self.depth)
        found = self._evaluate(self.program.buffers[load.buffer], load.index, deep=terms)
        places = np.broadcast_to(np.asarray(found), terms.shape)
        step = int(places[1] - places[0]) if self.depth > 1 else 0
        assert (places == places[0] + step * terms).all(), f"no one loop: {load}"
        return step

    def parts(self) -> int:
        turns = self.depth // self.p.steps
        return -(-turns // self.p.part)

    def scratch(self) -> int:
        return 0 if self.parts() < 2 else self.p.vectors * self.p.scalars * LANES * 8

    def _set(self, v: int, q: int, group: int) -> str:
        """The sum that a group of the sum's terms is added to."""
        k = group % self.p.sets
        return f"a{v}_{q}_{k}" if k else f"a{v}_{q}"

    def _join(self) -> None:
        p = self.p
        for k in range(1, p.sets):
            for v in range(p.vectors):
                for q in range(p.scalars):
                    one = self._set(v, q, k)
                    self.w(f"a{v}_{q} = _vel_pvfadd_vvvl(a{v}_{q}, {one}, n);")
                    self.w(f"{one} = _vel_vbrdl_vsl(0L, n);")

    def _acc(self) -> list[tuple[str, int]]:
        p = self.p
        return [
            (f"a{v}_{s}", s * p.vectors + v) for s in range(p.scalars) for v in range(p.vectors)
        ]

    def _sum(self) -> None:
        p, w = self.p, self.w
        turns, rest = divmod(self.depth, p.steps)
        size = p.steps * self.taps
        words = size * p.scalars
        xb = self.program.buffers[self.vector.buffer]
        zero = self._evaluate(xb, self.vector.index)
        step = self._step(self.vector)
        offsets = [
            u * step + int(self._evaluate(xb, self.vector.index, taps=t) - zero)
            for u in range(p.steps) for t in range(self.taps)
        ]  # fmt: skip
        lane = 4 if p.pairs else 8
        of_scalars, advance = self._scalars()
        in_a_row = of_scalars == list(range(words)) and advance == words

        def load(group: int, v: int, pointer: str) -> str:
            # both kinds of vectors lie behind each other
            at = f"{v} * n" if p.pairs else f"{v} * 2 * n"
            op = "vldu" if p.pairs else "vld"
            return f"_vel_{op}_vssl({lane}, {pointer} + {offsets[group]} + {at}, n)"

        w("const f32 *x = x0; const u64 *w = w0;")
        for d in range(p.ring):
            for v in range(p.vectors):
                w(f"V x{v}_{d} = {load(d, v, 'x0')};")
        ahead = min(SCALARS_AHEAD, words)
        for i in range(ahead):
            w(f"u64 h{i} = w0[{of_scalars[i]}];")
        self._fetch()
        for name, _ in self._acc():
            for k in range(p.sets):
                w(f"V {name}{f'_{k}' if k else ''} = _vel_vbrdl_vsl(0L, n);")
        if self.parts() > 1:
            w("u64 *const totals = (u64 *)c->scratch;")
            for name, k in self._acc():
                w(f"_vel_vst_vssl({name}, 8, totals + {k * LANES}, n);")
        if p.pairs:
            for v in range(p.vectors):
                w(f"V d{v}_0 = _vel_vshf_vvvsl(x{v}_0, x{v}_0, 0, n);")
        w(f"i64 left = {turns};")
        if self.parts() > 1:
            w("for (;;) {")
            w(f"i64 now = SOL_MIN(left, {p.part}L);")
        else:
            w("i64 now = left;")
        w("#pragma clang loop unroll(disable)")
        w("do {")
        w(f"const f32 *const xn = left > 1 ? x + {p.steps * step}L : x0;")
        w(f"const u64 *const wn = left > 1 ? w + {advance} : w0;")
        for g in range(size):
            if p.pairs:
                self._reload(load, g, size)
                for v in range(p.vectors):
                    at = (g + 1) % p.ring
                    w(f"V d{v}_{g + 1} = _vel_vshf_vvvsl(x{v}_{at}, x{v}_{at}, 0, n);")
            for q in range(p.scalars):
                i = g * p.scalars + q
                if not in_a_row and g == q * size // p.scalars:
                    for line in range(-(-advance // 16)):
                        to = of_scalars[q] + advance + 16 * (line + 1)
                        w(f'asm volatile("pfch {8 * to}(,%0)" ::"r"(w));')
                if in_a_row and i % 16 == 0:
                    w(f'asm volatile("pfch {8 * (i + 16 * LINES_AHEAD)}(,%0)" ::"r"(w));')
                if in_a_row and i % LANES == 0:
                    w(f"_vel_pfchv_ssl(8, w + {i + STREAM_AHEAD}, 256);")
                to = i + ahead
                word = f"w[{of_scalars[to]}]" if to < words else f"wn[{of_scalars[to - words]}]"
                w(f"u64 n{i} = {word};")
                scalar = f"h{i}" if i < ahead else f"n{i - ahead}"
                for v in range(p.vectors):
                    x = f"d{v}_{g}" if p.pairs else f"x{v}_{g % p.ring}"
                    a = self._set(v, q, g)
                    w(f"{a} = _vel_pvfmad_vvsvl({a}, {scalar}, {x}, n);")
            if not p.pairs:
                self._reload(load, g, size)
        for i in range(ahead):
            w(f"h{i} = n{words - ahead + i};")
        if p.pairs:
            for v in range(p.vectors):
                w(f"d{v}_0 = d{v}_{size};")
        w("x = xn; w = wn; --left;")
        w("} while (--now > 0);")
        if self.parts() > 1:
            w("if (left == 0) break;")
            self._join()
            self._totals()
            w("}")
        self._join()
        if rest:
            w(f"x = x0 + {turns * p.steps * step}L; w = w0 + {turns * advance}L;")
            self._rest(rest, step, offsets, of_scalars, advance // p.steps)
        if self.parts() > 1:
            self._totals(store=False)

    def _fetch(self) -> None:
        """Lines of the scalars that what follows needs, a bias': they are there by then."""
        acc = self.nest.stores[0].buffers[0]
        for e in walk(*expressions(self.root)):
            if not isinstance(e, Load) or e.buffer == acc:
                continue
            buffer = self.program.buffers[e.buffer]
            m = self.moves(buffer, e.index)
            if m.v == 0 and m.s == 1:
                at = f"{self.base(buffer)} + {m.start} + sb * {self.width}L"
                for line in range(-(-self.width // (2 * LINE))):
                    self.w(f'asm volatile("pfch {128 * line}(,%0)" ::"r"({at}));')

    def _reload(self, load, g: int, size: int) -> None:
        p = self.p
        to = g + p.ring
        for v in range(p.vectors):
            made = load(to % size, v, "x" if to < size else "xn")
            self.w(f"x{v}_{g % p.ring} = {made};")

    def _totals(self, store: bool = True) -> None:
        """Add the sums to their totals in memory, and start anew; or the other way round."""
        names, p = self._acc(), self.p
        live = p.vectors * (p.scalars * p.sets + p.ring + p.pairs)
        size = max(1, min(8, REGISTERS - live))
        for first in range(0, len(names), size):
            some = names[first : first + size]
            for name, k in some:
                self.w(f"V b{name} = _vel_vld_vssl(8, totals + {k * LANES}, n);")
            for name, _ in some:
                self.w(f"{name} = _vel_pvfadd_vvvl({name}, b{name}, n);")
            if store:
                for name, k in some:
                    self.w(f"_vel_vst_vssl({name}, 8, totals + {k * LANES}, n);")
                for name, _ in some:
                    self.w(f"{name} = _vel_vbrdl_vsl(0L, n);")

    def _rest(
        self, rest: int, step: int, offsets: list[int], of_scalars: list[int], advance: int
    ) -> None:
        """The steps that make no whole turn, one by one."""
        p, w = self.p, self.w
        w("#pragma clang loop unroll(disable)")
        w(f"for (i64 more = {rest}; more > 0; --more) {{")
        op, lane = ("vldu", 4) if p.pairs else ("vld", 8)
        for t in range(self.taps):
            for v in range(p.vectors):
                at = f"{v} * n" if p.pairs else f"{v} * 2 * n"
                made = f"_vel_{op}_vssl({lane}, x + {offsets[t]} + {at}, n)"
                w(f"x{v}_{t % p.ring} = {made};")
                if p.pairs:
                    x = f"x{v}_{t % p.ring}"
                    w(f"x{v}_{t % p.ring} = _vel_vshf_vvvsl({x}, {x}, 0, n);")
            for q in range(p.scalars):
                for v in range(p.vectors):
                    x = f"x{v}_{t % p.ring}"
                    scalar = f"w[{of_scalars[t * p.scalars + q]}]"
                    w(f"a{v}_{q} = _vel_pvfmad_vvsvl(a{v}_{q}, {scalar}, {x}, n);")
        w(f"x += {step}L; w += {advance};")
        w("}")

    # -- what follows ----------------------------------------------------------------------------

    def _table(self, name: str, gaps: bool, elements: int, span: int, short: int) -> str:
        """Of each vector: which of its elements are results, the first and how many."""
        if not gaps:
            return ""
        p, rows = self.p, []
        done = 0
        for g in range(p.groups):
            n = p.length if g < p.groups - 1 else short
            for v in range(p.vectors):
                begin = g * span + v * n
                bits = np.zeros(LANES, bool)
                mine = self.places[(self.places >= begin) & (self.places < begin + n)]
                bits[mine - begin] = True
                words = [
                    "".join("01"[int(b)] for b in bits[k : k + 64]) for k in range(0, LANES, 64)
                ]
                rows.append(
                    "{" + ", ".join(f"{int(x, 2):#x}UL" for x in words) + f", {done}, {len(mine)}}}"
                )
                done += len(mine)
        assert done == self.points, (done, self.points)
        table = ",\n".join(rows)
        return f"static const u64 {name}_masks[][6] = {{\n{table}}};\n"

    def _follow(self, gaps: bool, elements: int) -> None:
        p, w = self.p, self.w
        if self.columns % self.width:
            w(f"const i64 some = SOL_MIN({self.width}L, {self.columns}L - sb * {self.width});")
        w(f"const i64 s0 = sb * {self.width};")
        for v in range(p.vectors):
            w("{")
            if gaps:
                w(f"const u64 *const row = @masks@[vb * {p.vectors} + {v}];")
                w("__vm256 vm = _vel_lvm_mmss(_vel_vfmklat_ml(n), 0, row[0]);")
                for k in (1, 2, 3):
                    w(f"vm = _vel_lvm_mmss(vm, {k}, row[{k}]);")
                w("const i64 j0 = row[4], count = row[5];")
            elif p.pairs:
                w(f"const i64 j0 = vb * {p.vectors * p.length} + {v} * n, count = n;")
            else:
                w(f"const i64 j0 = (vb * {p.vectors} + {v}) * {2 * p.length}L;")
                w(f"const i64 points = SOL_MAX(SOL_MIN({2 * p.length}L, {self.points}L - j0), 0L);")
                w("const i64 count = (points + 1) / 2, odd = points / 2; (void)odd;")
            left = (p.vectors - v) * p.scalars  # sums that are in registers yet
            members = []
            for q in range(p.scalars):
                a = f"a{v}_{q}"
                lines = [f"{a} = _vel_vcp_vvmvl({a}, vm, {a}, n);"] if gaps else []
                members.append(self.result(v, q, Writer(lines, "count", f"t{q}_")))
            self.out += skewed(members, (REGISTERS if self.roomy else TIGHT) - left)
            w("}")

    def result(self, v: int, q: int, writer: Writer) -> list[str]:
        """The lines that finish one sum."""
        lines = writer.lines
        acc = self.nest.stores[0].buffers[0]

        def leaf(e: Load) -> Packed:
            return Packed(f"a{v}_{q}") if e.buffer == acc else self._leaf(writer, e, q)

        made = iter(writer.member(list(expressions(self.root)), leaf))
        for store in self.root.stores:
            for b in store.buffers:
                self._store(writer, self.program.buffers[b], store.index, next(made).text, q)
        return lines

    def _row(self, q: int, half: int, clamp: bool) -> str:
        """C of the scalars' place of a result."""
        k = 2 * q + half if self.p.pairs else q
        if clamp and self.columns % self.width:
            return f"(s0 + SOL_MIN({k}L, some - 1))"
        return f"(s0 + {k})"

    def _pointer(self, buffer: Buffer, m: Moves, q: int, half: int, clamp: bool) -> str:
        """C of the address of the first element that a half of a vector has."""
        point = f"(j0 + {half})" if half and not self.p.pairs else "j0"
        at = f"{self._row(q, half, clamp)} * {m.s}L + {point} * {m.v}L"
        return f"{self.base(buffer)} + {m.start} + {at}"

    def _leaf(self, writer: Writer, e: Load, q: int) -> Packed:
        count = writer.length
        buffer = self.program.buffers[e.buffer]
        m = self.moves(buffer, e.index)
        low = self._pointer(buffer, m, q, 0, True)
        high = self._pointer(buffer, m, q, 1, True)
        if m.v == 0:
            if not self.p.pairs or m.s == 0:
                return Packed(writer.name(f"sol_twice({low})", "u64"), True)
            return Packed(writer.name(f"sol_pair({low}, {high})", "u64"), True)
        if self._aligned(buffer, e.index, m):
            return Packed(writer.name(f"_vel_vld_vssl(8, {low}, {count})"))
        step = 4 * m.v * (1 if self.p.pairs else 2)
        a = writer.name(f"_vel_vldlzx_vssl({step}, {low}, {count})")
        if not self.p.pairs and self.points % 2:  # the last element may have a lower half alone
            none = f"_vel_vbrdl_vsl(0L, {count})"
            b = writer.name(f"_vel_vldu_vssvl({step}, {high}, {none}, odd)")
        else:
            some = count if self.p.pairs else "odd"
            b = writer.name(f"_vel_vldu_vssl({step}, {high}, {some})")
        return Packed(writer.name(f"_vel_vor_vvvl({a}, {b}, {count})"))

    def _aligned(self, buffer: Buffer, index: tuple[Index, ...], m: Moves) -> bool:
        """Whether two lanes are an element of 64 bits in memory."""
        if self.p.pairs or m.v != 1 or m.s % 2 or self.points % 2:
            return False
        address = buffer.address(index)
        rest = [address.coefficient(a) for a in self.p.batch]
        placed = self.program.base(buffer.name).scope in ("arena", "output", "saved")
        return placed and address.const % 2 == 0 and not any(c % 2 for c in rest)

    def _store(
        self, writer: Writer, buffer: Buffer, index: tuple[Index, ...], value: str, q: int
    ) -> None:
        lines, count = writer.lines, writer.length
        p, m = self.p, self.moves(buffer, index)
        low = self._pointer(buffer, m, q, 0, False)
        high = self._pointer(buffer, m, q, 1, False)
        tail = bool(self.columns % self.width)
        if self._aligned(buffer, index, m):
            guard = f"if ({q} < some) " if tail else ""
            lines.append(f"{guard}_vel_vstot_vssl({value}, 8, {low}, {count});")
            return
        step = 4 * m.v * (1 if p.pairs else 2)
        for half, (op, at) in enumerate((("vstlot", low), ("vstuot", high))):
            guard = f"if ({2 * q + half if p.pairs else q} < some) " if tail else ""
            some = "odd" if half and not p.pairs else count
            lines.append(f"{guard}_vel_{op}_vssl({value}, {step}, {at}, {some});")


def emit_product(
    kernel: Kernel,
    program: Program,
    product: Product,
    name: str,
    memory: dict[str, str],
    roomy: bool = True,
) -> Code:
    """C of a contraction that `dense.schedule_dense` scheduled; `memory`: base buffer -> C
    expression of its first byte."""
    return Tile(kernel, program, product, memory, roomy).code(name)
