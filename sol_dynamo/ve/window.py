"""Windows without a second operand's axes: depthwise convolutions and pooling.

Two neighbouring channels are the halves of an element: the input is brought into planes of such
pairs (`operands.planes`), so that each tap is one load at a constant offset, and a tile is P
vectors of a plane's points for one pair after the other, loads a ring ahead across pairs. NaN wins
a maximum, as in eager: `pvfmax` drops it, so that a second sum remembers it. Bound by the load
port.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..ir import Expr, Kernel, Load, Program
from ..kernels.c.nest import Code
from .emit_dense import Product, Tile
from .packed import PRELUDE, Writer, skewed

VECTORS = 4  # of a tile: enough for the latency of what is added up
RING = 20  # loads under way
MONOIDS = ("sum", "max", "min")


@dataclass(frozen=True)
class Window:
    """`Schedule.own` of a window's nest."""

    product: Product  # its axes: `s` are the channels, two of them together
    monoid: str
    pairs: int  # of channels that a unit takes
    weighted: bool


class _Window(Tile):
    def __init__(self, kernel: Kernel, program: Program, own: Window, memory: dict[str, str]):
        self.own = own
        super().__init__(kernel, program, own.product, memory)
        assert not (self.places % 2).any()
        self.places = self.places // 2

    def operands(self, value: Expr) -> tuple[Load, Load]:
        if not self.own.weighted:
            assert isinstance(value, Load)
            return value, value
        return super().operands(value)

    def code(self, name: str) -> Code:
        p, w = self.p, self.w
        pairs = -(-self.columns // 2)
        blocks = -(-pairs // self.own.pairs)
        elements = int(self.places[-1]) + 1
        gaps = elements != self.points
        span = p.vectors * p.length
        short = -(-(elements - (p.groups - 1) * span) // p.vectors)
        units = blocks * p.groups * prod(self.extent[a] for a in p.batch)
        w(f"const i64 vb = u % {p.groups}; u /= {p.groups};")
        w(f"const i64 cb = u % {blocks}; u /= {blocks};")
        for a in reversed(p.batch):
            w(f"const i64 at_{a} = u % {self.extent[a]}; u /= {self.extent[a]};")
        if short != p.length:
            w(f"const i64 n = vb == {p.groups - 1} ? {short} : {p.length};")
        else:
            w(f"enum {{ n = {p.length} }};")
        w(f"i64 sb = cb * {self.own.pairs};")
        w(f"const i64 end = SOL_MIN(sb + {self.own.pairs}L, {pairs}L);")
        x = self.vector
        xb = self.program.buffers[x.buffer]
        zero = self._evaluate(xb, x.index)
        pair = int(self._evaluate(xb, x.index, s=2) - zero) if pairs > 1 else 0
        taps = [int(self._evaluate(xb, x.index, taps=t) - zero) for t in range(self.taps)]
        at = f"{self.start(xb, x.index)} + sb * {pair}L + vb * {2 * span}L"
        w(f"const f32 *x = {self.base(xb)} + {at};")
        words = 0
        if self.own.weighted:
            sb = self.program.buffers[self.scalar.buffer]
            first = self._evaluate(sb, self.scalar.index)
            words = int(self._evaluate(sb, self.scalar.index, s=2) - first) if pairs > 1 else 0
            at = f"{self.start(sb, self.scalar.index)} + sb * {words}L"
            w(f"const u64 *w = (const u64 *)({self.base(sb)} + {at});")
            scalars = [
                int(self._evaluate(sb, self.scalar.index, taps=t) - first) // 2
                for t in range(self.taps)
            ]
        self._rows(gaps)
        loads = [(t, v) for t in range(self.taps) for v in range(p.vectors)]
        ring = p.ring

        def load(i: int) -> str:
            t, v = loads[i % len(loads)]
            pointer = "x" if i < len(loads) else "xn"
            return f"_vel_vld_vssl(8, {pointer} + {taps[t]} + {2 * v} * n, n)"

        for i in range(ring):
            w(f"V r{i} = {load(i)};")
        if self.own.monoid == "sum":
            w("const V zero = _vel_vbrdl_vsl(0L, n);")
        w("#pragma clang loop unroll(disable)")
        w("do {")
        w(f"const f32 *const xn = sb + 1 < end ? x + {pair}L : x;")
        if self.own.weighted:
            for t in range(self.taps):
                w(f"const u64 k{t} = w[{scalars[t]}];")
            for line in range(-(-self.taps // 16)):
                w(f'asm volatile("pfch {4 * words * 8 + 128 * line}(,%0)" ::"r"(w));')
        for i, (t, v) in enumerate(loads):
            self._add(t, v, f"r{i % ring}")
            w(f"r{i % ring} = {load(i + ring)};")
        self._results(gaps)
        step = f" w += {words // 2}L;" if self.own.weighted else ""
        w(f"x = xn;{step}")
        w("} while (++sb < end);")
        body = "\n".join(self.out)
        what = ", ".join(self.kernel.origin.ops)
        tables = self._table(name, gaps, elements, span, short)
        made = (
            f"{PRELUDE}{tables}/* {what}: windows, {p.vectors} vectors */\n"
            f"void {name}(const sol_call *c, long u) {{\n{body}\n}}\n"
        )
        return Code(made.replace("@masks@", f"{name}_masks"), units, 0, {}, set(), {})

    def _rows(self, gaps: bool) -> None:
        """Of each vector, for all channels: which points are results, the first and how many."""
        p, w = self.p, self.w
        for v in range(p.vectors):
            if not gaps:
                w(f"const i64 j0_{v} = vb * {p.vectors * p.length} + {v} * n, count_{v} = n;")
                continue
            w(f"const u64 *const row{v} = @masks@[vb * {p.vectors} + {v}];")
            w(f"__vm256 vm{v} = _vel_lvm_mmss(_vel_vfmklat_ml(n), 0, row{v}[0]);")
            for k in (1, 2, 3):
                w(f"vm{v} = _vel_lvm_mmss(vm{v}, {k}, row{v}[{k}]);")
            w(f"const i64 j0_{v} = row{v}[4], count_{v} = row{v}[5];")

    def _add(self, t: int, v: int, x: str) -> None:
        a, w = f"a{v}_0", self.w
        new = "V " if t == 0 else ""
        if self.own.monoid == "sum":
            old = "zero" if t == 0 else a
            if self.own.weighted:
                w(f"{new}{a} = _vel_pvfmad_vvsvl({old}, k{t}, {x}, n);")
            else:
                w(f"{new}{a} = _vel_pvfadd_vvvl({old}, {x}, n);")
            return
        if t:
            w(f"{{ const V same = _vel_pvfcmp_vvvl({x}, {x}, n);")
        if t == 0:
            least = "0xff800000ff800000UL" if self.own.monoid == "max" else "0x7f8000007f800000UL"
            w(f"V {a} = _vel_pvf{self.own.monoid}_vsvl({least}, {x}, n);")
            w(f"V nan{v} = _vel_pvfcmp_vvvl({x}, {x}, n);")
        else:
            w(f"{a} = _vel_pvf{self.own.monoid}_vvvl({a}, {x}, n);")
            w(f"nan{v} = _vel_pvfadd_vvvl(nan{v}, same, n); }}")

    def _results(self, gaps: bool) -> None:
        p, w = self.p, self.w
        w("{")
        w("const i64 s0 = sb * 2;")
        if self.columns % 2:
            w(f"const i64 some = SOL_MIN(2L, {self.columns}L - s0);")
        members = []
        for v in range(p.vectors):
            lines = []
            if self.own.monoid != "sum":
                mask = f"m_{v}"
                lines.append(f"__vm512 {mask} = _vel_pvfmksnan_Mvl(nan{v}, n);")
                lines.append(f"a{v}_0 = _vel_vmrgw_vvvMl(a{v}_0, nan{v}, {mask}, n);")
            if gaps:
                lines.append(f"a{v}_0 = _vel_vcp_vvmvl(a{v}_0, vm{v}, a{v}_0, n);")
            own = self.result(v, 0, Writer([], f"count_{v}", f"t{v}_"))
            members.append([*lines, *(x.replace("j0", f"j0_{v}") for x in own)])
        self.out += skewed(members, 64 - 10 - 2 * p.vectors - p.ring)
        w("}")


def emit_window(
    kernel: Kernel, program: Program, own: Window, name: str, memory: dict[str, str]
) -> Code:
    """C of a window; `memory`: base buffer -> C expression of its first byte."""
    return _Window(kernel, program, own, memory).code(name)
