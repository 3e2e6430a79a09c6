"""Triton kernels without a GPU: in Triton's interpreter, on CPU tensors, and compiled for some.

The interpreter is chosen when triton is imported, so that each runs in a process of its own. One
file, since all of it is skipped where there is no Triton.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from samples import ROWS

pytest.importorskip("triton")


HERE = Path(__file__).parent


def run_kinds(*args: str, **environment: str) -> None:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0", **environment}
    command = [sys.executable, str(HERE / "triton_kinds.py"), *args]
    p = subprocess.run(command, env=given, capture_output=True, text=True, timeout=900)
    assert p.returncode == 0, p.stdout + p.stderr[-3000:]


def test_kernels_in_the_interpreter():
    """Each kind of kernel, held to the accuracy contract."""
    run_kinds(TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kernels_on_a_gpu():
    """The same, and each called four times: launched, recorded, recorded anew and replayed."""
    run_kinds("cuda")


def test_kernels_compile_without_a_gpu():
    run_kinds("80", "90", "100")
    run_kinds("gfx942")


NETWORKS = ("mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5", "resnet50")
LONG = ("densenet121", "densenet201")


@pytest.mark.parametrize(
    "net", [*NETWORKS, *(pytest.param(n, marks=pytest.mark.slow) for n in LONG)]
)
def test_networks_compile_without_a_gpu(net):
    """Every kernel of a network."""
    pytest.importorskip("torchvision")
    run_kinds("80", "90", "100", net)


def run_tests(*ids: str) -> None:
    """Tests of other files, on Triton's kernels in its interpreter."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    given |= {"SOL_TEST_TARGET": "triton", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *ids]
    p = subprocess.run(
        command, env=given, cwd=HERE.parent, capture_output=True, text=True, timeout=5400
    )
    assert p.returncode == 0, p.stdout[-6000:] + p.stderr[-1000:]


def samples(names: list[str]) -> list[str]:
    return [f"tests/test_samples.py::test_compiled[{name}]" for name in names]


@pytest.mark.parametrize("part", range(8))
def test_samples_in_the_interpreter(part):
    """Every sample of every operator."""
    run_tests(*samples(sorted(map(str, ROWS))[part::8]))


def test_drawn_programs_in_the_interpreter():
    run_tests("tests/test_drawn.py::test_program", "tests/test_drawn.py::test_training")


@pytest.mark.parametrize("divisor", [1, 2, 3, 6, 7, 12, 31, 48, 127, 1000, 4096])
def test_small_quotients(divisor):
    """By a fraction or a shift, they are what division gives."""
    from sol_dynamo.kernels.triton.values import quotient, remainder

    for most in (divisor + 1, 255, 1023, 5000):
        for x in range(most + 1):
            assert eval(quotient("x", most, divisor)) == x // divisor
            assert eval(remainder("x", most, divisor)) == x % divisor


