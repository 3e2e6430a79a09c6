"""The torch.compile entry: `torch.compile(model, backend="sol")`.

`build` is the whole pipeline, top to bottom. Graphs whose sizes are symbols are built for the sizes
that come again (`sizes.BySizes`). What can't be taken (ops that write, devices without a target)
runs op by op on ATen, which is always right; an error of our own does so with one warning, or
raises under SOL_STRICT=1.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import fx

from . import compat, fx_passes, programs, spec, traced
from .candidates import Candidates
from .config import Config, check_mode, config
from .decompositions import decompositions
from .fallback import run_on_aten
from .fast_path import calls
from .ir import KernelError, Program, show
from .lowering import RULES, lower
from .lowering.graph import LEFT_TO_ATEN, Products, foreign
from .programs import Value
from .runner import Compiled, Found, Graph, Runner, Strides
from .runtime import collector
from .schedule import schedule
from .sizes import BySizes, has_symbols
from .target import Target, get_target
from .traced import Untraced

log = logging.getLogger("sol_dynamo")


@dataclass
class Outcome:
    """What became of one graph, for `explain`."""

    kind: str  # inference, forward or backward
    ops: tuple[str, ...]
    runner: Runner | None  # None: all of it runs on ATen
    reason: str = ""  # why

    @property
    def compiled(self) -> Compiled:
        """Errors: `ValueError` for a graph that runs on ATen."""
        if self.runner is None:
            raise ValueError(f"a {self.kind} graph of {len(self.ops)} ops on ATen: {self.reason}")
        return self.runner.compiled


_dumped = count()

# How a graph is traced, and traced again where torch fails: decomposed (some decompositions do not
# know sizes that are data) and functional (an input gets other memory in a graph that writes only).
TRACINGS = ((True, True), (False, True), (False, False))

FETCHED = 8  # weights are fetched where that saves as many arguments of Dynamo's call

SYMBOLS = "symbolic sizes: compiled for those that come a second time"


class Backend:
    """The callable that Dynamo knows; users get one object, so that recompile guards compare equal.

    `graphs` are the latest graphs that it was given.
    """

    def __init__(self, fetches: bool = True) -> None:
        """`fetches`: weights are taken from the modules at each call, not from Dynamo."""
        self.__name__ = "sol"
        self._fetches = fetches
        self.graphs: deque[Outcome] = deque(maxlen=64)

    def __deepcopy__(self, memo: dict) -> Backend:
        """A copy of a compiled model is compiled by the same backend."""
        return self

    def __reduce__(self) -> Any:
        """A compiled model that was saved is compiled again where it is loaded."""
        return "sol" if self is sol else (Backend, ())

    def __call__(
        self,
        gm: fx.GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> Callable:
        """Compile a Dynamo graph.

        Errors: `ValueError` for an unknown mode or option, naming the nearest valid one.
        """
        check_mode(mode)
        autotune = {"autotune": True} if (mode or "").startswith("max-autotune") else {}
        c = config(**{**autotune, **(options or {})})
        name = None if c.debugs else traced.name(gm, c)
        with collector.paused():
            made = self._untraced(gm, name, c) if name else None
            run, inner = made or self._traced(gm, example_inputs, name, c)
            members = compat.pass_modules(gm, FETCHED) if self._fetches else None
            return run if members is None else calls(run, members, inner)

    def _traced(
        self, gm: fx.GraphModule, inputs: Sequence[Any], name: str | None, c: Config
    ) -> tuple[Callable, Runner | None]:
        """A Dynamo graph by AOTAutograd, and what it comes to if it has no gradients. What it was
        traced to is kept under `name`."""
        for tracing in TRACINGS:
            reached: list[Outcome | None] = []  # graphs that torch has given us to compile
            try:
                with compat.undecomposed(RULES if tracing[0] else ()):
                    run = self._compiler(c, reached, *tracing)(gm, inputs)
            except Exception as e:
                if reached or tracing is TRACINGS[-1]:
                    raise
                log.info("traced again, otherwise: %s", e)
                continue
            outcome = next((o for o in reached if o and o.kind == "inference"), None)
            runner = outcome.runner if outcome else None
            if name and outcome and runner and tracing is TRACINGS[0] and len(reached) == 1:
                traced.keep(gm, name, runner, outcome.ops)
            return run, runner
        raise AssertionError("the last tracing returns or raises")

    def _untraced(
        self, gm: fx.GraphModule, name: str, c: Config
    ) -> tuple[Callable, Untraced] | None:
        """A Dynamo graph of which it is known what it is traced to."""
        inputs = compat.dynamo_inputs(gm) or []
        known = traced.load(inputs, name, c.weight_sets)
        if known is None:
            return None
        runner, ops = known
        outcome = Outcome("inference", ops, runner)
        self.graphs.append(outcome)
        copied = compat.dynamo_copy(gm)

        def trace(unstable: set[int]) -> tuple[Callable, Runner]:
            other = Backend()
            with collector.paused(), compat.tracing_for(inputs) as fakes:
                run, made = other._traced(copied(), fakes, None, c)
            if made is None:
                raise RuntimeError(f"it was traced otherwise: {other.graphs[-1].reason}")
            made.demote(unstable)
            outcome.runner = made
            return run, made

        untraced = Untraced(runner, trace)
        return untraced.call, untraced

    def _compiler(
        self, c: Config, reached: list[Outcome | None], decompose: bool, functional: bool
    ) -> Callable:
        def role(kind: str) -> Callable:
            def compile(g: fx.GraphModule, x: Sequence[Any]) -> Callable:
                reached.append(None)
                with collector.paused():  # torch may call this from a call of the forward graph
                    run, outcome = compile_or_fall_back(g, x, kind, c)
                self.graphs.append(outcome)
                reached[-1] = outcome
                return run

            return compile

        return compat.aot_autograd(
            fw_compiler=role("forward"),
            bw_compiler=role("backward"),
            inference_compiler=role("inference"),
            partition_fn=fx_passes.partitioned,
            decompositions=decompositions(c.fallback_random) if decompose else {},
            # graphs stay functional: what is written to an input comes as one more output, so that
            # no kernel has to know before or behind which write it reads
            keep_inference_input_mutations=not functional,
        )

    def reset(self) -> None:
        """Called by torch._dynamo.reset()."""
        self.graphs.clear()


sol = Backend()


def compile_or_fall_back(
    gm: fx.GraphModule, example_inputs: Sequence[Any], kind: str, c: Config
) -> tuple[Callable, Outcome]:
    """Our program for an "inference", "forward" or "backward" graph, or the graph on ATen."""
    ops = tuple(str(n.target) for n in gm.graph.nodes if n.op == "call_function")
    on_aten = run_on_aten(gm, restride=kind == "backward")
    reason = unsupported(gm)
    if reason is not None:
        log.info("a graph (%s) runs on ATen: %s", _summary(gm.graph.nodes), reason)
        return on_aten, Outcome(kind, ops, None, reason)
    try:
        if has_symbols(gm):
            outcome = Outcome(kind, ops, None, SYMBOLS)
            return by_sizes(gm, c, kind, on_aten, outcome), outcome
        runner = compile_graph(gm, c, kind, example_inputs)
        return runner, Outcome(kind, ops, runner)
    except Exception as e:
        if c.strict:
            raise
        warnings.warn(_apology(gm.graph.nodes, e), stacklevel=2)
        return on_aten, Outcome(kind, ops, None, f"{type(e).__name__}: {e}")


def _apology(nodes: Iterable[fx.Node], e: Exception) -> str:
    return (
        f"sol_dynamo could not compile some of a graph ({_summary(nodes)}) and leaves it to ATen: "
        f"right, but no faster. Please report this: {type(e).__name__}: {e}"
    )


def _summary(nodes: Iterable[fx.Node]) -> str:
    """How many ops these are, and the user's line that they begin with."""
    calls = [n for n in nodes if n.op == "call_function"]
    traces = (str(n.meta.get("stack_trace") or "") for n in calls)
    for trace in filter(None, traces):
        where, *code = [line.strip() for line in trace.split("  File ")[-1].splitlines()[:2]]
        return f"{len(calls)} ops, from {where}: {''.join(code)}"
    return f"{len(calls)} ops"


