"""The loop IR: what is computed (buffers, expressions, loops) and, apart from it, how (schedules).

A `Program` is a list of kernels over named buffers. A `Kernel` is a tuple of loop nests; each
nest says WHAT is stored where, for which values of its axes; a `Schedule` says HOW it is walked.
No legal schedule changes the meaning: `interp.py` ignores schedules, and `spec.py` says what is
valid. The IR knows no device, no torch and no C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from math import inf, prod
from typing import Any, NamedTuple, TypeGuard

from .affine import Index, Interned, Size

# dtype -> (bytes, kind); kinds: f float, i signed, u unsigned, b bool (stored as one byte, 0 or 1)
DTYPES = {
    "f64": (8, "f"), "f32": (4, "f"), "f16": (2, "f"), "bf16": (2, "f"),
    "i64": (8, "i"), "i32": (4, "i"), "i16": (2, "i"), "i8": (1, "i"),
    "u64": (8, "u"), "u32": (4, "u"), "u16": (2, "u"), "u8": (1, "u"), "bool": (1, "b"),
}  # fmt: skip
HALVES = ("f16", "bf16")  # 16 bits in memory, computed in float32
# weight: constant per weight set; extern: memory that a call outside allocates; saved: returned as
# an output is, but by all accounts freed together with the others, as what backward needs is
SCOPES = ("input", "weight", "output", "saved", "arena", "local", "extern")
AXIS_KINDS = ("parallel", "reduce", "scan")
# the dtype of a value that only calls outside touch: complex and sparse tensors, tensors of another
# device or with sizes that are data, numbers, modules. Its shape is ()
FOREIGN = "foreign"


@dataclass(frozen=True)
class Buffer:
    """Memory, or a view of it: (i, j) is element offset + i*strides[0] + j*strides[1] of base."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]  # in elements
    offset: Size = 0  # in elements, from the start of `base`
    base: str | None = None  # None: this buffer is memory of its own
    scope: str = "arena"

    @property
    def numel(self) -> Size:
        return prod(self.shape)

    def address(self, index: tuple[Index, ...]) -> Index:
        """The element's distance from the start of the base."""
        return sum((i * s for i, s in zip(index, self.strides, strict=True)), Index.of(self.offset))


@dataclass(frozen=True)
class Axis:
    """One loop: 0 <= symbol < extent. `parallel`: any order; `reduce`: combined by the stores'
    monoid, in any association; `scan`: in ascending order, each store sees the running value."""

    symbol: str
    extent: Size
    kind: str = "parallel"


class Expr(Interned):
    """A pure scalar expression; hash-consed, so that equal sub-expressions are one object."""

    __slots__ = ()
    dtype: str


class Load(Expr):
    """buffer[index] where every index of `mask` is >= 0, else `other` (nothing is read then)."""

    __slots__ = ("buffer", "index", "dtype", "mask", "other")
    buffer: str
    index: tuple[Index, ...]
    mask: tuple[Index, ...]
    other: float | int | bool | None

    def __new__(cls, buffer, index, dtype, mask=(), other=None):
        other = None if not mask else other
        key = (buffer, index, dtype, mask, _exact(other))
        return cls._intern(key, buffer=buffer, index=index, dtype=dtype, mask=mask, other=other)

    def __reduce__(self):
        return Load, (self.buffer, self.index, self.dtype, self.mask, self.other)


class Const(Expr):
    __slots__ = ("value", "dtype")
    value: float | int | bool

    def __new__(cls, value, dtype):
        return cls._intern((_exact(value), dtype), value=value, dtype=dtype)

    def __reduce__(self):
        return Const, (self.value, self.dtype)


class Iota(Expr):
    """An index as a value."""

    __slots__ = ("index", "dtype")
    index: Index

    def __new__(cls, index, dtype="i64"):
        return cls._intern((index, dtype), index=index, dtype=dtype)

    def __reduce__(self):
        return Iota, (self.index, self.dtype)


