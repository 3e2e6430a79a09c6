"""Views, resizing, storages: what only looks at sizes and strides, and shares memory."""

from __future__ import annotations

import pytest
import torch
from device import same

VIEWS = {
    "view": lambda x: x.view(6, 20),
    "view dtype": lambda x: x.view(torch.int32),
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "select": lambda x: x[1],
    "slice": lambda x: x[:, 1:3, ::2],
    "expand": lambda x: x[:, :1].expand(4, 5, 6),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x[:1].squeeze(0),
    "diagonal": lambda x: x.diagonal(0, 1, 2),
    "unfold": lambda x: x.unfold(2, 3, 2),
    "as_strided": lambda x: x.as_strided((3, 4), (2, 7), 5),
    "narrow": lambda x: x.narrow(2, 1, 3),
    "chunk": lambda x: x.chunk(3, 2)[1],
    "split": lambda x: x.split([1, 4], 1)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "movedim": lambda x: x.movedim(0, -1),
    "detach": lambda x: x.detach(),
    "alias": lambda x: torch.ops.aten.alias(x),
    "T": lambda x: x[0].T,
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 3)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory(name):
    x = torch.randn(4, 5, 6)
    y = x.to("ve")
    view, expected = VIEWS[name](y), VIEWS[name](x)
    assert view.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
    assert view.stride() == expected.stride()
    assert view.storage_offset() == expected.storage_offset()
    same(view, expected)
    if name not in ("expand", "as_strided", "unfold", "view dtype"):  # write through it
        view.fill_(7)
        expected.fill_(7)
        same(y, x)


def test_complex_views():
    x = torch.randn(3, 4, dtype=torch.complex64)
    y = x.to("ve")
    same(torch.view_as_real(y), torch.view_as_real(x))
    same(torch.view_as_complex(torch.view_as_real(y)), x)
    same(y.real, x.real)
    y.imag.zero_()
    x.imag.zero_()
    same(y, x)
    assert y.conj().is_conj() and y.conj().data_ptr() == y.data_ptr()
    same(y.conj().resolve_conj(), x.conj().resolve_conj())


def test_bad_views_are_refused_as_on_the_cpu():
    y = torch.zeros(4, 5, device="ve")
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        y.view(3, 7)
    with pytest.raises(RuntimeError, match="view"):
        y.t().view(20)


@pytest.mark.parametrize("size", [(2, 3), (10, 10), (0,), (4, 5), (1,), ()])
def test_resize(size):
    x = torch.arange(20.0).view(4, 5)
    y = x.to("ve")
    kept = min(20, torch.Size(size).numel())
    assert y.resize_(size) is y and y.shape == size and y.is_contiguous()
    assert torch.equal(y.cpu().flatten()[:kept], x.flatten()[:kept])
    y.fill_(3)
    assert y.cpu().eq(3).all()


def test_resize_of_a_view_and_in_channels_last():
    y = torch.arange(20.0).to("ve")
    v = y[15:]
    v.resize_(10)
    assert y.untyped_storage().nbytes() == 100 and torch.equal(y.cpu(), torch.arange(20.0))
    z = torch.empty(0, device="ve").resize_((2, 3, 4, 5), memory_format=torch.channels_last)
    assert z.is_contiguous(memory_format=torch.channels_last)
    z = torch.empty(0, device="ve").resize_as_(torch.empty(3, 2))
    assert z.shape == (3, 2)


def test_out_arguments_are_resized():
    x, out = torch.randn(3, 4).to("ve"), torch.empty(0, device="ve")
    address = id(out)
    result = torch.mul(x, 2, out=out)
    assert id(result) == address
    same(out, x.cpu() * 2)
    out = torch.empty(4, 3, device="ve").t()
    torch.mul(x, 2, out=out)
    assert out.stride() == (1, 3)
    same(out, x.cpu() * 2)


def test_set():
    x = torch.arange(12.0).to("ve")
    y = torch.empty(0, device="ve")
    y.set_(x.untyped_storage(), 2, (3, 2), (1, 4))
    same(y, torch.arange(12.0).as_strided((3, 2), (1, 4), 2))
    y.set_(x)
    assert y.is_set_to(x) and y.data_ptr() == x.data_ptr()
    y.set_()
    assert y.shape == (0,) and y.data_ptr() == 0
    with pytest.raises(RuntimeError):
        y.set_(torch.ones(3).untyped_storage())
    z = torch.empty(0, device="ve").set_(x.untyped_storage())
    assert z.shape == (12,)


def test_data_is_exchanged():
    p = torch.nn.Parameter(torch.zeros(3, device="ve"))
    p.data = torch.ones(5, device="ve")
    assert p.shape == (5,) and p.sum().item() == 5


def test_storages():
    x = torch.arange(6.0).to("ve")
    s = x.untyped_storage()
    assert s.device == torch.device("ve:0") and s.nbytes() == 24 and s.is_ve
    assert torch.equal(torch.tensor(s.cpu().tolist()), torch.tensor(s.clone().cpu().tolist()))
    s.resize_(48)
    assert s.nbytes() == 48 and torch.equal(x.cpu(), torch.arange(6.0))
    s.resize_(0)
    assert s.nbytes() == 0
    host = torch.arange(4.0).untyped_storage()
    there = host.ve()
    assert there.is_ve and there.cpu().tolist() == host.tolist()
    assert torch.UntypedStorage(16, device="ve").nbytes() == 16
    assert torch.arange(3.0).to("ve").storage().is_ve


def test_geometry_of_factories():
    like = torch.empty(2, 3, 4, 5, device="ve").to(memory_format=torch.channels_last)
    for make in (torch.empty_like, torch.zeros_like, torch.ones_like, torch.rand_like):
        assert make(like).stride() == like.stride() and make(like).device == like.device
    assert torch.empty_strided((2, 3), (1, 5), device="ve").stride() == (1, 5)
    same(torch.zeros(2, 3, device="ve"), torch.zeros(2, 3))
    same(torch.full((3,), 2, device="ve"), torch.full((3,), 2))
    same(torch.eye(3, 4, device="ve"), torch.eye(3, 4))
    same(torch.linspace(0, 1, 7, device="ve"), torch.linspace(0, 1, 7))
    same(torch.tril_indices(4, 4, device="ve"), torch.tril_indices(4, 4))
    assert like.new_zeros(3).device == like.device
    with torch.device("ve"):
        assert torch.zeros(3).device.type == "ve" and torch.nn.Linear(2, 2).weight.is_ve
