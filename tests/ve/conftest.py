"""Two simulated cards for the tests of the device, unless the caller says otherwise."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("SOL_VE_CARDS", "2")  # before anything counts them


@pytest.fixture
def nothing_falls_back(monkeypatch):
    """What a test does runs on the device, as if it were the first to have programs made."""
    import torch

    from sol_dynamo.eager import pieces

    monkeypatch.setattr(pieces, "_programs", type(pieces._programs)())
    torch.ve.reset_fallbacks()
    yield
    assert not torch.ve.fallbacks()
