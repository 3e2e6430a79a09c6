"""Random C functions, compiled by clang for the vector engine and by the host's compiler: the same.

Here the compiler is the judge: what LLVM's back end expects of an instruction (a comparison's
order, a conditional move's condition, extension, shifts, conversions, rounding) must be what the
simulator does, whatever model.py assumes. Functions mix integers of all widths, float, double and
binary128 and have no undefined behaviour; both results must be equal, bit for bit but for NaNs.
"""

from __future__ import annotations

import ctypes
import functools
import random

import numpy as np
import pytest
from comparison import random_values
from compiled import ve_object

from sol_dynamo.runtime.toolchain import compile_shared
from sol_dynamo.ve import sim

pytest.importorskip("ziglang")

FUNCTIONS, INPUTS, CALLS = 60, 12, 12  # of a part; words that a function reads; calls of each
WAYS = [("-O0",), ("-O1",), ("-O2",), ("-O3", "-fPIC")]
INTEGERS = {f"{sign}{bits}": bits for sign in "iu" for bits in (8, 16, 32, 64)}
FLOATS = ("f32", "f64", "f128")
PREAMBLE = """
typedef signed char i8; typedef short i16; typedef int i32; typedef long i64;
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32;
typedef unsigned long u64;
typedef float f32; typedef double f64;
#ifdef __ve__
typedef long double f128;
#else
typedef __float128 f128;
#endif
static u64 bits_f32(f32 x) { u32 b; __builtin_memcpy(&b, &x, 4); return x != x ? 7 : b; }
static u64 bits_f64(f64 x) { u64 b; __builtin_memcpy(&b, &x, 8); return x != x ? 7 : b; }
static u64 bits_f128(f128 x) { f64 y = x; return bits_f64(y) + bits_f64(x - y); }
static f32 as_f32(u64 b) { f32 x; u32 c = b >> 32; __builtin_memcpy(&x, &c, 4); return x; }
static f64 as_f64(u64 b) { f64 x; __builtin_memcpy(&x, &b, 8); return x; }
static u64 mix(u64 h, u64 x) { h = (h ^ x) * 0x9E3779B97F4A7C15UL; return h ^ h >> 29; }
"""


