"""Saving, loading with map_location, pickling, deep copies, shared storages."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from device import check_python, same


def saved(x, **options):
    file = io.BytesIO()
    torch.save(x, file, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("weights_only", [True, False])
def test_save_and_load(weights_only):
    x = torch.randn(3, 4)
    for location in (None, "ve", "ve:0", torch.device("ve")):
        same(torch.load(saved(x.to("ve")), map_location=location, weights_only=weights_only), x)
    assert torch.equal(torch.load(saved(x.to("ve")), map_location="cpu"), x)
    same(torch.load(saved(x), map_location="ve"), x)
    same(torch.load(saved(x.to("ve")), map_location=lambda storage, where: storage.ve()), x)
    same(torch.load(saved(x), map_location={"cpu": "ve"}), x)


def test_old_format():
    x = torch.randn(5)
    same(torch.load(saved(x.to("ve"), _use_new_zipfile_serialization=False)), x)


def test_views_and_shared_storages_stay_so():
    x = torch.arange(6.0).to("ve")
    a, b = torch.load(saved([x, x[2:].view(2, 2)]))
    assert b.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
    same(b, torch.arange(2.0, 6.0).view(2, 2))


def test_modules():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).ve()
    assert all(p.is_ve for p in net.parameters()) and all(b.is_ve for b in net.buffers())
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    other.load_state_dict(torch.load(saved(net.state_dict()), map_location="cpu"))
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        same(p.detach(), q.detach())
    net.load_state_dict(other.state_dict())
    same(torch.load(saved(net), weights_only=False)[0].weight.detach(), other[0].weight.detach())


def test_optimizers():
    p = torch.nn.Parameter(torch.randn(4).to("ve"))
    adam = torch.optim.Adam([p])
    p.grad = torch.ones_like(p)
    adam.step()
    state = torch.load(saved(adam.state_dict()))
    again = torch.optim.Adam([p])
    again.load_state_dict(state)
    same(again.state[p]["exp_avg"], adam.state[p]["exp_avg"].cpu())


def test_pickle_and_deepcopy():
    x = torch.randn(3, 4).to("ve")
    same(pickle.loads(pickle.dumps(x)), x.cpu())
    y, z = copy.deepcopy([x, x[1:]])
    assert y.data_ptr() != x.data_ptr()
    assert z.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
    same(y, x.cpu())
    same(z, x.cpu()[1:])
    net = copy.deepcopy(torch.nn.Linear(2, 3).ve())
    assert net.weight.is_ve and net.weight.requires_grad
    same(copy.copy(x), x.cpu())


def test_loading_is_the_first_use(tmp_path):
    torch.save(torch.arange(4.0).to("ve"), tmp_path / "x.pt")
    out = check_python(
        f"""
        import torch
        x = torch.load({str(tmp_path / "x.pt")!r})
        print(x.device, x.tolist())
        """
    )
    assert out.strip() == "ve:0 [0.0, 1.0, 2.0, 3.0]"


def test_a_device_that_is_not_there():
    with pytest.raises(RuntimeError, match="device 9"):
        torch.load(saved(torch.ones(2)), map_location="ve:9")


def test_printing_needs_no_operator_of_the_device():
    x = torch.tensor([[1.5, float("nan")], [-0.0, 1e10]]).to("ve")
    torch.ve.reset_fallbacks()
    text = repr(x)
    assert torch.ve.fallbacks() == {}
    assert text == repr(x.cpu())[:-1] + ", device='ve:0')"
    assert "device='ve:0'" in repr(torch.nn.Parameter(x)) and "size=(0, 3)" in repr(
        torch.empty(0, 3, device="ve")
    )
    assert f"{torch.tensor(2.5, device='ve'):.2f}" == "2.50"
