"""Ops of the device one at a time, as programs of ours: where results go, what makes a program,
random numbers, and training."""

from __future__ import annotations

import copy
import shutil
import threading

import pytest
import torch
import torch.nn.functional as F
from accuracy import relative_error
from device import check_python, same, special
from torch import nn

from sol_dynamo import compat
from sol_dynamo.eager import pieces
from sol_dynamo.lowering import RULES
from sol_dynamo.runtime import cache
from sol_dynamo.ve import module

pytestmark = pytest.mark.usefixtures("nothing_falls_back")
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def programs() -> int:
    return module.native().program_counts()[1]


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y: x + y,
        lambda x, y: y - x.t()[:4].t() * 2.5,
        lambda x, y: torch.where(x > 0, x, y.double()),
        lambda x, y: x.long() + True,
        lambda x, y: (x.half() + 1.5, x.bfloat16() * x),
        lambda x, y: x[:, :0].sum(1),
        lambda x, y: x[:0] * 2,
        lambda x, y: x.sum((0, 1)) + x.amax(),
        lambda x, y: x.max(1),
        lambda x, y: x.cumsum(1),
        lambda x, y: torch.cat([x, y.expand(2, 4), x], 0),
        lambda x, y: F.softmax(x, 1) @ y,
        lambda x, y: x.abs().sqrt().log1p().tanh(),
        lambda x, y: F.layer_norm(x, (4,), y, y),
        lambda x, y: x.gather(1, torch.zeros(5, 2, dtype=torch.long, device=x.device)),
        lambda x, y: x.std(1).unbind(),
        lambda x, y: torch.arange(3, 9, 2, device=x.device) * torch.full((3,), 7, device=x.device),
    ],
)
def test_results_are_the_cpus(f):
    x, y = torch.randn(5, 4), torch.randn(4)
    got, expected = f(x.ve(), y.ve()), f(x, y)
    many = isinstance(expected, tuple)
    for g, e in zip(got if many else [got], expected if many else [expected], strict=True):
        assert g.stride() == e.stride()
        bounds = {"rtol": 1e-2, "atol": 1e-2} if e.dtype == torch.bfloat16 else CLOSE
        same(g, e, **bounds)


def test_special_values_are_the_cpus():
    x = special(7, 9)
    plain = (torch.relu, torch.sign, torch.neg, torch.isnan)
    others = (
        lambda t: t * 0,
        lambda t: t.amax(1),
        lambda t: t.clamp(0, 1),
        lambda t: t.argmax(0),
        lambda t: t == t.t()[0, 0],
    )
    for f in (*plain, *others):
        same(f(x.ve()), f(x))


def test_zeros_keep_their_signs():
    x = torch.tensor([-0.0, 0.0, -0.0, 0.0, -1.0, torch.nan])
    y = torch.tensor([0.0, -0.0, -0.0, 0.0, 0.0, 0.0])
    for f in (
        *(torch.maximum, torch.minimum, torch.fmax, torch.fmin),
        lambda a, b: (a.clamp(max=0), a.clamp(min=-0.0), a.clamp(min=0), a.clamp(-0.0, 0)),
        lambda a, b: (a.clamp(min=b), a.clamp(max=b), torch.relu(a), F.relu6(a)),
    ):
        for g, e in zip(f(x.ve(), y.ve()), f(x, y), strict=True):
            same(g, e)
            assert torch.equal(g.cpu().signbit() & ~e.isnan(), e.signbit() & ~e.isnan())


