"""Programs whose graphs a driver of Python's runs, without a GPU: its only kernel copies 24 bytes.
It is told where from and where to, each with an offset."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sol_dynamo.ir import Buffer
from sol_dynamo.kernels.triton import fresh, native, recorded, replay
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

    def __init__(self, more: int = 0) -> None:
        """`more`: arguments behind those two, to which it copies, too."""
        self.words = (ctypes.c_uint64 * (2 + more))()  # of its arguments
        self.own = torch.zeros(6)  # what is read while nobody says otherwise
        self.words[1] = self.own.data_ptr() + FROM
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
        for to in (self.told[0], *self.told[2:]):
            ctypes.memmove(to - TO, self.told[1] - FROM, 24)
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


class Device:
    """In place of a GPU."""

    index = -1

    def __str__(self) -> str:
        return "cpu"


class Step:
    """A forward graph that copies "x" to what it returns: "y", two "small" results in one piece of
    memory, "new" and "copied", which ATen's calls make; and to what it saves: "kept", which is in a
    block, and "lent" with a part of it, a call's. "seen" is a view of "x", "unseen" a part of "y".
    """

    def __init__(self, by_block: bool = False, lends: bool = True) -> None:
        """`by_block`: a graph for each block, as where calls read what is in it; `lends`: anything
        but what is in the block."""
        own = ("lent", "part") if lends else ()
        self.results = ("y", None, "small", "other", "new", "kept", *own, "copied", "seen")
        self.results += ("unseen",)
        self._lends = lends
        self.device, self.scratch = Device(), Scratch.new(CPU, 64, 1)
        self.free, self.weights = [self.scratch], {1}
        self.drivers: list[Driver] = []
        self.graphs: dict[int | None, Recorded] = {}
        segment = SimpleNamespace(
            outside=("y", "small", "other", "kept", "x"), moving=("y", "x"),
            kept="kept" if by_block else None, leaving=("new", "copied", *own[:1]),
            lent_parts=own[1:], recorded=lambda d, scratch, block: self._graph(block), pooled=False,
        )  # fmt: skip
        names = [("y", "f32"), ("small", "f16"), ("other", "f16")]
        outputs = [Buffer(n, d, (2, 3), (1, 2), scope="output") for n, d in names]
        kept = Buffer("kept", "f32", (2, 3), (1, 2), scope="saved")
        self.fresh = Fresh(SimpleNamespace(outputs=outputs, saved=[kept]), "cuda", {})
        assert self.fresh.small == ["small", "other"]
        where = Where(self.scratch, self.device, 7)
        parts = {
            "seen": ("x", ((3,), (2,), 1), True), "unseen": ("y", ((3,), (1,), 2), False)
        }  # fmt: skip
        self.replay = replay.Replay(
            segment, where, self.free, ["x"], self.fresh, self.results, parts
        )
        self.again, self.others = self.otherwise, 0

    def _graph(self, block: int | None) -> Recorded:
        if block not in self.graphs:
            driver = Driver(6)
            own, copied = (torch.empty_strided((2, 3), (1, 2)) for _ in range(2))
            self.drivers.append(driver)
            # y, small, other, kept, x; new: to which argument each goes
            users = [[], [], *([(0, n, FROM if n == 1 else TO)] for n in (0, 2, 3, 4, 1, 5))]
            found = Recorded(
                driver, lambda _: [], [*self.scratch.addresses, 0, 0, 0, 0, 0, 0], users, set(),
                {}, {"copied": copied}, {"lent": own} if self._lends else {},
                {"part": ("lent", (2,), (1,), 2)} if self._lends else {}, [],
            )  # fmt: skip
            driver.words[6], driver.own = own.data_ptr() + TO, own
            driver.words[7] = copied.data_ptr() + TO
            made = partial(fresh.empty_cuda, (2, 3), (1, 2), torch.float32)
            found._renewed, found._places, found.renewed = [("new", made)], [7], {"new"}
            self.graphs[block] = found
        return self.graphs[block]

    def otherwise(self, inputs: list, weights: Any) -> list | None:
        self.others += 1
        made = self.replay(inputs, weights)
        self.again = (made and self.replay.natively(self.otherwise)) or self.otherwise
        return made

    def __call__(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is right."""
        results = self.again([x], self.weights)
        assert results is not None and results.pop(1) is None and self.free == [self.scratch]
        made = dict(zip((r for r in self.results if r), results, strict=True))
        for name in ("y", "new", "copied", "kept", *(["lent"] if self._lends else [])):
            assert torch.equal(made[name], x.t()) and made[name].stride() == (1, 2)
        for name in ("small", "other"):
            assert made[name].untyped_storage().nbytes() > 2 * made[name].nbytes
            flat = made[name].as_strided((6,), (1,)).view(torch.float32)
            assert torch.equal(flat, x.flatten()[:3])
        assert not self._lends or torch.equal(made["part"], x.flatten()[2:4])
        assert torch.equal(made["seen"], x.flatten()[1::2]) and made["seen"]._base is x
        assert torch.equal(made["unseen"], x.flatten()[2:5]) and made["unseen"]._base is None
        return made


def without_a_gpu(monkeypatch: pytest.MonkeyPatch, now: Callable[[str], Any]) -> None:
    """`now`: the "device" and "stream" of a call, and whether that is "capturing"."""
    empty = getattr(torch._C._dynamo.guards, "_empty_strided_cpu")  # noqa: B009
    for module in (native, fresh):
        monkeypatch.setattr(module, "empty_cuda", empty)
    monkeypatch.setattr(
        recorded, "_maker", lambda t: partial(empty, tuple(t.shape), t.stride(), t.dtype)
    )
    monkeypatch.setattr(
        native, "cuda_now", lambda: (lambda: now("device"), lambda i: now("stream"))
    )
    monkeypatch.setattr(replay, "cuda_device", lambda: now("device"))
    monkeypatch.setattr(replay, "cuda_stream", lambda device: now("stream"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: now("capturing"))
