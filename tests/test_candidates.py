"""What is timed to choose between ATen and kernels of ours: which nodes, and what of the rest.

That the faster one is taken, once, is a kind of `triton_kinds.py` ("candidates").
"""

from __future__ import annotations

import torch
from torch import fx
from torch._subclasses import FakeTensorMode

from sol_dynamo.candidates import Candidates, alone
from sol_dynamo.ir import Work
from sol_dynamo.lowering.graph import Products
from sol_dynamo.target import Caps

aten = torch.ops.aten
PLAIN = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
LAST = (64, 1, 32, 8)  # strides of (2, 8, 2, 4), channels last


def block() -> tuple[fx.Graph, dict[str, fx.Node]]:
    """relu(x * w), twice convolved with a ReLU between, and added to x."""
    g, mode = fx.Graph(), FakeTensorMode()

    def given(name: str, *shape: int) -> fx.Node:
        n = g.placeholder(name)
        with mode:
            n.meta["val"] = torch.empty(shape)
        return n

    def call(op, *args) -> fx.Node:
        n = g.call_function(op, args)
        with mode:
            n.meta["val"] = op(*fx.node.map_arg(args, lambda a: a.meta["val"]))
        n.meta["stack_trace"] = str(len(g.nodes))
        return n

    x, scale, w, v = (
        given("x", 2, 8, 2, 4), given("scale", 8, 1, 1), given("w", 8, 8, 1, 1),
        given("v", 8, 8, 1, 1),
    )  # fmt: skip
    made = {"x": x, "scale": scale, "w": w, "v": v}
    scaled = call(aten.relu.default, call(aten.mul.Tensor, x, scale))
    made["first"] = call(aten.convolution.default, scaled, w, None, *PLAIN)
    made["between"] = call(aten.relu.default, made["first"])
    made["between"].meta["sol_strides"] = LAST
    made["second"] = call(aten.convolution.default, made["between"], v, None, *PLAIN)
    made["out"] = call(aten.relu.default, call(aten.add.Tensor, made["second"], x))
    g.output((made["out"], made["between"]))
    return g, made


def ops(gm: fx.GraphModule) -> list[str]:
    return [n.target.__name__ for n in gm.graph.nodes if n.op == "call_function"]


def test_a_node_is_timed_with_what_is_part_of_its_kernel():
    """Operands that are computed for it alone, and what follows; not a product's own ReLU, which is
    part of that one's kernel."""
    _, made = block()
    scopes = {made[n]: "weight" if n in "wv" else "input" for n in ("x", "scale", "w", "v")}
    gm, given = alone(made["first"], scopes)
    assert ops(gm) == ["mul.Tensor", "relu.default", "convolution.default", "relu.default"]
    assert given == ["input", "input", "weight"]
    gm, given = alone(made["second"], scopes)
    assert ops(gm) == ["convolution.default", "add.Tensor", "relu.default"]
    assert given == ["input", "weight", "input"]
    inputs = gm.graph.find_nodes(op="placeholder")
    assert inputs[2].meta["val"].stride() == LAST  # as it lies in the program
    assert all("stack_trace" not in n.meta for n in gm.graph.nodes)


def test_what_lowers_to_no_tensor_is_not_timed():
    g = fx.Graph()
    x = g.placeholder("x")
    x.meta["val"] = torch.empty(3, 3, device="meta")
    w = g.get_attr("w")
    w.meta["val"] = x.meta["val"]
    product = g.call_function(aten.mm.default, (x, w))
    product.meta["val"] = x.meta["val"]
    g.output((product,))
    assert alone(product, {x: "input"}) == (None, [])


def test_small_products_are_chosen_by_the_model():
    _, made = block()
    asked: list[Work] = []
    products = Products(elsewhere=lambda work, node: asked.append(work) or "by the model")

    class Untimed:
        caps = Caps("cpu", seconds=lambda program: 1 / 0)

    choose = Candidates(Untimed(), products, {n: "input" for n in made.values()})
    work = Work("convolution", 1, 16, 8, 8, 1, "ieee", False)
    assert [choose(work, made["first"]) for _ in range(2)] == ["by the model"] * 2
    assert asked == [work]
