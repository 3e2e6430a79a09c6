"""Errors of the float functions over all 2^32 floats, and their speed; run by hand, for minutes.

    python -m benchmarks.vecmath_exhaustive [--every 16] [--only exp,log] [--time]

The reference is the C library's double function, evaluated natively. An error is in ulp of the
exact result; where a result should be NaN, infinite or a signed zero, any other is counted as
wrong. pow runs over pairs drawn at random. `--time` prints ns per element of vectors in L1, beside
libm called lane by lane and torch's eager function on one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from functools import partial

import numpy as np
import torch

from sol_dynamo.kernels.c.vecmath import PRELUDE, definitions
from sol_dynamo.runtime import toolchain

LANES = 16
UNARY = (
    *("exp", "expm1", "sigmoid", "tanh", "erf", "log", "log1p", "log2", "log10", "sin", "cos"),
    *("tan", "sqrt", "rsqrt", "floor", "ceil", "trunc", "round"),
)
REFERENCE = {
    "sigmoid": "1 / (1 + exp(-x))",
    "rsqrt": "1 / sqrt(x)",
    "round": "rint(x)",
    "pow": "pow(x, y)",
}
LIBM = {
    "sigmoid": "1 / (1 + expf(-x))",
    "rsqrt": "1 / sqrtf(x)",
    "round": "rintf(x)",
    "pow": "powf(x, y)",
}

HEAD = """\
#include <math.h>
#include <string.h>
#define BLOCK 4096
typedef struct { double worst; unsigned x, y; long wrong; } report;

/* in ulp of the exact result as a float; subnormal floats are 2^-149 apart */
static double error(float got, double exact)
{
  if (exact != exact) return got == got ? INFINITY : 0;
  const float nearest = exact;
  if (got != got || (exact == 0 && (got != 0 || !signbit(got) != !signbit(exact)))) return INFINITY;
  if (got == nearest) { /* the usual case, cheaply */
    if (isinf(got)) return 0;
  }
  if (isinf(exact)) return got == exact ? 0 : INFINITY;
  if (fabs(exact) >= 0x1.fffffep127 && isinf(got) && (got > 0) == (exact > 0))
    return fabs(exact) >= 0x1p128 ? 0 : (0x1p128 - fabs(exact)) * 0x1p-104;
  unsigned long bits;
  memcpy(&bits, &exact, 8);
  long e = (long)(bits >> 52 & 2047) - 1023;
  e = e < -126 ? -126 : e > 127 ? 127 : e;
  bits = (unsigned long)(1023 + 23 - e) << 52;
  double scale;
  memcpy(&scale, &bits, 8);
  return fabs(got - exact) * scale;
}

/* a generator of Steele & al. (2014) */
static unsigned draw(unsigned long *state)
{
  unsigned long z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return (z ^ z >> 31) >> 32;
}
"""

EACH = """
void run_{name}(const f32 *a, const f32 *b, f32 *y)
{{
  for (long i = 0; i < BLOCK; i += {n}) *(f32x{n}u *)(y + i) = sol_{name}_f32x{n}({vectors});
}}

void libm_{name}(const f32 *a, const f32 *b, f32 *z)
{{
  for (long i = 0; i < BLOCK; i++) {{ const f32 x = a[i], y = b[i]; z[i] = {libm}; }}
}}