class Function:
    """One C function: a list of statements that define variables v0, v1, ... of known types."""

    def __init__(self, rng: random.Random, name: str) -> None:
        self.rng, self.name = rng, name
        self.types: list[str] = []
        self.lines: list[str] = []
        for i in range(INPUTS):
            kind = rng.choice([*INTEGERS, *INTEGERS, "f32", "f64", "f64"])
            read = f"as_{kind}(p[{i}])" if kind[0] == "f" else f"({kind})p[{i}]"
            self.define(kind, read)
        for _ in range(rng.randrange(8, 24)):
            self.statement()

    def define(self, kind: str, value: str) -> None:
        self.lines.append(f"{kind} v{len(self.types)} = {value};")
        self.types.append(kind)

    def variable(self, kinds: tuple[str, ...]) -> str:
        fitting = [i for i, kind in enumerate(self.types) if kind in kinds]
        if not fitting or self.rng.random() < 0.1:
            return f"({kinds[0]}){self.constant(kinds[0])}"
        return f"v{self.rng.choice(fitting)}"

    def constant(self, kind: str) -> str:
        if kind[0] == "f":
            return self.rng.choice(["0.0", "1.0", "-0.5", "3.25", "1e10", "-7.0"])
        return f"{self.rng.choice([0, 1, 2, 5, 63, 64, 127, 255, 0x1234, 1 << 31, 1 << 40])}L"

    def integer(self) -> str:
        return self.variable(tuple(INTEGERS))

    def number(self) -> str:
        return self.variable(FLOATS)

    def condition(self) -> str:
        operator = self.rng.choice(["<", "<=", ">", ">=", "==", "!="])
        if self.rng.random() < 0.5:
            kind = self.rng.choice(list(INTEGERS))
            return f"({kind}){self.integer()} {operator} ({kind}){self.integer()}"
        kind = self.rng.choice(FLOATS)
        text = f"({kind}){self.number()} {operator} ({kind}){self.number()}"
        return f"!({text})" if self.rng.random() < 0.3 else text

    def statement(self) -> None:
        rng = self.rng
        kind = rng.choice(list(INTEGERS))
        width = INTEGERS[kind]
        a, b = self.integer(), self.integer()
        match rng.randrange(14):
            case 0 | 1:
                self.define(kind, f"({kind}){a} {rng.choice('+-*&|^')} ({kind}){b}")
            case 2:
                count = rng.choice([f"({b} & {width - 1})", str(rng.randrange(width))])
                self.define(kind, f"({kind}){a} {rng.choice(['<<', '>>'])} {count}")
            case 3:  # neither zero nor the most negative number by -1
                divisor = f"((({kind}){b} & {(1 << (width - 2)) - 1}) | 1)"
                self.define(kind, f"({kind}){a} {rng.choice('/%')} {divisor}")
            case 4:
                call = rng.choice(
                    ["popcountl({})", "clzl({} | 1)", "ctzl({} | 256)", "bswap64({})",
                     "bswap32({})", "bswap16({})", "parityl({})"]
                )  # fmt: skip
                self.define(kind, "__builtin_" + call.format(f"(u64){a}"))
            case 5:
                self.define(kind, f"{self.condition()} ? ({kind}){a} : ({kind}){b}")
            case 6:
                value = rng.choice(FLOATS)
                first, second = self.number(), self.number()
                self.define(value, f"{self.condition()} ? ({value}){first} : ({value}){second}")
            case 7 | 8:
                value = rng.choice(FLOATS)
                operator = rng.choice("+-*/" if value != "f128" else "+-*")
                self.define(value, f"({value}){self.number()} {operator} ({value}){self.number()}")
            case 9:  # an integer to a float; LLVM rounds twice from 64 bits to float
                value, bits = rng.choice((("f32", 32), ("f64", 32), ("f64", 64)))
                self.define(value, f"({value})({rng.choice('iu')}{bits}){a}")
            case 10:  # a float to an integer, only where it is in range
                x, integer = self.variable(("f32", "f64")), rng.choice(("i32", "i64", "u32", "u64"))
                low = {"i32": "-2e9", "i64": "-9e18"}.get(integer, "-0.5")
                high = {"32": "2e9", "64": "9e18"}[integer[1:]]
                guard = f"({x} > {low} && {x} < {high})"
                self.define(integer, f"{guard} ? ({integer}){x} : 0")
            case 11:
                self.define("f64", rng.choice(["as_f64({})", "__builtin_fabs((f64){})"]).format(
                    self.integer()))  # fmt: skip
            case 12:
                rounds = rng.randrange(1, 9)
                self.define("u64", "0")
                made = f"v{len(self.types) - 1}"
                self.lines.append(
                    f"for ({kind} k = 0; k < {rounds}; k++)"
                    f" {{ if ({self.condition()}) {made} += k; {made} = mix({made}, {a}); }}"
                )
            case 13:
                table = f"t{len(self.types)}"
                self.lines.append(f"{kind} {table}[4] = {{{a}, {b}, {self.integer()}, 1}};")
                self.define(kind, f"{table}[{self.integer()} & 3]")

    @property
    def source(self) -> str:
        hashes = [
            f"h = mix(h, {f'bits_{kind}(v{i})' if kind[0] == 'f' else f'(u64)v{i}'});"
            for i, kind in enumerate(self.types)
        ]
        body = "\n  ".join([*self.lines, "u64 h = 1;", *hashes, "return h;"])
        return f"u64 {self.name}(const u64 *p) {{\n  {body}\n}}\n"


@functools.cache
def source_of(part: int) -> str:
    rng = random.Random(part)
    return PREAMBLE + "".join(Function(rng, f"function{i}").source for i in range(FUNCTIONS))


@pytest.mark.parametrize("part", range(len(WAYS)), ids=[" ".join(way) for way in WAYS])
def test_expressions(part: int) -> None:
    source = source_of(part)
    library = sim.Machine().load_bytes(ve_object(source, "-fwrapv", "-ffp-contract=off", "-w",
                                                 *WAYS[part]))  # fmt: skip
    # without trapping math, gcc makes (double)(int)-0.5 a -0
    flags = ("-ffp-contract=off", "-ftrapping-math")
    host = ctypes.CDLL(str(compile_shared({"ve_expressions.c": source}, flags)))
    rng = np.random.default_rng(part)
    address = library.machine.allocate(8 * INPUTS)
    wrong = []
    for i in range(FUNCTIONS):
        function = getattr(host, f"function{i}")
        function.restype = ctypes.c_uint64
        for _ in range(CALLS):
            values = np.concatenate([random_values(rng, INPUTS // 4) for _ in range(4)])
            library.machine.write(address, values.tobytes())
            got = library.call(f"function{i}", address)
            want = function(values.ctypes.data_as(ctypes.c_void_p))
            if got != want:
                wrong.append(f"function{i}({', '.join(map(hex, values.tolist()))})")
    names = sorted({text.partition("(")[0] for text in wrong})
    assert not wrong, f"{len(wrong)} calls, of {names}:\n" + "\n".join(wrong[:4])
