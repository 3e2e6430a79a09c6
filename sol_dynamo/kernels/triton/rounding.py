"""TF32 values are rounded where they are made, if nobody reads them otherwise.

A product would round each element once for every block that reads it; rounding twice changes
nothing, so that what is rounded in memory need not be rounded again.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir import (
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Store,
    children,
    expressions,
    is_op,
    read,
    walk,
)


def round_early(program: Program) -> tuple[Program, frozenset[str]]:
    """The program, and the memory (by the names of buffers without a base) that holds rounded
    values."""
    plain, rounded, made = set[str](), set[str](), set[str]()
    for k in program.kernels:
        if isinstance(k, Extern):
            plain |= {program.base(b).name for b in read(k)}
            continue
        for nest in k.body:
            for root in expressions(nest):
                _sort(root, program, plain, rounded)
            for s in nest.stores:
                names = {program.base(b).name for b in s.buffers}
                made |= names
                if s.reduce is not None:
                    plain |= names
    own = {b for b in made if program.buffers[b].scope == "arena"}
    found = frozenset((rounded & own) - plain)
    packed = {s.buffers[0] for p in program.packs for s in p.stores if is_op(s.values[0], "tf32")}
    if not found:
        return program, frozenset(packed)
    kernels = tuple(
        k if isinstance(k, Extern) else _rounding(k, program, found) for k in program.kernels
    )
    return replace(program, kernels=kernels), found | packed


def _sort(root: Expr, program: Program, plain: set[str], rounded: set[str]) -> None:
    """Which memory an expression's loads read, and whether to round it at once."""
    direct = {id(e.args[0]) for e in walk(root) if is_op(e, "tf32")}
    others = {id(a) for e in walk(root) if not is_op(e, "tf32") for a in children(e)} | {id(root)}
    for e in walk(root):
        if isinstance(e, Load):
            name = program.base(e.buffer).name
            if id(e) in direct:
                rounded.add(name)
            if id(e) in others:
                plain.add(name)


def _rounding(k: Kernel, program: Program, found: frozenset[str]) -> Kernel:
    def store(s: Store) -> Store:
        values = (
            Op("tf32", (v,), "f32") if program.base(b).name in found else v
            for b, v in zip(s.buffers, s.values, strict=True)
        )
        return replace(s, values=tuple(values))

    def nest(n: Loops) -> Loops:
        return replace(n, stores=tuple(map(store, n.stores)))

    return replace(k, body=tuple(map(nest, k.body)))
