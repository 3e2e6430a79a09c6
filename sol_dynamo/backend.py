"""The torch.compile entry: `torch.compile(model, backend="sol")`.

`compile_graph` is the whole pipeline, top to bottom. What it cannot take (training graphs so far,
symbolic sizes, devices without a target) runs op by op on ATen, which is always right; an error of
our own does so with one warning, or raises under SOL_STRICT=1.
"""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import fx

from . import compat, fx_passes, spec
from .config import Config, check_mode, config
from .ir import Program, show
from .lowering import lower
from .lowering.graph import DTYPE
from .runtime.weights import WeightSets
from .schedule import schedule
from .target import Executable, Target, get_target

log = logging.getLogger("sol_dynamo")


@dataclass
class Compiled:
    """One compiled graph, kept for `explain`."""

    program: Program
    sources: dict[str, str]
    executable: Executable
    sets: WeightSets


compiled: deque[Compiled] = deque(maxlen=64)
_dumped = count()


class Unfit(Exception):
    """A program was called with weights of other shapes, strides or dtypes than it was made for:
    Dynamo's guards keep that out, who calls past them must expect it."""


class Backend:
    """The callable that Dynamo knows; one object, so that recompile guards compare equal."""

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
        c = config(**(options or {}))
        reached: list[fx.GraphModule] = []  # graphs that torch has given us to compile

        def inference(g: fx.GraphModule, x: Sequence[Any]) -> Callable:
            reached.append(g)
            return compile_or_fall_back(g, c)

        def compiler(decompose: dict[Any, Callable]) -> Callable:
            return self._compiler(inference, decompose)

        try:
            return compiler(decompositions())(gm, example_inputs)
        except Exception as e:
            if reached:
                raise
            log.info("traced again, without decompositions: %s", e)
            return compiler({})(gm, example_inputs)  # some do not know sizes that are data

    def _compiler(self, inference: Callable, decompose: dict[Any, Callable]) -> Callable:
        return compat.aot_autograd(
            fw_compiler=lambda g, x: run_on_aten(g),
            bw_compiler=lambda g, x: run_on_aten(g),
            inference_compiler=inference,
            partition_fn=compat.min_cut_partition(),
            decompositions=decompose,
            # graphs stay functional: what is written to an input comes as one more output, so that
            # no kernel has to know before or behind which write it reads
            keep_inference_input_mutations=False,
        )

    def reset(self) -> None:
        """Called by torch._dynamo.reset()."""
        compiled.clear()


sol = Backend()
sol.__name__ = "sol"  # type: ignore[attr-defined]


def decompositions() -> dict[Any, Callable]:
    """ATen's core decompositions, less the ops that have a rule of their own and attention, which
    in parts is several times slower than ATen's kernel and has other strides."""
    from .lowering import RULES

    kept = {*RULES, torch.ops.aten._native_batch_norm_legit_no_training.default}
    kept |= {torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default}
    kept |= {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default}
    return {op: f for op, f in compat.core_decompositions().items() if op not in kept}


def compile_or_fall_back(gm: fx.GraphModule, c: Config) -> Callable:
    """Our program for a graph, or the graph on ATen."""
    reason = unsupported(gm)
    if reason is not None:
        log.info("a graph runs on ATen: %s", reason)
        return run_on_aten(gm)
    try:
        return compile_graph(gm, c)
    except Exception as e:
        if c.strict:
            raise
        message = (
            f"sol_dynamo could not compile a graph ({_summary(gm)}) and leaves it to ATen: right, "
            f"but no faster. Please report this: {type(e).__name__}: {e}"
        )
        warnings.warn(message, stacklevel=2)
        return run_on_aten(gm)


def _summary(gm: fx.GraphModule) -> str:
    """A graph's size and the user's line that it begins with."""
    calls = [n for n in gm.graph.nodes if n.op == "call_function"]
    traces = (str(n.meta.get("stack_trace") or "") for n in calls)
    for trace in filter(None, traces):
        where, *code = [line.strip() for line in trace.split("  File ")[-1].splitlines()[:2]]
        return f"{len(calls)} ops, from {where}: {''.join(code)}"
    return f"{len(calls)} ops"


def unsupported(gm: fx.GraphModule) -> str | None:
    """Why a graph is not for us, or None."""
    devices = set()
    for n in gm.graph.nodes:
        if n.op in ("get_attr", "call_module", "call_method"):
            return f"{n.op} {n.target}"
        if isinstance(n.target, compat.OpOverload) and n.target._schema.is_mutable:
            return f"{n.target} writes to its arguments"
        values = n.meta.get("val")
        if n.op == "placeholder" and not isinstance(values, torch.Tensor):
            return f"input {n.name} is no tensor"
        if n.op == "placeholder" and (values.is_neg() or values.is_conj()):
            return f"input {n.name} is negated or conjugated where it is read"
        for v in values if isinstance(values, (tuple, list)) else (values,):
            if isinstance(v, torch.Tensor):
                devices.add(v.device.type)
                if v.dtype not in DTYPE or v.layout != torch.strided:
                    return f"a tensor of {v.dtype}, {v.layout}"
                if any(not isinstance(s, int) for s in v.shape):
                    return "symbolic sizes"
            elif n.op == "call_function" and v is not None:
                return f"{n.target} gives {type(v).__name__}"
    if len(devices) != 1:
        return f"devices {sorted(devices)}"
    if get_target(next(iter(devices))) is None:
        return f"no target for {next(iter(devices))}"
    return None


