"""The garbage collector is as it was, whatever happens while a graph is compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from sol_dynamo import backend
from sol_dynamo.runtime import collector


@pytest.fixture(params=[True, False])
def enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_as_it_was(enabled: bool) -> None:
    with pytest.raises(KeyError), collector.paused():
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() == enabled


@pytest.mark.parametrize("train", [False, True])
def test_nothing_is_collected_while_a_graph_is_compiled(
    enabled: bool, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    compiled = backend.compile_or_fall_back

    def watched(*args: object) -> object:
        seen.append(gc.isenabled())
        return compiled(*args)

    monkeypatch.setattr(backend, "compile_or_fall_back", watched)
    torch._dynamo.reset()
    x = torch.randn(3, 4, requires_grad=train)
    y = torch.compile(lambda x: torch.relu(x) * x, backend=backend.Backend())(x)
    assert gc.isenabled() == enabled
    if train:
        y.sum().backward()
    assert seen == [False] * (1 + train)
    assert gc.isenabled() == enabled
