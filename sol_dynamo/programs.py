"""Compiled graphs on disk: a graph that was compiled before is found by what it says, and neither
rewritten nor lowered nor scheduled again.

The name of an entry is a hash of all that compiling reads: nodes, values, options, torch's flags,
the target's numbers, the versions of torch and Python, and this package's own source. Nothing is
kept of a graph that has no such name (symbolic sizes, attributes, calls that are no operators), or
whose program holds what cannot be written down. Nothing here knows what compiling does.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import fx

from .compat import OpOverload
from .ir import Program, Ref, filled
from .runtime import cache
from .target import Caps

log = logging.getLogger("sol_dynamo")
SUFFIX = ".graph"
CONVERT = torch.ops.prims.convert_element_type.default
T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """A tensor's dtype, shape and strides."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, t: torch.Tensor) -> Value:
        return cls(t.dtype, tuple(t.shape), tuple(t.stride()))


@dataclass(frozen=True)
class Formula:
    """Calls of operators, one behind the other, of values by name."""

    inputs: tuple[str, ...]
    calls: tuple[tuple[str, Callable, Any, Any], ...]  # with arguments in which `Ref`s stand
    results: Any

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Formula:
        def args(value: Any) -> Any:
            return _plain(fx.map_arg(value, lambda n: Ref(n.name)))

        calls: list[tuple[str, Callable, Any, Any]] = []
        for n in gm.graph.nodes:
            if n.op == "get_attr":
                value = reduce(getattr, str(n.target).split("."), gm)
                calls.append((n.name, _Constant(value), (), {}))
            elif n.target is CONVERT:  # a prim's kernel is Python: half of what a call takes
                x, dtype = n.args
                calls.append(
                    (n.name, torch.ops.aten._to_copy.default, args((x,)), {"dtype": dtype})
                )
            elif n.op == "call_function":
                assert callable(n.target), n.target
                calls.append((n.name, n.target, args(n.args), args(n.kwargs)))
        inputs = tuple(n.name for n in gm.graph.find_nodes(op="placeholder"))
        return cls(inputs, tuple(calls), args(gm.graph.output_node().args[0]))

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        found = dict(zip(self.inputs, values, strict=True))
        last = {name: -1 for name in (*self.inputs, *(c[0] for c in self.calls))}
        for n, (name, _, args, kwargs) in enumerate(self.calls):
            last |= dict.fromkeys((*_names((args, kwargs)), name), n)
        last |= dict.fromkeys(_names(self.results), len(self.calls))
        gone: dict[int, list[str]] = {}  # values that no later call reads: large ones are not kept
        for name, n in last.items():
            gone.setdefault(n, []).append(name)
        for n, (name, function, args, kwargs) in enumerate(self.calls):
            args, kwargs = filled((args, kwargs), found.__getitem__)
            found[name] = function(*args, **kwargs)
            del args, kwargs
            for k in gone.get(n, ()):
                del found[k]
        return tuple(filled(self.results, found.__getitem__))


def _names(tree: Any) -> dict[str, Any]:
    """The values that arguments have."""
    found: dict[str, Any] = {}
    filled(tree, found.setdefault)
    return found