class Told:
    """What a graph is told, in place of the driver."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def set(self, *of: int) -> None:
        self.calls.append(("set", *of))

    def update(self, node: int) -> None:
        self.calls.append(("update", node))

    def launch(self, stream: int) -> None:
        self.calls.append(("launch", stream))


def test_a_graph_is_told_what_moved():
    """Each kernel that takes an address that changed, once, and nothing else."""
    from sol_dynamo.kernels.triton.segment import Recorded

    told = Told()
    users = [[(0, 0, 64), (2, 1, 0)], [(0, 1, 0), (0, 2, 8)], [], [(1, 0, 0)]]
    first, second = {3008}, {3200}  # sets of weights
    run = Recorded(told, list, [1024, 2000, 5001, 3008], users, {2}, {}, {}, {}, {}, [])

    def launched(given: list[int], weights: set[int], stream: int) -> bool:
        return run(given, {}, weights, stream) is not None

    assert launched([1024, 2000, 5001], first, 7)
    assert told.calls == [("launch", 7)]
    told.calls.clear()
    assert launched([1024, 2512, 5001], first, 7)
    assert told.calls == [("set", 0, 1, 2512), ("set", 0, 2, 2520), ("update", 0), ("launch", 7)]
    told.calls.clear()
    assert launched([1024, 2512, 5001], second, 7)
    assert told.calls == [("set", 1, 0, 3200), ("update", 1), ("launch", 7)]
    told.calls.clear()
    assert not launched([1028, 2512, 5001], second, 7) and not told.calls, "not aligned"
    assert not launched([1024, 2512, 5017], second, 7) and not told.calls, "what calls read"
    assert run.moved([1024, 9999, 5017]) == [2]
    assert launched([4000, 2512, 5001], second, 8)
    assert set(told.calls[:2]) == {("set", 0, 0, 4064), ("set", 2, 1, 4000)}
    assert sorted(told.calls[2:4]) == [("update", 0), ("update", 2)]
    assert told.calls[4:] == [("launch", 8)]


def test_tiles_fit_the_machine_and_the_product():
    from sol_dynamo.kernels.triton.cost import Machine, Shape
    from sol_dynamo.kernels.triton.product import tiles

    for shared in (48 << 10, 99 << 10, 227 << 10):
        for shape in (
            Shape(49, 512, 512, taps=9), Shape(100352, 64, 64), Shape(5, 1000, 2048),
            Shape(512, 512, 64, batch=12, unit="ieee"), Shape(512, 3072, 768, bytes=2, unit="half"),
        ):  # fmt: skip
            first, *_ = tiles(shape, Machine(132, shared))
            assert first.stages * (first.rows + first.columns) * first.terms * shape.bytes <= shared
            assert first.rows < 2 * max(shape.rows, 16) and first.columns < 2 * shape.columns
            assert first.parts * first.terms <= max(shape.taps * shape.terms, first.terms)


def convolution(
    images: int, channels: int, size: int, window: int, stride: int, unit="tf32", outputs: int = 64
):
    """The scheduled program of a convolution, for a GPU that is not there."""
    from torch import fx

    from sol_dynamo.kernels.triton.target import TritonTarget
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products
    from sol_dynamo.schedule import schedule
    from sol_dynamo.spec import check

    g, pad = fx.Graph(), window // 2
    x, w = g.placeholder("x"), g.placeholder("w")
    args = (None, [stride, stride], [pad, pad], [1, 1], False, [0, 0], 1)
    y = g.call_function(torch.ops.aten.convolution.default, (x, w, *args))
    g.output((y,))
    last = {"memory_format": torch.channels_last, "device": "meta"}
    images_of = {} if channels < 16 else last  # as given, or made by the kernel before
    x.meta["val"] = torch.empty(images, channels, size, size, **{"device": "meta", **images_of})
    w.meta["val"] = torch.empty(outputs, channels, window, window, device="meta")
    y.meta["val"] = torch.empty(images, outputs, -(-size // stride), -(-size // stride), **last)
    y.meta["sol_strides"] = y.meta["val"].stride()
    rounded = frozenset({"convolution"} if unit == "tf32" else ())
    program = lower(
        fx.GraphModule({}, g), [("input", 0), ("weight", 0)], products=Products(tf32=rounded)
    )
    target = TritonTarget("cpu")
    return schedule(program, target.caps, target.walk, lambda step, p: check(p, step))


def test_windows_over_few_channels_read_a_copy():
    """Where that pays by the model: not for windows of few terms, nor where the plain pipes, which
    would multiply zeros, are what takes long."""
    program = convolution(8, 3, 224, window=7, stride=2)
    copy, product = program.kernels
    (store,) = copy.body[0].stores
    assert program.buffers[store.buffers[0]].numel == 8 * 229 * 229 * 4 and "border" in copy.note
    assert [a.extent for a in product.body[0].reduce_axes] == [7, 28]
    assert product.schedules[-1].stages == 1
    assert [program.buffers[p.stores[0].buffers[0]].shape for p in program.packs] == [(64, 7, 7, 4)]
    assert len(convolution(8, 3, 224, window=3, stride=2).kernels) == 1
    assert len(convolution(8, 3, 224, window=7, stride=2, unit="ieee").kernels) == 1
    assert len(convolution(8, 64, 56, window=3, stride=1).kernels) == 1


@pytest.mark.parametrize("rounded", [False, True])
def test_a_copy_of_a_weight_with_channels_that_are_not_there(rounded):
    from sol_dynamo.affine import Index
    from sol_dynamo.ir import Axis, Buffer, Load, Loops, Op, Program, Store
    from sol_dynamo.kernels.host import packed, rounded_to_tf32

    o, c, k = map(Index.of, "ock")
    weight = Buffer("w", "f32", (5, 3, 7), (21, 7, 1), scope="weight")
    copy = Buffer("p", "f32", (5, 7, 4), (28, 4, 1), scope="weight")
    value = Load("w", (o, c, k), "f32", (Index.of(2) - c,), 0.0)
    stored = Op("tf32", (value,), "f32") if rounded else value
    nest = Loops((Axis("o", 5), Axis("k", 7), Axis("c", 4)), (Store(("p",), (o, k, c), (stored,)),))
    w = torch.randn(5, 3, 7)
    w[4, 2] = torch.inf  # next to what is not there
    made = packed(Program({"w": weight, "p": copy}, (), ("w",), ()), nest, {"w": w})
    want = torch.cat([w, torch.zeros(5, 1, 7)], 1).permute(0, 2, 1)
    assert torch.equal(made, rounded_to_tf32(want) if rounded else want)
    assert made.stride() == (28, 4, 1)


@pytest.mark.parametrize(("outputs", "window", "unit", "halo"), [
    (32, 3, "tf32", (1, 1)),
    (16, 5, "tf32", (2, 2)),
    (24, 3, "tf32", None),  # no power of two
    (32, 5, "tf32", None),  # 160 columns
    (32, 3, "ieee", None),
    (4, 17, "tf32", None),  # blocks would overlap by many rows
])  # fmt: skip
def test_taps_along_a_row_are_summed_in_one_kernel(outputs, window, unit, halo):
    """Where their columns are a block's, and units for rounded operands multiply."""
    program = convolution(8, 128, 112, window, 1, unit, outputs)
    assert len(program.kernels) == (1 if halo else 2)
    parts, *_, root = program.kernels[0].schedules
    if halo is None:
        assert not root.halo
        return
    (rows,) = root.halo
    assert root.halo[rows] == halo and root.tile[rows] == (128,) and parts.split == 1
    made = [b for nest in program.kernels[0].body[:-1] for x in nest.stores for b in x.buffers]
    assert [program.buffers[b].scope for b in made] == ["local", "local"]