def unsupported(gm: fx.GraphModule) -> str | None:
    """Why a graph is not for us, or None."""
    for n in gm.graph.nodes:
        if n.op in ("call_module", "call_method"):
            return f"{n.op} {n.target}"
        if isinstance(n.target, compat.OpOverload) and n.target._schema.is_mutable:
            return f"{n.target} writes to its arguments"
    devices = _devices(gm)
    if not any(map(get_target, devices)):
        return f"no target for {', '.join(devices) or 'a graph without tensors'}"
    return _several(gm, next(d for d in devices if get_target(d)))


def _several(gm: fx.GraphModule, kind: str) -> str | None:
    """Why a graph's tensors of a type of device are not all on one device, which a program is for:
    that of its inputs."""
    if kind == "cpu":
        return None
    found = {v.device for v in _tensors(gm.graph.nodes) if v.device.type == kind}
    given = {v.device for v in _tensors(gm.graph.find_nodes(op="placeholder"))}
    if len(found) > 1:
        return f"tensors on several devices: {', '.join(sorted(map(str, found)))}"
    if not found & given and torch.get_device_module(kind).device_count() > 1:
        return f"tensors are made on {', '.join(map(str, found))}, where no input is"
    return None


def _tensors(nodes: Iterable[fx.Node]) -> Iterator[torch.Tensor]:
    """The fake tensors that nodes give."""
    for n in nodes:
        values = n.meta.get("val")
        for v in values if isinstance(values, (tuple, list)) else (values,):
            if isinstance(v, torch.Tensor):
                yield v


