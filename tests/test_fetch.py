"""Weights are fetched from the modules that Dynamo passes: each call finds those that are there."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from accuracy import same
from blocks import Block, net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sol_dynamo.backend import Backend
from sol_dynamo.compat import Member, member
from sol_dynamo.runtime import modules
from sol_dynamo.runtime.modules import Fetch

WAYS = ("versions", "looks", "python")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way in which weights are fetched: natively with and without versions, by Python."""
    modules._native.cache_clear()
    if request.param == "looks":
        monkeypatch.setattr(modules, "_version_in_dictionary", lambda: 0)
    if request.param == "python":
        monkeypatch.setattr(modules, "_native", lambda: None)
    yield request.param
    monkeypatch.undo()
    modules._native.cache_clear()


class Counting:
    """Our backend; how many arguments each call of a graph had, and how many graphs there were."""

    def __init__(self) -> None:
        self.backend, self.arguments, self.graphs = Backend(), list[int](), 0

    def __call__(self, gm: torch.fx.GraphModule, inputs: list[Any], **kwargs: Any) -> Callable:
        run = self.backend(gm, inputs, **kwargs)
        self.graphs += 1

        def call(*args: Any) -> Any:
            self.arguments.append(len(args))
            return run(*args)

        return call


def compiled(model: Any) -> tuple[Callable, Counting]:
    torch._dynamo.reset()
    counting = Counting()
    return torch.compile(model, backend=counting), counting


def check(run: Callable, model: Callable, x: torch.Tensor) -> None:
    with torch.no_grad():
        same(run(x), model(x))


def fresh() -> nn.Parameter:
    return nn.Parameter(torch.rand(8))


def replace_dictionary(m: nn.Module) -> None:
    vars(m[2].linear)["_parameters"] = {"weight": m[2].linear.weight, "bias": fresh()}


def take_turns(m: nn.Module) -> None:
    m[0], m[1] = m[1], m[0]


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "attribute": lambda m: setattr(m[1].linear, "bias", fresh()),
    "registered": lambda m: m[1].linear.register_parameter("bias", fresh()),
    "store": lambda m: m[1].linear._parameters.update(bias=fresh()),
    "buffer": lambda m: setattr(m[3], "scale", torch.rand(8)),
    "anew": lambda m: (delattr(m[3], "scale"), m[3].register_buffer("scale", torch.rand(8))),
    "written": lambda m: m[0].linear.weight.data.mul_(2),
    "data": lambda m: setattr(m[0].linear.weight, "data", torch.rand(8, 8)),
    "assigned": lambda m: m.load_state_dict(net().state_dict(), assign=True),
    "module": lambda m: setattr(m[2], "linear", nn.Linear(8, 8)),
    "block": lambda m: m._modules.update({"1": Block()}),
    "turns": take_turns,
    "dictionary": replace_dictionary,
    "attributes": lambda m: setattr(m[2], "__dict__", dict(vars(Block()))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_model_holds_now_is_what_counts(way: str, change: str) -> None:
    model, x = net(), torch.randn(3, 8)
    run, counting = compiled(model)
    for _ in range(3):
        check(run, model, x)
    for _ in range(2):
        with torch.no_grad():
            CHANGES[change](model)
        for _ in range(2):
            check(run, model, x)
    assert set(counting.arguments) == {2}  # the model, x


def test_models_take_turns_in_one_graph(way: str) -> None:
    models, x = [net() for _ in range(3)], torch.randn(3, 8)
    counting = Counting()
    torch._dynamo.reset()
    runs = [torch.compile(m, backend=counting) for m in models]
    for _ in range(3):
        for run, model in zip(runs, models, strict=True):
            check(run, model, x)
    assert counting.graphs == 1


def test_weights_that_a_call_is_given(way: str) -> None:
    model, x = net(), torch.randn(3, 8)
    run, _ = compiled(lambda w, x: torch.func.functional_call(model, w, (x,)))
    for _ in range(3):
        given = {k: torch.rand_like(v) for k, v in model.state_dict().items()}
        with torch.no_grad():
            same(run(given, x), torch.func.functional_call(model, given, (x,)))


def test_several_models_in_one_graph(way: str) -> None:
    first, second, x = net(), net(), torch.randn(3, 8)
    run, counting = compiled(lambda x: first(x) + second(x * 2))
    for _ in range(2):
        check(run, lambda x: first(x) + second(x * 2), x)
        second[0].linear.bias = fresh()
    assert counting.arguments == [3, 3]


def test_few_weights_are_arguments() -> None:
    model, x = net(1), torch.randn(3, 8)
    run, counting = compiled(model)
    check(run, model, x)
    assert counting.arguments == [4]


def test_as_many_modules_as_weights_are_no_gain() -> None:
    layers, x = [nn.Linear(8, 8, bias=False) for _ in range(12)], torch.randn(3, 8)

    def chained(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = layer(x).relu() + x
        return x

    run, counting = compiled(chained)
    for n in range(3):
        check(run, chained, x)
        layers[n].weight = nn.Parameter(torch.rand(8, 8))
    assert set(counting.arguments) == {13}


def test_training(way: str) -> None:
    model, x = net().train(), torch.randn(3, 8)
    run, counting = compiled(model)
    other = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), 0.01) for m in (model, other)]
    for _ in range(3):
        for f, optimizer in zip((run, other), optimizers, strict=True):
            optimizer.zero_grad()
            f(x).square().sum().backward()
            optimizer.step()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert set(counting.arguments) == {2}


