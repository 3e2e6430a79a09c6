"""CUDA graphs whose kernels take other addresses before a launch, through the CUDA driver.

Launches are recorded once, by stream capture. Then single pointers of single kernels are changed in
the instantiated graph: inputs may lie anywhere, outputs are new memory, and nothing is copied into
or out of places of a graph's own. What others launch in between stays as it was recorded, but for
the pointers into some memory that their arguments are seen to hold (`Graph.pointers`).
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any, NamedTuple

KERNEL, COPY, FILL, EMPTY = 0, 1, 2, 5  # CU_GRAPH_NODE_TYPE_KERNEL, _MEMCPY, _MEMSET, _EMPTY
HOST, DEVICE, UNIFIED = 1, 2, 4  # CU_MEMORYTYPE_HOST, _DEVICE, _UNIFIED
MEMORY_TYPE = 2  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE
PIECE, PIECE_SIZE = 1, 2  # CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE
RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate


class NoGraph(RuntimeError):
    """Why launches cannot be a graph; they still can be launched."""


class _KernelParams(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2"""

    _fields_ = (
        ("function", c_void_p), ("grid", c_uint * 3), ("block", c_uint * 3), ("shared", c_uint),
        ("arguments", POINTER(c_void_p)), ("extra", POINTER(c_void_p)), ("kernel", c_void_p),
        ("context", c_void_p),
    )  # fmt: skip


class _Side(ctypes.Structure):
    """One side of a CUDA_MEMCPY3D."""

    _fields_ = (
        ("at", c_size_t * 4), ("type", c_uint), ("host", c_void_p), ("device", c_uint64),
        ("array", c_void_p), ("reserved", c_void_p), ("pitch", c_size_t), ("height", c_size_t),
    )  # fmt: skip


class _Copy(ctypes.Structure):
    """CUDA_MEMCPY3D"""

    _fields_ = (("source", _Side), ("target", _Side), ("size", c_size_t * 3))


class _Fill(ctypes.Structure):
    """CUDA_MEMSET_NODE_PARAMS"""

    _fields_ = (
        ("target", c_uint64), ("pitch", c_size_t), ("value", c_uint), ("element", c_uint),
        ("width", c_size_t), ("height", c_size_t),
    )  # fmt: skip


@cache
def driver() -> ctypes.CDLL:
    """The CUDA driver's library. Errors: `OSError` where there is none."""
    return ctypes.CDLL("libcuda.so.1")


@cache
def _driver() -> ctypes.CDLL:
    try:
        lib = driver()
        lib.cuFuncGetParamInfo  # noqa: B018  of CUDA 12.4
    except (OSError, AttributeError) as e:
        raise NoGraph(f"the CUDA driver is too old or absent ({e})") from None
    return lib


def _do(function: str, *args: Any) -> None:
    if code := getattr(_driver(), function)(*args):
        raise _failed(function, code)


def _failed(function: str, code: int) -> NoGraph:
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(code, byref(text))
    return NoGraph(f"{function}: {(text.value or b'error %d' % code).decode()}")


def _newest(stream: int) -> int:
    """The node that was recorded last."""
    status, count = c_int(), c_size_t()
    nodes, kinds = POINTER(c_void_p)(), c_void_p()
    _do(
        "cuStreamGetCaptureInfo_v3", c_void_p(stream), byref(status), None, None, byref(nodes),
        byref(kinds), byref(count),
    )  # fmt: skip
    if count.value != 1:
        raise NoGraph(f"{count.value} nodes at once, where a kernel was launched")
    return nodes[0] or 0


def _check(node: int) -> None:
    """Refuses what a later launch would not do as it was done: whatever the host takes part in."""
    kind = c_int()
    _do("cuGraphNodeGetType", c_void_p(node), byref(kind))
    if kind.value in (KERNEL, FILL, EMPTY):
        return
    if kind.value != COPY:
        raise NoGraph(f"a node of kind {kind.value}")
    copy = _Copy()
    _do("cuGraphMemcpyNodeGetParams", c_void_p(node), byref(copy))
    if not all(map(_on_device, (copy.source, copy.target))):
        raise NoGraph("a copy from or to the host's memory")


