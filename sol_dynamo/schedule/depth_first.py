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
from ..ir import DTYPES, DepthFirst, Extern, Kernel, Loops, Program, loads, read, written
from ..target import Caps
from .fusion import drop_unit_axes

MIN_INTENSITY = 8  # flops for each weight byte: below it the weights' traffic would be the time


def depth_first(program: Program, caps: Caps) -> Program:
    """Cut the batch axis of runs of kernels to one image; needs two images for every core."""
    runs = _runs(program, caps)
    if not runs:
        return program
    buffers, kernels = dict(program.buffers), list(program.kernels)
    bands, chunked = [], {}
    for first, last, n in runs:
        inside = set(range(first, last))
        bases = {
            program.base(b).name
            for p in inside
            for b in (*read(kernels[p]), *written(kernels[p]))
            if program.buffers[b].scope != "local"
        }
        outer = {
            program.base(b).name
            for p, k in enumerate(program.kernels)
            if p not in inside
            for b in (*read(k), *written(k))
            if b
        }
        outer |= {program.base(o).name for o in program.outputs if o}
        private = set()
        images, _ = _along(program, program.kernels[first:last])
        for name in bases:
            b = program.buffers[name]
            if name not in images:
                continue  # read whole by every image, whatever its first size is
            if b.scope == "arena" and name not in outer:
                private.add(name)
            else:
                chunked[name] = b.strides[0] * DTYPES[b.dtype][0]
        for p in inside:
            kernels[p] = replace(
                kernels[p], body=tuple(_one_image(nest, n) for nest in kernels[p].body)
            )
        locals_ = {b for p in inside for b in written(kernels[p]) if buffers[b].scope == "local"}
        for name, b in list(buffers.items()):
            if name in locals_ or (program.base(name).name in private and _is_batched(b, n)):
                shape = (1, *b.shape[1:]) if _is_batched(b, n) else b.shape
                buffers[name] = replace(b, shape=shape)
        bands.append(DepthFirst(first, last, 1, n))
    return replace(
        program, buffers=buffers, kernels=tuple(kernels), depth_first=tuple(bands), chunked=chunked
    )


def _is_batched(b, n: int) -> bool:
    return len(b.shape) > 0 and b.shape[0] == n


def _runs(program: Program, caps: Caps) -> list[tuple[int, int, int]]:
    """(first, last, images) of the longest runs that can go image by image, from two kernels on."""
    found: list[tuple[int, int, int]] = []
    current: tuple[int, int, int] | None = None
    for p, k in enumerate(program.kernels):
        n = _batch(program, k)
        if n is not None and n >= 2 * caps.cores and _intensity(program, k, n) >= MIN_INTENSITY:
            if current is not None and current[2] == n:
                current = (current[0], p + 1, n)
                continue
            if current is not None:
                found.append(current)
            current = (p, p + 1, n)
        elif current is not None:
            found.append(current)
            current = None
    if current is not None:
        found.append(current)
    return [r for r in found if r[1] - r[0] > 1 and _separable(program, r)]


def _along(program: Program, kernels) -> tuple[set[str], set[str]]:
    """Memory that is walked image by image, and memory that every image reads whole."""
    images, whole = set(), set()
    for k in kernels:
        for nest in k.body:
            axis = batch_axis(nest)
            images |= {program.base(b).name for s in nest.stores for b in s.buffers}
            for e in loads(nest):
                along = axis is not None and e.index and e.index[0] == Index.of(axis)
                (images if along else whole).add(program.base(e.buffer).name)
    return images, whole


def _separable(program: Program, run: tuple[int, int, int]) -> bool:
    images, whole = _along(program, program.kernels[run[0] : run[1]])
    constant = {b for b in images if program.buffers[b].scope == "weight"}
    return not images & whole and not constant


def _batch(program: Program, k: Kernel | Extern) -> int | None:
    """The number of images of a kernel that treats each alone, or None."""
    if isinstance(k, Extern):
        return None
    sizes = set()
    for nest in k.body:
        axis = batch_axis(nest)
        if axis is None:
            return None
        sizes.add(nest.axis(axis).extent)
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
                not base.shape or base.shape[0] != b.shape[0] or base.strides[0] != b.strides[0]
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


def _one_image(nest: Loops, n: int) -> Loops:
    axis = batch_axis(nest)
    axes = tuple(replace(a, extent=1) if a.symbol == axis else a for a in nest.axes)
    return drop_unit_axes(replace(nest, axes=axes))
