"""Every private torch import of this package, with what differs between versions 2.11 and 2.14.

One file, though a long one: what a new version of torch asks for is to be found in it.

Imports stand inside the functions: `import torch` itself loads this module (for the log names), and
Dynamo must not come with it.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module
from types import FunctionType
from typing import Any, NamedTuple

import torch

OpOverload = torch._ops.OpOverload
without_autocast = torch._C._DisableAutocast  # a context
aten = torch.ops.aten


def aot_autograd(**options: Any) -> Callable:
    """AOTAutograd as a Dynamo backend with the given compilers."""
    from torch._dynamo.backends.common import aot_autograd

    return aot_autograd(**options)


def reset_dynamo() -> None:
    """Forget every compiled frame."""
    import torch._dynamo

    torch._dynamo.reset()


def cuda_stream(device: torch.device) -> int:
    """The current stream of a CUDA device, as the driver knows it."""
    return torch._C._cuda_getCurrentRawStream(device.index)


def cuda_device() -> int:
    """The current CUDA device."""
    return torch._C._cuda_getDevice()


def cuda_now() -> tuple[Callable[[], int], Callable[[int], int]]:
    """What tells the current CUDA device, and a device's current stream, without Python between."""
    return torch._C._cuda_getDevice, torch._C._cuda_getCurrentRawStream


# (shape, strides, dtype): `torch.empty_strided` on the current CUDA device in half the time
empty_cuda: Callable[[Sequence[int], Sequence[int], torch.dtype], torch.Tensor]
empty_cuda = getattr(torch._C._dynamo.guards, "_empty_strided_cuda")  # noqa: B009


def autocasting() -> bool:
    """Whether any device's autocast is on."""
    return torch._C._is_any_autocast_enabled()


def tf32_products() -> frozenset[str]:
    """Which products of float32 may round their operands on a GPU: "matmul", "convolution"."""
    flags = {
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
    }
    return frozenset(kind for kind, precision in flags.items() if precision == "tf32")


def register_log(alias: str, name: str) -> None:
    """Make TORCH_LOGS=alias mean a logger (before torch 2.14 names are parsed too early)."""
    try:
        from torch._logging._internal import log_registry, register_log
    except ImportError:
        return
    if alias not in getattr(log_registry, "log_alias_to_log_qnames", {}):
        register_log(alias, [name])


def _tracing(what: str) -> Any:
    """What Dynamo and AOTAutograd know while a graph is compiled."""
    from torch._guards import TracingContext

    context = TracingContext.try_get()
    return getattr(context, what, None) if context is not None else None


def _forward_meta() -> Any:
    return _tracing("fw_metadata")


Way = tuple[tuple[str, str], ...]  # from a module on: a store of modules or tensors, a name in it


class Member(NamedTuple):
    """What is found from an argument on, by `member`: `way` is empty for the argument itself."""

    argument: int
    way: Way = ()


def pass_modules(gm: torch.fx.GraphModule, least: int) -> list[Member] | None:
    """Have Dynamo pass the modules that a graph's inputs are found in, instead of these inputs.

    Dynamo's code for a call fetches what the placeholders of its graph stand for when the backend
    has returned: they are changed, and the graph stays right. Returns where each input is found in
    what is passed from now on. None, and nothing is done, for a graph that
    is not straight from Dynamo, that is compiled again for what is passed (`specialize_on`), or
    where that is fewer arguments by less than `least`.
    """
    from torch._dynamo.variables.builder import GraphArg

    inputs = gm.graph.find_nodes(op="placeholder")
    args = [n.meta.get("grapharg") for n in inputs]
    mode = _tracing("fake_mode")
    if not all(isinstance(a, GraphArg) for a in args) or mode is None:
        return None
    if getattr(mode.shape_env, "specializations", None):
        return None
    found = [_from_module(a.source) if a.is_tensor else (a.source, ()) for a in args]
    roots = list(dict.fromkeys(root for root, way in found if way))
    if sum(bool(way) for _, way in found) - len(roots) < least:
        return None
    with gm.graph.inserting_before(inputs[0]):
        modules = [gm.graph.placeholder(f"module_{i}") for i in range(len(roots))]
    for n, root in zip(modules, roots, strict=True):
        n.meta["grapharg"] = GraphArg(root, None, False, None, is_tensor=False)
    members: list[Member] = []
    kept = len(roots)
    for n, (root, way) in zip(inputs, found, strict=True):
        if not way:
            members.append(Member(kept))
            kept += 1
            continue
        members.append(Member(roots.index(root), way))
        with gm.graph.inserting_after(inputs[-1]):
            tensor = gm.graph.call_function(member, (modules[members[-1].argument], way))
        n.replace_all_uses_with(tensor)
        gm.graph.erase_node(n)
    return members