@pytest.mark.parametrize(("images", "first"), [(1, "kh.0"), (32, "i.0")])
def test_taps_are_innermost_where_there_are_many_blocks(images, first):
    (product,) = convolution(images, 64, 56, window=3, stride=1).kernels
    assert product.schedules[0].order[0] == first


def test_of_tiles_that_are_equal_the_one_that_loads_least_is_first():
    from sol_dynamo.kernels.triton.cost import Machine, Shape, loads_of, microseconds
    from sol_dynamo.kernels.triton.product import EQUAL, tiles

    machine = Machine(132, 227 << 10)
    for rows, columns, terms in ((784, 576, 96), (25088, 192, 32), (6272, 128, 832)):
        shape = Shape(rows, columns, terms)
        first, *others = tiles(shape, machine)
        times = [microseconds(shape, t, machine) for t in (first, *others)]
        assert times[0] <= EQUAL * min(times)
        equal = [t for t, x in zip(others, times[1:], strict=True) if x <= EQUAL * min(times)]
        assert all(loads_of(shape, first) <= loads_of(shape, t) for t in equal)
    assert equal


def test_large_products_are_left_to_the_faster_one():
    """Of plain float32, which has units of its own in neither, ATen's are; small ones never."""
    from sol_dynamo.ir import Work
    from sol_dynamo.kernels.triton.cost import Machine
    from sol_dynamo.kernels.triton.product import elsewhere

    def asked(kind: str, *sizes: int, taps: int = 1, unit: str = "ieee", constant: bool = True):
        work = Work(kind, *sizes, taps=taps, unit=unit, constant=constant)
        return elsewhere(work, Machine(132, 227 << 10))

    assert "faster" in asked("matmul", 1, 4096, 3072, 768)
    assert not asked("matmul", 1, 64, 64, 64)
    assert not asked("matmul", 1, 128, 512, 512, unit="tf32")
    assert "float64" in asked("matmul", 1, 512, 512, 512, unit="double")
    assert "faster" in asked("convolution", 1, 25088, 128, 512)
    assert "faster" in asked("convolution", 1, 100352, 64, 64, taps=9)
    assert not asked("convolution", 1, 49, 512, 512, taps=9)
    assert not asked("convolution", 1, 6272, 512, 512, taps=9, unit="tf32")
    assert "change" in asked("convolution", 1, 49, 512, 512, taps=9, unit="tf32", constant=False)
    assert asked("weight gradient", 1, 512, 512, 49, taps=9)
    assert asked("sum inside", 1, 512, 2304, 768) and not asked("sum inside", 1, 4096, 2304, 768)
    assert not asked("sum inside", 1, 512, 2304, 768, unit="tf32")


@pytest.mark.parametrize("alone", [False, True])
def test_a_sum_that_one_kernel_makes_with_another(alone):
    """What is added to a convolution, by a convolution of ours for it alone: one kernel makes both
    in less time than ATen's takes behind it."""
    from torch import fx

    from sol_dynamo.kernels.triton.cost import Machine
    from sol_dynamo.kernels.triton.product import elsewhere
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products

    aten, g, asked = torch.ops.aten, fx.Graph(), []
    x, w, y, v = (g.placeholder(n) for n in "xwyv")
    args = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    shortcut = g.call_function(aten.convolution.default, (x, w, *args))
    last = g.call_function(aten.convolution.default, (y, v, *args))
    relu = g.call_function(aten.relu.default, (g.call_function(aten.add.Tensor, (last, shortcut)),))
    g.output((relu,) if alone else (relu, shortcut))
    for n, size in ((x, 256), (y, 128)):
        n.meta["val"] = torch.empty(32, size, 28, 28, device="meta")
    for n, size in ((w, 256), (v, 128)):
        n.meta["val"] = torch.empty(512, size, 1, 1, device="meta")
    out = torch.empty(32, 512, 28, 28, device="meta").to(memory_format=torch.channels_last)
    for n in g.nodes:
        if n.op == "call_function":
            n.meta["val"], n.meta["sol_strides"] = out, out.stride()

    def by_model(work, node):
        asked.append(work)
        return elsewhere(work, Machine(132, 227 << 10))

    sources = [("input", 0), ("weight", 0), ("input", 1), ("weight", 1)]
    products = Products(frozenset({"convolution"}), rectified=True, elsewhere=by_model)
    lower(fx.GraphModule({}, g), sources, products=products)
    first, second = asked
    assert second.added and second.beside == (first if alone else None)
    assert ("faster" in elsewhere(second, Machine(132, 227 << 10))) == (not alone)