class Op(Expr):
    """`name` of OPS applied to args; `cast` converts to `dtype` as C does."""

    __slots__ = ("name", "args", "dtype")
    name: str
    args: tuple[Expr, ...]

    def __new__(cls, name, args, dtype):
        return cls._intern((name, args, dtype), name=name, args=args, dtype=dtype)

    def __reduce__(self):
        return Op, (self.name, self.args, self.dtype)


def is_op(e: Expr, name: str) -> TypeGuard[Op]:
    return isinstance(e, Op) and e.name == name


class OpInfo(NamedTuple):
    arity: int
    kinds: str  # dtype kinds that its result (for comparisons: its arguments) may have
    cost: int  # vector instructions, roughly: fusion weighs recomputation with it


# min and max propagate NaN; floordiv and mod round down, fmod towards zero; shifts are arithmetic
# for signed; tf32 rounds float32 to 10 bits of fraction, to nearest and ties away from zero.
OPS: dict[str, OpInfo] = {
    "neg": OpInfo(1, "fi", 1), "abs": OpInfo(1, "fi", 1), "not": OpInfo(1, "iub", 1),
    "cast": OpInfo(1, "fiub", 1), "add": OpInfo(2, "fiu", 1), "sub": OpInfo(2, "fiu", 1),
    "mul": OpInfo(2, "fiu", 1), "div": OpInfo(2, "f", 6), "floordiv": OpInfo(2, "fiu", 12),
    "mod": OpInfo(2, "fiu", 12), "min": OpInfo(2, "fiu", 1), "max": OpInfo(2, "fiu", 1),
    "and": OpInfo(2, "iub", 1), "or": OpInfo(2, "iub", 1), "xor": OpInfo(2, "iub", 1),
    "shl": OpInfo(2, "iu", 1), "shr": OpInfo(2, "iu", 1), "lt": OpInfo(2, "fiu", 1),
    "le": OpInfo(2, "fiu", 1), "gt": OpInfo(2, "fiu", 1), "ge": OpInfo(2, "fiu", 1),
    "eq": OpInfo(2, "fiub", 1), "ne": OpInfo(2, "fiub", 1), "where": OpInfo(3, "fiub", 1),
    "isnan": OpInfo(1, "f", 1), "sqrt": OpInfo(1, "f", 8), "rsqrt": OpInfo(1, "f", 14),
    "exp": OpInfo(1, "f", 14), "expm1": OpInfo(1, "f", 20), "log": OpInfo(1, "f", 18),
    "log1p": OpInfo(1, "f", 20), "log2": OpInfo(1, "f", 18), "log10": OpInfo(1, "f", 18),
    "sin": OpInfo(1, "f", 25), "cos": OpInfo(1, "f", 25), "tan": OpInfo(1, "f", 35),
    "tanh": OpInfo(1, "f", 22), "sigmoid": OpInfo(1, "f", 20), "erf": OpInfo(1, "f", 25),
    "pow": OpInfo(2, "f", 50), "floor": OpInfo(1, "f", 1), "ceil": OpInfo(1, "f", 1),
    "trunc": OpInfo(1, "f", 1), "round": OpInfo(1, "f", 1), "signbit": OpInfo(1, "f", 1),
    "asin": OpInfo(1, "f", 60), "acos": OpInfo(1, "f", 60), "atan": OpInfo(1, "f", 60),
    "sinh": OpInfo(1, "f", 60), "cosh": OpInfo(1, "f", 60), "asinh": OpInfo(1, "f", 60),
    "acosh": OpInfo(1, "f", 60), "atanh": OpInfo(1, "f", 60), "erfc": OpInfo(1, "f", 60),
    "exp2": OpInfo(1, "f", 60), "lgamma": OpInfo(1, "f", 90), "atan2": OpInfo(2, "f", 80),
    "hypot": OpInfo(2, "f", 40), "fmod": OpInfo(2, "f", 40), "tf32": OpInfo(1, "f", 4),
}  # fmt: skip
COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne", "isnan", "signbit"))