def member(found: Any, way: Way) -> Any:
    """What is found from a module on. Errors: `AttributeError`, `KeyError` where it is missing."""
    for store, name in way:
        found = getattr(found, store)[name]
    return found


def _from_module(source: Any) -> tuple[Any, Way]:
    """Where a source starts, and the way from there through modules' stores."""
    from torch._dynamo import source as sources

    way: list[tuple[str, str]] = []
    while True:
        while isinstance(source, sources.UnspecializedNNModuleSource):
            source = source.base
        store = getattr(source, "base", None)
        if not (
            isinstance(source, sources.DictGetItemSource)
            and isinstance(source.index, str)
            and isinstance(store, sources.AttrSource)
            and store.member in ("_modules", "_parameters", "_buffers")
        ):
            return source, tuple(reversed(way))
        way.append((store.member, source.index))
        source = store.base


# -- Dynamo's graphs -------------------------------------------------------------------------------


class DynamoInput(NamedTuple):
    """An input of Dynamo's graph."""

    name: str
    fake: torch.Tensor
    static: str | None  # what says that it is of the model, if it is
    inference: bool  # whether it was made in inference mode


def dynamo_inputs(gm: torch.fx.GraphModule) -> list[DynamoInput] | None:
    """The inputs of a graph straight from Dynamo; None for other graphs, and where an input is
    anything but a plain tensor."""
    from torch._dynamo.variables.builder import GraphArg

    found = []
    for n in gm.graph.find_nodes(op="placeholder"):
        arg = n.meta.get("grapharg")
        if not isinstance(arg, GraphArg) or not arg.is_tensor or arg.pass_arg_as_tensor:
            return None
        if not is_plain(n):
            return None
        real = arg.example
        static = (n.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
        inference = isinstance(real, torch.Tensor) and real.is_inference()
        found.append(DynamoInput(n.name, n.meta["example_value"], static, inference))
    return found


def is_plain(n: torch.fx.Node) -> bool:
    """Whether a node of Dynamo's graph is a tensor of no other class."""
    from torch._subclasses.fake_tensor import FakeTensor

    return type(n.meta.get("example_value")) is FakeTensor


# where functions are found that mean the same in each process
_HOMES = (
    "torch",
    "torch.functional",
    "torch.nn.functional",
    "torch.amp.autocast_mode",
    "torch._C",
    "torch._C._nn",
    "torch._C._special",
    "torch._C._linalg",
    "torch._C._fft",
    "operator",
    "math",
)


def full_name(f: Any) -> str | None:
    """What a function that Dynamo's graph calls is in every process, by torch's or Python's name;
    None for all others."""
    if isinstance(f, (OpOverload, torch._ops.OpOverloadPacket)):
        return str(f) if str(f).startswith(("aten.", "prims.")) else None
    own = getattr(f, "__name__", "")
    for home in _HOMES:
        if getattr(_module(home), own, None) is f:
            return f"{home}.{own}"
    return None


@lru_cache
def _module(name: str) -> Any:
    """A module by its full name; None where this version has none of that name."""
    first, *parts = name.split(".")
    found: Any = import_module(first)
    for part in parts:
        found = getattr(found, part, None)
    return found


def dynamo_copy(gm: torch.fx.GraphModule) -> Callable[[], torch.fx.GraphModule]:
    """What makes a copy, as it is now, of a graph straight from Dynamo that owns no tensors."""
    graph, meta = torch.fx.Graph(), dict(gm.meta)
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, copies))
    for n in gm.graph.find_nodes(op="placeholder"):
        copies[n]._dynamo_source = n._dynamo_source

    def made() -> torch.fx.GraphModule:
        copied = torch.fx.GraphModule({}, graph)
        copied.meta = meta
        copied._param_name_to_source = {}  # type: ignore[assignment]
        return copied

    return made


