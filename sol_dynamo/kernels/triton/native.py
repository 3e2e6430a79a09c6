"""Launches of recorded graphs, each in one native call: csrc/replay.c."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...compat import copy_all, cuda_now, empty_cuda, part_of
from ...runtime import library
from ..host import Lent
from .recorded import Recorded, Told
from .scratch import Pool, Scratch

log = logging.getLogger("sol_dynamo")
FOLDER = Path(__file__).with_name("csrc")
FUNCTIONS = (
    "PyObject_Vectorcall", "PyObject_Call", "PyObject_GetAttr", "PyList_New", "PyList_GetItem",
    "PyTuple_GetItem", "PyList_Size", "PyList_SetItem", "PyList_Append", "PyLong_AsLongLong",
    "PyLong_AsUnsignedLongLong", "PyLong_AsVoidPtr", "PyLong_FromLongLong", "PyErr_Occurred",
    "PyErr_Clear", "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "Py_DecRef",
)  # fmt: skip

_P, _N = ctypes.c_void_p, ctypes.c_int64


class _User(ctypes.Structure):
    _fields_ = (("word", _P), ("offset", _N), ("node", _N))


class _Node(ctypes.Structure):
    _fields_ = (("handle", _P), ("parameters", _P), ("told", _N))


class _Part(ctypes.Structure):
    _fields_ = (
        ("make", _P), ("of", _N), ("shape", _P), ("strides", _P), ("offset", _N), ("begins", _P),
    )  # fmt: skip


class _State(ctypes.Structure):
    """`replay` in C."""

    _fields_ = (
        ("index", _N), ("stream", _N), ("device_now", _P), ("stream_now", _P),
        ("index_object", _P), ("capturing", _P), ("device_of", _P), ("read", _N),
        ("data_ptr", _P), ("free", _P), ("pop", _P), ("pool", _P), ("sizes", _N * 2),
        ("uses", _N), ("take", _P), ("give", _P), ("counts", _P), ("counted", _P),
        ("empty", _P), ("places", _P), ("part", _P), ("inputs", _N), ("lent", _N),
        ("outputs", _N), ("parts", _N), ("lends", _P), ("results", _N), ("result", _P),
        ("moving", _N), ("place", _P), ("slot", _P), ("copy", _P), ("made", _P), ("copies", _N),
        ("copied", _P), ("recorded", _P), ("weights", _P), ("acquire", _P), ("release", _P),
        ("addresses", _P), ("first", _P), ("users", _P), ("still", _P), ("nodes", _P),
        ("count", _N), ("graph", _P), ("set", _P), ("launch", _P), ("otherwise", _P),
    )  # fmt: skip


Part = tuple[int, tuple[int, ...], tuple[int, ...], int]


@dataclass
class Call:
    """What calls on one stream have in common. Its tensors, in order: inputs, those that are lent,
    new ones, parts of all these."""

    device: torch.device
    stream: int
    free: list[Scratch]  # what nobody uses; of it a call takes one
    pool: Pool | None  # that it must have
    sizes: tuple[int, int]  # at least
    read: int | None  # an input that kernels read
    inputs: int
    lent: Sequence[Lent]
    lock: Any  # of who else may be lending the first of them; None where nobody can
    places: list[tuple]  # shape, strides, dtype of each new tensor
    parts: Sequence[tuple[Part, bool]]  # of which one, shape, strides, offset; whether torch knows
    moving: Sequence[int]  # whose addresses the graph is told, behind the scratch's,
    slots: Sequence[int]  # and which of its addresses that are
    copied: Sequence[int]  # to which ones what the graph itself makes is copied
    results: Sequence[int | None]  # which tensors are returned


class Native(NamedTuple):
    """A function of inputs, as a list, and prepared weights that launches a graph, and gives the
    results; what is not like the calls before goes to another one."""

    call: Callable
    state: _State

    def allow(self, uses: int | None) -> Callable:
        """It, for so many calls; None: any number."""
        self.state.uses = -1 if uses is None else uses
        return self.call

    def left(self) -> int | None:
        """How many of those are left."""
        return None if self.state.uses < 0 else self.state.uses


@lru_cache(maxsize=1)
def _builtins() -> library.Builtins | None:
    """None where nothing compiles C, or where objects may change while C looks at them."""
    if not library.locked():
        return None
    try:
        library.tell("sol_replay_python", FUNCTIONS, None, False, True, folder=FOLDER)
        return library.Builtins("sol_replay", library.MANY, FOLDER)
    except Exception as e:  # whatever it is, Python can do the same
        log.info("graphs are launched from Python, which is slower: %s: %s", type(e).__name__, e)
        return None


def replay(call: Call, told: Told, recorded: Recorded, otherwise: Callable) -> Native | None:
    """Calls that a graph was `told` of, which is held; what is not like those before goes to
    `otherwise`. None where C cannot do it: nobody counts who has what is lent, or nothing compiles
    C."""
    builtins, counts = _builtins(), [lent.counts for lent in call.lent]
    if builtins is None or not all(counts):
        return None
    graph, users = told.graph, told.users
    device_now, stream_now = cuda_now()
    lends = [id(t) for lent in call.lent for t in lent.tensors]  # held by none but who lends them
    make, begins = (part_of, torch.Tensor.as_strided), (None, id(torch.Tensor.storage_offset))
    # what C borrows; small numbers and constants are objects like others
    objects = {
        "device_now": device_now, "stream_now": stream_now, "index_object": call.device.index,
        "capturing": torch.cuda.is_current_stream_capturing if call.stream else None,
        "device_of": torch.Tensor.get_device, "data_ptr": torch.Tensor.data_ptr,
        "free": call.free, "pop": call.free.pop, "pool": call.pool, "empty": empty_cuda,
        "take": call.lock and call.lock.acquire, "give": call.lock and call.lock.release,
        "copy": copy_all, "made": told.made,
        "recorded": recorded, "weights": "_weights", "acquire": told.lock.acquire,
        "release": told.lock.release, "otherwise": otherwise,
    }  # fmt: skip
    tables: dict[str, ctypes.Array] = {
        "counts": (_P * (len(counts) + 1))(*(c.handle for c in counts if c), None),
        "lends": (_P * len(lends))(*lends),
        "places": (_P * len(call.places))(*map(id, call.places)),
        "part": (_Part * len(call.parts))(
            *(
                _Part(id(make[seen]), of, id(n), id(s), at, begins[seen])
                for (of, n, s, at), seen in call.parts
            )
        ),
        "result": (_N * len(call.results))(*(-1 if r is None else r for r in call.results)),
        "place": (_N * (2 + len(call.moving)))(-1, -1, *call.moving),
        "slot": (_N * (2 + len(call.moving)))(0, 1, *call.slots),
        "copied": (_N * len(call.copied))(*call.copied),
        "addresses": told.addresses,
        "first": (_N * (len(users) + 1))(*accumulate(map(len, users), initial=0)),
        "users": (_User * sum(map(len, users)))(
            *(_User(graph.nodes[n][2] + 8 * at, offset, n) for n, at, offset in chain(*users))
        ),
        "still": (ctypes.c_bool * len(users))(*told.still),
        "nodes": (_Node * len(graph.nodes))(*(_Node(h, p, 0) for h, p, _ in graph.nodes)),
    }
    numbers = {
        "index": call.device.index, "stream": call.stream, "sizes": call.sizes, "uses": -1,
        "read": -1 if call.read is None else call.read, "inputs": call.inputs,
        "lent": len(lends), "outputs": len(call.places), "parts": len(call.parts),
        "results": len(call.results), "moving": 2 + len(call.moving),
        "copies": len(call.copied),
        "counted": next((c.function for c in counts if c), None), "count": len(graph.nodes),
        "graph": graph.graph, "set": graph.update, "launch": graph.launch,
    }  # fmt: skip
    state = _State(
        **numbers,
        **{name: None if x is None else id(x) for name, x in objects.items()},
        **{name: ctypes.addressof(t) for name, t in tables.items()},
    )
    return Native(builtins(state, objects, tables, call, counts), state)
