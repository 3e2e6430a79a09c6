"""Copies to, from and within the device: dtypes, strides, overlaps, sizes, asynchrony."""

from __future__ import annotations

import pytest
import torch
from device import same, special
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64, torch.complex128),
]


def values(*shape, dtype):
    if dtype.is_floating_point:
        return special(*shape, dtype=dtype)
    if dtype.is_complex:
        return torch.randn(shape, dtype=dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_there_and_back(dtype):
    x = values(3, 5, 7, dtype=dtype)
    same(x.to("ve"), x)


@pytest.mark.parametrize("to", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_dtypes_are_converted(dtype, to):
    x = torch.randint(0, 2, (4, 9)).to(dtype)
    same(x.to("ve", dtype=to), x.to(to))
    same(x.to("ve").to(to), x.to(to))
    assert torch.equal(x.to("ve").to("cpu", dtype=to), x.to(to))
    y = torch.zeros(4, 9, dtype=to)
    y.copy_(x.to("ve"))
    assert torch.equal(y, x.to(to))


@st.composite
def layouts(draw):
    """A base shape, and a view of it as a function."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = draw(st.permutations(range(len(shape))))
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    steps = [draw(st.integers(1, 3)) for _ in shape]
    cut = tuple(slice(a, None, s) for a, s in zip(starts, steps, strict=True))
    return shape, lambda x: x[cut].permute(*order)


@settings(max_examples=60)
@given(layouts(), layouts())
def test_strided(a, b):
    """A view of one tensor into a view of another, in all directions; gaps stay as they are."""
    (shape_a, view_a), (shape_b, view_b) = a, b
    target = torch.randn(shape_b)
    source = torch.randn(view_b(target).shape)
    plain = target.clone()
    view_b(plain).copy_(source)
    for source_device, target_device in (("cpu", "ve"), ("ve", "cpu"), ("ve", "ve")):
        moved = target.to(target_device, copy=True)
        view_b(moved).copy_(source.to(source_device))
        assert torch.equal(moved.cpu(), plain), (source_device, target_device)
    x = torch.randn(shape_a)
    view = view_a(x.to("ve"))
    assert view.stride() == view_a(x).stride()
    assert torch.equal(view.cpu(), view_a(x))
    assert torch.equal(view.contiguous().cpu(), view_a(x).contiguous())


def test_strides_are_kept():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    y = x.to("ve")
    assert y.stride() == x.stride() and y.is_contiguous(memory_format=torch.channels_last)
    assert y.cpu().stride() == x.stride()
    assert y.clone().stride() == x.stride()


def test_broadcasting_copy():
    y = torch.zeros(3, 4, device="ve")
    y.copy_(torch.arange(4.0))
    same(y, torch.arange(4.0).expand(3, 4).contiguous())
    y.copy_(torch.arange(3.0, device="ve")[:, None])
    same(y, torch.arange(3.0)[:, None].expand(3, 4).contiguous())


def test_expanded_source():
    x = torch.randn(3, 1).to("ve").expand(3, 5)
    assert x.stride() == (1, 0)
    same(x.clone(), x.cpu())


@pytest.mark.parametrize("where", ["cpu", "ve"])
def test_conjugate_and_negative_views(where):
    x = torch.randn(3, 4, dtype=torch.complex64)
    y = x.to("ve")
    assert torch.equal(y.conj().cpu(), x.conj())
    assert torch.equal(x.conj().to("ve").cpu(), x.conj().resolve_conj())
    assert torch.equal(y.conj().imag.cpu(), x.conj().imag)
    target = torch.zeros(3, 4, dtype=torch.complex64, device=where)
    target.conj().copy_(y)
    assert torch.equal(target.cpu(), x.conj().resolve_conj())


def test_overlapping_copies_are_refused_as_on_the_cpu():
    for device in ("cpu", "ve"):
        x = torch.arange(6.0, device=device)
        with pytest.raises(RuntimeError, match=r"single memory location|overlap"):
            x[1:].copy_(x[:-1])
        with pytest.raises(RuntimeError, match="more than one element"):
            x[:1].expand(4).copy_(torch.ones(4, device=device))


def test_copy_onto_itself():
    x = torch.arange(6.0, device="ve")
    x.copy_(x)
    x.copy_(x.view(6))
    same(x, torch.arange(6.0))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 5)])
def test_empty(shape):
    x = torch.empty(shape)
    assert x.to("ve").cpu().shape == shape
    y = torch.empty(shape, device="ve")
    y.copy_(x)
    x.copy_(y)
    y.copy_(torch.empty(shape, device="ve", dtype=torch.int64))


def test_scalars():
    x = torch.tensor(2.5, device="ve")
    assert x.item() == 2.5 and float(x) == 2.5 and x.cpu().shape == ()
    assert torch.tensor(True, device="ve").item() is True
    assert torch.tensor(3 + 4j, device="ve").item() == 3 + 4j
    assert torch.arange(5, device="ve").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="2 elements"):
        torch.ones(2, device="ve").item()


def test_large():
    """More than one piece of a copy between places on the device (32 MiB)."""
    x = torch.randint(-(2**31), 2**31 - 1, (20_000_003,), dtype=torch.int32)
    y = x.to("ve")
    assert torch.equal(y.cpu(), x)
    assert torch.equal(y.clone().cpu(), x)
    z = torch.empty_like(y)
    z[1:] = y[:-1]
    z[:1] = y[-1:]
    assert torch.equal(z.cpu(), x.roll(1))


def test_non_blocking_from_pinned():
    xs = [torch.randn(1 << 18).pin_memory("ve") for _ in range(4)]
    ys = [x.to("ve", non_blocking=True) for x in xs]
    zs = [torch.empty(1 << 18, pin_memory=True) for _ in range(4)]
    for y, z in zip(ys, zs, strict=True):
        z.copy_(y, non_blocking=True)
    torch.ve.synchronize()
    assert all(torch.equal(x, z) for x, z in zip(xs, zs, strict=True))


def test_non_blocking_from_pageable_may_be_changed_at_once():
    """As with CUDA: the copy is taken when the call returns."""
    for convert in (torch.float32, torch.float64):
        x = torch.ones(1 << 20)
        y = x.to("ve", convert, non_blocking=True)
        x.zero_()
        assert y.cpu().eq(1).all()


def test_source_of_a_copy_in_flight_may_be_freed():
    side = torch.ve.Stream()
    ys = []
    with torch.ve.stream(side):
        for k in range(20):
            ys.append(torch.full((1 << 18,), float(k)).pin_memory("ve").to("ve", non_blocking=True))
    side.synchronize()
    assert [y[-1].item() for y in ys] == list(range(20))


def test_numpy_and_lists_come_in():
    import numpy as np

    a = np.random.default_rng().standard_normal((3, 4))
    same(torch.tensor(a, device="ve"), torch.tensor(a))
    same(torch.as_tensor(a, device="ve"), torch.as_tensor(a))
    with pytest.raises(TypeError, match="cpu"):
        torch.ones(2, device="ve").numpy()


def test_fill_and_zero():
    for dtype in DTYPES:
        x = torch.empty(5, 7, dtype=dtype, device="ve").fill_(3)
        same(x, torch.full((5, 7), 3).to(dtype))
        x[1:, ::2].zero_()
        expected = torch.full((5, 7), 3).to(dtype)
        expected[1:, ::2].zero_()
        same(x, expected)
    x = torch.full((3_000_001,), 0.1, dtype=torch.float64, device="ve")
    assert torch.equal(x.cpu(), torch.full((3_000_001,), 0.1, dtype=torch.float64))
    x[0].fill_(torch.tensor(5.0))
    assert x[0].item() == 5
