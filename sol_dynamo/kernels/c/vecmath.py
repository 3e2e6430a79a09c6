"""Math functions for generated C: GNU vector types, and one function text for every lane count.

Functions of floats stand in vecmath_f32.c, written for any lane count and within about 1 ulp; here
a number of lanes is put into them, and an instruction in place of a body where a machine has one.
One lane runs the text of four, so that a vector's tail has the same bits as its body. Doubles,
floordiv and mod of any float, and whatever has no such text, go lane by lane through libm. Knows
nothing of the IR.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from . import half

_C = {
    "f32": "float", "f64": "double", "i64": "long", "i32": "int", "i16": "short",
    "i8": "signed char", "u64": "unsigned long", "u32": "unsigned", "u16": "unsigned short",
    "u8": "unsigned char",
}  # fmt: skip
_BYTES = {"f32": 4, "f64": 8} | {k: int(k[1:]) // 8 for k in _C if k[0] in "iu"}
BY_LANE = frozenset(
    [
        *("exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "tanh", "erf"),
        *("pow", "floor", "ceil", "trunc", "sqrt", "round", "sigmoid", "rsqrt", "exp2", "erfc"),
        *("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "lgamma"),
        *("atan2", "hypot", "fmod"),
    ]
)
TWO = frozenset(("pow", "floordiv", "mod", "atan2", "hypot", "fmod"))  # arguments
_EXACT = frozenset(("floor", "ceil", "trunc", "round", "sqrt"))  # the same bits whoever computes
_SOURCE = Path(__file__).with_name("vecmath_f32.c")

# (function, lanes) -> macro that says the machine has it, and gcc's builtins in place of its body:
# they round and treat NaN as the body does. 11: mantissas in [3/4, 3/2), NaN for negative numbers;
# x + 0 makes -0 no negative number.
_INSTRUCTIONS = {
    ("any_i32", 4): ("__SSE__", "__builtin_ia32_movmskps((f32x4)m)"),
    ("any_i32", 8): ("__AVX__", "__builtin_ia32_movmskps256((f32x8)m)"),
    ("any_i32", 16): ("__AVX512F__", "__builtin_ia32_ptestmd512(m, m, -1)"),
    ("sqrt_f32", 4): ("__SSE__", "__builtin_ia32_sqrtps(x)"),
    ("sqrt_f32", 8): ("__AVX__", "__builtin_ia32_sqrtps256(x)"),
    ("sqrt_f32", 16): ("__AVX512F__", "__builtin_ia32_sqrtps512_mask(x, x, -1, 4)"),
    ("scale_f32", 16): ("__AVX512F__", "__builtin_ia32_scalefps512_mask(p, n, p, -1, 4)"),
    ("split_f32", 16): (
        "__AVX512F__",
        "x = x + 0, *k = __builtin_ia32_getexpps512_mask(x, x, -1, 4) - "
        "__builtin_ia32_getexpps512_mask("
        "__builtin_ia32_getmantps512_mask(x, 11, x, -1, 4), x, -1, 4), "
        "__builtin_ia32_getmantps512_mask(x, 11, x, -1, 4)",
    ),
    ("double_f32", 8): ("__AVX512F__", "__builtin_ia32_cvtps2pd512_mask(x, (f64x8){0}, -1, 4)"),
    ("clamp_f32", 4): (
        "__SSE__",
        "__builtin_ia32_maxps((f32x4){0} + lo, __builtin_ia32_minps((f32x4){0} + hi, x))",
    ),
    ("clamp_f32", 8): (
        "__AVX__",
        "__builtin_ia32_maxps256((f32x8){0} + lo, __builtin_ia32_minps256((f32x8){0} + hi, x))",
    ),
    ("clamp_f32", 16): (
        "__AVX512F__",
        "__builtin_ia32_maxps512_mask((f32x16){0} + lo, __builtin_ia32_minps512_mask("
        "(f32x16){0} + hi, x, x, -1, 4), x, -1, 4)",
    ),
}
for _k, _name in enumerate(("round", "floor", "ceil", "trunc")):  # as the instruction counts them
    _INSTRUCTIONS |= {
        (f"{_name}_f32", 4): ("__SSE4_1__", f"__builtin_ia32_roundps(x, {8 + _k})"),
        (f"{_name}_f32", 8): ("__AVX__", f"__builtin_ia32_roundps256(x, {8 + _k})"),
        (f"{_name}_f32", 16): (
            "__AVX512F__",
            f"__builtin_ia32_rndscaleps_mask(x, {8 + _k}, x, -1, 4)",
        ),
    }
# what clang has for vectors of any length
_CLANG = {
    "any_i32": ("__builtin_reduce_or", "m"),
    "sqrt_f32": ("__builtin_elementwise_sqrt", "x"),
    "round_f32": ("__builtin_elementwise_roundeven", "x"),
    "floor_f32": ("__builtin_elementwise_floor", "x"),
    "ceil_f32": ("__builtin_elementwise_ceil", "x"),
    "trunc_f32": ("__builtin_elementwise_trunc", "x"),
}


def PRELUDE(widths: Iterable[int]) -> str:
    """Typedefs: `f32`, `f32x16` and, for unaligned memory, `f32x16u`, for every dtype and width."""
    lines = [f"typedef {c} {d};" for d, c in _C.items()]
    lines += ["#ifndef __has_builtin", "#define __has_builtin(x) 0", "#endif"]  # gcc before 10
    for n in widths:
        for d, c in _C.items():
            size = _BYTES[d] * n
            lines.append(f"typedef {c} {d}x{n} __attribute__((vector_size({size})));")
            lines.append(
                f"typedef {c} {d}x{n}u __attribute__((vector_size({size}), "
                f"aligned({_BYTES[d]}), may_alias));"
            )
    return "\n".join(lines) + "\n"


def required(name: str, dtype: str, lanes: int) -> list[tuple[str, str, int]]:
    """The functions that a function calls."""
    calls = re.findall(r"\bsol_(\w+?)_((?:[fiu]\d+))(?:x(\d+))?\(", function(name, dtype, lanes))
    found = dict.fromkeys((f, d, int(n or 1)) for f, d, n in calls)
    return [f for f in found if f != (name, dtype, lanes)]


def definitions(uses: Iterable[tuple[str, str, int]]) -> str:
    """The text of all functions used, each once, callees first."""
    done: dict[tuple[str, str, int], str] = {}

    def add(use: tuple[str, str, int]) -> None:
        if use in done:
            return
        for r in required(*use):
            add(r)
        done[use] = function(*use)

    for use in sorted(uses):
        add(use)
    return "\n".join(done.values())


def _by_lane(name: str, dtype: str) -> bool:
    """Whether a vector goes through libm: doubles, and floats that have no text of their own."""
    return name in ("floordiv", "mod", *BY_LANE) and f"{name}_{dtype}" not in _templates()


@cache
def _templates() -> dict[str, str]:
    """`exp_f32` -> the text of `sol_exp_f32xN` with the comment above it."""
    each = re.compile(r"(?:/\*(?:[^*]|\*(?!/))*\*/\n)?static inline .*?\n}\n", re.S)
    parts = each.findall(_SOURCE.read_text())
    return {m[1]: part for part in parts if (m := re.search(r"sol_(\w+)xN\(", part))}


@cache
def function(name: str, dtype: str, lanes: int) -> str:
    """C text of `sol_<name>_<dtype>x<lanes>` (`sol_<name>_<dtype>` for one lane).

    Errors: `KeyError` for a name that does not exist.
    """
    if name in half.NAMES:
        return half.function(name, lanes)
    t = dtype if lanes == 1 else f"{dtype}x{lanes}"
    head = f"static inline {t} sol_{name}_{t}"
    if name.startswith("h") and name[1:] in ("sum", "prod", "max", "min"):
        return _horizontal(name[1:], dtype, lanes)
    if f"{name}_{dtype}" in _templates() and not (lanes == 1 and name in _EXACT):
        return _from_template(name, dtype, lanes)
    if name.endswith("_wide") and f"{name}_f64" in _templates():
        return _through_double(name, lanes)
    if name in ("low", "high", "join", "double"):
        return _halves(name, dtype, lanes)
    if lanes > 1 and _by_lane(name, dtype):
        two = name in TWO
        args = f"{t} x, {t} y" if two else f"{t} x"
        call = f"sol_{name}_{dtype}(x[i]{', y[i]' if two else ''})"
        return f"{head}({args}) {{ for (int i = 0; i < {lanes}; i++) x[i] = {call}; return x; }}"
    if lanes == 1:
        return function_of_one(name, dtype)
    if name in ("max", "min"):
        return _extremum(name, dtype, lanes, head, t)
    if name == "relu":
        return _relu(dtype, lanes, head, t)
    if name == "abs":
        return _absolute(dtype, lanes, head, t)
    return _scalar(name, dtype, head)


def function_of_one(name: str, dtype: str) -> str:
    """C text of `sol_<name>_<dtype>`, by libm where it is no instruction."""
    head = f"static inline {dtype} sol_{name}_{dtype}"
    if name in ("max", "min"):
        return _extremum(name, dtype, 1, head, dtype)
    if name == "relu":
        return f"{head}({dtype} x) {{ return x < 0 ? 0 : x; }}"
    if name == "abs":
        return _absolute(dtype, 1, head, dtype)
    return _scalar(name, dtype, head)


def _arguments(text: str) -> list[str]:
    """The names of a template's vector arguments."""
    head = re.search(r"sol_\w+xN\((.*?)\)", text)
    return re.findall(r"xN (\w+)", head[1]) if head else []