@pytest.mark.parametrize("apart", [False, True])
def test_a_sum_behind_a_product_of_aten(apart):
    """Is inside the call, unless that is told to be slower."""
    from torch import fx

    from sol_dynamo.ir import Extern
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products
    from sol_dynamo.spec import check

    aten, g = torch.ops.aten, fx.Graph()
    c, a, b = (g.placeholder(n) for n in "cab")
    y = g.call_function(aten.addmm.default, (c, a, b))
    g.output((y,))
    for n, shape in ((c, (6,)), (a, (4, 5)), (b, (5, 6)), (y, (4, 6))):
        n.meta["val"] = torch.empty(shape, device="meta")
    asked = []

    def elsewhere(work, node):
        asked.append(work)
        return "faster" if apart or work.kind == "matmul" else ""

    products = Products(tf32=frozenset({"convolution"}), elsewhere=elsewhere)
    program = lower(fx.GraphModule({}, g), [("input", n) for n in range(3)], products=products)
    check(program, "lower")
    assert {w.unit for w in asked} == {"ieee"}
    calls = [k.op for k in program.kernels if isinstance(k, Extern)]
    assert calls == [aten.mm.default if apart else aten.addmm.default]
    assert len(program.kernels) == 1 + apart


def test_a_convolution_and_what_follows_are_one_call():
    """By constant weights in cuDNN's layout, with a ReLU, or a sum and a ReLU; not where something
    else reads the convolution, or what is added comes later."""
    from torch import fx

    from sol_dynamo.ir import Extern, read
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products
    from sol_dynamo.spec import check

    aten, g = torch.ops.aten, fx.Graph()
    x, w = g.placeholder("x"), g.placeholder("w")
    args = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    first, second, third, last = (
        g.call_function(aten.convolution.default, (x, w, None, *args)) for _ in range(4)
    )
    relu = g.call_function(aten.relu.default, (first,))
    read_twice = g.call_function(aten.relu.default, (second,))
    early = g.call_function(aten.add.Tensor, (third, last))
    late = g.call_function(aten.relu.default, (early,))
    fourth = g.call_function(aten.convolution.default, (x, w, None, *args))
    total = g.call_function(aten.add.Tensor, (relu, fourth))
    both = g.call_function(aten.relu.default, (total,))
    g.output((both, read_twice, second, late))
    x.meta["val"] = torch.empty(2, 8, 9, 9, device="meta")
    w.meta["val"] = torch.empty(32, 8, 3, 3, device="meta")
    for n in g.nodes:
        if n.op == "call_function":
            n.meta["val"] = torch.empty(2, 32, 9, 9, device="meta")
    products = Products(
        tf32=frozenset({"convolution"}), rectified=True,
        elsewhere=lambda work, node: "faster" if work.rectified else "",
    )  # fmt: skip
    sources = [("input", 0), ("weight", 0)]
    program = lower(fx.GraphModule({}, g), sources, products=products)
    check(program, "lower")
    calls = [k for k in program.kernels if isinstance(k, Extern)]
    assert [k.op for k in calls] == [
        aten.cudnn_convolution_relu.default, aten.cudnn_convolution_add_relu.default
    ]  # fmt: skip
    assert {k.reason for k in calls} == {"faster"} and len(program.packs) == 2
    assert program.buffers[calls[0].outs[0]].strides == (2592, 1, 288, 32)
    assert program.buffers[calls[0].args[1].buffer].strides == (72, 1, 24, 8)
    assert calls[1].args[2].buffer == calls[0].outs[0]
    assert calls[1].outs[0] in {b for k in program.kernels for b in read(k)}


def test_which_calls_are_part_of_a_graph():
    """Those between kernels, with what is copied in and out; sizes that depend on data split it."""
    from torch import fx

    from sol_dynamo.ir import Extern
    from sol_dynamo.kernels.host import Operands
    from sol_dynamo.kernels.triton.program import emit_program
    from sol_dynamo.kernels.triton.segment import Segment, Step, left_out, segments
    from sol_dynamo.kernels.triton.target import TritonTarget
    from sol_dynamo.lowering import lower
    from sol_dynamo.schedule import schedule

    aten, g = torch.ops.aten, fx.Graph()
    x = g.placeholder("x")
    first = g.call_function(aten.cumprod.default, (x, 0))  # reads an input
    doubled = g.call_function(aten.mul.Tensor, (first, 2))
    second = g.call_function(aten.cumprod.default, (doubled, 1))
    found = g.call_function(aten.nonzero.default, (second,))
    more = g.call_function(aten.add.Tensor, (second, 1))
    third = g.call_function(aten.cumprod.default, (more, 1))  # an output
    g.output((found, third))
    for n in g.nodes:
        if n.op != "output":
            n.meta["val"] = torch.empty(8, 9, device="meta")
            n.meta["sol_left_to_aten"] = "for this test" if "cumprod" in str(n.target) else ""
    found.meta["val"] = torch.empty(5, 2, dtype=torch.int64, device="meta")
    target = TritonTarget("cpu")
    program = schedule(lower(fx.GraphModule({}, g)), target.caps, target.walk)
    launches = emit_program(program)[1]
    steps: list[Step] = [
        k if isinstance(k, Extern) else (launch, None)
        for k, launch in zip(program.kernels, launches, strict=True)
    ]
    before, outside, behind = segments(Operands(program), steps, calls=True)
    assert isinstance(before, Segment) and isinstance(behind, Segment)
    assert isinstance(outside, Extern) and outside.op is aten.nonzero.default
    assert (
        len(before.steps) == 3
        and before._entering == ["x"]
        and before.leaving == {"cumprod_default_1"}
    )
    assert (
        len(behind.steps) == 2 and not behind._entering and behind.leaving == {"cumprod_default_2"}
    )
    apart = segments(Operands(program), before.steps, True, (), before.leaving)
    assert [s.leaving for s in apart if isinstance(s, Segment)] == [{"cumprod_default_1"}]
    why = left_out(program, steps, (), {"nonzero", "cumprod_default_2"})
    assert why == {steps.index(outside): "what it gives depends on data"}
    assert before.note() == "1 kernels and 2 calls of ATen: a graph"
    apart = segments(Operands(program), before.steps, False)
    assert [type(s) for s in apart] == [Extern, Segment, Extern]


