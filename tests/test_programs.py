"""Compiled graphs on disk: found again by what they say, and by nothing less."""

from __future__ import annotations

import operator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from sol_dynamo import backend, programs
from sol_dynamo.config import Config
from sol_dynamo.ir import Program
from sol_dynamo.runtime import cache
from sol_dynamo.target import Caps

aten = torch.ops.aten


def compiled(f, *inputs):
    torch._dynamo.reset()
    return torch.compile(f, backend=backend.Backend(), dynamic=False)(*inputs)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8 * 36, 5)).eval()


def test_a_graph_is_compiled_once(own_cache, monkeypatch):
    """The second time no stage runs; weights are the new model's."""
    first, x = network(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        got = compiled(first, x)
        assert list(own_cache.rglob("*.graph"))

        def again(*args):
            raise AssertionError("compiled again")

        monkeypatch.setattr(backend, "_compiled", again)
        assert torch.equal(compiled(first, x), got)
        second = network()
        for p in second.parameters():
            p.normal_()
        second[1].running_mean.normal_()
        want = second.double()(x.double())
        assert (compiled(second.float(), x) - want).abs().max() < 1e-4 * want.abs().max()


def test_training_is_compiled_once(own_cache, monkeypatch):
    model, x = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)), torch.randn(3, 4)

    def step():
        model.zero_grad()
        compiled(model, x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    got = step()
    assert len(list(own_cache.rglob("*.graph"))) == 2
    monkeypatch.setattr(backend, "_compiled", None)
    assert all(map(torch.equal, got, step()))


def test_a_damaged_entry_is_made_anew(own_cache):
    f, x = (lambda x: torch.relu(x) + 1), torch.randn(5, 3)
    compiled(f, x)
    for path in own_cache.rglob("*.graph"):
        key = path.name.partition("-")[0]
        path.unlink()
        cache.store(key, ".graph", b"no pickle")
        assert programs.find(key, object) is None
    assert torch.equal(compiled(f, x), f(x))


@pytest.mark.parametrize("option", [{"strict": True}, {"check": True}, {"fuel": 3}, {"dump": "x"}])
def test_who_looks_at_stages_gets_them(option):
    assert replace(Config(), **option).debugs and not Config().debugs


def graph(shape=(4, 5), strides=None, dtype=torch.float32, value=1, op=aten.add.Tensor):
    g = fx.Graph()
    x = g.placeholder("x")
    y = g.call_function(op, (x, value))
    g.output((y,))
    strides = strides or (shape[1], 1)
    for n in (x, y):
        n.meta["val"] = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    return fx.GraphModule({}, g)


def test_what_a_name_depends_on(monkeypatch):
    caps = Caps("cpu")

    def name(*args, caps=caps, **kwargs):
        return programs.name(graph(**kwargs), caps, *args)

    assert name("a") == name("a")
    others = [
        name("b"),
        name("a", caps=replace(caps, cores=2)),
        name("a", shape=(5, 4)),
        name("a", strides=(1, 4)),
        name("a", dtype=torch.float64),
        name("a", value=1.0),
        name("a", value=True),
        name("a", op=aten.mul.Tensor),
    ]
    monkeypatch.setattr(torch, "__version__", "0")
    others.append(name("a"))
    assert len({name("a"), *others}) == len(others) and None not in others


def test_flags_are_part_of_the_name(monkeypatch):
    target = SimpleNamespace(caps=Caps("cpu"), describe=dict)
    given = graph(), [], target, Config()
    monkeypatch.setattr(backend.compat, "tf32_products", frozenset)
    plain = backend._name(*given)
    monkeypatch.setattr(backend.compat, "tf32_products", lambda: frozenset(("matmul",)))
    assert plain != backend._name(*given) is not None


def test_what_has_no_name():
    attribute = graph()
    attribute.weight = torch.ones(3)
    with attribute.graph.inserting_before(attribute.graph.output_node()):
        attribute.graph.get_attr("weight")
    function = graph(op=lambda x, y: x)
    strange = graph()
    next(iter(strange.graph.nodes)).meta["val"] = object()
    for gm in (attribute, function, strange):
        assert programs.name(gm, Caps("cpu")) is None
    assert programs.name(graph(op=operator.add), Caps("cpu"))


def test_what_cannot_be_written_is_not_kept(own_cache):
    value = torch.randn(3)
    formula = programs.Formula(("x",), (("y", functional.relu, (value,), {}),), ())
    kept = programs.Kept(Program({}, (), (), ()), {}, (), formula, ())
    programs.keep("0" * 32, kept)
    assert programs.find("0" * 32, programs.Kept) is None
    programs.keep("0" * 32, replace(kept, weights=programs.Formula((), (), ())))
    assert programs.find("0" * 32, programs.Kept).program == kept.program


def test_a_formula_does_what_its_graph_does():
    def f(w, b):
        s = w * b[:, None]
        return torch.split(s, 2), torch.cat([s, torch.t(w)], 1), b

    traced = fx.symbolic_trace(f)
    traced.graph.output_node().args = (tuple(traced.graph.output_node().args[0]),)
    w, b = torch.randn(4, 4), torch.randn(4)
    (parts, both, same) = programs.Formula.of(traced)(w, b)
    want = f(w, b)
    assert torch.equal(both, want[1]) and same is b
    assert all(map(torch.equal, parts, want[0]))