def _from_template(name: str, dtype: str, lanes: int) -> str:
    """A function of vecmath_f32.c; fewer than four float lanes are padded with zeros."""
    key = f"{name}_{dtype}"
    text = _templates()[key]
    arguments = _arguments(text)
    if dtype == "f32" and lanes < 4:
        t = "f32" if lanes == 1 else f"f32x{lanes}"
        wide = ", ".join(
            f"(f32x4){{{', '.join([a] if lanes == 1 else [f'{a}[{i}]' for i in range(lanes)])}}}"
            for a in arguments
        )
        back = "v[0]" if lanes == 1 else f"({t}){{{', '.join(f'v[{i}]' for i in range(lanes))}}}"
        return (
            f"static inline {t} sol_{name}_{t}({', '.join(f'{t} {a}' for a in arguments)}) {{ "
            f"const f32x4 v = sol_{name}_f32x4({wide}); return {back}; }}"
        )
    return _with_instruction(key, lanes, re.sub(r"xN\b", f"x{lanes}", text))


def _with_instruction(key: str, lanes: int, text: str) -> str:
    """A function's text with its machine's instruction as another body, where there is one."""
    head, body = text.rstrip("\n").split("\n{\n", 1)
    if key in _CLANG:
        f, argument = _CLANG[key]
        head += f"\n#if defined(__clang__) && __has_builtin({f})\n{{ return {f}({argument}); }}"
    if (key, lanes) in _INSTRUCTIONS:
        macro, call = _INSTRUCTIONS[key, lanes]
        word = "elif" if key in _CLANG else "if"
        head += f"\n#{word} defined({macro}) && !defined(__clang__)\n{{ return {call}; }}"
    elif key not in _CLANG:
        return text
    return f"{head}\n#else\n{{\n{body}\n#endif\n"


