"""An instruction-set simulator of NEC's SX-Aurora vector engine (VE), as Python objects.

    machine = Machine()
    library = machine.load("kernel.o")             # compiled for VE, or a shared object
    x = machine.allocate(8 * 256)
    machine.write(x, numpy.arange(256.0).tobytes())
    result = library.call("sum", x, 256)           # s0 as an int
    machine.core.v[0], machine.core.vl, ...        # live registers

Errors of the simulated program are `Fault`s: the machine stays usable. The device "ve" of PyTorch
uses the same library through NEC's driver interface; nothing here knows of it.
"""

from __future__ import annotations

import ctypes
import operator
import os
import struct
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from . import build

__all__ = ["Core", "Fault", "Library", "Machine", "disassemble", "f32", "library_path", "rows"]

_KINDS = (  # Trap::Kind of machine.h
    *("None", "IllegalInstruction", "UnimplementedInstruction", "MemoryAccess", "Alignment"),
    *("StackOverflow", "SystemCall", "DivideByZero", "StepLimit", "Interrupted", "HostFunction"),
    "Paused",
)
_PAUSED = _KINDS.index("Paused")
_SLICE = 1 << 20  # instructions, mostly a hundredth of a second: as long as Ctrl-C waits


class Fault(RuntimeError):
    """The simulated program did something that ends it.

    `kind`: one of the names above; `ic`: the instruction's address; `address`: the access's, where
    there was one; `word`: the instruction; `text`: all of it for people.
    """

    def __init__(self, kind: str, ic: int, address: int, word: int, text: str):
        super().__init__(text)
        self.kind, self.ic, self.address, self.word, self.text = kind, ic, address, word, text


Number = SupportsIndex | float | np.floating | np.bool_  # an argument of a function


class f32(float):
    """An argument that VE code takes as `float`: it lies in the upper half of a register."""


class _Trap(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("ic", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("word", ctypes.c_uint64),
        ("text", ctypes.c_char * 1024),
    ]

    def check(self) -> None:
        if self.kind:
            text = self.text.decode(errors="replace")
            raise Fault(_KINDS[self.kind], self.ic, self.address, self.word, text)


_u64, _pointer, _text = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "create": (_pointer, [ctypes.c_int, _u64, _u64]),
    "destroy": (None, [_pointer]),
    "allocate": (_u64, [_pointer, _u64, _u64]),
    "release": (ctypes.c_int, [_pointer, _u64]),
    "read": (ctypes.c_int, [_pointer, _pointer, _u64, _u64]),
    "write": (ctypes.c_int, [_pointer, _u64, _pointer, _u64]),
    "used": (_u64, [_pointer]),
    "load": (_pointer, [_pointer, _text, _u64, _text, _text, _u64]),
    "unload": (None, [_pointer]),
    "symbol": (_u64, [_pointer, _text]),
    "symbols": (_u64, [_pointer, _text, _u64]),
    "initializers": (_u64, [_pointer, _pointer, _u64]),
    "call": (ctypes.c_int32, [_pointer, _u64, _pointer, ctypes.c_uint32, _pointer, _pointer]),
    "resume": (ctypes.c_int32, [_pointer, _pointer, _pointer]),
    "execute": (ctypes.c_int32, [_pointer, _pointer, _u64, _pointer]),
    "interrupt": (None, [_pointer]),
    "s": (_pointer, [_pointer]),
    "v": (_pointer, [_pointer]),
    "vm": (_pointer, [_pointer]),
    "state": (_pointer, [_pointer, ctypes.c_int]),
    "stack_low": (_u64, [_pointer]),
    "stack_high": (_u64, [_pointer]),
    "trace": (ctypes.c_int, [_pointer, _text]),
    "flush": (None, [_pointer]),
    "disassemble": (_u64, [_u64, _text, _u64]),
    "row": (ctypes.c_uint32, [ctypes.c_uint32, _text, _u64, _pointer, _pointer]),
}


def library_path() -> Path:
    """The shared library with the simulator and NEC's driver interface; built at first use."""
    return build.library()


