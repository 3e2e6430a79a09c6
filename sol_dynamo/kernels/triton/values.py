"""Expressions as Triton text: every value is a block with a dimension for each loop of its space.

A space is the tuple of axes whose points are computed at once. A value that does not depend on one
of them has size 1 there, one that depends on none is a scalar: Triton broadcasts both. Each
distinct load, index and operation is named once in a scope; a loop's body is a scope of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import copysign, isfinite, isnan

from ...affine import FloorDiv, Index, Range
from ...ir import COMPARISONS, DTYPES, HALVES, Const, Expr, Iota, Load, Op, children, walk
from ..constants import rounded, whole

TRITON = {
    "f64": "tl.float64", "f32": "tl.float32", "f16": "tl.float16", "bf16": "tl.bfloat16",
    "i64": "tl.int64", "i32": "tl.int32", "i16": "tl.int16", "i8": "tl.int8",
    "u64": "tl.uint64", "u32": "tl.uint32", "u16": "tl.uint16", "u8": "tl.uint8",
    "bool": "tl.int1",
}  # fmt: skip
INDENT = "    "
MEMORY = re.compile(r"\btl\.(load|store|atomic_\w+|device_assert)\(")
SMALL, FRACTION = 1 << 10, 1 << 20  # of which SMALL numbers by a fraction are whole ones
SHORT = 56  # characters of an operation used once that stands where it is used
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<",
    "shr": ">>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_LIBDEVICE = frozenset((
    "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "tanh", "erf", "pow",
    "floor", "ceil", "trunc", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
    "erfc", "exp2", "lgamma", "atan2", "hypot", "fmod",
))  # fmt: skip
_OURS = {"div": "quotient", "sqrt": "root", "rsqrt": "rsqrt", "sigmoid": "sigmoid",
         "tf32": "tf32"}  # fmt: skip


class EmitError(ValueError):
    """What the IR says and this target does not write; the message names it."""


Space = tuple[str, ...]  # axis symbols, outermost dimension first


@dataclass(frozen=True)
class Held:
    """A value of an earlier nest, in registers."""

    text: str
    space: Space


@dataclass
class Scope:
    """Names that are known in a block of text."""

    memo: dict[tuple[object, Space], str] = field(default_factory=dict)
    symbols: dict[str, tuple[str, bool]] = field(default_factory=dict)  # -> text, a block's axis?


class Values:
    """Writes lines of a kernel's body; `load` gives the text of a load in a space."""

    def __init__(self, load: Callable[[Load, Space], str]):
        self._load = load
        self._lines: list[str] = []
        self._depth = 1
        self._scopes = [Scope()]
        self._count = 0
        self.ranges: dict[str, Range] = {}
        self.literal: set[str] = set()  # symbols of loops that are written out

    # -- lines and scopes ----------------------------------------------------------------------

    def write(self, line: str) -> None:
        self._lines.append(INDENT * self._depth + line)

    def text(self, before_memory: str, before_store: str) -> str:
        """The lines, with one more before the first statement of the function that uses memory, and
        one before the first store, at its depth."""
        lines = list(self._lines)
        uses = next(n for n, line in enumerate(lines) if MEMORY.search(line))
        whole = next(n for n in range(uses, -1, -1) if not lines[n].startswith(2 * INDENT))
        store = next(n for n, line in enumerate(lines) if line.lstrip().startswith("tl.store("))
        depth = len(lines[store]) - len(lines[store].lstrip())
        lines.insert(store, " " * depth + before_store)
        lines.insert(whole, INDENT + before_memory)
        return "\n".join(lines)

    @property
    def in_loop(self) -> bool:
        return len(self._scopes) > 1

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """An indented block; what is named inside ends with it."""
        self.write(header)
        self._depth += 1
        self._scopes.append(Scope())
        yield
        self._scopes.pop()
        self._depth -= 1

    def define(self, symbol: str, text: str, in_block: bool, range_: Range) -> None:
        """A symbol from here on: a scalar, or the one-dimensional block of an axis's points."""
        self._scopes[-1].symbols[symbol] = (text, in_block)
        self.ranges[symbol] = range_

    def known(self, what: str | Expr, text: str, space: Space) -> None:
        """A symbol (an indirect index) or an expression whose value is there in a space."""
        self._scopes[-1].memo[what, space] = text

    def forget(self) -> None:
        """What was loaded before is not what memory holds now."""
        for scope in self._scopes:
            for key in [k for k in scope.memo if isinstance(k[0], (Load, Op))]:
                del scope.memo[key]

    # -- indices -------------------------------------------------------------------------------

    def symbol(self, name: str, space: Space) -> str:
        found = self._found((name, space))
        if found is not None:
            return found
        text, in_block = next(s.symbols[name] for s in self._scopes[::-1] if name in s.symbols)
        if not in_block or len(space) == 1:
            return text
        if name not in space:
            raise EmitError(f"axis {name} outside of its block {space}")
        text = f"{text}[{', '.join(':' if d == name else 'None' for d in space)}]"
        return self._named((name, space), text, f"{name}_")

    def index(self, index: Index, space: Space) -> str:
        """An index's value; what is known when the loops are written out is one number of it."""
        terms = sorted(index.terms, key=lambda t: t[1] < 0)
        parts: list[str] = []
        known: list[str] = []
        for atom, c in terms:
            text = f"{'-' if c < 0 else ''}{self._atom(atom, space)}"
            text += "" if abs(c) == 1 else f" * {abs(c)}"
            (known if atom in self.literal else parts).append(text)
        if index.const or not terms:
            known.append(str(index.const))
        if known:
            number = _sum(known)
            parts.append(f"({number})" if len(known) > 1 and parts else number)
        return _sum(parts)

    def _atom(self, atom, space: Space) -> str:
        return self.symbol(atom, space) if isinstance(atom, str) else self._divided(atom, space)

    def _divided(self, atom, space: Space) -> str:
        found = self._found((atom, space))
        if found is not None:
            return found
        numerator, d = atom.numerator, atom.divisor
        low, high = numerator.bounds(self.ranges)
        shift = -(low // d) if low < 0 else 0  # Triton rounds towards zero
        text = self.index(numerator + shift * d, space)
        if isinstance(atom, FloorDiv):
            text = quotient(text, high + shift * d, d) + (f" - {shift}" if shift else "")
        else:
            text = remainder(text, high + shift * d, d)
        return self._named((atom, space), text, "i")

    def mask(self, mask: tuple[Index, ...], space: Space) -> str:
        """Where every index is >= 0; "" where that is always."""
        tests = []
        for m in mask:
            if m.is_const and m.const >= 0:
                continue
            key = (("mask", m), space)
            found = self._found(key)
            tests.append(found or self._named(key, f"{self.index(m, space)} >= 0", "m"))
        return " & ".join(tests)

    def below(self, axis: str, extent: int, space: Space) -> str:
        """Where a block's points are less than an axis's extent."""
        key = (("below", axis, extent), space)
        return self._found(key) or self._named(key, f"{self.symbol(axis, space)} < {extent}", "m")

    # -- expressions ---------------------------------------------------------------------------

    def value(self, root: Expr, space: Space) -> str:
        """An expression's value, what is long or used twice in it by name."""
        users: dict[int, int] = {}
        for e in walk(root):
            for a in children(e):
                users[id(a)] = users.get(id(a), 0) + 1
        texts: dict[int, str] = {}
        for e in walk(root):
            found = self._found((e, space))
            if found is None:
                found = self._one(e, texts, space)
                long = isinstance(e, Op) and (len(found) > SHORT or users.get(id(e), 0) > 1)
                if (isinstance(e, Load) and not found.isidentifier()) or long:
                    found = self._named((e, space), found, "v")
            texts[id(e)] = found
        return texts[id(root)]

    def name(self, text: str, prefix: str = "v") -> str:
        name = self.fresh(prefix)
        self.write(f"{name} = {text}")
        return name

    def _named(self, key, text: str, prefix: str) -> str:
        name = self.name(text, prefix)
        self._scopes[-1].memo[key] = name
        return name

    def _found(self, key) -> str | None:
        return next((s.memo[key] for s in self._scopes[::-1] if key in s.memo), None)

    def _one(self, e: Expr, texts: Mapping[int, str], space: Space) -> str:
        if isinstance(e, Const):
            return constant(e.value, e.dtype)
        if isinstance(e, Load):
            return self._load(e, space)
        if isinstance(e, Iota):
            if not e.index.terms:
                return constant(e.index.const, e.dtype)
            zero = "tl.full((), 0, tl.int64)"  # loop variables may be bare numbers
            parts = [
                f"({zero} + {bracketed(self._atom(a, space))}) * {c}" for a, c in e.index.terms
            ]
            return cast(f"({' + '.join((*parts, str(e.index.const)))})", "i64", e.dtype)
        if not isinstance(e, Op):
            raise EmitError(f"no Triton for {type(e).__name__} {e}")
        args = [texts[id(a)] for a in e.args]
        if e.name == "cast":
            return cast(args[0], e.args[0].dtype, e.dtype)
        if e.name == "where":
            return f"tl.where({', '.join(args)})"
        kinds = e.args[0].dtype if e.name in COMPARISONS else e.dtype
        if kinds in HALVES:
            args = [f"{a}.to(tl.float32)" for a in args]
            text = operation(e.name, args, "f32")
            return text if e.name in COMPARISONS else f"({text}).to({TRITON[e.dtype]})"
        return operation(e.name, args, kinds)


def _sum(parts: list[str]) -> str:
    return " + ".join(parts).replace("+ -", "- ")


def bracketed(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def quotient(text: str, most: int, divisor: int) -> str:
    """text // divisor of 0 to `most`. Small numbers are multiplied by a fraction: LLVM makes bytes
    of them, and what Triton 3.6 brings divides pairs of bytes wrongly on a GPU. Powers of two are
    shifts, from which Triton learns what lies together."""
    even = divisor & -divisor
    rest = divisor // even
    if most >= SMALL or rest == 1:
        return f"{bracketed(text)} // {divisor}"
    text = f"{bracketed(text)} // {even}" if even > 1 else text
    return f"({bracketed(text)} * {FRACTION // rest + 1} >> {FRACTION.bit_length() - 1})"


def remainder(text: str, most: int, divisor: int) -> str:
    """text % divisor of 0 to `most`."""
    if most >= SMALL or divisor & (divisor - 1) == 0:
        return f"{bracketed(text)} % {divisor}"
    return f"{bracketed(text)} - {quotient(text, most, divisor)} * {divisor}"


# -- text of operations ----------------------------------------------------------------------


def operation(name: str, args: list[str], dtype: str) -> str:
    """An operation on values of a dtype."""
    kind = DTYPES[dtype][1]
    if kind == "b":
        name = {"add": "or", "mul": "and", "max": "or", "min": "and"}.get(name, name)
        if name == "not":
            return f"({args[0]} == 0)"
    if name in _INFIX:
        return f"({args[0]} {_INFIX[name]} {args[1]})"
    if name in ("max", "min"):
        tail = ", propagate_nan=sol.ALL" if kind == "f" else ""
        return f"tl.{name}imum({args[0]}, {args[1]}{tail})"
    if name in ("floordiv", "mod"):
        return f"sol.{name}_{'float' if kind == 'f' else 'int'}({', '.join(args)})"
    if name in _OURS:
        return f"sol.{_OURS[name]}({', '.join(args)})"
    if name in _LIBDEVICE:
        return f"libdevice.{name}({', '.join(args)})"
    if name == "round":
        return f"libdevice.rint({args[0]})"
    if name == "neg":  # Triton's own subtracts from zero, which loses the sign of zero
        return f"({args[0]} * -1.0)" if kind == "f" else f"(-{args[0]})"
    if name == "not" and kind == "u":  # of which all bits are no number to the interpreter
        return f"({args[0]} ^ {constant(2 ** (8 * DTYPES[dtype][0]) - 1, dtype)})"
    if name == "not":
        return f"(~{args[0]})"
    if name == "abs":
        return f"tl.abs({args[0]})"
    if name == "isnan":
        return f"({args[0]} != {args[0]})"
    if name == "signbit":
        return f"({args[0]}.to(tl.int{8 * DTYPES[dtype][0]}, bitcast=True) < 0)"
    raise EmitError(f"no Triton for {name} of {dtype}")


def cast(text: str, source: str, dtype: str) -> str:
    """As C converts; float64 reaches 16 bits by way of float32, as eager does."""
    if source == dtype:
        return text
    if dtype == "bool":
        return f"({text} != 0)"
    if DTYPES[source][1] == "f" and DTYPES[dtype][1] in "iu":
        if source in HALVES:
            text = f"{text}.to(tl.float32)"
        if dtype not in ("i32", "i64", "u64"):
            text = f"{text}.to(tl.int64)"
    if (source == "f64" and dtype in HALVES) or (source in HALVES and dtype in ("f64", *HALVES)):
        text = f"{text}.to(tl.float32)"
    if DTYPES[source][1] in "iub" and dtype in HALVES:
        text = f"{text}.to(tl.float32)"
    return f"{text}.to({TRITON[dtype]})"


def constant(value: float | int | bool, dtype: str) -> str:
    """A typed scalar: a bare number would be of Triton's choice."""
    kind = DTYPES[dtype][1]
    if kind == "b":
        return f"tl.full((), {int(bool(value))}, tl.int1)"
    if kind in "iu":
        return f"tl.full((), {whole(value, dtype)}, {TRITON[dtype]})"
    value = float(value)
    if dtype in HALVES:
        value = rounded(value, dtype)
        return f"{constant(value, 'f32')}.to({TRITON[dtype]})"
    text = repr(value) if isfinite(value) else f'float("{"nan" if isnan(value) else value}")'
    if value == 0 and copysign(1, value) < 0:  # a literal of it is plus zero
        return f"(tl.full((), -1.0, {TRITON[dtype]}) * 0.0)"
    return f"tl.full((), {text}, {TRITON[dtype]})"
