"""The options of the compiler: one frozen record, from SOL_* variables and torch.compile(options=).

Every field is read somewhere; an unknown name raises with the nearest valid one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class Config:
    strict: bool = False  # SOL_STRICT: raise where else a region would run on ATen
    check: bool = False  # SOL_CHECK: verify graph and program after every pass
    dump: str = ""  # SOL_DUMP: a folder for every stage as text
    fuel: int = -1  # SOL_FUEL: at most so many rewrites, to bisect a wrong one (-1: no limit)
    fallback_random: bool = False  # SOL_FALLBACK_RANDOM: eager's random numbers, from ATen
    sizes: int = 8  # SOL_SIZES: programs of a graph with symbolic sizes, one for each of so many
    autotune: bool = False  # SOL_AUTOTUNE: choose by timing kernels, where a target can
    weight_sets: int = 8  # SOL_WEIGHT_SETS: sets of weights kept prepared per graph

    @property
    def debugs(self) -> bool:
        """Whether somebody looks at the stages of compiling: all of them are then gone through."""
        return self.strict or self.check or bool(self.dump) or self.fuel >= 0


def _parse(kind: Any, text: str) -> Any:
    if kind in (bool, "bool"):
        return text.lower() not in ("", "0", "false", "no", "off")
    return int(text) if kind in (int, "int") else text


def config(**options: Any) -> Config:
    """The options from the environment, then those given.

    Errors: `ValueError` for a name that does not exist or a value of the wrong type.
    """
    known = {f.name: f.type for f in fields(Config)}
    values: dict[str, Any] = {}
    for name, kind in known.items():
        text = os.environ.get(f"SOL_{name.upper()}")
        if text is not None:
            values[name] = _parse(kind, text)
    for name, value in options.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown option {name!r}{hint} Valid: {', '.join(known)}")
        expected = {"bool": bool, "int": int, "str": str}[str(known[name])]
        if not isinstance(value, expected):
            raise ValueError(f"option {name} takes {expected.__name__}, not {value!r}")
        values[name] = value
    return replace(Config(), **values)


def check_mode(mode: str | None) -> None:
    if mode is not None and mode not in MODES:
        near = get_close_matches(mode, MODES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown mode {mode!r}{hint} Valid: {', '.join(MODES)}")
