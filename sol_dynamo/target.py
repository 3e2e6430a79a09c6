"""What a target is: capabilities that passes and schedules may ask for, and three functions.

Passes, lowering and scheduling consult `Caps` and never a name; only the registry at the end of
this module names devices. A target lives in a folder of its own under `kernels/` (or `ve/`) and is
imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from .ir import Program, Work


@dataclass(frozen=True)
class Caps:
    """What the machine behind a target can do; sizes in bytes, vector widths in bytes."""

    device_type: str  # torch.device.type of the tensors that it works on
    vector_bytes: int = 64  # widest vector register
    fma_pipes: int = 2
    load_ports: int = 2
    fmas_in_flight: int = 8  # independent FMAs that keep the pipes busy
    vector_registers: int = 32
    max_accumulators: int = 28  # as many saturate the pipes; more gain nothing
    l1_way: int = 4 << 10  # addresses this far apart fall on the same set,
    l1_ways: int = 8  # which holds so many lines
    l2: int = 1 << 20
    local_bytes: int = 0  # memory of a core that a program manages itself
    cores: int = 1
    units: int = 32  # units of a kernel: enough to balance cores, few enough to stay in cache
    unit_flops: int = 1 << 17  # work of one unit: a few us, so that claiming it costs nothing
    rows: int = 16  # independent results of a long reduction that need no cutting into parts
    row_cost: int = 0  # instructions of a value of a row that cost nothing where the row is read
    part_bytes: int = 1 << 17  # memory read for one part of a reduction: half of a small L2
    part_columns: int = 0  # neighbouring results that take up a part at once; 0: all there are
    column_bytes: int = 0  # memory read for so many neighbouring results that are not cut
    images_first: bool = True  # large batches walk runs of kernels image by image, in cache
    columns: int = 1  # of a product that are computed at once: an operand is made once for them
    # of a product whose neighbouring rows a kernel sums itself (`taps`): the fewest, and the most
    taps_columns: tuple[int, int] = (0, 0)
    tf32: bool = False  # products of float32 may round operands, where torch's flags say so
    half_products: bool = False  # products of 16-bit floats are summed in float32 by hardware
    elsewhere: Callable[[Work], str] | None = None  # why ATen is to do it, or "", by a model
    one_sum: Callable[[Work], bool] | None = None  # whether it may be, with others that are added
    seconds: Callable[[Program], float] | None = None  # that a program takes, on memory made for it
    alone: bool = False  # ATen has no kernels for the device: whatever has a rule is compiled
    rectified: bool = False  # ATen has convolutions with a ReLU inside (cuDNN's)
    channels_last: bool = True  # the layout inside: channels innermost, else spatial innermost


class Executable(Protocol):
    """A program that was built and loaded: one native call (or one graph replay)."""

    def __call__(
        self, inputs: list[Any], weights: list[Any], into: Mapping[int, Any] | None = None
    ) -> list[Any]:
        """Run on tensors in the order of `Program.inputs`: first those of scope "input", then
        `weights`: what `prepare` returned. Gives the outputs in the order of `Program.outputs`.

        `into`: tensors for outputs with memory of their own, by position, which lie as the program
        says. A target may store there; what it gives is then the same object.
        """

    def again(self, inputs: list[Any], weights: list[Any]) -> list[Any] | None:
        """The same, if that needs no call of an `Extern`, to which torch's modes would mean
        something (those that a CUDA graph holds are done); else None, and nothing is done."""

    def beside(
        self, others: Sequence[Any]
    ) -> Callable[[list[tuple[list[Any], list[Any], Mapping[int, Any]]]], list[list[Any]]]:
        """This program and others of its target, of which none reads what another one stores, as
        one function of the arguments of each; one native call, where that is the target's way."""

    def notes(self) -> list[str]:
        """What `explain` says of how it runs, beyond its kernels."""

    def prepare(self, weights: list[Any]) -> list[Any]:
        """Evaluate `Program.packs` for one weight set: the tensors of scope "weight" that the
        kernels read, some as they are, some packed."""


class Target(Protocol):
    """A table of what the machine can do, and six methods, none optional."""

    @property
    def caps(self) -> Caps: ...

    def available(self) -> str | None:
        """None, or why this target can't be used here and what to do about it."""

    def start(self) -> None:
        """A graph will be compiled that is not on disk: meanwhile load, in another thread, what
        only compiling takes."""

    def walk(self, plan: Any, measure: bool = False) -> None:
        """Choose the schedules of one fused kernel, a `schedule.plan.Plan`: register tiles by
        `schedule.tiling.schedule_kernel`, or whatever suits this machine; with `measure`, by timing
        what there is to choose from, where that is the machine's way."""

    def emit(self, program: Program) -> dict[str, str]:
        """Source text by file name; the same program gives the same text."""

    def build(self, sources: dict[str, str], program: Program) -> Executable:
        """Compile (cached) and load."""

    def describe(self) -> dict[str, str]:
        """What `doctor` prints: compiler, version, device."""


# torch.device.type -> "module:factory"; adding a target is its folder and a line here
_REGISTRY = {
    "cpu": "sol_dynamo.kernels.c.target:target",
    "cuda": "sol_dynamo.kernels.triton.target:target",
    "ve": "sol_dynamo.ve.target:target",
}
_loaded: dict[str, Target] = {}


def targets() -> tuple[str, ...]:
    return tuple(_REGISTRY)


def get_target(device_type: str) -> Target | None:
    """The target of a device type, loaded at its first use; None when there is none."""
    if device_type not in _REGISTRY:
        return None
    if device_type not in _loaded:
        module, factory = _REGISTRY[device_type].split(":")
        _loaded[device_type] = getattr(import_module(module), factory)()
    return _loaded[device_type]
