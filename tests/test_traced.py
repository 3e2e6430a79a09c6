"""Graphs of which it is known what they are traced to: found by all that tracing reads, and called
as AOTAutograd's wrappers would call them."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from accuracy import same
from blocks import net
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor

import sol_dynamo
from sol_dynamo import compat, programs, traced
from sol_dynamo.backend import Backend
from sol_dynamo.config import Config
from sol_dynamo.runner import Runner

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def tracings(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One element for each time that a graph is traced."""
    found: list[bool] = []
    plain = compat.aot_autograd

    def counted(**options: Any) -> Callable:
        found.append(True)
        return plain(**options)

    monkeypatch.setattr(compat, "aot_autograd", counted)
    return found


def compiled(model: Any, **options: Any) -> tuple[Callable, Backend]:
    """As in a new process, but for the cache."""
    torch._dynamo.reset()
    b = Backend()
    return torch.compile(model, backend=b, dynamic=False, **options), b


def check(run: Callable, model: Callable, *xs: Any) -> None:
    with torch.no_grad():
        same(model(*xs), run(*xs))


def test_a_graph_is_traced_once(tracings: list[bool]) -> None:
    """The second time the weights are the new model's, and calls go the fast way."""
    for model in (net(), net()):
        run, b = compiled(model)
        for _ in range(5):
            check(run, model, torch.randn(3, 8))
        assert len(tracings) == 1
        (outcome,) = b.graphs
        assert outcome.kind == "inference" and "aten.relu.default" in outcome.ops
        assert outcome.compiled.program.kernels


def test_a_few_weights_come_from_dynamo(tracings: list[bool]) -> None:
    for _ in range(2):
        model = nn.Linear(4, 5)
        run, _ = compiled(model)
        for _ in range(3):
            check(run, model, torch.randn(3, 4))
    assert len(tracings) == 1


def test_without_weights_and_with_gradients_on(tracings: list[bool]) -> None:
    def f(x: torch.Tensor) -> Any:
        return torch.relu(x) + 1, x.sum(0)

    for _ in range(2):
        run, _ = compiled(f)
        for _ in range(2):
            x = torch.randn(4, 5)
            got = run(x)
            same(f(x), got)
            assert not any(t.requires_grad for t in got)
        assert torch.is_grad_enabled()
    assert len(tracings) == 1
    x = torch.randn(4, 5, requires_grad=True)
    assert run(x)[0].requires_grad


def test_optimized_models(tracings: list[bool]) -> None:
    for _ in range(2):
        torch._dynamo.reset()
        model = net()
        run = sol_dynamo.optimize(model, (3, 8))
        for _ in range(3):
            check(run, model, torch.randn(3, 8))
    assert len(tracings) == 1


def test_training_is_traced(tracings: list[bool]) -> None:
    for _ in range(2):
        model = net()
        run, _ = compiled(model)
        run(torch.randn(3, 8)).sum().backward()
        assert model[0].linear.weight.grad is not None
    assert len(tracings) == 2


# -- calls ---------------------------------------------------------------------------------------


