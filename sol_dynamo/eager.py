"""Ops of a device one at a time: each kind of call is a program of its own, made by the pipeline.

    add(x: f32[3, 4], 2.5, out=y)  ==>  y := program(x, 2.5)

The device's dispatcher (`ve/csrc/programs.cpp`) keeps programs by what calls look like: the op, the
dtypes, sizes and strides of tensors, numbers and flags. It asks `compile_op` for those that it
does not know, once each; what has no program (an op without a rule somewhere in its parts, sizes
that are data) is the CPU's. A call that writes to its arguments is traced as the functional op, and
the program stores to them where nothing that it reads lies there. Nothing here knows how programs
are made, nor the device's name.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx

from . import backend, compat, programs
from .config import Config, config
from .decompositions import KEPT, NORMS, decompositions
from .forms import FORMS, SCALED, WRITTEN, lerp
from .ir import Extern, Kernel, Load, Loops, Program, read, walk
from .lowering import RULES
from .lowering.graph import DTYPE
from .target import Target, get_target

log = logging.getLogger("sol_dynamo")
NUMBERS = 1024  # numbers of calls that stay on the device, the latest
_table: dict[Any, Callable] | None = None
_lock = threading.RLock()
_inside = threading.local()


# whose rules add a product as it is: with factors they are several ops
PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.baddbmm.default)


class Unfit(Exception):
    """Why a call has no program: the CPU runs it."""


@dataclass(frozen=True)
class Input:
    """Where an input of the program comes from: a tensor of the call by position, or one of its
    numbers, as a tensor of a dtype."""

    tensor: int = -1
    number: int = -1
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Write:
    """What one of the call's tensors becomes: an output of the program, which may store it right
    there if `direct`; a tensor of another size takes on shape and strides before."""

    tensor: int
    output: int
    direct: bool
    resized: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Plan:
    """A compiled call, as it is kept on disk."""

    kept: programs.Kept
    inputs: tuple[Input, ...]
    results: tuple[int | None, ...]  # outputs of the program; None for one that is left out
    writes: tuple[Write, ...]
    counts: tuple[int, ...]  # of how many tensors each result of the op consists; -1: it is one


def compile_op(
    name: str, overload: str, arguments: list[Any], numbers_at: list[int]
) -> tuple[Callable, tuple[int, ...]] | None:
    """The program of a call, as a function of its tensors and numbers, and how its results are
    grouped; None where the CPU is to run it. `arguments` are in the schema's order; at `numbers_at`
    stand numbers of which only the kind matters.

    It is made in a thread of its own: the caller's may be in the middle of a trace or of another
    mode, which would take our fake tensors for its own.
    """
    made: list[Any] = [None]

    def work() -> None:
        try:
            made[0] = _made(operator(name, overload), arguments, numbers_at)
        except BaseException as e:
            made[0] = e

    if getattr(_inside, "compiling", False):
        work()
    else:
        thread = threading.Thread(target=work, name="sol_dynamo eager")
        thread.start()
        thread.join()
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0]


def _made(
    op: Any, arguments: list[Any], numbers_at: list[int]
) -> tuple[Callable, tuple[int, ...]] | None:
    _inside.compiling = True
    c = config()
    try:
        with _lock, torch.no_grad():
            call = Call(op, arguments, numbers_at)
            key = None if c.check or c.dump or c.fuel >= 0 else call.name(c)
            plan = programs.find(key, Plan) if key else None
            if plan is None:
                plan = _compiled(call, c)
                if key:
                    programs.keep(key, plan)
            return OneOp(plan, call.target, call.device), plan.counts
    except Unfit as e:
        log.debug("%s runs on the CPU: %s", op, e)
    except Exception as e:
        if c.strict:
            raise
        warnings.warn(
            f"sol_dynamo could not compile {op} and leaves it to the CPU: right, but slow. Please"
            f" report this: {type(e).__name__}: {e}",
            stacklevel=2,
        )
    return None


def operator(name: str, overload: str) -> Any:
    """An op by the names that its schema has."""
    namespace, _, packet = name.partition("::")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")


# -- calls ---------------------------------------------------------------------------------------


class Call:
    """An op with its arguments as Python wants them.

    Errors: `Unfit` for what no program takes.
    """

    def __init__(self, op: Any, arguments: Sequence[Any], numbers_at: Sequence[int]):
        self.op, self.name_of_op = op, str(op)
        self.parameters = op._schema.arguments
        self.numbers_at = {at: k for k, at in enumerate(numbers_at)}
        self.arguments = [
            compat.enumerated(str(p.real_type), a)
            for p, a in zip(self.parameters, arguments, strict=True)
        ]
        self.tensors: list[torch.Tensor] = []
        self.written: list[int] = []  # positions of tensors
        self.resized: list[int] = []  # of those, the arguments `out`
        for i, a in enumerate(self.arguments):
            found = [t for t in _flat(a) if isinstance(t, torch.Tensor)]
            info = self.parameters[i].alias_info
            if (info is not None and info.is_write) or i in WRITTEN.get(self.name_of_op, ()):
                self.written += range(len(self.tensors), len(self.tensors) + len(found))
                if self.parameters[i].is_out:
                    self.resized.append(len(self.tensors))
            self.tensors += found
        places = [t.device for t in self.tensors if t.device.type != "cpu"]
        places += [a for a in self.arguments if isinstance(a, torch.device)]
        if not places:
            raise Unfit("no device is named")
        self.device = places[0]
        target = get_target(self.device.type)
        if target is None:
            raise Unfit(f"no target for {self.device.type}")
        self.target: Target = target
        for t in self.tensors:
            if t.dtype not in DTYPE or t.layout != torch.strided:
                raise Unfit(f"a tensor of {t.dtype}, {t.layout}")
        for k in self.written:
            if _overlaps(self.tensors[k]):
                raise Unfit("a result whose elements share memory")
        # for each tensor that is written to, those that are the same one
        self.alike = {j: self._same_as(j) for j in self.written}

    def _same_as(self, j: int) -> list[int]:
        t = self.tensors[j]
        found = []
        for k, other in enumerate(self.tensors):
            if k == j or _memory(other) != _memory(t) or not _meet(other, t):
                continue
            if _place(other) != _place(t):
                raise Unfit("tensors that share some memory")  # which most ops refuse
            found.append(k)
        return found

    def name(self, c: Config) -> str:
        """What the program of such calls is kept under."""
        tensors = [(str(t.dtype), _place(t)[1:], t.device.type) for t in self.tensors]
        rest = [
            f"number {abs(a) < 0.5}" if i in self.numbers_at else repr(_shown(a))
            for i, a in enumerate(self.arguments)
        ]
        about = (self.name_of_op, tensors, self.alike, rest, torch.get_default_dtype(), self.device)
        return programs.key("op", self.target.caps, self.target.describe(), *about, c)


def _flat(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _shown(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return "a tensor"
    return [_shown(v) for v in value] if isinstance(value, (list, tuple)) else value


def _memory(t: torch.Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _place(t: torch.Tensor) -> tuple:
    return t.storage_offset() * t.itemsize, tuple(t.shape), tuple(t.stride())


def _meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the spans of two tensors in the same memory have bytes in common."""
    (first, last), (start, end) = _span(a), _span(b)
    return first < end and start < last


