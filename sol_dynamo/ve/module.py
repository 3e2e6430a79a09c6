"""`torch.ve`: what `torch.cuda` is for CUDA, with the same names.

torch calls `_lazy_init` when a tensor first goes to the device; it builds and loads the C++ part.
What can be answered without that (how many cards, whether there are any, no memory in use yet) is.
What torch itself does not call it for needs `init()` or a tensor there first: `torch.Generator`,
`torch.Stream`, `torch.Event`, `pin_memory()`, and a compiled function that is the first to use it.
Loaded by `import torch`: nothing but torch and this package's smallest modules is imported here.
"""

from __future__ import annotations

import atexit
import sys
import threading
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch

from . import cards

__all__ = [
    "DeviceProperties",
    "Event",
    "OutOfMemoryError",
    "Stream",
    "StreamContext",
    "current_device",
    "current_stream",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "fallback_warnings",
    "fallbacks",
    "get_amp_supported_dtype",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_fallbacks",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "synchronize",
]

Device = torch.device | int | str | None
OutOfMemoryError = torch.OutOfMemoryError

_MEMORY = {1: 48 << 30, 3: 96 << 30}  # bytes of a card, by architecture (VE10 and VE20; VE30)
_CORES = {"VE10": 8, "VE20A": 10, "VE20B": 8, "VE30": 16}
_initializing = threading.RLock()
_extension: ModuleType | None = None
_seed: int | None = None  # asked for before the device was there
default_generators: tuple[torch.Generator, ...]  # made when asked for (__getattr__)


# -- the device itself ----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _cards() -> cards.Cards:
    return cards.find()


def init() -> None:
    """Build (once) and load the device; torch does it when a tensor first goes there."""
    _lazy_init()


def _lazy_init() -> None:
    _loaded()


def native() -> ModuleType:
    """The C++ part, initialized: what of it has no name in torch.ve."""
    return _loaded()


def _loaded() -> ModuleType:
    """The C++ part, initialized."""
    global _extension
    if _extension is not None:
        return _extension
    with _initializing:
        if _extension is None:
            from .. import compat, forms
            from . import extension, interface
            from .driver import open_driver

            module = extension.load()
            nodes = list(_cards().nodes)
            module.initialize(open_driver().path, nodes)
            module.set_total_memory(_MEMORY.get(module.arch(nodes[0]), _MEMORY[1]))
            module.set_compiler(_compile_op, forms.lifted())
            forms.register_fakes()
            _extension = module
            atexit.register(_finish)
            if _seed is not None:
                manual_seed_all(_seed)
            compat.print_from_host("ve")
            interface.register_if_loaded()
    return _extension


def _compile_op(*call: Any) -> Any:
    """See `eager.compile_op`. The compiler is imported with the first op that needs it."""
    from .. import eager

    return eager.compile_op(*call)


def _finish() -> None:
    """Let what is in flight end before the interpreter goes."""
    if _extension is not None and not _extension.in_bad_fork():
        _extension.synchronize_all()


def is_initialized() -> bool:
    """Whether the device was used or `init()` called, in this process."""
    return _extension is not None and not _extension.in_bad_fork()


def is_available() -> bool:
    """Whether there is a card, or a simulated one, and a compiler for the device's C++ part.

    `torch.accelerator.is_available()` asks here too. There a simulated card counts only once the
    program has used it: a program that takes "the accelerator, if any", or pins memory for one,
    must not find itself on a simulator.
    """
    if _for_torch_accelerator(sys._getframe(1).f_globals) and not _is_accelerator():
        return False
    from . import extension

    return bool(_cards().nodes) and extension.usable()


def device_count() -> int:
    """How many cards there are; of simulated ones SOL_VE_CARDS says, one by default."""
    if _for_torch_accelerator(sys._getframe(1).f_globals) and not _is_accelerator():
        return 0
    return len(_cards().nodes)


def _for_torch_accelerator(caller: dict[str, Any]) -> bool:
    return str(caller.get("__name__", "")).startswith("torch.accelerator")


def _is_accelerator() -> bool:
    return is_initialized() or not _cards().simulated


def _is_in_bad_fork() -> bool:
    return _extension is not None and _extension.in_bad_fork()


def _index(device: Device) -> int:
    """The index of a device argument: the current one for None."""
    if device is None:
        return current_device()
    if isinstance(device, int):
        index = device
    else:
        given = torch.device(device)
        if given.type != "ve":
            raise ValueError(f"expected a ve device, not {given}")
        index = current_device() if given.index is None else given.index
    if not 0 <= index < len(_cards().nodes):
        raise RuntimeError(f"there is no device ve:{index}: {len(_cards().nodes)} found")
    return index


def current_device() -> int:
    """The index of the device that this thread works on."""
    return 0 if _extension is None else _extension.current_device()


def set_device(device: Device) -> None:
    """Make a device the one that this thread works on; a negative index changes nothing."""
    if isinstance(device, int) and device < 0:
        return
    _loaded().set_device(_index(device))