def test_deviations_near_the_end_of_the_range():
    x = torch.tensor([[1e38, 2e38, -1e38], [1e-30, 2e-30, 4e-30]])
    for dim in (None, 1):
        same(x.ve().std(dim), x.std(dim), rtol=1e-6, atol=0)
        for g, e in zip(torch.std_mean(x.ve(), dim), torch.std_mean(x, dim), strict=True):
            same(g, e, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x[:1].logical_and_(x[:2]),
        lambda x: x[:1].ldexp_(x[:2]),
        lambda x: x[:0].logical_and_(x[:2]),
        lambda x: x[:1].add_(x[:2]),
        lambda x: x[:0].max(),
        lambda x: F.pad(x, (0, 1, 4, 0), mode="reflect"),
    ],
)
def test_what_eager_refuses(f):
    for device in ("cpu", "ve"):
        x = torch.ones(2, 3, 4, device=device)
        with pytest.raises((RuntimeError, IndexError)):
            f(x)
        assert x.shape == (2, 3, 4) and (x == 1).all()
    torch.ve.reset_fallbacks()  # the CPU was to refuse them


def test_results_go_where_they_should():
    x = torch.randn(4, 6)
    for t in (x, x.ve()):
        t[:, 1::2].mul_(3)
        t.t()[2] += 1
        torch.add(t[0], t[1], out=t[2])
        torch.mul(t[3], t[3], out=t[3])
        t[0].copy_(t[1, :1])
        out = torch.empty(3, 4, device=t.device).t()[:, 1:]
        address = out.data_ptr()
        torch.exp(t[:, :2], out=out)
        assert out.data_ptr() == address and out.stride() == (1, 4)
        t[:, :2] = out
        wide = torch.empty(0, dtype=torch.double, device=t.device)
        assert torch.sub(t, 1, out=wide).shape == (4, 6)
        t += wide
        if t.is_ve:
            same(t, x, rtol=1e-6, atol=1e-6)


def test_writes_to_what_is_read():
    """In place, a result may be stored over what it is made of only where elements match."""
    for device in ("cpu", "ve"):
        x = torch.arange(12.0, device=device).view(3, 4)
        x.cumsum_(0)
        assert x.tolist() == [[0, 1, 2, 3], [4, 6, 8, 10], [12, 15, 18, 21]]
        x[1].sub_(x[0])  # memory next to what is read
        x[2] = x[2] * x[2]
        assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [144, 225, 324, 441]]
        with pytest.raises(RuntimeError, match="single memory location"):
            x.view(-1)[:-1].add_(x.view(-1)[1:])
    y = torch.randn(3, 3)
    z = y.ve()
    same(torch.softmax(z, 0, dtype=torch.float32), torch.softmax(y, 0), **CLOSE)
    torch.softmax(z, 1, dtype=torch.float32)
    z.copy_(z.t().contiguous())
    same(z, y.t().contiguous())


def test_numbers_are_data():
    x, y = torch.randn(3, 5), torch.randn(3, 5)
    v, w = x.ve(), y.ve()

    def step(a, b, s):
        return (
            a + s * 3, a - b * s, torch.add(a, b, alpha=s), torch.addcmul(a, b, b, value=s),
            torch.addcdiv(a, b, b * b + 1, value=s), a.lerp(b, s), a.clone().mul_(s), a / s, s - a,
        )  # fmt: skip

    step(v, w, 0.125), step(v, w, 0.875)
    before = programs()
    for s in (0.3, 0.71, -0.2, 5.5, 1e-7):
        for g, e in zip(step(v, w, s), step(x, y, s), strict=True):
            same(g, e, rtol=2e-6, atol=1e-6)
    assert programs() == before
    for s in (0.0, 1.0, -1.0, float("inf"), float("nan"), 2):
        for g, e in zip(step(v, w, s), step(x, y, s), strict=True):
            same(g, e, rtol=2e-6, atol=1e-6)


def test_programs_are_kept_by_kind():
    x = torch.randn(6, 2).ve()
    x.sigmoid(), x.t().sigmoid()
    before = programs()
    for _ in range(3):
        x.sigmoid(), (x + 0).sigmoid(), x.clone().t().sigmoid()
    assert programs() <= before + 3  # the sum and the copies
    x.double().sigmoid(), x[:3].sigmoid()
    assert programs() > before + 3


