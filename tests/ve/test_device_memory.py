"""The caching allocator: reuse, splitting and merging, statistics, streams, running out."""

from __future__ import annotations

import gc
from itertools import pairwise

import pytest
import torch
from device import check_python

MIB = 1 << 20


@pytest.fixture(autouse=True)
def clean():
    """No memory held by earlier tests."""
    gc.collect()
    torch.ve.synchronize()
    torch.ve.empty_cache()
    torch.ve.reset_peak_memory_stats()


def bytes_on(n, device="ve"):
    return torch.empty(n, dtype=torch.uint8, device=device)


def test_allocated_and_peak():
    torch.ve.init()
    before = torch.ve.memory_allocated()
    x, y = bytes_on(1000), bytes_on(3 * MIB)
    assert torch.ve.memory_allocated() - before == 1024 + 3 * MIB
    del y
    assert torch.ve.memory_allocated() - before == 1024
    assert torch.ve.max_memory_allocated() - before == 1024 + 3 * MIB
    torch.ve.reset_peak_memory_stats()
    assert torch.ve.max_memory_allocated() - before == 1024
    del x
    assert torch.ve.memory_allocated() == before


def test_freed_memory_is_used_again():
    x = bytes_on(5 * MIB)
    address, reserved = x.data_ptr(), torch.ve.memory_reserved()
    del x
    y = bytes_on(5 * MIB)
    assert y.data_ptr() == address
    assert torch.ve.memory_reserved() == reserved


def test_blocks_are_split_and_merged():
    """Neighbours that are free again make room for what none of them could hold."""
    parts = [bytes_on(4 * MIB) for _ in range(5)]  # one segment of 20 MiB
    addresses = sorted(p.data_ptr() for p in parts)
    assert [b - a for a, b in pairwise(addresses)] == [4 * MIB] * 4
    reserved = torch.ve.memory_reserved()
    del parts[1:4]
    stats = torch.ve.memory_stats()
    assert stats["inactive_split_bytes.all.current"] >= 12 * MIB - 512
    big = bytes_on(9 * MIB)
    assert torch.ve.memory_reserved() == reserved
    assert addresses[0] < big.data_ptr() < addresses[-1]


def test_merge_order_does_not_matter():
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1]):
        torch.ve.empty_cache()
        base = torch.ve.memory_reserved()
        parts = dict(enumerate(bytes_on(3 * MIB) for _ in range(3)))
        for k in order:
            del parts[k]
        torch.ve.empty_cache()
        assert torch.ve.memory_reserved() == base, order


def test_blocks_never_overlap():
    """A thousand random allocations and releases: no two live tensors share a byte."""
    g = torch.Generator().manual_seed(torch.seed() % 2**31)
    live: list[torch.Tensor] = []
    for _ in range(1000):
        if live and torch.rand((), generator=g) < 0.45:
            live.pop(int(torch.randint(len(live), (), generator=g)))
        else:
            exponent = float(torch.rand((), generator=g)) * 22
            live.append(bytes_on(int(2**exponent)))
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in live)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(start % 512 == 0 for start, _ in spans)
    expected = sum(-(-max(t.nbytes, 1) // 512) * 512 for t in live)
    assert torch.ve.memory_allocated() >= expected


def test_empty_cache_gives_memory_back():
    x = bytes_on(30 * MIB)
    held = torch.ve.memory_reserved()
    del x
    assert torch.ve.memory_reserved() == held
    torch.ve.empty_cache()
    assert torch.ve.memory_reserved() <= held - 30 * MIB


def test_zero_bytes():
    before = torch.ve.memory_allocated()
    x = torch.empty(0, 3, device="ve")
    assert x.data_ptr() == 0 and x.shape == (0, 3) and torch.ve.memory_allocated() == before
    assert x.cpu().shape == (0, 3)


def test_other_streams_do_not_get_freed_memory():
    """Work on the stream that a block belongs to may not be done when it is freed."""
    x = bytes_on(6 * MIB)
    address = x.data_ptr()
    del x
    with torch.ve.stream(torch.ve.Stream()):
        y = bytes_on(6 * MIB)
    assert y.data_ptr() != address


def test_record_stream_delays_reuse():
    """A block that another stream uses is not reused before that stream got there."""
    side = torch.ve.Stream()
    gate, x = bytes_on(40 * MIB), bytes_on(6 * MIB)
    pinned = torch.empty(40 * MIB, dtype=torch.uint8, pin_memory=True)
    address = x.data_ptr()
    with torch.ve.stream(side):
        for _ in range(4):  # keeps the side stream busy
            gate.copy_(pinned, non_blocking=True)
        x.record_stream(side)
        event = side.record_event()
    busy = not event.query()
    del x
    y = bytes_on(6 * MIB)
    assert not (busy and not event.query() and y.data_ptr() == address)
    side.synchronize()
    del y
    z = [bytes_on(6 * MIB) for _ in range(3)]
    assert address in [t.data_ptr() for t in z]  # and then it is


def test_out_of_memory_is_an_error_and_no_end():
    torch.ve.empty_cache()
    with pytest.raises(torch.OutOfMemoryError, match=r"ve:0 is out of memory.*1024.00 GiB"):
        bytes_on(1 << 40)
    assert torch.ve.memory_stats()["num_ooms"] >= 1
    assert bytes_on(100).fill_(7).cpu().eq(7).all()


def test_cached_memory_goes_before_running_out():
    """With a limit that only fits once the cache is emptied."""
    total = torch.ve.get_device_properties(0).total_memory
    torch.ve.empty_cache()
    base = torch.ve.memory_reserved()
    try:
        torch.ve.set_per_process_memory_fraction((base + 100 * MIB) / total)
        x = bytes_on(70 * MIB)
        del x
        retries = torch.ve.memory_stats()["num_alloc_retries"]
        y = bytes_on(80 * MIB)
        assert torch.ve.memory_stats()["num_alloc_retries"] == retries + 1
        with pytest.raises(torch.OutOfMemoryError, match="may reserve"):
            bytes_on(80 * MIB)
        del y
        free, everything = torch.ve.mem_get_info()
        assert everything == total and free <= 100 * MIB
    finally:
        torch.ve.set_per_process_memory_fraction(1.0)


def test_summary_and_statistics_of_torch():
    x = bytes_on(2 * MIB)
    assert "allocated_bytes" in torch.ve.memory_summary()
    assert torch.accelerator.memory_allocated() == torch.ve.memory_allocated() >= x.nbytes
    assert torch.ve.memory_stats()["allocation.all.allocated"] >= 1
    torch.ve.reset_accumulated_memory_stats()
    assert torch.ve.memory_stats()["allocation.all.allocated"] == 0


def test_nothing_is_reported_before_the_first_use():
    check_python(
        """
        import torch
        assert torch.ve.memory_allocated() == torch.ve.max_memory_reserved() == 0
        assert torch.ve.memory_stats() == {} and torch.ve.fallbacks() == {}
        torch.ve.empty_cache(); torch.ve.reset_peak_memory_stats(); torch.ve.synchronize()
        assert not torch.ve.is_initialized()
        """
    )