def _devices(gm: fx.GraphModule) -> list[str]:
    """The types of device of a graph's tensors; those with most of them first."""
    found = Counter(v.device.type for v in _tensors(gm.graph.nodes))
    return [device for device, _ in found.most_common()]


@dataclass(frozen=True)
class Roles:
    """Which inputs of a graph belong to the model, and which of them may be hoisted: those that
    neither the graph nor training writes to."""

    static: frozenset[int] = frozenset()
    weights: frozenset[int] = frozenset()
    views: bool = True  # whether results that view each other do so when compiled


def _roles(kind: str) -> Roles:
    """As AOTAutograd knows them while it compiles."""
    if kind == "backward":  # autograd keeps gradients as they come: none may change with another
        return Roles(views=False)
    static = frozenset(compat.static_input_indices())
    written = compat.mutated_input_indices()
    trained = compat.inputs_with_gradients() if kind == "forward" else set()
    return Roles(static, static - written - trained)


def by_sizes(
    gm: fx.GraphModule, c: Config, kind: str, on_aten: Callable, outcome: Outcome
) -> BySizes:
    """A graph with symbolic sizes; `outcome` tells of the program that was compiled last."""
    roles = _roles(kind)

    def compiled(static: fx.GraphModule) -> Callable:
        reason = unsupported(static)
        if reason is not None:
            log.info("for these sizes, too, the graph runs on ATen: %s", reason)
            return on_aten
        try:
            outcome.runner = _runner(static, c, roles)
        except Exception as e:
            if c.strict:
                raise
            warnings.warn(_apology(static.graph.nodes, e), stacklevel=2)
            return on_aten
        return outcome.runner

    return BySizes(gm, compiled, on_aten, c.sizes)


