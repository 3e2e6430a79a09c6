"""The numpy interpreter of the loop IR: its living definition.

What `run` gives is what a program means; every schedule on every target must give the same, up to
the rounding of sums (which may associate in any way). Written for clarity: each nest is evaluated
over its whole iteration space at once, one broadcast array per expression. It must know nothing of
schedules, arenas or targets; memory that nobody wrote is poison (NaN, or a byte pattern).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf, prod
from typing import Any

import numpy as np
import torch

from .affine import FloorDiv, Index, Size
from .ir import (
    DTYPES,
    FOREIGN,
    MONOIDS,
    Bind,
    Buffer,
    Const,
    Expr,
    Extern,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Store,
    filled,
    show,
    walk,
)

Array = np.ndarray
Env = dict[str, Any]  # symbol -> its values, one dimension per axis of the nest
Values = tuple[Array, ...]

LIMIT = 1 << 22  # points evaluated at once: 32 MB a value in float64
_POISON = 0xA5
_NUMPY: dict[str, Any] = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": np.float32,
    "i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8,
    "u64": np.uint64, "u32": np.uint32, "u16": np.uint16, "u8": np.uint8, "bool": np.bool_,
}  # fmt: skip


class BoundsError(Exception):
    """A load or store outside its buffer that no mask guards: an invalid program."""


def run(program: Program, inputs: Sequence[Array], wide: bool = False) -> list[Any]:
    """The outputs of a program for arrays in the order of `Program.inputs`, inputs and weights.

    Arrays have the buffers' logical shapes; bf16 comes and goes as float32. `wide` keeps every
    float in float64, for references. Errors: `ValueError` for inputs of other shapes, `IndexError`
    where a `Bind` is out of range as in eager, `BoundsError` for an invalid program.
    """
    machine = execute(program, inputs, wide)
    return [None if name is None else machine.value(name) for name in program.outputs]


def execute(program: Program, inputs: Sequence[Array], wide: bool = False) -> Machine:
    """As `run`, but gives the machine, in which every buffer (but locals) can be looked at."""
    machine = Machine(program, wide)
    with np.errstate(all="ignore"):
        machine.set_inputs(inputs)
        for nest in program.packs:
            machine.run_nest(nest, f"pack {nest.name}")
        machine.run_kernels()
    return machine


class Machine:
    """Memory, one flat array per base buffer, and what is known about symbolic sizes."""

    def __init__(self, program: Program, wide: bool = False):
        self.program, self.wide = program, wide
        self.memory: dict[str, Array] = {}
        self.foreign: dict[str, Any] = {}  # values that only calls outside touch
        self.sizes: dict[str, int] = {}
        self.chunk = 0  # of the depth-first band that runs
        self.place = ""  # what runs, for errors

    # -- sizes, dtypes and memory --------------------------------------------------------------

    def size(self, s: Size) -> int:
        if isinstance(s, (int, np.integer)):
            return int(s)
        return int(s.subs({v: self.sizes[str(v)] for v in s.free_symbols}))

    def bind_sizes(self, shape: Sequence[Size], actual: Sequence[int]) -> None:
        """Learn the values of symbols that are dimensions by themselves."""
        for s, n in zip(shape, actual, strict=True):
            if not isinstance(s, int) and s.is_symbol:
                self.sizes.setdefault(str(s), int(n))

    def numpy(self, dtype: str) -> Any:
        return np.float64 if self.wide and DTYPES[dtype][1] == "f" else _NUMPY[dtype]

    def rounded(self, x: Array, dtype: str) -> Array:
        """x converted to a dtype as C converts, held in the numpy type that stands for it."""
        if dtype == "bool":
            return x if x.dtype == np.bool_ else x != 0
        x = x.astype(self.numpy(dtype), copy=False)
        return _bf16(x) if dtype == "bf16" and not self.wide else x

    def constant(self, value: float | int | bool | None, dtype: str) -> Array:
        """A literal; infinities of integers are their least and greatest values."""
        if isinstance(value, float) and abs(value) == inf and DTYPES[dtype][1] in "iu":
            limits = np.iinfo(_NUMPY[dtype])
            value = int(limits.max if value > 0 else limits.min)
        return self.rounded(np.array(0 if value is None else value), dtype)

    def layout(self, b: Buffer) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Shape, strides and offset in elements. A local buffer is laid out by its schedule; here
        it is contiguous."""
        shape = tuple(map(self.size, b.shape))
        base = self.program.base(b.name)
        if base.scope == "local" and b is base:
            return shape, tuple(prod(shape[d + 1 :]) for d in range(len(shape))), 0
        step = self.program.chunked.get(base.name, 0) // DTYPES[base.dtype][0]
        return shape, tuple(map(self.size, b.strides)), self.size(b.offset) + self.chunk * step

    def flat(self, b: Buffer) -> Array:
        """The memory under a buffer, poisoned when it is first asked for."""
        base = self.program.base(b.name)
        if base.name not in self.memory:
            shape, strides, offset = self.layout(base)
            span = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
            n = offset + (span if 0 not in shape else 0)
            dtype = np.dtype(self.numpy(base.dtype))
            poison = np.full(n * dtype.itemsize, _POISON, np.uint8).view(dtype)
            kind = DTYPES[base.dtype][1]
            self.memory[base.name] = (
                poison if kind in "iu" else np.full(n, np.nan if kind == "f" else 1, dtype)
            )
        return self.memory[base.name]

    def elements(self, name: str) -> Array:
        """A buffer's memory in its logical shape."""
        b = self.program.buffers[name]
        flat, (shape, strides, offset) = self.flat(b), self.layout(b)
        steps = tuple(s * flat.itemsize for s in strides)
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps)

    def value(self, name: str) -> Array:
        return np.array(self.elements(name))

    def set_inputs(self, inputs: Sequence[Array]) -> None:
        for name, given in zip(self.program.inputs, inputs, strict=True):
            b = self.program.buffers[name]
            if b.dtype == FOREIGN:
                self.foreign[name] = given
                continue
            array = np.asarray(given)
            if len(b.shape) == array.ndim:
                self.bind_sizes(b.shape, array.shape)
            if tuple(map(self.size, b.shape)) != array.shape:
                raise ValueError(f"input {name} has shape {array.shape}; expected {b.shape}")
            self.elements(name)[...] = self.rounded(array, b.dtype)

    # -- kernels and calls ---------------------------------------------------------------------

    def run_kernels(self) -> None:
        bands = {d.first: d for d in self.program.depth_first}
        k = 0
        while k < len(self.program.kernels):
            band = bands.get(k)
            last = band.last if band else k + 1
            for self.chunk in range(band.trips if band else 1):
                for step in self.program.kernels[k:last]:
                    self.call(step) if isinstance(step, Extern) else self.run_kernel(step)
            self.chunk, k = 0, last

    def run_kernel(self, kernel: Kernel) -> None:
        for nest in kernel.body:
            self.run_nest(nest, f"kernel {kernel.name}, nest {nest.name}")
        for name in [n for n in self.memory if self.program.buffers[n].scope == "local"]:
            del self.memory[name]

    def call(self, k: Extern) -> None:
        with torch.no_grad():
            args, kwargs = filled((k.args, dict(k.kwargs)), self.argument)
            result = k.op(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        for name, t in zip(k.outs, results, strict=True):
            if not name:
                continue
            b = self.program.buffers[name]
            if b.dtype == FOREIGN:
                self.foreign[name] = t
            elif isinstance(t, torch.Tensor):
                self.bind_sizes(b.shape, t.shape)
                t = t.float() if t.dtype == torch.bfloat16 else t
                self.elements(name)[...] = self.rounded(t.detach().numpy(), b.dtype)

    def argument(self, name: str) -> Any:
        """A buffer as a tensor that views our memory (a copy for bf16)."""
        b = self.program.buffers[name]
        if b.dtype == FOREIGN:
            return self.foreign[name]
        t = torch.from_numpy(self.flat(b)).as_strided(*self.layout(b))
        return t.to(torch.bfloat16) if b.dtype == "bf16" and not self.wide else t

    # -- nests ---------------------------------------------------------------------------------

    def run_nest(self, nest: Loops, place: str) -> None:
        self.place = place
        splits = [k for k, a in enumerate(nest.axes) if a.kind == "parallel"]
        for box in _boxes([range(self.size(a.extent)) for a in nest.axes], splits):
            self.run_box(nest, box)

    def run_box(self, nest: Loops, box: list[range]) -> None:
        space = tuple(map(len, box))
        env: Env = dict(self.sizes)
        for k, (a, r) in enumerate(zip(nest.axes, box, strict=True)):
            along = [1] * k + [len(r)] + [1] * (len(box) - k - 1)
            env[a.symbol] = np.arange(r.start, r.stop).reshape(along)
        known: dict[int, Array] = {}
        if 0 not in space:
            for b in nest.binds:
                env[b.symbol] = _wrapped(b, self.evaluate(b.value, env, known), self.size(b.bound))
        for s in nest.stores:
            points = space
            if s.reduce is not None:
                points = tuple(
                    1 if a.kind == "reduce" else n for a, n in zip(nest.axes, space, strict=True)
                )
            if 0 in points:
                continue
            if s.reduce is not None:
                values = self.reduced(nest, s, space, env, known)
            else:
                values = tuple(self.evaluate(v, env, known) for v in s.values)
            self.store(s, values, points, env)

    def store(self, s: Store, values: Values, points: tuple[int, ...], env: Env) -> None:
        mask = self.mask(s.mask, env)
        for name, value in zip(s.buffers, values, strict=True):
            b = self.program.buffers[name]
            address = np.broadcast_to(self.address(b, s.index, mask, env), points)
            value = np.broadcast_to(self.rounded(value, b.dtype), points)
            if mask is not None:
                where = np.broadcast_to(mask, points)
                address, value = address[where], value[where]
            self.flat(b)[address] = value

    def at(self, index: Index, env: Env) -> Array:
        """An index's values."""
        total: Any = self.size(index.const)
        for atom, c in index.terms:
            if isinstance(atom, str):
                v = env[atom]
            else:
                n, d = self.at(atom.numerator, env), self.size(atom.divisor)
                v = n // d if isinstance(atom, FloorDiv) else n % d
            total = total + v * self.size(c)
        return np.asarray(total)

    def mask(self, mask: tuple[Index, ...], env: Env) -> Array | None:
        """Where every index is >= 0; None: everywhere."""
        held: Any = None
        for m in mask:
            this = self.at(m, env) >= 0
            held = this if held is None else held & this
        return held

    def address(self, b: Buffer, index: tuple[Index, ...], mask: Array | None, env: Env) -> Array:
        shape, strides, total = self.layout(b)
        address: Any = total
        for d, (i, n, s) in enumerate(zip(index, shape, strides, strict=True)):
            position = self.at(i, env)
            bad = (position < 0) | (position >= n)
            bad = bad if mask is None else bad & mask
            if bad.any():
                wrong = np.broadcast_to(position, bad.shape)[bad][0]
                text = f"{b.name}[{', '.join(map(str, index))}]"
                raise BoundsError(f"{self.place}: {text}: index {d} is {wrong}, not in 0..{n - 1}")
            address = address + position * s
        return np.asarray(address)

    # -- expressions ---------------------------------------------------------------------------

    def evaluate(self, root: Expr, env: Env, known: dict[int, Array]) -> Array:
        for e in walk(root):
            if id(e) not in known:
                known[id(e)] = self.evaluate_one(e, env, known)
        return known[id(root)]

    def evaluate_one(self, e: Expr, env: Env, known: dict[int, Array]) -> Array:
        if isinstance(e, Const):
            return self.constant(e.value, e.dtype)
        if isinstance(e, Iota):
            return self.rounded(self.at(e.index, env), e.dtype)
        if isinstance(e, Load):
            return self.load(e, env)
        if not isinstance(e, Op):
            raise TypeError(f"{self.place}: no meaning for {show(e)}")
        args = [known[id(a)] for a in e.args]
        if e.name in FUNCTIONS:  # in float64, rounded once
            args = [a.astype(np.float64, copy=False) for a in args]
            return self.rounded(np.asarray(FUNCTIONS[e.name](*args)), e.dtype)
        return self.rounded(np.asarray(OPERATIONS[e.name](*args)), e.dtype)

    def load(self, e: Load, env: Env) -> Array:
        b = self.program.buffers[e.buffer]
        mask = self.mask(e.mask, env)
        address, flat = self.address(b, e.index, mask, env), self.flat(b)
        if mask is None:
            return flat[address]
        other = self.constant(e.other, e.dtype)
        if not mask.any():
            return np.broadcast_to(other, np.broadcast_shapes(mask.shape, address.shape))
        return np.where(mask, flat[np.where(mask, address, 0)], other)

    # -- reductions ----------------------------------------------------------------------------

    def reduced(self, nest: Loops, s: Store, space: tuple[int, ...], env: Env, known) -> Values:
        """The values of a reduce store: reduce axes become 1, a scan axis holds running values."""
        assert s.reduce is not None
        name, init = s.reduce.monoid, s.reduce.init
        second = s.values[-1].dtype if name in ("argmax", "argmin") else s.reduce.acc_dtype
        dtypes = (s.reduce.acc_dtype, second, second)[: len(s.values)]

        def combine(a: Values, b: Values) -> Values:
            return self.all_rounded(COMBINE[name](a, b), dtypes)

        axes = tuple(k for k, a in enumerate(nest.axes) if a.kind == "reduce")
        scans = [k for k, a in enumerate(nest.axes) if a.kind == "scan"]
        if 0 in space:
            identity = MONOIDS[name].identity
            points = tuple(1 if k in axes else n for k, n in enumerate(space))
            total = tuple(
                np.full(points, self.constant(float(v), t))
                for v, t in zip(identity, dtypes, strict=True)
            )
        else:
            values = self.all_rounded([self.evaluate(v, env, known) for v in s.values], dtypes)
            total = tuple(np.broadcast_to(v, space) for v in values)
            if axes:
                total = _tree(combine, tuple(_leading(v, axes) for v in total))
                total = tuple(np.expand_dims(v, axes) for v in total)
        start: Values | None = None
        if init is not None:
            start = self.all_rounded([self.evaluate(v, env, known) for v in init], dtypes)
        if not scans:
            return total if start is None else combine(start, total)
        (scan,) = scans
        running = []
        for t in range(space[scan]):
            point = tuple(np.take(v, [t], scan) for v in total)
            start = point if start is None else combine(start, point)
            running.append(start)
        return tuple(np.concatenate(v, scan) for v in zip(*running, strict=True))

    def all_rounded(self, values: Sequence[Array], dtypes: Sequence[str]) -> Values:
        return tuple(self.rounded(v, t) for v, t in zip(values, dtypes, strict=True))


# -- monoids ---------------------------------------------------------------------------------

Combine = Callable[[Values, Values], Values]


def _arg(better: Callable[[Array, Array], Array]) -> Combine:
    def combine(a: Values, b: Values) -> Values:
        (x, i), (y, j) = a, b
        first = j < i
        nan = np.isnan(y) & (~np.isnan(x) | first)
        take = nan | (~np.isnan(x) & (better(y, x) | ((x == y) & first)))
        return np.where(take, y, x), np.where(take, j, i)

    return combine


def _welford(a: Values, b: Values) -> Values:
    (m, mean_a, m2_a), (n, mean_b, m2_b) = a, b
    count = m + n
    delta = mean_b - mean_a
    part = np.where(count == 0, 0, n / count)
    return count, mean_a + delta * part, m2_a + m2_b + delta * delta * m * part


def _online(a: Values, b: Values) -> Values:
    """(m, l) or (m, l, o). What was relative to -inf is empty; a row that is all -inf ends with
    l = 0 and so divides to NaN, as eager's softmax."""
    m = np.maximum(a[0], b[0])
    scale_a, scale_b = (np.where(x == -inf, 0, np.exp(x - m)) for x in (a[0], b[0]))
    return (m, *(x * scale_a + y * scale_b for x, y in zip(a[1:], b[1:], strict=True)))


def _each(f: Callable[[Array, Array], Array]) -> Combine:
    return lambda a, b: (f(a[0], b[0]),)


COMBINE: dict[str, Combine] = {
    "sum": _each(np.add), "prod": _each(np.multiply), "max": _each(np.maximum),
    "min": _each(np.minimum), "any": _each(np.logical_or), "all": _each(np.logical_and),
    "argmax": _arg(np.greater), "argmin": _arg(np.less), "welford": _welford,
    "softmax": _online, "attention": _online,
}  # fmt: skip


def _tree(combine: Combine, values: Values) -> Values:
    """All points along dimension 0 combined, pairwise: the error of a sum grows with log n."""
    while (n := len(values[0])) > 1:
        half = n // 2
        pairs = combine(tuple(v[:half] for v in values), tuple(v[half : 2 * half] for v in values))
        odd = tuple(v[2 * half :] for v in values)
        values = tuple(np.concatenate(p) for p in zip(pairs, odd, strict=True)) if n % 2 else pairs
    return tuple(v[0] for v in values)


def _leading(x: Array, axes: tuple[int, ...]) -> Array:
    """x with some dimensions flattened into dimension 0."""
    x = np.moveaxis(x, axes, range(len(axes)))
    return x.reshape(-1, *x.shape[len(axes) :])


# -- operations ------------------------------------------------------------------------------


def _mod(a: Array, b: Array) -> Array:
    """The remainder that has the divisor's sign; torch keeps the dividend's zero."""
    if a.dtype.kind != "f":
        return np.remainder(a, b)
    r = np.fmod(a, b)
    return np.where((r != 0) & ((b < 0) != (r < 0)), r + b, r)


def _tf32(x: Array) -> Array:
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isnan(x), x, rounded.view(np.float32))


