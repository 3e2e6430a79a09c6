"""Quasi-affine indices: sums of symbol * size, with floor-division and modulo by sizes.

Every address, mask and loop bound of the loop IR is an `Index`. Sizes are Python ints wherever the
shape is static, sympy expressions where it is symbolic; nothing here needs sympy for the former.
An `Index` is interned, so equality is identity. The constructors keep one normal form, in which
`(m // 7) * 7 + m % 7` is `m`: fusing axes and re-viewing buffers needs no other simplifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import gcd
from typing import Any
from weakref import WeakValueDictionary

Size = Any  # int, or a sympy.Expr where a dimension is symbolic
Atom = Any  # str (a symbol), or the interned Index nodes FloorDiv and Mod
Range = tuple[int, int]  # inclusive


class Interned:
    """Immutable nodes that exist once: equal construction gives the identical object."""

    __slots__ = ("__weakref__",)
    _pool: WeakValueDictionary = WeakValueDictionary()

    @classmethod
    def _intern(cls, key: tuple, **fields: Any):
        key = (cls, *key)
        node = Interned._pool.get(key)
        if node is None:
            node = object.__new__(cls)
            for name, value in fields.items():
                object.__setattr__(node, name, value)
            Interned._pool[key] = node
        return node

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


class FloorDiv(Interned):
    """floor(numerator / divisor), divisor > 0."""

    __slots__ = ("numerator", "divisor")
    numerator: Index
    divisor: Size

    def __new__(cls, numerator: Index, divisor: Size):
        return cls._intern((numerator, divisor), numerator=numerator, divisor=divisor)

    def __reduce__(self):
        return FloorDiv, (self.numerator, self.divisor)

    def __repr__(self) -> str:
        return f"({_operand(self.numerator)}//{self.divisor})"


class Mod(Interned):
    """numerator - divisor * floor(numerator / divisor), divisor > 0."""

    __slots__ = ("numerator", "divisor")
    numerator: Index
    divisor: Size

    def __new__(cls, numerator: Index, divisor: Size):
        return cls._intern((numerator, divisor), numerator=numerator, divisor=divisor)

    def __reduce__(self):
        return Mod, (self.numerator, self.divisor)

    def __repr__(self) -> str:
        return f"({_operand(self.numerator)}%{self.divisor})"


class Index(Interned):
    """const + sum(coefficient * atom), atoms in a stable order, no zero coefficient."""

    __slots__ = ("terms", "const", "_symbols")
    terms: tuple[tuple[Atom, Size], ...]
    const: Size
    _symbols: frozenset[str] | None

    def __new__(
        cls, terms: Mapping[Atom, Size] | Iterable[tuple[Atom, Size]] = (), const: Size = 0
    ):
        summed: dict[Atom, Size] = {}
        for atom, coefficient in terms.items() if hasattr(terms, "items") else terms:
            summed[atom] = summed[atom] + coefficient if atom in summed else coefficient
        divided = False
        for atom, coefficient in tuple(summed.items()):
            if coefficient == 0:
                del summed[atom]
            elif type(atom) is Mod:
                divided = True
        if divided:
            const = const + _merge_div_mod(summed)
        ordered = tuple(summed.items())
        if len(ordered) > 1:
            ordered = tuple(sorted(ordered, key=_term_key))
        return cls._normal(ordered, const)

    @classmethod
    def _normal(cls, terms: tuple[tuple[Atom, Size], ...], const: Size) -> Index:
        """The index of terms that are in normal form already."""
        key = (cls, terms, const)
        node = Interned._pool.get(key)
        if node is None:
            node = object.__new__(cls)
            object.__setattr__(node, "terms", terms)
            object.__setattr__(node, "const", const)
            object.__setattr__(node, "_symbols", None)
            Interned._pool[key] = node
        return node

    def __reduce__(self):
        return Index, (self.terms, self.const)

    @staticmethod
    def of(value: Index | str | Size) -> Index:
        """An index from a symbol's name, a size or an index."""
        if isinstance(value, Index):
            return value
        return _symbol(value) if isinstance(value, str) else Index._normal((), value)

    def __add__(self, other: Index | str | Size) -> Index:
        other = Index.of(other)
        if not other.terms:
            return Index._normal(self.terms, self.const + other.const) if other.const else self
        if not self.terms:
            return Index._normal(other.terms, self.const + other.const)
        return Index((*self.terms, *other.terms), self.const + other.const)

    __radd__ = __add__

    def __neg__(self) -> Index:
        return self * -1

    def __sub__(self, other: Index | str | Size) -> Index:
        return self + Index.of(other) * -1

    def __rsub__(self, other: Index | str | Size) -> Index:
        return Index.of(other) - self

    def __mul__(self, factor: Size) -> Index:
        if isinstance(factor, Index):
            if factor.terms and self.terms:
                raise TypeError(f"not affine: ({self}) * ({factor})")
            return factor * self.const if not self.terms else self * factor.const
        if factor == 1:
            return self
        if factor == 0:
            return Index._normal((), 0)
        return Index._normal(tuple([(a, c * factor) for a, c in self.terms]), self.const * factor)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: Size) -> Index:
        whole, rest = self._split(divisor)
        if not rest.terms and isinstance(rest.const, int) and isinstance(divisor, int):
            return whole + rest.const // divisor
        if divisor == 1:
            return whole + rest
        if (g := _common(rest, divisor)) > 1:  # (g * y + r) // (g * d) ==> y // d, with 0 <= r < g
            return whole + rest._over(g) // (divisor // g)
        if len(rest.terms) == 1 and rest.const == 0 and rest.terms[0][1] == 1:
            atom = rest.terms[0][0]
            if isinstance(atom, FloorDiv):  # (x // a) // b ==> x // (a * b)
                return whole + Index({FloorDiv(atom.numerator, atom.divisor * divisor): 1})
            if isinstance(atom, Mod) and _divides(divisor, atom.divisor):
                # (x % (a * b)) // b ==> (x // b) % a
                return whole + (atom.numerator // divisor) % (atom.divisor // divisor)
        return whole + Index({FloorDiv(rest, divisor): 1})

    def __mod__(self, divisor: Size) -> Index:
        _, rest = self._split(divisor)
        if divisor == 1:
            return Index()
        if not rest.terms and isinstance(rest.const, int) and isinstance(divisor, int):
            return Index((), rest.const % divisor)
        if (g := _common(rest, divisor)) > 1:
            return rest._over(g) % (divisor // g) * g + rest.const % g
        if len(rest.terms) == 1 and rest.const == 0 and rest.terms[0][1] == 1:
            atom = rest.terms[0][0]
            if isinstance(atom, Mod) and _divides(divisor, atom.divisor):
                return atom.numerator % divisor
        return Index({Mod(rest, divisor): 1})

    def _split(self, divisor: Size) -> tuple[Index, Index]:
        """self == divisor * whole + rest, with every multiple of the divisor in `whole`."""
        whole, rest = [], []
        for atom, c in self.terms:
            if _divides(divisor, c):
                whole.append((atom, c // divisor))
            else:
                rest.append((atom, c))
        q = self.const // divisor if _is_int(self.const, divisor) else 0
        return Index(whole, q), Index(rest, self.const - q * divisor)

    def _over(self, g: int) -> Index:
        """self // g, where g divides every coefficient."""
        return Index([(a, c // g) for a, c in self.terms], self.const // g)

    def __repr__(self) -> str:
        parts = [f"{a}" if c == 1 else f"-{a}" if c == -1 else f"{c}*{a}" for a, c in self.terms]
        if self.const != 0 or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")

    # -- questions ---------------------------------------------------------------------------

    @property
    def symbols(self) -> frozenset[str]:
        found = self._symbols
        if found is None:
            found = frozenset().union(*map(_atom_symbols, (a for a, _ in self.terms)))
            object.__setattr__(self, "_symbols", found)
        return found

    @property
    def is_const(self) -> bool:
        return not self.terms

    def coefficient(self, symbol: str) -> Size:
        """The factor of `symbol` outside any division (0 when absent)."""
        for atom, c in self.terms:
            if atom == symbol:
                return c
        return 0

    def is_affine_in(self, symbol: str) -> bool:
        """Whether `symbol` occurs outside divisions and modulos only."""
        return all(isinstance(a, str) or symbol not in _atom_symbols(a) for a, _ in self.terms)

    def subst(self, values: Mapping[str, Index | str | Size]) -> Index:
        """Replace symbols; those that `values` lacks stay."""
        if self.symbols.isdisjoint(values):
            return self
        terms: list[tuple[Atom, Size]] = []
        const = self.const
        for atom, c in self.terms:
            if type(atom) is str:
                if atom not in values:
                    terms.append((atom, c))
                    continue
                new = Index.of(values[atom])
            elif type(atom) is FloorDiv:
                new = atom.numerator.subst(values) // atom.divisor
            else:
                new = atom.numerator.subst(values) % atom.divisor
            terms += [(a, d * c) for a, d in new.terms]
            const = const + new.const * c
        return Index(terms, const)

    def bounds(self, ranges: Mapping[str, Range]) -> Range:
        """Least and greatest value (inclusive) while each symbol stays in its range."""
        lo = hi = self.const
        for atom, c in self.terms:
            a, b = _atom_bounds(atom, ranges)
            lo, hi = (lo + c * a, hi + c * b) if c > 0 else (lo + c * b, hi + c * a)
        return lo, hi

    def simplify(self, ranges: Mapping[str, Range]) -> Index:
        """Drop divisions and modulos that the ranges make trivial."""
        for atom, _ in self.terms:
            if type(atom) is not str:
                break
        else:
            return self
        terms: list[tuple[Atom, Size]] = []
        const = self.const
        for atom, c in self.terms:
            if type(atom) is str:
                terms.append((atom, c))
                continue
            numerator = atom.numerator.simplify(ranges)
            new = _divided(numerator, atom.divisor, isinstance(atom, FloorDiv), ranges)
            terms += [(a, d * c) for a, d in new.terms]
            const = const + new.const * c
        return Index(terms, const)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The number (or numpy array) for given values of all symbols."""
        total = self.const
        for atom, c in self.terms:
            if isinstance(atom, str):
                v = values[atom]
            else:
                n = atom.numerator.evaluate(values)
                v = n // atom.divisor if isinstance(atom, FloorDiv) else n % atom.divisor
            total = total + v * c
        return total


@lru_cache(maxsize=4096)
def _symbol(name: str) -> Index:
    return Index._normal(((name, 1),), 0)


def _term_key(term: tuple[Atom, Size]) -> tuple:
    return _atom_key(term[0])


def _divided(x: Index, divisor: Size, quotient: bool, ranges: Mapping[str, Range]) -> Index:
    """x // divisor (or x % divisor), using what the ranges tell.

    With x = g * y + r, 0 <= r < g and g | divisor:  x // divisor == y // (divisor / g)  and
    x % divisor == g * (y % (divisor / g)) + r.
    """
    lo, hi = x.bounds(ranges)
    if lo // divisor == hi // divisor:
        return Index.of(lo // divisor) if quotient else x - lo // divisor * divisor
    for g in sorted({abs(c) for _, c in x.terms if _is_int(c, divisor)}, reverse=True):
        if g <= 1 or divisor % g:
            continue
        y, r = x._split(g)
        low, high = r.bounds(ranges)
        if low >= 0 and high < g and r.terms:
            y = y.simplify(ranges)
            rest = divisor // g
            return y // rest if quotient else (y % rest) * g + r
    return x // divisor if quotient else x % divisor


def _operand(x: Index) -> str:
    """Text of an index that stands in a division."""
    return str(x) if len(x.terms) == 1 and x.const == 0 and x.terms[0][1] == 1 else f"({x})"


def _is_int(*values: Size) -> bool:
    return all(isinstance(v, int) for v in values)


def _common(x: Index, divisor: Size) -> int:
    """The greatest common divisor of a divisor and of all coefficients."""
    sizes = [divisor, *(c for _, c in x.terms)]
    return gcd(*sizes) if _is_int(*sizes, x.const) else 1


def _divides(divisor: Size, value: Size) -> bool:
    if _is_int(divisor, value):
        return value % divisor == 0
    return value == divisor  # symbolic: only the certain case


def _atom_symbols(atom: Atom) -> frozenset[str]:
    return frozenset((atom,)) if isinstance(atom, str) else atom.numerator.symbols


@lru_cache(maxsize=1 << 16)
def _atom_key(atom: Atom) -> tuple[int, str]:
    return (0, atom) if isinstance(atom, str) else (1, repr(atom))


def _atom_bounds(atom: Atom, ranges: Mapping[str, Range]) -> Range:
    if isinstance(atom, str):
        return ranges[atom]
    lo, hi = atom.numerator.bounds(ranges)
    d = atom.divisor
    if isinstance(atom, FloorDiv):
        return lo // d, hi // d
    return (lo % d, hi % d) if lo // d == hi // d else (0, d - 1)


def _merge_div_mod(terms: dict[Atom, Size]) -> Size:
    """c * d * (x // d) + c * (x % d) ==> c * x, repeatedly, in place; returns c * x's constant."""
    const: Size = 0
    mods = [a for a in terms if isinstance(a, Mod)]
    while mods:
        mod = mods.pop()
        if mod not in terms:
            continue
        c, x, d = terms[mod], mod.numerator, mod.divisor
        quotient = x // d
        if len(quotient.terms) != 1 or quotient.const != 0 or quotient.terms[0][1] != 1:
            continue
        div = quotient.terms[0][0]
        if terms.get(div) != c * d:
            continue
        del terms[mod], terms[div]
        const = const + x.const * c
        for atom, k in x.terms:
            terms[atom] = terms.get(atom, 0) + k * c
            if terms[atom] == 0:
                del terms[atom]
        mods = [a for a in terms if isinstance(a, Mod)]  # x may complete any of them
    return const
