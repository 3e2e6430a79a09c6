"""The vector engine as a target: graphs that torch.compile gives it run as code of the card.

Every operator's first sample runs on the device in one of a few graphs; all samples run with
SOL_TEST_TARGET=ve in test_samples.py. Results are held to float64 as elsewhere; no op may run on
the host but where a test says so.
"""

from __future__ import annotations

import copy
import gc
import math
import threading

import pytest
import test_samples
import torch
from accuracy import relative_error
from samples import ROWS
from torch import nn

import sol_dynamo.ve.execute
from sol_dynamo import programs
from sol_dynamo.backend import sol
from sol_dynamo.ve import compiler, objects, program
from sol_dynamo.ve.driver import open_driver

pytestmark = pytest.mark.ve
PARTS = 6


def setup_module():
    torch.ve.init()


def on_card(f):
    """f compiled, with its arguments and results on the host; nothing of it runs there."""
    torch._dynamo.reset()
    sol.reset()
    compiled = torch.compile(f, backend=sol)

    def run(*args):
        given = [a.to("ve") for a in args]
        compiled(*given)  # weights are packed
        torch.ve.reset_fallbacks()
        result = compiled(*given)
        assert not torch.ve.fallbacks()
        return torch.utils._pytree.tree_map(lambda t: t.cpu(), result)

    return run


def close(got, exact, eager):
    """Within twice eager's error, and two ulp."""
    ulp = torch.finfo(got.dtype).eps
    error, allowed = relative_error(got, exact), relative_error(eager, exact)
    assert error <= 2 * allowed + 2 * ulp, f"error {error:.2e}, eager's {allowed:.2e}"


# -- operators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(PARTS))
def test_first_samples(part, monkeypatch):
    """The first sample of each operator, side by side in a few graphs."""
    monkeypatch.setattr(test_samples, "DEVICE", "ve")
    monkeypatch.setattr(test_samples, "SEEDS", (1,))
    by_check: dict[str, list] = {}
    for op, row in list(ROWS.items())[part::PARTS]:
        by_check.setdefault(row.check, []).append(test_samples.calls(op, row)[0])
    for check, calls in by_check.items():
        test_samples.check(test_samples.run_compiled, check, calls)


# -- graphs ----------------------------------------------------------------------------------------


