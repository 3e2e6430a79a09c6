"""Expressions over vector registers: the C emitter's, by intrinsics of the vector engine.

A `Value` of several lanes is a register of as many 64-bit elements: a double, a float in the upper
half, or an integer of any dtype as a long that is extended as its dtype says; a bool is a mask
register. Any number of lanes up to 256 is a vector length. What has no text for vectors is computed
element by element. Knows nothing of loops or memory, like the class that it extends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..affine import FloorDiv, Index, Mod
from ..ir import DTYPES, Iota, Load, Op
from ..kernels.c.scope import Scope
from ..kernels.c.values import LANE, EmitError, Expressions, Value, compute_dtype, literal
from .functions import VECTOR, has_vector

FLOATS = {"f32": "s", "f64": "d"}
_SWAPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}
_BROADCAST = {"f32": "vbrds", "f64": "vbrdd"}
_MASKS = {"and": "andm", "or": "orm", "xor": "xorm"}
_BITS = {"and": "vand", "or": "vor", "xor": "vxor"}
_HERE = ("f32", "f64", "i64")


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def _conversion(dtype: str) -> str:
    """What makes an integer of a double: narrow signed ones by way of 32 bits, as eager does."""
    return "sol_to_int" if dtype in ("i32", "i16", "i8") else "sol_to_long"


class PlainExpressions(Expressions):
    """Expressions of one element."""

    def cast(self, v: Value, dtype: str) -> Value:
        whole = is_float(v.dtype) and DTYPES[dtype][1] in "iu" and dtype != "u64"
        if v.lanes > 1 or not whole:
            return super().cast(v, dtype)
        return self.name(Value(f"({dtype}){_conversion(dtype)}_of({v.text})", dtype))


class VectorExpressions(PlainExpressions):
    """Expressions over vector registers."""

    names: Scope
    in_place = False  # whether vectors of one value are made where they are used: fewer registers

    def __init__(self, names: Scope, load: Callable[[Load, int], Value]):
        super().__init__(names, load)
        self.vectors: dict[str, Value] = {}  # C variables that differ from lane to lane
        self._products: dict[str, tuple[Value, Value]] = {}  # name -> its factors
        self._wide: dict[str, str] = {}  # name of a double -> of the float that it was

    # -- lanes ---------------------------------------------------------------------------------

    def varies(self, index: Index) -> bool:
        """Whether an index differs from lane to lane."""
        if LANE not in index.symbols and self.vectors.keys().isdisjoint(index.symbols):
            return False
        index = index.simplify(self.names.ranges)
        return LANE in index.symbols or not self.vectors.keys().isdisjoint(index.symbols)

    def vector_index(self, index: Index, lanes: int) -> Value:
        """An index of each lane, as longs."""
        index = index.simplify(self.names.ranges)
        shared, total = Index.of(index.const), None
        for atom, c in index.terms:
            if not self.varies(Index({atom: 1})):
                shared = shared + Index({atom: c})
                continue
            part = self._atom(atom, lanes)
            if c != 1:
                part = self._long(f"_vel_vmulsl_vsvl({c}, {part.text}, {lanes})", lanes)
            if total is not None:
                part = self._long(f"_vel_vaddsl_vvvl({total.text}, {part.text}, {lanes})", lanes)
            total = part
        if total is None:
            return self._long(f"_vel_vbrdl_vsl({self.names.integer(shared)}, {lanes})", lanes)
        if shared != Index():
            text = f"_vel_vaddsl_vsvl({self.names.integer(shared)}, {total.text}, {lanes})"
            total = self._long(text, lanes)
        return total

    def _atom(self, atom: str | FloorDiv | Mod, lanes: int) -> Value:
        if atom == LANE:
            return self._long(f"_vel_vseq_vl({lanes})", lanes)
        if isinstance(atom, str):
            return self.vectors[atom]
        whole, d = isinstance(atom, FloorDiv), atom.divisor
        v = self.vector_index(atom.numerator, lanes)
        if d & (d - 1) == 0:
            text = f"_vel_vsral_vvsl({v.text}, {d.bit_length() - 1}, {lanes})"
            return self._long(
                text if whole else f"_vel_vand_vsvl({d - 1}, {v.text}, {lanes})", lanes
            )
        q = self._long(f"sol_quotient({v.text}, {d}, {lanes})", lanes)
        if whole:
            return q
        multiple = f"_vel_vmulsl_vsvl({d}, {q.text}, {lanes})"
        return self._long(f"_vel_vsubsl_vvvl({v.text}, {multiple}, {lanes})", lanes)

    def _long(self, text: str, lanes: int) -> Value:
        return self.name(Value(text, "i64", lanes), "n")

    def mask(self, masks: Sequence[Index], lanes: int) -> str:
        """The lanes in which all masks hold."""
        texts = []
        for m in masks:
            if self.varies(m):
                texts.append(f"_vel_vfmklge_mvl({self.vector_index(m, lanes).text}, {lanes})")
            else:
                texts.append(self._all_lanes(f"{self.names.scalar(m)} >= 0", lanes))
        text = texts[0]
        for t in texts[1:]:
            text = f"_vel_andm_mmm({text}, {t})"
        return self.name(Value(text, "bool", lanes), "m").text

    def _all_lanes(self, condition: str, lanes: int) -> str:
        condition = f"sol_here_i64({condition})" if self.in_place else condition
        return f"_vel_vfmklne_mvl(_vel_vbrdl_vsl({condition}, {lanes}), {lanes})"

    # -- types and constants -------------------------------------------------------------------

    def type_of(self, dtype: str, lanes: int = 1, bits: int = 8) -> str:
        if lanes == 1:
            return super().type_of(dtype, lanes, bits)
        return "__vm256" if dtype == "bool" else "__vr"

    def splat_text(self, start: str, dtype: str, lanes: int) -> str:
        if lanes == 1:
            return start
        if dtype == "bool":
            if start in ("0", "1"):
                return f"_vel_vfmkla{'ft'[int(start)]}_ml({lanes})"
            return self._all_lanes(start, lanes)
        start = f"sol_here_{dtype}({start})" if self.in_place and dtype in _HERE else start
        return f"_vel_{_BROADCAST.get(dtype, 'vbrdl')}_vsl({start}, {lanes})"

    def splat(self, v: Value, lanes: int, dtype: str | None = None) -> Value:
        if v.lanes == lanes:
            return v
        assert v.lanes == 1, (v, lanes)
        return Value(self.splat_text(v.text, v.dtype, lanes), v.dtype, lanes)

    def mask_bits(self, v: Value, bits: int) -> Value:
        return v

    def stored_bool(self, v: Value) -> Value:
        return super().stored_bool(v) if v.lanes == 1 else self._bool_as(v, "u8")

    def _bool_as(self, v: Value, dtype: str) -> Value:
        """0 or 1 for each lane of a mask."""
        one, zero = (self.splat_text(literal(k, dtype), dtype, v.lanes) for k in (1, 0))
        return self.name(
            Value(f"_vel_vmrg_vvvml({zero}, {one}, {v.text}, {v.lanes})", dtype, v.lanes)
        )

    def _wrapped(self, text: str, dtype: str, lanes: int) -> Value:
        """A long as an integer of fewer bits."""
        size, kind = DTYPES[dtype]
        if size < 8:
            f = "sol_unsigned" if kind == "u" else "sol_extended"
            text = f"{f}({text}, {8 * size}, {lanes})"
        return self.name(Value(text, dtype, lanes))

    # -- expressions ---------------------------------------------------------------------------

    def _op(self, e: Op, lanes: int) -> Value:
        args = [self._found(a, lanes) for a in e.args]
        width = max(a.lanes for a in args)
        if width == 1 or e.name not in ("cast", "not"):
            return super()._op(e, lanes)
        (a,) = args
        if e.name == "cast":
            return self.cast(a, compute_dtype(e.dtype))
        if a.dtype == "bool":
            return self.name(Value(f"_vel_negm_mm({a.text})", "bool", width))
        return self._wrapped(f"_vel_vxor_vsvl(-1, {a.text}, {width})", a.dtype, width)

    def _iota(self, e: Iota, lanes: int) -> Value:
        dtype = compute_dtype(e.dtype)
        if lanes == 1 or not self.varies(e.index):
            return Value(f"({dtype})({self.names.integer(e.index)})", dtype)
        return self.cast(self.vector_index(e.index, lanes), dtype)

    def cast(self, v: Value, dtype: str) -> Value:
        if v.lanes == 1 or v.dtype == dtype:
            return super().cast(v, dtype)
        n, x = v.lanes, v.text
        if dtype == "bool":
            return self.compare("ne", [v, Value(literal(0, v.dtype), v.dtype)], n)
        if v.dtype == "bool":
            return self._bool_as(v, dtype)
        if is_float(v.dtype) and is_float(dtype):
            way = "ds" if dtype == "f64" else "sd"
            made = self.name(Value(f"_vel_vcvt{way}_vvl({x}, {n})", dtype, n))
            if way == "ds":
                self._wide[made.text] = x
            return made
        if is_float(v.dtype):
            if dtype == "u64":
                return self.by_lane(lambda a: f"(u64){a}", [v], dtype, n)
            wide = x if v.dtype == "f64" else f"_vel_vcvtds_vvl({x}, {n})"
            whole = f"{_conversion(dtype)}({wide}, {n})"
            if dtype == "i32":  # it fits
                return self.name(Value(whole, dtype, n))
            return self._wrapped(whole, dtype, n)
        if not is_float(dtype):
            narrower = (
                DTYPES[dtype][0] < DTYPES[v.dtype][0] or DTYPES[dtype][1] != DTYPES[v.dtype][1]
            )
            return self._wrapped(x, dtype, n) if narrower else Value(x, dtype, n)
        if v.dtype == "u64":
            return self.by_lane(lambda a: f"({dtype}){a}", [v], dtype, n)
        if dtype == "f64":
            return self.name(Value(f"_vel_vcvtdl_vvl({x}, {n})", dtype, n))
        exact = DTYPES[v.dtype][0] < 8
        text = (
            f"_vel_vcvtsd_vvl(_vel_vcvtdl_vvl({x}, {n}), {n})"
            if exact
            else f"sol_long_to_float({x}, {n})"
        )
        return self.name(Value(text, dtype, n))

    def _half(self, way: str, v: Value, dtype: str, result: str) -> Value:
        if v.lanes == 1:
            return super()._half(way, v, dtype, result)
        return self.name(Value(f"sol_{way}_{dtype}({v.text}, {v.lanes})", result, v.lanes), "x")

    def where(self, c: Value, a: Value, b: Value, dtype: str, width: int) -> Value:
        if width == 1 or (c.lanes == 1 and c.text in ("0", "1")):
            return super().where(c, a, b, dtype, width)
        c, a, b = self.splat(c, width), self.splat(a, width), self.splat(b, width)
        if dtype == "bool":
            first, second = f"andm_mmm({c.text}, {a.text})", f"nndm_mmm({c.text}, {b.text})"
            text = f"_vel_orm_mmm(_vel_{first}, _vel_{second})"
        else:
            text = f"_vel_vmrg_vvvml({b.text}, {a.text}, {c.text}, {width})"
        return self.name(Value(text, dtype, width))

    def compare(self, name: str, args: list[Value], width: int) -> Value:
        if width == 1:
            return super().compare(name, args, width)
        dtype = args[0].dtype
        if name in ("isnan", "signbit"):
            kind = f"{FLOATS[dtype]}nan" if name == "isnan" else "llt"
            return self.name(Value(f"_vel_vfmk{kind}_mvl({args[0].text}, {width})", "bool", width))
        if dtype == "bool":
            if name not in ("eq", "ne"):
                return self.compare(name, [self.cast(a, "i64") for a in args], width)
            x, y = (self.splat(a, width).text for a in args)
            text = f"_vel_{'eqvm' if name == 'eq' else 'xorm'}_mmm({x}, {y})"
            return self.name(Value(text, "bool", width))
        a, b = args
        form = "vvvl"
        if a.lanes == 1 or b.lanes == 1:
            form = "vsvl"
            if b.lanes == 1:
                a, b, name = b, a, _SWAPPED[name]
        s = FLOATS.get(dtype, "l")
        cmp = f"vfcmp{s}" if is_float(dtype) else "vcmpul" if dtype == "u64" else "vcmpsl"
        order = f"_vel_{cmp}_{form}({a.text}, {b.text}, {width})"
        unordered = "nan" if name == "ne" and is_float(dtype) else ""
        return self.name(
            Value(f"_vel_vfmk{s}{name}{unordered}_mvl({order}, {width})", "bool", width)
        )

    def logic(self, name: str, args: list[Value], width: int) -> Value:
        if width == 1:
            return super().logic(name, args, width)
        name = {"add": "or", "mul": "and", "max": "or", "min": "and"}.get(name, name)
        for a, b in (args, args[::-1]):
            if name == "and" and a.text in ("0", "1") and a.lanes == 1:
                return b if a.text == "1" else a
        a, b = (self.splat(x, width) for x in args)
        return self.name(Value(f"_vel_{_MASKS[name]}_mmm({a.text}, {b.text})", "bool", width))

    def arithmetic(self, name: str, args: list[Value], dtype: str, width: int) -> Value:
        if width == 1:
            return super().arithmetic(name, args, dtype, width)
        if is_float(dtype):
            v = self._float(name, args, dtype, width)
        else:
            v = self._whole(name, args, dtype, width)
        if v is not None:
            return v
        return self._call(name, args, dtype, width)

    def _call(self, name: str, args: list[Value], dtype: str, width: int) -> Value:
        if width == 1:
            return super()._call(name, args, dtype, width)
        if has_vector(name, dtype):
            self.uses.add((name, dtype, VECTOR))
            texts = [self.splat(a, width).text for a in args]
            return self.name(
                Value(f"sol_{name}_{dtype}v({', '.join(texts)}, {width})", dtype, width)
            )
        return self._one_by_one(name, args, dtype, width)

    def _one_by_one(self, name: str, args: list[Value], dtype: str, width: int) -> Value:
        """An operation that has no text for vectors."""
        here = Expressions(_Line(), self.load)
        values = [Value(f"<{k}>", a.dtype) for k, a in enumerate(args)]
        result = here.arithmetic(name, values, dtype, 1)
        (line,) = here.names.lines
        self.uses |= here.uses
        _, _, text = line.rstrip(";").partition(" = ")
        assert result.lanes == 1

        def element(*elements: str) -> str:
            filled = text
            for k, e in enumerate(elements):
                filled = filled.replace(f"<{k}>", e)
            return filled

        return self.by_lane(element, args, dtype, width)

    def by_lane(
        self, element: Callable[..., str], args: Sequence[Value], dtype: str, lanes: int
    ) -> Value:
        """element(C of each argument's element) for each lane, through memory."""
        result = self.names.fresh("t")
        self.write(f"{self.type_of('i64', lanes)} {result};")
        self.write("{")
        places = []
        for k, a in enumerate(args):
            a = self._bool_as(a, "i64") if a.dtype == "bool" and a.lanes > 1 else a
            if a.lanes == 1:
                places.append(a.text)
                continue
            self.write(f"  {_array(a.dtype)} in{k}[{lanes}];")
            self.write(f"  {_put(a.dtype)}({a.text}, {_bytes(a.dtype)}, in{k}, {lanes});")
            places.append(
                f"({compute_dtype(args[k].dtype) if a.dtype != 'bool' else 'i32'})in{k}[i]"
            )
        kept = "i64" if dtype == "bool" else dtype
        self.write(f"  {_array(kept)} out[{lanes}];")
        self.write(f"  for (int i = 0; i < {lanes}; i++) out[i] = {element(*places)};")
        self.write(f"  {result} = {_get(kept)}({_bytes(kept)}, out, {lanes});")
        self.write("}")
        v = Value(result, kept, lanes)
        return self.cast(v, "bool") if dtype == "bool" else v

    def _float(self, name: str, args: list[Value], dtype: str, n: int) -> Value | None:
        s = FLOATS[dtype]
        if name == "neg":
            return self.name(Value(f"_vel_vxor_vsvl(1L << 63, {args[0].text}, {n})", dtype, n))
        if name == "abs":
            return self.name(Value(f"sol_magnitude({args[0].text}, {n})", dtype, n))
        if name in ("add", "sub", "mul", "div"):
            v = self.name(Value(self._float_text(name, args, s, n), dtype, n))
            if name == "mul":
                self._products[v.text] = (args[0], args[1])
            return v
        if name in ("max", "min"):
            return self._extremum(name, args, dtype, n)
        return None

    def _float_text(self, name: str, args: list[Value], s: str, n: int) -> str:
        a, b = args
        if a.lanes > 1 and b.lanes == 1:
            if name == "div":
                return f"_vel_vfdiv{s}_vvvl({a.text}, {self.splat(b, n).text}, {n})"
            if name == "sub":
                return f"_vel_vfadd{s}_vsvl(-({b.text}), {a.text}, {n})"
            a, b = b, a
        form = "vvvl" if a.lanes > 1 else "vsvl"
        return f"_vel_vf{name}{s}_{form}({a.text}, {b.text}, {n})"

    def _extremum(self, name: str, args: list[Value], dtype: str, n: int) -> Value:
        """NaN if either argument is NaN; the first one of zeros that differ in their sign."""
        for a, b in (args, args[::-1]):
            if name == "max" and b.lanes == 1 and b.text == literal(0.0, dtype):
                negative = self.compare("lt" if a is args[0] else "le", [a, b], n)
                return self.where(negative, b, a, dtype, n)
        a, b = args if args[0].lanes > 1 else args[::-1]
        ways = {"max": ("gt", "ge"), "min": ("lt", "le")}[name]
        better = self.compare(ways[a is args[0]], [a, b], n)
        better = self.logic("or", [better, self.compare("isnan", [a], n)], n)
        return self.where(better, a, b, dtype, n)

    def _whole(self, name: str, args: list[Value], dtype: str, n: int) -> Value | None:
        if name == "neg":
            return self._wrapped(f"_vel_vsubsl_vsvl(0, {args[0].text}, {n})", dtype, n)
        if name == "abs":
            x = args[0].text
            positive = self.compare("ge", [args[0], Value("0", dtype)], n).text
            text = f"_vel_vmrg_vvvml(_vel_vsubsl_vsvl(0, {x}, {n}), {x}, {positive}, {n})"
            return args[0] if DTYPES[dtype][1] == "u" else self._wrapped(text, dtype, n)
        if name in ("shl", "shr"):
            return self._shift(name, args, dtype, n)
        if name in ("max", "min"):
            first = self.compare("gt" if name == "max" else "lt", args, n)
            return self.where(first, args[0], args[1], dtype, n)
        a, b = args
        if name == "sub" and b.lanes == 1:
            return self._wrapped(f"_vel_vaddsl_vsvl(-({b.text}), {a.text}, {n})", dtype, n)
        op = {"add": "vaddsl", "sub": "vsubsl", "mul": "vmulsl"}.get(name) or _BITS.get(name)
        if op is None:
            return None
        if b.lanes == 1:
            a, b = b, a
        text = f"_vel_{op}_{'vvvl' if a.lanes > 1 else 'vsvl'}({a.text}, {b.text}, {n})"
        return self.name(Value(text, dtype, n)) if name in _BITS else self._wrapped(text, dtype, n)

    def _shift(self, name: str, args: list[Value], dtype: str, n: int) -> Value | None:
        a, b = args
        if a.lanes == 1 or b.lanes > 1:
            return None
        if name == "shl":
            return self._wrapped(f"_vel_vsll_vvsl({a.text}, {b.text}, {n})", dtype, n)
        op = "vsrl" if DTYPES[dtype][1] == "u" else "vsral"
        return self.name(Value(f"_vel_{op}_vvsl({a.text}, {b.text}, {n})", dtype, n))

    # -- combining -----------------------------------------------------------------------------

    def combine(self, monoid: str, acc: Value, new: Value) -> str:
        if acc.lanes == 1:
            return super().combine(monoid, acc, new)
        n = acc.lanes
        if monoid in ("any", "all"):
            f = "orm" if monoid == "any" else "andm"
            return f"_vel_{f}_mmm({acc.text}, {self.splat(new, n).text})"
        if monoid == "sum" and is_float(acc.dtype) and (factors := self._factors(new)):
            a, b = (self.cast(x, acc.dtype) for x in factors)
            if a.dtype == b.dtype == acc.dtype:
                if b.lanes == 1:
                    a, b = b, a
                form = "vvvvl" if a.lanes > 1 else "vvsvl"
                f = f"_vel_vfmad{FLOATS[acc.dtype]}_{form}"
                return f"{f}({acc.text}, {a.text}, {b.text}, {n})"
        name = {"sum": "add", "prod": "mul"}.get(monoid, monoid)
        return self.arithmetic(name, [acc, new], acc.dtype, n).text

    def _factors(self, v: Value) -> tuple[Value, Value] | None:
        """What a value is the product of; a product of floats is exact in double."""
        return self._products.get(self._wide.get(v.text, v.text))


class _Line:
    """Where the text of one scalar operation goes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def fresh(self, prefix: str) -> str:
        return prefix

    def integer(self, index: Index) -> str:
        raise EmitError(f"an index in an operation of one lane: {index}")


def _array(dtype: str) -> str:
    return dtype if is_float(dtype) else "i64"


def _bytes(dtype: str) -> int:
    return 4 if dtype == "f32" else 8


def _put(dtype: str) -> str:
    return "_vel_vstu_vssl" if dtype == "f32" else "_vel_vst_vssl"


def _get(dtype: str) -> str:
    return "_vel_vldu_vssl" if dtype == "f32" else "_vel_vld_vssl"


class FrugalExpressions(VectorExpressions):
    """The same with few registers."""

    in_place = True
