"""float16 and bfloat16 in generated C: 16 bits in memory, float32 in registers.

Conversions are integer operations on GNU vectors, one text for every lane count, so that any
compiler for any machine has them. Rounding is to nearest, ties to even; NaN stays NaN (quiet), and
overflow is infinity. Knows nothing of the IR.
"""

from __future__ import annotations

# over: x the argument, u/f/h the types of as many u32, f32 and u16; TO(type, value) converts each
# lane, MASK(condition) is all ones where it holds, BITS(declared, value) copies a bit pattern
_BODIES = {
    "widen_bf16": """\
  const {u} w = TO({u}, x) << 16;
  BITS({f} y, w)
  return y;
""",
    "narrow_bf16": """\
  BITS({u} b, x)
  const {u} nan = MASK(x != x), r = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return TO({h}, (nan & 0x7fc0u) | (r & ~nan));
""",
    "widen_f16": """\
  const {u} w = TO({u}, x), e = w & 0x7fffu, tiny = MASK(e < 0x400u);
  const {u} n = ((e << 13) + 0x38000000u) | (MASK(e > 0x7bffu) & 0x7f800000u);
  const {f} t = TO({f}, ({i})e) * 0x1p-24f;
  BITS({u} s, t)
  const {u} r = ((w & 0x8000u) << 16) | (tiny & s) | (n & ~tiny);
  BITS({f} y, r)
  return y;
""",
    "narrow_f16": """\
  BITS({u} b, x)
  const {u} a = b & 0x7fffffffu, tiny = MASK(a < 0x38800000u), big = MASK(a > 0x477fffffu);
  const {u} n = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
  BITS({f} t, a)
  t = t + 0.5f;
  BITS({u} s, t)
  const {u} m = (tiny & (s - 0x3f000000u)) | (n & ~tiny);
  const {u} over = (MASK(a > 0x7f800000u) & 0x200u) | 0x7c00u;
  return TO({h}, ((b >> 16) & 0x8000u) | (big & over) | (m & ~big));
""",
}
NAMES = frozenset(_BODIES)


def function(name: str, lanes: int) -> str:
    """C text of `sol_<name>_f32` or `sol_<name>_f32x<lanes>` for a name of NAMES."""
    x = "" if lanes == 1 else f"x{lanes}"
    f, u, h, i = (f"{t}{x}" for t in ("f32", "u32", "u16", "i32"))
    to = "({0})({1})" if lanes == 1 else "__builtin_convertvector({1}, {0})"
    mask = "(0u - (u32)({0}))" if lanes == 1 else f"(({u})({{0}}))"
    bits = "{0} {1}; __builtin_memcpy(&{1}, &{2}, sizeof {1});"
    text = _BODIES[name].format(f=f, u=u, h=h, i=i)
    for macro, template in (("MASK", mask), ("TO", to), ("BITS", bits)):
        text = _expanded(text, macro, template)
    result, argument = (f, h) if name.startswith("widen") else (h, f)
    return f"static inline {result} sol_{name}_{f}({argument} x) {{\n{text}}}"


def _expanded(text: str, macro: str, template: str) -> str:
    """Each `macro(arguments)` as its template says."""
    while (start := text.find(macro + "(")) >= 0:
        end, depth = start + len(macro), 1
        while depth:
            end += 1
            depth += {"(": 1, ")": -1}.get(text[end], 0)
        inside = text[start + len(macro) + 1 : end]
        head, _, rest = inside.partition(", ")
        args = [*head.split(" "), rest] if macro == "BITS" else [head, rest]
        args = [inside] if macro == "MASK" else args
        text = text[:start] + template.format(*args) + text[end + 1 :]
    return text
