"""Math functions for generated C: GNU vector types, and one function text for every lane count.

Cheap operations (min, max, relu, selects) are vector code; transcendental functions go lane by
lane through libm's float functions, which are within 1 ulp. Lanes and scalars share one body,
so that a vector's tail has the same bits. Knows nothing of the IR.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import half

_C = {
    "f32": "float", "f64": "double", "i64": "long", "i32": "int", "i16": "short",
    "i8": "signed char", "u64": "unsigned long", "u32": "unsigned", "u16": "unsigned short",
    "u8": "unsigned char",
}  # fmt: skip
_BYTES = {"f32": 4, "f64": 8} | {k: int(k[1:]) // 8 for k in _C if k[0] in "iu"}
_LIBM = frozenset(
    [
        *("exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "tanh", "erf"),
        *("pow", "floor", "ceil", "trunc", "sqrt", "rint"),
    ]
)


def PRELUDE(widths: Iterable[int]) -> str:
    """Typedefs: `f32`, `f32x16` and, for unaligned memory, `f32x16u`, for every dtype and width."""
    lines = [f"typedef {c} {d};" for d, c in _C.items()]
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
    if name.startswith("h") and name[1:] in ("max", "min"):
        return [(name[1:], dtype, 1)]
    if lanes > 1 and _by_lane(name, dtype):
        return [(name, dtype, 1)]
    return []


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
    if name in ("floordiv", "mod"):
        return True
    if dtype not in ("f32", "f64"):
        return False
    return name in _LIBM | {"round", "sigmoid", "rsqrt"}


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
    if lanes > 1 and _by_lane(name, dtype):
        two = name in ("pow", "floordiv", "mod")
        args = f"{t} x, {t} y" if two else f"{t} x"
        call = f"sol_{name}_{dtype}(x[i]{', y[i]' if two else ''})"
        return f"{head}({args}) {{ for (int i = 0; i < {lanes}; i++) x[i] = {call}; return x; }}"
    if name in ("max", "min"):
        return _extremum(name, dtype, lanes, head, t)
    if name == "relu":
        if lanes == 1:
            return f"{head}({t} x) {{ return x < 0 ? 0 : x; }}"
        return _relu(dtype, lanes, head, t)
    if name == "abs":
        return _absolute(dtype, lanes, head, t)
    return _scalar(name, dtype, head)


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
            f"{head}({dtype} x, {dtype} y) {{\n  if (!y) return 0;\n  {dtype} q = x / y;\n"
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
            f"{head}({dtype} x, {dtype} y) {{\n  if (!y) return 0;\n  {dtype} r = x % y;\n"
            f"  return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}}"
        )
    if name == "rsqrt":
        return f"{head}({dtype} x) {{ return 1 / __builtin_sqrt{f}(x); }}"
    if name == "sigmoid":
        return f"{head}({dtype} x) {{ return 1 / (1 + __builtin_exp{f}(-x)); }}"
    if name == "round":
        return f"{head}({dtype} x) {{ return __builtin_rint{f}(x); }}"
    if name == "pow":
        return f"{head}({dtype} x, {dtype} y) {{ return __builtin_pow{f}(x, y); }}"
    if name in _LIBM:
        return f"{head}({dtype} x) {{ return __builtin_{name}{f}(x); }}"
    raise KeyError(f"no function {name} of {dtype}")
