"""Triton's kernels as machine code that this package keeps, loads and launches by itself.

A program that was compiled before starts without importing Triton: a cubin and a few numbers
are all that a launch takes. Triton compiles what is not known yet, and runs what is called with a
pointer that is not aligned as the code takes it to be.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, byref, c_int, c_uint, c_void_p
from functools import cache as once
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ...compat import cuda_stream
from ...runtime import cache
from ...runtime.toolchain import cores
from . import workers
from .blocks import ALIGNED
from .compile import load
from .graphs import driver
from .launch import Launch, interpreting, shared_memory

SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
PLAIN_SHARED = 48 << 10  # bytes that need no such attribute
DEPENDENT = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
SUFFIX = ".cubin"


class DriverError(RuntimeError):
    """What the CUDA driver said of a launch."""


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute"""

    _fields_ = (("id", c_int), ("_", c_int), ("value", c_int), ("rest", c_int * 15))


class _Config(ctypes.Structure):
    """CUlaunchConfig"""

    _fields_ = (
        ("grid", c_uint * 3), ("block", c_uint * 3), ("shared", c_uint), ("stream", c_void_p),
        ("attributes", POINTER(_Attribute)), ("count", c_uint),
    )  # fmt: skip


class Binary:
    """A kernel, called as Triton's functions are: `kernel[(programs,)](*tensors, **options)`."""

    def __init__(self, launch: Launch, text: str, dtypes: Sequence[str]):
        """`dtypes` are those of the memory that it takes."""
        self._launch, self._text, self._dtypes = launch, text, list(dtypes)
        self._entry, self._code = "", b""
        self._threads = self._shared = self._stages = 0
        self._dependent = False
        self._handles: dict[int, c_void_p] = {}  # of a device's context
        self._lock = threading.Lock()

    def compile(self) -> None:
        """Find its code, or have it made, for the current GPU. One whose launch takes more than
        this module knows is left to Triton. Errors: those of Triton's compiler."""
        capability = torch.cuda.get_device_capability()
        options = self._launch.options()
        self._dependent = options.get("launch_pdl", False)
        key = cache.key("binary", self._text, self._dtypes, options, capability, *_versions())
        path = cache.lookup(key, SUFFIX)
        if path is None:
            data, self._stages = workers.made(
                self._launch, self._text, self._dtypes, _number(capability), shared_memory()
            )
            if data is None:
                return
            path = cache.store(key, SUFFIX, data)
        head, _, self._code = path.read_bytes().partition(b"\n")
        self._entry, warps, self._shared, self._stages = json.loads(head)
        self._threads = 32 * warps

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*tensors: torch.Tensor, **options: Any) -> None:
            pointers = [t.data_ptr() for t in tensors]
            if any(p % ALIGNED for p in pointers) or not self._entry:
                function = getattr(load(self._launch.function, self._text), self._launch.function)
                function[grid](*tensors, **options | {"num_stages": self._stages})
            else:
                self._start(grid[0], pointers, tensors[0].device)

        return run

    def _start(self, grid: int, pointers: Sequence[int], device: torch.device) -> None:
        handle, count = self._handle(device.index), len(pointers) + SPARE
        values = (c_void_p * count)(*pointers)
        at, size = ctypes.addressof(values), ctypes.sizeof(c_void_p)
        arguments = (c_void_p * count)(*(at + size * i for i in range(count)))
        attribute = _Attribute(DEPENDENT, 0, 1)
        config = _Config(
            (grid, 1, 1), (self._threads, 1, 1), self._shared, cuda_stream(device),
            ctypes.pointer(attribute), int(self._dependent),
        )  # fmt: skip
        _do("cuLaunchKernelEx", byref(config), handle, arguments, None)

    def _handle(self, device: int) -> c_void_p:
        """The kernel in a device's context, which is made the current one if there is none."""
        with self._lock:
            if device not in self._handles:
                context = c_void_p()
                _do("cuCtxGetCurrent", byref(context))
                if not context:
                    _do("cuDevicePrimaryCtxRetain", byref(context), c_int(device))
                    _do("cuCtxSetCurrent", context)
                module, handle = c_void_p(), c_void_p()
                _do("cuModuleLoadData", byref(module), self._code)
                _do("cuModuleGetFunction", byref(handle), module, self._entry.encode())
                if self._shared > PLAIN_SHARED:
                    _do("cuFuncSetAttribute", handle, c_int(SHARED_BYTES), c_int(self._shared))
                self._handles[device] = handle
            return self._handles[device]


SPARE = 2  # pointers behind a kernel's own: memory that ours do not ask for (`written`)


def start() -> None:
    """Have what compiles for the current GPU ready by the time that there are kernels."""
    workers.start(_number(torch.cuda.get_device_capability()))


def _number(capability: tuple[int, int]) -> int:
    return 10 * capability[0] + capability[1]


def compile_ahead(functions: Iterable[Any]) -> None:
    """Compile what is not known yet, as much at a time as there are cores."""
    for error in compile_those_that_do(functions).values():
        raise error


def compile_those_that_do(functions: Iterable[Any]) -> dict[int, BaseException]:
    """As above; the errors of those that do not compile, by their place."""
    binaries = {n: f for n, f in enumerate(functions) if isinstance(f, Binary)}
    with ThreadPoolExecutor(min(cores(), workers.MOST)) as pool:
        made = {n: pool.submit(f.compile) for n, f in binaries.items()}
        errors = {n: m.exception() for n, m in made.items()}
    return {n: e for n, e in errors.items() if e is not None}


def makes_binaries(device_type: str) -> bool:
    """Whether kernels for a type of device are kept by this module."""
    return device_type == "cuda" and torch.version.hip is None and not interpreting()


def function_of(launch: Launch, text: str, dtypes: Sequence[str], device_type: str) -> Any:
    """What launches a kernel: called with a grid, tensors and the launch's options."""
    if makes_binaries(device_type):
        return Binary(launch, text, dtypes)
    return getattr(load(launch.function, text), launch.function)


@once
def _versions() -> tuple[str, str]:
    """Of Triton, which is not imported for it, and of what emitted kernels call."""
    own = hashlib.sha256(Path(__file__).with_name("device.py").read_bytes()).hexdigest()
    return version(), own


def version() -> str:
    """Triton's, by the name under which it is installed."""
    for name in ("triton", "pytorch-triton"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    import triton

    return triton.__version__


def _do(function: str, *args: Any) -> None:
    code = getattr(driver(), function)(*args)
    if code:
        text = ctypes.c_char_p()
        driver().cuGetErrorString(code, byref(text))
        raise DriverError(f"{function}: {(text.value or b'error %d' % code).decode()}")