class Monoid(NamedTuple):
    """How the values of reduce axes combine: k values per point, k stored results."""

    arity: int
    identity: tuple[float, ...]  # +-inf is the dtype's least or greatest value for integers


# argmax/argmin: (value, position); the lowest position wins a tie, NaN wins over numbers.
# welford: (count, mean, m2) combined as by Chan et al. (1979).
# softmax: (m, l) = (max, sum of exp(x - max)); the online form of Milakov & Gimelshein (2018).
MONOIDS: dict[str, Monoid] = {
    "sum": Monoid(1, (0,)),
    "prod": Monoid(1, (1,)),
    "max": Monoid(1, (-inf,)),
    "min": Monoid(1, (inf,)),
    "any": Monoid(1, (0,)),
    "all": Monoid(1, (1,)),
    "argmax": Monoid(2, (-inf, 0)),
    "argmin": Monoid(2, (inf, 0)),
    "welford": Monoid(3, (0, 0, 0)),
    "softmax": Monoid(2, (-inf, 0)),
    "attention": Monoid(3, (-inf, 0, 0)),  # (m, l, o): o the running sum of exp(s - m) * v
}


@dataclass(frozen=True)
class Reduce:
    monoid: str
    acc_dtype: str
    init: tuple[Expr, ...] | None = None  # over the output's axes; None: the monoid's identity


@dataclass(frozen=True)
class Store:
    """buffers[k][index] (combined by `reduce` with) values[k], where all of mask is >= 0."""

    buffers: tuple[str, ...]
    index: tuple[Index, ...]
    values: tuple[Expr, ...]
    mask: tuple[Index, ...] = ()
    reduce: Reduce | None = None


@dataclass(frozen=True)
class Bind:
    """symbol = value, for indirect addresses: in [0, bound), or in [-bound, 0) and then wrapped;
    anything else is eager's IndexError, with the message given."""

    symbol: str
    value: Expr
    bound: Size
    error: str = ""


@dataclass(frozen=True)
class Loops:
    """for all axes: bind; store. The stores of one nest share its axes."""

    axes: tuple[Axis, ...]
    stores: tuple[Store, ...]
    binds: tuple[Bind, ...] = ()

    @property
    def name(self) -> str:
        return self.stores[0].buffers[0]

    def axis(self, symbol: str) -> Axis:
        return next(a for a in self.axes if a.symbol == symbol)

    @property
    def reduce_axes(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.axes if a.kind == "reduce")


@dataclass(frozen=True)
class Schedule:
    """How one nest is walked. Loops are named by axis and level: `tile={"m": (56, 14)}` splits axis
    m into m.0 (blocks of 56), m.1 (tiles of 14) and m.2 (the points of a tile); an axis without a
    tile is m.0 alone."""

    order: tuple[str, ...]  # loops, outermost first
    tile: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parallel: int = 0  # the first loops of `order`, shared among threads
    unroll: frozenset[str] = frozenset()  # loops written out; with `vector`: the register tile
    vector: tuple[str, int] | None = None  # the loop whose points are lanes, and how many
    at: tuple[str, str] | None = None  # (nest, loop): computed there, for what that needs
    store_at: str | None = None  # loop of that nest at which its local buffers live (None: `at`)
    # buffer -> rows of it that are held; with `store_at`, a ring: of the dimension that moves with
    # the loops between `store_at` and `at`, and rows that it holds are not computed again
    fold: Mapping[str, int] = field(default_factory=dict)
    peel: frozenset[str] = frozenset()  # loops whose border iterations are code of their own
    outline: str | None = None  # the loop whose body is a function, shared where the text is equal
    partial: str | None = None  # a reduce loop: each iteration sums apart, then adds to the total
    # the last of some reduce loops outside of loops over outputs: each of their iterations adds to
    # sums that are in memory meanwhile
    carry: str | None = None
    ahead: str | None = None  # a loop over blocks of weights: the next one is fetched meanwhile
    # loops whose points are computed at once, as the dimensions of a block of values
    block: tuple[str, ...] = ()
    # axis -> points at a block's start and end that are others' results: they are computed again,
    # for what reads its neighbours, and not stored
    halo: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    split: int = 1  # programs that share the iterations of a block's sums; the last one adds them
    # a program's threads by 32, and how far loads are ahead of their use; 0: the emitter's choice
    warps: int = 0
    stages: int = 0
    own: Any = None  # what a target's walk tells its emitter, in terms of its own


