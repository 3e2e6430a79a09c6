"""The walk over an FX graph that applies the rules, and what rules build programs with.

A tensor value is a `Buffer` (its own memory or a view), a tuple for ops with several results, or
None for a result that nobody uses. What only ATen can hold is a buffer of the dtype `FOREIGN`, and
no rule sees it. A rule that cannot handle its arguments returns `NotHandled`
with the reason, which becomes the reason of the ATen call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import fx

from ..affine import Index
from ..compat import (
    CONTIGUOUS_ONLY,
    fake_mode_of,
    from_tensor,
    plain_dispatch,
    reads_rows,
    reads_strides,
)
from ..ir import (
    DTYPES,
    FOREIGN,
    HALVES,
    MONOIDS,
    Axis,
    Bind,
    Buffer,
    Const,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Op,
    Origin,
    Program,
    Reduce,
    Ref,
    Store,
    Work,
    contiguous,
)
from .outputs import lent, outputs_of
from .strides import dense, rows_lie, same_strides

aten = torch.ops.aten
DTYPE = {
    torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8",
    torch.uint64: "u64", torch.uint32: "u32", torch.uint16: "u16", torch.uint8: "u8",
    torch.bool: "bool",
}  # fmt: skip
LEFT_TO_ATEN = "sol_left_to_aten"  # in a node's `meta`: why no rule is asked
TORCH_DTYPE = {v: k for k, v in DTYPE.items()}


def foreign(value: Any, device: str | None = None) -> str | None:
    """Why a value is none that kernels for a type of device could read or write; None if it is."""
    if not isinstance(value, torch.Tensor):
        return f"a value of type {type(value).__name__}"
    if value.layout != torch.strided or value.dtype not in DTYPE:
        return f"a tensor of {value.dtype}, {value.layout}"
    if device is not None and value.device.type != device:
        return f"a tensor on {value.device}"
    if any(not isinstance(n, int) for n in (*value.shape, *value.stride())):
        return f"sizes that are data: {tuple(value.shape)}"
    return "a tensor that is negated or conjugated where it is read" if value.is_neg() else None


def _taken_of(node: Any) -> tuple[Any, ...] | None:
    """The results of a node that does not say what it gives, as far as they are taken from it:
    some higher-order ops do not."""
    taken = {u.args[1]: u.meta.get("val") for u in node.users if u.target is operator.getitem}
    return tuple(taken.get(k) for k in range(max(taken) + 1)) if taken else None


class Given(NamedTuple):
    """A call that gives what it is: a constant of the graph, as an `Extern`."""

    value: Any

    def __call__(self) -> Any:
        return self.value

    def __str__(self) -> str:
        return f"constant {type(self.value).__name__}"


class NotHandled:
    """What a rule returns to leave an op to ATen."""

    def __init__(self, reason: str):
        self.reason = reason


Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register a lowering rule: f(lowering, node, *args, **kwargs) with buffers for tensors."""

    def register(f: Rule) -> Rule:
        for t in targets:
            RULES[t] = f
        return f

    return register


@dataclass(frozen=True)
class Products:
    """How a machine multiplies what it then sums."""

    tf32: frozenset[str] = frozenset()  # "matmul", "convolution": of operands rounded to it
    halves: bool = False  # 16-bit floats, exactly
    elsewhere: Callable[[Work, fx.Node], str] | None = None  # `Caps.elsewhere`, of a node
    rectified: bool = False  # `Caps.rectified`
    alone: bool = False  # `Caps.alone`


EXACT = Products()
FUSED: set[Any] = set()  # ops that are part of the kernel of what they are applied to
VIEWS = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default,
    aten.transpose.int,
}  # fmt: skip
MOVEMENTS = {
    aten.clone.default, aten.unsqueeze.default, aten.squeeze.dim,
    aten.squeeze.dims,
}  # fmt: skip
PIECES = {aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default}


def _users(node: fx.Node) -> list[fx.Node]:
    """Who computes with a node's result, views of it included."""
    found: list[fx.Node] = []
    for user in node.users:
        found += _users(user) if user.target in VIEWS else [user]
    return found


def _in_pieces(node: fx.Node) -> bool:
    """Whether what reads a node takes pieces of it: then they are kernels of their own."""
    movements = VIEWS | MOVEMENTS
    return any(u.target in PIECES or (u.target in movements and _in_pieces(u)) for u in node.users)


