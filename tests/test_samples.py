"""Every sample of samples.py, interpreted and compiled, against eager.

A row's samples make one graph (and so one compilation); each is run on two sets of fresh inputs.
Outputs have eager's dtypes, shapes and strides, in memory that held NaN and the largest integers
before, so that what a program leaves unwritten is seen; inputs stay as they were. In float64 there
is no more exact reference: there, 64 ulp.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from accuracy import relative_error, wide
from samples import ROWS, Row, S, T
from torch import fx
from torch._subclasses import FakeTensorMode

from sol_dynamo import interp, spec
from sol_dynamo.backend import compile_graph, sol
from sol_dynamo.config import config
from sol_dynamo.lowering import RULES, lower

SEEDS = (1,) if os.environ.get("SOL_TEST_TARGET") else (1, 2)  # an interpreter is slow
PARTS = 4
TARGET = os.environ.get("SOL_TEST_TARGET")
DEVICE = TARGET if TARGET in ("cuda", "ve") else "cpu"
EAGER = "cuda" if TARGET == "cuda" else "cpu"  # whose results are right
aten = torch.ops.aten
names = {str(op): op for op in ROWS}


class Call(NamedTuple):
    """A sample as a function of the tensors among its arguments."""

    sample: S
    op: Any
    derived: bool = False  # run on a computed value: a view of memory that is no input

    def tensors(self, seed: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(seed)
        return [x.make(g) for x in leaves(self.sample)]

    def __call__(self, *tensors: Any, apply: Callable = lambda op, *a, **k: op(*a, **k)) -> list:
        """The results that the sample uses; `apply` is how an op is called."""
        rest = iter(tensors)

        def fill(x: Any) -> Any:
            if isinstance(x, T):
                value = next(rest)
                return apply(computed(x), value) if self.derived else value
            return [fill(y) for y in x] if isinstance(x, list) else x

        args = [fill(a) for a in self.sample.args]
        kwargs = {k: fill(v) for k, v in self.sample.kwargs.items()}
        result = apply(self.op, *args, **kwargs)
        value = self.eager(result)
        if isinstance(value, torch.Tensor):
            return [result]
        wanted = range(len(value)) if self.sample.outs is None else self.sample.outs
        return [apply(operator.getitem, result, k) for k in wanted]

    @staticmethod
    def eager(result: Any) -> Any:
        return result.meta["val"] if isinstance(result, fx.Node) else result


def computed(x: T) -> Any:
    return aten.logical_not.default if x.dtype is torch.bool else aten.neg.default


def leaves(sample: S) -> list[T]:
    found: list[T] = []
    for a in [*sample.args, *sample.kwargs.values()]:
        found += [x for x in (a if isinstance(a, list) else [a]) if isinstance(x, T)]
    return found


def calls(op: Any, row: Row, failing: bool = False) -> list[Call]:
    samples = [x for x in row.samples if bool(x.xfail) == failing]
    derived = [Call(x, op, True) for x in samples] if row.view else []
    return list(filter(runs_in_eager, [*(Call(x, op) for x in samples), *derived]))


def runs_in_eager(call: Call) -> bool:
    """Whether the device has a kernel for it: integers, say, are multiplied on CPUs alone."""
    try:
        return EAGER == "cpu" or bool(eager(call, call.tensors(SEEDS[0])))
    except (NotImplementedError, RuntimeError):  # this one for results that it leaves undefined
        return False


def eager(call: Call, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """ATen's results, as tensors of the host."""
    return [moved(x, "cpu") for x in call(*(moved(x, EAGER) for x in tensors))]