def _through_double(name: str, lanes: int) -> str:
    """Calls a core in double with floats, as many at once as a register holds doubles."""
    t = f"f32x{lanes}"
    args = _arguments(_templates()[f"{name}_f64"])
    halves = ", ".join(
        f"sol_{name}_f32x{lanes // 2}({', '.join(f'sol_{h}_{t}({a})' for a in args)})"
        for h in ("low", "high")
    )
    head = f"static inline {t} sol_{name}_{t}({', '.join(f'{t} {a}' for a in args)})"
    split = f"{{ return sol_join_{t}({halves}); }}"
    wide = ", ".join(f"sol_double_{t}({a})" for a in args)
    direct = f"{{ return __builtin_convertvector(sol_{name}_f64x{lanes}({wide}), {t}); }}"
    if lanes == 2:
        return f"{head} {direct}"
    if lanes > 8:
        return f"{head} {split}"
    macro = "__AVX512F__" if lanes == 8 else "__AVX__"
    return f"{head}\n#ifdef {macro}\n{direct}\n#else\n{split}\n#endif"


def _halves(name: str, dtype: str, lanes: int) -> str:
    """A vector's lower or upper half, two halves joined, or its lanes as doubles."""
    t, h, n = f"{dtype}x{lanes}", f"{dtype}x{lanes // 2}", lanes // 2
    if name == "double":
        text = f"static inline f64x{lanes} sol_double_{t}({t} x)\n{{\n"
        text += f"  return __builtin_convertvector(x, f64x{lanes});\n}}\n"
        return _with_instruction(f"double_{dtype}", lanes, text)
    if name == "join":
        head = f"static inline {t} sol_join_{t}({h} a, {h} b)"
        lane = ", ".join(map(str, range(lanes)))
        fast = f"return __builtin_shufflevector(a, b, {lane});"
        slow = f"union {{ {h} h[2]; {t} v; }} u = {{{{a, b}}}}; return u.v;"
    else:
        first = 0 if name == "low" else n
        head = f"static inline {h} sol_{name}_{t}({t} x)"
        lane = ", ".join(map(str, range(first, first + n)))
        fast = f"return __builtin_shufflevector(x, x, {lane});"
        slow = f"union {{ {t} v; {h} h[2]; }} u = {{x}}; return u.h[{int(first > 0)}];"
    test = "#if __has_builtin(__builtin_shufflevector)"  # gcc has it from version 12
    return f"{head} {{\n{test}\n  {fast}\n#else\n  {slow}\n#endif\n}}"


