"""Elements of buffers in vector registers: loads, stores, gathers and masks.

Lanes that lie evenly apart are loaded with a stride, others are gathered; masks that differ from
lane to lane are mask registers. Elements of one or two bytes, which the machine cannot load, are
found in their words (vectors.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ..affine import Index
from ..ir import DTYPES, HALVES, Buffer, Load, Store, read, show
from ..kernels.c.addresses import stored_literal
from ..kernels.c.memory import Memory, Point
from ..kernels.c.values import LANE, EmitError, Value, literal
from .values import FrugalExpressions, PlainExpressions, VectorExpressions

_LOADS = {"f32": "vldu", "i32": "vldlsx", "u32": "vldlzx"}
_GATHERS = {"f32": "vgtu", "i32": "vgtlsx", "u32": "vgtlzx"}
_STORES = {4: "l", 8: ""}  # of integers, by bytes


class PlainMemory(Memory):
    """Elements one by one."""

    expressions_type = PlainExpressions


class VectorMemory(Memory):
    """Elements of buffers in vector registers."""

    expressions_type = VectorExpressions
    expr: VectorExpressions

    @cached_property
    def _read(self) -> frozenset[str]:
        """The memory that the kernel reads."""
        return frozenset(self.program.base(b).name for b in read(self.kernel))

    # -- loads ---------------------------------------------------------------------------------

    def _load(self, load: Load, lanes: int) -> Value:
        buffer = self.program.buffers[load.buffer]
        if lanes == 1 or self.is_register(load.buffer):
            return super()._load(load, lanes)
        address = self._address(buffer, load.index)
        by_lane = any(self.expr.varies(m) for m in load.mask)
        if not self.expr.varies(address) and not by_lane:
            return super()._load(load, lanes)
        if self._is_even(address) and not by_lane and DTYPES[buffer.dtype][0] >= 4:
            return self._strided(buffer, address, load, lanes)
        return self._gather(buffer, address, load, lanes)

    def _is_even(self, address: Index) -> bool:
        """Whether lanes lie evenly apart."""
        others = self.expr.vectors.keys()
        return address.is_affine_in(LANE) and others.isdisjoint(address.symbols)

    def _strided(self, buffer: Buffer, address: Index, load: Load, lanes: int) -> Value:
        """Lanes that are all read or none: from one element of the padding value, then."""
        step = address.coefficient(LANE) * DTYPES[buffer.dtype][0]
        place = self.addresses.pointer(buffer, address.subst({LANE: 0}))
        stride = str(step)
        guard = self.scope.tests(load.mask)
        if guard:
            inside = self.scope.fresh("inside")
            self.expr.write(f"const long {inside} = {' && '.join(guard)};")
            page = self.addresses.page(buffer.dtype, load.other)
            place, stride = f"({inside} ? {place} : {page})", f"({inside} ? {step} : 0)"
        op = _LOADS.get(buffer.dtype, "vld")
        text = f"_vel_{op}_vssl({stride}, (void *)({place}), {lanes})"
        return self.expr.name(Value(text, buffer.dtype, lanes), "x")

    def _gather(self, buffer: Buffer, address: Index, load: Load, lanes: int) -> Value:
        """Lanes that lie anyhow, where their masks hold."""
        expr, dtype, small = self.expr, buffer.dtype, DTYPES[buffer.dtype][0] < 4
        masks = [m for m in load.mask if not self.scope.holds(m)]
        mask = expr.mask(masks, lanes) if masks else ""
        at = self._places(buffer, address, lanes)
        if small:
            signed = "extended" if dtype in ("i8", "i16") else "unsigned"
            word = f"sol_gather_small({at}, {lanes})"
            if mask:
                word = f"sol_gather_small_masked({at}, {mask}, {lanes})"
            f = f"sol_{signed}({word}, {8 * DTYPES[dtype][0]}, {lanes})"
        else:
            op = _GATHERS.get(dtype, "vgt")
            tail = f"{at}, 0, 0, {lanes})"
            if mask:
                padding = literal(0 if load.other is None else load.other, dtype)
                tail = f"{at}, 0, 0, {mask}, {expr.splat_text(padding, dtype, lanes)}, {lanes})"
            f = f"_vel_{op}_vvss{'mv' if mask else ''}l({tail}"
        raw = {"bool": "u8"}.get(dtype, "u16" if dtype in HALVES else dtype)
        other = "0" if load.other is None else stored_literal(load.other, dtype)
        if small and mask and other != "0":  # that of -0.0 is none
            f = f"_vel_vmrg_vvvml({expr.splat_text(other, raw, lanes)}, {f}, {mask}, {lanes})"
        v = expr.name(Value(f, raw, lanes), "x")
        if dtype in HALVES:
            return expr.widen(v, dtype)
        return expr.cast(v, "bool") if dtype == "bool" else v

    def _places(self, buffer: Buffer, address: Index, lanes: int) -> str:
        """The address of each lane, in bytes."""
        size = DTYPES[buffer.dtype][0]
        if not self.expr.varies(address):
            place = self.addresses.pointer(buffer, address)
            return f"_vel_vbrdl_vsl((long)({place}), {lanes})"
        address = address.simplify(self.scope.ranges)
        apart = Index(tuple((a, c) for a, c in address.terms if self.expr.varies(Index({a: 1}))))
        place = self.addresses.pointer(buffer, address - apart)
        v = self.expr.vector_index(apart * size, lanes)
        text = f"_vel_vaddsl_vsvl((long)({place}), {v.text}, {lanes})"
        return self.expr.name(Value(text, "i64", lanes), "at").text

    # -- stores --------------------------------------------------------------------------------

    def guarded_store(
        self, store: Store, index: Point, new: Sequence[Value], masks: Sequence[Index], lanes: int
    ) -> None:
        masks = [m for m in masks if not self.scope.holds(m)]
        if lanes == 1 or not any(self.expr.varies(m) for m in masks):
            super().guarded_store(store, index, new, masks, lanes)
            return
        mask = self.expr.mask(masks, lanes)
        for b, v in zip(store.buffers, new, strict=True):
            if self.is_register(b):
                raise EmitError(f"a masked store to registers: {show(store)}\n{show(self.kernel)}")
            self._store_vector(self.program.buffers[b], index, v, lanes, mask)

    def store(self, name: str, index: Point, v: Value, lanes: int) -> None:
        buffer = self.program.buffers[name]
        if lanes == 1 or self.is_register(name):
            super().store(name, index, v, lanes)
        elif self.expr.varies(self._address(buffer, index)):
            self._store_vector(buffer, index, v, lanes, "")
        elif v.lanes == 1:
            super().store(name, index, v, 1)
        else:
            raise EmitError(f"lanes are stored to one element of {name}\n{show(self.kernel)}")

    def _store_vector(self, buffer: Buffer, index: Point, v: Value, lanes: int, mask: str) -> None:
        expr, dtype, size = self.expr, buffer.dtype, DTYPES[buffer.dtype][0]
        if dtype == "bool":
            v = expr.stored_bool(expr.splat(v, lanes))
        elif dtype in HALVES:
            v = expr.narrow(expr.splat(v, lanes), dtype)
        else:
            v = expr.splat(expr.cast(v, dtype), lanes)
        address = self._address(buffer, index)
        if not expr.varies(address):
            raise EmitError(f"masked lanes are stored to one element of {buffer.name}")
        even = self._is_even(address)
        step = address.coefficient(LANE) if even else 0
        if size < 4:
            if even and not mask:
                place = self.addresses.pointer(buffer, address.subst({LANE: 0}), True)
                expr.write(
                    f"sol_store_u{8 * size}({v.text}, (u{8 * size} *)({place}), {step}, {lanes});"
                )
                return
            at = self._places(buffer, address, lanes)
            ones = f"_vel_vbrdl_vsl(1, {lanes})"
            chosen = (
                f"_vel_vmrg_vvvml(_vel_vbrdl_vsl(0, {lanes}), {ones}, {mask}, {lanes})"
                if mask
                else ones
            )
            expr.write(f"sol_scatter_u{8 * size}({v.text}, {at}, {chosen}, {lanes});")
            return
        kind = "u" if dtype == "f32" else _STORES[size]
        # loads need not wait for what this kernel never reads; the end of a step does (steps.c)
        ot = "" if self.program.base(buffer.name).name in self._read else "ot"
        m, last = ("m", f"{mask}, {lanes}") if mask else ("", str(lanes))
        if even:
            place = self.addresses.pointer(buffer, address.subst({LANE: 0}), True)
            expr.write(
                f"_vel_vst{kind}{ot}_vss{m}l({v.text}, {step * size}, (void *)({place}), {last});"
            )
            return
        at = self._places(buffer, address, lanes)
        expr.write(f"_vel_vsc{kind}{ot}_vvss{m}l({v.text}, {at}, 0, 0, {last});")


class FrugalMemory(VectorMemory):
    """The same with few registers."""

    expressions_type = FrugalExpressions