def _by_torch(f: Callable[[torch.Tensor], torch.Tensor], x: Array) -> Array:
    """A function that numpy does not have."""
    return f(torch.from_numpy(np.array(x))).numpy()


OPERATIONS: dict[str, Callable[..., Any]] = {  # in the dtype of their arguments
    "neg": np.negative, "abs": np.abs, "not": np.invert, "cast": lambda x: x, "add": np.add,
    "sub": np.subtract, "mul": np.multiply, "div": np.divide, "floordiv": np.floor_divide,
    "mod": _mod, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "shl": np.left_shift, "shr": np.right_shift,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "where": np.where, "isnan": np.isnan, "sqrt": np.sqrt, "floor": np.floor,
    "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "signbit": np.signbit, "fmod": np.fmod,
    "tf32": _tf32,
}  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Any]] = {  # in float64
    "rsqrt": lambda x: 1 / np.sqrt(x), "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "log2": np.log2, "log10": np.log10, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "pow": np.power,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "exp2": np.exp2,
    "atan2": np.arctan2, "hypot": np.hypot, "erf": lambda x: _by_torch(torch.erf, x),
    "erfc": lambda x: _by_torch(torch.erfc, x), "lgamma": lambda x: _by_torch(torch.lgamma, x),
}  # fmt: skip


def _bf16(x: Array) -> Array:
    """float32 rounded to bfloat16, half to even, held in float32."""
    bits = x.view(np.uint32)
    even = (bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, even.view(np.float32))


def _wrapped(b: Bind, value: Array, bound: int) -> Array:
    bad = (value < -bound) | (value >= bound)
    if bad.any():
        default = f"index {value[bad][0]} is out of bounds for dimension with size {bound}"
        raise IndexError(b.error or default)
    return np.where(value < 0, value + bound, value).astype(np.int64)


def _boxes(box: list[range], splits: list[int]) -> Iterator[list[range]]:
    """The iteration space in parts of at most LIMIT points, cut along axes that may be cut."""
    widest = max(splits, key=lambda k: len(box[k]), default=None)
    if prod(map(len, box)) <= LIMIT or widest is None or len(box[widest]) < 2:
        yield box
        return
    r = box[widest]
    for half in (r[: len(r) // 2], r[len(r) // 2 :]):
        yield from _boxes([*box[:widest], half, *box[widest + 1 :]], splits)
