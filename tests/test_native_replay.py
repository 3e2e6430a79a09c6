"""Launches of recorded graphs in one native call, without a GPU (`replays`)."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch
from weakref import ref

import pytest
import torch
from at_once import at_once
from replays import ACCEPTS, CPU, FROM, TO, Calls, Driver, Step, without_a_gpu

from sol_dynamo.kernels import host
from sol_dynamo.kernels.triton import fresh, native
from sol_dynamo.kernels.triton.recorded import Recorded
from sol_dynamo.kernels.triton.scratch import Pool, Scratch
from sol_dynamo.runtime import library


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Calls]]:
    """Programs, called once: natively from then on."""
    found: list[Calls] = []

    def now(name: str) -> Any:
        return found[-1].now[name]

    without_a_gpu(monkeypatch, now)

    def make(
        users: Any = ([], [], [(0, 0, TO)], [(0, 1, FROM)]),
        still: Any = (),
        results: Any = ("y",),
        pooled: bool = False,
    ) -> Calls:
        found.append(Calls(list(users), set(still), list(results), pooled))
        found[-1](torch.empty(1), torch.randn(3, 2))
        assert found[-1].others == 1
        return found[-1]

    yield make


def test_calls_that_differ_in_places_only(made: Callable[..., Calls]) -> None:
    calls = made(results=["y", None, "y", "w"])
    results = [calls.check() for _ in range(5)]
    assert len({r.data_ptr() for r, *_ in results}) == 5  # new memory for each
    for first, none, second, _ in results:
        assert first is second and none is None
    w = torch.empty(1)
    assert calls(w, torch.randn(3, 2))[-1] is w and calls.others == 1


def test_a_kernel_is_told_what_moved(
    made: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    ys, xs = ([torch.empty_strided((2, 3), (1, 2)) for _ in range(2)] for _ in range(2))
    order = [(0, 0), (0, 0), (1, 0), (1, 1), (1, 1), (0, 0), (0, 1), (1, 1)]
    results = iter([ys[n] for n, _ in order])
    monkeypatch.setattr(native, "empty_cuda", lambda *place: next(results))
    calls = made()  # whose first call is Python's
    for _, n in order:
        words, sets = list(calls.driver.words), calls.driver.sets
        (y,) = calls(torch.empty(1), xs[n])
        now = [y.data_ptr() + TO, xs[n].data_ptr() + FROM]
        assert list(calls.driver.words) == now == calls.driver.told
        assert calls.driver.sets - sets == (now != words)
    assert calls.others == 1


@pytest.mark.parametrize(
    "now", [{"device": 0}, {"stream": 8}, {"capturing": True}], ids=["device", "stream", "capture"]
)
def test_calls_elsewhere(made: Callable[..., Calls], now: dict) -> None:
    calls = made()
    before, launches = dict(calls.now), calls.driver.launches
    calls.now |= now
    assert calls(torch.empty(1), torch.randn(3, 2)) is None and calls.others == 2
    assert calls.driver.launches == launches and calls.free == [calls.scratch]
    calls.now |= before
    calls.check()


class Elsewhere(torch.Tensor):
    """Says that it is on another GPU."""

    @classmethod
    def __torch_function__(cls, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if f is torch.Tensor.get_device:
            return 3
        return super().__torch_function__(f, types, args, kwargs or {})


def test_an_input_elsewhere(made: Callable[..., Calls]) -> None:
    calls = made()
    calls.check()
    launches = calls.driver.launches
    x = torch.randn(3, 2).as_subclass(Elsewhere)
    assert calls(torch.empty(1), x) is None and calls.others == 2
    assert calls.driver.launches == launches
    calls.check()


def test_scratch(made: Callable[..., Calls]) -> None:
    """None, too small, of another pool; another one at another place."""
    calls = made()
    inputs = torch.empty(1), torch.randn(3, 2)
    for others in ([], [Scratch.new(CPU, 8, 1)], [Scratch.new(CPU, 64, 0)]):
        calls.free[:] = others
        assert calls(*inputs) is None and calls.free == others
    calls.scratch = Scratch.new(CPU, 64, 1)
    calls.free[:] = [calls.scratch]
    calls.check()
    calls = made(pooled=True)
    calls.check()
    calls.scratch = Scratch.new(CPU, 64, 1, calls.scratch.pool)
    calls.free[:] = [calls.scratch]
    calls.check()
    calls.scratch = Scratch.new(CPU, 64, 1, Pool())
    calls.free[:] = [calls.scratch]
    calls.check(others=1)


def test_graphs_take_turns(made: Callable[..., Calls]) -> None:
    """Of two threads' scratch, whose pools ATen's calls use: each only with its own."""
    calls = made(pooled=True)
    first, driver, other = calls.scratch, calls.driver, Driver()
    second = Scratch.new(CPU, 64, 1)
    users = calls.recorded._users
    at = [*second.addresses, 0, 0]
    calls.by_pool[second.pool] = Recorded(other, lambda _: [], at, users, set(), {}, {}, {}, {}, [])
    for n in range(3):
        for scratch, its in ((first, driver), (second, other)):
            calls.scratch, launches = scratch, its.launches
            calls.free[:] = [scratch]
            calls.check(others=int(n > 0 or scratch is second))  # by Python, which finds it
            calls.check()
            assert its.launches == launches + 2


def test_other_weights(made: Callable[..., Calls]) -> None:
    """Their addresses are looked up by Python, once."""
    calls = made()
    calls.check()
    calls.weights = {2}
    calls.check(others=1)
    calls.check()


def test_addresses_that_must_not_be(made: Callable[..., Calls]) -> None:
    calls = made()
    launches = calls.driver.launches
    odd = torch.randn(7)[1:].view(3, 2)  # not aligned
    assert odd.data_ptr() % 16 and calls(torch.empty(1), odd) is None
    assert calls.driver.launches == launches
    calls.check()
    # what no kernel is told may lie anywhere, what ATen's calls read must stay
    calls = made(users=([], [], [(0, 0, TO)], []))
    assert calls(torch.empty(1), odd)[0].eq(0).all() and calls.others == 1
    x = torch.randn(3, 2)
    calls = made()
    calls(torch.empty(1), x)
    calls.recorded._still.add(3)
    calls.replay._native.clear()
    calls(torch.empty(1), x)
    others, launches = calls.others, calls.driver.launches
    assert calls(torch.empty(1), x.clone()) is None and calls.others == others + 1
    assert calls(torch.empty(1), x) is not None and calls.others == others + 1
    assert calls.driver.launches == launches + 1


def test_a_graph_that_is_recorded_anew(made: Callable[..., Calls]) -> None:
    calls = made()
    old, calls.driver = calls.driver, Driver()
    before = calls.recorded
    calls.recorded = Recorded(
        calls.driver, lambda _: [], [*calls.scratch.addresses, 0, 0], before._users, set(),
        {}, {}, {}, {}, [],
    )  # fmt: skip
    before._weights = lambda: None
    calls.check(others=1)
    launches = old.launches
    calls.check()
    assert old.launches == launches and calls.driver.launches == 2
    gone = ref(before)
    del before
    assert gone() is None


@pytest.mark.parametrize("in_python", [False, True], ids=["native", "python"])
@pytest.mark.parametrize("first", [False, True], ids=["again", "before"])
@pytest.mark.parametrize("what", ["set", "launch"])
def test_what_the_driver_refuses(
    made: Callable[..., Calls], what: str, first: bool, in_python: bool
) -> None:
    """Python tries next, and says so to who can do without a graph; nothing is lost by it."""
    calls = made()
    calls.check()
    before, held = torch.randn(3, 2), torch.randn(3, 2)
    calls(torch.empty(1), before)
    launches = calls.driver.launches
    calls.driver.refuses = what
    if in_python:
        assert calls.otherwise([torch.empty(1), held], calls.weights) is None
        calls.others -= 1
    assert calls(torch.empty(1), held) is None and calls.others == 2
    calls.driver.refuses = ""
    assert calls.driver.launches == launches
    # where the inputs were before, or where they were to be
    for x in (before, held) if first else (held, before):
        assert torch.equal(calls(torch.empty(1), x)[0], x.t()) and calls.others == 2
    calls.check()


def test_errors_are_the_callers(made: Callable[..., Calls]) -> None:
    calls = made()
    with pytest.raises((TypeError, AttributeError)):
        calls(torch.empty(1), "no tensor")
    assert calls.others == 1 and calls.free == [calls.scratch] and not calls.recorded._lock.locked()
    calls.check()

    run = calls.replay.natively(calls.otherwise)
    assert run is not None
    assert calls.otherwise([torch.empty(6)] * 2, {3}) is not None  # others' weights
    others = calls.others
    with pytest.raises(IndexError):  # too few inputs: not native, and Python says what it is
        run([torch.empty(1)], calls.weights)
    assert calls.others == others + 1 and calls.free == [calls.scratch]
    with pytest.raises(TypeError):
        run([torch.empty(1), torch.randn(3, 2)])


class Nowhere(torch.Tensor):
    """Says that it is where nothing can be."""

    @classmethod
    def __torch_function__(cls, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if f is torch.Tensor.data_ptr:
            return -5
        return super().__torch_function__(f, types, args, kwargs or {})


def test_no_address(made: Callable[..., Calls]) -> None:
    calls = made()
    x = torch.randn(3, 2).as_subclass(Nowhere)
    with pytest.raises((OverflowError, TypeError)):
        calls(torch.empty(1), x)
    assert calls.free == [calls.scratch] and not calls.recorded._lock.locked()
    calls.check()


def test_memory_that_there_is_not(
    made: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*place: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("enough")

    monkeypatch.setattr(native, "empty_cuda", none)
    calls = made()  # whose first call is Python's
    with pytest.raises(torch.OutOfMemoryError, match="enough"):
        calls.check()
    assert calls.others == 1 and calls.free == [calls.scratch] and not calls.recorded._lock.locked()


def test_a_lock_that_others_have(made: Callable[..., Calls]) -> None:
    """Who tells a graph where things are is alone with it: Python waits."""
    calls = made()
    calls.recorded._lock.acquire()
    threading.Timer(0.2, calls.recorded._lock.release).start()
    calls.check(others=1)
    calls.check()


def test_threads(made: Callable[..., Calls]) -> None:
    """Scratch for each; the driver works while others run."""
    calls = made()
    calls.free += [Scratch.new(CPU, 64, 1) for _ in range(3)]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(200):
            x = torch.randn(3, 2, generator=generator)
            made = calls(torch.empty(1), x)
            if made is None or not torch.equal(made[0], x.t()):
                wrong.append(made)

    calls.driver.seen = lambda: threading.Event().wait(0)
    at_once(work, 4)
    assert not wrong and len(calls.free) == 4


def test_calls_that_copy_inputs(made: Callable[..., Calls]) -> None:
    """Python's."""
    calls, own, x = made(), torch.empty(3, 2), torch.randn(3, 2)
    with patch.object(calls.recorded, "copied", {"x": own}):
        calls.replay._native.clear()
        for n in range(3):
            assert torch.equal(calls(torch.empty(1), x)[0], x.t()) and calls.others == n + 2
        assert torch.equal(own, x)
    calls.replay._native.clear()
    assert calls.replay.natively(calls.otherwise) is not None
    calls.check()


