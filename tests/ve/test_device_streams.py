"""Streams and events: order, waiting for each other, asking, time, errors."""

from __future__ import annotations

import threading

import pytest
import torch
from device import check_python, same

N = 4 << 20  # bytes of a copy that takes a while


def busy(stream, times=6):
    """Keep a stream at work."""
    source = torch.empty(N, dtype=torch.uint8, pin_memory=True)
    with torch.ve.stream(stream):
        target = torch.empty(N, dtype=torch.uint8, device="ve")
        for _ in range(times):
            target.copy_(source, non_blocking=True)
    return target


def setup_module():
    torch.ve.init()


def test_current_and_default():
    default = torch.ve.default_stream()
    assert torch.ve.current_stream() == default and default.stream_id == 0
    side = torch.ve.Stream()
    assert side != default and side.device == torch.device("ve:0")
    with torch.ve.stream(side):
        assert torch.ve.current_stream() == side
        with torch.ve.stream(None):
            assert torch.ve.current_stream() == side
        with torch.ve.stream(default):
            assert torch.ve.current_stream() == default
        assert torch.ve.current_stream() == side
    assert torch.ve.current_stream() == default
    with side:
        assert torch.accelerator.current_stream() == side
    assert torch.ve.current_stream() == default


def test_current_stream_belongs_to_a_thread():
    seen = []
    with torch.ve.stream(torch.ve.Stream()):
        thread = threading.Thread(target=lambda: seen.append(torch.ve.current_stream().stream_id))
        thread.start()
        thread.join()
    assert seen == [0]


def test_a_stream_executes_in_order():
    x = torch.zeros(N, dtype=torch.uint8, device="ve")
    sources = [torch.full((N,), k, dtype=torch.uint8).pin_memory("ve") for k in range(1, 8)]
    result = torch.empty(N, dtype=torch.uint8, pin_memory=True)
    for s in sources:
        x.copy_(s, non_blocking=True)
    result.copy_(x, non_blocking=True)
    torch.ve.current_stream().synchronize()
    assert result.eq(7).all()


def test_event_orders_two_streams():
    """The second stream reads what the first wrote, though it was asked while that was at work."""
    a, b = torch.ve.Stream(), torch.ve.Stream()
    for k in range(1, 11):
        x = torch.zeros(N, dtype=torch.uint8, device="ve")
        torch.ve.synchronize()
        source = torch.full((N,), k, dtype=torch.uint8).pin_memory("ve")
        result = torch.empty(N, dtype=torch.uint8, pin_memory=True)
        keep = busy(a, 3)
        with torch.ve.stream(a):
            x.copy_(source, non_blocking=True)
            event = torch.ve.Event()
            event.record()
        with torch.ve.stream(b):
            event.wait()
            result.copy_(x, non_blocking=True)
        b.synchronize()
        assert event.query() and result.eq(k).all()
        del keep


def test_wait_stream():
    a, b = torch.ve.Stream(), torch.ve.Stream()
    x = torch.zeros(N, dtype=torch.uint8, device="ve")
    torch.ve.synchronize()
    source = torch.full((N,), 9, dtype=torch.uint8).pin_memory("ve")
    result = torch.empty(N, dtype=torch.uint8, pin_memory=True)
    keep = busy(a)
    with torch.ve.stream(a):
        x.copy_(source, non_blocking=True)
    b.wait_stream(a)
    with torch.ve.stream(b):
        result.copy_(x, non_blocking=True)
    b.synchronize()
    assert result.eq(9).all()
    del keep


def test_chains_of_waits_do_not_lock_up():
    """Each of seven streams waits for the one before, around and around."""
    streams = [torch.ve.Stream() for _ in range(7)]
    for _ in range(30):
        for before, s in zip([streams[-1], *streams[:-1]], streams, strict=True):
            s.wait_event(before.record_event())
    for s in streams:
        s.synchronize()
        assert s.query()


def test_query_and_synchronize():
    side = torch.ve.Stream()
    keep = busy(side, 10)
    event = side.record_event()
    event.synchronize()
    assert event.query()
    side.synchronize()
    assert side.query()
    torch.ve.synchronize()
    assert torch.ve.Event().query()  # never recorded: nothing to wait for
    torch.ve.Event().synchronize()
    torch.ve.Event().wait(side)
    del keep


def test_an_event_is_recorded_again():
    event, side = torch.ve.Event(), torch.ve.Stream()
    event.record(side)
    event.synchronize()
    keep = busy(side, 10)
    event.record(side)
    event.synchronize()
    assert event.query() and side.query()
    del keep


def test_elapsed_time():
    a, b = torch.ve.Event(enable_timing=True), torch.ve.Event(enable_timing=True)
    with pytest.raises(RuntimeError):
        a.elapsed_time(b)
    a.record()
    keep = busy(torch.ve.current_stream())
    b.record()
    b.synchronize()
    assert a.elapsed_time(b) > 0 and b.elapsed_time(a) < 0
    del keep


def test_events_outlive_their_objects():
    side = torch.ve.Stream()
    for _ in range(50):
        keep = busy(side, 1)
        side.record_event()
    side.synchronize()
    del keep


def test_many_threads_on_one_stream():
    errors = []

    def work(k):
        try:
            for _ in range(20):
                x = torch.full((1000,), float(k)).to("ve", non_blocking=True)
                same(x.clone(), torch.full((1000,), float(k)))
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_ops_on_a_side_stream():
    x = torch.randn(100)
    with torch.ve.stream(torch.ve.Stream()):
        y = x.to("ve")
        z = (y * 2 + 1).cpu()
    assert torch.equal(z, x * 2 + 1)


def test_a_bad_kernel_is_an_error_with_its_name_and_the_device_goes_on():
    """A call of an address where there is no code: the stream says so when it is waited for."""
    out = check_python(
        """
        import torch
        from sol_dynamo.ve import module
        x = torch.ones(4, device="ve")
        module._loaded().launch(0, 0x123450, [x.data_ptr(), 4], "made_up_kernel")
        try:
            torch.ve.synchronize()
        except RuntimeError as e:
            print("error:", e)
        print((x + x).sum().item())
        torch.ve.synchronize()
        """
    )
    assert "made_up_kernel" in out and "0x123450" in out and "8.0" in out


def test_the_profiler_has_times_of_the_device(capfd):
    x = torch.randn(40, 40, device="ve")
    (x @ x).sum()  # compiled before
    with torch.autograd.profiler.profile(use_device="ve") as profile:
        (x @ x).sum()
    found = {e.key: e for e in profile.key_averages()}
    assert found["aten::mm"].device_time_total > 0 and found["aten::sum"].count
    assert "VE total" in profile.key_averages().table()
    assert "Exception" not in capfd.readouterr().err  # torch prints those of its callbacks
