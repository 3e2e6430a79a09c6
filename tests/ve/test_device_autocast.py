"""Autocast and gradient scaling."""

from __future__ import annotations

import pytest
import torch
from device import same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_lower_and_sums_are_not(dtype):
    a, b = torch.randn(4, 5).to("ve"), torch.randn(5, 6).to("ve")
    with torch.autocast("ve", dtype=dtype):
        product = a @ b
        assert product.dtype == dtype
        assert torch.nn.functional.linear(a, b.t()).dtype == dtype
        x = torch.randn(1, 2, 5, 5, device="ve")
        assert torch.nn.functional.conv2d(x, torch.randn(3, 2, 3, 3, device="ve")).dtype == dtype
        assert product.softmax(-1).dtype == torch.float32
        assert product.sum().dtype == torch.float32
        assert torch.cat([product, a[:, :1]], 1).dtype == torch.float32  # the wider one
        assert (a + 1).dtype == torch.float32
        assert a.double().mm(b.double()).dtype in (dtype, torch.float64)
        with torch.autocast("ve", enabled=False):
            assert (a @ b).dtype == torch.float32
    assert (a @ b).dtype == torch.float32
    expected = (a.cpu().to(dtype) @ b.cpu().to(dtype)).float()
    same(product.float(), expected, rtol=2e-2, atol=2e-2)


def test_defaults_and_nesting():
    assert torch.ve.get_amp_supported_dtype() == [torch.bfloat16, torch.float16]
    assert not torch.is_autocast_enabled("ve")
    with torch.autocast("ve"):
        assert torch.is_autocast_enabled("ve") and not torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2, device="ve") @ torch.ones(2, 2, device="ve")).dtype in (
            torch.bfloat16,
            torch.float16,
        )
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with pytest.warns(UserWarning, match="not supported"), torch.autocast("ve", torch.float64):
        assert not torch.is_autocast_enabled("ve")


def test_gradients_have_the_parameters_dtype():
    net = torch.nn.Linear(4, 3).ve()
    with torch.autocast("ve", torch.bfloat16):
        loss = net(torch.randn(5, 4, device="ve")).float().pow(2).sum()
    loss.backward()
    assert net.weight.grad.dtype == torch.float32 and net.weight.grad.is_ve


def test_the_one_unsafe_loss_is_refused():
    with torch.autocast("ve"), pytest.raises(RuntimeError, match="unsafe to autocast"):
        torch.nn.functional.binary_cross_entropy(
            torch.rand(3, device="ve"), torch.rand(3, device="ve")
        )


def test_gradient_scaling():
    net = torch.nn.Linear(3, 1).ve()
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    scaler = torch.amp.GradScaler("ve", init_scale=1024.0)
    before = net.weight.detach().cpu()
    x = torch.randn(4, 3, device="ve")
    scaler.scale(net(x).sum()).backward()
    scaler.step(sgd)
    scaler.update()
    torch.testing.assert_close(net.weight.detach().cpu(), before - 0.1 * x.cpu().sum(0))
    scaler.scale(net(x).sum() * float("inf")).backward()
    kept = net.weight.detach().cpu()
    scaler.step(sgd)
    scaler.update()
    same(net.weight.detach(), kept)
    assert scaler.get_scale() == 512