class Outside(nn.Module):
    """Leaves an op to ATen that autocast would change."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = net()
        self.weight, self.bias = nn.Parameter(torch.rand(1, 8, 8)), nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.blocks(x.float())
            x = torch.conv_tbc(x[:, None], self.weight, self.bias)[:, 0]
        return x


def test_autocast(tracings: list[bool]) -> None:
    model, x = Outside().eval(), torch.randn(3, 8)
    results = []
    for dtype in (torch.bfloat16, torch.bfloat16, None):
        run, _ = compiled(model)
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            results.append(run(x))
            same(model(x), results[-1])
            assert torch.is_autocast_enabled("cpu") == (dtype is not None)
    assert len(tracings) == 2
    assert torch.equal(*results[:2])


def changing(model: nn.Module, run: Callable, calls: int) -> None:
    for n in range(calls):
        with torch.no_grad():
            model[0].linear.bias.fill_(n)
        check(run, model, torch.randn(3, 8))


@pytest.mark.parametrize("autocast", [False, True])
def test_weights_that_change_often_become_inputs(tracings: list[bool], autocast: bool) -> None:
    first, second = net(), net()

    def check(run: Callable, model: nn.Module) -> None:
        x = torch.randn(3, 8)
        results = []
        for f in (run, model):  # each in a context of its own, which keeps weights that were cast
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                results.append(f(x))
        torch.testing.assert_close(*results, rtol=3e-2, atol=3e-2)

    check(compiled(first)[0], first)
    run, b = compiled(second)
    for n in range(16):
        with torch.no_grad():
            second[0].linear.bias.fill_(n)
        check(run, second)
        runner = b.graphs[0].runner
        assert runner is not None
        inputs = len(runner.graph.static) - len(runner._weights)
        assert inputs == (len(tracings) == 2)  # the one that changes, from this call on
    assert len(tracings) == 2 and len(b.graphs) == 1


def test_a_tracing_that_fails_later_changes_nothing(
    tracings: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = net()
    check(compiled(model)[0], model, torch.randn(3, 8))
    run, _ = compiled(model)
    check(run, model, torch.randn(3, 8))

    def failing(**options: Any) -> Callable:
        raise RuntimeError("not today")

    monkeypatch.setattr(compat, "aot_autograd", failing)
    changing(model, run, 16)
    assert [r.message for r in caplog.records if "not today" in r.message]
    assert len(tracings) == 1


def test_weights_made_in_inference_mode(tracings: list[bool]) -> None:
    """They become inputs at the first call, so that they are better traced at once."""
    for _ in range(2):
        with torch.inference_mode():
            model = net()
            run, b = compiled(model)
            for n in range(4):
                model[0].linear.weight[0, 0] = n
                x = torch.randn(3, 8)
                same(model(x), run(x))
        assert b.graphs[0].kind == "inference"
    assert len(tracings) == 2


class Adding(TorchFunctionMode):
    """What Dynamo writes into the graph."""

    def __torch_function__(
        self, f: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        result = f(*args, **(kwargs or {}))
        return result + 1 if f is torch.relu else result


def test_modes_of_a_call_are_not_those_of_a_tracing(tracings: list[bool]) -> None:
    for _ in range(2):
        model = net()
        run, _ = compiled(model)
        for n in range(16):
            with torch.no_grad():
                model[0].linear.bias.fill_(n / 9)
                x = torch.randn(3, 8)
                with Adding():
                    got = run(x)
                    same(model(x), got)
    assert len(tracings) == 2


def test_tracings_of_threads_take_turns(tracings: list[bool]) -> None:
    """Tracers replace functions of all modules, and put back what they found."""
    models = [net(blocks) for blocks in (2, 3, 4, 5)]
    for model in models:
        check(compiled(model)[0], model, torch.randn(3, 8))
    plain, errors = nn.Module.__call__, []
    runs = []
    for model in models:
        runs.append(compiled(model)[0])
        check(runs[-1], model, torch.randn(3, 8))
    assert len(tracings) == 4

    def work(run: Callable, model: nn.Module) -> None:
        try:
            changing(model, run, 12)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=p) for p in zip(runs, models, strict=True)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert nn.Module.__call__ is plain


def test_a_program_goes_when_another_one_takes_its_place() -> None:
    for _ in range(2):
        model = nn.Sequential(nn.Linear(4, 4)).eval()  # Dynamo passes its weights
        run, b = compiled(model)
        check(run, model, torch.randn(3, 4))
    runner = b.graphs[0].runner
    assert runner is not None
    first = ref(runner)
    del runner
    for n in range(16):
        with torch.no_grad():
            model[0].bias.fill_(n)
        check(run, model, torch.randn(3, 4))
    gc.collect()
    assert first() is not b.graphs[0].runner and first() is None


def test_an_error_leaves_modes_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + 1

    compiled(f)[0](torch.randn(3))
    run, _ = compiled(f)
    run(torch.randn(3))

    def failing(self: Runner, args: list[Any]) -> list[Any]:
        raise RuntimeError("no")

    monkeypatch.setattr(Runner, "__call__", failing)
    with pytest.raises(RuntimeError, match="no"):
        run(torch.randn(3))
    assert torch.is_grad_enabled()


# -- what is not kept ----------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n.add_(1)
        return x * self.n


def grad_mode_left_on(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    torch.set_grad_enabled(True)
    return y


TRACED_EACH_TIME: dict[str, Callable[..., Any]] = {
    "writes to a buffer": Counting(),
    "writes to an input": lambda x: x.mul_(2),
    "gives a view of an input": lambda x: (x[0], x + 1),
    "leaves gradients on": grad_mode_left_on,
    "has a constant": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "branches": lambda x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)),
}


@pytest.mark.parametrize("kind", TRACED_EACH_TIME)
def test_what_is_traced_each_time(tracings: list[bool], kind: str) -> None:
    f = TRACED_EACH_TIME[kind]
    for n in (1, 2):
        if isinstance(f, Counting):
            f.n.zero_()
        run, _ = compiled(f)
        before = len(tracings)
        for _ in range(3):
            x = torch.randn(2, 3)
            start = getattr(f, "n", x).clone()
            given = x.clone(), x.clone()
            with torch.no_grad():
                got = run(given[0])
                left = torch.is_grad_enabled()
            if isinstance(f, Counting):
                f.n.copy_(start)
            with torch.no_grad():
                wanted = f(given[1])
                assert torch.is_grad_enabled() == left
            same(given[1], given[0])
            same(wanted, got)
        assert len(tracings) > before, n


# -- names ---------------------------------------------------------------------------------------


def named(f: Callable, *xs: Any, **options: Any) -> str | None:
    """The name of a function's one graph."""
    torch._dynamo.reset()
    found = []

    def note(gm: torch.fx.GraphModule, inputs: Any) -> Callable:
        found.append(traced.name(gm, Config()))
        return gm.forward

    with torch.no_grad():
        torch.compile(f, backend=note, **options)(*xs)
    (name,) = found
    return name