class Lowering:
    """A program being built."""

    def __init__(self, device: str | None = None, products: Products = EXACT) -> None:
        """Kernels are for tensors of this type of device; without one, for all."""
        self.products = products
        self.device = device
        self.buffers: dict[str, Buffer] = {}
        self.steps: list[Kernel | Extern] = []
        self.inputs: list[str] = []
        self.env: dict[fx.Node, Any] = {}
        self.node: fx.Node | None = None
        self.first: list[Extern] = []  # calls before all other steps
        self.packs: list[Loops] = []  # copies of weights
        self.done: dict[fx.Node, Buffer] = {}  # results of nodes that others brought about
        self.sums: dict[fx.Node, Work] = {}  # of products in float32 that are not ATen's
        self._seed: str | None = None

    # -- buffers -------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.buffers:
            candidate, n = f"{name}_{n}", n + 1
        return candidate

    def buffer(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        strides: Sequence[int] | None = None,
        scope: str = "arena",
    ) -> Buffer:
        """New memory, contiguous unless strides are given."""
        shape = tuple(shape)
        strides = tuple(strides) if strides is not None else contiguous(shape)
        b = Buffer(self.unique(name), dtype, shape, strides, scope=scope)
        self.buffers[b.name] = b
        return b

    def output(self, node: fx.Node, k: int | None = None) -> Buffer:
        """New memory for a node's (k-th) result, laid out as the layout pass says."""
        value = node.meta["val"] if k is None else node.meta["val"][k]
        strides = node.meta.get("sol_strides")
        if k is not None:
            strides = strides[k] if strides and isinstance(strides[0], (tuple, list)) else None
        name = node.name if k is None else f"{node.name}_{k}"
        return self.buffer(name, DTYPE[value.dtype], value.shape, strides or dense(value))

    def dtype(self, node: fx.Node) -> str:
        """A node's dtype."""
        return DTYPE[node.meta["val"].dtype]

    def seed(self) -> Expr:
        """63 random bits for one random op. All those of a program are drawn at once, when a call
        begins, from the default generator of the device on which the first one has its result: the
        same that as many calls, one behind the other, would draw."""
        if self._seed is None:
            assert self.node is not None
            value = self.node.meta["val"]
            device = (value[0] if isinstance(value, (tuple, list)) else value).device
            self._seed = self.buffer("seed", "i64", (0,), scope="extern").name
            op = torch.ops.aten.randint.low
            options = (("dtype", torch.int64), ("device", device))
            call = Extern("seed", op, (0, 2**63 - 1, [0]), options, (self._seed,))
            self.first.append(replace(call, reason="the seed of random numbers"))
        drawn = self.buffers[self._seed].shape[0] + 1
        self.buffers[self._seed] = b = replace(self.buffers[self._seed], shape=(drawn,))
        (at,) = (i for i, e in enumerate(self.first) if e.outs == (self._seed,))
        self.first[at] = replace(self.first[at], args=(*self.first[at].args[:2], [drawn]))
        return self.load(b, (drawn - 1,))

    def view(self, b: Buffer, shape, strides, offset=0, name: str | None = None) -> Buffer:
        """The same memory with other strides; `offset` in elements from b's first."""
        name = self.unique(name or f"{b.name}_view")
        base = b.base or b.name
        v = replace(
            b,
            name=name,
            shape=tuple(shape),
            strides=tuple(strides),
            offset=b.offset + offset,
            base=base,
        )
        self.buffers[name] = v
        return v

    def buffer_of(self, name: str, value: Any, strides: Sequence[int], scope: str) -> Buffer:
        """The memory of a value that is made elsewhere, or what stands for a foreign one."""
        if foreign(value, self.device):
            return self.buffer(name, FOREIGN, (), scope=scope)
        return self.buffer(name, DTYPE[value.dtype], value.shape, strides, scope)

    # -- nests ---------------------------------------------------------------------------------

    def load(
        self,
        b: Buffer,
        index: Sequence[Index | str | int],
        mask: Sequence[Index] = (),
        other: float | None = None,
    ) -> Load:
        return Load(b.name, tuple(map(Index.of, index)), b.dtype, tuple(mask), other)

    def factors(self, kind: str, *values: Expr) -> tuple[Expr, ...]:
        """The operands of a product that is summed in float32, as the machine takes them; `kind` is
        "matmul" or "convolution"."""
        if all(e.dtype == "f32" for e in values) and kind in self.products.tf32:
            return tuple(Op("tf32", (e,), "f32") for e in values)
        return tuple(cast(e, "f32") if e.dtype in HALVES else e for e in values)

    def unit(self, kind: str, dtype: str) -> str:
        """What multiplies: "half", "tf32", "ieee" for float32 as it is, "double"."""
        if dtype == "f32":
            return "tf32" if kind in self.products.tf32 else "ieee"
        return "half" if dtype in HALVES else "double"

    def elsewhere(
        self, kind: str, dtype: str, sizes: tuple[int, int, int, int], **more: Any
    ) -> str:
        """Why ATen is to compute this node's sums of products, or ""; the sizes are those of batch,
        rows, columns and terms, and `more` is what else there is to `Work`."""
        if self.products.elsewhere is None or self.node is None:
            return ""
        flag = "matmul" if kind in ("matmul", "sum inside") else "convolution"
        unit = self.unit(flag, dtype)
        followed = self.followed(self.node)
        given = {"taps": 1, "constant": False, **more}
        work = Work(kind, *sizes, unit=unit, followed=followed, **given)
        reason = self.products.elsewhere(work, self.node)
        if not reason and dtype == "f32" and kind != "sum inside":  # which is of ATen's product
            self.sums[self.node] = work
        return reason

    def followed(self, node: fx.Node) -> bool:
        """Whether what reads a node can be part of the kernel that makes it."""
        return any(n.target in FUSED and not _in_pieces(n) for n in _users(node))

    def laid_out(self, w: Buffer, strides: Sequence[int]) -> Buffer:
        """A copy of a weight with other strides, made once."""
        made = self.buffer(f"{w.name}_laid_out", w.dtype, w.shape, strides, scope="weight")
        axes = tuple(Axis(f"i{d}", n) for d, n in enumerate(w.shape))
        index = tuple(Index.of(a.symbol) for a in axes)
        store = Store((made.name,), index, (self.load(w, index),))
        self.packs.append(Loops(axes, (store,)))
        return made

    def summable(self, *dtypes: str) -> bool:
        """Whether products of values of these dtypes are the loop IR's: else they are ATen's."""
        known = ("f32", "f64", *(HALVES if self.products.halves else ()))
        return len(set(dtypes)) == 1 and dtypes[0] in known

    def broadcast(self, b: Buffer, index: Sequence[Index]) -> Load:
        """Load b at the trailing dimensions of an index, dimensions of size 1 at 0."""
        tail = index[len(index) - len(b.shape) :]
        return self.load(b, [0 if n == 1 else i for n, i in zip(b.shape, tail, strict=True)])

    def compute(
        self,
        out: Buffer | Sequence[Buffer],
        axes: Sequence[Axis],
        index: Sequence[Index | str | int],
        values: Expr | Sequence[Expr],
        reduce: Reduce | None = None,
        binds: Sequence[Bind] = (),
        mask: Sequence[Index] = (),
    ) -> None:
        """Append a kernel of one nest with one store; none where there is nothing to store, and a
        reduction of nothing stores what it starts from."""
        outs = (out,) if isinstance(out, Buffer) else tuple(out)
        vals = (values,) if isinstance(values, Expr) else tuple(values)
        if any(a.extent == 0 for a in axes if a.kind == "parallel"):
            return
        if reduce is not None and any(a.extent == 0 for a in axes):
            identity = MONOIDS[reduce.monoid].identity
            dtypes = (reduce.acc_dtype, *(v.dtype for v in vals[1:]))
            vals = reduce.init or tuple(map(Const, identity, dtypes))
            axes, reduce = [a for a in axes if a.kind == "parallel"], None
        if reduce is None:
            vals = tuple(
                v if v.dtype == b.dtype else cast(v, b.dtype)
                for b, v in zip(outs, vals, strict=True)
            )
        store = Store(
            tuple(b.name for b in outs), tuple(map(Index.of, index)), vals, tuple(mask), reduce
        )
        loops = Loops(tuple(axes), (store,), tuple(binds))
        self.steps.append(Kernel(outs[0].name, (loops,), origin=origin(self.node)))

    def pointwise(self, out: Buffer, value: Callable[..., Expr]) -> Buffer:
        """out[i...] = value(i...)"""
        axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
        index = [Index.of(a.symbol) for a in axes]
        self.compute(out, axes, index, value(*index))
        return out

    def copy(self, source: Buffer, out: Buffer) -> Buffer:
        """out[...] = source[...]"""
        return self.pointwise(out, lambda *i: self.load(source, i))

    def extern(self, node: fx.Node, reason: str) -> Any:
        """Leave a node to ATen."""
        value = node.meta.get("val", _taken_of(node))  # an assertion has none
        many = isinstance(value, (tuple, list))
        results = value if isinstance(value, (tuple, list)) else (value,)
        wanted = {n: w for n in node.all_input_nodes if (w := self._wanted_by(node.target, n))}
        strides = [() if foreign(v, self.device) else v.stride() for v in results]
        if not reads_strides(node.target):
            strides = self._strides_of_call(node, wanted) or strides
        outs: list[Buffer | None] = []
        for k, v in enumerate(results):
            name = f"{node.name}_{k}" if many else node.name
            outs.append(None if v is None else self.buffer_of(name, v, strides[k], "extern"))

        def ref(n: fx.Node) -> Any:
            b = self.env[n]
            if b is None:
                return None
            if isinstance(b, tuple):  # all results of an op, for a call that takes a list
                return tuple(None if x is None else Ref(x.name) for x in b)
            if n not in wanted:
                return Ref(b.name)
            copy = self.buffer(f"{b.name}_strided", b.dtype, b.shape, wanted[n])
            return Ref(self.copy(b, copy).name)

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), ref)
        if args and isinstance(args[0], Ref):
            args = from_tensor(node.target, args, node.args[0].meta.get("val"))
        names = tuple(o.name if o else "" for o in outs)
        self.steps.append(
            Extern(
                node.name,
                node.target,
                tuple(args),
                tuple(kwargs.items()),
                names,
                origin=origin(node),
                reason=reason,
            )
        )
        return tuple(outs) if many else outs[0]

    def _wanted_by(self, op: Any, n: fx.Node) -> tuple[int, ...] | None:
        """The strides of the copy of an argument that a call gets; None if it does as it lies."""
        b = self.env[n]
        if not isinstance(b, Buffer) or b.dtype == FOREIGN:
            return None
        if op in CONTIGUOUS_ONLY:
            wanted = contiguous(b.shape)
            return None if same_strides(b.shape, b.strides, wanted) else wanted
        traced = n.meta["val"]
        traced_so = self._lies_as_traced(n)
        # backward is told, as traced, how forward laid what it saved: four or five dimensions
        if reads_rows(op) and not (traced_so and len(b.shape) < 4):
            wanted = dense(traced)
            wanted = wanted if wanted[-1:] == (1,) else contiguous(b.shape)
            return None if rows_lie(b, DTYPES[b.dtype][0], traced) else wanted
        return dense(traced) if reads_strides(op) and not traced_so else None

    def _lies_as_traced(self, n: fx.Node) -> bool:
        b = self.env[n]
        if not isinstance(b, Buffer) or b.dtype == FOREIGN:
            return True
        return same_strides(b.shape, b.strides, n.meta["val"].stride())

    def _strides_of_call(
        self, node: fx.Node, copied: Mapping[fx.Node, tuple[int, ...]]
    ) -> list[tuple[int, ...]] | None:
        """The strides of an ATen call's results, given its arguments as they lie in our memory or
        were copied; None where they lie as traced, or where that cannot be told."""
        moved = dict(copied)
        for n in node.all_input_nodes:
            if n not in copied and not self._lies_as_traced(n):
                moved[n] = self.env[n].strides
        if not moved:
            return None

        def lying(n: fx.Node) -> Any:
            v = n.meta["val"]
            return v.new_empty_strided(v.shape, moved[n]) if n in moved else v

        mode = fake_mode_of(next(iter(moved)).graph)
        if mode is None:
            return None
        try:
            with mode:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lying)
                result: Any = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception:  # whatever a fake kernel raises: the call copies if it must
            return None
        many = isinstance(result, (tuple, list))
        return [
            () if foreign(v, self.device) else tuple(v.stride())
            for v in (result if many else (result,))
        ]