def graph(many: Sequence[Call]) -> fx.GraphModule:
    """All calls side by side, as AOTAutograd would give them: op by op, with fake values."""
    g, mode = fx.Graph(), FakeTensorMode()
    value = Call.eager

    def apply(op: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = g.call_function(op, args, kwargs)
        fakes = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
        with mode, torch.no_grad():
            node.meta["val"] = op(*fakes[0], **fakes[1])
        return node

    inputs: list[list[fx.Node]] = []
    for k, call in enumerate(many):
        inputs.append([])
        for j, x in enumerate(call.tensors(SEEDS[0])):
            node = g.placeholder(f"x{k}_{j}")
            node.meta["val"] = mode.from_tensor(moved(x, DEVICE), static_shapes=True)
            inputs[-1].append(node)
    outs = [o for c, x in zip(many, inputs, strict=True) for o in c(*x, apply=apply)]
    g.output(tuple(outs))
    assert all(isinstance(value(o), torch.Tensor) for o in outs)
    return fx.GraphModule(torch.nn.Module(), g)


def moved(x: torch.Tensor, device: str) -> torch.Tensor:
    """A tensor on another device, laid out alike."""
    if x.device.type == device:
        return x
    memory = x.as_strided((x.untyped_storage().nbytes() // x.itemsize,), (1,), 0)
    return memory.to(device).as_strided(x.shape, x.stride(), x.storage_offset())


def compare(call: Call, check: str, got: torch.Tensor, k: int, inputs: list[torch.Tensor]) -> None:
    """Hold one result to what eager gives for the same inputs."""
    theirs = eager(call, inputs)[k]
    assert got.dtype == theirs.dtype, f"{got.dtype}, eager's is {theirs.dtype}"
    assert got.shape == theirs.shape, f"{tuple(got.shape)}, eager's is {tuple(theirs.shape)}"
    if check == "shape":
        return
    if check == "random":
        alike_distributed(got, theirs)
        return
    if not theirs.is_floating_point():
        same(got, theirs, got == theirs)
        return
    widened = Call(wide_sample(call.sample), call.op, call.derived)
    exact = widened(*map(wide, inputs))[k].double()
    finite = theirs.isfinite() & got.isfinite()
    # An intermediate value of eager's may overflow where the exact result does not.
    ulps = 4 * torch.finfo(got.dtype).eps * exact.abs()
    near = exact.isfinite() & ((got.double() - exact).abs() <= ulps)
    right = alike(got, exact.to(got.dtype)) | near
    same(got, theirs, finite | alike(got, theirs) | right)
    if check in ("exact", "equal"):
        equal = alike(got, theirs)
        if check == "exact":
            equal &= (got.signbit() == theirs.signbit()) | theirs.isnan()
        same(got, theirs, equal)
        return
    defined = finite & exact.isfinite()
    got, theirs, exact = got[defined], theirs[defined], exact[defined]
    ulp = torch.finfo(got.dtype).eps * (32 if got.dtype is torch.float64 else 1)
    error, allowed = relative_error(got, exact), relative_error(theirs, exact)
    assert error <= 2 * allowed + 2 * ulp, f"error {error:.2e}, eager's {allowed:.2e}"
    if check == "each":
        off = (theirs.double() - exact).abs()
        allowed = 2 * off + 2 * ulp * exact.abs() + 2 * torch.finfo(got.dtype).tiny
        same(got, exact, (got.double() - exact).abs() <= allowed)


def alike_distributed(got: torch.Tensor, eager: torch.Tensor) -> None:
    """The test of Kolmogorov and Smirnov for two samples, at a level that fails once in 10^9."""
    a, b = (x.double().flatten().sort().values for x in (got, eager))
    both = torch.cat([a, b])
    below = [torch.searchsorted(x, both, right=True) / max(len(x), 1) for x in (a, b)]
    distance = (below[0] - below[1]).abs().max().item() if len(a) else 0
    limit = (10.7 / max(len(a), 1)) ** 0.5 * 2**0.5
    assert distance <= limit, f"distributions are {distance:.3f} apart, more than {limit:.3f}"


def alike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a == b) | (a.isnan() & b.isnan())


def same(got: torch.Tensor, wanted: torch.Tensor, equal: torch.Tensor) -> None:
    """Complain with the first few elements that are not equal."""
    if not bool(equal.all()):
        wrong = [tuple(i.tolist()) for i in (~equal).nonzero()]
        shown = ", ".join(f"{got[i].item()} not {wanted[i].item()} at {i}" for i in wrong[:4])
        raise AssertionError(f"{len(wrong)} of {got.numel()} differ: {shown}")


def wide_sample(sample: S) -> S:
    """The sample computed in float64, where it asks for a floating dtype."""
    dtype = sample.kwargs.get("dtype")
    if dtype is None or not dtype.is_floating_point:
        return sample
    return S(sample.args, {**sample.kwargs, "dtype": torch.float64}, sample.outs)


def strides(got: torch.Tensor, eager: torch.Tensor) -> bool:
    if got.numel() == 0:
        return True
    pairs = zip(got.shape, got.stride(), eager.stride(), strict=True)
    return all(n == 1 or a == b for n, a, b in pairs)


def run_interpreter(gm: fx.GraphModule) -> Callable:
    program = lower(gm)
    spec.check(program, "lower")

    def run(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        arrays = [(x.float() if x.dtype is torch.bfloat16 else x).numpy() for x in tensors]
        found = interp.run(program, arrays)
        outs = [n.meta["val"] for n in gm.graph.output_node().args[0]]
        return [torch.from_numpy(a).to(v.dtype) for a, v in zip(found, outs, strict=True)]

    return run


def run_compiled(gm: fx.GraphModule) -> Callable:
    runner = compile_graph(gm, config(strict=True))

    def run(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        given = [moved(x, DEVICE) for x in tensors]
        before = [x.clone() for x in given]
        torch.use_deterministic_algorithms(True, warn_only=True)  # new memory is poisoned
        try:
            with torch.no_grad():
                found = runner(list(given))
        finally:
            torch.use_deterministic_algorithms(False)
        for x, y in zip(given, before, strict=True):
            assert torch.equal(x.nan_to_num(), y.nan_to_num()), "an input was changed"
        return [moved(x, "cpu") for x in found]

    return run


def check(make: Callable, check: str, many: Sequence[Call]) -> None:
    """Run calls as one graph and compare each; one by one where the graph cannot be made."""
    try:
        compare_all(make, check, many)
    except AssertionError:
        raise
    except Exception:
        failures = [e for e in (_failure(make, check, c) for c in many) if e]
        assert not failures, "\n\n".join(failures)
        raise


def compare_all(make: Callable, check: str, many: Sequence[Call]) -> None:
    gm = graph(many)
    run = make(gm)
    failures = []
    for seed in SEEDS:
        inputs = [c.tensors(seed) for c in many]
        results = iter(run([x for tensors in inputs for x in tensors]))
        traced = iter([n.meta["val"] for n in gm.graph.output_node().args[0]])
        for call, tensors in zip(many, inputs, strict=True):
            for k, theirs in enumerate(eager(call, tensors)):
                got, fake = next(results), next(traced)  # a fake kernel may know other strides
                try:
                    compare(call, check, got, k, tensors)
                    ok = make is run_interpreter or strides(got, theirs) or strides(got, fake)
                    assert ok, f"strides {got.stride()}, eager's are {theirs.stride()}"
                except AssertionError as e:
                    text = str(e).split("\nassert")[0]
                    failures.append(f"{call.op}({call.sample}) result {k}: {text}")
    assert not failures, "\n\n".join(failures)


def _failure(make: Callable, check: str, call: Call) -> str:
    try:
        compare_all(make, check, [call])
    except Exception as e:
        return f"{call.op}({call.sample}): {type(e).__name__}: {e}"
    return ""


FAILING = [
    pytest.param(name, reason, marks=pytest.mark.xfail(reason=reason, strict=True))
    for name, op in names.items()
    for reason in sorted({x.xfail for x in ROWS[op].samples} - {""})
]


def test_every_rule_has_a_row():
    assert set(ROWS) == set(RULES)


@pytest.mark.skipif(TARGET == "cuda", reason="numpy draws and computes as a CPU does")
@pytest.mark.parametrize("name", names)
def test_interpreter(name):
    """What lowering makes means what the op means, samples that fail once compiled included."""
    row = ROWS[names[name]]
    check(run_interpreter, row.check, [*calls(names[name], row), *calls(names[name], row, True)])


@pytest.mark.parametrize("name", names)
def test_compiled(name):
    row = ROWS[names[name]]
    check(run_compiled, row.check, calls(names[name], row))


@pytest.mark.parametrize("name, reason", FAILING)
def test_compiled_one_day(name, reason):
    """What fails for a known reason: whoever removes the reason is told to remove its mark."""
    row = ROWS[names[name]]
    many = [c for c in calls(names[name], row, failing=True) if c.sample.xfail == reason]
    compare_all(run_compiled, row.check, many)


@pytest.mark.parametrize("part", range(PARTS))
def test_torch_compile(part):
    """One sample of each op, on the whole way through Dynamo and AOTAutograd."""
    many = [calls(op, row)[0] for op, row in list(ROWS.items())[part::PARTS]]
    counts = [len(c.tensors(0)) for c in many]

    def f(*tensors):
        found, start = [], 0
        for call, n in zip(many, counts, strict=True):
            found += call(*tensors[start : start + n])
            start += n
        return found

    torch._dynamo.reset()
    sol.reset()
    optimized = torch.compile(f, backend=sol)
    for seed in SEEDS:
        inputs = [c.tensors(seed) for c in many]
        with torch.no_grad():
            results = iter(optimized(*(x for tensors in inputs for x in tensors)))
        for call, tensors in zip(many, inputs, strict=True):
            for k, eager in enumerate(call(*tensors)):
                got = next(results)
                compare(call, ROWS[call.op].check, got, k, tensors)
                assert strides(got, eager), f"{call.op}: {got.stride()} not {eager.stride()}"
    assert len(sol.graphs) == 1 and sol.graphs[0].compiled


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_unknown_dtypes_are_left_to_aten(dtype):
    def f(x):
        return x.to(dtype), x + 1

    torch._dynamo.reset()
    x = torch.randn(3, 5)
    for got, eager in zip(torch.compile(f, backend=sol)(x), f(x), strict=True):
        assert got.dtype == eager.dtype
        assert torch.equal(got.to(torch.complex64), eager.to(torch.complex64))
