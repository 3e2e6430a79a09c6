"""A segment's graph: what it is told before a launch, and where its results are."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import compress, islice
from operator import ne
from typing import Any, NamedTuple
from weakref import ref

import torch

from ...compat import addresses, allocations, copy_all, empty_cuda, memory_of, part_of
from ..host import Lent, PartOf
from .blocks import ALIGNED
from .graphs import Graph, Handles, NoGraph
from .scratch import Pool

log = logging.getLogger("sol_dynamo")
RENEWED = 1 << 16  # bytes of a result from which on it is written where it is to be, not copied
UNKNOWN = (1 << 64) - 1  # no address
AGREES = 0.01  # of a result of two runs: what is summed in an order by chance


class Places:
    """Where ATen's calls make results while a graph is recorded: those in `last`, which nobody in
    the graph reads, in memory that nothing else in it has had before, if that is `alone`."""

    def __init__(self, pool: Pool, last: Collection[str], device: torch.device):
        self._pool, self._last, self._device = pool, last, device
        self.pools, self.alone = [Pool()], list[str]()

    @contextmanager
    def __call__(self, names: Sequence[str]) -> Iterator[None]:
        """What a call does that makes these buffers."""
        if not names or any(b not in self._last for b in names):
            with torch.cuda.use_mem_pool(self._pool.memory(), self._device):
                yield
            return
        before = allocations(self._device)
        with torch.cuda.use_mem_pool(self.pools[-1].memory(), self._device):
            yield
        if allocations(self._device) - before == len(names):
            self.alone += names
        else:  # what it had for a while may become a part of the next result
            self.pools.append(Pool())


class Told(NamedTuple):
    """What the kernels of a graph were told; none of it changes but by who has the lock."""

    graph: Handles
    addresses: ctypes.Array[ctypes.c_uint64]
    users: Sequence[Sequence[tuple[int, int, int]]]  # of each address: node, argument, offset
    still: Sequence[bool]  # which must not change
    lock: threading.Lock
    lent: Lent | None  # what a launch writes and a call returns, unless somebody has it,
    names: Sequence[str]  # by name
    # results that are to be new memory, by name: shape, strides, dtype, and which address it is
    renewed: Mapping[str, tuple[tuple, int]]
    copied: Mapping[str, tuple]  # results that are to be copied to new memory: where that is, too
    made: list[torch.Tensor]  # and where they are


class Recorded:
    """A segment's graph, and which kernels take which address: (node, argument, offset) of each.

    Addresses are those that a call gives, then those of `weights_at`, which are looked up only when
    a call brings other weights than the one before. Those in `still` must not change.
    """

    def __init__(
        self,
        graph: Graph,
        weights_at: Callable[[Any], list[int]],
        addresses: list[int],
        users: list[list[tuple[int, int, int]]],
        still: set[int],
        copies: Mapping[str, torch.Tensor],
        results: dict[str, Any],
        lent: Mapping[str, Any],
        parts: Mapping[str, PartOf],
        pools: list[Pool],
    ):
        self._graph, self._weights_at, self._users = graph, weights_at, users
        self._addresses, self._still, self.kept = _array(addresses), still, pools
        self.copied, self._results = copies, results
        self._made = dict(lent)  # which stay, whoever else has had them now: users are counted
        self._names = [*lent, *parts]
        with torch.inference_mode(False):  # of later calls, which may be in that mode or not
            self._lent = Lent(
                [
                    *(part_of(t, tuple(t.shape), t.stride(), 0) for t in lent.values()),
                    *(part_of(lent[base], n, s, at) for base, n, s, at in parts.values()),
                ]
            )
        self._weights: Callable[[], Any] = lambda: None
        self.renewed = set[str]()
        self._renewed: list[tuple[str, partial[torch.Tensor]]] = []
        self._places: list[int] = []  # of theirs among the addresses
        self._lock = threading.Lock()

    def told(self) -> Told | None:
        """What a call compares and changes; None where it copies inputs."""
        if self.copied:
            return None
        still = [i in self._still for i in range(len(self._users))]
        lent = self._lent if self._names else None
        made = zip(self._renewed, self._places, strict=True)
        renewed = {b: (make.args, place) for (b, make), place in made}
        return Told(
            self._graph.handles(), self._addresses, self._users, still, self._lock,
            lent, self._names, renewed,
            {b: _maker(t).args for b, t in self._results.items()}, [*self._results.values()],
        )  # fmt: skip

    def held(self) -> bool:
        """Whether somebody has what it lent."""
        return bool(self._names) and not (self._lent.is_free() and self._lent.is_whole())

    def __call__(
        self, given: list[int], values: Mapping[str, Any], weights: Any, stream: int
    ) -> dict[str, Any] | None:
        """Launch it, and give copies of its results, and those that are lent; None, and nothing is
        done, for memory that it was not recorded for."""
        with self._lock:
            known = self._weights() is weights
            now = given if known else given + self._weights_at(weights)
            if moved := _differ(now, self._addresses):
                if any((new % ALIGNED and self._users[i]) or i in self._still for i, new in moved):
                    return None
                self._move(moved)
            if not known:
                self._weights = ref(weights)
            new = {b: make() for b, make in self._renewed}
            if new:
                before = [self._addresses[i] for i in self._places]
                at = _differ(addresses([*new.values()]), before)
                self._move([(self._places[i], a) for i, a in at])
            self._copy_in(values)
            self._graph.launch(stream)
            if self._results:
                own = {b: like(t) for b, t in self._results.items()}
                copy_all(list(own.values()), list(self._results.values()))
                new |= own
            new |= zip(self._names, self._lent.tensors, strict=True)
            return new

    def _copy_in(self, values: Mapping[str, Any]) -> None:
        if self.copied:
            copy_all(list(self.copied.values()), [values[b] for b in self.copied])

    def renew(self, names: Sequence[str], values: Mapping[str, Any], stream: int) -> None:
        """Have results written to new memory by each call, rather than copied there.

        The kernels of ATen's libraries get pointers in structures that only they know. So words
        that are addresses in a result are taken for pointers, and changed, if three launches show
        them to be all there is: the second, with other words, gives what the first gave; the third,
        with poison in both memories, the same, and leaves the old one alone. Others are copied.
        """
        every = [*self._results.values(), *self._lent.tensors]
        users_of = Counter(memory_of(t) for t in every if isinstance(t, torch.Tensor))
        own = {b: self._results[b] for b in names}
        old = {b: t for b, t in own.items() if _is_own(t) and users_of[memory_of(t)] == 1}
        found = self._graph.pointers([(t.data_ptr(), t.nbytes) for t in old.values()])
        users = {b: u for b, u in zip(old, found, strict=True) if u}
        if not users:
            return
        first, old = len(self._addresses), {b: old[b] for b in users}
        self._users += users.values()
        self._addresses = _array([*self._addresses, *addresses([*old.values()])])
        try:
            self.renewed = self._try(old, first, values, stream)
        except RuntimeError as e:  # of the driver, or of torch, which has no memory left
            log.info("results are copied: %s", e)
        for n, (b, t) in enumerate(old.items(), first):
            if b in self.renewed:
                self._renewed.append((b, _maker(t)))
                self._places.append(n)
                del self._results[b]
            else:
                self._move_back(n, t.data_ptr())
        log.info("%d of %d results are new memory, not copies", len(self.renewed), len(names))

    def _try(
        self,
        old: Mapping[str, torch.Tensor],
        first: int,
        values: Mapping[str, Any],
        stream: int,
    ) -> set[str]:
        """Which results are written to other memory if they are to be; their addresses follow each
        other from the `first` on."""
        new = {b: like(t) for b, t in old.items()}
        self._copy_in(values)
        self._graph.launch(stream)
        _poison(new.values())
        self._move(list(enumerate(addresses([*new.values()]), first)))
        self._graph.launch(stream)
        fit = {b for b in old if _agree(old[b], new[b])}
        second = {b: new[b].clone() for b in fit}
        _poison([*old.values(), *new.values()])
        self._graph.launch(stream)
        return {b for b in fit if _all_poison(old[b]) and _agree(second[b], new[b])}

    def _move_back(self, place: int, address: int) -> None:
        """To where an address was recorded. A kernel that refuses that never was told another."""
        for node, argument, offset in self._users[place]:
            self._graph.set(node, argument, address + offset)
            with suppress(NoGraph):
                self._graph.update(node)
        self._addresses[place] = address

    def moved(self, given: Sequence[int]) -> list[int]:
        """Which addresses must not change, and did."""
        return [i for i, new in enumerate(given) if i in self._still and new != self._addresses[i]]

    def _move(self, moved: list[tuple[int, int]]) -> None:
        nodes = set()
        for i, _ in moved:  # what is refused is told again by the next call
            self._addresses[i] = UNKNOWN
        for i, address in moved:
            for node, argument, offset in self._users[i]:
                self._graph.set(node, argument, address + offset)
                nodes.add(node)
        for node in nodes:
            self._graph.update(node)
        for i, address in moved:
            self._addresses[i] = address


def _array(addresses: Sequence[int]) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * len(addresses))(*addresses)


def _differ(new: list[int], every: Iterable[int]) -> list[tuple[int, int]]:
    """Which of some addresses are others, and what they are now; there may be more old ones."""
    old = [*islice(every, len(new))]
    if new == old:
        return []
    places = range(len(new))
    return [(i, new[i]) for i in compress(places, map(ne, new, old))]


# -- memory ----------------------------------------------------------------------------------------


def like(t: torch.Tensor) -> torch.Tensor:
    """Memory for a copy, on the current device where t is on a GPU."""
    return _maker(t)()


def _maker(t: torch.Tensor) -> partial[torch.Tensor]:
    """What makes memory for a copy."""
    place = tuple(t.shape), t.stride()
    if t.device.type == "cuda":
        return partial(empty_cuda, *place, t.dtype)
    return partial(torch.empty_strided, *place, dtype=t.dtype, device=t.device)


def _is_own(t: torch.Tensor) -> bool:
    """Whether a result is large, of floats, and all that is in its memory."""
    size = t.untyped_storage().nbytes()
    alone = bool(t.nbytes == size >= RENEWED and not t.storage_offset())
    return t.dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64) and alone


def _bytes(t: torch.Tensor) -> torch.Tensor:
    """What is in a tensor's memory, element by element."""
    return t.as_strided((t.numel(),), (1,)).view(torch.uint8).view(t.numel(), t.itemsize)


def _poison(tensors: Iterable[torch.Tensor]) -> None:
    """Bits that no kernel computes: a NaN, but not the one of the hardware."""
    for t in tensors:
        _bytes(t).fill_(0xFF)


def _all_poison(t: torch.Tensor) -> bool:
    return bool((_bytes(t) == 0xFF).all())


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two runs gave the same, but for the order of sums by chance; not where that says
    little, because it is infinite, or no number, as poison is."""
    if not (a.isfinite().all() and b.isfinite().all()):
        return False
    if torch.equal(_bytes(a), _bytes(b)):
        return True
    apart, size = (torch.linalg.vector_norm(t, dtype=torch.float64) for t in (a - b, a))
    return float(apart) <= AGREES * float(size)