@contextmanager
def compiling() -> Iterator[None]:
    """A context as Dynamo compiles in: in one thread at a time, since tracers replace functions of
    modules, and without the modes that are on, which it has seen to. Calls of compiled functions in
    other threads go on; before torch 2.13 they are eager ones meanwhile."""
    from torch._dynamo import config
    from torch._dynamo.convert_frame import compile_lock
    from torch._dynamo.utils import get_torch_function_mode_stack, set_torch_function_mode_stack
    from torch.utils._python_dispatch import _disable_current_modes

    session = getattr(torch.compiler, "_compile_session_context", nullcontext)
    eager = config.patch(error_on_nested_fx_trace=False)
    with compile_lock, session(), eager, _disable_current_modes():
        modes = get_torch_function_mode_stack()
        set_torch_function_mode_stack([])
        try:
            yield
        finally:
            set_torch_function_mode_stack(modes)


@contextmanager
def tracing_for(inputs: Iterable[DynamoInput]) -> Iterator[list[torch.Tensor]]:
    """A context for tracing one of Dynamo's graphs when Dynamo is through with it: the inputs."""
    from torch._guards import TracingContext, tracing

    fakes = [i.fake for i in inputs]
    with tracing(TracingContext(getattr(fakes[0], "fake_mode"))):  # noqa: B009
        yield fakes


def tracing_state() -> tuple[object, ...] | None:
    """What AOTAutograd and the ops that it traces read, but for the graph: the thread's modes and
    torch's flags. None where other modes are on, or functions replaced, which may do anything."""
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return None
    if _tracing("fakify_first_call") or _replaced():
        return None
    devices = "cpu", "cuda", torch._C._get_privateuse1_backend_name()
    cuda, cudnn, einsum = torch.backends.cuda, torch.backends.cudnn, torch.backends.opt_einsum
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices],
        autocasting(),
        torch.is_autocast_cache_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, torch.backends.mkldnn.enabled),
        (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()),
        (cuda.cudnn_sdp_enabled(), cuda.fp16_bf16_reduction_math_sdp_allowed()),
        torch.backends.mha.get_fastpath_enabled(),
        (einsum.is_available(), einsum.enabled, einsum.strategy),
        _functorch_config(),
    )


def _replaced() -> bool:
    """Whether someone has put functions of their own in the place of torch's."""
    own = os.path.dirname(torch.__file__) + os.sep
    python = os.path.dirname(os.__file__)
    places = [torch.Tensor, torch._C.TensorBase, *map(_module, _HOMES)]
    for f in (f for place in places if place is not None for f in vars(place).values()):
        if isinstance(f, FunctionType) and not (where := f.__code__.co_filename).startswith(own):
            folder, file = os.path.split(where)
            if folder != python and file != "typing_extensions.py":  # whose decorators torch uses
                return True
    return False


def _functorch_config() -> bytes:
    from torch._functorch import config

    return config.get_hash()