def test_ever_new_sizes_make_few_programs(monkeypatch):
    monkeypatch.setattr(pieces, "PROGRAMS", 2)
    monkeypatch.setattr(pieces, "_programs", type(pieces._programs)())
    for n in range(50, 70):
        x, y = torch.randn(n), torch.randn(n)
        z = x.ve()
        z.atan2_(y.ve())
        same(z, x.atan2(y), rtol=1e-6, atol=1e-7)
        z.mul_(0.3).mul_(z)
        same(z, x.atan2(y).mul(0.3).square(), rtol=2e-6, atol=1e-7)
    sizes = {name[1] for name in pieces._pieces if "atan2" in name[0][0]}
    assert sizes <= {1, 2, 4, 8, 16, 32, 64}
    for n in (4, 5, 6):
        same(torch.ones(n, 3).ve().logsumexp(0), torch.ones(n, 3).logsumexp(0), **CLOSE)
    assert torch.ve.fallbacks()  # once for sizes that came once
    torch.ve.reset_fallbacks()
    same(torch.ones(6, 3).ve().logsumexp(0), torch.ones(6, 3).logsumexp(0), **CLOSE)


def test_a_second_process_compiles_nothing(tmp_path):
    code = """
        import torch
        from sol_dynamo import backend, eager
        made = []
        compiled = backend.compiled
        backend.compiled = lambda *a: made.append(1) or compiled(*a)
        x = torch.arange(6.0).ve()
        y = (x.view(2, 3).softmax(1) * 2.5).sum(0)
        assert torch.allclose(y.cpu(), (torch.arange(6.0).view(2, 3).softmax(1) * 2.5).sum(0))
        torch.manual_seed(3)
        print(len(made), torch.rand(2, device="ve").tolist(), torch.ve.fallbacks())
    """
    for p in cache.directory().glob("??/*.so"):  # the device and the simulator, but no program
        (tmp_path / p.parent.name).mkdir(mode=0o700, exist_ok=True)
        shutil.copy(p, tmp_path / p.parent.name)
    first, second = (
        check_python(code, SOL_CACHE_DIR=str(tmp_path), SOL_STRICT="0").split() for _ in range(2)
    )
    assert int(first[0]) >= 3 and second[0] == "0" and second[1:] == first[1:]


def test_indices_out_of_range_are_errors():
    x = torch.randn(4, 3).ve()
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        x.gather(0, torch.full((1, 3), 9, device="ve"))
    same(x + 0, x.cpu())


# -- random numbers ------------------------------------------------------------------------------


def test_a_graph_draws_what_its_ops_draw():
    def f(x):
        y = F.dropout(x, 0.4)
        z = torch.rand_like(y) + torch.randn(x.shape, device=x.device)
        return F.dropout(y, 0.2), z, torch.bernoulli(torch.full_like(x, 0.3))

    x = torch.randn(8, 16).ve()
    torch.manual_seed(11)
    eager = [t.cpu() for t in f(x)]
    state = torch.ve.get_rng_state()
    torch._dynamo.reset()
    torch.manual_seed(11)
    compiled = torch.compile(f, backend="sol", dynamic=False)(x)
    for g, e in zip(compiled, eager, strict=True):
        torch.testing.assert_close(g.cpu(), e, rtol=1e-6, atol=1e-6)
    assert torch.equal(torch.ve.get_rng_state(), state)


def test_samples_of_categories():
    weights = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.0, 2.0, 0.0, 0.0]]).ve()
    torch.manual_seed(4)
    drawn = torch.cat([torch.multinomial(weights, 1) for _ in range(300)], 1).cpu()
    counts = [(drawn[0] == k).sum().item() for k in range(4)]
    assert counts[1] == 0 and 10 < counts[0] < 60 and counts[2] > counts[3] > 50
    assert (drawn[1] == 1).all()
    for wrong in (
        torch.tensor([1.0, -1.0]),
        torch.tensor([0.0, 0.0]),
        torch.tensor([1.0, torch.nan]),
    ):
        with pytest.raises(RuntimeError, match="prob"):
            torch.multinomial(wrong.ve(), 1)