def _exchange_device(index: int) -> int:
    return -1 if index < 0 else _loaded().exchange_device(index)


def _maybe_exchange_device(index: int) -> int:
    return _exchange_device(index)


class device:
    """A context in which another device is the current one; nothing for None or -1."""

    def __init__(self, device: Any) -> None:
        none = device is None or (isinstance(device, int) and device < 0)
        self.idx = -1 if none else _index(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = _exchange_device(self.idx)

    def __exit__(self, *error: object) -> None:
        _exchange_device(self.prev_idx)


class device_of(device):
    """A context in which a tensor's or storage's device is the current one."""

    def __init__(self, of: torch.Tensor | torch.UntypedStorage) -> None:
        place = of.device
        super().__init__(place if place.type == "ve" else -1)


def synchronize(device: Device = None) -> None:
    """Wait until all that was asked of a device is done; raises what went wrong there."""
    if _extension is not None:
        _extension.synchronize(_index(device))


class DeviceProperties(NamedTuple):
    """What is known of a card; `simulated` says what kind of card answers."""

    name: str
    major: int  # architecture: 1 for VE10 and VE20, 3 for VE30
    minor: int
    total_memory: int  # bytes
    multi_processor_count: int  # cores
    vector_length: int  # elements of 64 bits
    simulated: bool
    driver: str


def get_device_properties(device: Device = None) -> DeviceProperties:
    extension, index = _loaded(), _index(device)
    model = extension.model() or "VE"
    arch = extension.arch(_cards().nodes[index]) or 1
    suffix = " (simulated)" if _cards().simulated else ""
    return DeviceProperties(
        name=f"NEC SX-Aurora TSUBASA {model}{suffix}",
        major=arch,
        minor=0,
        total_memory=_MEMORY.get(arch, _MEMORY[1]),
        multi_processor_count=_CORES.get(model, 8),
        vector_length=256,
        simulated=_cards().simulated,
        driver=extension.driver_version(),
    )


def get_device_name(device: Device = None) -> str:
    return get_device_properties(device).name


def get_device_capability(device: Device = None) -> tuple[int, int]:
    p = get_device_properties(device)
    return p.major, p.minor


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The dtypes that autocast may use."""
    return [torch.bfloat16, torch.float16]


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """The vector engine computes in float32 and float64; 16-bit floats are emulated."""
    return including_emulation


# -- streams and events ---------------------------------------------------------------------------


class Stream(torch.Stream):
    """A queue of work on a device (an AVEO context); what is asked of one happens in order.

    Priorities are accepted and mean nothing. A device has seven beside its default stream, handed
    out in turn.
    """

    def __new__(cls, device: Device = None, priority: int = 0, **ids: Any) -> Stream:
        _lazy_init()
        if ids:
            return super().__new__(cls, **ids)
        return super().__new__(cls, device=torch.device("ve", _index(device)), priority=priority)

    def __repr__(self) -> str:
        return f"<torch.ve.Stream device=ve:{self.device_index} id={self.stream_id}>"


class Event(torch.Event):
    """A point in a stream: to wait for, to ask whether it has come, to measure time between two."""

    _timing: bool

    def __new__(
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> Event:
        _lazy_init()
        event = super().__new__(
            cls, "ve", enable_timing=enable_timing, blocking=blocking, interprocess=interprocess
        )
        event._timing = enable_timing
        return event

    def record(self, stream: torch.Stream | None = None) -> None:
        super().record(current_stream() if stream is None else stream)

    def wait(self, stream: torch.Stream | None = None) -> None:
        super().wait(current_stream() if stream is None else stream)

    def elapsed_time(self, end_event: torch.Event) -> float:
        """Milliseconds of the host's clock from this event to another one."""
        if not isinstance(end_event, Event):
            return super().elapsed_time(end_event)
        if not (self._timing and end_event._timing):
            raise ValueError("both events must be made with enable_timing=True")
        return _loaded().milliseconds(self.event_id, end_event.event_id)


def _own(stream: torch.Stream) -> Stream:
    return Stream(
        stream_id=stream.stream_id,
        device_index=stream.device_index,
        device_type=stream.device_type,
    )


def current_stream(device: Device = None) -> Stream:
    _lazy_init()
    return _own(torch.accelerator.current_stream(torch.device("ve", _index(device))))


def default_stream(device: Device = None) -> Stream:
    now = current_stream(device)
    return Stream(stream_id=0, device_index=now.device_index, device_type=now.device_type)


def set_stream(stream: torch.Stream | None) -> None:
    """Make a stream its device's current one for this thread."""
    if stream is not None:
        _lazy_init()
        torch.accelerator.set_stream(stream)


class StreamContext:
    """A context in which a stream, and its device, are the current ones; nothing for None."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self._device = _exchange_device(self.stream.device_index)
            self._before = current_stream(self.stream.device_index)
            set_stream(self.stream)

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            set_stream(self._before)
            _exchange_device(self._device)


def stream(stream: torch.Stream | None) -> StreamContext:
    return StreamContext(stream)


# -- memory ---------------------------------------------------------------------------------------


def memory_stats(device: Device = None) -> dict[str, Any]:
    """All counts of the allocator, by the names that torch.cuda.memory_stats gives them."""
    if _extension is None:
        return {}
    return dict(torch.accelerator.memory_stats(_index(device)))


def _stat(name: str, device: Device) -> int:
    return int(memory_stats(device).get(f"{name}_bytes.all.current", 0))


def _peak(name: str, device: Device) -> int:
    return int(memory_stats(device).get(f"{name}_bytes.all.peak", 0))


def memory_allocated(device: Device = None) -> int:
    """Bytes that tensors hold."""
    return _stat("allocated", device)


def max_memory_allocated(device: Device = None) -> int:
    """The most that tensors held at once since `reset_peak_memory_stats`."""
    return _peak("allocated", device)


def memory_reserved(device: Device = None) -> int:
    """Bytes that the allocator has from the driver, in use or not."""
    return _stat("reserved", device)


def max_memory_reserved(device: Device = None) -> int:
    return _peak("reserved", device)


def reset_peak_memory_stats(device: Device = None) -> None:
    if _extension is not None:
        torch.accelerator.reset_peak_memory_stats(_index(device))


def reset_accumulated_memory_stats(device: Device = None) -> None:
    if _extension is not None:
        torch.accelerator.reset_accumulated_memory_stats(_index(device))


def empty_cache() -> None:
    """Give the memory that no tensor holds back to the driver."""
    if _extension is not None:
        _extension.empty_cache()


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """(bytes that this process may still reserve, bytes of the card)."""
    return _loaded().memory_info(_index(device))


def set_per_process_memory_fraction(fraction: float, device: Device = None) -> None:
    """Allow this process no more than a part of a card's memory."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction lies between 0 and 1: {fraction}")
    total = get_device_properties(device).total_memory
    _loaded().set_memory_limit(_index(device), int(total * fraction))


def memory_summary(device: Device = None, abbreviated: bool = False) -> str:
    """The main counts as a table."""
    stats = memory_stats(device)
    rows = ["allocated_bytes", "reserved_bytes", "active_bytes", "requested_bytes"]
    rows += [] if abbreviated else ["allocation", "segment", "inactive_split"]
    lines = [f"{'ve:' + str(_index(device)):18}{'current':>16}{'peak':>16}"]
    for row in rows:
        now, peak = (stats.get(f"{row}.all.{k}", 0) for k in ("current", "peak"))
        lines.append(f"{row:18}{now:16}{peak:16}")
    return "\n".join(lines)


# -- random numbers -------------------------------------------------------------------------------


def _generators() -> tuple[torch.Generator, ...]:
    extension = _loaded()
    return tuple(extension.default_generator(i) for i in range(extension.device_count()))


def _generator(device: Device) -> torch.Generator:
    return _loaded().default_generator(_index(device))


def __getattr__(name: str) -> Any:
    if name == "default_generators":
        return _generators()
    raise AttributeError(f"module 'torch.ve' has no attribute {name!r}")


def manual_seed(seed: int) -> None:
    """Seed the current device's generator."""
    if _extension is None:
        manual_seed_all(seed)
    else:
        _generator(None).manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """Seed every device's generator; `torch.manual_seed` does it too."""
    global _seed
    _seed = int(seed)
    if _extension is not None and not _extension.in_bad_fork():
        for generator in _generators():
            generator.manual_seed(_seed)


def seed() -> None:
    """Seed the current device's generator with a number that nobody can foresee."""
    _generator(None).seed()


def seed_all() -> None:
    first, *others = _generators()
    number = first.seed()
    for generator in others:
        generator.manual_seed(number)


def initial_seed() -> int:
    return _generator(None).initial_seed()


def get_rng_state(device: Device = "ve") -> torch.Tensor:
    """Seed and offset of a device's generator, as bytes on the CPU."""
    return _generator(device).get_state()


def get_rng_state_all() -> list[torch.Tensor]:
    return [g.get_state() for g in _generators()]


def set_rng_state(new_state: torch.Tensor, device: Device = "ve") -> None:
    _generator(device).set_state(new_state)


def set_rng_state_all(new_states: list[torch.Tensor]) -> None:
    for generator, state in zip(_generators(), new_states, strict=True):
        generator.set_state(state)


# -- operators without a kernel -------------------------------------------------------------------


def fallbacks() -> dict[str, int]:
    """How often each operator ran on the CPU for lack of a kernel, by name with overload."""
    return {} if _extension is None else dict(_extension.fallbacks())


def reset_fallbacks() -> None:
    """Count from zero, and warn once more for each operator."""
    if _extension is not None:
        _extension.reset_fallbacks()


def fallback_warnings(on: bool) -> None:
    """Whether the first fallback of each operator gives a warning (it does)."""
    _loaded().set_fallback_warnings(on)
