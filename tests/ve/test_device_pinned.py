"""Pinned memory, and the DataLoader that uses it."""

from __future__ import annotations

import gc

import torch
from device import check_python
from torch.utils.data import DataLoader, TensorDataset


def setup_module():
    torch.ve.init()


def test_pin():
    x = torch.randn(1000)
    assert not x.is_pinned()
    y = x.pin_memory()
    assert y.is_pinned() and y.device.type == "cpu" and torch.equal(x, y)
    assert y[10:20].is_pinned()
    assert y.pin_memory() is y
    assert torch.empty(5, pin_memory=True).is_pinned()
    assert not torch.ones(3, device="ve").is_pinned()


def test_pinned_pages_are_used_again():
    # so many that those which other tests have left are among them
    held = [torch.empty(100_000, dtype=torch.uint8, pin_memory=True) for _ in range(50)]
    addresses = {x.data_ptr() for x in held}
    del held
    gc.collect()
    y = torch.empty(100_000, dtype=torch.uint8, pin_memory=True)
    assert y.data_ptr() in addresses
    torch.accelerator.empty_host_cache() if hasattr(torch.accelerator, "empty_host_cache") else None
    assert y.is_pinned()
    y.fill_(3)
    assert y.to("ve", non_blocking=True).cpu().eq(3).all()


def test_pinned_storage():
    s = torch.randn(10).untyped_storage().pin_memory()
    assert s.is_pinned()


def test_device_memory_cannot_be_pinned():
    import pytest

    with pytest.raises(RuntimeError, match="only CPU memory"):
        torch.empty(3, device="ve", pin_memory=True)


def test_data_loader_pins():
    data = torch.arange(24.0).view(12, 2)
    for workers in (0, 2):
        loader = DataLoader(TensorDataset(data), 5, pin_memory=True, num_workers=workers)
        batches = [b for (b,) in loader]
        assert all(b.is_pinned() for b in batches)
        moved = torch.cat([b.to("ve", non_blocking=True) for b in batches])
        assert torch.equal(moved.cpu(), data)


def test_data_loader_of_a_program_that_has_no_use_for_the_device():
    """Pinning was of no effect without an accelerator, and stays so: nothing is built for it."""
    check_python(
        """
        import torch
        from torch.utils.data import DataLoader
        batches = list(DataLoader(torch.arange(6.0), 3, pin_memory=True))
        assert len(batches) == 2 and not batches[0].is_pinned()
        assert not torch.accelerator.is_available() and torch.accelerator.device_count() == 0
        assert torch.accelerator.current_accelerator(check_available=True) is None
        assert not torch.ve.is_initialized()
        """
    )
