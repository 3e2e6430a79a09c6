"""A VE process through the driver, short to write: for tests of the driver and of the cycle model.

VE code is compiled here, by ziglang, from C or assembly. Nothing is mocked: calls go through AVEO's
C interface as a program's would.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_uint64
from pathlib import Path
from typing import Any

from compiled import ve_object

from sol_dynamo.ve import driver as ve


def compile_ve(folder: Path, name: str, source: str, *flags: str) -> Path:
    """An object file from C, or from assembly where the name ends so."""
    path = (folder / name).with_suffix(".o")
    path.write_bytes(ve_object(source, "-fPIC", *flags, suffix=Path(name).suffix))
    return path


class Process:
    """A process on a card with its main context; addresses and handles are plain integers."""

    def __init__(self, node: int = -1) -> None:
        self.driver = ve.open_driver()
        self.lib = self.driver.lib
        self.handle = self.lib.veo_proc_create(node)
        assert self.handle, self.driver.last_error()
        self.main = self.open()

    def destroy(self) -> None:
        assert self.lib.veo_proc_destroy(self.handle) == 0, self.driver.last_error()

    def load(self, path: Path | str) -> int:
        library = self.lib.veo_load_library(self.handle, str(path).encode())
        assert library, self.driver.last_error()
        return int(library)

    def symbol(self, library: int, name: str) -> int:
        address = self.lib.veo_get_sym(self.handle, library, name.encode())
        assert address, self.driver.last_error()
        return int(address)

    def open(self, stack: int = 0) -> int:
        """A context, with a stack of so many bytes."""
        if not stack:
            context = self.lib.veo_context_open(self.handle)
        else:
            attributes = self.lib.veo_alloc_thr_ctxt_attr()
            assert self.lib.veo_set_thr_ctxt_stacksize(attributes, stack) == 0
            context = self.lib.veo_context_open_with_attr(self.handle, attributes)
            assert self.lib.veo_free_thr_ctxt_attr(attributes) == 0
        assert context, self.driver.last_error()
        return int(context)

    def alloc(self, size: int) -> int:
        address = c_uint64()
        assert self.lib.veo_alloc_mem(self.handle, byref(address), size) == 0, self.error
        return address.value

    def write(self, address: int, data: bytes) -> None:
        assert self.lib.veo_write_mem(self.handle, address, data, len(data)) == 0, self.error

    def read(self, address: int, size: int) -> bytes:
        out = ctypes.create_string_buffer(size)
        assert self.lib.veo_read_mem(self.handle, out, address, size) == 0, self.error
        return out.raw

    def call(self, function: int, *values: Any) -> int:
        """A synchronous call, arguments as `arguments` takes them."""
        result = c_uint64()
        with arguments(self, values) as args:
            assert self.lib.veo_call_sync(self.handle, function, args, byref(result)) == 0, (
                self.error
            )
        return result.value

    def start(self, context: int, function: int, *values: Any) -> int:
        with arguments(self, values) as args:
            request = self.lib.veo_call_async(context, function, args)
        assert request != ve.INVALID_REQUEST, self.error
        return int(request)

    def wait(self, context: int, request: int) -> tuple[int, int]:
        """Status and result."""
        result = c_uint64()
        status = self.lib.veo_call_wait_result(context, request, byref(result))
        return status, result.value

    def peek(self, context: int, request: int) -> tuple[int, int]:
        result = c_uint64()
        status = self.lib.veo_call_peek_result(context, request, byref(result))
        return status, result.value

    def fault(self, context: int) -> str:
        return str(self.lib.vesim_last_fault(context).decode())

    @property
    def error(self) -> str:
        return self.driver.last_error()


@contextmanager
def arguments(process: Process, values: Sequence[Any]) -> Iterator[int]:
    """Integers are passed as 64 bits, floats as double; (kind, value) as `veo_args_set_<kind>`;
    (intent, buffer) on the stack, of a ctypes buffer."""
    lib = process.lib
    args = lib.veo_args_alloc()
    try:
        for i, v in enumerate(values):
            if isinstance(v, tuple) and isinstance(v[0], str):
                done = getattr(lib, f"veo_args_set_{v[0]}")(args, i, v[1])
            elif isinstance(v, tuple):
                intent, buffer = v
                size = ctypes.sizeof(buffer)
                done = lib.veo_args_set_stack(args, intent, i, ctypes.addressof(buffer), size)
            elif isinstance(v, float):
                done = lib.veo_args_set_double(args, i, v)
            else:
                done = lib.veo_args_set_u64(args, i, v)
            assert done == 0, process.error
        yield args
    finally:
        lib.veo_args_free(args)
