"""Weight sets: what was computed from weights alone is kept, and never used after they change.

A compiled graph is called with the weights themselves. For each set of weights (the objects) an
entry keeps the prepared tensors and a snapshot; every call compares pointer, version counter and a
fingerprint of the elements with it. The fingerprint covers writes that neither the pointer nor the
counter shows (`p.data.mul_()`, numpy): it samples `SAMPLES` words of each weight, all of a small
one; `refresh()` is for changes that might slip between the samples.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from weakref import WeakSet, ref

import torch

from . import toolchain

SAMPLES = 16  # words of 8 bytes read of each weight at every call
UNSTABLE_AFTER = 3  # changes of one weight after which it is an ordinary input

_SOURCE = f"""\
/* A hash of n memory areas: all words of small ones, {SAMPLES} evenly spread of large ones. */
typedef unsigned long u64;
static u64 mix(u64 h, u64 x) {{ h = (h ^ x) * 0x9E3779B97F4A7C15UL; return h ^ (h >> 29); }}
void sol_fingerprint(const char *const *start, const long *bytes, u64 *out, long n) {{
  for (long i = 0; i < n; i++) {{
    const char *p = start[i];
    long words = bytes[i] / 8, step = words > 4 * {SAMPLES} ? words / {SAMPLES} : 1;
    u64 h = 1, x = 0;
    for (long k = 0; k < words; k += step) {{ __builtin_memcpy(&x, p + 8 * k, 8); h = mix(h, x); }}
    if (words && step > 1) {{ __builtin_memcpy(&x, p + 8 * (words - 1), 8); h = mix(h, x); }}
    x = 0;
    __builtin_memcpy(&x, p + 8 * words, bytes[i] - 8 * words);
    out[i] = mix(h, x);
  }}
}}
"""


@lru_cache(maxsize=1)
def _fingerprint() -> Callable:
    lib = ctypes.CDLL(str(toolchain.compile_shared({"fingerprint.c": _SOURCE})))
    lib.sol_fingerprint.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long]
    return lib.sol_fingerprint


class Snapshot:
    """What was seen of some weights: pointers, versions and fingerprints."""

    def __init__(self, weights: Sequence[torch.Tensor]):
        n = len(weights)
        self.count = n
        self.kept = [w.detach() for w in weights]  # a freed address cannot come back unnoticed
        self.objects = [ref(w) for w in weights]
        self.pointers = [w.data_ptr() for w in weights]
        self.versions = [_version(w) for w in weights]
        self.shapes = [(w.shape, w.stride(), w.dtype) for w in weights]
        self.inference = any(v is None for v in self.versions)
        self._starts = (ctypes.c_void_p * max(n, 1))()
        self._bytes = (ctypes.c_long * max(n, 1))()
        self._prints = (ctypes.c_ulong * max(n, 1))()
        self._fresh = (ctypes.c_ulong * max(n, 1))()
        for i, w in enumerate(weights):
            readable = w.device.type == "cpu" and w.numel() > 0
            self._starts[i] = w.data_ptr() if readable else 0
            self._bytes[i] = _span(w) if readable else 0
        self._hash(self._prints)

    def _hash(self, out: ctypes.Array) -> None:
        _fingerprint()(self._starts, self._bytes, out, self.count)

    def same_objects(self, weights: Sequence[torch.Tensor]) -> bool:
        return len(weights) == self.count and all(
            r() is w for r, w in zip(self.objects, weights, strict=True)
        )

    def changed(self, weights: Sequence[torch.Tensor]) -> list[int]:
        """The positions of weights that are no longer as they were."""
        pointers = [w.data_ptr() for w in weights]
        versions = [_version(w) for w in weights]
        if pointers != self.pointers or versions != self.versions:
            return [
                i
                for i, w in enumerate(weights)
                if pointers[i] != self.pointers[i]
                or versions[i] != self.versions[i]
                or (w.shape, w.stride(), w.dtype) != self.shapes[i]
            ]
        self._hash(self._fresh)
        if bytes(self._fresh) == bytes(self._prints):
            return []
        return [i for i in range(self.count) if self._fresh[i] != self._prints[i]]


def _version(w: torch.Tensor) -> int | None:
    """The version counter; None for inference-mode tensors, which have none."""
    return None if w.is_inference() else w._version


def _span(w: torch.Tensor) -> int:
    """Bytes from a tensor's first to its last element."""
    last = sum((n - 1) * s for n, s in zip(w.shape, w.stride(), strict=True))
    return (last + 1) * w.element_size()


class Entry:
    def __init__(self, weights: Sequence[torch.Tensor], prepared: list[torch.Tensor]):
        self.snapshot = Snapshot(weights)
        self.prepared = prepared
        self.stale = False


_all: WeakSet[WeightSets] = WeakSet()


class WeightSets:
    """The prepared tensors of the last few weight sets that a graph was called with."""

    def __init__(self, prepare: Callable[[list[torch.Tensor]], list[torch.Tensor]], limit: int = 8):
        self._prepare, self._limit = prepare, limit
        self._entries: OrderedDict[tuple[int, ...], Entry] = OrderedDict()
        self._last: Entry | None = None
        self._lock = threading.RLock()
        self._changes: dict[int, int] = {}
        _all.add(self)

    def get(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """The prepared tensors for these weights, prepared (again) where need be."""
        with self._lock:
            entry = self._last
            if entry is None or entry.stale or not entry.snapshot.same_objects(weights):
                entry = self._entries.get(tuple(map(id, weights)))
            if entry is not None and not entry.stale and entry.snapshot.same_objects(weights):
                changed = entry.snapshot.changed(weights)
                if not changed:
                    self._last = entry
                    return entry.prepared
                for i in changed:
                    self._changes[i] = self._changes.get(i, 0) + 1
            return self._remember(weights)

    def _remember(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        key = tuple(map(id, weights))
        with torch.no_grad():
            entry = Entry(weights, self._prepare(weights))
        self._entries[key] = self._last = entry
        self._entries.move_to_end(key)
        for k in [
            k for k, e in self._entries.items() if any(r() is None for r in e.snapshot.objects)
        ]:
            if k != key:
                del self._entries[k]
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return entry.prepared

    @property
    def unstable(self) -> set[int]:
        """Weights that changed between calls again and again (training, caches)."""
        return {i for i, n in self._changes.items() if n >= UNSTABLE_AFTER}

    def refresh(self, tensors: Sequence[torch.Tensor] | None = None) -> None:
        """Forget what was prepared from these tensors (None: from any)."""
        wanted = None if tensors is None else {id(t) for t in tensors}
        with self._lock:
            for key, entry in self._entries.items():
                if wanted is None or wanted & set(key):
                    entry.stale = True


def refresh(model: torch.nn.Module | None = None) -> None:
    """Have everything that was computed from a model's weights (None: any weights) made anew.

    Needed only after writes that leave pointer, version counter and samples alone: numpy or raw
    memory writes to a few elements of a large weight.
    """
    tensors = None if model is None else [*model.parameters(), *model.buffers()]
    for sets in list(_all):
        sets.refresh(tensors)