@lru_cache(maxsize=1)
def _native() -> ctypes.CDLL:
    native = ctypes.CDLL(str(library_path()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(native, f"vesim_{name}")
        function.restype, function.argtypes = result, arguments
    return native


def disassemble(word: int) -> str:
    """An instruction word in LLVM's syntax; "" where it is no instruction."""
    out = ctypes.create_string_buffer(128)
    _native().vesim_disassemble(word & (1 << 64) - 1, out, len(out))
    return out.value.decode()


def rows() -> list[tuple[str, int, int]]:
    """The table of instructions: (syntax, fixed bits, mask of the fixed bits) of each row.

    The letters behind `$` in a syntax are explained in csrc/decode.h.
    """
    native = _native()
    found: list[tuple[str, int, int]] = []
    out, fixed, mask = ctypes.create_string_buffer(128), _u64(), _u64()
    while native.vesim_row(len(found), out, len(out), ctypes.byref(fixed), ctypes.byref(mask)):
        found.append((out.value.decode(), fixed.value, mask.value))
    return found


class Core:
    """The registers of a machine's core, and single instructions.

    `s` (64,), `v` (64, 256) and `vm` (16, 4) are uint64 views on the live registers. Element e of a
    vector register is `v[r, e]`; its mask bit is bit 63 - e % 64 of `vm[m, e // 64]`.
    """

    def __init__(self, machine: Machine):
        native, handle = _native(), machine._handle
        self._handle = handle
        self._running = machine._running
        self.s = _view(native.vesim_s(handle), (64,), machine)
        self.v = _view(native.vesim_v(handle), (64, 256), machine)
        self.vm = _view(native.vesim_vm(handle), (16, 4), machine)
        self._state = [_view(native.vesim_state(handle, n), (1,), machine) for n in range(6)]

    def _get(self, n: int) -> int:
        return int(self._state[n][0])

    def _set(self, n: int, value: int) -> None:
        self._state[n][0] = value

    vl = property(lambda self: self._get(0), lambda self, n: self._set_length(n))
    vix = property(lambda self: self._get(1), lambda self, n: self._set_index(n))
    psw = property(lambda self: self._get(2), lambda self, n: self._set(2, n))
    executed = property(lambda self: self._get(3), doc="Instructions, all together.")
    step_limit = property(
        lambda self: self._get(4),
        lambda self, n: self._set(4, n),
        doc="Instructions of one call after which it is a Fault; 0: no limit.",
    )
    perturb = property(
        lambda self: self._get(5),
        lambda self, n: self._set(5, n),
        doc="Seed of the perturbation of results that the architecture leaves open; 0: none.",
    )

    def _set_length(self, n: int) -> None:
        if not 0 <= n <= 256:
            raise ValueError(f"the vector length is 0 to 256, not {n}")
        self._set(0, n)

    def _set_index(self, n: int) -> None:
        if not 0 <= n < 64:
            raise ValueError(f"there is no vector register {n}")
        self._set(1, n)

    def execute(self, words: Sequence[int]) -> None:
        """Run instruction words in a line, with registers as they are, up to the end of the last.

        Errors: `Fault`.
        """
        code = (_u64 * len(words))(*words)
        native, trap = _native(), _Trap()
        with self._running:
            native.vesim_execute(self._handle, code, len(words), ctypes.byref(trap))
            _finish(native, self._handle, None, trap)
        trap.check()


def _view(address: int, shape: tuple[int, ...], owner: object) -> np.ndarray:
    memory = (_u64 * int(np.prod(shape))).from_address(address)
    memory._owner = owner  # type: ignore[attr-defined]  # registers must outlive their views
    return np.ctypeslib.as_array(memory).reshape(shape)


class Machine:
    """A simulated VE process: memory of its own, and one core.

    `memory`: bytes of address space (nothing is used until it is allocated); `stack`: bytes of the
    core's stack; `trace`: a file that gets a line for each instruction (SOL_VE_TRACE does so for
    all machines). Addresses are VE's: they mean nothing to the host.
    """

    def __init__(
        self,
        arch: str = "ve1",
        memory: int | None = None,
        stack: int = 8 << 20,
        trace: str | os.PathLike[str] | None = None,
    ):
        if arch not in ("ve1", "ve3"):
            raise ValueError(f"arch is 've1' or 've3', not {arch!r}")
        native = _native()
        self._handle = native.vesim_create(int(arch[2]), memory or 0, stack)
        if not self._handle:
            raise MemoryError("no address space is left for a simulated machine")
        self._finalizer = weakref.finalize(self, native.vesim_destroy, self._handle)
        _u64.from_address(native.vesim_state(self._handle, 6)).value = _SLICE
        if trace is not None and not native.vesim_trace(self._handle, os.fsencode(trace)):
            raise OSError(f"cannot write the trace to {trace}")
        self._core: weakref.ref[Core] | None = None
        self._running = threading.Lock()  # the core does one thing at a time

    @property
    def core(self) -> Core:
        core = self._core() if self._core is not None else None
        if core is None:
            core = Core(self)
            self._core = weakref.ref(core)
        return core

    def allocate(self, size: int, align: int = 64) -> int:
        """The address of `size` zeroed bytes. Errors: `MemoryError`."""
        address = _native().vesim_allocate(self._handle, size, align)
        if not address:
            raise MemoryError(f"the simulated machine has no {size} bytes left")
        return address

    def release(self, address: int) -> None:
        """Give memory back. Errors: `ValueError` for what `allocate` did not return."""
        if not _native().vesim_release(self._handle, address):
            raise ValueError(f"{address:#x} is not the address of an allocation")

    @property
    def memory_used(self) -> int:
        """Bytes of all allocations, in whole pages."""
        return _native().vesim_used(self._handle)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of VE memory. Errors: `ValueError` where not all of them are mapped."""
        out = ctypes.create_string_buffer(max(size, 1))
        if not _native().vesim_read(self._handle, out, address, size):
            raise ValueError(f"{address:#x} to {address + size:#x} is not mapped")
        return out.raw[:size]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Set bytes of VE memory. Errors: `ValueError` where not all of them are mapped."""
        data = bytes(data)
        if not _native().vesim_write(self._handle, address, data, len(data)):
            raise ValueError(f"{address:#x} to {address + len(data):#x} is not mapped")

    def load(self, path: str | os.PathLike[str]) -> Library:
        """Load an object file or a shared object and run its initializers. Errors: `OSError`."""
        return Library(self, Path(path).read_bytes(), os.fspath(path))

    def load_bytes(self, data: bytes, name: str = "<memory>") -> Library:
        """The same from bytes."""
        return Library(self, data, name)

    def call(self, function: int, *arguments: Number) -> int:
        """Call the function at an address by VE's ABI and return s0.

        Integers are passed as 64 bits, floats as doubles, `f32` and NumPy's float32 in the upper
        half. Errors: `Fault`; `TypeError` for what is no number.
        """
        values = [_argument(a) for a in arguments]
        native, trap, result = _native(), _Trap(), _u64()
        with self._running:
            native.vesim_call(
                self._handle,
                function,
                (_u64 * len(values))(*values),
                len(values),
                ctypes.byref(result),
                ctypes.byref(trap),
            )
            _finish(native, self._handle, ctypes.byref(result), trap)
            native.vesim_flush(self._handle)
        trap.check()
        return result.value

    def interrupt(self) -> None:
        """From another thread: end the running call with a Fault."""
        _native().vesim_interrupt(self._handle)


def _finish(native: ctypes.CDLL, handle: int, result: Any, trap: _Trap) -> None:
    """Goes on with a run until it ends. Python comes to its signals in between: Ctrl-C ends it."""
    while trap.kind == _PAUSED:
        native.vesim_resume(handle, result, ctypes.byref(trap))


def _argument(value: Number) -> int:
    if isinstance(value, (f32, np.float32)):
        with np.errstate(over="ignore"):  # an infinity, as C's conversion gives
            return int(np.float32(value).view(np.uint32)) << 32
    if isinstance(value, float):  # np.float64, too
        return int.from_bytes(struct.pack("<d", value), "little")
    if isinstance(value, np.floating):
        raise TypeError(f"no type of the vector engine's C is like {type(value).__name__}")
    return (int(value) if isinstance(value, np.bool_) else operator.index(value)) & (1 << 64) - 1


class Library:
    """A loaded file. Its memory is released with it."""

    def __init__(self, machine: Machine, data: bytes, name: str):
        native = _native()
        self.machine, self.name = machine, name
        error = ctypes.create_string_buffer(1024)
        handle = native.vesim_load(
            machine._handle, data, len(data), os.fsencode(name), error, len(error)
        )
        if not handle:
            raise OSError(error.value.decode(errors="replace"))
        self._handle = handle
        # the machine must outlive what lies in its memory
        self._finalizer = weakref.finalize(self, _unload, handle, machine)
        count = native.vesim_initializers(handle, None, 0)
        functions = (_u64 * max(count, 1))()
        native.vesim_initializers(handle, functions, count)
        for n in range(count):
            machine.call(functions[n])

    def symbol(self, name: str) -> int:
        """A symbol's address. Errors: `KeyError`."""
        address = _native().vesim_symbol(self._handle, name.encode())
        if not address:
            raise KeyError(f"{self.name} defines no {name!r}, but {', '.join(self.symbols())}")
        return address

    def symbols(self) -> list[str]:
        """The names of the global symbols that the file defines."""
        size = _native().vesim_symbols(self._handle, None, 0)
        out = ctypes.create_string_buffer(size)
        _native().vesim_symbols(self._handle, out, size)
        return out.value.decode().split()

    def call(self, function: str, *arguments: Number) -> int:
        """`Machine.call` of a function by its name."""
        return self.machine.call(self.symbol(function), *arguments)


def _unload(handle: int, machine: Machine) -> None:
    if machine._finalizer.alive:
        _native().vesim_unload(handle)
