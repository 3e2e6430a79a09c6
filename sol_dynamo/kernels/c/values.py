"""Loop-IR expressions as C: scalars and GNU vectors, with common sub-expressions named once.

A `Value` is a C expression with its dtype and lane count. Booleans are 0/1 in scalar code and
all-ones masks as wide as the compared elements in vector code, as the hardware has them; they
become bytes only when stored. Knows nothing of loops, buffers or schedules: loads come from
outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isinf, isnan
from typing import NamedTuple, Protocol

from ...affine import Index
from ...ir import COMPARISONS, DTYPES, Const, Expr, Iota, Load, Op, walk
from ..constants import rounded, whole

LANE = "@"  # the symbol of the vector loop's points in a substituted index

_SCALAR = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "neg": "-{0}", "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "shl": "{0} << {1}",
    "shr": "{0} >> {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
    "ge": "{0} >= {1}", "eq": "{0} == {1}", "ne": "{0} != {1}",
}  # fmt: skip
_FLOATS = ("f64", "f32")
STORAGE_ONLY = {"f16": "f32", "bf16": "f32"}  # held in registers as the wider type
_EXACT = frozenset(("neg", "abs", "min", "max", "where"))  # results that need no rounding


class EmitError(Exception):
    """What this emitter cannot write: refused, never guessed. Shown with its kernel."""


class Value(NamedTuple):
    text: str
    dtype: str  # as in the IR; the lanes of a bool vector are integers of `bits` bits
    lanes: int = 1
    bits: int = 8


def compute_dtype(dtype: str) -> str:
    return STORAGE_ONLY.get(dtype, dtype)


def c_type(dtype: str, lanes: int = 1, bits: int = 8) -> str:
    """The C type that holds a value in registers."""
    dtype = compute_dtype(dtype)
    if dtype == "bool":
        return "i32" if lanes == 1 else f"i{bits}x{lanes}"
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def literal(value: float | int | bool, dtype: str) -> str:
    """A C constant, exact."""
    if DTYPES[dtype][1] == "b":
        return str(int(bool(value)))
    if DTYPES[dtype][1] in "iu":
        value = whole(value, dtype)
        if value == -(2**63):
            return "(-9223372036854775807L - 1)"
        if abs(value) <= 2**31 - 1:
            return str(value)
        unsigned = DTYPES[dtype][1] == "u" or value > 2**63 - 1
        return f"{value}{'U' * unsigned}{'L' * (DTYPES[dtype][0] == 8 or not unsigned)}"
    value, suffix = float(value), "" if dtype == "f64" else "f"
    if isnan(value):
        return f'__builtin_nan{suffix}("")'
    if isinf(value):
        return ("-" if value < 0 else "") + f"__builtin_inf{suffix}()"
    return f"{value.hex()}{suffix}"


def _truncates(e: Expr) -> bool:
    """Whether a value is a float without its fraction, as an integer: gcc makes one instruction of
    that and the way back, whose result of -0.5 is -0."""
    while isinstance(e, Op) and e.name == "cast" and DTYPES[e.dtype][1] in "iu":
        e = e.args[0]
        if DTYPES[e.dtype][1] == "f":
            return True
    return False


class Names(Protocol):
    """Where the text goes: what `Expressions` needs of the scope around it."""

    lines: list[str]

    def fresh(self, prefix: str) -> str:
        """A new C name."""

    def integer(self, index: Index) -> str:
        """C text of an index without LANE."""


class Expressions:
    """Emits expressions as named C variables, each distinct one once per block."""

    def __init__(self, names: Names, load: Callable[[Load, int], Value]):
        """`load(load, lanes)` gives the value of a load."""
        self.names = names
        self.load = load
        self.memo: list[dict[tuple[Expr, int], Value]] = [{}]
        self.uses: set[tuple[str, str, int]] = set()  # math functions called: (name, dtype, lanes)

    def write(self, line: str) -> None:
        self.names.lines.append(line)

    @contextmanager
    def block(self) -> Iterator[None]:
        """Values named from here on are in scope until the block ends."""
        self.memo.append({})
        yield
        self.memo.pop()

    @contextmanager
    def function(self) -> Iterator[None]:
        """Nothing named outside is in scope."""
        outer, self.memo = self.memo, [{}]
        yield
        self.memo = outer

    def value(self, root: Expr, lanes: int) -> Value:
        """C for an expression over C variables; `lanes` wide where it depends on LANE."""
        if self._find(root, lanes) is None:
            for e in walk(root):
                if self._find(e, lanes) is None:
                    self.memo[-1][e, lanes] = self._emit(e, lanes)
        return self._found(root, lanes)

    def _found(self, e: Expr, lanes: int) -> Value:
        v = self._find(e, lanes)
        assert v is not None, f"{e} comes before what it is made of"
        return v

    def _find(self, e: Expr, lanes: int) -> Value | None:
        for scope in reversed(self.memo):
            v = scope.get((e, lanes))
            if v is not None:
                return v
        return None

    def type_of(self, dtype: str, lanes: int = 1, bits: int = 8) -> str:
        """The C type that holds a value in registers."""
        return c_type(dtype, lanes, bits)

    def splat_text(self, start: str, dtype: str, lanes: int) -> str:
        """C for the same literal in every lane."""
        if lanes == 1:
            return start
        minus = dtype == "bool" and start != "0"
        return f"({c_type(dtype, lanes, 32)}){{0}}" + (" - 1" if minus else f" + {start}")

    def name(self, v: Value, prefix: str = "t", qualifier: str = "const ") -> Value:
        """Give a value a C name."""
        name = self.names.fresh(prefix)
        self.write(f"{qualifier}{self.type_of(v.dtype, v.lanes, v.bits)} {name} = {v.text};")
        return v._replace(text=name)

    def _emit(self, e: Expr, lanes: int) -> Value:
        if isinstance(e, Const):
            exact = rounded(e.value, e.dtype) if e.dtype in STORAGE_ONLY else e.value
            return Value(literal(exact, compute_dtype(e.dtype)), compute_dtype(e.dtype))
        if isinstance(e, Load):
            return self.load(e, lanes)
        if not isinstance(e, (Iota, Op)):
            raise EmitError(f"no C for {type(e).__name__} {e}")
        value = self._iota(e, lanes) if isinstance(e, Iota) else self._op(e, lanes)
        if e.dtype in STORAGE_ONLY and not (isinstance(e, Op) and e.name in _EXACT):
            return self.rounded(value, e.dtype)
        return value

    def _op(self, e: Op, lanes: int) -> Value:
        args = [self._found(a, lanes) for a in e.args]
        width = max(a.lanes for a in args)
        dtype = compute_dtype(e.dtype)
        if e.name == "cast":
            v = self.cast(args[0], dtype)
            if dtype in _FLOATS and _truncates(e.args[0]):
                return self.name(Value(f"{v.text} + {literal(0.0, dtype)}", dtype, v.lanes))
            return v
        if e.name == "where":
            return self.where(args[0], args[1], args[2], dtype, width)
        if e.name == "not":
            a = args[0]
            if a.dtype == "bool":
                return self.name(a._replace(text=f"~{a.text}" if a.lanes > 1 else f"!{a.text}"))
            return self.name(a._replace(text=f"~{a.text}"))
        if e.name in COMPARISONS:
            return self.compare(e.name, args, width)
        if dtype == "bool":
            return self.logic(e.name, args, width)
        return self.arithmetic(e.name, args, dtype, width)

    def _iota(self, e: Iota, lanes: int) -> Value:
        step = e.index.coefficient(LANE)
        rest = e.index - step * Index.of(LANE)
        dtype = compute_dtype(e.dtype)
        if LANE in rest.symbols:  # divided or reduced lanes: one by one
            each = [self.names.integer(e.index.subst({LANE: k})) for k in range(lanes)]
            return self.name(Value(f"({c_type(dtype, lanes)}){{{', '.join(each)}}}", dtype, lanes))
        start = f"({dtype})({self.names.integer(rest)})"
        if step == 0:
            return Value(start, dtype)
        points = ", ".join(str(step * k) for k in range(lanes))
        return self.name(Value(f"(({c_type(dtype, lanes)}){{{points}}} + {start})", dtype, lanes))

    # -- conversions ---------------------------------------------------------------------------

    def splat(self, v: Value, lanes: int, dtype: str | None = None) -> Value:
        """The same scalar in every lane."""
        if v.lanes == lanes:
            return v
        assert v.lanes == 1, (v, lanes)
        if v.dtype == "bool":
            bits = 8 * DTYPES[dtype or "f32"][0]
            return Value(f"((i{bits}x{lanes}){{0}} - (i{bits})({v.text}))", "bool", lanes, bits)
        t = c_type(v.dtype, lanes)
        # minus zero, which compilers drop: plus zero is an addition, since it turns -0 into +0
        return Value(f"({v.text} - ({t}){{0}})", v.dtype, lanes)

    def cast(self, v: Value, dtype: str) -> Value:
        if v.dtype == dtype:
            return v
        if dtype == "bool":
            return self.compare("ne", [v, Value("0", v.dtype)], v.lanes)
        if v.lanes == 1:
            return self.name(Value(f"({dtype})({v.text})", dtype))
        if v.dtype == "bool":
            mask = self.mask_bits(v, 8 * DTYPES[dtype][0])
            integer = f"i{mask.bits}x{v.lanes}"
            ones = f"({mask.text} & 1)"
            if dtype in _FLOATS:
                ones = f"__builtin_convertvector({ones}, {dtype}x{v.lanes})"
            elif not dtype.startswith("i"):
                ones = f"({dtype}x{v.lanes})({integer})({ones})"
            return self.name(Value(ones, dtype, v.lanes))
        return self.name(
            Value(f"__builtin_convertvector({v.text}, {dtype}x{v.lanes})", dtype, v.lanes)
        )

    def narrow(self, v: Value, dtype: str) -> Value:
        """The 16 bits that hold a float in memory."""
        return self._half("narrow", self.cast(v, "f32"), dtype, "u16")

    def widen(self, v: Value, dtype: str) -> Value:
        """The float that 16 bits from memory hold."""
        return self._half("widen", v, dtype, "f32")

    def rounded(self, v: Value, dtype: str) -> Value:
        """A float as the 16-bit dtype has it, still held wide."""
        return self.widen(self.narrow(v, dtype), dtype)

    def _half(self, way: str, v: Value, dtype: str, result: str) -> Value:
        name = f"{way}_{dtype}"
        self.uses.add((name, "f32", v.lanes))
        text = f"sol_{name}_{c_type('f32', v.lanes)}({v.text})"
        return self.name(Value(text, result, v.lanes), "x")

    def mask_bits(self, v: Value, bits: int) -> Value:
        """A bool vector with lanes of `bits` bits."""
        if v.bits == bits:
            return v
        text = f"__builtin_convertvector({v.text}, i{bits}x{v.lanes})"
        return self.name(Value(text, "bool", v.lanes, bits))

    def stored_bool(self, v: Value) -> Value:
        """A bool as bytes of 0 and 1."""
        if v.lanes == 1:
            return Value(f"(u8)({v.text})", "u8")
        v = self.mask_bits(v, 8)
        return Value(f"((u8x{v.lanes})({v.text} & 1))", "u8", v.lanes)

    # -- operations ----------------------------------------------------------------------------

    def where(self, c: Value, a: Value, b: Value, dtype: str, width: int) -> Value:
        if c.text in ("1", "0") and c.lanes == 1:
            return a if c.text == "1" else b
        if width == 1 or c.lanes == 1:
            if width > 1:
                a, b = self.splat(a, width, dtype), self.splat(b, width, dtype)
                if dtype == "bool":
                    b = self.mask_bits(b, a.bits)
            return self.name(Value(f"{c.text} ? {a.text} : {b.text}", dtype, width, a.bits))
        if dtype == "bool":
            a, b = self.splat(a, width), self.splat(b, width)
            a, b = self.mask_bits(a, c.bits), self.mask_bits(b, c.bits)
            return self.name(
                Value(f"({a.text} & {c.text}) | ({b.text} & ~{c.text})", "bool", width, c.bits)
            )
        bits = 8 * DTYPES[dtype][0]
        c, a, b = self.mask_bits(c, bits), self.splat(a, width), self.splat(b, width)
        t, i = c_type(dtype, width), f"i{bits}x{width}"
        text = f"({t})((({i})({a.text}) & {c.text}) | (({i})({b.text}) & ~{c.text}))"
        return self.name(Value(text, dtype, width))

    def compare(self, name: str, args: list[Value], width: int) -> Value:
        if name == "isnan":
            args, name = [args[0], args[0]], "ne"
        dtype = args[0].dtype
        if name == "signbit":
            bits = 8 * DTYPES[dtype][0]
            text = f"((i{bits}x{width}){args[0].text} < 0)"
            if width == 1:
                text = f"(__builtin_signbit({args[0].text}) != 0)"
            return self.name(Value(text, "bool", width, bits))
        if dtype == "bool" and width > 1:
            bits = max(a.bits for a in args if a.lanes > 1)
            a, b = (self.mask_bits(self.splat(x, width), bits) for x in args)
            flip = "" if name == "ne" else "~"
            return self.name(Value(f"{flip}({a.text} ^ {b.text})", "bool", width, bits))
        text = _SCALAR[name].format(*(self.splat(a, width).text for a in args))
        return self.name(Value(f"({text})", "bool", width, 8 * DTYPES[dtype][0]))

    def logic(self, name: str, args: list[Value], width: int) -> Value:
        name = {"add": "or", "mul": "and", "max": "or", "min": "and"}.get(name, name)
        if width > 1:
            bits = max(a.bits for a in args if a.lanes > 1)
            args = [self.mask_bits(self.splat(a, width), bits) for a in args]
            return self.name(
                Value(f"({_SCALAR[name].format(*(a.text for a in args))})", "bool", width, bits)
            )
        for a, b in (args, args[::-1]):
            if name == "and" and a.text in ("0", "1"):
                return b if a.text == "1" else a
        return self.name(Value(f"({_SCALAR[name].format(*(a.text for a in args))})", "bool"))

    def arithmetic(self, name: str, args: list[Value], dtype: str, width: int) -> Value:
        if name == "max" and dtype in _FLOATS:  # relu keeps NaN in one instruction
            zero = literal(0.0, dtype)
            for a, b in (args, args[::-1]):
                if b.text == zero and b.lanes == 1:
                    return self._call("relu", [a], dtype, width)
        if name in _SCALAR and not (name == "div" and dtype not in _FLOATS):
            if width > 1 and name != "neg":
                args = [a if a.lanes > 1 else self.splat(a, width) for a in args]
            text = _SCALAR[name].format(*(a.text for a in args))
            if width == 1 and DTYPES[dtype][0] < 4:
                text = f"({dtype})({text})"
            return self.name(Value(text, dtype, width))
        return self._call(name, args, dtype, width)

    def _call(self, name: str, args: list[Value], dtype: str, width: int) -> Value:
        args = [self.splat(a, width) for a in args]
        return self.name(Value(self._call_text(name, args, dtype, width), dtype, width))

    # -- combining -----------------------------------------------------------------------------

    def combine(self, monoid: str, acc: Value, new: Value) -> str:
        """C for a one-value monoid's step."""
        if monoid == "sum" or monoid == "prod":
            sign = "+" if monoid == "sum" else "*"
            return f"{acc.text} {sign} {self.splat(new, acc.lanes).text}"
        if monoid in ("any", "all"):
            return f"{acc.text} {'|' if monoid == 'any' else '&'} {self.splat(new, acc.lanes).text}"
        return self._call_text(monoid, [acc, self.splat(new, acc.lanes)], acc.dtype, acc.lanes)

    def _call_text(self, name: str, args: list[Value], dtype: str, lanes: int) -> str:
        self.uses.add((name, dtype, lanes))
        suffix = dtype if lanes == 1 else f"{dtype}x{lanes}"
        return f"sol_{name}_{suffix}({', '.join(a.text for a in args)})"