class Replayed:
    """In place of a CUDA graph: does again what was done while it was recorded, its results where
    they were."""

    made = 0

    def __init__(self, record, stream: int):
        Replayed.made += 1
        self._record = record
        record(lambda pointers: None)

    def launch(self, stream: int) -> None:
        cells = dict(zip(self._record.__code__.co_freevars, self._record.__closure__, strict=True))
        results = cells["results"].cell_contents
        places = dict(results)
        self._record(lambda pointers: None)
        for name, place in places.items():
            results[name] = place.copy_(results[name])

    def pointers(self, places):
        return [[] for _ in places]  # only its recorder knows


def without_a_gpu(monkeypatch, segment):
    monkeypatch.setattr(segment, "Graph", Replayed)
    monkeypatch.setattr(segment, "_check_results", lambda made: None)
    monkeypatch.setattr(Replayed, "made", 0)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {})
    monkeypatch.setattr(torch.cuda, "use_mem_pool", lambda pool, device: nullcontext())
    monkeypatch.setattr(torch.cuda, "MemPool", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(cuda_stream=0))


def test_what_calls_read_is_copied_once_it_moves(monkeypatch):
    """Without a GPU: pinned where it was recorded, then copied; results are the caller's own."""
    from torch import fx

    from sol_dynamo.kernels.host import Operands
    from sol_dynamo.kernels.triton import segment
    from sol_dynamo.kernels.triton.scratch import Scratch, Where
    from sol_dynamo.kernels.triton.segment import Segment, advance, segments
    from sol_dynamo.lowering import lower
    from sol_dynamo.schedule import schedule
    from sol_dynamo.target import Caps

    without_a_gpu(monkeypatch, segment)
    aten, g = torch.ops.aten, fx.Graph()
    x = g.placeholder("x")
    first = g.call_function(aten.cumprod.default, (x, 0))
    second = g.call_function(aten.cumprod.default, (first, 1))
    g.output((second,))
    for n in (x, first, second):
        n.meta |= {"val": torch.empty(8, 9, device="meta"), "sol_left_to_aten": "for this test"}
    program = schedule(lower(fx.GraphModule({}, g)), Caps("cpu"))
    operands, device = Operands(program), torch.device("cpu")
    steps = segments(operands, program.kernels, calls=True)
    assert len(steps) == 1 and isinstance(steps[0], Segment)
    where = Where(Scratch.new(device, 64, 1), device, 0)
    weights, given, got = operands.prepare([]), [], []
    for made, pinned in ((0, True), (1, True), (2, False), (2, False), (2, False)):
        given.append(torch.rand(8, 9) + 0.5)
        values = {"x": given[-1]}
        advance(steps, operands, values, weights, where)
        got.append(values[program.outputs[0]])
        assert Replayed.made == made and (not steps[0]._wandering) == pinned
    assert not steps[0]._apart and not steps[0].reason
    for a, b in zip(given, got, strict=True):
        assert torch.equal(a.cumprod(0).cumprod(1), b)
    other = Where(Scratch.new(device, 64, 1), device, 0)  # of another call at the same time
    for _ in range(3):
        values = {"x": given[0]}
        advance(steps, operands, values, weights, other)
        assert torch.equal(values[program.outputs[0]], got[0])
    assert Replayed.made == 3


