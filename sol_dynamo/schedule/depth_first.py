"""A batch image by image: runs of kernels that treat each image alone run chunk by chunk.

    for kernel: for image: ...  ==>  for image (in parallel): for kernel: ...

The intermediates of one image stay in a core's cache, and threads meet once instead of after every
kernel (BrainSlug, arXiv 1804.08378, does this for pooling and pointwise layers). Kernels that do
little work for each byte of their weights (classifiers) stay outside, where they see all images.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..affine import Index
from ..ir import (
    DTYPES,
    DepthFirst,
    Extern,
    Iota,
    Kernel,
    Loops,
    Program,
    expressions,
    loads,
    read,
    walk,
    written,
)
from ..target import Caps
from .nests import drop_unit_axes

MIN_INTENSITY = 8  # flops for each weight byte: below it the weights' traffic would be the time


def depth_first(program: Program, caps: Caps) -> Program:
    """Cut the batch axis of runs of kernels to one image; needs two images for every core."""
    runs = _runs(program, caps) if caps.images_first else []
    if not runs:
        return program
    run_of = {p: run for run, (first, last, _) in enumerate(runs) for p in range(first, last)}
    users: dict[str, set[int | None]] = {}  # memory -> the runs that touch it
    for p, k in enumerate(program.kernels):
        for b in (*read(k), *written(k)):
            if b is not None:
                users.setdefault(program.base(b).name, set()).add(run_of.get(p))
    for o in program.outputs:
        if o:
            users.setdefault(program.base(o).name, set()).add(None)
    images: dict[str, int] = {}  # memory and local buffers of one image at a time -> images
    chunked: dict[str, int] = {}
    kernels = list(program.kernels)
    for p, run in run_of.items():
        k, n = kernels[p], runs[run][2]
        if isinstance(k, Extern):
            continue
        for name in _by_image(program, k)[0]:
            memory = program.buffers[name]
            if memory.scope == "arena" and users[name] == {run}:
                images[name] = n
            else:
                chunked[name] = memory.strides[0] * DTYPES[memory.dtype][0]
        images |= {b: n for b in written(k) if program.buffers[b].scope == "local"}
        kernels[p] = replace(k, body=tuple(map(_one_image, k.body)))
    buffers = {
        name: replace(b, shape=(1, *b.shape[1:]))
        if b.shape and b.shape[0] == images.get(program.base(name).name)
        else b
        for name, b in program.buffers.items()
    }
    return replace(
        program,
        buffers=buffers,
        kernels=tuple(kernels),
        depth_first=tuple(DepthFirst(first, last, 1, n) for first, last, n in runs),
        chunked=chunked,
    )


def _runs(program: Program, caps: Caps) -> list[tuple[int, int, int]]:
    """(first, last, images) of the longest runs that can go image by image, from two kernels on.

    A buffer has one place in all runs: what one reads or writes image by image, none reads whole.
    """
    found: list[tuple[int, int, int]] = []
    images: set[str] = set()  # what the runs found read or write image by image
    whole: set[str] = set()  # what they read otherwise
    current: tuple[int, int, int] | None = None
    own_images: set[str] = set()
    own_whole: set[str] = set()

    def close() -> None:
        nonlocal current, images, whole
        if current is not None and current[1] - current[0] > 1:
            found.append(current)
            images, whole = images | own_images, whole | own_whole
        current = None

    for p, k in enumerate(program.kernels):
        n = None if isinstance(k, Extern) else _images(program, k)
        if (
            n is None
            or isinstance(k, Extern)
            or n < 2 * caps.cores
            or _intensity(program, k, n) < MIN_INTENSITY
        ):
            close()
            continue
        more_images, more_whole = _by_image(program, k)
        if current is not None and (
            current[2] != n or own_images & more_whole or own_whole & more_images
        ):
            close()
        if more_images & more_whole or images & more_whole or whole & more_images:
            close()
        elif current is None:
            current, own_images, own_whole = (p, p + 1, n), more_images, more_whole
        else:
            current = (current[0], p + 1, n)
            own_images, own_whole = own_images | more_images, own_whole | more_whole
    close()
    return found


def _images(program: Program, k: Kernel) -> int | None:
    """The number of images of a kernel that treats each alone, or None."""
    sizes = set()
    for nest in k.body:
        axis = batch_axis(nest)
        if axis is None:
            return None
        sizes.add(nest.axis(axis).extent)
        formulas = [e.index for e in walk(*expressions(nest)) if isinstance(e, Iota)]
        masks = [m for s in nest.stores for m in s.mask]
        if any(axis in i.symbols for i in (*formulas, *masks)):
            return None  # which image it is matters: each would take itself for the first
        for e in loads(nest):
            b = program.buffers[e.buffer]
            along = e.index and e.index[0] == Index.of(axis) and b.shape[0] in sizes
            rest = e.index[1:] if along else e.index
            if any(axis in i.symbols for i in rest) or any(axis in m.symbols for m in e.mask):
                return None
            shared = program.base(e.buffer).scope in ("weight", "input")
            if not along and not shared:
                return None
            base = program.base(e.buffer)
            if along and (
                base.scope == "weight"  # a row for each image: packed weights have one place
                or not base.shape
                or base.shape[0] != b.shape[0]
                or base.strides[0] != b.strides[0]
            ):
                return None
        for s in nest.stores:
            for name in s.buffers:
                b, base = program.buffers[name], program.base(name)
                if b.scope != "local" and (
                    base.shape[0] != b.shape[0] or base.strides[0] != b.strides[0]
                ):
                    return None
    return sizes.pop() if len(sizes) == 1 else None


def _by_image(program: Program, k: Kernel) -> tuple[set[str], set[str]]:
    """The memory that a kernel touches at the image it works on, and what it reads otherwise. Sizes
    do not tell: a weight may have as many rows as there are images."""
    images: set[str] = set()
    whole: set[str] = set()
    for nest in k.body:
        axis = batch_axis(nest)
        for e in loads(nest):
            along = bool(e.index) and e.index[0] == Index.of(axis)
            (images if along else whole).add(program.base(e.buffer).name)
        images.update(program.base(b).name for s in nest.stores for b in s.buffers)
    local = {b for b in images | whole if program.buffers[b].scope == "local"}
    return images - local, whole - local


def batch_axis(nest: Loops) -> str | None:
    """The parallel axis that is the first index of every store and stands nowhere else in it."""
    names = set()
    for s in nest.stores:
        if not s.index or len(s.index[0].symbols) != 1:
            return None
        (symbol,) = s.index[0].symbols
        if s.index[0] != Index.of(symbol) or any(symbol in i.symbols for i in s.index[1:]):
            return None
        names.add(symbol)
    if len(names) != 1 or nest.binds:
        return None
    (name,) = names
    return name if nest.axis(name).kind == "parallel" else None


def _intensity(program: Program, k: Kernel, n: int) -> float:
    """Operations of one image for each byte of weights."""
    weights = {b for b in read(k) if program.base(b).scope == "weight"}
    size = sum(program.buffers[b].numel * DTYPES[program.buffers[b].dtype][0] for b in weights)
    work = sum(prod(a.extent for a in nest.axes) for nest in k.body)
    return 2 * work / n / max(size, 1)


def _one_image(nest: Loops) -> Loops:
    axis = batch_axis(nest)
    axes = tuple(replace(a, extent=1) if a.symbol == axis else a for a in nest.axes)
    return drop_unit_axes(replace(nest, axes=axes))