void check_{name}(unsigned long first, unsigned long step, long blocks, report *r)
{{
  static f32 a[BLOCK], b[BLOCK], z[BLOCK];
  unsigned long at = first;
  for (; blocks; blocks--) {{
    for (long i = 0; i < BLOCK; i++, at += step) {{
      unsigned u = at, v = 0;
      {pairs}
      memcpy(a + i, &u, 4);
      memcpy(b + i, &v, 4);
    }}
    run_{name}(a, b, z);
    for (long i = 0; i < BLOCK; i++) {{
      const double x = a[i], y = b[i], e = error(z[i], {reference});
      if (isinf(e) && r->wrong++) continue;
      if (e > r->worst) {{
        r->worst = e;
        memcpy(&r->x, a + i, 4);
        memcpy(&r->y, b + i, 4);
      }}
    }}
  }}
}}
"""
# magnitudes and powers whose result is often a finite number
PAIRS = """unsigned long state = at * 0x2545f4914f6cdd1dUL;
      u = draw(&state);
      v = draw(&state);
      if (v & 1) u = 0x3f800000u + (int)(u << 1) / (1 << (v >> 1 & 15));
      if (v & 32) v = (v & 0x80000000u) | (0x3a000000u + (v & 0x7fffffffu) % 0x0a000000u);
      if ((v & 192) == 192) { const f32 k = (int)(v >> 8 & 127) - 64; memcpy(&v, &k, 4); }"""


class Report(ctypes.Structure):
    _fields_ = [
        ("worst", ctypes.c_double),
        ("x", ctypes.c_uint32),
        ("y", ctypes.c_uint32),
        ("wrong", ctypes.c_long),
    ]


def build(names: list[str]) -> ctypes.CDLL:
    sources = {}
    for name in names:
        arguments = "ab" if name == "pow" else "a"
        text = EACH.format(
            name=name,
            n=LANES,
            vectors=", ".join(f"*(f32x{LANES}u *)({p} + i)" for p in arguments),
            libm=LIBM.get(name, f"{name}f(x)"),
            reference=REFERENCE.get(name, f"{name}(x)"),
            pairs=PAIRS if name == "pow" else "",
        )
        uses = [(name, "f32", LANES)]
        sources[f"{name}.c"] = "\n".join((HEAD, PRELUDE((2, 4, 8, 16)), definitions(uses), text))
    return ctypes.CDLL(str(toolchain.compile_shared(sources)))


def show_errors(library: ctypes.CDLL, names: list[str], every: int) -> None:
    print(f"{'function':9} {'max ulp':>8}  {'at':24} wrong   (every {every}th of 2^32 floats)")
    for name in names:
        check = library[f"check_{name}"]
        check.argtypes = (ctypes.c_ulong, ctypes.c_ulong, ctypes.c_long, ctypes.POINTER(Report))
        r, blocks = Report(), (1 << 32) // 4096 // every
        check(every // 2, every, blocks, ctypes.byref(r))
        at = np.array([r.x, r.y][: 1 + (name == "pow")], np.uint32).view(np.float32)
        where = ", ".join(float(v).hex() for v in at)
        print(f"{name:9} {r.worst:8.4f}  {where:24} {r.wrong}", flush=True)


def show_times(library: ctypes.CDLL, names: list[str]) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    print(f"{'function':9} {'ours':>7} {'libm':>7} {'eager':>7}  ns per element, 4096 in L1")
    for name in names:
        positive = name in ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "pow")
        a = random.uniform(0.01 if positive else -8, 8, 4096).astype(np.float32)
        b = random.uniform(-4, 4, 4096).astype(np.float32)
        y = np.empty_like(a)
        pointers = [ctypes.c_void_p(v.ctypes.data) for v in (a, b, y)]
        tensors = [torch.from_numpy(v) for v in (a, b)[: 1 + (name == "pow")]]
        eager = partial(getattr(torch, name), *tensors, out=torch.from_numpy(y))
        calls = (partial(library[f"{who}_{name}"], *pointers) for who in ("run", "libm"))
        each = [seconds(call) for call in (*calls, eager)]
        print(f"{name:9} " + " ".join(f"{1e9 * s / 4096:7.3f}" for s in each), flush=True)


def seconds(call) -> float:
    """The shortest of many."""
    best = 1.0
    for _ in range(300):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--every", type=int, default=1, help="every so manieth float (default: all)"
    )
    parser.add_argument("--only", help="functions, separated by commas")
    parser.add_argument("--time", action="store_true", help="speed instead of errors")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [*UNARY, "pow"]
    library = build(names)
    if options.time:
        show_times(library, names)
    else:
        show_errors(library, names, options.every)


if __name__ == "__main__":
    main()
