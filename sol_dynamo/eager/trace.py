"""A call as a functional graph: results, and what is stored in its arguments, are outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import fx

from .. import compat
from ..decompositions import KEPT, NORMS, decompositions
from ..forms import FORMS, SCALED, lerp
from ..lowering import RULES
from .calls import Call, Unfit

_table: dict[Any, Callable] | None = None
# whose rules add a product as it is: with factors they are several ops
PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.baddbmm.default)

# of no elements eager raises, and torch's fake kernel does not
OF_SOME = (torch.ops.aten.max.default, torch.ops.aten.min.default)
# torch's decomposition gives (1,) for a result without dimensions
WRONG = (torch.ops.aten.multilabel_margin_loss_forward.default,)
OPTIONS = ("dtype", "layout", "device", "pin_memory")


@dataclass(frozen=True)
class Input:
    """Where an input of the program comes from: a tensor of the call by position, or one of its
    numbers, as a tensor of a dtype."""

    tensor: int = -1
    number: int = -1
    dtype: torch.dtype | None = None


def traced(
    call: Call,
) -> tuple[fx.GraphModule, tuple[Input, ...], tuple[int, ...], list[int]]:
    """The functional graph of a call, what its inputs are, how its results are grouped, and which
    tensors the graph's last results are for.

    Errors: `Unfit` where torch can't trace it, with its own reason.
    """
    global _table
    if _table is None:
        every = compat.every_decomposition(KEPT)
        _table = {op: f for op, f in every.items() if op not in RULES}
        _table |= decompositions(composite=True)
        _table |= {op: _unless_plain(every[op]) for op in PRODUCTS if op in every}
        _table |= {op: every[op] for op in NORMS if op in every and op not in RULES}
        for op in WRONG:
            _table.pop(op, None)
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
        for i in call.numbers_at:
            for _ in range(call.count_of(i)):
                inputs.append(Input(number=len(fakes) - len(call.tensors), dtype=dtypes[0]))
                fakes.append(torch.empty((), dtype=dtypes[0], device=call.device))
    counts: list[int] = []
    stored: list[int] = []  # the tensors that the last results are for

    def run(*given: torch.Tensor) -> list[Any]:
        counts.clear()
        left = iter(given[: len(call.tensors)])
        numbers = iter(given[len(call.tensors) :])
        arguments: list[Any] = []
        for i, a in enumerate(call.arguments):
            if i in call.numbers_at:
                own = [next(numbers) for _ in range(call.count_of(i))]
                arguments.append(own if isinstance(a, (list, tuple)) else own[0])
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
        if not returns:
            every = ()
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

    _check(call, mode)
    try:
        gm = compat.functional_graph(run, fakes, mode, _table, RULES)
    except Exception as e:  # whatever a fake kernel or a decomposition raises
        raise Unfit(f"{type(e).__name__}: {e}") from e
    return gm, tuple(inputs), tuple(counts), stored


def _check(call: Call, mode: Any) -> None:
    """Raise `Unfit` for what torch's own kernel for tensors without data refuses: decompositions
    take some shapes that eager does not."""
    op = call.op
    if call.name_of_op in FORMS or op.namespace != "aten":
        return
    if op in OF_SOME and not call.tensors[0].numel():
        raise Unfit("refused: nothing to choose from")
    if op is torch.ops.aten.uniform_.default and call.arguments[1] > call.arguments[2]:
        raise Unfit("refused: no number lies between")
    if any(p.is_out for p in call.parameters):  # whose fake kernels are more particular than eager
        try:
            op = functional(op, frozenset())
        except Unfit:
            return
    with mode, compat.quiet_fakes():
        fakes = iter(
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=call.device)
            for t in call.tensors
        )

        def given(a: Any) -> Any:
            if isinstance(a, (list, tuple)):
                return [given(x) for x in a]
            return next(fakes) if isinstance(a, torch.Tensor) else a

        known = {p.name: given(a) for p, a in zip(call.parameters, call.arguments, strict=True)}
        pairs = [(p, known[p.name]) for p in op._schema.arguments if p.name in known]
        try:
            op(
                *(a for p, a in pairs if not p.kwarg_only),
                **{p.name: a for p, a in pairs if p.kwarg_only},
            )
        except Exception as e:
            if type(e) in (RuntimeError, IndexError, ValueError, TypeError):
                raise Unfit(f"refused: {e}") from e


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


@cache
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


def outputs_of(gm: fx.GraphModule, inputs: Sequence[Input]) -> tuple[list[Any], list[int]]:
    """Give a graph that ends in writes to its inputs what is written as further outputs; and which
    tensors of the call they are for."""
    places = {
        n: i.tensor for n, i in zip(gm.graph.find_nodes(op="placeholder"), inputs, strict=True)
    }
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