@dataclass(frozen=True)
class Origin:
    """Where a kernel comes from: FX nodes, ATen ops and the user's line."""

    nodes: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    line: str = ""


@dataclass(frozen=True)
class Kernel:
    name: str
    body: tuple[Loops, ...]  # producers first; the last one writes the kernel's main output
    schedules: tuple[Schedule, ...] = ()  # empty, or one per nest
    origin: Origin = Origin()
    note: str = ""  # why it is as it is, for the report


class KernelError(Exception):
    """A kernel that a step or a target can't take; the error that says why is its cause."""

    def __init__(self, kernel: Kernel, cause: Exception):
        super().__init__(f"{kernel.name}: {type(cause).__name__}: {cause}")
        self.kernel = kernel


@contextmanager
def blamed(kernel: Kernel) -> Iterator[None]:
    """Errors inside are errors about one kernel."""
    try:
        yield
    except Exception as e:
        raise KernelError(kernel, e) from e


@dataclass(frozen=True)
class Extern:
    """A call outside: `op` names it, `args` is its argument tree with buffer names as `Ref`."""

    name: str
    op: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    outs: tuple[str, ...]  # by position; "" for a result that nobody uses
    symbols: tuple[str, ...] = ()  # sizes that it defines (nonzero's)
    origin: Origin = Origin()
    reason: str = ""  # why it is not a kernel of ours


@dataclass(frozen=True)
class Work:
    """A sum of products that a machine may leave to ATen: for each of `batch`, a matrix of (rows,
    columns), each element of it the sum of terms * taps products."""

    # "matmul", "convolution", "weight gradient"; "sum inside": whether a sum that ATen's matmul
    # has inside is to be a kernel behind it
    kind: str
    batch: int
    rows: int  # of a convolution: points of all images
    columns: int
    terms: int
    taps: int
    unit: str  # `Lowering.unit`
    constant: bool  # whether an operand is a weight, which is laid out once
    followed: bool = False  # by what is part of our kernel, and one by itself behind ATen's
    rectified: bool = False  # a ReLU follows, and there is a call of ATen that has it inside,
    added: bool = False  # with the sum before it, of what is multiplied and as many other values:
    # these are another sum of products, which one kernel could make with this one
    beside: Work | None = None


class Ref(NamedTuple):
    """A buffer among an extern's arguments."""

    buffer: str


@dataclass(frozen=True)
class DepthFirst:
    """kernels[first:last] run for `chunk` images at a time, all of them before the next chunk;
    the nests in it walk one chunk, and buffers in `Program.chunked` start at its own place."""

    first: int
    last: int
    chunk: int
    trips: int


@dataclass(frozen=True)
class Program:
    buffers: Mapping[str, Buffer]
    kernels: tuple[Kernel | Extern, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str | None, ...]  # a view is returned as one: of an input, of another output
    symbols: tuple[str, ...] = ()
    # memory that calls outside make, returned for backward alone: whoever has it gives it back
    lent: frozenset[str] = frozenset()
    packs: tuple[Loops, ...] = ()  # weight-only copies, evaluated once per weight set
    depth_first: tuple[DepthFirst, ...] = ()
    # where memory is, decided last (bytes): in the arena of a call, or in a thread's own memory
    arena: Mapping[str, int] = field(default_factory=dict)
    arena_bytes: int = 0
    band: Mapping[str, int] = field(default_factory=dict)
    band_bytes: int = 0
    chunked: Mapping[str, int] = field(default_factory=dict)  # buffer -> bytes between chunks

    def base(self, name: str) -> Buffer:
        """The memory under a buffer."""
        buffer = self.buffers[name]
        return buffer if buffer.base is None else self.base(buffer.base)