def test_what_backward_gets_is_lent(monkeypatch):
    """Without a GPU: results that only backward gets are handed out as they lie, and not written
    while somebody has them; what a caller gets is a copy."""
    from torch import fx

    from sol_dynamo.kernels.host import Operands
    from sol_dynamo.kernels.triton import segment
    from sol_dynamo.kernels.triton.scratch import Scratch, Where
    from sol_dynamo.kernels.triton.segment import advance, segments
    from sol_dynamo.lowering import lower
    from sol_dynamo.schedule import schedule
    from sol_dynamo.target import Caps

    without_a_gpu(monkeypatch, segment)
    aten, g = torch.ops.aten, fx.Graph()
    x = g.placeholder("x")
    first = g.call_function(aten.cumprod.default, (x, 0))
    second = g.call_function(aten.cumprod.default, (first, 1))
    result = g.output((second, first))
    for n in (x, first, second):
        n.meta |= {"val": torch.empty(8, 9, device="meta"), "sol_left_to_aten": "for this test"}
    result.meta["sol_output_strides"] = [(9, 1), None]
    program = schedule(lower(fx.GraphModule({}, g)), Caps("cpu"))
    assert program.lent == {program.outputs[1]}
    operands, device = Operands(program), torch.device("cpu")
    steps = segments(operands, program.kernels, calls=True)
    where, weights = Where(Scratch.new(device, 64, 1), device, 0), operands.prepare([])
    given = torch.rand(8, 9) + 0.5

    def run(x):
        values = {"x": given.copy_(x)}
        advance(steps, operands, values, weights, where)
        got = [values.pop(o) for o in program.outputs]
        assert torch.equal(got[1], x.cumprod(0)) and torch.equal(got[0], got[1].cumprod(1))
        return got

    inputs = [torch.rand(8, 9) + 0.5 for _ in range(6)]
    run(inputs[0])  # one by one
    places = [run(x)[1].data_ptr() for x in inputs[1:3]]
    assert Replayed.made == 1 and places[0] == places[1]  # a graph, whose result is lent
    held, caller = run(inputs[3])[::-1]
    assert held.data_ptr() == places[0]
    other = run(inputs[4])
    assert other[1].data_ptr() != places[0] and Replayed.made == 1
    assert torch.equal(held, inputs[3].cumprod(0)) and torch.equal(caller, held.cumprod(1))
    del held
    assert run(inputs[5])[1].data_ptr() == places[0] and Replayed.made == 1
    assert torch.equal(caller, inputs[3].cumprod(0).cumprod(1))


def test_calls_that_differ_in_places_only(monkeypatch):
    """Without a GPU: a replay gives new results each time, and is for no other stream, device or
    capture, nor while all scratch that is large enough is in use."""
    from ctypes import memmove

    from sol_dynamo.ir import Buffer
    from sol_dynamo.kernels.triton import replay
    from sol_dynamo.kernels.triton.fresh import Fresh
    from sol_dynamo.kernels.triton.graphs import NoGraph
    from sol_dynamo.kernels.triton.scratch import Scratch, Where

    now = {"device": -1, "stream": 7, "capturing": False}
    monkeypatch.setattr(replay, "cuda_device", lambda: now["device"])
    monkeypatch.setattr(replay, "cuda_stream", lambda device: now["stream"])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: now["capturing"])

    class Recorded:
        copied: dict = {}
        busy = False

        def held(self):
            return self.busy

        def __call__(self, given, values, weights, stream):
            if weights == "broken":
                raise NoGraph
            if weights != "known":
                return None
            assert given[:2] == list(scratch.addresses) and stream == 7
            memmove(given[2], given[3], 24)  # what is made comes from the second input
            return {"more": torch.full((1,), 3.0)}

    def graph(device, scratch, block):
        return None if now["device"] != -1 else recorded

    recorded = Recorded()
    segment = SimpleNamespace(
        outside=("y", "x"),
        moving=("y", "x"),
        kept=None,
        leaving={"more"},
        lent_parts=[],
        recorded=graph,
        pooled=False,
    )
    scratch, small = (Scratch.new(torch.device("cpu"), n, 1) for n in (64, 8))
    where, free = Where(scratch, SimpleNamespace(index=-1), 7), [scratch]
    y = Buffer("y", "f32", (2, 3), (1, 2), scope="output")
    fresh = Fresh(SimpleNamespace(outputs=[y], saved=[]), "cpu", {})
    fresh.new = lambda device, stream: [torch.empty_strided((2, 3), (1, 2)).fill_(-1)]
    parts = {
        "part": ("more", ((1, 2), (1, 0), 0), False), "view": ("y", ((2,), (1,), 1), True)
    }  # fmt: skip
    outputs = ["y", None, "y", "part", "view"]
    again = replay.Replay(segment, where, free, ["w", "x"], fresh, outputs, parts)
    assert again.is_for(where) and not again.is_for(where._replace(stream=8))
    with pytest.raises(KeyError):
        replay.Replay(segment, where, free, ["w", "x"], fresh, ["w2"], {})
    results = []
    for _ in range(3):
        x = torch.randn(3, 2)
        first, none, second, part, view = again([torch.empty(1), x], "known")
        assert first is second and none is None and free == [scratch]
        assert part.tolist() == [[3, 3]] and part._base is None
        assert view._base is first and view.data_ptr() == first.data_ptr() + 4
        assert torch.equal(first, x.t()) and first.stride() == (1, 2)
        results.append(first)
    assert len({r.data_ptr() for r in results}) == 3
    inputs = [torch.empty(1), torch.randn(3, 2)]
    assert again(inputs, "others") is None and again(inputs, "broken") is None
    recorded.busy = True
    assert again(inputs, "known") is None
    recorded.busy = False
    for what in ({"device": 0}, {"stream": 8}, {"capturing": True}):
        before = dict(now)
        now |= what
        assert again(inputs, "known") is None
        now |= before
    for others in ([], [small]):
        free[:] = others
        assert again(inputs, "known") is None and free == others
    free[:] = [scratch]
    assert again(inputs, "known") is not None


