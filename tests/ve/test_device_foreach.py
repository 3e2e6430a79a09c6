"""Ops of lists of tensors: the CPU's results, one call for a list, few programs for many lists."""

from __future__ import annotations

import pytest
import torch
from device import same, special
from torch import nn

from sol_dynamo.eager import lists, pieces
from sol_dynamo.ve import module

pytestmark = pytest.mark.usefixtures("nothing_falls_back")
CLOSE = {"rtol": 2e-6, "atol": 1e-6}


def calls() -> int:
    return module.native().program_counts()[0]


def tensors(seed: int = 0) -> list[torch.Tensor]:
    """Equal and unequal shapes, no elements, no dimensions, other orders of dimensions, gaps."""
    g = torch.Generator().manual_seed(seed)
    sizes = ((3, 4), (5,), (3, 4), (), (0, 2), (0,))
    found = [torch.rand(s, generator=g) + 0.1 for s in sizes]
    return [*found, torch.rand(4, 3, generator=g).t(), torch.rand(6, generator=g)[::2] + 0.1]


def on_device(t: torch.Tensor) -> torch.Tensor:
    made = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="ve")
    return made.copy_(t)


def compare(f, *every: list[torch.Tensor], **bounds) -> None:
    """The same of a function of lists, and of the lists behind it, in one call of the device."""
    own = [[on_device(t) for t in x] for x in every]
    expected = f(*every)
    before = calls()
    got = f(*own)
    assert calls() == before + 1
    pairs = [*zip(got or (), expected or (), strict=True)]
    for x, y in zip(own, every, strict=True):
        pairs += zip(x, y, strict=True)
    for g, e in pairs:
        same(g, e, **(bounds or CLOSE))
        assert g.stride() == e.stride()


NUMBERS = [0.3, 0.5, 0.7, 1.25, 2.5, 3.5, -1.75, 4.5]
OPS = {
    "add": lambda x, y: torch._foreach_add(x, y, alpha=0.3),
    "add_": lambda x, y: torch._foreach_add_(x, y, alpha=0.3),
    "add_ of a number": lambda x, y: torch._foreach_add_(x, 1.5),
    "sub of numbers": lambda x, y: torch._foreach_sub(x, NUMBERS),
    "mul_ of a tensor": lambda x, y: torch._foreach_mul_(x, y[3]),
    "div_ of numbers": lambda x, y: torch._foreach_div_(x, NUMBERS),
    "addcmul_": lambda x, y: torch._foreach_addcmul_(x, y, y, value=0.7),
    "addcdiv_ of numbers": lambda x, y: torch._foreach_addcdiv_(x, x, y, NUMBERS),
    "addcdiv of a tensor": lambda x, y: torch._foreach_addcdiv(x, y, y, torch.tensor(NUMBERS)),
    "lerp_": lambda x, y: torch._foreach_lerp_(x, y, 0.8),
    "sqrt": lambda x, y: torch._foreach_sqrt(x),
    "maximum_": lambda x, y: torch._foreach_maximum_(x, y),
    "copy_": lambda x, y: torch._foreach_copy_(x, y),
    "pow of a number": lambda x, y: torch._foreach_pow(0.9, x),
    "norm": lambda x, y: torch._foreach_norm(x),
    "zero_": lambda x, y: torch._foreach_zero_(x),
}


@pytest.mark.parametrize("name", OPS)
def test_results_are_the_cpus(name):
    compare(OPS[name], tensors(1), tensors(2))


def test_special_values_and_other_dtypes():
    x, y = [special(4, 7), special(9)], [special(4, 7), special(9)]
    compare(lambda a, b: torch._foreach_maximum_(a, b), x, y, rtol=0, atol=0)
    compare(lambda a, b: torch._foreach_add(a, b, alpha=2.5), x, y)
    z = [torch.tensor([2**31 - 1, -(2**31), 7], dtype=torch.int32)]
    compare(lambda a: torch._foreach_mul_(a, 3), z, rtol=0, atol=0)
    compare(lambda a: torch._foreach_add(a, 1.5), z, rtol=0, atol=0)
    h = [torch.randn(9).half(), torch.randn(5).bfloat16(), torch.randn(5).double()]
    compare(lambda a: torch._foreach_mul(a, 1.7), h, rtol=0, atol=0)


def test_elements_that_share_memory_are_done_one_after_the_other():
    for device in ("cpu", "ve"):
        x = torch.arange(12.0, device=device)
        before = calls()
        torch._foreach_mul_([x[:4], x[4:8], x[8:]], 2.0)  # which do not overlap
        assert device == "cpu" or calls() == before + 1
        torch._foreach_add_([x[:4], x[:4], x[6:]], [x[4:8], x[4:8], x[:6]])
        assert x.tolist() == [16, 22, 28, 34, 8, 10, 28, 36, 44, 52, 28, 32]