def lower(
    gm: fx.GraphModule,
    sources: Sequence[tuple[str, int]] | None = None,
    device: str | None = None,
    products: Products = EXACT,
) -> Program:
    """The loop IR of a graph, for a type of device. sources[i] = ("input" | "weight", k) for each
    placeholder.

    Errors: a graph that calls modules or methods raises `ValueError`.
    """
    # torch 2.14's Python kernel of `view` makes one of (4, 1, 5) with strides (10, 5, 1), say
    with plain_dispatch():
        return _lower(gm, sources, Lowering(device, products))


def _lower(gm: fx.GraphModule, sources: Sequence[tuple[str, int]] | None, low: Lowering) -> Program:
    outputs: tuple[str | None, ...] = ()
    kept = frozenset[str]()
    placeholders = 0
    for node in gm.graph.nodes:
        low.node = node
        if node.op == "placeholder":
            kind = sources[placeholders][0] if sources else "input"
            value = node.meta["val"]
            strides = () if foreign(value, low.device) else value.stride()
            b = low.buffer_of(node.name, value, strides, kind)
            low.inputs.append(b.name)
            low.env[node] = b
            placeholders += 1
        elif node.op == "call_function":
            low.env[node] = _apply(low, node)
        elif node.op == "get_attr":
            low.env[node] = _constant(low, node, gm)
        elif node.op == "output":
            outputs = outputs_of(low, node)
            kept = lent(low, node, outputs)
        else:
            raise ValueError(f"{node.op} {node.target} in a graph to lower")
    steps, inputs = (*low.first, *low.steps), tuple(low.inputs)
    return Program(low.buffers, steps, inputs, outputs, lent=kept, packs=tuple(low.packs))