def test_generators_and_distributions():
    g = torch.Generator("ve").manual_seed(5)
    torch.manual_seed(5)
    for draw in (
        lambda **k: torch.empty(2000, device="ve").uniform_(-1, 3, **k),
        lambda **k: torch.empty(2000, device="ve").normal_(1, 2, **k),
        lambda **k: torch.empty(2000, device="ve").exponential_(0.5, **k),
        lambda **k: torch.empty(2000, device="ve").random_(3, 9, **k),
    ):
        a, b = draw(generator=g).cpu(), draw().cpu()
        assert torch.equal(a, b)  # the same seed, and as many draws
        assert a.unique().numel() == 6 or a.unique().numel() > 1900
    u = torch.rand(4000, device="ve").cpu()
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.03


# -- training ------------------------------------------------------------------------------------


def perceptron(p: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 32), nn.GELU(), nn.Dropout(p),
        nn.Linear(32, 5),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(),
            nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs),
        )  # fmt: skip
        self.short = nn.Sequential(nn.Conv2d(ins, outs, 1, stride), nn.BatchNorm2d(outs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.main(x) + self.short(x))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), Block(8, 8, 1),
        Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


TRAININGS = {
    "mlp": (perceptron, lambda p: torch.optim.Adam(p, 0.01), (16, 20)),
    "resnet": (resnet, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), (4, 3, 12, 12)),
}


def losses(make, optimizer, shape, device: str, compiled: bool = False, steps: int = 20):
    torch._dynamo.reset()
    net = make().to(device)
    step, f = optimizer(net.parameters()), net
    if compiled:
        f = torch.compile(net, backend="sol", dynamic=False)
    torch.manual_seed(5)
    data = torch.Generator().manual_seed(1)
    found = []
    for _ in range(steps):
        x = torch.randn(shape, generator=data).to(device)
        y = torch.randint(5, shape[:1], generator=data).to(device)
        step.zero_grad()
        loss = F.cross_entropy(f(x), y)
        loss.backward()
        step.step()
        found.append(loss.detach())
    return [x.item() for x in found]