def test_what_a_name_depends_on() -> None:
    def f(x: Any, of: Callable = torch.relu, last: Any = 1) -> torch.Tensor:
        return of(x) + last

    class Holding(nn.Module):
        def __init__(self, t: torch.Tensor) -> None:
            super().__init__()
            self.t = t

        def forward(self) -> torch.Tensor:
            return torch.relu(self.t) + 1

    x = torch.randn(4, 6)
    first = named(f, x)
    assert first is not None and first == named(f, torch.randn(4, 6))
    names = [
        first,
        named(f, torch.randn(4, 7)),
        named(f, torch.randn(6, 4).T),
        named(f, torch.randn(5, 6)[1:]),
        named(f, x.double()),
        named(f, x.requires_grad_()),
        named(f, nn.Parameter(x)),
        named(f, x.detach(), functional.gelu),
        named(f, x.detach(), torch.relu, 1.0),
        named(f, x.detach(), torch.relu, True),
        named(Holding(x.detach())),
        named(Holding(nn.Parameter(x))),
        named(Holding(nn.Buffer(x.detach()))),
    ]
    assert None not in names
    assert len(set(names)) == len(names)


def test_how_an_index_is_written_is_part_of_the_name() -> None:
    x = torch.randn(4, 6)
    rows, element = named(lambda x: x[[0, 1]] + 1, x), named(lambda x: x[(0, 1)] + 1, x)
    assert rows != element and rows and element
    values = [0, 1], (0, 1), [0.0, 1], [False, 1], "[0, 1]", slice(0, 1)
    assert len(set(map(programs.text, values))) == len(values)


def test_modes_and_flags_are_part_of_the_name() -> None:
    def f(q: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, q, q)

    q = torch.randn(1, 2, 4, 8)
    names = [named(f, q)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        names.append(named(f, q))
    with torch.autocast("cpu", dtype=torch.float16):
        names.append(named(f, q))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        names.append(named(f, q))
    for set_to in (torch.set_default_dtype, torch.use_deterministic_algorithms):
        on, off = (torch.float64, torch.float32) if "dtype" in set_to.__name__ else (True, False)
        set_to(on)  # type: ignore[operator]
        try:
            names.append(named(f, q))
        finally:
            set_to(off)  # type: ignore[operator]
    with torch.backends.mkldnn.flags(enabled=False):
        names.append(named(f, q))
    with torch._functorch.config.patch(functionalize_rng_ops=True):
        names.append(named(f, q))
    assert None not in names
    assert len(set(names)) == len(names)
    assert named(f, q) == names[0]


@torch.library.custom_op("sol_test_traced::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch._dynamo.allow_in_graph
def opaque(x: torch.Tensor) -> torch.Tensor:
    return x + 2


def test_what_has_no_name() -> None:
    x = torch.randn(4, 6)
    with torch.inference_mode():
        made_there = nn.Linear(6, 5)
    assert named(made_there, x) is None and named(nn.Linear(6, 5), x) is not None
    assert named(lambda x: opaque(x) + 1, x) is None
    assert named(lambda x: twice(x) + 1, x) is None
    assert named(lambda x: x + 1, TwoTensor(x, x)) is None
    assert named(lambda x: x + 1, x, dynamic=True) is None
    assert named(lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)), x) is None
    assert named(lambda z: z * 2, torch.randn(3, dtype=torch.complex64).conj()) is None


REPLACED: dict[str, tuple[Any, str]] = {
    "a function": (torch, "matmul"),
    "what functions call": (torch, "layer_norm"),
    "a method": (torch.Tensor, "softmax"),
    "an operator": (torch.Tensor, "__add__"),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_where_torch_is_changed_all_is_traced(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name = REPLACED[kind]
    plain = getattr(place, name)

    @functools.wraps(plain)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    x = torch.randn(4, 6)
    assert compat.tracing_state() is not None
    monkeypatch.setattr(place, name, replaced)
    assert compat.tracing_state() is None and named(lambda x: x * 2, x) is None


def test_without_gradients_asked_for() -> None:
    """A graph for training has no name, whose tracing would be kept in vain."""
    names = []

    def note(gm: torch.fx.GraphModule, inputs: Any) -> Callable:
        names.append(traced.name(gm, Config()))
        return gm.forward

    torch._dynamo.reset()
    torch.compile(nn.Linear(3, 4), backend=note)(torch.randn(2, 3))
    assert names == [None]


def test_a_program_that_is_gone_is_made_anew(own_cache: Any, tracings: list[bool]) -> None:
    model = net()
    check(compiled(model)[0], model, torch.randn(3, 8))
    entries = list(own_cache.rglob("*.graph"))
    assert len(entries) == 2
    for path in entries:
        if isinstance(programs.find(path.name.partition("-")[0], object), programs.Kept):
            path.unlink()
    check(compiled(model)[0], model, torch.randn(3, 8))
    assert len(tracings) == 2
    check(compiled(model)[0], model, torch.randn(3, 8))
    assert len(tracings) == 2