# -- walking and rebuilding ------------------------------------------------------------------


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of an array whose last dimension is innermost."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def children(e: Expr) -> tuple[Expr, ...]:
    return e.args if isinstance(e, Op) else ()


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct sub-expression once, arguments before their users."""
    seen: set[int] = set()
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        e, done = stack.pop()
        if done:
            yield e
        elif id(e) not in seen:
            seen.add(id(e))
            stack.append((e, True))
            stack.extend((a, False) for a in reversed(children(e)) if id(a) not in seen)


def rewrite(root: Expr, leaf) -> Expr:
    """Rebuild `root` with leaf(x) for each load, const and iota; linear in distinct nodes."""
    new: dict[int, Expr] = {}
    for e in walk(root):
        if isinstance(e, Op):
            args = tuple(new[id(a)] for a in e.args)
            new[id(e)] = e if args == e.args else Op(e.name, args, e.dtype)
        else:
            new[id(e)] = leaf(e)
    return new[id(root)]


def subst(e: Expr, values: Mapping[str, Any]) -> Expr:
    """Replace symbols in every index of `e`."""

    def leaf(x: Expr) -> Expr:
        if isinstance(x, Load):
            index = tuple(i.subst(values) for i in x.index)
            return Load(x.buffer, index, x.dtype, tuple(m.subst(values) for m in x.mask), x.other)
        return Iota(x.index.subst(values), x.dtype) if isinstance(x, Iota) else x

    return rewrite(e, leaf)


def expressions(loops: Loops) -> Iterator[Expr]:
    """The roots of all expressions of a nest."""
    for b in loops.binds:
        yield b.value
    for s in loops.stores:
        yield from s.values
        if s.reduce and s.reduce.init:
            yield from s.reduce.init


def loads(loops: Loops) -> Iterator[Load]:
    return (e for e in walk(*expressions(loops)) if isinstance(e, Load))


def written(kernel: Kernel | Extern) -> tuple[str, ...]:
    """Every buffer a step writes, kernel-local ones too; not an extern's unused results."""
    if isinstance(kernel, Extern):
        return tuple(filter(None, kernel.outs))
    return tuple(b for nest in kernel.body for s in nest.stores for b in s.buffers)


def read(kernel: Kernel | Extern) -> tuple[str, ...]:
    """Every buffer a step reads, in order of first use, once."""
    if isinstance(kernel, Extern):
        names: dict[str, None] = {}
        filled((kernel.args, kernel.kwargs), names.setdefault)
        return tuple(names)
    return tuple(dict.fromkeys(e.buffer for nest in kernel.body for e in loads(nest)))


def filled(tree: Any, value: Callable[[str], Any]) -> Any:
    """An extern's arguments with value(name) in place of each buffer."""
    if isinstance(tree, Ref):
        return value(tree.buffer)
    if isinstance(tree, (tuple, list)):
        parts = [filled(x, value) for x in tree]
        return parts if isinstance(tree, list) else tuple(parts)
    if isinstance(tree, dict):
        return {k: filled(x, value) for k, x in tree.items()}
    if isinstance(tree, slice):
        return slice(*(filled(x, value) for x in (tree.start, tree.stop, tree.step)))
    return tree


def _exact(value: Any) -> tuple[str, str]:
    """1, 1.0, True, 0.0 and -0.0 are different constants, and NaN is equal to itself."""
    return type(value).__name__, repr(value)


# -- printing --------------------------------------------------------------------------------

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "and": "&",
    "or": "|", "xor": "^", "shl": "<<", "shr": ">>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "eq": "==", "ne": "!=",
}  # fmt: skip