class Writers:
    """In place of a CUDA graph: kernels that write what `values` says to addresses that they hold;
    those in `hidden` are not among their arguments."""

    def __init__(self, values: dict[int, torch.Tensor], hidden: dict[int, torch.Tensor]):
        self.words, self.new = [[a] for a in values], [[a] for a in values]
        self._values, self._hidden = list(values.values()), hidden
        self.launches = self.refuses = 0

    def pointers(self, places):
        return [
            [(n, 0, 0) for n, (word,) in enumerate(self.words) if word == at] for at, _ in places
        ]

    def set(self, node: int, argument: int, address: int) -> None:
        self.new[node][argument] = address

    def update(self, node: int) -> None:
        from sol_dynamo.kernels.triton.graphs import NoGraph

        if self.refuses:
            self.refuses -= 1
            raise NoGraph("not this one")
        self.words[node] = list(self.new[node])

    def launch(self, stream: int) -> None:
        from ctypes import memmove

        self.launches += 1
        for (at,), value in zip(self.words, self._values, strict=True):
            memmove(at, value.data_ptr(), value.nbytes)
        for at, value in self._hidden.items():
            memmove(at, value.data_ptr(), value.nbytes)


@pytest.mark.parametrize("hides", ["nothing", "all", "half", "a copy", "itself", "no memory"])
def test_results_that_are_written_where_a_call_wants_them(hides, monkeypatch):
    """What calls of ATen give is new memory each time, not a copy, if that is seen to work."""
    from sol_dynamo.kernels.host import Prepared
    from sol_dynamo.kernels.triton.recorded import Recorded

    value, other, small = torch.randn(4, 1 << 14), torch.randn(1 << 15), torch.randn(3)
    results = {"a": torch.empty_like(value).t(), "b": torch.empty_like(other), "c": small.clone()}
    shown, hidden = {results["b"].data_ptr(): other}, dict[int, torch.Tensor]()
    at = results["a"].data_ptr()
    if hides in ("nothing", "a copy", "itself", "no memory"):
        shown[at] = value
    if hides in ("all", "a copy"):
        hidden[at] = value
    if hides == "half":
        shown[at], hidden[at + value.nbytes // 2] = value[:2], value[2:]
    graph = Writers(shown, hidden)
    recorded = Recorded(graph, lambda _: [], [], [], set(), {}, dict(results), {}, {}, [])
    new = {"b"} | ({"a"} if hides == "nothing" else set())
    with monkeypatch.context() as m:
        if hides == "itself":  # from the driver, when it is to be told
            new, graph.refuses = set(), 99
        if hides == "no memory":

            def agree(a, b):
                raise torch.OutOfMemoryError

            new = set()
            m.setattr("sol_dynamo.kernels.triton.recorded._agree", agree)
        recorded.renew([*results], {}, 0)
    assert graph.launches == {"itself": 1, "no memory": 2}.get(hides, 3)
    graph.refuses, graph.launches = 0, 3
    assert {b for b, _ in recorded._renewed} == new == recorded.renewed
    weights = Prepared([], [])
    made = [recorded([], {}, weights, 0) for _ in range(3)]
    assert graph.launches == 6
    for r in made:
        assert torch.equal(r["a"], value.t()) and r["a"].stride() == (1, 1 << 14)
        assert torch.equal(r["b"], other) and torch.equal(r["c"], small)
    assert len({r[b].data_ptr() for r in made for b in results}) == 9


def test_results_that_share_memory_are_copied():
    """One of them alone would be elsewhere."""
    from sol_dynamo.kernels.host import Prepared
    from sol_dynamo.kernels.triton.recorded import Recorded

    value = torch.randn(1 << 15)
    a = torch.empty_like(value)
    graph = Writers({a.data_ptr(): value}, {})
    results = {"a": a, "b": a.view(2, -1)}
    recorded = Recorded(graph, lambda _: [], [], [], set(), {}, results, {}, {}, [])
    recorded.renew(["a", "b"], {}, 0)
    assert not recorded._renewed and graph.launches == 0
    made = recorded([], {}, Prepared([], []), 0)
    assert (
        made is not None
        and torch.equal(made["a"], value)
        and torch.equal(made["b"].view(-1), value)
    )


def test_whether_what_is_lent_is_held():
    """By whoever has a tensor, or another one in its memory: in Python, by autograd, as a part; not
    by who had it when it was made."""
    from sol_dynamo.kernels.host import Prepared
    from sol_dynamo.kernels.triton.recorded import Recorded

    lent, parts = {"a": torch.randn(4, 6)}, {"part": ("a", (2, 6), (6, 1), 6)}
    at, value = lent["a"].data_ptr(), lent["a"].clone()
    recorded = Recorded(Writers({}, {}), lambda _: [], [], [], set(), {}, {}, lent, parts, [])
    lent.clear()
    weights, holders = Prepared([], []), list[object]()
    for how in (
        lambda r: r["a"], lambda r: r["part"], lambda r: r["a"].t(), lambda r: [r["part"]],
        lambda r: torch.ones(2, 6, requires_grad=True) * r["part"],
    ):  # fmt: skip
        assert not recorded.held()
        made = recorded([], {}, weights, 0)
        assert made is not None and recorded.held()
        assert made["a"].data_ptr() == at and torch.equal(made["part"], value[1:3])
        holders = [how(made)]
        del made
        assert recorded.held()
        holders.clear()
    assert not recorded.held()


def test_equal_text_of_other_dtypes_is_another_function():
    """Loads and stores do not say what they are of."""
    from torch import fx

    from sol_dynamo.kernels.triton.program import emit_program
    from sol_dynamo.kernels.triton.target import TritonTarget
    from sol_dynamo.lowering import lower
    from sol_dynamo.schedule import schedule

    g, results = fx.Graph(), []
    for dtype in (torch.float16, torch.float32, torch.bool):
        parts = [g.placeholder(f"x{n}_{dtype.itemsize}") for n in (3, 2)]
        for x, n in zip(parts, (3, 2), strict=True):
            x.meta["val"] = torch.empty(n, dtype=dtype, device="meta")
        results.append(g.call_function(torch.ops.aten.cat.default, (parts,)))
        results[-1].meta["val"] = torch.empty(5, dtype=dtype, device="meta")
    g.output(tuple(results))
    target = TritonTarget("cpu")
    program = schedule(lower(fx.GraphModule({}, g)), target.caps, target.walk)
    sources, launches = emit_program(program)
    functions = [launch.function for launch in launches if launch]
    assert len(functions) == len(set(functions)) == len(sources) - 1 == 6
    bodies = {sources[f"{f}.py"].split(f)[1] for f in functions}
    assert len(bodies) < 6  # so that names must tell


def test_a_product_that_is_left_to_aten_says_why():
    from torch import fx

    from sol_dynamo.ir import Extern, Work
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products

    x, g, asked = torch.empty(6, 5, device="meta"), fx.Graph(), []
    a = g.placeholder("a")
    b = g.call_function(torch.ops.aten.mm.default, (a, a))
    a.meta["val"], b.meta["val"] = x[:5], x[:5] @ x[:5]
    g.output((b,))
    products = Products(elsewhere=lambda work, node: asked.append((work, node)) or "slow here")
    (step,) = lower(fx.GraphModule({}, g), products=products).kernels
    assert isinstance(step, Extern) and step.reason == "slow here"
    assert asked == [(Work("matmul", 1, 5, 5, 5, 1, "ieee", False), b)]


def test_a_known_program_needs_no_triton():
    """To say how a kernel is launched, by machine code that is there, nothing imports Triton."""
    code = """
import sys
from sol_dynamo.kernels.triton import binary, execute, target
from sol_dynamo.kernels.triton.launch import Launch
launch = Launch("k", 1, ("x",), 4, 3)
assert launch.options(90)["launch_pdl"]
assert isinstance(binary.function_of(launch, "", ["f32"], "cuda"), binary.Binary)
made = target.TritonTarget("cuda")
made.caps, made.describe(), made.available()
assert "triton" not in sys.modules, [m for m in sys.modules if "triton" in m]
"""
    given = {**os.environ, "TRITON_INTERPRET": "0"}
    subprocess.run([sys.executable, "-c", code], env=given, check=True)


def test_what_takes_more_to_launch_is_left_to_triton():
    from sol_dynamo.kernels.triton.compile import written

    plain = {"name": "k", "num_warps": 4, "shared": 128, "num_ctas": 1, "global_scratch_size": 0}
    for more in (
        {},
        {"global_scratch_size": 8},
        {"num_ctas": 2},
        {"launch_cooperative_grid": True},
    ):
        kernel = SimpleNamespace(metadata=SimpleNamespace(**plain | more), asm={"cubin": b"code"})
        assert written(kernel, 3) == (None if more else b'["k", 4, 128, 3]\ncode')


def test_a_kernel_that_takes_more_memory_than_expected():
    """An operand computed of two that are loaded, for a GPU with 99 KiB of shared memory: each has
    its stages, and the operand its place."""
    from torch import fx

    from sol_dynamo.kernels.triton.compile import TooLarge, compile_fitting, compile_launch
    from sol_dynamo.kernels.triton.program import emit_program
    from sol_dynamo.kernels.triton.target import TritonTarget
    from sol_dynamo.lowering import lower
    from sol_dynamo.lowering.graph import Products
    from sol_dynamo.schedule import schedule

    g, aten, most = fx.Graph(), torch.ops.aten, 99 << 10
    x, gate, w = (g.placeholder(n) for n in ("x", "gate", "w"))
    operand = g.call_function(aten.mul.Tensor, (g.call_function(aten.relu.default, (x,)), gate))
    made = g.call_function(aten.mm.default, (operand, w))
    g.output((made,))
    for n in g.nodes:
        shape = (440, 440) if n is w else (392, 440)
        n.meta["val"] = torch.empty(shape, device="meta")
    target = TritonTarget("cpu")
    caps = replace(target.caps, local_bytes=most)
    lowered = lower(fx.GraphModule({}, g), products=Products(frozenset({"matmul"})))
    sources, (launch,) = emit_program(schedule(lowered, caps, target.walk))
    taken = sources[f"{launch.function}.py"], ["f32"] * len(launch.buffers), 86
    assert compile_launch(launch, *taken).metadata.shared > most  # or this tests nothing
    kernel, stages = compile_fitting(launch, *taken, most)
    assert kernel.metadata.shared <= most and 0 < stages < launch.stages
    with pytest.raises(TooLarge, match=f"{launch.function} takes .* shared memory"):
        compile_fitting(launch, *taken, 1024)
