"""What emitted kernels call beyond `triton.language`: combining functions and exact arithmetic.

Everything is IEEE: Triton's own division, square root and exponential of float32 are approximations
unless their names say otherwise, so that emitted text uses those of here.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice as _by_backend

from .launch import interpreting

if interpreting():
    from .interpreted import libdevice_of_interpreter

    libdevice = libdevice_of_interpreter()
else:
    libdevice = _by_backend

ALL = tl.PropagateNan.ALL


# -- monoids: one step of each ---------------------------------------------------------------


@triton.jit
def combine_sum(a, b):
    return a + b


@triton.jit
def combine_prod(a, b):
    return a * b


@triton.jit
def combine_max(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def combine_min(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def combine_any(a, b):
    return a | b


@triton.jit
def combine_all(a, b):
    return a & b


@triton.jit
def combine_argmax(x, i, y, j):
    """(value, position): the lowest position wins a tie, NaN wins over numbers."""
    first = j < i
    nan = (y != y) & ((x == x) | first)
    take = nan | ((x == x) & ((y > x) | ((x == y) & first)))
    return tl.where(take, y, x), tl.where(take, j, i)


@triton.jit
def combine_argmin(x, i, y, j):
    first = j < i
    nan = (y != y) & ((x == x) | first)
    take = nan | ((x == x) & ((y < x) | ((x == y) & first)))
    return tl.where(take, y, x), tl.where(take, j, i)


# -- arithmetic ------------------------------------------------------------------------------


@triton.jit
def floordiv_int(a, b):
    """Rounded down; Triton's own rounds towards zero."""
    q = a // b
    r = a - q * b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1, q)


@triton.jit
def mod_int(a, b):
    """The remainder with the divisor's sign."""
    r = a - a // b * b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


@triton.jit
def mod_float(a, b):
    r = libdevice.fmod(a, b)
    return tl.where((r != 0) & ((b < 0) != (r < 0)), r + b, r)


@triton.jit
def floordiv_float(a, b):
    """The floor of the exact quotient, as torch divides."""
    r = libdevice.fmod(a, b)
    q = quotient(a - r, b)
    q = tl.where((r != 0) & ((b < 0) != (r < 0)), q - 1, q)
    near = libdevice.floor(q)
    near = tl.where(q - near > 0.5, near + 1, near)
    signed_zero = quotient(a, b) * 0.0
    near = tl.where(q != 0, near, signed_zero)
    return tl.where(b == 0, quotient(a, b), near)


@triton.jit
def wait(behind: tl.constexpr):
    """Until the kernel before is done and what it wrote is there, where this one may be `behind`
    it: started earlier. All programs of all kernels wait, so that what the kernels before that one
    wrote is there, too."""
    if behind:
        asm: tl.constexpr = "griddepcontrol.wait; // $0"
        tl.inline_asm_elementwise(asm, "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def release(behind: tl.constexpr):
    """Once all programs are here, or ended, the next kernel's may start and come up to their
    `wait`. Late: programs that start while others have much to do share the free
    multiprocessors, not all of them."""
    if behind:
        asm: tl.constexpr = "griddepcontrol.launch_dependents; // $0"
        tl.inline_asm_elementwise(asm, "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def tf32(a):
    """Rounded to what a TF32 unit reads, to nearest; a `tl.dot` alone would truncate."""
    asm: tl.constexpr = "cvt.rna.tf32.f32 $0, $1;"
    return tl.inline_asm_elementwise(asm, "=r,r", [a], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def quotient(a, b):
    """Correctly rounded."""
    if a.dtype.is_fp64():
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def root(a):
    """The square root, correctly rounded."""
    if a.dtype.is_fp64():
        return libdevice.sqrt(a)
    else:
        return tl.sqrt_rn(a)


@triton.jit
def sigmoid(a):
    return quotient(tl.full((), 1, a.dtype), 1 + libdevice.exp(-a))


@triton.jit
def rsqrt(a):
    return quotient(tl.full((), 1, a.dtype), root(a))
