"""The driver of the vector engine as Python sees it: AVEO's C interface, bound by ctypes.

NEC's libveo.so.1 where it is installed and there is a card, else the simulator's library, which has
the same interface and is built at first use. SOL_VE_DRIVER chooses: `native`, `sim`, or the path of
a library. This is for `doctor`, tests and reports; the PyTorch device loads the same library by
itself. Nothing here knows of PyTorch.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterable, Sequence
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

NATIVE_NAMES = ("libveo.so.1", "/opt/nec/ve/veos/lib64/libveo.so.1")
INVALID_REQUEST = 2**64 - 1
OK, EXCEPTION, ERROR, UNFINISHED = range(4)  # veo_command_state
IN, INOUT, OUT = range(3)  # veo_args_intent
RUNNING, EXIT = 1, 4  # veo_context_state

VH_FUNCTION = ctypes.CFUNCTYPE(c_uint64, c_void_p)

# name -> result and arguments, as in sim/csrc/veo.h. Handles are void pointers.
_P, _U64, _N = c_void_p, c_uint64, c_size_t
PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "veo_api_version": (c_int, ()),
    "veo_version_string": (c_char_p, ()),
    "veo_get_ve_arch": (c_int, (c_int,)),
    "veo_proc_create": (_P, (c_int,)),
    "veo_proc_destroy": (c_int, (_P,)),
    "veo_proc_identifier": (c_int, (_P,)),
    "veo_load_library": (_U64, (_P, c_char_p)),
    "veo_unload_library": (c_int, (_P, _U64)),
    "veo_get_sym": (_U64, (_P, _U64, c_char_p)),
    "veo_alloc_mem": (c_int, (_P, POINTER(_U64), _N)),
    "veo_free_mem": (c_int, (_P, _U64)),
    "veo_read_mem": (c_int, (_P, _P, _U64, _N)),
    "veo_write_mem": (c_int, (_P, _U64, _P, _N)),
    "veo_num_contexts": (c_int, (_P,)),
    "veo_get_context": (_P, (_P, c_int)),
    "veo_context_open": (_P, (_P,)),
    "veo_context_open_with_attr": (_P, (_P, _P)),
    "veo_context_close": (c_int, (_P,)),
    "veo_get_context_state": (c_int, (_P,)),
    "veo_context_sync": (None, (_P,)),
    "veo_alloc_thr_ctxt_attr": (_P, ()),
    "veo_free_thr_ctxt_attr": (c_int, (_P,)),
    "veo_set_thr_ctxt_stacksize": (c_int, (_P, _N)),
    "veo_get_thr_ctxt_stacksize": (c_int, (_P, POINTER(_N))),
    "veo_args_alloc": (_P, ()),
    "veo_args_set_i64": (c_int, (_P, c_int, c_int64)),
    "veo_args_set_u64": (c_int, (_P, c_int, _U64)),
    "veo_args_set_i32": (c_int, (_P, c_int, ctypes.c_int32)),
    "veo_args_set_u32": (c_int, (_P, c_int, ctypes.c_uint32)),
    "veo_args_set_i16": (c_int, (_P, c_int, ctypes.c_int16)),
    "veo_args_set_u16": (c_int, (_P, c_int, ctypes.c_uint16)),
    "veo_args_set_i8": (c_int, (_P, c_int, ctypes.c_int8)),
    "veo_args_set_u8": (c_int, (_P, c_int, ctypes.c_uint8)),
    "veo_args_set_double": (c_int, (_P, c_int, c_double)),
    "veo_args_set_float": (c_int, (_P, c_int, c_float)),
    "veo_args_set_stack": (c_int, (_P, c_int, c_int, _P, _N)),
    "veo_args_clear": (None, (_P,)),
    "veo_args_free": (None, (_P,)),
    "veo_call_sync": (c_int, (_P, _U64, _P, POINTER(_U64))),
    "veo_call_async": (_U64, (_P, _U64, _P)),
    "veo_call_async_by_name": (_U64, (_P, _U64, c_char_p, _P)),
    "veo_call_async_vh": (_U64, (_P, VH_FUNCTION, _P)),
    "veo_call_peek_result": (c_int, (_P, _U64, POINTER(_U64))),
    "veo_call_wait_result": (c_int, (_P, _U64, POINTER(_U64))),
    "veo_async_read_mem": (_U64, (_P, _P, _U64, _N)),
    "veo_async_write_mem": (_U64, (_P, _U64, _P, _N)),
    "veo_alloc_mem_async": (_U64, (_P, _N)),
    "veo_free_mem_async": (_U64, (_P, _U64)),
    "veo_req_block_begin": (None, (_P,)),
    "veo_req_block_end": (None, (_P,)),
}


class DriverError(RuntimeError):
    """No usable driver, or one that refused; the message says which and what to do."""


class _Row(ctypes.Structure):  # struct vesim_kernel
    _fields_ = (
        ("name", ctypes.c_char * 128),
        *((n, c_uint64) for n in ("calls", "cycles", "instructions", "vector_instructions")),
        *((n, c_uint64) for n in ("vector_elements", "flop_f64", "flop_f32")),
        *((n, c_uint64) for n in ("bytes_loaded", "bytes_stored", "memory_bytes")),
        *((n, c_double) for n in ("seconds", "vector_ratio", "average_length")),
        *((n, c_double) for n in ("peak_f64", "peak_f32", "fma_busy", "memory_busy")),
    )


@dataclass(frozen=True)
class Kernel:
    """What all calls of one function took in a context, on the simulator's model of the machine."""

    name: str
    calls: int
    cycles: int
    instructions: int
    vector_instructions: int
    vector_elements: int
    flop_f64: int
    flop_f32: int
    bytes_loaded: int
    bytes_stored: int
    memory_bytes: int  # between last-level cache and memory
    seconds: float  # simulated
    vector_ratio: float  # share of the operations that vector instructions did
    average_length: float  # of vectors
    peak_f64: float  # share of the core's peak
    peak_f32: float  # likewise, of packed float32
    fma_busy: float  # share of the time
    memory_busy: float