def test_graphs_in_pieces(way: str) -> None:
    def broken(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = model(x)
        torch._dynamo.graph_break()
        return model(y) + y

    model, x = net(), torch.randn(3, 8)
    run, counting = compiled(broken)
    for _ in range(2):
        check(lambda x: run(model, x), lambda x: broken(model, x), x)
        model[3].scale = torch.rand(8)
    assert counting.graphs == 2


def test_sizes_that_graphs_are_compiled_for(way: str) -> None:
    model = net()
    run, counting = compiled(model)
    for n in (5, 8, 8, 6, 5):
        x = torch.randn(n, 8)
        torch._dynamo.mark_dynamic(x, 0, specialize_on=[lambda n: n == 8])
        check(run, model, x)
    assert counting.graphs > 1


def test_what_dynamo_gave_can_be_called_too() -> None:
    calls: list[tuple] = []

    def backend(gm: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        run = Backend()(gm, inputs)
        calls.append((run, inputs, gm))
        return run

    torch._dynamo.reset()
    model, x = net(), torch.randn(3, 8)
    check(torch.compile(model, backend=backend), model, x)
    run, inputs, gm = calls[0]
    with torch.no_grad():
        same(run(*inputs)[0], model(x))
        same(gm(model, x)[0], model(x))  # the graph that Dynamo keeps says the same


def test_a_model_that_is_gone_is_freed(way: str) -> None:
    model, x = net(), torch.randn(3, 8)
    run, _ = compiled(model)
    for _ in range(3):
        check(run, model, x)
    gone = [ref(model), *map(ref, model.parameters()), *map(ref, model.buffers())]
    del run, model
    gc.collect()
    assert [r() for r in gone] == [None] * len(gone)


# -- Fetch itself ---------------------------------------------------------------------------------


def places(model: nn.Module) -> list[Member]:
    """Every tensor that is now in a model."""
    found = []

    def walk(m: nn.Module, way: tuple) -> None:
        for store in ("_parameters", "_buffers"):
            held = getattr(m, store).items()
            found.extend(Member(0, (*way, (store, k))) for k, v in held if v is not None)
        for name, child in m._modules.items():
            walk(child, (*way, ("_modules", name)))

    walk(model, ())
    return found


def test_versions_are_known() -> None:
    """Where they are not, models are looked through at each call, which takes twice as long."""
    assert (modules._version_in_dictionary() > 0) == (sys.version_info < (3, 13))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*CHANGES, "other"]), max_size=8))
def test_finds_what_python_finds(changes: list[str]) -> None:
    models = [net(), net()]
    members = [*places(models[0]), Member(1), places(models[0])[2]]
    fetch = Fetch(members)
    now = 0
    for change in ["none", *changes, "none"]:
        if change == "other":
            now = 1 - now
        elif change != "none":
            CHANGES[change](models[now])
        found = fetch([models[now], change])
        wanted = [member((models[now], change)[m.argument], m.way) for m in members]
        assert all(a is b for a, b in zip(found, wanted, strict=True))
        assert fetch.native


class Hidden:
    """Its attribute is not what its dictionary says."""

    def __init__(self) -> None:
        vars(self)["_parameters"] = {"w": 1}

    @property
    def _parameters(self) -> dict[str, int]:
        return {"w": 2}


class Slots:
    __slots__ = ("_parameters",)

    def __init__(self) -> None:
        self._parameters = {"w": 2}


@pytest.mark.parametrize("kind", [Hidden, Slots])
def test_attributes_that_are_in_no_dictionary(kind: type) -> None:
    fetch = Fetch([Member(0, (("_parameters", "w"),))])
    assert [fetch([kind()]), fetch([kind()])] == [[2], [2]]
    assert not fetch.native


def test_what_is_missing_is_an_error(way: str) -> None:
    model = net()
    fetch = Fetch(places(model))
    fetch([model])
    del model[1].linear.bias
    with pytest.raises(KeyError, match="bias"):
        fetch([model])
    model[1].linear.bias = fresh()
    bias = Member(0, (("_modules", "1"), ("_modules", "linear"), ("_parameters", "bias")))
    assert fetch([model])[places(model).index(bias)] is model[1].linear.bias