def _touched(node: int, kind: int) -> list[int]:
    """The addresses at which a node copies or fills memory."""
    if kind == COPY:
        copy = _Copy()
        _do("cuGraphMemcpyNodeGetParams", c_void_p(node), byref(copy))
        return [copy.source.device or 0, copy.target.device or 0]
    if kind == FILL:
        fill = _Fill()
        _do("cuGraphMemsetNodeGetParams", c_void_p(node), byref(fill))
        return [fill.target]
    return []


def _on_device(side: _Side) -> bool:
    if side.type != UNIFIED:
        return side.type != HOST
    found = c_uint()
    code = _driver().cuPointerGetAttribute(byref(found), c_int(MEMORY_TYPE), c_uint64(side.device))
    return not code and found.value == DEVICE


class _Node:
    """A kernel of an instantiated graph, and its arguments as words, one behind the other."""

    def __init__(self, node: int, pointers: Sequence[int] = ()):
        """`pointers`: what its first arguments are known to be."""
        self.handle = c_void_p(node)
        self.params = _KernelParams()
        _do("cuGraphKernelNodeGetParams_v2", self.handle, byref(self.params))
        self._copy_together() if self.params.extra else self._copy_apart()
        if list(self.values[: len(pointers)]) != list(pointers):
            raise NoGraph("the driver lists kernels in another order than they were launched")
        self.reference = byref(self.params)

    def _copy_apart(self) -> None:
        sizes, recorded = self._sizes(), self.params.arguments
        self.values = (c_uint64 * max(sum(-(-n // 8) for n in sizes), 1))()
        self._arguments = (c_void_p * max(len(sizes), 1))()
        at = ctypes.addressof(self.values)
        for i, n in enumerate(sizes):
            self._arguments[i] = at
            ctypes.memmove(at, recorded[i], n)
            at += -(-n // 8) * 8
        self.params.arguments = ctypes.cast(self._arguments, POINTER(c_void_p))

    def _copy_together(self) -> None:
        """Arguments that were launched as one piece of memory."""
        given = dict[int, int | None]()
        for i in range(0, 8, 2):
            if (what := self.params.extra[i]) is None:
                break
            given[what] = self.params.extra[i + 1]
        start, size = given.get(PIECE), given.get(PIECE_SIZE)
        if not start or not size:
            raise NoGraph("a kernel whose arguments the driver does not show")
        self._size = c_size_t(c_size_t.from_address(size).value)
        self.values = (c_uint64 * -(-self._size.value // 8))()
        ctypes.memmove(self.values, start, self._size.value)
        here = ctypes.addressof(self.values), ctypes.addressof(self._size)
        self._arguments = (c_void_p * 5)(PIECE, here[0], PIECE_SIZE, here[1], None)
        self.params.extra = ctypes.cast(self._arguments, POINTER(c_void_p))

    def _sizes(self) -> list[int]:
        """Bytes of each argument."""
        function = self.params.function
        if not function:  # recorded by its library's handle
            made = c_void_p()
            _do("cuKernelGetFunction", byref(made), c_void_p(self.params.kernel))
            function = made.value
        offset, size, sizes = c_size_t(), c_size_t(), list[int]()
        while not _driver().cuFuncGetParamInfo(
            c_void_p(function), c_size_t(len(sizes)), byref(offset), byref(size)
        ):
            sizes.append(size.value)
        return sizes


class Handles(NamedTuple):
    """What a graph is to the driver, for C: addresses all."""

    graph: int
    update: int  # cuGraphExecKernelNodeSetParams(graph, node, parameters)
    launch: int  # cuGraphLaunch(graph, stream)
    nodes: list[tuple[int, int, int]]  # of each its handle, its parameters and its argument words


class Graph:
    """What `record` launches on a stream, ready to be launched again at once.

    `record` gets a function that it calls behind each kernel whose pointers may change: with the
    addresses that the kernel got as its first arguments. `nodes` are these kernels. Errors:
    `NoGraph` says what of it the driver does not do, or what a graph would do otherwise.
    """

    def __init__(self, record: Callable[[Callable[[Sequence[int]], None]], None], stream: int):
        self._graph, self._exec = c_void_p(), c_void_p()
        own: list[tuple[int, Sequence[int]]] = []
        _do("cuStreamBeginCapture_v2", c_void_p(stream), c_int(RELAXED))
        try:
            record(lambda pointers: own.append((_newest(stream), pointers)))
        except Exception as e:
            _driver().cuStreamEndCapture(c_void_p(stream), byref(self._graph))
            raise e if isinstance(e, NoGraph) else NoGraph(f"{type(e).__name__}: {e}") from e
        _do("cuStreamEndCapture", c_void_p(stream), byref(self._graph))
        every = self._all()
        for node in every:
            _check(node)
        self.nodes = [_Node(node, pointers) for node, pointers in own]
        self._others = [node for node in every if node not in {n for n, _ in own}]
        _do("cuGraphInstantiateWithFlags", byref(self._exec), self._graph, c_uint64(0))
        self._update = _driver().cuGraphExecKernelNodeSetParams_v2
        self._launch = _driver().cuGraphLaunch

    def _all(self) -> list[int]:
        count = c_size_t()
        _do("cuGraphGetNodes", self._graph, None, byref(count))
        found = (c_void_p * max(count.value, 1))()
        _do("cuGraphGetNodes", self._graph, found, byref(count))
        return [node or 0 for node in found[: count.value]]

    def pointers(self, places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int, int]]]:
        """Of memory, given as (address, bytes), apart from each other: what points into it among
        the arguments of others' kernels, as (node, argument, bytes behind the address), which
        become part of `nodes`. Nothing of memory that is copied or filled, or whose end is named.
        """
        order = sorted(range(len(places)), key=lambda i: places[i])
        starts = [places[i][0] for i in order]
        found: list[list[tuple[int, int, int]]] = [[] for _ in places]
        refused: set[int] = set()

        def of(address: int) -> tuple[int, int] | None:
            """The place that an address is in, or at whose end; and how far behind its start."""
            n = bisect_right(starts, address) - 1
            if n < 0 or address - starts[n] > places[order[n]][1]:
                return None
            return order[n], address - starts[n]

        for handle in self._others:
            kind = c_int()
            _do("cuGraphNodeGetType", c_void_p(handle), byref(kind))
            if kind.value != KERNEL:
                refused |= {at[0] for a in _touched(handle, kind.value) if (at := of(a))}
                continue
            try:
                node = _Node(handle)
            except NoGraph:  # its arguments are one piece: who tries a pointer out will see
                continue
            hits = [(slot, *at) for slot, word in enumerate(node.values) if (at := of(word))]
            for slot, place, offset in hits:
                if offset == places[place][1]:
                    refused.add(place)
                found[place].append((len(self.nodes), slot, offset))
            if hits:
                self.nodes.append(node)
        return [[] if i in refused else users for i, users in enumerate(found)]

    def set(self, node: int, argument: int, address: int) -> None:
        """A kernel's pointer, from its next `update` on."""
        self.nodes[node].values[argument] = address

    def update(self, node: int) -> None:
        n = self.nodes[node]
        if code := self._update(self._exec, n.handle, n.reference):
            raise _failed("cuGraphExecKernelNodeSetParams", code)

    def launch(self, stream: int) -> None:
        if code := self._launch(self._exec, c_void_p(stream)):
            raise _failed("cuGraphLaunch", code)

    def handles(self) -> Handles:
        """Valid as long as this object."""
        update, launch = (ctypes.cast(f, c_void_p).value or 0 for f in (self._update, self._launch))
        nodes = [
            (n.handle.value or 0, ctypes.addressof(n.params), ctypes.addressof(n.values))
            for n in self.nodes
        ]
        return Handles(self._exec.value or 0, update, launch, nodes)

    def __del__(self) -> None:
        for function, handle in (
            ("cuGraphExecDestroy", self._exec), ("cuGraphDestroy", self._graph)
        ):  # fmt: skip
            if handle:
                getattr(_driver(), function)(handle)