def _integer(dtype: str) -> str:
    return f"i{8 * _BYTES[dtype]}"


def _extremum(name: str, dtype: str, lanes: int, head: str, t: str) -> str:
    """NaN if either argument is NaN."""
    sign = ">" if name == "max" else "<"
    if lanes == 1:
        return f"{head}({t} x, {t} y) {{ return x {sign} y || x != x ? x : y; }}"
    i = f"{_integer(dtype)}x{lanes}"
    return (
        f"{head}({t} x, {t} y) {{ const {i} m = (x {sign} y) | (x != x); "
        f"return ({t})((({i})x & m) | (({i})y & ~m)); }}"
    )


def _relu(dtype: str, lanes: int, head: str, t: str) -> str:
    """max(0, x) as x86 has it: the second operand is the result where either is NaN."""
    i = f"{_integer(dtype)}x{lanes}"
    plain = f"return ({t})(({i})x & ~(x < 0));"
    builtins = {
        ("f32", 16): (
            "__AVX512F__",
            "__builtin_ia32_maxps512_mask(({0}){{0}}, x, ({0}){{0}}, -1, 4)",
        ),
        ("f32", 8): ("__AVX__", "__builtin_ia32_maxps256(({0}){{0}}, x)"),
        ("f32", 4): ("__SSE__", "__builtin_ia32_maxps(({0}){{0}}, x)"),
    }
    if (dtype, lanes) not in builtins:
        return f"{head}({t} x) {{ {plain} }}"
    macro, call = builtins[dtype, lanes]
    fast = f"return ({t}){call.format(t)};"
    return (
        f"{head}({t} x) {{\n#if defined({macro}) && !defined(__clang__)\n  {fast}\n"
        f"#else\n  {plain}\n#endif\n}}"
    )