def _span(t: torch.Tensor) -> tuple[int, int]:
    first = t.storage_offset() * t.itemsize
    if not t.numel():
        return first, first
    last = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1
    return first, first + last * t.itemsize


def _overlaps(t: torch.Tensor) -> bool:
    """Whether elements may share memory."""
    end = 1
    for step, n in sorted(zip(t.stride(), t.shape, strict=True)):
        if n > 1:
            if step < end:
                return t.numel() > 0
            end = step * n
    return False


# -- compiling -----------------------------------------------------------------------------------


def _compiled(call: Call, c: Config) -> Plan:
    gm, inputs, counts, writes = _traced(call)
    outputs, written = _outputs(gm, inputs)
    writes = [*writes, *written]
    values = [n.meta.get("val") if isinstance(n, fx.Node) else None for n in outputs]
    strides: list[tuple[int, ...] | None] = [
        tuple(v.stride()) if isinstance(v, torch.Tensor) else None for v in values
    ]
    results = len(outputs) - len(writes)
    for j, k in enumerate(writes):
        value, target = values[results + j], call.tensors[k]
        if value is None or value.dtype != target.dtype:
            raise Unfit("a write of another dtype")
        if value.shape != target.shape:
            if k not in call.resized:
                raise Unfit("a write of another size")
        elif target.numel():
            strides[results + j] = tuple(target.stride())
    if not any(isinstance(n, fx.Node) for n in outputs):
        raise Unfit("nothing to compute")
    kept, changed = backend.compiled(gm, call.target, c, strides)
    for k in kept.program.kernels:
        if isinstance(k, Extern) and k.name != "seed":
            raise Unfit(f"{k.op}: {k.reason}")
    if changed:
        raise Unfit("a kernel that the target can't take")
    return Plan(
        kept,
        inputs,
        tuple(i if isinstance(n, fx.Node) else None for i, n in enumerate(outputs[:results])),
        tuple(
            Write(
                k,
                results + j,
                _direct(call, kept.program, inputs, k, results + j),
                _size(values[results + j], call.tensors[k]),
            )
            for j, k in enumerate(writes)
        ),
        counts,
    )