def wraps_plainly() -> bool:
    """Whether AOTAutograd's wrappers around the inference graph that it has just traced do no more
    than to turn autocast, and gradients, off: every input and result is as in Dynamo's graph."""
    meta = _forward_meta()
    return (
        meta is not None
        and not any(i.mutates_data or i.mutates_metadata for i in meta.input_info)
        and all(o.output_type.name == "non_alias" for o in meta.output_info)
        and not any(o.requires_grad for o in meta.output_info)
        and not (meta.num_intermediate_bases or meta.tokens or meta.num_graphsafe_rng_states)
        and not (meta.dynamic_outputs or meta.is_rng_op_functionalized)
        and meta.grad_enabled_mutation is None
        and all(
            type(m).__name__ == "PlainTensorMeta"
            for m in (*meta.subclass_inp_meta, *meta.subclass_fw_graph_out_meta)
        )
    )


# -- AOTAutograd -----------------------------------------------------------------------------------


def static_input_indices() -> list[int]:
    """Which graph inputs are parameters and buffers, as AOTAutograd found them."""
    return list(getattr(_forward_meta(), "static_input_indices", None) or [])


def mutated_input_indices() -> set[int]:
    """Which graph inputs the graph writes to."""
    meta = _forward_meta()
    found = set(getattr(meta, "mutated_inp_runtime_indices", None) or [])
    for i, info in enumerate(getattr(meta, "input_info", None) or []):
        if info.mutates_data or info.mutates_metadata:
            found.add(i)
    return found


def updates_of_inputs() -> list[tuple[int, int]]:
    """(output, input): what AOTAutograd copies behind a forward graph to which of its inputs, of
    those that are plain tensors without gradients."""
    meta = _forward_meta()
    if meta is None or meta.tokens:
        return []
    if any(s is not None for s in getattr(meta, "mutated_inp_stream_indices", None) or ()):
        return []
    if any(type(m).__name__ != "PlainTensorMeta" for m in meta.subclass_inp_meta):
        return []
    found = []
    for k, i in enumerate(meta.mutated_inp_runtime_indices):
        info = meta.input_info[i]
        moved = info.mutates_metadata or info.mutates_storage_metadata or info.requires_grad
        if info.mutates_data and not moved:
            found.append((k, i))
    return found


def inputs_with_gradients() -> set[int]:
    """Which graph inputs gradients are asked for."""
    infos = getattr(_forward_meta(), "input_info", None) or []
    return {i for i, info in enumerate(infos) if info.requires_grad}


def results_of_forward() -> int | None:
    """How many outputs of a forward graph are results; those behind are saved for backward."""
    return getattr(_forward_meta(), "num_forward", None)


def effect_tokens() -> int:
    """How many outputs, in front of all others, are tokens of side effects."""
    return len(getattr(_forward_meta(), "tokens", None) or ())


def report_output_strides(strides: Sequence[tuple[int, ...] | None]) -> None:
    """Tell AOTAutograd how the outputs of a forward graph lie, so that backward is compiled for
    saved activations as they are."""
    known = _tracing("output_strides")
    if known is not None:
        known.extend(strides)


def global_module_hooks() -> list[dict]:
    """The hooks that run around every module's forward."""
    from torch.nn.modules import module

    return [module._global_forward_hooks, module._global_forward_pre_hooks]


def all_users(
    tensors: list[torch.Tensor], storages: list[torch.UntypedStorage], in_memory: list[Any]
) -> list[list[int]]:
    """How many hold each tensor and storage, Python as one of them; and how many in Python.
    `in_memory`: `memory_of` each storage's tensors."""
    use_count: Any = torch.Tensor._use_count  # type: ignore[attr-defined]
    in_python = [*map(sys.getrefcount, tensors)], [*map(sys.getrefcount, storages)]
    return [
        [*map(use_count, tensors)], [*map(torch._C._storage_Use_Count, in_memory)], *in_python
    ]  # fmt: skip