def _plain(value: Any) -> Any:
    """Arguments in Python's own lists, which are written and read faster than FX's."""
    if isinstance(value, Ref):
        return value
    if isinstance(value, (tuple, list)):
        parts = [_plain(v) for v in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


@dataclass(frozen=True)
class _Constant:
    value: Any

    def __call__(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Kept:
    """What a graph became."""

    program: Program
    sources: dict[str, str]
    given: tuple[tuple[str, int], ...]  # as `fx_passes.Hoisted.sources`
    weights: Formula  # of all weights: what the program takes of them
    traced: tuple[Value, ...]  # the tensors of these that the program takes, as traced


# -- names ---------------------------------------------------------------------------------------


class NamelessError(ValueError):
    """What a graph is made of has no text that is the same in each process."""


def name(gm: fx.GraphModule, caps: Caps, *parts: object) -> str | None:
    """What an entry is called; None for a graph without a name. `parts`: whatever else compiling
    depends on, as its `repr` says."""
    try:
        lines = "\n".join(map(_line, gm.graph.nodes))
    except NamelessError as e:
        log.debug("a graph that is not kept: %s", e)
        return None
    return key("graph", caps, *parts, lines)


def key(kind: str, caps: Caps, *parts: object) -> str:
    """A name of an entry: a hash of versions, of a target's numbers, and of all that `parts` say as
    their `repr`."""
    numbers = {f.name: getattr(caps, f.name) for f in fields(caps)}
    own = {k: v for k, v in numbers.items() if not callable(v)}
    version = torch.__version__, sys.version_info[:2], _own_source()
    return cache.key(kind, version, own, parts)


def _line(n: fx.Node) -> str:
    if n.op not in ("placeholder", "call_function", "output"):
        raise NamelessError(f"{n.op} {n.target}")
    target = _target(n.target) if n.op == "call_function" else n.op
    args, kwargs = text(n.args), text(n.kwargs)
    value = "" if n.op == "output" else text(n.meta.get("val"))
    return f"{n.name} = {target}{args}{kwargs}: {value}  # {n.meta.get('stack_trace') or ''}"


def _target(target: Any) -> str:
    if isinstance(target, OpOverload):
        return str(target)
    module = getattr(target, "__module__", None)
    if module in ("_operator", "builtins", "math"):
        return f"{module}.{target.__name__}"
    raise NamelessError(f"a call of {target}")


def text(value: Any) -> str:
    """A value's text, the same in each process. Errors: `NamelessError`."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise NamelessError(f"a tensor of layout {value.layout}")
        shape, place = (*value.shape,), (*value.stride(), value.storage_offset())
        if not all(type(i) is int for i in (*shape, *place)):
            raise NamelessError(f"a tensor of shape {shape}")
        return f"{value.dtype}{shape}{place}{value.device}"
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (tuple, list)):
        parts = ", ".join(map(text, value))
        return f"({parts})" if isinstance(value, tuple) else f"[{parts}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}={text(v)}' for k, v in value.items())}}}"
    plain = (int, float, complex, bool, str, type(None), torch.dtype, torch.device)
    if type(value) in (*plain, torch.memory_format, torch.layout, slice, range, type(...)):
        return repr(value)
    raise NamelessError(f"a {type(value).__name__}")


@lru_cache
def _own_source() -> str:
    """A hash of this package: what an older one made is not found by a newer one. C that stands in
    generated code is part of it."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for p in sorted(p for kind in ("*.py", "*.c", "*.h") for p in root.rglob(kind)):
        digest.update(p.read_bytes())
    return digest.hexdigest()


# -- entries -------------------------------------------------------------------------------------


def find(key: str, kind: type[T]) -> T | None:
    """What a graph, or whatever else, of that name became, if it is known."""
    path = cache.lookup(key, SUFFIX)
    if path is None:
        return None
    try:
        found = pickle.loads(path.read_bytes())  # from a folder that is the user's alone
        return found if isinstance(found, kind) else None
    except Exception as e:  # of another version of something, or gone
        log.info("the compiled graph %s cannot be read: %s: %s", path, type(e).__name__, e)
        return None


def keep(key: str, kept: object) -> bool:
    """Write it down, where that can be, which it returns."""
    out = io.BytesIO()
    try:
        _Pickler(out, protocol=5).dump(kept)
    except Exception as e:
        log.debug("a compiled graph is not kept: %s: %s", type(e).__name__, e)
        return False
    cache.store(key, SUFFIX, out.getvalue())
    return True


def _operator(name: str) -> Any:
    """An operator by its full name, "aten.add.Tensor"."""
    return reduce(getattr, name.split("."), torch.ops)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, OpOverload):
            return _operator, (str(obj),)
        if isinstance(obj, (torch.Tensor, fx.Node, torch.nn.Module, torch.SymInt, torch.SymFloat)):
            raise pickle.PicklingError(f"a {type(obj).__name__}")
        return NotImplemented
