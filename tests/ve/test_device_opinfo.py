"""PyTorch's first float32 sample of every operator on the device, against the CPU."""

from __future__ import annotations

import pytest

pytest.importorskip("expecttest")  # torch.testing's operator database imports it
from device_opinfo import compare, float32_ops, sweep

NAMES = float32_ops()
# results that are not strided tensors, which the device does not have
SPARSE = {"to_sparse", "sparse.mm.reduce", "sparse.sampled_addmm"}


@pytest.mark.parametrize("name", NAMES[::12])
def test_sample(name):
    text = compare(name)
    if text.startswith("skip"):
        pytest.skip(text)
    assert not text or name in SPARSE, text


@pytest.mark.slow
def test_all_samples():
    """Each operator agrees, but for three that are sparse; none ends the process."""
    found = sweep(NAMES)
    bad = {n: e["text"] for n, e in found.items() if e["text"] and not e["text"].startswith("skip")}
    assert len(found) == len(NAMES) and set(bad) <= SPARSE, bad
    assert sum(not e["text"] and not e["fallbacks"] for e in found.values()) >= 450