def test_what_eager_refuses():
    x = [torch.ones(3).ve(), torch.ones(3).ve()]
    for f in (
        lambda: torch._foreach_add_(x, x[:1]),
        lambda: torch._foreach_mul_([], 2.0),
        lambda: torch._foreach_addcdiv_(x, x, x, torch.ones(3)),
        lambda: torch._foreach_add_(x, [torch.ones(4).ve(), torch.ones(4).ve()]),
        lambda: torch._foreach_lerp([t.long() for t in x], [t.long() for t in x], 0.5),
    ):
        with pytest.raises(RuntimeError):
            f()
    same(x[0], torch.ones(3))
    torch.ve.reset_fallbacks()  # the last one was the CPU's to refuse


def test_ever_new_sizes_make_few_programs(monkeypatch):
    monkeypatch.setattr(pieces, "PROGRAMS", 2)
    monkeypatch.setattr(pieces, "_programs", type(pieces._programs)())
    monkeypatch.setattr(lists, "_programs", {})
    for n in range(50, 62):
        compare(
            lambda x, y: torch._foreach_addcmul_(x, y, y, value=0.9),
            [torch.randn(n), torch.randn(3, n)],
            [torch.randn(n), torch.randn(3, n)],
        )
    # two sizes of each kind, then powers of two
    assert len(lists._programs) <= 2 + 8


def scaled_training(device: str) -> tuple[list[torch.Tensor], list[float]]:
    """Five steps of which the third overflows; scales, and parameters at the end."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0, growth_interval=2)
    scales = []
    for step in range(6):
        x = torch.randn(3, 4)
        x[0, 0] = float("inf") if step == 2 else 1.0
        optimizer.zero_grad()
        scaler.scale(net(x.to(device)).square().sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return [p.detach() for p in net.parameters()], scales


def test_gradient_scaler():
    (params, scales), (expected, others) = scaled_training("ve"), scaled_training("cpu")
    assert scales == others == [1024.0, 2048.0, 1024.0, 1024.0, 2048.0, 2048.0]
    for p, q in zip(params, expected, strict=True):
        same(p, q, **CLOSE)


def test_unscaling():
    for bad in (float("nan"), -float("inf"), None):
        for dtype in (torch.float32, torch.float16):
            grads = [
                torch.randn(3, 4).to(dtype),
                torch.randn(()).to(dtype),
                torch.randn(0).to(dtype),
            ]
            if bad is not None:
                grads[0][1, 2] = bad
            for found in (0.0, 1.0):
                both = []
                for device in ("cpu", "ve"):
                    own = [g.clone().to(device) for g in grads]
                    flag = torch.full((1,), found, device=device)
                    factor = torch.full((), 0.3, device=device)
                    torch._amp_foreach_non_finite_check_and_unscale_(own, flag, factor)
                    both.append([flag, *own])
                for g, e in zip(both[1], both[0], strict=True):
                    same(g, e)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adam with steps on the device": lambda p: torch.optim.Adam(p, 0.01, capturable=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, maximize=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_few_calls(name):
    """A step is some calls for all parameters, and makes no program after the second, whatever
    the learning rate."""
    start = [torch.randn(4, 3), torch.randn(5), torch.randn(4, 3), torch.randn(2, 2, 3)] * 5
    grads = [[torch.randn(p.shape) for p in start] for _ in range(4)]
    found, known = {}, 0
    for device in ("cpu", "ve"):
        params = [nn.Parameter(p.clone().to(device)) for p in start]
        group = OPTIMIZERS[name](params) if device == "ve" or "steps" not in name else None
        group = group or torch.optim.Adam(params, 0.01)
        for k, step in enumerate(grads):
            group.param_groups[0]["lr"] = 0.01 / (k + 1)
            for p, g in zip(params, step, strict=True):
                p.grad = g.to(device)
            before = calls()
            group.step()
            known = module.native().program_counts()[1] if k < 2 else known
        assert device == "cpu" or calls() - before < len(start)
        found[device] = params
    if "steps" not in name:
        assert module.native().program_counts()[1] == known
    for p, q in zip(found["ve"], found["cpu"], strict=True):
        same(p.detach(), q.detach(), rtol=4e-6, atol=2e-6)


def test_clipping_gradients():
    for foreach in (True, False):
        start = [torch.randn(4, 3), torch.randn(5), torch.randn(4, 3)]
        norms: list[torch.Tensor] = []
        expected: list[torch.Tensor] = []
        for device in ("cpu", "ve"):
            params = [nn.Parameter(p.clone().to(device)) for p in start]
            for p, g in zip(params, start, strict=True):
                p.grad = g.clone().to(device)
            norms.append(nn.utils.clip_grad_norm_(params, 0.5, foreach=foreach).cpu())
            grads = [p.grad.cpu() for p in params]
            expected = expected or grads
        torch.testing.assert_close(*norms, **CLOSE)
        for g, e in zip(grads, expected, strict=True):
            torch.testing.assert_close(g, e, **CLOSE)