def _absolute(dtype: str, lanes: int, head: str, t: str) -> str:
    if dtype in ("f32", "f64"):
        if lanes == 1:
            return f"{head}({t} x) {{ return __builtin_fabs{'f' if dtype == 'f32' else ''}(x); }}"
        i = f"{_integer(dtype)}x{lanes}"
        top = "1L << 63" if dtype == "f64" else "1 << 31"
        mask = f"~(({i}){{0}} + ({_integer(dtype)})({top}))"
        return f"{head}({t} x) {{ return ({t})(({i})x & {mask}); }}"
    if lanes == 1:
        return f"{head}({t} x) {{ return x < 0 ? -x : x; }}"
    return f"{head}({t} x) {{ const {t} m = ({t})(x < 0); return (x ^ m) - m; }}"


def _horizontal(name: str, dtype: str, lanes: int) -> str:
    """Lanes combined as a tree, the upper half with the lower one each time."""
    t = f"{dtype}x{lanes}"
    step = {"sum": "x[i] + x[i + n]", "prod": "x[i] * x[i + n]"}.get(
        name, f"sol_{name}_{dtype}(x[i], x[i + n])"
    )
    return (
        f"static inline {dtype} sol_h{name}_{t}({t} x) {{\n"
        f"  for (int n = {lanes // 2}; n; n /= 2)\n    for (int i = 0; i < n; i++) x[i] = {step};\n"
        f"  return x[0];\n}}"
    )


def _scalar(name: str, dtype: str, head: str) -> str:
    f = "f" if dtype == "f32" else ""
    if name == "floordiv":
        if dtype in ("f32", "f64"):
            # as Python and torch: exact remainder first, then a quotient that fits it
            return (
                f"{head}({dtype} x, {dtype} y) {{\n  if (y == 0) return x / y;\n"
                f"  {dtype} r = __builtin_fmod{f}(x, y), q = (x - r) / y;\n"
                f"  if (r != 0 && (r < 0) != (y < 0)) q -= 1;\n"
                f"  if (q == 0) return __builtin_copysign{f}(0, x / y);\n"
                f"  {dtype} w = __builtin_floor{f}(q);\n  return q - w > 0.5{f} ? w + 1 : w;\n}}"
            )
        if dtype[0] == "u":
            return f"{head}({dtype} x, {dtype} y) {{ return y ? x / y : 0; }}"
        return (
            f"{head}({dtype} x, {dtype} y) {{\n  if (!y) return 0;\n"
            f"  if (y == -1) return -x;  /* the least integer wraps */\n  {dtype} q = x / y;\n"
            f"  return (x % y != 0 && (x < 0) != (y < 0)) ? q - 1 : q;\n}}"
        )
    if name == "mod":
        if dtype in ("f32", "f64"):
            return (
                f"{head}({dtype} x, {dtype} y) {{\n  {dtype} r = __builtin_fmod{f}(x, y);\n"
                f"  return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}}"
            )
        if dtype[0] == "u":
            return f"{head}({dtype} x, {dtype} y) {{ return y ? x % y : 0; }}"
        return (
            f"{head}({dtype} x, {dtype} y) {{\n  if (!y || y == -1) return 0;\n"
            f"  {dtype} r = x % y;\n"
            f"  return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}}"
        )
    if name == "rsqrt":
        return f"{head}({dtype} x) {{ return 1 / __builtin_sqrt{f}(x); }}"
    if name == "sigmoid":
        return f"{head}({dtype} x) {{ return 1 / (1 + __builtin_exp{f}(-x)); }}"
    if name == "round":
        return f"{head}({dtype} x) {{ return __builtin_rint{f}(x); }}"
    if name in _EXACT:
        return f"{head}({dtype} x) {{ return __builtin_{name}{f}(x); }}"
    if name in BY_LANE:  # in double, so that a float is right to its last bit
        args, values = (f"{dtype} x, {dtype} y", "x, y") if name in TWO else (f"{dtype} x", "x")
        return f"{head}({args}) {{ return __builtin_{name}({values}); }}"
    raise KeyError(f"no function {name} of {dtype}")
