"""Operators without a kernel: on the CPU, with one warning each, counted, exactly as there."""

from __future__ import annotations

import warnings

import pytest
import torch
from device import same, special


def setup_module():
    torch.ve.init()


@pytest.fixture
def caught():
    """The warnings of a test, all of them; each operator may warn anew."""
    torch.ve.reset_fallbacks()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield lambda: [str(w.message) for w in found if "no kernel" in str(w.message)]


def test_one_warning_for_each_operator(caught):
    x = torch.randn(4).to("ve")
    torch.digamma(x)
    torch.digamma(x)
    x.digamma_()
    torch.i0(x)
    assert [t.split()[0] for t in caught()] == ["aten::digamma", "aten::i0"]
    assert sum(n for k, n in torch.ve.fallbacks().items() if "digamma" in k) == 3


def test_warnings_can_be_silenced(caught):
    torch.ve.fallback_warnings(False)
    try:
        torch.erfinv(torch.rand(3).to("ve"))
    finally:
        torch.ve.fallback_warnings(True)
    assert caught() == [] and any("erfinv" in k for k in torch.ve.fallbacks())


def test_a_registered_kernel_takes_the_place(caught):
    """A later registration at the device's key overrides the fallback."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("igamma", lambda a, b: torch.full_like(a, 42), "PrivateUse1")
    x = torch.rand(3).to("ve")
    same(torch.igamma(x, x), torch.full((3,), 42.0))
    assert not any("igamma" in k for k in torch.ve.fallbacks())
    library._destroy()
    same(torch.igamma(x, x), torch.igamma(x.cpu(), x.cpu()))


def test_a_kernel_may_take_over_copies():
    library = torch.library.Library("sol_ve", "IMPL")
    calls = []

    def copy_(dst, src):
        calls.append(tuple(dst.shape))
        return dst.fill_(5)

    library.impl("copy_", copy_, "PrivateUse1")
    same(torch.ones(3).to("ve").clone(), torch.full((3,), 5.0))
    library._destroy()
    same(torch.ones(3).to("ve").clone(), torch.ones(3))
    assert calls == [(3,)]


def test_results_and_strides_are_the_cpus():
    x = special(4, 6)
    y = x.to("ve")
    for f in (
        lambda t: t.t() * 2,
        lambda t: t.sort(1),
        lambda t: t.exp().sum(0, keepdim=True),
        lambda t: torch.where(t > 0, t, 0),
        lambda t: torch.cat([t, t], 1),
        lambda t: t.topk(2),
        lambda t: [t.isnan(), t.abs().max()],
        lambda t: torch.einsum("ij,kj->ik", t, t),
    ):
        got, expected = f(y), f(x)
        many = isinstance(expected, (tuple, list))
        for g, e in zip(got if many else [got], expected if many else [expected], strict=True):
            assert g.stride() == e.stride()
            same(g, e, rtol=2e-6, atol=0)


def test_in_place_through_views():
    x = torch.randn(5, 6)
    y = x.to("ve")
    for t in (x, y):
        t[1:4, ::2].sigmoid_()
        t.t()[0].add_(t[:, 1])
        t.diagonal().clamp_(0, 1)
        torch.relu_(t[4])
    same(y, x, rtol=1e-6, atol=0)


def test_arguments_that_share_memory():
    """Overlap is seen, and refused, as on the CPU."""
    for device in ("cpu", "ve"):
        x = torch.arange(6.0, device=device)
        with pytest.raises(RuntimeError, match=r"overlap|single memory"):
            torch.add(x[:-1], 1, out=x[1:])
        x.add_(x)
        assert x.tolist() == [0, 2, 4, 6, 8, 10]
        with pytest.raises(RuntimeError, match=r"more than one element|clone"):
            x[:1].expand(3).add_(1)


def test_lists_of_tensors():
    xs = [torch.randn(n) for n in (3, 1, 4)]
    ys = [x.to("ve") for x in xs]
    for g, e in zip(torch._foreach_mul(ys, 3.0), torch._foreach_mul(xs, 3.0), strict=True):
        same(g, e)
    torch._foreach_add_(ys, ys)
    torch._foreach_add_(xs, xs)
    for y, x in zip(ys, xs, strict=True):
        same(y, x)


def test_optional_tensors_in_lists():
    x = torch.randn(4, 5)
    y = x.to("ve")
    i = torch.tensor([0, 3])
    same(y[:, i.to("ve")], x[:, i])
    same(y[:, i], x[:, i])
    y[i.to("ve"), :2] = 0
    x[i, :2] = 0
    same(y, x)
    same(y[y > 0], x[x > 0])


def test_out_variants_write_where_they_should():
    x = torch.randn(3, 5)
    y = x.to("ve")
    values, indices = torch.empty(0, device="ve"), torch.empty(0, dtype=torch.long, device="ve")
    result = torch.max(y, 1, out=(values, indices))
    assert result[0].data_ptr() == values.data_ptr()
    same(values, x.max(1)[0])
    same(indices, x.max(1)[1])


def test_running_statistics_are_updated():
    net = torch.nn.BatchNorm2d(3)
    other = torch.nn.BatchNorm2d(3).ve()
    x = torch.randn(2, 3, 4, 4)
    close = {"rtol": 2e-6, "atol": 1e-6}
    same(other(x.to("ve")).detach(), net(x).detach(), **close)
    same(other.running_mean, net.running_mean, **close)
    same(other.running_var, net.running_var, **close)
    assert net.running_mean.abs().sum() > 0
    same(other.eval()(x.to("ve")).detach(), net.eval()(x).detach(), **close)


@pytest.mark.parametrize(
    "name", [n for n in torch.fft.__all__ if n.endswith(("fft", "fft2", "fftn"))]
)
def test_fft(name):
    """None crashes the process; those of complex results came with views of conjugates."""
    f = getattr(torch.fft, name)
    x = torch.randn(4, 6)
    for t in (x, torch.randn(4, 6, dtype=torch.complex64)):
        try:
            expected = f(t)
        except (RuntimeError, TypeError) as e:
            with pytest.raises(type(e)):
                f(t.to("ve"))
            continue
        torch.testing.assert_close(f(t.to("ve")).cpu(), expected)


def test_numbers_take_no_part_in_type_promotion():
    x = torch.ones(2, dtype=torch.float16, device="ve")
    assert (x * 2.5).dtype == torch.float16
    assert (x * torch.tensor(2.5, dtype=torch.float64)).dtype == torch.float16
    i = torch.ones(2, dtype=torch.int64, device="ve")
    assert (i * 2).dtype == torch.int64 and (i * 2.5).dtype == torch.float32


def test_tensors_on_the_cpu_are_refused_where_numbers_would_do():
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="ve") + torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="ve").dot(torch.ones(3))
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([torch.ones(3), torch.ones(3, device="ve")])
    same(torch.ones(3, device="ve") + torch.tensor(1.0), torch.full((3,), 2.0))


def test_errors_are_the_cpus():
    with pytest.raises(RuntimeError, match=r"must match|broadcast"):
        torch.ones(3, device="ve") + torch.ones(4, device="ve")
    with pytest.raises(IndexError):
        torch.ones(3, device="ve")[5]
    with pytest.raises((IndexError, RuntimeError)):
        torch.ones(3, device="ve").index_select(0, torch.tensor([7], device="ve"))


def test_empty_views_far_into_memory():
    """They begin where there may be nothing."""
    x = torch.empty(0, device="ve").as_strided((0, 3), (3, 1), 100)
    assert (x + 1).shape == (0, 3) and x.sum().item() == 0
    y = torch.arange(50.0).to("ve")
    same(torch.cat([y[40:40], y[1:3]]), torch.tensor([1.0, 2.0]))
    out = y[50:]
    torch.mul(y[:3], 2, out=out)  # enlarges the memory that both lie in
    same(out, torch.tensor([0.0, 2.0, 4.0]))
    same(y, torch.arange(50.0))


def test_zeros_without_memory():
    """Autograd's: the gradient of a sign is one."""
    x = torch.randn(3, 2).to("ve").requires_grad_()
    (g,) = torch.autograd.grad(torch.sgn(x).sum(), x)
    assert g.is_ve and torch.equal(g.cpu(), torch.zeros(3, 2))
    same(g + 1, torch.ones(3, 2))
    same(torch._efficientzerotensor((2, 3), device="ve").clone(), torch.zeros(2, 3))
    same(torch.ones(2, device="ve").copy_(torch._efficientzerotensor(2)), torch.zeros(2))
    same(torch.ones(2, device="ve") * torch._efficientzerotensor(2, device="ve"), torch.zeros(2))


def test_sparse_is_refused_clearly():
    with pytest.raises(NotImplementedError, match="strided tensors only"):
        torch.eye(3, device="ve").to_sparse()
