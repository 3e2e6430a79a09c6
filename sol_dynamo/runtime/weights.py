"""Weight sets: what was computed from weights alone is kept, and never used after they change.

One compiled graph may be called with the weights of several equal blocks. For each set of weights,
known by its objects, an entry keeps the prepared tensors and a snapshot (tensors.py tells what that
compares); a set that changed is prepared again. Entries hold no weight: when one dies, they go.
Nothing here knows what preparing means.

Changes that neither pointers, version counters nor samples show are covered so:
- optimizers' steps (fused ones leave the version alone), by a hook behind every step;
- the rest by `refresh()`: writes to a few elements of a large weight through `.data`, numpy or
  another process. On devices other than the CPU, elements are not looked at: there, `refresh()` is
  needed after every write that torch does not count, as batch norm's to its statistics.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any
from weakref import WeakSet, ref

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..compat import plain_dispatch
from .tensors import Snapshot

log = logging.getLogger("sol_dynamo")

UNSTABLE_AFTER = 3  # changes, each within UNSTABLE_CALLS calls of the one before
UNSTABLE_CALLS = 8
Key = tuple[int, ...]  # the ids of a set's weights


class _History:
    """Counts, for each weight of a set, the changes that follow each other closely."""

    def __init__(self) -> None:
        self._clock = 0
        self._changes: dict[int, tuple[int, int]] = {}  # weight -> how many in a row, last time

    def note(self, changed: Iterable[int], calls: int) -> set[int]:
        """Weights that changed after so many calls; returns those that have done so too often."""
        self._clock += calls
        unstable = set()
        for i in changed:
            count, last = self._changes.get(i, (0, self._clock))
            count = count + 1 if self._clock - last <= UNSTABLE_CALLS else 1
            self._changes[i] = count, self._clock
            if count >= UNSTABLE_AFTER:
                unstable.add(i)
        return unstable


class Entry:
    """One set of weights and what was made from it."""

    def __init__(self, snapshot: Snapshot, history: _History):
        self.snapshot, self.history = snapshot, history
        self.prepared: list[torch.Tensor] = []
        self.places = [_place(t) for t in snapshot.kept]
        self.stale: set[int] = set()  # weights that someone said have changed


class WeightSets:
    """The prepared tensors of the last few weight sets that a graph was called with.

    `prepare` gets detached aliases of the weights, without gradients, and must only read them. At
    most `limit` sets are kept, those used last. With `positions`, `get` takes lists in which the
    weights stand there, among others.
    """

    def __init__(
        self,
        prepare: Callable[[list[torch.Tensor]], list[torch.Tensor]],
        limit: int = 8,
        positions: Sequence[int] | None = None,
    ):
        self._prepare, self._limit, self._positions = prepare, limit, positions
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._last: Entry | None = None  # where `get` looks first
        self._newest: tuple[list[ref[torch.Tensor]], _History] | None = None
        self._evicted: set[Key] = set()
        self._lock = threading.RLock()
        self._unstable: set[int] = set()
        _all.add(self)
        _follow_optimizers()

    def get(self, weights: list[Any]) -> list[torch.Tensor]:
        """The prepared tensors for these weights, prepared (again) where need be.

        For the set of the last call, unchanged, this is one native call and no lock.
        """
        entry = self._last
        if entry is not None and not entry.stale and entry.snapshot.changed(weights) < 0:
            return entry.prepared
        with self._lock:
            return self._find(weights)

    def _find(self, given: list[Any]) -> list[torch.Tensor]:
        where = self._positions
        weights = given if where is None else [given[i] for i in where]
        key = tuple(map(id, weights))
        entry = self._entries.get(key)
        if entry is not None:
            first = entry.snapshot.changed(given)
            if first < 0 and not entry.stale:
                self._entries.move_to_end(key)
                self._last = entry
                return entry.prepared
            history = entry.history
            changed = entry.stale.union(entry.snapshot.changes(given)) or {first}
            self._unstable |= history.note(changed, entry.snapshot.calls + 1)
        else:
            history = self._succeeded(weights)
        return self._prepare_set(key, weights, history)

    def _succeeded(self, weights: list[torch.Tensor]) -> _History:
        """The history of a new set: that of the set before if it took the place of dead weights.

        So does a buffer that the model replaces at each call; sets of other blocks are alive.
        """
        if self._newest is not None and len(self._newest[0]) == len(weights):
            refs, history = self._newest
            dead = [i for i, r in enumerate(refs) if r() is None]
            if dead:
                self._unstable |= history.note(dead, 1)
                return history
        return _History()

    def _prepare_set(
        self, key: Key, weights: list[torch.Tensor], history: _History
    ) -> list[torch.Tensor]:
        if key in self._evicted:
            self._evicted.clear()
            text = (
                "more than %d sets of weights take turns and are prepared again and again: raise "
            )
            log.warning(text + "the option weight_sets", self._limit)
        self._drop(key)
        # before it is read: what changes meanwhile shows at the next call
        with plain_dispatch():
            snapshot = Snapshot(weights, self._positions, partial(_drop, ref(self), key))
        entry = Entry(snapshot, history)
        # in no mode of the caller's (it outlives that), nor in torch's own of first calls
        with torch.inference_mode(False), plain_dispatch():
            entry.prepared = self._prepare(list(snapshot.kept))
        self._unstable.update(i for i, w in enumerate(weights) if w.is_inference())
        self._newest = (snapshot.refs, history)
        self._entries[key] = self._last = entry
        while len(self._entries) > self._limit:
            oldest, _ = self._entries.popitem(last=False)
            self._evicted.add(oldest)
        return entry.prepared

    def _drop(self, key: Key) -> None:
        """Let an entry go: when a weight dies, at any moment, so in single steps with no lock."""
        entry = self._entries.pop(key, None)
        if entry is not None and self._last is entry:
            self._last = None

    @property
    def last(self) -> Entry | None:
        """The set that was used last; None if it is to be prepared again."""
        entry = self._last
        return None if entry is None or entry.stale else entry

    def __len__(self) -> int:
        """Sets that are kept."""
        return len(self._entries)

    @property
    def unstable(self) -> set[int]:
        """Weights that should rather be inputs: preparing them again costs more than it saves.

        Those that changed, or were replaced by new objects, three times with at most 8 calls from
        one to the next, in one set (training, KV caches; evaluation after each epoch does not
        count), and those made in inference mode, whose elements all have to be read at each call.
        """
        return self._unstable

    def refresh(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Have the sets with any of these tensors (None: all sets), or their memory, made anew."""
        places = None if tensors is None else {_place(t) for t in tensors}
        with self._lock:
            for entry in list(self._entries.values()):
                for i, place in enumerate(entry.places):
                    if places is None or place in places:
                        entry.stale.add(i)


def _drop(weak: ref[WeightSets], key: Key) -> None:
    sets = weak()
    if sets is not None:
        sets._drop(key)


def _place(t: torch.Tensor) -> int:
    """What tensors in the same memory have in common."""
    try:
        return t.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse
        return t._cdata


_all: WeakSet[WeightSets] = WeakSet()


def refresh_all(tensors: Iterable[torch.Tensor] | None = None) -> None:
    """`WeightSets.refresh` for every compiled graph."""
    found = [sets for sets in list(_all) if len(sets)]
    if found:
        tensors = None if tensors is None else list(tensors)
        for sets in found:
            sets.refresh(tensors)


def refresh(model: torch.nn.Module | None = None) -> None:
    """Have everything that was computed from a model's weights (None: any weights) made anew.

    Needed after writes that torch does not count, see the top of this file.
    """
    refresh_all(None if model is None else [*model.parameters(), *model.buffers()])


@lru_cache(maxsize=1)
def _follow_optimizers() -> None:
    """See every optimizer's step: a fused one changes weights without counting a version."""

    def stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        refresh_all(p for p in parameters if p.requires_grad)

    register_optimizer_step_post_hook(stepped)
