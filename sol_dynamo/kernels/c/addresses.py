"""Where elements are, as C text: base pointers, pointer streams, pages of padding, prefetches.

Within the innermost loop every address moves by a constant step, so that it becomes one pointer
per stream with constant offsets. A guarded stream reads from a page of the padding value where its
guard fails. While a block of weights is used, its readers fetch the next one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ...affine import Index
from ...ir import DTYPES, HALVES, Buffer, Kernel, Program
from ..constants import bits
from .bounds import Bounds, Box
from .scope import Scope
from .values import c_type, literal

PAGE = 64  # elements beyond its first that one access may read: the widest vector of the smallest
ZERO = Index()
_OFFSET = re.compile(r"<(\w+):(-?\d+)>")


@dataclass
class Pointer:
    """An address stream of the innermost loop: base + offset, moved by `step` each iteration."""

    name: str
    base: str
    outer: Index  # over C variables; where the stream starts
    guard: tuple[str, ...]  # C conditions; where one fails, the page of `other` is read
    other: float | int | bool | None
    step: int
    dtype: str
    writes: bool
    buffer: str
    included: Index  # what of the address `base` includes
    low: int  # the least and one beyond the greatest offset used
    high: int


@dataclass
class Innermost:
    """The innermost loop, while its body is written."""

    var: str
    mark: int  # how many variables were bound before it
    streams: list[Pointer] = field(default_factory=list)


@dataclass(frozen=True)
class Ahead:
    """A block of weights is in use; the next one is fetched in as many parts as tiles use this."""

    var: str  # the loop over blocks
    start: Box  # the box of the whole block's work
    part: Index = ZERO  # the number of the tile being written
    parts: int = 1


class Addresses:
    """Pointers to the elements of one kernel's buffers."""

    def __init__(
        self, kernel: Kernel, program: Program, scope: Scope, bounds: Bounds, memory: dict[str, str]
    ):
        """`memory`: base buffer -> C expression of its first byte."""
        self.kernel, self.program, self.scope, self.bounds = kernel, program, scope, bounds
        self.memory = memory
        self.scratch: dict[str, int] = {}  # local buffer -> its place in the thread's memory
        self.scratch_size = 0
        self.pages: dict[tuple[str, str], int] = {}  # (dtype, literal) -> elements
        self.ahead: Ahead | None = None
        self._loop: Innermost | None = None

    @property
    def streaming(self) -> bool:
        """Whether the innermost loop is being written."""
        return self._loop is not None

    def pointer(
        self,
        buffer: Buffer,
        address: Index,
        writes: bool = False,
        guard: tuple[str, ...] = (),
        other: float | int | bool | None = None,
    ) -> str:
        """C text of a pointer to an element, or to a page of `other` where the guard fails."""
        base, included, inner = self._base(buffer, address)
        loop = self._loop
        if loop is not None and self._moves(loop, inner, guard):
            start = Index(inner.terms)
            for p in loop.streams:
                if (p.base, p.outer, p.guard, p.writes) == (base, start, guard, writes) and (
                    not guard or p.other == other
                ):
                    break
            else:
                p = Pointer(
                    self.scope.fresh("q"), base, start, guard, other, inner.coefficient(loop.var),
                    buffer.dtype, writes, buffer.name, included, inner.const, 0,
                )  # fmt: skip
                loop.streams.append(p)
            p.low, p.high = min(p.low, inner.const), max(p.high, inner.const + PAGE)
            offset = f"<{p.name}:{inner.const}>" if guard else str(inner.const)
            return f"({p.name} + {offset})"
        text = f"({base} + {self.scope.integer(inner)})" if inner != Index() else base
        if guard:
            return f"({' && '.join(guard)} ? {text} : {self._page(buffer.dtype, other, PAGE)})"
        return text

    def _moves(self, loop: Innermost, address: Index, guard: tuple[str, ...]) -> bool:
        """Whether an address is a stream of the innermost loop: known before it but for a step."""
        born = self.scope.bound[loop.mark :]  # an indirect index is not known outside
        return (
            address.is_affine_in(loop.var)
            and not any(loop.var in g for g in guard)
            and address.symbols.isdisjoint(born)
            and not any(b in g for b in born for g in guard)
        )

    def _base(self, buffer: Buffer, address: Index) -> tuple[str, Index, Index]:
        """The C pointer, what of the address it includes, and what is left."""
        scope, memory = self.scope, self.program.base(buffer.name)
        ctype = storage(memory.dtype)
        if memory.scope == "local":
            text = f"SOL_SCRATCH({ctype}, {self._scratch_of(memory)})"
        else:
            text = self.memory[memory.name]
        if not scope.outlining:
            return f"(({ctype} *){text})", Index(), address
        outer = scope.outer_part(address)
        key = ("pointer", buffer.name, outer)
        outer, inner = outer + buffer.offset, address - outer - buffer.offset
        name = scope.parameter(
            key, f"{ctype} *", "p", lambda: f"(({ctype} *){text}) + {scope.integer(outer)}"
        )
        return name, outer, inner

    def _scratch_of(self, local: Buffer) -> int:
        """The place of a local buffer in the thread's memory."""
        if local.name not in self.scratch:
            size = DTYPES[local.dtype][0]
            shape = self._held(local)
            span = 1 + sum((n - 1) * s for n, s in zip(shape, local.strides, strict=True))
            self.scratch[local.name] = self.scratch_size
            self.scratch_size += (span * size + 127) // 64 * 64
        return self.scratch[local.name]

    def _held(self, local: Buffer) -> tuple[int, ...]:
        """How much of a local buffer is held at a time: all, or `fold` rows of a dimension."""
        shape = list(local.shape)
        for j, s in enumerate(self.kernel.schedules):
            if local.name in s.fold:
                ring = self.bounds.rings.get(j)
                shape[ring.dim if ring is not None else 0] = s.fold[local.name]
        return tuple(shape)

    def page(self, dtype: str, other: float | int | bool | None) -> str:
        """An element of the padding value."""
        return self._page(dtype, other, 1)

    def _page(self, dtype: str, other: float | int | bool | None, elements: int) -> str:
        """Memory full of one value, for loads whose mask fails."""
        key = (dtype, stored_literal(0 if other is None else other, dtype))
        self.pages[key] = max(self.pages.get(key, 0), elements + PAGE)
        return page_name(*key)

    # -- the innermost loop --------------------------------------------------------------------

    @contextmanager
    def streams(self, var: str, start: str, stop: str) -> Iterator[None]:
        """What is written is the body of the innermost loop, over `var` from start to stop."""
        scope = self.scope
        body: list[str] = []
        self._loop = loop = Innermost(var, len(scope.bound))
        with scope.writing_to(body):
            yield
        self._loop, streams = None, loop.streams
        scope.lines.append("{")
        for p in streams:
            scope.lines.append(self._start_of(p, var, start))
        for p in streams:
            body += self._fetch_ahead(p, var)
        counted = var not in scope.used
        scope.lines.append("#pragma GCC unroll 1")
        if counted:
            left = f"{stop} - {start}" if start != "0" else stop
            scope.lines.append(f"for (long n = {left}; n > 0; n--) {{")
        else:
            scope.lines.append(f"for (long {var} = {start}; {var} < {stop}; {var}++) {{")
        lows = {p.name: p.low for p in streams}
        for line in body:  # a guarded stream starts at its lowest element
            line = _OFFSET.sub(lambda m: str(int(m[2]) - lows[m[1]]), line)
            scope.lines.append("  " + line)
        for p in streams:
            if p.step:
                step = f"{p.name}_step" if p.guard else str(p.step)
                scope.lines.append(f"  {p.name} += {step}; SOL_OPAQUE({p.name});")
        scope.lines.append("}}")

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is written stands outside the innermost loop after all."""
        loop, self._loop = self._loop, None
        yield
        self._loop = loop

    def _start_of(self, p: Pointer, var: str, start: str) -> str:
        """C that declares a stream where the loop's first iteration needs it."""
        low = p.low if p.guard else 0
        ctype = c_type(storage(p.dtype))
        address = self.scope.integer(p.outer.subst({var: 0}) + low)
        moved = f" + ({start}) * {p.step}L" if start != "0" and p.step else ""
        const = "" if p.writes else "const "
        if not p.guard:
            return f"{const}{ctype} *{p.name} = {p.base} + {address}{moved};"
        page = self._page(p.dtype, p.other, p.high - low + 1)
        test = " && ".join(p.guard)
        return (
            f"const long {p.name}_in = {test}, {p.name}_step = {p.name}_in ? {p.step} : 0;\n  "
            f"{const}{ctype} *{p.name} = {p.name}_in ? {p.base} + {address}{moved} : {page};"
        )

    # -- the next block of weights -------------------------------------------------------------

    @contextmanager
    def fetching(self, ahead: Ahead | None) -> Iterator[None]:
        """What is written uses a block of weights, or this part of one."""
        outer, self.ahead = self.ahead, ahead
        yield
        self.ahead = outer

    def part(self, k: int, box: Box) -> Ahead | None:
        """Which of the tiles of a block of weights this box of nest k is."""
        ahead, schedule = self.ahead, self.kernel.schedules[k]
        if ahead is None:
            return None
        order = schedule.order
        inside = order[order.index(schedule.ahead) + 1 : order.index(schedule.outline) + 1]
        steps = dict(self.bounds.step(k, loop) for loop in inside)  # of each axis the finest
        part, parts = Index(), 1
        for axis, step in steps.items():
            first, extent = ahead.start[axis]
            trips = -(-extent // step)
            part = part * trips + (box[axis][0] - first) // step
            parts *= trips
        if parts == 1:
            return None
        return replace(ahead, part=part.simplify(self.scope.ranges), parts=parts)

    def _fetch_ahead(self, p: Pointer, var: str) -> list[str]:
        """Statements of a loop over weights that fetch its share of the next block into L2."""
        scope, ahead = self.scope, self.ahead
        if ahead is None or not scope.outlining or p.guard or p.writes or not p.step:
            return []
        block, memory = p.included.coefficient(ahead.var), self.program.base(p.buffer)
        if not block or memory.scope != "weight":
            return []
        size, parts = DTYPES[p.dtype][0], ahead.parts
        key = ("ahead", p.buffer, p.included)
        next_part = p.included + block + ahead.part * (block // parts)
        base = f"(({storage(p.dtype)} *){self.memory[memory.name]})"
        first = scope.parameter(
            key, "const char *", "f", lambda: f"(char *)({base} + {scope.integer(next_part)})"
        )
        step = max(1, p.step * size // parts)
        count = scope.parameter((*key, "parts"), "const long ", "n", lambda: str(parts))
        moved = scope.parameter((*key, "step"), "const long ", "n", lambda: str(step))
        f = scope.fresh("f")
        offset = scope.integer(p.outer.subst({var: 0}) * size)
        scope.lines.append(f"const char *{f} = {first} + {offset} / {count};")
        return [f"__builtin_prefetch({f}, 0, 2); {f} += {moved};"]


def storage(dtype: str) -> str:
    """The C type in memory."""
    return {"bool": "u8", "f16": "u16", "bf16": "u16"}.get(dtype, dtype)


def stored_literal(value: float | int | bool, dtype: str) -> str:
    """A C constant as it is in memory."""
    return str(bits(value, dtype)) if dtype in HALVES else literal(value, dtype)


def page_name(dtype: str, text: str) -> str:
    """The C array that is full of one value."""
    digest = hashlib.sha256(f"{dtype} {text}".encode()).hexdigest()[:8]
    return f"sol_page_{digest}"