def compile_graph(
    gm: fx.GraphModule, c: Config, kind: str = "inference", example_inputs: Sequence[Any] = ()
) -> Runner:
    """A graph, with what may be hoisted of its weights, as a boxed callable.

    Weights that training updates are inputs of a forward graph. What it saves for backward lies as
    suits us; the backward graph is compiled for that (`example_inputs` are so).
    """
    if kind == "backward":
        placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
        for n, x in zip(placeholders, example_inputs, strict=True):
            n.meta["val"] = x
    if kind != "forward":
        return _runner(gm, c, _roles(kind))
    strides = fx_passes.traced_strides(gm)
    results, tokens = compat.results_of_forward(), compat.effect_tokens()
    if results is not None:
        strides[tokens + results :] = [None] * (len(strides) - tokens - results)
    runner = _runner(gm, c, _roles(kind), strides, _updates(gm))
    compat.report_output_strides((runner.output_strides or [])[tokens:])
    return runner


def _updates(gm: fx.GraphModule) -> tuple[tuple[int, int], ...]:
    """(output, input) of a forward graph: the statistics of batch norms, say. AOTAutograd copies
    them one by one behind the call, which finds nothing to do where the runner has done so. Not of
    an input that backward reads, since autograd is to see that it has changed."""
    given, results = gm.graph.find_nodes(op="placeholder"), gm.graph.output_node().args[0]
    assert isinstance(results, (tuple, list))

    def kind(n: Any) -> tuple | None:
        t = n.meta.get("val") if isinstance(n, fx.Node) else None
        return (t.shape, t.dtype, t.device) if isinstance(t, torch.Tensor) else None

    def fits(result: Any, x: fx.Node) -> bool:
        return kind(x) is not None and kind(x) == kind(result) and x not in results

    return tuple((k, i) for k, i in compat.updates_of_inputs() if fits(results[k], given[i]))


def _runner(
    gm: fx.GraphModule,
    c: Config,
    roles: Roles,
    output_strides: Strides | None = None,
    updates: Sequence[tuple[int, int]] = (),
) -> Runner:
    """A traced graph, compiled; `output_strides` as in `fx_passes.run`."""
    values = _placeholders(gm)
    views = fx_passes.views_of_outputs(gm) if roles.views else None
    results: Any = gm.graph.output_node().args[0]
    constants = [(k, r) for k, r in enumerate(results) if not isinstance(r, fx.Node)]
    static, weights = (
        frozenset(i for i in some if not foreign(values[i]))
        for some in (roles.static, roles.weights)
    )

    def find(weights: Sequence[int], strides: Strides | None) -> Found:
        return build(gm, weights, c, strides, views)

    graph = Graph(values, static, constants, updates)
    return Runner(graph, weights, find, _target(gm), c.weight_sets, output_strides)


def build(
    gm: fx.GraphModule,
    weights: Sequence[int],
    c: Config,
    output_strides: Strides | None = None,
    output_views: fx_passes.Views | None = None,
) -> Found:
    """FX graph -> passes -> loop IR -> schedule -> source, or what is known of an equal graph.

    `weights` are the inputs whose sub-graphs are hoisted; `output_strides` and
    `output_views` as in `fx_passes.run`.
    """
    target = _target(gm)
    key = None if c.debugs else _name(gm, weights, target, c, output_strides, output_views)
    kept = programs.find(key, programs.Kept) if key else None
    if kept is not None:
        return Found(kept, key)
    target.start()
    kept, changed = _compiled(gm, weights, target, c, output_strides, output_views)
    known = key is not None and not changed and programs.keep(key, kept)
    return Found(kept, key if known else None)


def compiled(
    gm: fx.GraphModule,
    target: Target,
    c: Config,
    output_strides: Strides | None = None,
) -> tuple[programs.Kept, bool]:
    """A graph without weights as source, and whether ops were left to ATen for an error of ours."""
    return _compiled(gm, (), target, c, output_strides, None)


