"""Programs of ops are made and run as if nobody were compiling or tracing: whatever the caller has
on, its tools must not see our Python, nor ours its fake tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from device import same
from torch.fx.experimental.proxy_tensor import make_fx

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@contextmanager
def watched() -> Iterator[list[str]]:
    """With Dynamo's callback set in this thread: one that compiles nothing, and the files of what
    it is asked to compile."""
    from torch._C._dynamo.eval_frame import set_eval_frame
    from torch._dynamo.types import ConvertFrameReturn

    seen: list[str] = []

    def callback(frame, *_):
        seen.append(frame.f_code.co_filename)
        return ConvertFrameReturn()

    before = set_eval_frame(callback)
    try:
        yield seen
    finally:
        set_eval_frame(before)


def mine() -> None:
    """What the callback is to see; of each function, the first call."""


def also_mine() -> None:
    pass


def test_dynamo_compiles_no_program():
    x = torch.randn(3, 11)
    y, z = x.ve(), torch.ones(3).ve()
    y + 0  # the compiler is imported
    with watched() as files:
        new, known = torch.sinh(y), torch.sinh(y)
        torch.add(y, 1.5, out=y)
        (product,) = torch._foreach_mul([y], 3.5)
        mine()
        found = [*files]
    assert found == [__file__]
    for got in (new, known):
        same(got, x.sinh(), **CLOSE)
    same(y, x + 1.5)
    same(product, (x + 1.5) * 3.5)
    with watched() as files:
        try:
            z.gather(0, torch.full((1,), 9, device="ve"))
        except (IndexError, RuntimeError):
            also_mine()
        found = [*files]
    assert found == [__file__]  # also where an op has failed


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_programs_are_made_while_the_caller_traces(mode):
    """Ops of constants are computed while what is around them is traced."""
    size = {"real": 13, "symbolic": 15}[mode]
    constant, x = torch.randn(size), torch.randn(size)
    held = constant.ve()
    torch.ve.reset_fallbacks()

    def f(t):
        return t.cosh() * held[:1].sinh().cumsum(0)

    g = make_fx(f, tracing_mode=mode, _allow_non_fake_inputs=True)(x.ve())
    same(g(x.ve()), x.cosh() * constant[:1].sinh(), **CLOSE)
    assert not torch.ve.fallbacks()


@pytest.mark.parametrize("backend", ["sol", "aot_eager"])
def test_programs_are_made_for_graphs_with_symbols(backend):
    """Their ops run one by one where sizes come once, and would meet symbols in the caller's
    thread."""
    torch._dynamo.reset()

    @torch.compile(backend=backend, dynamic=True)
    def f(t):
        return (t.sinh() * t.shape[0]).cumsum(0)

    torch.ve.reset_fallbacks()
    for n in (33, 34, 35):
        x = torch.rand(n)
        same(f(x.ve()), (x.sinh() * n).cumsum(0), rtol=1e-5, atol=1e-5)
    assert not torch.ve.fallbacks()