def test_others_run_while_the_driver_works(made: Callable[..., Calls]) -> None:
    """A launch that takes half a second, in which another thread looks at its clock."""
    calls = made()
    handles = calls.driver.handles()
    usleep = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value
    slow = handles._replace(graph=500_000, update=library.address(ACCEPTS), launch=usleep)
    with patch.object(calls.driver, "handles", lambda: slow):
        calls.replay._native.clear()
        run = calls.replay.natively(calls.otherwise)
    assert run is not None
    begun, over, seen = threading.Event(), threading.Event(), list[float]()

    def look() -> None:
        begun.wait()
        while not over.wait(0.001):
            seen.append(time.monotonic())

    other = threading.Thread(target=look)
    other.start()
    start = time.monotonic()
    begun.set()
    assert run([torch.empty(1), torch.randn(3, 2)], calls.weights) is not None
    end = time.monotonic()
    over.set()
    other.join()
    assert any(start + 0.05 < t < end - 0.05 for t in seen) and calls.others == 1


def test_nothing_is_held(made: Callable[..., Calls]) -> None:
    calls = made(results=["y", None, "y"])
    w, x = torch.empty(1), torch.randn(3, 2)
    objects = [None, w, x, calls.weights, calls.recorded._weights, calls.scratch, False]

    def counts() -> list[int]:
        return [sys.getrefcount(o) for o in objects]

    calls(w, x)
    before = counts()
    for _ in range(100):
        result = calls(w, x)
        gone = ref(result[0])
        del result
        assert gone() is None
    assert max(abs(a - b) for a, b in zip(before, counts(), strict=True)) < 50