SIMULATOR_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "vesim_last_fault": (c_char_p, (_P,)),
    "vesim_last_error": (c_char_p, ()),
    "vesim_num_cards": (c_int, ()),
    "vesim_model": (c_char_p, ()),
    "vesim_memory_used": (c_int64, (_P,)),
    "vesim_patience": (c_int, (_P, c_double)),
    "vesim_cycles_enable": (c_int, (_P, c_int)),
    "vesim_cycles_share": (c_int, (_P, c_int)),
    "vesim_report": (c_int, (_P, POINTER(_Row), c_int)),
    "vesim_report_clear": (c_int, (_P,)),
    "vesim_cycle_rule": (c_char_p, (ctypes.c_uint,)),
}


class Driver:
    """A loaded driver library; its functions are attributes of `lib`, with types.

    Errors: `DriverError` for a file that cannot be loaded or lacks functions.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.lib = ctypes.CDLL(path)
        except OSError as e:
            raise DriverError(f"cannot load the VE driver {path!r}: {e}") from None
        missing = _declare(self.lib, PROTOTYPES)
        if missing:
            raise DriverError(
                f"{path!r} is not an AVEO library: it lacks {', '.join(missing[:4])}"
                f" ({len(missing)} of {len(PROTOTYPES)} functions). It has to be AVEO 3 or newer"
            )
        self.simulated = not _declare(self.lib, SIMULATOR_PROTOTYPES)

    @property
    def cards(self) -> int:
        """How many cards there are. Errors: `DriverError` for a bad SOL_VE_CARDS."""
        if not self.simulated:
            return len(_card_files())
        count = self.lib.vesim_num_cards()
        if count < 0:
            raise DriverError(self.last_error())
        return int(count)

    def last_error(self) -> str:
        """Why this thread's last call was refused; the native driver only logs it."""
        if not self.simulated:
            return "the VE driver refused (VEO_LOG_DEBUG=1 makes it write a log)"
        return str(self.lib.vesim_last_error().decode(errors="replace"))

    def describe(self) -> dict[str, str]:
        """Name -> value of what this driver is, for people."""
        version = self.lib.veo_version_string().decode(errors="replace")
        facts = {
            "driver": f"{version}, {'simulated' if self.simulated else 'native'}, {self.path}",
            "api": str(self.lib.veo_api_version()),
            "cards": str(self.cards),
        }
        if self.simulated:
            model = self.lib.vesim_model().decode()
            facts["model"] = f"{model} (simulated)" if model else self.last_error()
        return facts

    def report(self, context: int) -> list[Kernel]:
        """The simulated times of a context's kernels. Errors: `DriverError` on hardware."""
        if not self.simulated:
            raise DriverError("simulated times come from the simulator: SOL_VE_DRIVER=sim")
        count = self.lib.vesim_report(context, None, 0)
        rows = (_Row * max(count, 1))()
        count = min(count, self.lib.vesim_report(context, rows, count))
        if count < 0:
            raise DriverError(self.last_error())
        names = [f.name for f in fields(Kernel)][1:]
        return [
            Kernel(r.name.decode(errors="replace"), *(getattr(r, n) for n in names))
            for r in rows[:count]
        ]