def _size(value: Any, target: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shape and strides that a tensor is to have."""
    return None if value.shape == target.shape else (tuple(value.shape), tuple(value.stride()))


def _traced(
    call: Call,
) -> tuple[fx.GraphModule, tuple[Input, ...], tuple[int, ...], list[int]]:
    """The functional graph of a call, what its inputs are, how its results are grouped, and which
    tensors the graph's last results are for.

    Errors: `Unfit` where torch can't trace it, with its own reason.
    """
    global _table
    if _table is None:
        every = compat.every_decomposition(KEPT)
        _table = {op: f for op, f in every.items() if op not in RULES} | decompositions()
        _table |= {op: _unless_plain(every[op]) for op in PRODUCTS if op in every}
        _table |= {op: every[op] for op in NORMS if op in every and op not in RULES}
    scaled = bool(call.numbers_at)
    dtypes = [t.dtype for t in call.tensors]
    inputs: list[Input] = []
    fakes: list[torch.Tensor] = []
    with compat.static_fake_mode() as mode:
        for k, t in enumerate(call.tensors):
            fakes.append(
                torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=call.device)
            )
            inputs.append(Input(tensor=k))
        for k in call.numbers_at.values():
            fakes.append(torch.empty((), dtype=dtypes[0], device=call.device))
            inputs.append(Input(number=k, dtype=dtypes[0]))
    counts: list[int] = []
    stored: list[int] = []  # the tensors that the last results are for

    def run(*given: torch.Tensor) -> list[Any]:
        counts.clear()
        left = iter(given[: len(call.tensors)])
        numbers = given[len(call.tensors) :]
        arguments: list[Any] = []
        for i, a in enumerate(call.arguments):
            if i in call.numbers_at:
                arguments.append(numbers[call.numbers_at[i]])
            elif isinstance(a, (list, tuple)):
                arguments.append([next(left) if isinstance(x, torch.Tensor) else x for x in a])
            else:
                arguments.append(next(left) if isinstance(a, torch.Tensor) else a)
        made, values = _applied(call, arguments, scaled)
        stored[:] = call.written if values else []
        if values:
            return values
        every = made if isinstance(made, (tuple, list)) else (made,)
        returns = call.op._schema.returns
        if len(returns) == 1 and isinstance(made, list):
            every = (made,)
        flat: list[Any] = []
        for r, value in zip(returns, every, strict=True):
            if r.alias_info is not None:
                continue  # one of the arguments
            parts = value if isinstance(value, (list, tuple)) else [value]
            if any(x is not None and not isinstance(x, torch.Tensor) for x in parts):
                raise Unfit("a result that is no tensor")
            counts.append(len(parts) if isinstance(value, (list, tuple)) else -1)
            flat += parts
        return flat

    try:
        gm = compat.functional_graph(run, fakes, mode, _table, RULES)
    except Exception as e:  # whatever a fake kernel or a decomposition raises
        raise Unfit(f"{type(e).__name__}: {e}") from e
    return gm, tuple(inputs), tuple(counts), stored


def _unless_plain(decomposition: Callable) -> Callable:
    def f(*args: Any, beta: float = 1, alpha: float = 1) -> Any:
        plain = beta == 1 and alpha == 1
        return NotImplemented if plain else decomposition(*args, beta=beta, alpha=alpha)

    return f


def _applied(call: Call, arguments: list[Any], scaled: bool) -> tuple[Any, list[torch.Tensor]]:
    """What a call gives, and what it stores in the tensors that it says it writes to, where that is
    known without tracing how."""
    form = FORMS.get(call.name_of_op)
    if form is not None:
        return form(*arguments), []
    pairs = list(zip(call.parameters, arguments, strict=True))
    given = [a for p, a in pairs if not p.is_out]
    outs = [a for p, a in pairs if p.alias_info is not None and p.alias_info.is_write]
    outs_given = any(p.is_out for p in call.parameters)
    name = call.name_of_op.split(".")[1].removesuffix("_")
    if scaled and name == "lerp":
        weight = next(call.arguments[i] for i in call.numbers_at)
        made = lerp(weight)(*given)
    elif scaled:
        made = SCALED[name](*given)
    else:
        numbers = frozenset(
            p.name for p, a in pairs if str(p.real_type) == "Tensor" and isinstance(a, (int, float))
        )
        op = functional(call.op, numbers) if outs_given or numbers else call.op
        known = {p.name: a for p, a in pairs if not p.is_out}
        for p in op._schema.arguments:
            if p.name in OPTIONS and p.name not in known:  # of what makes a tensor of nothing
                known[p.name] = getattr(outs[0], p.name) if p.name in ("dtype", "device") else None
        own = [known[p.name] for p in op._schema.arguments if not p.kwarg_only]
        f = FORMS.get(str(op), op)
        made = f(*own, **{p.name: known[p.name] for p in op._schema.arguments if p.kwarg_only})
        if op is call.op:
            return made, []
    values = list(made) if isinstance(made, (tuple, list)) else [made]
    for i, (out, value) in enumerate(zip(outs, values, strict=True)):
        if not isinstance(out, torch.Tensor) or not torch.can_cast(value.dtype, out.dtype):
            raise Unfit(f"a result of {value.dtype} to be put elsewhere")
        values[i] = value.to(out.dtype)
    return None, values


OPTIONS = ("dtype", "layout", "device", "pin_memory")


@lru_cache(maxsize=None)
def functional(op: Any, numbers: frozenset[str]) -> Any:
    """The op that gives what `op` stores in its arguments `out`; one that takes numbers where
    numbers stand for tensors, if there is one."""
    packet = op.overloadpacket
    for taken in dict.fromkeys((numbers, frozenset[str]())):
        wanted = {
            a.name: "number" if a.name in taken else str(a.real_type)
            for a in op._schema.arguments
            if not a.is_out
        }
        for overload in packet.overloads():
            f = getattr(packet, overload)
            kinds = {a.name: str(a.real_type) for a in f._schema.arguments}
            kinds = {n: k for n, k in kinds.items() if n in wanted or n not in OPTIONS}
            if not f._schema.is_mutable and kinds == wanted:
                return f
    raise Unfit("no functional op for it")


def _outputs(gm: fx.GraphModule, inputs: Sequence[Input]) -> tuple[list[Any], list[int]]:
    """Give a graph that ends in writes to its inputs what is written as further outputs; and which
    tensors of the call they are for."""
    places = {n: i.tensor for n, i in zip(gm.graph.find_nodes(op="placeholder"), inputs)}
    output = gm.graph.output_node()
    results: Any = output.args[0]
    values = list(results) if isinstance(results, (tuple, list)) else [results]
    written: dict[int, Any] = {}
    copies = [n for n in gm.graph.nodes if n.target is torch.ops.aten.copy_.default]
    for n in copies:
        place, value = n.args[:2]
        if place not in places:
            raise Unfit("a write that is no argument's")
        written[places[place]] = value
    output.args = ([*values, *written.values()],)
    for n in reversed(copies):
        n.replace_all_uses_with(n.args[1])
        gm.graph.erase_node(n)
    gm.graph.eliminate_dead_code()
    if any(
        isinstance(n.target, compat.OpOverload) and n.target._schema.is_mutable
        for n in gm.graph.nodes
    ):
        raise Unfit("a write that is no argument's")
    gm.recompile()
    return list(output.args[0]), list(written)


def _direct(call: Call, program: Program, inputs: Sequence[Input], k: int, output: int) -> bool:
    """Whether a program may store a result where the call's tensor `k` lies: nothing that it reads
    is there, or each element is read where it is stored."""
    name = program.outputs[output]
    if name is None or program.buffers[name].scope != "output":
        return False
    if program.buffers[name].base is not None or program.outputs.count(name) > 1:
        return False
    own = [k, *call.alike[k]]
    if any(j != k and j in call.written for j in own):
        return False
    for j in own:
        buffers = [
            program.inputs[i] for i, x in enumerate(inputs) if x.tensor == j
        ]
        for b in buffers:
            readers = [
                step
                for step in program.kernels
                if any(program.base(r).name == b for r in read(step) if r)
            ]
            if len(readers) > 1 or not all(_pointwise(program, r, b, name) for r in readers):
                return False
    return True


def _pointwise(program: Program, kernel: Kernel | Extern, source: str, out: str) -> bool:
    """Whether a kernel reads an element of `source` only where it stores that of `out`."""
    if not isinstance(kernel, Kernel) or len(kernel.body) != 1:
        return False
    (nest,) = kernel.body
    if nest.binds or any(a.kind != "parallel" for a in nest.axes):
        return False
    stores = [s for s in nest.stores if out in s.buffers]
    if len(stores) != 1 or stores[0].mask or not _reads(program, nest, source):
        return False
    at = program.buffers[out].address(stores[0].index)
    return all(
        program.buffers[e.buffer].address(e.index) == at and not e.mask
        for e in _reads(program, nest, source)
    )


def _reads(program: Program, nest: Loops, source: str) -> list[Load]:
    roots = [v for s in nest.stores for v in s.values]
    return [
        e
        for e in walk(*roots)
        if isinstance(e, Load) and program.base(e.buffer).name == source
    ]


# -- running -------------------------------------------------------------------------------------


class OneOp:
    """The program of a call, as a function of its tensors and numbers. Gives the results that are
    no arguments."""

    def __init__(self, plan: Plan, target: Target, device: torch.device):
        self._executable = target.build(plan.kept.sources, plan.kept.program)
        self._prepared = self._executable.prepare(_constants(plan.kept))
        self._device = device
        self._inputs = [
            (i.tensor, i.number, i.dtype)
            for kind, j in plan.kept.given
            for i in (plan.inputs[j],)
            if kind == "input"
        ]
        self._results, self._writes = plan.results, plan.writes
        self._direct = [(w.output, w.tensor) for w in plan.writes if w.direct]
        self._resized = [(w.tensor, *w.resized) for w in plan.writes if w.resized]

    def __call__(self, tensors: list[torch.Tensor], numbers: list[float]) -> list[Any]:
        device = self._device
        given = []
        for k, number, dtype in self._inputs:
            if k < 0:
                given.append(_number(numbers[number], dtype, device))
            else:
                t = tensors[k]
                given.append(t if t.device == device else t.to(device))
        for k, shape, strides in self._resized:
            _resize(tensors[k], shape, strides)
        into = {output: tensors[k] for output, k in self._direct}
        made = self._executable(given, self._prepared, into)
        for w in self._writes:
            place = tensors[w.tensor]
            if made[w.output] is not place:
                place.copy_(made[w.output])
        return [None if r is None else made[r] for r in self._results]


def _constants(kept: programs.Kept) -> list[torch.Tensor]:
    """What the program reads that depends on no argument, computed once."""
    chosen = [j for kind, j in kept.given if kind == "weight"]
    made = kept.weights() if chosen else ()
    found = []
    for j, v in zip(chosen, kept.traced, strict=True):
        t = made[j]
        if t.stride() != v.strides:
            t = t.new_empty_strided(v.shape, v.strides).copy_(t)
        found.append(t)
    return found


def _resize(t: torch.Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """As eager does with an argument `out`; it warns of one that is not empty."""
    if t.numel():
        warnings.warn(
            f"An output with one or more elements was resized since it had shape {list(t.shape)},"
            f" which does not match the required output shape {list(shape)}. This behavior is"
            " deprecated, and in a future PyTorch release outputs will not be resized unless they"
            " have zero elements.",
            stacklevel=2,
        )
    t.resize_(shape)
    if t.stride() != strides:
        t.as_strided_(shape, strides)


_numbers: OrderedDict[tuple, torch.Tensor] = OrderedDict()


def _number(value: float, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
    """A number on the device."""
    key = value, dtype, device
    found = _numbers.get(key)
    if found is None:
        found = _numbers[key] = torch.tensor(value, dtype=dtype).to(device)
        while len(_numbers) > NUMBERS:
            _numbers.popitem(last=False)
    return found