# -- a training step -------------------------------------------------------------------------------


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Step]:
    """Programs that save and lend, called once: natively from then on."""
    without_a_gpu(monkeypatch, {"device": -1, "stream": 7, "capturing": False}.__getitem__)
    monkeypatch.setattr(fresh, "MANY", 2)
    monkeypatch.setattr(fresh, "SMALL", 12)

    def make(**options: bool) -> Step:
        made = Step(**options)
        made(torch.randn(3, 2))
        return made

    return make


@pytest.mark.parametrize("by_block", [False, True])
def test_what_is_lent_is_the_same(step: Callable[..., Step], by_block: bool) -> None:
    """As long as nobody has it; results are new each time."""
    run = step(by_block=by_block)
    before, kept = dict[str, Any](), list[Any]()
    for _ in range(5):
        made = run(torch.randn(3, 2))
        for name in ("kept", "lent", "part"):
            assert id(made[name]) == before.setdefault(name, id(made[name]))
        kept.append([made[name].data_ptr() for name in ("y", "small", "new", "copied")])
        kept.append(made["copied"])
        kept.append(made["y"])
        kept.append(made["small"])
        kept.append(made["new"])
        del made
    places = [p for p in kept if isinstance(p, list)]
    assert all(len({*column}) == 5 for column in zip(*places, strict=True))
    assert run.others == 1