def _name(
    gm: fx.GraphModule, weights: Sequence[int], target: Target, c: Config, *more: object
) -> str | None:
    """What a compiled graph is kept under."""
    flags = sorted(compat.tf32_products())
    return programs.name(gm, target.caps, target.describe(), list(weights), c, flags, *more)


def _compiled(
    gm: fx.GraphModule,
    weights: Sequence[int],
    target: Target,
    c: Config,
    output_strides: Strides | None,
    output_views: fx_passes.Views | None,
) -> tuple[programs.Kept, bool]:
    """FX graph -> passes -> loop IR -> schedule -> source; and whether ops were left to ATen that
    should not have been, with a warning."""
    if c.dump:
        c = replace(c, dump=str(Path(c.dump) / f"graph{next(_dumped)}"))
    graph = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    hoisted = fx_passes.run(graph, weights, target.caps, c, output_strides, output_views)
    if c.fallback_random:
        for n in hoisted.main.graph.nodes:
            if compat.is_random(n.target):
                n.meta[LEFT_TO_ATEN] = "fallback_random"
    program, sources, changed = _program(hoisted, target, c)
    _dump_sources(sources, c)
    inputs = sum(kind == "input" for kind, _ in hoisted.sources)
    values = tuple(map(Value.of, _placeholders(hoisted.main)[inputs:]))
    weights_of = programs.Formula.of(hoisted.weights)
    return programs.Kept(program, sources, hoisted.sources, weights_of, values), changed


def _program(
    hoisted: fx_passes.Hoisted, target: Target, c: Config
) -> tuple[Program, dict[str, str], bool]:
    """A program and its source; the ops of kernels that the target can't take run on ATen, with a
    warning (under SOL_STRICT=1 it is an error), and whether there are such."""
    caps = target.caps
    tf32 = compat.tf32_products() if caps.tf32 else frozenset()
    products = Products(tf32, caps.half_products, None, caps.rectified, caps.alone)
    if (by_model := caps.elsewhere) is not None:
        products = replace(products, elsewhere=lambda work, node: by_model(work))
        if c.autotune and caps.seconds is not None:
            given = hoisted.main.graph.find_nodes(op="placeholder")
            scopes = {n: kind for n, (kind, _) in zip(given, hoisted.sources, strict=True)}
            products = replace(products, elsewhere=Candidates(target, products, scopes))
    changed = False
    while True:
        program = lower(hoisted.main, hoisted.sources, caps.device_type, products)
        _look("lower", program, c)
        try:
            walk = partial(target.walk, measure=c.autotune)
            program = schedule(program, caps, walk, lambda name, p: _look(name, p, c))
            return program, target.emit(program), changed
        except KernelError as e:
            blamed = [n for n in hoisted.main.graph.nodes if n.name in e.kernel.origin.nodes]
            if c.strict or all(LEFT_TO_ATEN in n.meta for n in blamed):
                raise
            warnings.warn(_apology(blamed, e), stacklevel=2)
            changed = True
            for n in blamed:
                n.meta[LEFT_TO_ATEN] = f"not compiled: {e}"


def _placeholders(gm: fx.GraphModule) -> list[Any]:
    """The fake values of a graph's inputs."""
    return [n.meta.get("val") for n in gm.graph.find_nodes(op="placeholder")]


def _target(gm: fx.GraphModule) -> Target:
    for target in map(get_target, _devices(gm)):
        if target is not None:
            return target
    raise ValueError("a graph without tensors on a device that has a target")


def _look(stage: str, program: Program, c: Config) -> None:
    if c.check or c.strict:
        spec.check(program, stage)
    if c.dump:
        folder = Path(c.dump)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"ir_{stage}.txt").write_text(show(program))


def _dump_sources(sources: dict[str, str], c: Config) -> None:
    if c.dump:
        for name, text in sources.items():
            (Path(c.dump) / name).write_text(text)
