"""What is known while C is being written: names, the ranges of integers, facts, open functions.

A tile may be outlined as a function of its own. What it needs of the code around it then becomes
parameters, found here while its text is written: their arguments are written at the call. Knows
nothing of expressions, buffers or loop nests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...affine import FloorDiv, Index, Range
from .values import LANE


@dataclass
class Function:
    """A C function being written: the kernel's own, or an outlined tile."""

    params: dict[Hashable, tuple[str, str, str]] = field(default_factory=dict)  # type, name, arg
    inside: set[str] = field(default_factory=set)  # C variables bound within
    taken: frozenset[str] = frozenset()  # names of the function around it


class Scope:
    """The lines being written and everything that the text of an integer depends on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ranges: dict[str, Range] = {LANE: (0, 0)}
        self.facts: set[Index] = set()  # masks known to hold here
        self.bound: list[str] = []  # C variables in the order of their birth
        self.used: set[str] = set()  # C variables that the text names
        self.tiles: dict[str, str] = {}  # outlined functions: name -> text
        self.function = Function()
        self.outlining = False
        self._counter: dict[str, int] = {}

    # -- where lines go ------------------------------------------------------------------------

    @contextmanager
    def writing_to(self, lines: list[str]) -> Iterator[None]:
        """Lines go to another list."""
        outer, self.lines = self.lines, lines
        yield
        self.lines = outer

    @contextmanager
    def outlined(self) -> Iterator[None]:
        """What is written is a function of its own, named by its text: equal tiles share code."""
        outer, counter = self.function, self._counter
        self.function = Function(inside={LANE}, taken=frozenset(outer.inside))
        self._counter, self.outlining = {}, True
        body: list[str] = []
        with self.writing_to(body):
            yield
        params = list(self.function.params.values())
        self.function, self._counter, self.outlining = outer, counter, False
        signature = ", ".join(t + n for t, n, _ in params)
        text = f"({signature}) {{\n{indented(body)}\n}}\n"
        tile = "tile_" + hashlib.sha256(text.encode()).hexdigest()[:16]
        self.tiles[tile] = f"void {tile}{text}"
        self.lines.append(f"{tile}({', '.join(a for _, _, a in params)});")

    # -- names ---------------------------------------------------------------------------------

    def fresh(self, prefix: str) -> str:
        """A C name that nothing here has yet."""
        prefix = identifier(prefix)
        while True:
            n = self._counter.get(prefix, 0)
            self._counter[prefix] = n + 1
            name = f"{prefix}{n}" if not prefix[-1].isdigit() else f"{prefix}_{n}"
            if name not in self.function.taken:
                return name

    def bind(self, var: str, low: int, high: int) -> None:
        """A C variable is in scope from here on, with these bounds (inclusive)."""
        self.ranges[var] = (low, high)
        self.bound.append(var)
        self.function.inside.add(var)

    def parameter(self, key: Hashable, ctype: str, prefix: str, argument: Callable[[], str]) -> str:
        """The name of a tile's parameter; the first request for `key` makes it, with `argument`
        written for the function around the tile."""
        if key not in self.function.params:
            name, self.outlining = self.fresh(prefix), False
            self.function.params[key] = (ctype, name, argument())
            self.outlining = True
        return self.function.params[key][1]

    # -- integers ------------------------------------------------------------------------------

    def integer(self, index: Index) -> str:
        """C text of an index over C variables; inside a tile, each from outside is a parameter."""
        index = index.simplify(self.ranges)
        parts = []
        for atom, c in index.terms:
            if isinstance(atom, str):
                text = atom
                self.used.add(atom)
                if self.outlining and atom not in self.function.inside:
                    text = self._argument(Index.of(atom))
            else:
                whole, d = isinstance(atom, FloorDiv), atom.divisor
                # C rounds towards zero: a negative numerator is moved up by multiples of d
                up = max(0, -(atom.numerator.bounds(self.ranges)[0] // d))
                text = f"(({self.integer(atom.numerator + up * d)}) {'/' if whole else '%'} {d})"
                if whole and up:
                    text = f"({text} - {up})"
            parts.append(text if c == 1 else f"{text} * {c}")
        if index.const or not parts:
            parts.append(str(index.const))
        text = " + ".join(parts).replace("+ -", "- ")
        return text if len(parts) == 1 and "*" not in text and "-" not in text else f"({text})"

    def scalar(self, index: Index) -> str:
        """As `integer`; inside a tile, all that lies outside together is one parameter."""
        if not self.outlining:
            return self.integer(index)
        outer = self.outer_part(index) + index.const
        if outer.is_const:
            return self.integer(index)
        name, inner = self._argument(outer), index - outer
        return name if inner == Index() else f"({name} + {self.integer(inner)})"

    def count(self, n: int) -> str:
        """C text of a number of iterations: inside a tile a parameter, so that tiles that differ
        in it alone are one."""
        if not self.outlining:
            return str(n)
        return self.parameter(("trips", n), "const long ", "n", lambda: str(n))

    def only_outside(self, ctype: str, text: str) -> str:
        """C text that only the kernel's own function can use, as a parameter of a tile."""
        if not self.outlining:
            return text
        return self.parameter(("text", text), ctype, "e", lambda: text)

    def outer_part(self, index: Index) -> Index:
        """The terms of an index that do not depend on what is bound inside the open function."""
        inside = self.function.inside
        return Index(tuple((a, c) for a, c in index.terms if not (Index({a: 1}).symbols & inside)))

    def _argument(self, outer: Index) -> str:
        """An integer known outside the tile that is being written, as its parameter."""
        return self.parameter(("long", outer), "const long ", "n", lambda: self.integer(outer))

    # -- masks ---------------------------------------------------------------------------------

    def holds(self, mask: Index) -> bool:
        """Whether a mask (index >= 0) is known to hold here."""
        return mask in self.facts or mask.bounds(self.ranges)[0] >= 0

    def fails(self, mask: Index) -> bool:
        """Whether a mask is known to fail here."""
        return mask.bounds(self.ranges)[1] < 0

    def open_masks(self, masks: Iterable[Index]) -> tuple[Index, ...]:
        """The masks that only the running program decides."""
        simple = (m.simplify(self.ranges) for m in masks)
        return tuple(m for m in simple if not self.holds(m))

    def tests(self, masks: Iterable[Index]) -> tuple[str, ...]:
        """C conditions of the masks that are not known to hold."""
        return tuple(f"{self.scalar(m)} >= 0" for m in masks if not self.holds(m))


def identifier(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)


def indented(lines: list[str]) -> str:
    return "\n".join("  " + line for line in lines)