@pytest.mark.parametrize("name", ["kept", "lent", "part"])
@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t.detach(), lambda t: t.untyped_storage()])
def test_what_somebody_has_stays(step: Callable[..., Step], name: str, hold: Callable) -> None:
    """Another block, or no call of the graph at all while ATen's result is held; natively again
    when it is given back."""
    run, x = step(), torch.randn(3, 2)
    held = hold(run(x)[name])
    assert run.others == 1
    driver, launches = run.drivers[0], run.drivers[0].launches
    if name == "kept":
        made = run(torch.randn(3, 2))
        assert run.others == 2 and made["kept"].data_ptr() != held.data_ptr()
        del made
        run(torch.randn(3, 2))
        assert run.others == 2  # that block's turn, natively
    else:
        assert run.again([torch.randn(3, 2)], run.weights) is None
        assert driver.launches == launches
    if isinstance(held, torch.Tensor):
        wanted = x.flatten()[2:4] if name == "part" else x.t()
        assert torch.equal(held, wanted)
    del held
    others = run.others
    for _ in range(3):
        run(torch.randn(3, 2))
    assert run.others <= others + 1


def test_what_has_become_something_else(step: Callable[..., Step]) -> None:
    run = step()
    run(torch.randn(3, 2))["kept"].requires_grad_()
    made = run(torch.randn(3, 2))
    assert not made["kept"].requires_grad and run.others == 2
    made["kept"].set_(torch.zeros(1))
    del made
    assert run(torch.randn(3, 2))["kept"].shape == (2, 3) and run.others == 3


