"""Launches of recorded graphs in one native call, without a GPU: a driver of Python's, whose only
kernel copies 24 bytes. It is told where from and where to, each with an offset."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from weakref import ref

import pytest
import torch
from at_once import at_once

from sol_dynamo.ir import Buffer
from sol_dynamo.kernels.triton import fresh, native, replay
from sol_dynamo.kernels.triton.fresh import Fresh
from sol_dynamo.kernels.triton.graphs import Handles, NoGraph
from sol_dynamo.kernels.triton.recorded import Recorded
from sol_dynamo.kernels.triton.scratch import Pool, Scratch, Where
from sol_dynamo.runtime import library

SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
ACCEPTS = SET(lambda graph, node, parameters: 0)
GRAPH, NODE = 0x1000, 0x2000
TO, FROM = 64, 16  # bytes behind an address
CPU = torch.device("cpu")


class Driver:
    """A graph of one kernel, by C and by `Graph`'s functions."""

    def __init__(self) -> None:
        self.words = (ctypes.c_uint64 * 2)()  # of its arguments
        self._own = torch.zeros(6)  # what is read while nobody says otherwise
        self.words[1] = self._own.data_ptr() + FROM
        self.told = list(self.words)
        self.sets = self.launches = 0
        self.refuses = ""  # what is not done
        self.seen: Callable[[], Any] = lambda: None
        self._set, self._launch = SET(self._told), LAUNCH(self._launched)

    def handles(self) -> Handles:
        functions = map(library.address, (self._set, self._launch))
        return Handles(GRAPH, *functions, [(NODE, 0, ctypes.addressof(self.words))])

    def _told(self, graph: int, node: int, parameters: int) -> int:
        assert (graph, node) == (GRAPH, NODE)
        if self.refuses == "set":
            return 1
        self.told, self.sets = list(self.words), self.sets + 1
        return 0

    def _launched(self, graph: int, stream: int) -> int:
        assert (graph, stream) == (GRAPH, 7)
        if self.refuses == "launch":
            return 700
        self.seen()
        ctypes.memmove(self.told[0] - TO, self.told[1] - FROM, 24)
        self.launches += 1
        return 0

    # what Python calls
    def set(self, node: int, argument: int, address: int) -> None:
        self.words[argument] = address

    def update(self, node: int) -> None:
        if self._told(GRAPH, NODE, 0):
            raise NoGraph("not this kernel")

    def launch(self, stream: int) -> None:
        if self._launched(GRAPH, stream):
            raise NoGraph("not now")


class Calls:
    """A program of two inputs, of which the second one is copied, called as `execute` does."""

    def __init__(self, users: list, still: set[int], results: list[str | None], pooled: bool):
        self.driver, self.now = Driver(), {"device": -1, "stream": 7, "capturing": False}
        self.scratch = Scratch.new(CPU, 64, 1)
        self.free = [self.scratch]
        self.by_pool: dict[Pool, Recorded] = {}
        self.weights = {1}  # any object that can be held weakly
        addresses = [*self.scratch.addresses, 0, 0]
        self.recorded = Recorded(
            self.driver, lambda _: [], addresses, users, still, {}, {}, {}, {}, []
        )
        segment = SimpleNamespace(
            outside=("y", "x"), moving=("y", "x"), kept=None, leaving=(), lent_parts=(),
            recorded=lambda d, scratch, b: self.by_pool.get(scratch.pool, self.recorded),
            pooled=pooled,
        )  # fmt: skip
        y = Buffer("y", "f32", (2, 3), (1, 2), scope="output")
        made = Fresh(SimpleNamespace(outputs=[y], saved=[]), "cuda", {})
        where = Where(self.scratch, SimpleNamespace(index=-1), 7)
        self.replay = replay.Replay(segment, where, self.free, ["w", "x"], made, results, {})
        self.others = 0  # calls that were not native

    def __call__(self, *inputs: Any, weights: Any = None) -> Any:
        weights = self.weights if weights is None else weights
        run = self.replay.natively(self.otherwise) or self.otherwise
        return run(list(inputs), weights)

    def otherwise(self, inputs: list, weights: Any) -> Any:
        self.others += 1
        return self.replay(inputs, weights)

    def check(self, others: int = 0) -> list:
        """A call that is right, and native but for so many."""
        before, x = self.others, torch.randn(3, 2)
        results = self(torch.empty(1), x)
        assert torch.equal(results[0], x.t()) and results[0].stride() == (1, 2)
        assert self.others - before == others and self.free == [self.scratch]
        return results


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Calls]]:
    """Programs, called once: natively from then on."""
    found: list[Calls] = []

    def now(name: str) -> Any:
        return found[-1].now[name]

    empty = getattr(torch._C._dynamo.guards, "_empty_strided_cpu")  # noqa: B009
    for module in (native, fresh):
        monkeypatch.setattr(module, "empty_cuda", empty)
    monkeypatch.setattr(
        native, "cuda_now", lambda: (lambda: now("device"), lambda i: now("stream"))
    )
    monkeypatch.setattr(replay, "cuda_device", lambda: now("device"))
    monkeypatch.setattr(replay, "cuda_stream", lambda device: now("stream"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: now("capturing"))

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


def test_calls_that_are_more_than_a_launch(made: Callable[..., Calls]) -> None:
    """Inputs that are copied in; results that are copied out, lent or renewed; parts of memory of
    others, and memory that is saved: Python's."""
    calls, own, x = made(), torch.empty(3, 2), torch.randn(3, 2)
    with patch.object(calls.recorded, "copied", {"x": own}):
        calls.replay._native.clear()
        for n in range(3):
            assert torch.equal(calls(torch.empty(1), x)[0], x.t()) and calls.others == n + 2
        assert torch.equal(own, x)
    own_parts: dict[str, Any] = {
        "_results": {"y": own}, "_names": ["y"], "_renewed": [("y", lambda: own)],
    }  # fmt: skip
    for name, more in own_parts.items():
        with patch.object(calls.recorded, name, more):
            assert calls.recorded.told() is None
    part = (0, 2, (6,), (1,), 0)
    for name, more in {"_parts": [part], "_views": [part], "_leaving": ["y"], "_block": 2}.items():
        calls.replay._native.clear()
        with patch.object(calls.replay, name, more):
            assert calls.replay.natively(calls.otherwise) is None
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
