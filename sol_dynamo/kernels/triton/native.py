"""Launches of recorded graphs, each in one native call: csrc/replay.c."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path

import torch

from ...compat import cuda_now, empty_cuda
from ...runtime import library
from .recorded import Recorded
from .scratch import Pool, Scratch

log = logging.getLogger("sol_dynamo")
FOLDER = Path(__file__).with_name("csrc")
FUNCTIONS = (
    "PyObject_Vectorcall", "PyObject_Call", "PyObject_GetAttr", "PyList_New", "PyList_GetItem",
    "PyTuple_GetItem", "PyList_Size", "PyList_SetItem", "PyList_Append", "PyLong_AsLongLong",
    "PyLong_AsUnsignedLongLong", "PyLong_AsVoidPtr", "PyErr_Occurred", "PyErr_Clear",
    "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "Py_DecRef",
)  # fmt: skip

_P, _N = ctypes.c_void_p, ctypes.c_int64


class _User(ctypes.Structure):
    _fields_ = (("word", _P), ("offset", _N), ("node", _N))


class _Node(ctypes.Structure):
    _fields_ = (("handle", _P), ("parameters", _P), ("told", _N))


class _State(ctypes.Structure):
    """`replay` in C."""

    _fields_ = (
        ("index", _N), ("stream", _N), ("device_now", _P), ("stream_now", _P),
        ("index_object", _P), ("capturing", _P), ("device_of", _P), ("read", _N),
        ("data_ptr", _P), ("free", _P), ("pop", _P), ("pool", _P), ("sizes", _N * 2),
        ("empty", _P), ("places", _P), ("inputs", _N), ("outputs", _N), ("results", _N),
        ("result", _P), ("moving", _N), ("place", _P), ("recorded", _P), ("weights", _P),
        ("acquire", _P), ("release", _P), ("addresses", _P), ("first", _P), ("users", _P),
        ("still", _P), ("nodes", _P), ("count", _N), ("graph", _P), ("set", _P), ("launch", _P),
        ("otherwise", _P),
    )  # fmt: skip


@dataclass
class Call:
    """What calls on one stream have in common."""

    device: torch.device
    stream: int
    free: list[Scratch]  # what nobody uses; of it a call takes one
    pool: Pool | None  # that it must have
    sizes: tuple[int, int]  # at least
    read: int | None  # an input that kernels read
    inputs: int
    places: list[tuple]  # shape, strides, dtype of each new tensor
    moving: Sequence[int]  # whose addresses the graph is told, behind the scratch's: inputs and new
    results: Sequence[int | None]  # which of both are returned


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


def replay(call: Call, recorded: Recorded, otherwise: Callable) -> Callable | None:
    """The function of inputs, as a list, and prepared weights that launches a graph, and gives the
    results. It holds the graph; what is not like the calls before goes to `otherwise`. None where
    C cannot do it: the graph's calls are more than a launch, or nothing compiles C."""
    told, builtins = recorded.told(), _builtins()
    if told is None or builtins is None:
        return None
    graph, users = told.graph, told.users
    device_now, stream_now = cuda_now()
    # what C borrows; small numbers and constants are objects like others
    objects = {
        "device_now": device_now, "stream_now": stream_now, "index_object": call.device.index,
        "capturing": torch.cuda.is_current_stream_capturing if call.stream else None,
        "device_of": torch.Tensor.get_device, "data_ptr": torch.Tensor.data_ptr,
        "free": call.free, "pop": call.free.pop, "pool": call.pool, "empty": empty_cuda,
        "recorded": recorded, "weights": "_weights", "acquire": told.lock.acquire,
        "release": told.lock.release, "otherwise": otherwise,
    }  # fmt: skip
    tables: dict[str, ctypes.Array] = {
        "places": (_P * len(call.places))(*map(id, call.places)),
        "result": (_N * len(call.results))(*(-1 if r is None else r for r in call.results)),
        "place": (_N * len(call.moving))(*call.moving),
        "addresses": told.addresses,
        "first": (_N * (len(users) + 1))(*accumulate(map(len, users), initial=0)),
        "users": (_User * sum(map(len, users)))(
            *(_User(graph.nodes[n][2] + 8 * at, offset, n) for n, at, offset in chain(*users))
        ),
        "still": (ctypes.c_bool * len(users))(*told.still),
        "nodes": (_Node * len(graph.nodes))(*(_Node(h, p, 0) for h, p, _ in graph.nodes)),
    }
    numbers = {
        "index": call.device.index, "stream": call.stream, "sizes": call.sizes,
        "read": -1 if call.read is None else call.read, "inputs": call.inputs,
        "outputs": len(call.places), "results": len(call.results), "moving": len(call.moving),
        "count": len(graph.nodes), "graph": graph.graph, "set": graph.update,
        "launch": graph.launch,
    }  # fmt: skip
    state = _State(
        **numbers,
        **{name: None if x is None else id(x) for name, x in objects.items()},
        **{name: ctypes.addressof(t) for name, t in tables.items()},
    )
    return builtins(state, objects, tables, call)