def addresses(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Where they begin."""
    return [*map(torch.Tensor.data_ptr, tensors)]


class Layouts:
    """Whether tensors lie as some were traced: their shapes, strides and dtypes.

    Those of the last call, and others that differ in nothing that Dynamo guards, are told in one
    native call.
    """

    def __init__(self, traced: Sequence[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]]):
        self._sizes: dict[str, Any] = {
            "dynamic_dims_sizes": [list(n) for n, _, _ in traced],
            "dynamic_dims_strides": [list(s) for _, s, _ in traced],
        }
        self._traced = [s for _, s, _ in traced], [n for n, _, _ in traced], [d for *_, d in traced]
        self._guard: Callable[..., bool] = lambda *tensors: not tensors

    def fit(self, tensors: Sequence[torch.Tensor]) -> bool:
        if self._guard(*tensors):
            return True
        strides = [*map(torch.Tensor.stride, tensors)]
        if (strides, [t.shape for t in tensors], [t.dtype for t in tensors]) != self._traced:
            return False
        guards = torch._C._dynamo.guards.TensorGuards
        self._guard = guards(*tensors, **self._sizes).check
        return True


def allocations(device: torch.device) -> int:
    """How often memory of a GPU was asked for."""
    return torch.cuda.memory_stats(device).get("allocation.all.allocated", 0)


def memory_of(t: torch.Tensor) -> Any:
    """What tensors that lie in the same memory have in common, fake ones too."""
    return t.untyped_storage()._cdata


def with_memory(t: torch.Tensor) -> torch.Tensor:
    """A tensor as it is, but for the zeros of autograd that have no memory."""
    return t.clone() if t._is_zerotensor() else t


# (t, shape, strides, offset): another tensor in t's memory, of which autograd knows nothing; its
# first element lies `offset` behind that of t. Nothing is checked; shape and strides are tuples.
# It takes half the time of `as_strided`, a quarter of `set_`: there is no function around it.
part_of: Callable[[torch.Tensor, tuple[int, ...], tuple[int, ...], int], torch.Tensor]
part_of = getattr(torch._C._dynamo.guards, "_reinterpret_tensor")  # noqa: B009


def copy_all(places: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Tensors into others, all at once where there are several."""
    if len(places) > 1:
        torch._foreach_copy_(places, values)
    elif places:
        places[0].copy_(values[0])


def place_to_ask(traced: torch.Tensor) -> torch.device:
    """A device whose eager kernels do what they do to a traced tensor: its own, if it is here."""
    there = traced.device.type == "cuda" and torch.cuda.is_available()
    return traced.device if there else torch.device("cpu")


def tree_leaves(tree: Any) -> list[Any]:
    """What lies in nested containers."""
    from torch.utils._pytree import tree_leaves

    return tree_leaves(tree)


def tree_map(tree: Any, f: Callable[[torch.Tensor], Any]) -> Any:
    """Nested containers with f applied to their tensors."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, f, tree)


def needs_strides(target: Any) -> bool:
    """Whether an op's meaning depends on how its arguments lie in memory: custom ops, higher-order
    ops, as_strided, what says so itself; and products of numbers of few bits, which on a GPU
    refuse what lies otherwise."""
    if not isinstance(target, OpOverload) or target.namespace not in ("aten", "prims"):
        return True
    tags = {torch.Tag.needs_exact_strides, torch.Tag.needs_fixed_stride_order}
    name = target.name()
    own = "as_strided" in name or re.match(r"aten::_\w*mm(_|\b)", name) is not None
    return own or not tags.isdisjoint(target.tags)


# ops whose kernels read positions as if they lay in order, whatever their strides
CONTIGUOUS_ONLY = {
    aten.adaptive_max_pool3d_backward.default,
    aten.fractional_max_pool2d_backward.default,
    aten.fractional_max_pool3d_backward.default,
}


def gives_views(target: Any) -> bool:
    """Whether an op's results are, or may be, in memory of its arguments."""
    return any(r.alias_info is not None for r in target._schema.returns)


def reads_strides(target: Any) -> bool:
    """Whether an op must get its arguments as they were traced: a view works with some strides and
    not with others."""
    return needs_strides(target) or gives_views(target)


def reads_rows(target: Any) -> bool:
    """Whether an op's kernels take the elements of each row of their arguments to lie side by side,
    and check nothing or fail: those of attention, which torch chooses by how its arguments lie."""
    return isinstance(target, OpOverload) and "attention" in target.name()


def from_tensor(target: Any, args: Sequence[Any], first: Any) -> tuple[Any, ...]:
    """The arguments of an op, of which `as_strided` and its like say where to begin in the memory
    that their first tensor lies in, saying it from where that tensor begins."""
    at = _place_of_start(target, args) if isinstance(first, torch.Tensor) else None
    begins = first.storage_offset() if at is not None else 0
    return tuple(a - begins if k == at else a for k, a in enumerate(args))


def from_memory(target: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """The same again for ATen, where the first tensor lies now."""
    at = _place_of_start(target, args)
    begins = args[0].storage_offset() if at is not None else 0
    return tuple(a + begins if k == at else a for k, a in enumerate(args))


def counts_from_memory(target: Any, args: Sequence[Any]) -> bool:
    """Whether a call says where to begin in the memory of its first tensor."""
    return _place_of_start(target, args) is not None


def _place_of_start(target: Any, args: Sequence[Any]) -> int | None:
    if not isinstance(target, OpOverload) or "as_strided" not in target.name():
        return None
    names = [a.name for a in target._schema.arguments]
    at = names.index("storage_offset")
    return at if at < len(args) and args[at] is not None else None


def is_random(target: Any) -> bool:
    """Whether an op draws random numbers."""
    return isinstance(target, OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def core_decompositions(composite: bool) -> dict[Any, Callable]:
    """ATen's own decompositions into core ops; `composite`: with those of ops that AOTAutograd's
    tracing takes apart without a table, which take torch a tenth to a quarter of a second to list.
    """
    from torch import _decomp

    without = getattr(_decomp, "_core_aten_decompositions_post_autograd", None)
    if composite or without is None:
        return dict(_decomp.core_aten_decompositions())
    return without()


def every_decomposition(but: Iterable[Any]) -> dict[Any, Callable]:
    """All of torch's Python decompositions, those of core ops too, but for some ops."""
    from torch._decomp import decomposition_table

    kept = set(but)
    return {op: f for op, f in decomposition_table.items() if op not in kept}


_undecomposed = threading.Lock()
# kernels that are gone for a while, with the number of those who want it so
_gone: dict[tuple[Any, Any], tuple[Any, int]] = {}


@contextmanager
def undecomposed(ops: Iterable[Any]) -> Iterator[None]:
    """Trace these ops as they are: torch has Python kernels for some (resampling) that decompose
    them before any table of decompositions is asked. Meanwhile those are gone, for all overloads;
    another thread that traces then gets the same op by way of C++.

    No lock is held meanwhile: a trace may compute with constants of a device whose ops are traced
    in another thread, for which it waits.
    """
    from torch._C import DispatchKey

    keys = (DispatchKey.Autograd, DispatchKey.CompositeImplicitAutograd)
    packets = {op.overloadpacket for op in ops if isinstance(op, OpOverload)}
    own: list[tuple[Any, Any]] = []
    with _undecomposed:
        for overload in (getattr(p, name) for p in packets for name in p.overloads()):
            for key in keys:
                kernel, wanted = _gone.get((overload, key), (None, 0))
                if not wanted and (kernel := overload.py_kernels.pop(key, None)) is not None:
                    overload._dispatch_cache.clear()
                if kernel is not None:
                    _gone[overload, key] = kernel, wanted + 1
                    own.append((overload, key))
    try:
        yield
    finally:
        with _undecomposed:
            for overload, key in own:
                kernel, wanted = _gone.pop((overload, key))
                if wanted > 1:
                    _gone[overload, key] = kernel, wanted - 1
                else:
                    overload.py_kernels[key] = kernel
                    overload._dispatch_cache.clear()


def min_cut_partition() -> Callable:
    from functorch.compile import min_cut_rematerialization_partition

    return min_cut_rematerialization_partition


def is_tangent(n: torch.fx.Node) -> bool:
    """Whether a node of a joint graph is a gradient that backward is given."""
    return n.op == "placeholder" and "tangents" in str(n.target)


def has_backward_hook(n: torch.fx.Node) -> bool:
    """Whether a user's hook waits for a node's gradient: its recomputation must not need that."""
    return bool(n.meta.get("has_backward_hook", False))


def compute_in_backward(n: torch.fx.Node) -> bool:
    """Keep the partitioner from having forward save a node. False, and nothing is done, where a
    user has said what to do with it."""
    from torch.utils.checkpoint import CheckpointPolicy

    if "recompute" in n.meta:
        return False
    n.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE
    return True


def fake_mode_of(graph: torch.fx.Graph) -> Any:
    """The fake-tensor mode of a graph's example values."""
    from torch._guards import detect_fake_mode

    values = [n.meta.get("val") for n in graph.nodes if n.op == "placeholder"]
    return detect_fake_mode([v for v in values if isinstance(v, torch.Tensor)])


def unbacked_fake_mode() -> Any:
    """A fake-tensor mode in which sizes that are data become symbols."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)


def static_fake_mode() -> Any:
    """A fake-tensor mode in which sizes are numbers, and those that are data an error."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def functional_graph(
    f: Callable,
    inputs: Sequence[torch.Tensor],
    mode: Any,
    table: dict[Any, Callable],
    whole: Iterable[Any],
) -> torch.fx.GraphModule:
    """The graph of a function of fake tensors, decomposed by a table, but for ops that stay whole.
    It writes to nothing, but for `copy_` to inputs at its end."""
    from torch.fx.experimental.proxy_tensor import make_fx

    g = torch.func.functionalize(f, remove="mutations_and_views")
    traced = make_fx(g, decomposition_table=table)
    _without_patches(traced)
    with quiet_fakes(), mode, undecomposed(whole):
        return traced(*inputs)


@contextmanager
def quiet_fakes() -> Iterator[None]:
    """Ops that have no fake kernel, or that it refuses: it says so in red, beside raising."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    said, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = said


def _without_patches(traced: Callable) -> None:
    """Have make_fx leave `nn.Module` alone: fx patches its methods for all threads, of which others
    may be calling modules, or tracing themselves and putting our patch back for good."""
    from torch import fx

    maker: Any = inspect.getclosurevars(traced).nonlocals["make_fx_tracer"]
    inner = maker._trace_inner

    def trace(root: Callable, concrete_args: Any = None) -> fx.Graph:
        tracer = maker.fx_tracer
        tracer.root, tracer.tensor_attrs = torch.nn.Module(), {}
        tracer.graph = fx.Graph(tracer_cls=type(tracer))
        f, args = tracer.create_args_for_root(root, False, concrete_args)
        tracer.create_node("output", "output", (tracer.create_arg(f(*args)),), {})
        tracer.submodule_paths = None
        return tracer.graph

    def trace_inner(f: Callable, *args: Any) -> fx.GraphModule:
        maker.fx_tracer.trace = trace
        try:
            return inner(f, *args)
        finally:
            del maker.fx_tracer.trace

    maker._trace_inner = trace_inner


_ENUMERATED: dict[str, tuple[Any, ...]] = {
    "ScalarType": (
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16),
        *(torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128),
        *(torch.bool, torch.qint8, torch.quint8, torch.qint32, torch.bfloat16),
    ),
    "Layout": (torch.strided,),
    "MemoryFormat": (
        *(torch.contiguous_format, torch.preserve_format, torch.channels_last),
        torch.channels_last_3d,
    ),
}


def enumerated(kind: str, value: Any) -> Any:
    """An argument of an op as Python's object, where the dispatcher holds the number of a dtype,
    layout or memory format."""
    known = _ENUMERATED.get(kind.removeprefix("Optional[").removesuffix("]"))
    if known is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return known[value] if value < len(known) else None


@contextmanager
def plain_dispatch() -> Iterator[None]:
    """Without the dispatch modes and Python's kernels, autocast and gradients that a caller may
    have on."""
    from torch._dispatch.python import no_python_dispatcher
    from torch.utils._python_dispatch import _disable_current_modes

    with (
        torch._C._DisableAutocast(),
        torch.no_grad(),
        _disable_current_modes(),
        no_python_dispatcher(),
    ):
        yield


# -- the device "ve" ------------------------------------------------------------------------------

FREE_DEVICE_NAME = "privateuseone"


def private_device_name() -> str:
    """What the one device that is not torch's own is called; `FREE_DEVICE_NAME` if it is free."""
    return torch._C._get_privateuse1_backend_name()


def names_private_device(name: str) -> bool:
    """Whether a device's name means that device, and not one of torch's own of the same name."""
    return torch._C._get_privateuse1_backend_name() == name and torch.device(
        name, 0
    ) == torch.device(FREE_DEVICE_NAME, 0)


def register_device_module(name: str, module: Any) -> None:
    """Make a module torch.<name>."""
    torch._register_device_module(name, module)


def print_from_host(name: str) -> None:
    """Print a device's tensors from a copy on the host, as torch does for some devices: else each
    print runs a dozen small operators there."""
    from torch import _tensor_str

    original = _tensor_str._tensor_str
    if getattr(original, "of_device", None) == name:
        return

    def tensor_str(self: torch.Tensor, indent: int) -> str:
        return original(self.cpu() if self.device.type == name else self, indent)

    tensor_str.of_device = name  # type: ignore[attr-defined]
    _tensor_str._tensor_str = tensor_str


def dynamo_loaded() -> bool:
    """Whether the program has imported Dynamo, which takes seconds."""
    return "torch._dynamo" in sys.modules


def register_device_interface(name: str, module: Any) -> None:
    """Tell Dynamo of a device whose module has torch.cuda's names."""
    from torch._dynamo.device_interface import DeviceInterface, register_interface_for_device

    class Worker(DeviceInterface.Worker):
        set_device = staticmethod(module.set_device)
        current_device = staticmethod(module.current_device)
        get_device_properties = staticmethod(module.get_device_properties)

    def set_stream_by_id(stream_id: int, device_index: int, device_type: int) -> None:
        module.set_stream(
            module.Stream(stream_id=stream_id, device_index=device_index, device_type=device_type)
        )

    def raw_stream(device_index: int) -> int:
        return module.current_stream(device_index).stream_id

    functions = {
        "Event": module.Event,
        "Stream": module.Stream,
        "Worker": Worker,
        "_set_stream_by_id": staticmethod(set_stream_by_id),
        "get_raw_stream": staticmethod(raw_stream),
        "maybe_exchange_device": staticmethod(module._maybe_exchange_device),
        "exchange_device": staticmethod(module._exchange_device),
        "get_compute_capability": staticmethod(module.get_device_capability),
    }
    for same in (
        *("device", "current_device", "set_device", "device_count", "is_available", "stream"),
        *("current_stream", "set_stream", "synchronize", "is_bf16_supported", "memory_allocated"),
    ):
        functions[same] = staticmethod(getattr(module, same))
    interface = type("VectorEngineInterface", (DeviceInterface,), functions)
    register_interface_for_device(name, interface)
    for i in range(module.device_count()):
        register_interface_for_device(f"{name}:{i}", interface)