def _constant(low: Lowering, node: Any, gm: fx.GraphModule) -> Buffer:
    """An attribute of the graph: a tensor, or a graph that a higher-order op runs."""
    value: Any = gm
    for name in node.target.split("."):
        value = getattr(value, name)
    strides = () if foreign(value, low.device) else value.stride()
    b = low.buffer_of(node.name, value, strides, "extern")
    low.steps.append(Extern(node.name, Given(value), (), (), (b.name,), reason="a constant"))
    return b


def _foreign_part(low: Lowering, node: Any) -> str | None:
    """Why a rule can't take a node: a foreign value among its arguments or results."""
    for n in node.all_input_nodes:
        b = low.env[n]
        if isinstance(b, Buffer) and b.dtype == FOREIGN:
            return foreign(n.meta.get("val"), low.device) or "a value that only ATen handles"
    values = node.meta.get("val")
    for v in values if isinstance(values, (tuple, list)) else (values,):
        if v is not None and (reason := foreign(v, low.device)):
            return reason
    return None


def _apply(low: Lowering, node: Any) -> Any:
    if node.target is operator.getitem and isinstance(low.env[node.args[0]], tuple):
        return low.env[node.args[0]][node.args[1]]
    if node in low.done:
        return low.done.pop(node)
    if not node.users and not node.is_impure():
        return None
    f = RULES.get(node.target)
    if f is None:
        return low.extern(node, "no lowering rule")
    if reason := node.meta.get(LEFT_TO_ATEN) or _foreign_part(low, node):
        return low.extern(node, reason)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: low.env[n])
    steps, buffers = len(low.steps), len(low.buffers)
    result = f(low, node, *args, **kwargs)
    if isinstance(result, NotHandled):
        del low.steps[steps:]
        while len(low.buffers) > buffers:
            low.buffers.popitem()
        return low.extern(node, result.reason)
    return result


def origin(node: fx.Node | None) -> Origin:
    if node is None:
        return Origin()
    target = node.target
    op = str(target) if not isinstance(target, str) else target
    trace = node.meta.get("stack_trace") or ""
    lines = [t.strip() for t in trace.strip().splitlines()]
    return Origin((node.name,), (op,), " ".join(lines[-2:]))


def cast(e: Expr, dtype: str) -> Expr:
    return e if e.dtype == dtype else Op("cast", (e,), dtype)


def constant(value: float | int | bool, dtype: str) -> Const:
    """A Python number in a dtype, converted as eager converts what it fills tensors with."""
    size, kind = DTYPES[dtype]
    if kind == "b":
        return Const(bool(value), dtype)
    if kind in "iu" and not (isinstance(value, float) and not isfinite(value)):
        whole = int(value)
        return Const(whole % 2 ** (8 * size) if kind == "u" else whole, dtype)
    return Const(value, dtype)