def test_forwards_before_backward(step: Callable[..., Step]) -> None:
    """Each has a block, and a graph for it; memory that no call takes any more is let go of."""
    run = step(by_block=True)
    inputs = [torch.randn(3, 2) for _ in range(3)]
    made = [run(x) for x in inputs]
    for x, results in zip(inputs, made, strict=True):
        assert torch.equal(results["kept"], x.t()) and torch.equal(results["lent"], x.t())
    assert len({r["kept"].data_ptr() for r in made}) == 3 == len(run.drivers)
    lenders = [ref(k.lent) for k in _blocks(run)._known]
    del made, results
    for _ in range(4 * host.KEPT):
        run(torch.randn(3, 2))
    assert sum(k() is not None for k in lenders) == 1 == len(_blocks(run)._known)
    others = run.others
    for _ in range(2 * host.KEPT):
        run(torch.randn(3, 2))
    assert run.others == others


def test_two_forwards_in_each_step(step: Callable[..., Step]) -> None:
    """They share two blocks for good, and one of them is native."""
    run = step(by_block=True)
    for n in range(4 * host.KEPT):
        made = [run(torch.randn(3, 2)) for _ in range(2)]
        assert len(run.drivers) == 2 == len(_blocks(run)._known)
        assert run.others <= n + 2
        del made


def _blocks(run: Step) -> host.Blocks:
    (found,) = run.fresh._blocks.values()
    return found


def test_threads_share_no_block(step: Callable[..., Step]) -> None:
    """Of calls that run at once, natively and in Python, each has its own memory."""
    run = step(lends=False)
    run.free += [Scratch.new(CPU, 64, 1) for _ in range(3)]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(200):
            x = torch.randn(3, 2, generator=generator)
            made = run.again([x], run.weights)
            assert made is not None
            kept = made[5]
            time.sleep(1e-4)
            if not torch.equal(kept, x.t()):
                wrong.append(kept)

    run.drivers[0].seen = lambda: time.sleep(1e-5)
    at_once(work, 4)
    assert not wrong and len(run.free) == 4 and not run.fresh.lock.locked()


def test_a_lock_of_who_lends(step: Callable[..., Step]) -> None:
    """Whoever takes a block is alone: Python waits."""
    run = step()
    run.fresh.lock.acquire()
    threading.Timer(0.2, run.fresh.lock.release).start()
    run(torch.randn(3, 2))
    assert run.others == 2
    run(torch.randn(3, 2))
    assert run.others == 2


def test_nothing_of_a_step_is_held(step: Callable[..., Step]) -> None:
    run, x = step(), torch.randn(3, 2)
    objects = [None, x, run.weights, *run.replay._fresh.places, run.scratch, False]

    def counts() -> list[int]:
        return [sys.getrefcount(o) for o in objects]

    run(x)
    before = counts()
    for _ in range(100):
        made = run(x)
        gone = [ref(made[name]) for name in ("y", "small", "other", "new", "copied", "seen")]
        del made
        assert all(r() is None for r in gone)
    assert max(abs(a - b) for a, b in zip(before, counts(), strict=True)) < 50
    assert run.others == 1


def test_a_copy_that_fails(step: Callable[..., Step], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(places: list, values: list) -> None:
        raise RuntimeError("no copy")

    monkeypatch.setattr(native, "copy_all", fails)
    run = step()
    with pytest.raises(RuntimeError, match="no copy"):
        run(torch.randn(3, 2))
    assert run.free == [run.scratch] and not run.fresh.lock.locked()
    assert not run.graphs[None]._lock.locked()
