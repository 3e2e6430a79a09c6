"""Kernels of the card on tensors: launched on streams, in order; what they do wrong is an error."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
import torch
from device import same

from sol_dynamo.ve import module

pytest.importorskip("ziglang")

SOURCE = """
void add_to(float *x, long n, float a) { for (long i = 0; i < n; i++) x[i] += a; }
void many(long *out, long a, long b, long c, long d, long e, long f, long g, long h, long i) {
  out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e;
  out[5] = f; out[6] = g; out[7] = h; out[8] = i;
}
void far_away(float *x) { x[1L << 44] = 1; }
"""


def upper(x: float) -> int:
    """A float argument: the upper half of a register."""
    return struct.unpack("<I", struct.pack("<f", x))[0] << 32


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    source, out = folder / "kernels.c", folder / "kernels.o"
    source.write_text(SOURCE)
    flags = ["-target", "ve-freestanding", "-O2", "-fPIC", "-fno-builtin", "-fno-sanitize=all"]
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture
def launch(library):
    device = module._loaded()

    def call(name, *words, card=0):
        handle = device.load_library(card, str(library))
        device.launch(card, device.find_symbol(card, handle, name), list(words), name)

    return call


def test_a_kernel_changes_a_tensor(launch):
    x = torch.randn(1000)
    y = x.to("ve")
    launch("add_to", y.data_ptr() + 4 * 100, 800, upper(2.5))
    x[100:900] += 2.5
    same(y, x)


def test_kernels_and_copies_of_a_stream_stay_in_order(launch):
    with torch.ve.stream(torch.ve.Stream()):
        y = torch.zeros(50_000, device="ve")
        for k in range(20):
            launch("add_to", y.data_ptr(), y.numel(), upper(1.0))
            if k == 9:
                half = y.clone()
        event = torch.ve.current_stream().record_event()
    result = torch.empty(50_000, pin_memory=True)
    torch.ve.current_stream().wait_event(event)  # the default stream reads what the other wrote
    result.copy_(y, non_blocking=True)
    torch.ve.synchronize()
    assert result.eq(20).all() and half.cpu().eq(10).all()


def test_streams_run_kernels_side_by_side(launch):
    ys = []
    for k in range(5):
        with torch.ve.stream(torch.ve.Stream()):
            ys.append(torch.zeros(20_000, device="ve"))
            launch("add_to", ys[-1].data_ptr(), 20_000, upper(float(k)))
    torch.ve.synchronize()
    assert [y.max().item() for y in ys] == [0, 1, 2, 3, 4]


def test_more_arguments_than_registers(launch):
    y = torch.zeros(9, dtype=torch.int64, device="ve")
    values = [5, 2**63, 7, 11, 13, 2**64 - 1, 17, 19, 23]
    launch("many", y.data_ptr(), *values)
    assert [v % 2**64 for v in y.tolist()] == values


@pytest.mark.skipif(torch.ve.device_count() < 2, reason="one card")
def test_on_another_card(launch):
    y = torch.zeros(100, device="ve:1")
    launch("add_to", y.data_ptr(), 100, upper(3.0), card=1)
    same(y, torch.full((100,), 3.0))


def test_an_access_out_of_bounds_names_kernel_and_address(launch):
    """And the device is usable again, with all that was on it."""
    y = torch.ones(100, device="ve")
    address = y.data_ptr() + (4 << 44)
    launch("far_away", y.data_ptr())
    with pytest.raises(RuntimeError, match="far_away") as error:
        torch.ve.synchronize()
    assert f"{address:x}" in str(error.value).lower()
    launch("add_to", y.data_ptr(), 100, upper(1.0))
    same(y, torch.full((100,), 2.0))
    torch.ve.synchronize()


def test_it_is_said_by_the_next_copy_too(launch):
    y = torch.ones(4, device="ve")
    launch("far_away", y.data_ptr())
    with pytest.raises(RuntimeError, match="far_away"):
        y.cpu()
    assert y.cpu().tolist() == [1, 1, 1, 1]


def test_of_several_failures_the_first_is_told(launch):
    y = torch.ones(500_000, device="ve")
    torch.ve.synchronize()
    with torch.ve.stream(torch.ve.Stream()):
        launch("add_to", y.data_ptr(), y.numel(), upper(1.0))  # until all are in the queue
        for step in (0, 1, 2):
            launch("far_away", y.data_ptr() + (step << 20))
    with pytest.raises(RuntimeError, match="far_away") as error:
        torch.ve.synchronize()
    assert f"{y.data_ptr() + (4 << 44):x}" in str(error.value).lower()
    torch.ve.synchronize()


def test_who_waits_for_an_event_is_told(launch):
    y = torch.ones(4, device="ve")
    launch("far_away", y.data_ptr())
    event = torch.ve.current_stream().record_event()
    with pytest.raises(RuntimeError, match="far_away"):
        event.synchronize()
    event.synchronize()
    torch.ve.synchronize()


def test_libraries_and_names_that_are_not_there(library, tmp_path):
    device = module._loaded()
    with pytest.raises(RuntimeError, match="could not be loaded"):
        device.load_library(0, str(tmp_path / "none.o"))
    handle = device.load_library(0, str(library))
    with pytest.raises(RuntimeError, match="no_such_kernel"):
        device.find_symbol(0, handle, "no_such_kernel")
