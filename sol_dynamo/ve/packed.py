"""Expressions of float32 on packed vectors: two results in each element of 64 bits.

Several results are written next to each other, so that one's latency is hidden by others. Only
what costs a few instructions: anything else is a kernel of its own, of which the general emitter
knows more. A scalar holds its value in both halves. Knows no loops and no addresses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import isnan
from typing import NamedTuple

from ..affine import FloorDiv, Index
from ..ir import Const, Expr, Load, Op, walk

_OPS = frozenset(("add", "sub", "mul", "neg", "abs", "max", "min"))
PRELUDE = """\
#ifndef SOL_PACKED
#define SOL_PACKED
typedef __vr V;
static inline unsigned long sol_pair(const float *low, const float *high) {
  return (unsigned long)*(const unsigned *)high << 32 | *(const unsigned *)low;
}
static inline unsigned long sol_twice(const float *x) { return sol_pair(x, x); }
#endif
"""
_LOADS = re.compile(r"(V|u64) \w+ = (_vel_v(ld|gt)|sol_)")
_MAKES = re.compile(r"(V|__vm512) (\w+) =")
_NAMES = re.compile(r"\b[a-z]\w*_\w+\b")
MASKS = 6  # pairs of mask registers
_SIGNS = 0x8000000080000000


class Packed(NamedTuple):
    """A C name: a vector register, or a scalar of 64 bits."""

    text: str
    scalar: bool = False


def supported(e: Expr) -> bool:
    """Whether an expression can be computed here, but for its loads."""
    return all(
        x.dtype == "f32" and (not isinstance(x, Op) or x.name in _OPS or _is_copy(x))
        for x in walk(e)
        if isinstance(x, (Op, Load, Const))
    ) and all(isinstance(x, (Op, Load, Const)) for x in walk(e))


def _is_copy(e: Op) -> bool:
    return e.name == "cast" and e.args[0].dtype == e.dtype


def word(value: float) -> str:
    """A float32 in both halves of 64 bits, as C."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return f"{bits << 32 | bits:#x}UL"


def text(index: Index) -> str:
    """C of an index none of whose dividends is negative."""
    parts = []
    for atom, c in index.terms:
        if isinstance(atom, str):
            t = f"at_{atom}"
        else:
            sign = "/" if isinstance(atom, FloorDiv) else "%"
            t = f"(({text(atom.numerator)}) {sign} {atom.divisor}L)"
        parts.append(f"{t} * {c}L")
    return f"({' + '.join([*parts, f'{index.const}L'])})"


def skewed(members: Sequence[Sequence[str]], room: int) -> list[str]:
    """The lines of several results, each some results behind the line before it: what one waits for
    is computed meanwhile for others. Loads come first, of some results ahead.

    `room`: vector registers that are free; the tightest order is result by result.
    """
    longest = max(map(len, members), default=0)
    for by in (2, 3, 4, 6, 9):
        for ahead in (9, 6, 4, 2, 0):
            order = _interleaved(members, by, ahead)
            if by <= longest and _fits(order, room):
                return order
    return [x for m in members for x in m]


def _interleaved(members: Sequence[Sequence[str]], by: int, ahead: int) -> list[str]:
    loaded = [[x for x in m if _LOADS.match(x)] for m in members]
    computed = [[x for x in m if not _LOADS.match(x)] for m in members]
    ahead = min(ahead, len(members)) if any(loaded) else 0
    longest = max(map(len, computed), default=0)
    found = [x for m in loaded[:ahead] for x in m]
    for slot in range(len(members) + by * longest):
        if slot + ahead < len(members):
            found += loaded[slot + ahead]
        for t in range(longest - 1, -1, -1):
            m = slot - t * by
            if 0 <= m < len(members) and t < len(computed[m]):
                found.append(computed[m][t])
    return found


def _fits(lines: Sequence[str], room: int) -> bool:
    """Whether what lines define needs no more registers at any time than there are."""
    made: dict[str, tuple[int, str]] = {}
    last: dict[str, int] = {}
    for n, line in enumerate(lines):
        for name in _NAMES.findall(line):
            last[name] = n
        if new := _MAKES.match(line):
            made[new[2]] = n, new[1]
    for kind, most in (("V", room), ("__vm512", MASKS)):
        change = [0] * (len(lines) + 1)
        for name, (n, of) in made.items():
            if of == kind:
                change[n] += 1
                change[last.get(name, n)] -= 1
        if max(accumulate(change)) > most:
            return False
    return True


class Writer:
    """Writes expressions, an operation a line. `length`: C text of the vector length; `prefix`: of
    the names that it makes."""

    def __init__(self, lines: list[str], length: str, prefix: str = "t"):
        self.lines, self.length, self.prefix = lines, length, prefix
        self._names = 0

    def name(self, text: str, kind: str = "V") -> str:
        self._names += 1
        made = f"{self.prefix}{self._names}"
        self.lines.append(f"{kind} {made} = {text};")
        return made

    def member(self, roots: Sequence[Expr], leaf: Callable[[Load], Packed]) -> list[Packed]:
        """The values of the roots for one of several results, scalars made vectors."""
        values: dict[int, Packed] = {}
        for e in walk(*roots):
            if isinstance(e, Load):
                made = leaf(e)
            elif isinstance(e, Const):
                made = Packed(word(float(e.value)), True)
            else:
                assert isinstance(e, Op)
                made = self._op(e, [values[id(a)] for a in e.args])
            values[id(e)] = made
        return [self.vector(values[id(r)]) for r in roots]

    def vector(self, v: Packed) -> Packed:
        return Packed(self._call("vbrdl_vsl", v.text)) if v.scalar else v

    def _call(self, name: str, *args: str) -> str:
        return self.name(f"_vel_{name}({', '.join(args)}, {self.length})")

    def _op(self, e: Op, args: list[Packed]) -> Packed:
        if e.name == "cast":
            return args[0]
        if all(a.scalar for a in args):
            args = [self.vector(args[0]), *args[1:]]
        if e.name == "neg":
            return Packed(self._call("vxor_vsvl", f"{_SIGNS:#x}UL", args[0].text))
        if e.name == "abs":
            return Packed(self._call("vand_vsvl", f"{~_SIGNS & (1 << 64) - 1:#x}UL", args[0].text))
        a, b = args
        if e.name in ("max", "min"):
            return self._extremum(e, a, b)
        kind = {"add": "pvfadd", "sub": "pvfsub", "mul": "pvfmul"}[e.name]
        if b.scalar and e.name == "sub":  # there is s - v alone
            kind, b = "pvfadd", Packed(f"({b.text} ^ {_SIGNS:#x}UL)", True)
        if b.scalar:
            a, b = b, a
        return Packed(self._call(f"{kind}_{'vsvl' if a.scalar else 'vvvl'}", a.text, b.text))

    def _extremum(self, e: Op, a: Packed, b: Packed) -> Packed:
        """NaN where one is; `pvfmax` would drop it. max(x, 0) keeps x where that is no less."""
        first, second = e.args
        if isinstance(first, Const):
            (first, a), (second, b) = (second, b), (first, a)
        if isinstance(second, Const) and not isnan(float(second.value)):
            keep = "genan" if e.name == "max" else "lenan"
            compared, other = a.text, "0"
            if float(second.value) != 0:  # the intrinsic takes 32 bits of a scalar
                other = self.vector(b).text
                compared = self._call("pvfcmp_vvvl", a.text, other)
            mask = self.name(f"_vel_pvfmks{keep}_Mvl({compared}, {self.length})", "__vm512")
            form = "vsvMl" if other == "0" else "vvvMl"
            merged = f"_vel_vmrgw_{form}({other}, {a.text}, {mask}, {self.length})"
            return Packed(self.name(merged))
        a, b = self.vector(a), self.vector(b)
        keep = "gtnan" if e.name == "max" else "ltnan"
        compared = self._call("pvfcmp_vvvl", a.text, b.text)
        mask = self.name(f"_vel_pvfmks{keep}_Mvl({compared}, {self.length})", "__vm512")
        best = self.name(f"_vel_vmrgw_vvvMl({b.text}, {a.text}, {mask}, {self.length})")
        mask = self.name(f"_vel_pvfmksnan_Mvl({b.text}, {self.length})", "__vm512")
        return Packed(self.name(f"_vel_vmrgw_vvvMl({best}, {b.text}, {mask}, {self.length})"))
