"""What AOTAutograd made of Dynamo's graphs, on disk: tracing is a quarter of a warm first call.

The name of an entry is a hash of all that tracing reads: the graph with the user's lines, its
inputs, the thread's modes, torch's flags, and what `programs.key` says of versions and the target.
A graph has one if it is for inference, all its ops are torch's own and all its sizes are numbers.
What is kept leads to the program of the traced graph. That is called without autocast, for graphs
around which AOTAutograd's wrappers do nothing else (`compat.wraps_plainly`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import fx

from . import compat, programs
from .fast_path import Parts
from .programs import NamelessError, Value, text
from .runner import Found, Graph, Runner
from .target import Target, get_target

log = logging.getLogger("sol_dynamo")
P = ParamSpec("P")
T = TypeVar("T")
Trace = Callable[[set[int]], tuple[Callable, Runner]]

META = ("custom",)  # what users annotate nodes with may mean anything
ATTRIBUTES = ("T", "mT", "H", "mH", "real", "imag")  # of tensors: functions, written otherwise


@dataclass(frozen=True)
class Traced:
    """What an inference graph was traced to."""

    program: str  # the name of what became of it
    ops: tuple[str, ...]
    static: frozenset[int]  # inputs that belong to the model, as AOTAutograd says


def _optional(f: Callable[P, T]) -> Callable[P, T | None]:
    """A function without which a graph is traced: None, and a line in the log, for its errors."""

    @wraps(f)
    def attempted(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return f(*args, **kwargs)
        except Exception as e:
            log.info("a graph that is traced (%s): %s: %s", f.__name__, type(e).__name__, e)
            return None

    return attempted


# -- names ---------------------------------------------------------------------------------------


@_optional
def name(gm: fx.GraphModule, options: object) -> str | None:
    """What the tracing of Dynamo's graph is kept under; None for a graph that is always traced."""
    inputs, state = compat.dynamo_inputs(gm), compat.tracing_state()
    if not inputs or state is None:
        return None
    if torch.is_grad_enabled() and any(i.fake.requires_grad for i in inputs):
        return None  # for training; all others need not turn gradients off
    if any(i.static and i.inference for i in inputs):
        return None  # such weights become inputs at once
    target = _target(inputs)
    if target is None:
        return None
    lines = [_input(i) for i in inputs]
    lines += [_line(n) for n in gm.graph.nodes if n.op != "placeholder"]
    flags = sorted(compat.tf32_products())
    return programs.key("traced", target.caps, target.describe(), options, flags, state, lines)


def _target(inputs: Sequence[compat.DynamoInput]) -> Target | None:
    """That of the device that all inputs are on, if there is one."""
    kinds = {i.fake.device.type for i in inputs}
    return get_target(kinds.pop()) if len(kinds) == 1 else None


def _input(i: compat.DynamoInput) -> str:
    t = i.fake
    if t.is_conj() or t.is_neg():
        raise NamelessError("a tensor that is to be conjugated or negated when it is read")
    more = t.requires_grad, isinstance(t, torch.nn.Parameter), i.static, i.inference
    return f"{i.name}: {text(t)} {more}"


def _line(n: fx.Node) -> str:
    if any(key in n.meta for key in META):
        raise NamelessError(f"{n.name}, which is annotated")
    if n.op == "call_function":
        target = compat.full_name(n.target) or ""
        if n.target is getattr and _of_a_tensor(n) and n.args[1] in ATTRIBUTES:
            target = "getattr"
    elif n.op == "call_method" and _of_a_tensor(n):
        target = f".{n.target}"
    elif n.op == "output":
        target = n.op
    else:
        target = ""
    if not target:
        raise NamelessError(f"{n.op} {n.target}")
    where = n.meta.get("stack_trace") or ""
    return f"{n.name} = {target}{text(n.args)}{text(n.kwargs)}  # {where}"


def _of_a_tensor(n: fx.Node) -> bool:
    return isinstance(n.args[0], fx.Node) and compat.is_plain(n.args[0])


# -- entries -------------------------------------------------------------------------------------


@_optional
def keep(gm: fx.GraphModule, name: str, runner: Runner, ops: tuple[str, ...]) -> None:
    """Write down what a graph was just traced to, where calls can do without tracing."""
    graph, inputs = runner.graph, compat.dynamo_inputs(gm)
    if inputs is None or runner.name is None or graph.constants or not compat.wraps_plainly():
        return
    if [Value.of(i.fake) for i in inputs] == [*map(Value.of, graph.values)]:
        programs.keep(name, Traced(runner.name, ops, graph.static))


@_optional
def load(
    inputs: Sequence[compat.DynamoInput], name: str, sets: int
) -> tuple[Runner, tuple[str, ...]] | None:
    """The program of a graph that is kept under a name, for so many sets of weights, and the ops
    that it was traced to; None where anything of it is not known."""
    known = programs.find(name, Traced)
    kept = programs.find(known.program, programs.Kept) if known else None
    target = _target(inputs)
    if known is None or kept is None or target is None:
        return None
    found = Found(kept, known.program)
    graph = Graph([i.fake for i in inputs], known.static)
    runner = Runner(graph, known.static, lambda *_: found, target, sets, demotes=False)
    return runner, known.ops


# -- calls ---------------------------------------------------------------------------------------


class Untraced:
    """The calls of a graph that was not traced, since what it was traced to is known.

    Where its weights keep changing it is traced after all, in the call that shows it: `trace`, in
    the grad and autocast modes of a call, which are those that the graph was compiled in, is given
    the inputs that are no longer to be hoisted, and gives a callable and the runner inside.
    """

    def __init__(self, runner: Runner, trace: Trace):
        self.runner = runner
        self._trace: Trace | None = trace
        self._run: Callable | None = None
        self._autocast = compat.autocasting()

    # what `fast_path.Inner` asks for
    @property
    def parts(self) -> Parts | None:
        return self.runner.parts

    @property
    def noted(self) -> tuple[int, list[int], list[int]]:
        return self.runner.noted

    @property
    def noting(self) -> bool:
        return self.runner.noting

    @noting.setter
    def noting(self, value: bool) -> None:
        self.runner.noting = value

    def call(self, *args: Any) -> Any:
        """What Dynamo calls. (A method: what is done to a function that it is given copies the
        attributes of an object, and would hold a program that is no longer called.)"""
        if self._run is not None:
            return self._run(*args)
        runner = self.runner
        if self._autocast:
            with compat.without_autocast():
                results = runner([*args])
        else:
            results = runner([*args])
        if self._trace is not None and runner.unstable:
            self._trace_after_all(runner.unstable)
        return results

    def _trace_after_all(self, unstable: set[int]) -> None:
        with compat.compiling():
            trace, self._trace = self._trace, None
            if trace is None:
                return
            try:
                run, runner = trace(unstable)
            except Exception as e:  # the program at hand is right, and merely prepares each time
                log.warning("weights that change often stay as they are: %s", e)
                return
            runner.noting = self.runner.noting
            self.runner, self._run = runner, run