class Net(nn.Module):
    """A little of what convolutional networks have."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 20, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(20), nn.ReLU6()
        )
        self.depthwise = nn.Conv2d(20, 20, 5, padding=2, groups=20)
        self.grouped = nn.Conv2d(20, 30, 1, groups=2)
        self.norm = nn.BatchNorm2d(30)
        self.head = nn.Linear(30 * 9, 7)

    def forward(self, x):
        x = torch.max_pool2d(self.stem(x), 3, 2, 1)
        y = self.norm(self.grouped(self.depthwise(x) + x))
        y = torch.cat([y[:, 15:], torch.sigmoid(y[:, :15])], 1)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(y, 3).flatten(1)).softmax(-1)


def seeded(make):
    torch.manual_seed(3)
    return make()


def test_a_convolutional_network():
    net, x = seeded(Net).eval(), torch.randn(2, 3, 37, 41)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        eager, exact = net(x), copy.deepcopy(net).double()(x.double())
        close(on_card(net.to("ve"))(x), exact, eager)


def test_an_encoder_layer():
    layer = seeded(lambda: nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)).eval()
    x = torch.randn(3, 19, 32)
    eager, exact = layer(x), copy.deepcopy(layer).double()(x.double())
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(layer).to("ve"), backend=sol)
    close(compiled(x.to("ve")).detach().cpu(), exact.detach(), eager.detach())


def test_embedding_and_gather():
    table = torch.randn(50, 33)
    index = torch.tensor([[3, 0, 49], [-1, 7, 7]])

    def f(table, index):
        rows = table[index]
        return (
            rows.cumsum(1),
            rows.argmax(-1),
            torch.gather(rows, 2, rows.argsort(-1)),
            rows.max(-1),
        )

    torch._dynamo.reset()
    results = torch.compile(f, backend=sol)(table.to("ve"), index.to("ve"))
    leaves = torch.utils._pytree.tree_leaves
    for got, wanted in zip(leaves(results), leaves(f(table, index)), strict=True):
        assert torch.equal(got.cpu(), wanted) or (
            torch.allclose(got.cpu(), wanted, rtol=1e-6) and got.is_floating_point()
        )


@pytest.mark.parametrize("make", [nn.GRUCell, nn.LSTMCell])
def test_cells_of_recurrent_networks(make):
    cell = seeded(lambda: make(4, 5))
    other, x = copy.deepcopy(cell).to("ve"), torch.randn(3, 4)
    torch._dynamo.reset()
    leaves = torch.utils._pytree.tree_leaves
    results = []
    for m, run in ((cell, cell), (other, torch.compile(other, backend=sol))):
        made = leaves(run(x.to(m.weight_ih.device)))
        sum(t.square().sum() for t in made).backward()
        results.append([t.detach().cpu() for t in (*made, m.weight_ih.grad, m.bias_hh.grad)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [5, 700])
def test_an_index_out_of_range_is_said(size):
    table, index = torch.randn(50, size), torch.tensor([3, 50, 49])
    torch._dynamo.reset()
    f = torch.compile(lambda t, i: t[i] * 2, backend=sol)
    with pytest.raises(IndexError, match="index 50 is out of bounds for dimension with size 50"):
        f(table.to("ve"), index.to("ve"))
    good = index.clamp(max=49)
    assert torch.equal(f(table.to("ve"), good.to("ve")).cpu(), table[good] * 2)


def test_sizes_that_change():
    torch._dynamo.reset()
    f = torch.compile(lambda x: (x.sigmoid() * x).sum(-1), backend=sol, dynamic=True)
    for n in (5, 9, 9, 300, 300):
        x = torch.randn(3, n)
        torch.ve.reset_fallbacks()
        got = f(x.to("ve")).cpu()
        close(got, (x.double().sigmoid() * x.double()).sum(-1), (x.sigmoid() * x).sum(-1))


def test_weights_that_change_are_seen():
    net, x = seeded(Net).eval(), torch.randn(1, 3, 30, 30)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(net).to("ve"), backend=sol)
    with torch.no_grad():
        for k in range(3):
            close(compiled(x.to("ve")).cpu(), copy.deepcopy(net).double()(x.double()), net(x))
            for w, v in zip(net.parameters(), compiled.parameters(), strict=True):
                w.mul_(1.0 + 0.1 * k)
                v.mul_(1.0 + 0.1 * k)


def test_another_card():
    f = torch.compile(lambda x: (x * 3).softmax(-1), backend=sol)
    for card in range(min(torch.ve.device_count(), 2)):
        x = torch.randn(5, 70)
        y = f(x.to(f"ve:{card}"))
        assert y.device == torch.device("ve", card)
        close(y.cpu(), (x.double() * 3).softmax(-1), (x * 3).softmax(-1))


def test_more_pointers_than_a_call_takes():
    def f(xs):
        return [x + k for k, x in enumerate(xs)], torch.stack(xs).sum(0)

    xs = [torch.randn(3) for _ in range(140)]
    for _ in range(2):
        torch._dynamo.reset()
        got, total = torch.compile(f, backend=sol)([x.to("ve") for x in xs])
        assert all(
            torch.equal(g.cpu(), x + k) for k, (g, x) in enumerate(zip(got, xs, strict=True))
        )
        close(total.cpu(), torch.stack(xs).double().sum(0), torch.stack(xs).sum(0))


def test_training():
    x, target = torch.randn(8, 3, 24, 24), torch.randint(0, 7, (8,))

    class Small(Net):
        def forward(self, x):
            return nn.functional.cross_entropy(super().forward(x), target.to(x.device))

    losses = []
    for device in ("cpu", "ve"):
        net = seeded(Small).to(device).train()
        step = net
        if device == "ve":
            torch._dynamo.reset()
            step = torch.compile(net, backend=sol)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses.append([])
        for _ in range(4):
            loss = step(x.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert torch.allclose(*map(torch.tensor, losses), atol=1e-5), losses


# -- cores -----------------------------------------------------------------------------------------


def test_any_number_of_cores_gives_the_same_bits(monkeypatch):
    net, x = seeded(Net).eval().to("ve"), torch.randn(2, 3, 90, 90).to("ve")
    torch._dynamo.reset()
    compiled = torch.compile(net, backend=sol)
    results = []
    for cores in (1, 2, 3, 8):
        monkeypatch.setattr(sol_dynamo.ve.execute, "cores_used", lambda n=cores: n)
        with torch.no_grad():
            results.append(compiled(x).cpu())
    assert all(torch.equal(results[0], r) for r in results[1:])


def test_streams_share_the_cores(monkeypatch):
    monkeypatch.setattr(sol_dynamo.ve.execute, "cores_used", lambda: 3)
    torch._dynamo.reset()
    f = torch.compile(lambda x: (x.exp() + x).softmax(-1), backend=sol)
    inputs = [torch.randn(64, 500) for _ in range(4)]
    streams = [torch.ve.Stream() for _ in inputs]
    results = []
    f(inputs[0].to("ve"))
    for x, s in zip(inputs * 3, streams * 3, strict=True):
        given = x.to("ve")
        torch.ve.synchronize()
        with torch.ve.stream(s):
            results.append(f(given))
    torch.ve.synchronize()
    for x, r in zip(inputs * 3, results, strict=True):
        close(r.cpu(), (x.double().exp() + x.double()).softmax(-1), (x.exp() + x).softmax(-1))


# -- registers -------------------------------------------------------------------------------------


def code_of(body: str) -> str:
    return program.prelude() + body


def test_code_that_needs_too_many_registers_is_refused():
    loads = "".join(f"__vr v{k} = _vel_vld_vssl(8, p + {k} * 256, 256);" for k in range(70))
    stores = "".join(f"_vel_vst_vssl(v{k}, 8, q + {k} * 256, 256);" for k in range(70))
    text = code_of(f"void f(long *p, long *q) {{ {loads} q[0] = p[70 * 256]; {stores} }}\n")
    assert isinstance(compiler.compile_objects({"f.c": text})["f.c"], compiler.Refused)
    assert isinstance(compiler.compile_objects({"f.c": text})["f.c"], compiler.Refused)  # kept


@pytest.mark.parametrize("what", ["store this register to", "load this register from"])
def test_all_that_llvm_says_for_lack_of_registers_is_a_refusal(monkeypatch, what):
    class Done:
        returncode, stdout = 1, ""
        stderr = f"fatal error: error in backend: Can't {what} stack slot\nPLEASE submit ..."

    compiler.find_compiler()
    monkeypatch.setattr(compiler, "call", lambda command: Done)
    text = f"/* {what} */"
    assert isinstance(compiler.compile_objects({"f.c": text})["f.c"], compiler.Refused)


def test_code_that_saves_masks_is_refused():
    masks = "".join(
        f"__vm256 m{k} = _vel_vfmklge_mvl(_vel_vld_vssl(8, p + {k} * 256, 256), 256);"
        for k in range(20)
    )
    stores = "".join(f"_vel_vst_vssml(v, 8, q + {k} * 256, m{k}, 256);" for k in range(20))
    text = code_of(
        f"void f(long *p, long *q) {{ {masks} __vr v = _vel_vld_vssl(8, q, 256);"
        f" {stores} {stores} }}\n"
    )
    found = compiler.compile_objects({"f.c": text})["f.c"]
    assert isinstance(found, compiler.Refused) and "masks" in str(found)


def test_vectors_across_a_call():
    """LLVM cannot put them on the stack, nor get them from there: it says the one or the other."""

    def f(x):
        return (torch.nn.functional.gelu(x) - 1).cumsum(0)

    x = torch.randn(9, 5, dtype=torch.float64)
    assert torch.allclose(on_card(f)(x), f(x), rtol=1e-14)


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_a_refused_kernel_is_written_otherwise(monkeypatch, refused):
    """The file, the kernel alone, then with few registers: what is left has no vectors."""
    asked, original = [], compiler.compile_objects

    def compile_objects(sources):
        made = original(sources)
        kernels = [n for n in sources if n != "runtime.c"]
        asked.append(kernels)
        few = compiler.Refused("for this test")
        return made | dict.fromkeys(kernels, few) if len(asked) <= refused else made

    monkeypatch.setattr(compiler, "compile_objects", compile_objects)
    torch._dynamo.reset()
    sol.reset()
    x = torch.randn(40, 300 + refused)
    got = torch.compile(lambda x: (x - x.mean(-1, keepdim=True)).relu(), backend=sol)(x.to("ve"))
    close(got.cpu(), *((v - v.mean(-1, keepdim=True)).relu() for v in (x.double(), x)))
    assert len(asked) == refused + 1
    (outcome,) = sol.graphs
    executable = outcome.compiled.executable
    assert all(s.vectors == (refused < 3) for s in executable.built.steps)
    assert len(executable.notes()) == (refused == 3)


def test_masks_beyond_the_registers():
    def f(x, y):
        tests = [(x > k / 10) & (y < k / 7) for k in range(24)]
        total = torch.zeros_like(x)
        for k, t in enumerate(tests):
            total = torch.where(t | tests[-1 - k], total + k, total * 0.5)
        return total, torch.stack(tests).any(0)

    x, y = torch.randn(2000), torch.randn(2000)
    for g, e in zip(on_card(f)(x, y), f(x, y), strict=True):
        assert torch.equal(g, e)


def test_small_elements_at_any_place():
    """Bytes and halves are found in the words around them, and stored without their neighbours."""

    def f(a, b, c):
        padded = torch.nn.functional.pad(b, (2, 3), value=-0.0)
        rest = (c[3:-2] * 2).to(torch.int8), a.to(torch.uint8), padded.signbit()
        return (a[1:] > 3), b[:, 1:] + b[:, :-1], *rest

    a = torch.randint(-100, 100, (1003,), dtype=torch.int16)
    b = torch.randn(7, 301).to(torch.bfloat16)
    c = torch.randint(-50, 50, (777,), dtype=torch.int8)
    for g, e in zip(on_card(f)(a, b, c), f(a, b, c), strict=True):
        assert torch.equal(g, e)


def test_writing_where_a_kernel_reads():
    """Pieces that no turn divides, and no group of them: none is computed twice."""
    for shape, size in (((100, 50), (100, 1)), ((5, 13, 97), (13, 1)), ((67, 129), (67, 1))):
        x, scale = torch.randn(shape), torch.randn(size)
        for once in (torch.Tensor.mul_, torch.Tensor.sub_):
            placed = x.to("ve")
            once(placed, scale.to("ve"))
            assert torch.equal(placed.cpu(), once(x.clone(), scale))


WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_integers_do_not_hold(dtype):
    """They become what eager makes of them, in vectors, in single elements and without vectors."""

    def f(many, *single):
        return [x.to(d) for x in (many, *single) for d in WHOLE]

    values = [math.nan, math.inf, -math.inf, 2.0**31, 2.0**32, -(2.0**31), -(2.0**32), 1e10, -1e10]
    values += [2.0**63, -(2.0**63), 1e30, -1e30, 2.0**31 - 2, -(2.0**31) + 2, 300.5, -1.5]
    values += [2.0**31 - 2.0**-20, -(2.0**31) - 2.0**-20, -(2.0**31) - 1, 2.0**53 + 2]
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    single = list(x[:9].clone().unbind())
    for g, e in zip(on_card(f)(x, *single), f(x, *single), strict=True):
        assert torch.equal(g, e), (g, e)


def test_objects_go_when_no_program_has_them(monkeypatch):
    monkeypatch.setattr(objects, "KEPT", 0)

    def results(n):
        """Of a program that is gone when this returns, its last call maybe still under way."""
        f, x = lambda x: (x * n).exp(), torch.randn(300, 500)
        torch._dynamo.reset()
        y = torch.compile(f, backend=sol, dynamic=False)(x.to("ve"))
        torch._dynamo.reset()
        sol.reset()
        gc.collect()
        return y, x.mul(n).exp()

    made, known = [], set(objects._loaded)
    for n in (2, 3, 5, 7, 2):
        made.append(results(n))
        assert len(objects._loaded.keys() - known) <= 2  # its own, and that which runs the steps
    for y, e in made:
        assert torch.allclose(y.cpu(), e, rtol=1e-6)


def test_constants_are_computed_while_a_graph_is_traced(monkeypatch):
    """Their programs are made in another thread, which traces, too."""
    monkeypatch.setattr(programs, "find", lambda *_: None)

    def f(x):
        return x + torch.tensor([float(k) for k in range(19)], device=x.device)

    results = []

    def run():
        torch._dynamo.reset()
        results.append(torch.compile(f, backend=sol)(x.to("ve")).cpu())

    x = torch.randn(3, 19)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=300)  # for ever, where one waits for the other
    assert results and torch.equal(results[0], f(x))


def test_doctor_knows_the_target():
    facts = sol_dynamo.target.get_target("ve").describe()
    assert facts["cards"].startswith(str(open_driver().cards)) and facts["made by"]