def compile_graph(gm: fx.GraphModule, c: Config) -> Runner:
    """A graph, with what may be hoisted of its weights, as a boxed callable."""
    static = set(compat.static_input_indices())
    return Runner(gm, c, static - compat.mutated_input_indices(), static)


def build(gm: fx.GraphModule, weights: Sequence[int], c: Config) -> tuple[Compiled, list[int]]:
    """FX graph -> passes -> loop IR -> schedule -> source -> native code.

    `weights` are the inputs whose sub-graphs are hoisted; returns the inputs that are left, too.
    """
    target = _target(gm)
    if c.dump:
        c = replace(c, dump=str(Path(c.dump) / f"graph{next(_dumped)}"))
    hoisted = fx_passes.run(fx.GraphModule(gm, copy.deepcopy(gm.graph)), weights, target.caps, c)
    fits = [_kind(v) for v in _placeholders(gm, weights)]
    program = lower(hoisted.main, hoisted.sources)
    _look("lower", program, c)
    program = schedule(program, target.caps, target.walk, lambda name, p: _look(name, p, c))
    inputs = [i for kind, i in hoisted.sources if kind == "input"]
    sources = target.emit(program)
    _dump_sources(sources, c)
    executable = target.build(sources, program)

    chosen = [j for kind, j in hoisted.sources if kind == "weight"]
    traced = _placeholders(hoisted.main, range(len(inputs), len(inputs) + len(chosen)))

    def prepare(values: list[torch.Tensor]) -> list[torch.Tensor]:
        if list(map(_kind, values)) != fits:
            raise Unfit
        made = hoisted.weights(*values)
        return executable.prepare(
            [_laid_out(made[j], v) for j, v in zip(chosen, traced, strict=True)]
        )

    sets = WeightSets(prepare, c.weight_sets, weights)
    return Compiled(program, sources, executable, sets), inputs


def _placeholders(gm: fx.GraphModule, which: Iterable[int]) -> list[torch.Tensor]:
    """The fake values of some of a graph's inputs."""
    values = [n.meta["val"] for n in gm.graph.nodes if n.op == "placeholder"]
    return [values[i] for i in which]


def _kind(t: torch.Tensor) -> tuple:
    """What a program relies on: dtype, shape, and strides where they matter."""
    moves = tuple(s for n, s in zip(t.shape, t.stride(), strict=True) if n != 1)
    return t.dtype, tuple(t.shape), moves if t.numel() else ()


def _laid_out(t: torch.Tensor, as_traced: torch.Tensor) -> torch.Tensor:
    """What was computed of weights, in the strides that tracing promised."""
    if _kind(t) == _kind(as_traced):
        return t
    return t.new_empty_strided(as_traced.shape, as_traced.stride()).copy_(t)


class Runner:
    """The boxed callable of a compiled graph: takes a list of inputs and clears it.

    A weight that keeps changing (a KV cache, training) becomes an ordinary input: the graph is
    built again without hoisting it.
    """

    _boxed_call = True

    def __init__(self, gm: fx.GraphModule, c: Config, weights: set[int], static: set[int]):
        """`weights` are to be hoisted, of the `static` inputs, which belong to the model."""
        self._gm, self._config, self._weights, self._static = gm, c, weights, static
        self._lock = threading.Lock()
        self._demotes = True
        self._build()

    def _build(self) -> None:
        weights = sorted(self._weights)
        made, inputs = build(self._gm, weights, self._config)
        rest = sorted(self._static - self._weights)
        kinds = map(_kind, _placeholders(self._gm, rest))
        self._unhoisted = list(zip(rest, kinds, strict=True))
        self._now = made.executable, made.sets, inputs  # in one step: other threads may be calling
        compiled.append(made)

    def __call__(self, args: list[Any]) -> list[Any]:
        executable, sets, wanted = self._now
        for i, kind in self._unhoisted:
            if _kind(args[i]) != kind:
                raise Unfit
        prepared = sets.get(args)
        if sets.unstable and self._demotes:
            self._demote(sets)
        inputs = [args[i] for i in wanted]
        args.clear()
        return executable(inputs, prepared)

    def _demote(self, sets: WeightSets) -> None:
        with self._lock:
            if sets is not self._now[1]:
                return
            unstable = {sorted(self._weights)[i] for i in sets.unstable}
            log.info("%d weights change often and are inputs from now on", len(unstable))
            weights, self._weights = self._weights, self._weights - unstable
            try:
                self._build()
            except Exception as e:  # the program at hand is right, and merely prepares each time
                self._weights, self._demotes = weights, False
                log.warning("weights that change often stay as they are: %s", e)


def _target(gm: fx.GraphModule) -> Target:
    for n in gm.graph.nodes:
        value = n.meta.get("val")
        if isinstance(value, torch.Tensor):
            target = get_target(value.device.type)
            assert target is not None
            return target
    raise ValueError("a graph without tensors")


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


def run_on_aten(gm: fx.GraphModule) -> Callable:
    """A graph as it is, op by op."""

    def run(args: list[Any]) -> list[Any]:
        values = list(args)
        args.clear()
        return gm(*values)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run