def _declare(lib: ctypes.CDLL, prototypes: dict[str, tuple[Any, tuple[Any, ...]]]) -> list[str]:
    """Gives functions their types. The names of those that the library lacks."""
    missing = []
    for name, (result, arguments) in prototypes.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            missing.append(name)
            continue
        function.restype = result
        function.argtypes = list(arguments)
    return missing


def _card_files() -> list[Path]:
    return sorted(Path("/dev").glob("veslot[0-9]*"))


def _native() -> Driver:
    """NEC's library from where the loader or its package puts it."""
    refused = []
    for name in NATIVE_NAMES:
        try:
            driver = Driver(name)
        except DriverError as e:
            refused.append(str(e))
            continue
        # more than one context needs this, and AVEO reads it when a process is created
        os.environ.setdefault("VE_OMP_NUM_THREADS", "1")
        return driver
    raise DriverError("no native VE driver:\n" + "\n".join(refused))


def _simulator() -> Driver:
    from . import sim

    return Driver(str(sim.library_path()))


def open_driver() -> Driver:
    """The driver that SOL_VE_DRIVER asks for, else the native one with a card, else the simulator.

    Errors: `DriverError` where there is none; `ToolchainError` where the simulator is not built yet
    and no compiler is found.
    """
    return _open(os.environ.get("SOL_VE_DRIVER", ""))


@lru_cache(maxsize=8)
def _open(choice: str) -> Driver:
    if choice == "sim":
        return _simulator()
    if choice == "native":
        return _native()
    if choice:
        if not Path(choice).is_file():
            raise DriverError(
                f"SOL_VE_DRIVER={choice!r} is no file. It takes 'native', 'sim' or a library's path"
            )
        return Driver(str(Path(choice).resolve()))
    if _card_files():
        try:
            return _native()
        except DriverError as e:
            warnings.warn(f"there is a VE card, but {e}\nThe simulator is used", stacklevel=3)
    return _simulator()


def together(cores: Sequence[Sequence[Kernel]]) -> list[Kernel]:
    """What functions took that several cores executed at the same time, from a report of each core.

    A function's time is that of the core that took longest, its work is that of all; shares of the
    peak are of all these cores, also of those that had nothing to do.
    """
    names = dict.fromkeys(k.name for core in cores for k in core)
    found = []
    for name in names:
        rows = [k for core in cores for k in core if k.name == name]
        total = {f.name: sum(getattr(k, f.name) for k in rows) for f in fields(Kernel)[1:]}
        longest = max(rows, key=lambda k: k.cycles)
        share = longest.cycles * len(cores)  # cycles of all cores meanwhile
        scalar = total["instructions"] - total["vector_instructions"]
        total |= {
            "calls": max(k.calls for k in rows),
            "cycles": longest.cycles,
            "seconds": longest.seconds,
            "vector_ratio": total["vector_elements"] / max(scalar + total["vector_elements"], 1),
            "average_length": total["vector_elements"] / max(total["vector_instructions"], 1),
            "peak_f64": sum(k.peak_f64 * k.cycles for k in rows) / share,
            "peak_f32": sum(k.peak_f32 * k.cycles for k in rows) / share,
            "fma_busy": sum(k.fma_busy * k.cycles for k in rows) / share,
            "memory_busy": sum(k.memory_busy * k.cycles for k in rows) / share,
        }
        found.append(Kernel(name, **total))
    return found


def format_report(kernels: Iterable[Kernel]) -> str:
    """A table of simulated times, the longest first."""
    rows = sorted(kernels, key=lambda k: -k.cycles)
    width = max([len(k.name) for k in rows], default=6)
    lines = [
        f"{'kernel':{width}} {'calls':>7} {'cycles':>13} {'simulated ms':>13} {'vector':>7} "
        f"{'length':>7} {'f32 peak':>9} {'f64 peak':>9} {'memory':>7}"
    ]
    for k in rows:
        lines.append(
            f"{k.name:{width}} {k.calls:7} {k.cycles:13} {1e3 * k.seconds:13.4f} "
            f"{k.vector_ratio:7.1%} {k.average_length:7.1f} {k.peak_f32:9.1%} {k.peak_f64:9.1%} "
            f"{k.memory_busy:7.1%}"
        )
    return "\n".join(lines)