def _used_twice(nest: Loops) -> list[Op]:
    """Operations with several users in the stores of a nest, arguments before users."""
    roots = list(expressions(replace(nest, binds=())))
    users: dict[int, int] = {}
    for e in (*roots, *(a for x in walk(*roots) for a in children(x))):
        users[id(e)] = users.get(id(e), 0) + 1
    return [e for e in walk(*roots) if isinstance(e, Op) and users[id(e)] > 1]


def show(x: Any, names: Mapping[int, str] | None = None) -> str:
    """Any piece of the IR as text; `names`: expressions (by id) that stand on lines before."""
    if names and id(x) in names:
        return names[id(x)]
    if isinstance(x, Load):
        text = f"{x.buffer}[{', '.join(map(str, x.index))}]"
        guard = " and ".join(f"{m} >= 0" for m in x.mask)
        return f"({text} if {guard} else {x.other})" if x.mask else text
    if isinstance(x, Const):
        return str(x.value)
    if isinstance(x, Iota):
        return f"{x.dtype}({x.index})"
    if isinstance(x, Op):
        args = [show(a, names) for a in x.args]
        if x.name in _INFIX and len(args) == 2:
            return f"({args[0]} {_INFIX[x.name]} {args[1]})"
        return f"{x.dtype if x.name == 'cast' else x.name}({', '.join(args)})"
    if isinstance(x, Buffer):
        where = f"{x.base}+{x.offset}" if x.base else x.scope
        return f"{x.name}: {x.dtype}{list(x.shape)} strides {list(x.strides)} in {where}"
    if isinstance(x, Axis):
        return f"{x.symbol} < {x.extent}" + ("" if x.kind == "parallel" else f" ({x.kind})")
    if isinstance(x, Store):
        left = ", ".join(f"{b}[{', '.join(map(str, x.index))}]" for b in x.buffers)
        right = ", ".join(show(v, names) for v in x.values)
        how = f" {x.reduce.monoid}=" if x.reduce else " ="
        start = x.reduce.init if x.reduce and x.reduce.init else ()
        init = ", ".join(show(v, names) for v in start)
        guard = " and ".join(f"{m} >= 0" for m in x.mask)
        return (
            f"{left}{how} {right}"
            + (f" from {init}" if init else "")
            + (f" if {guard}" if guard else "")
        )
    if isinstance(x, Loops):
        lines = [f"for {', '.join(map(show, x.axes)) or 'once'}:"]
        lines += [f"    {b.symbol} = index {show(b.value)} < {b.bound}" for b in x.binds]
        shared: dict[int, str] = {}
        for e in _used_twice(x):  # each once: as a tree, the text may be exponentially long
            text = show(e, shared)
            if len(text) > 40:
                lines.append(f"    %{len(shared)} = {text}")
                shared[id(e)] = f"%{len(shared)}"
        return "\n".join(lines + [f"    {show(s, shared)}" for s in x.stores])
    if isinstance(x, Schedule):
        parts = [" ".join(x.order)]
        for f in fields(x)[1:]:
            value = getattr(x, f.name)
            if value and value != f.default:
                parts.append(f"{f.name}={sorted(value) if isinstance(value, frozenset) else value}")
        return "; ".join(parts)
    if isinstance(x, Kernel):
        lines = [f"kernel {x.name}  # {', '.join(x.origin.ops)}"]
        for i, nest in enumerate(x.body):
            lines += ["    " + t for t in show(nest).splitlines()]
            if i < len(x.schedules):
                lines.append(f"      @ {show(x.schedules[i])}")
        return "\n".join(lines)
    if isinstance(x, Extern):
        return f"extern {', '.join(x.outs)} = {x.op}{x.args}  # {x.reason}"
    if isinstance(x, Program):
        lines = [f"program({', '.join(x.inputs)}) -> {', '.join(map(str, x.outputs))}"]
        lines += ["  " + show(b) for b in x.buffers.values()]
        lines += ["  pack " + t for p in x.packs for t in show(p).splitlines()]
        return "\n".join(lines + ["  " + t for k in x.kernels for t in show(k).splitlines()])
    return str(x)
