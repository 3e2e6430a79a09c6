"""CUDA graphs whose kernels take other addresses before a launch, through the CUDA driver.

Launches are recorded once, by stream capture. Then single pointers of single kernels are changed in
the instantiated graph: inputs may lie anywhere, outputs are new memory, and nothing is copied into
or out of places of a graph's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any

KERNEL = 0  # CU_GRAPH_NODE_TYPE_KERNEL
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


@cache
def _driver() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libcuda.so.1")
        lib.cuFuncGetParamInfo  # noqa: B018  of CUDA 12.4
    except (OSError, AttributeError) as e:
        raise NoGraph(f"the CUDA driver is too old or absent ({e})") from None
    return lib


def _do(function: str, *args: Any) -> None:
    lib = _driver()
    code = getattr(lib, function)(*args)
    if code:
        text = ctypes.c_char_p()
        lib.cuGetErrorString(code, byref(text))
        raise NoGraph(f"{function}: {(text.value or b'error %d' % code).decode()}")


class _Node:
    """A kernel of an instantiated graph, and its arguments."""

    def __init__(self, node: int, pointers: Sequence[int]):
        self.handle = c_void_p(node)
        self.params = _KernelParams()
        _do("cuGraphKernelNodeGetParams_v2", self.handle, byref(self.params))
        count = self._count()
        if count < len(pointers):
            raise NoGraph(f"a kernel of {count} arguments, not {len(pointers)}")
        recorded = self.params.arguments
        self.values = (c_uint64 * max(len(pointers), 1))()
        for i, p in enumerate(pointers):
            self.values[i] = ctypes.cast(recorded[i], POINTER(c_uint64))[0]
            if self.values[i] != p:
                raise NoGraph("the driver lists kernels in another order than they were launched")
        start = ctypes.addressof(self.values)
        self._arguments = (c_void_p * max(count, 1))()
        for i in range(count):
            self._arguments[i] = start + 8 * i if i < len(pointers) else recorded[i]
        self.params.arguments = ctypes.cast(self._arguments, POINTER(c_void_p))

    def _count(self) -> int:
        function = self.params.function
        if not function:  # recorded by its library's handle
            made = c_void_p()
            _do("cuKernelGetFunction", byref(made), c_void_p(self.params.kernel))
            function = made.value
        offset, size, count = c_size_t(), c_size_t(), 0
        while not _driver().cuFuncGetParamInfo(
            c_void_p(function), c_size_t(count), byref(offset), byref(size)
        ):
            count += 1
        return count


class Graph:
    """The kernels that `record` launches on a stream, ready to be launched again at once.

    `pointers[k]` are the addresses that the k-th kernel gets as its first arguments. Errors:
    `NoGraph` says what of it the driver does not do.
    """

    def __init__(self, record: Callable[[], None], pointers: Sequence[Sequence[int]], stream: int):
        self._graph, self._exec = c_void_p(), c_void_p()
        self.nodes: list[_Node] = []
        _do("cuStreamBeginCapture_v2", c_void_p(stream), c_int(RELAXED))
        try:
            record()
        finally:
            _do("cuStreamEndCapture", c_void_p(stream), byref(self._graph))
        count = c_size_t()
        _do("cuGraphGetNodes", self._graph, None, byref(count))
        found = (c_void_p * max(count.value, 1))()
        _do("cuGraphGetNodes", self._graph, found, byref(count))
        kinds = [c_int() for _ in range(count.value)]
        for node, kind in zip(found, kinds, strict=False):
            _do("cuGraphNodeGetType", c_void_p(node), byref(kind))
        if len(kinds) != len(pointers) or any(k.value != KERNEL for k in kinds):
            raise NoGraph(f"{len(pointers)} launches recorded as {len(kinds)} nodes")
        self.nodes = [_Node(node or 0, own) for node, own in zip(found, pointers, strict=False)]
        _do("cuGraphInstantiateWithFlags", byref(self._exec), self._graph, c_uint64(0))

    def set(self, node: int, argument: int, address: int) -> None:
        """A kernel's pointer, from its next `update` on."""
        self.nodes[node].values[argument] = address

    def update(self, node: int) -> None:
        n = self.nodes[node]
        _do("cuGraphExecKernelNodeSetParams_v2", self._exec, n.handle, byref(n.params))

    def launch(self, stream: int) -> None:
        _do("cuGraphLaunch", self._exec, c_void_p(stream))

    def __del__(self) -> None:
        for function, handle in (
            ("cuGraphExecDestroy", self._exec), ("cuGraphDestroy", self._graph)
        ):  # fmt: skip
            if handle:
                getattr(_driver(), function)(handle)