FUSED = {
    "Adam": lambda p, **k: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True, **k),
    "AdamW": lambda p, **k: torch.optim.AdamW(p, 0.01, weight_decay=0.1, maximize=True, **k),
    "Adagrad": lambda p, **k: torch.optim.Adagrad(p, 0.1, lr_decay=0.1, weight_decay=0.1, **k),
    "SGD": lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, **k),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_optimizers(name):
    start = [torch.randn(4, 3), torch.randn(5)]
    grads = [[torch.randn(p.shape) for p in start] for _ in range(4)]
    found = {}
    for device in ("cpu", "ve"):
        params = [nn.Parameter(p.clone().to(device)) for p in start]
        optimizer = FUSED[name](params, fused=True)
        for k, step in enumerate(grads):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (k + 1)  # no new program for each
            for p, g in zip(params, step, strict=True):
                p.grad = g.to(device)
            before = programs()
            optimizer.step()
        found[device] = params
        assert device == "cpu" or programs() == before
    for p, q in zip(found["ve"], found["cpu"], strict=True):
        same(p.detach(), q.detach(), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", TRAININGS)
def test_losses_follow_the_cpus(name, compiled):
    expected = losses(*TRAININGS[name], "cpu")
    got = losses(*TRAININGS[name], "ve", compiled)
    assert max(abs(g - e) for g, e in zip(got, expected, strict=True)) < 1e-4
    assert len(got) == 20 and got[-1] < got[0]


def test_dropout_is_the_same_eager_and_compiled():
    _, optimizer, shape = TRAININGS["mlp"]
    eager, compiled, other = (
        losses(lambda p=p: perceptron(p), optimizer, shape, "ve", c, 6)
        for p, c in ((0.3, False), (0.3, True), (0.0, False))
    )
    assert max(abs(a - b) for a, b in zip(eager, compiled, strict=True)) < 1e-5
    assert max(abs(a - b) for a, b in zip(eager, other, strict=True)) > 1e-2


def test_tracing_an_op_leaves_modules_alone():
    """Other threads may be calling them, or tracing themselves."""
    before, seen = nn.Module.__call__, []

    def f(x):
        seen.append(nn.Module.__call__ is before)
        return [x + 1]

    with compat.static_fake_mode() as mode:
        x = torch.empty(3)
    gm = compat.functional_graph(f, [x], mode, {}, ())
    assert seen and all(seen) and nn.Module.__call__ is before
    assert [n.target for n in gm.graph.nodes if n.op == "call_function"] == [
        torch.ops.aten.add.Tensor
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_batch_norm_of_evaluation(dtype, compiled):
    """By statistics that are no weights: op by op, and in graphs that train what scales it."""
    norm = nn.BatchNorm2d(5).to(dtype).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    other = copy.deepcopy(norm).ve()
    run = torch.compile(other, backend="sol") if compiled else other
    x = torch.randn(2, 5, 3, 4, dtype=dtype)
    results = []
    for m, f, where in ((norm, norm, "cpu"), (other, run, "ve")):
        leaf = x.clone().to(where).requires_grad_()
        y = f(leaf)
        y.square().sum().backward()
        results.append([t.detach().cpu() for t in (y, leaf.grad, m.weight.grad, m.bias.grad)])
    bounds = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else CLOSE | {"rtol": 1e-5}
    for got, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(got, expected, **bounds)


def test_a_trace_waits_for_no_lock_of_its_own():
    """Graphs are traced with constants of the device, which are computed meanwhile."""
    done = threading.Event()

    def trace():
        with compat.undecomposed(RULES):
            same(torch.ones(3, 7, device="ve").cumsum(1)[:, 5], torch.full((3,), 6.0))
        done.set()

    threading.Thread(target=trace, daemon=True).start()
    assert done.wait(300)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(6, 8, 3, 2, 1),
        lambda: nn.Conv2d(6, 6, 3, groups=6),
        lambda: nn.ConvTranspose1d(6, 4, 3, 2, groups=2, bias=False),
    ],
)
def test_convolutions_of_halves_train(make, dtype):
    net = make()
    x = torch.randn(2, 6, *(9, 8)[: net.weight.dim() - 2])
    results = []
    for wide, where in ((torch.float64, "cpu"), (dtype, "cpu"), (dtype, "ve")):
        m = copy.deepcopy(net).to(dtype).to(wide).to(where)
        leaf = x.to(dtype).to(wide).to(where).requires_grad_()
        y = m(leaf)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape).to(wide).to(where))
        results.append([t.detach().cpu() for t in (y, leaf.grad, m.weight.grad)])
    for exact, eager, got in zip(*results, strict=True):
        allowed = 2 * relative_error(eager, exact) + 2 * torch.finfo(dtype).eps
        assert got.dtype == dtype and relative_error(got, exact) <= allowed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("f", [F.softmax, F.log_softmax])
def test_softmax_of_halves(f, dtype):
    x = special(7, 33, dtype=dtype)
    x[3:] = 5 * torch.randn(4, 33)
    exact, eager, got = f(x.double(), -1), f(x, -1), f(x.ve(), -1).cpu()
    assert got.dtype == dtype
    allowed = 2 * relative_error(eager, exact) + 2 * torch.finfo(dtype).eps
    assert relative_error(got, exact) <= allowed
    wide = torch.nn.functional.softmax(x.ve(), 0, dtype=torch.float32)
    torch.testing.assert_close(wide.cpu(), x.softmax(0, dtype=torch.float32), equal_nan=True)
