"""A scheduled program as C files: kernels, the tiles that they share, and the table of steps.

Files are cut so that several compilers can work at once and so that equal tiles of two networks are
one cached object: a tile's name is a hash of its text. Buffers become addresses here: an arena
offset, a place in the per-thread memory of a depth-first band, or a slot of the pointer table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...ir import FOREIGN, Bind, Kernel, Program, blamed
from .addresses import page_name, storage
from .nest import Code, emit_kernel
from .scope import identifier
from .supports import check_supported
from .vecmath import PRELUDE, definitions

FILE_TEXT = 20_000  # bytes of kernels in a C file: about a second of compiling
_LANES = (2, 4, 8, 16)

HEADER = """\
/* site: 0, or that of an indirect index which is out of range */
typedef struct { long site, value; } sol_error;
typedef struct {
  void *const *ptr; char *arena, *scratch, *band; long chunk; sol_error *error;
} sol_call;
#define SOL_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SOL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SOL_CEIL(a, b) (((a) > 0 ? (a) + (b) - 1 : (a)) / (b))
#define SOL_FLOOR(a, b) (((a) < 0 ? (a) - (b) + 1 : (a)) / (b))
#define SOL_SCRATCH(T, offset) ((T *)(c->scratch + offset))
/* gcc would carry overlapping loads over iterations and spill */
#define SOL_OPAQUE(p) __asm__("" : "+r"(p))
/* a vector that several FMAs use: gcc would read it from memory for each of them */
#define SOL_KEEP(bytes, x) SOL_KEEP_##bytes(x)
#if defined __AVX512F__
#define SOL_KEEP_64(x) __asm__("" : "+v"(x))
#define SOL_KEEP_32(x) __asm__("" : "+v"(x))
#define SOL_KEEP_16(x) __asm__("" : "+v"(x))
#elif defined __AVX__
#define SOL_KEEP_64(x)
#define SOL_KEEP_32(x) __asm__("" : "+x"(x))
#define SOL_KEEP_16(x) __asm__("" : "+x"(x))
#else
#define SOL_KEEP_64(x)
#define SOL_KEEP_32(x)
#ifdef __aarch64__
#define SOL_KEEP_16(x) __asm__("" : "+w"(x))
#else
#define SOL_KEEP_16(x)
#endif
#endif
static inline void sol_fail(sol_error *e, long site, long value) {  /* the first failure is kept */
  long none = 0;
  if (__atomic_compare_exchange_n(&e->site, &none, site, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    e->value = value;
}
"""


@dataclass(frozen=True)
class Layout:
    """Where a program's memory is: what the executor must provide."""

    slots: dict[str, int]  # base buffer -> index in the pointer table
    arena_bytes: int
    scratch_bytes: int  # per thread
    sources: dict[str, str]
    body: str  # tiles and kernels alone: what differs from program to program


def emit_program(program: Program) -> Layout:
    """C for all kernels of a program; externs between them cut the table of steps into runs."""
    kernels = tuple(k for k in program.kernels if isinstance(k, Kernel))
    check_supported(program)
    sites = {b: n for n, (_, b) in enumerate(indirect_sites(program), 1)}
    memory, slots = addresses(program)
    codes: list[Code] = []
    texts: dict[str, str] = {}
    for k, kernel in enumerate(kernels):
        name = f"k{k}_{identifier(kernel.name)}"
        with blamed(kernel):
            code = emit_kernel(kernel, program, name, memory, sites)
        codes.append(code)
        for name, text in code.tiles.items():
            texts.setdefault(name, text)
    scratch = max([0, *(c.scratch for c in codes)])
    uses = set().union(*(c.uses for c in codes)) if codes else set()
    pages: dict[tuple[str, str], int] = {}
    for c in codes:
        for key, n in c.pages.items():
            pages[key] = max(pages.get(key, 0), n)
    sources = {}
    extern = _declarations(texts)
    for n, part in enumerate(_parts(list(texts.values()))):
        sources[f"tiles{n}.c"] = _file(part, uses, pages, "")
    for n, part in enumerate(_parts([c.text for c in codes])):
        sources[f"kernels{n}.c"] = _file(part, uses, pages, extern)
    sources["main.c"] = _main(program, kernels, codes, pages, scratch)
    body = "\n".join((*texts.values(), *(c.text for c in codes)))
    return Layout(slots, program.arena_bytes, scratch, sources, body)


def indirect_sites(program: Program) -> list[tuple[Kernel, Bind]]:
    """The indirect indices of a program; native code reports the n-th as site n + 1."""
    found: dict[Bind, Kernel] = {}
    for k in program.kernels:
        if isinstance(k, Kernel):
            for nest in k.body:
                for b in nest.binds:
                    found.setdefault(b, k)
    return [(k, b) for b, k in found.items()]


def addresses(program: Program) -> tuple[dict[str, str], dict[str, int]]:
    """C expression of every base buffer's first byte, and the slots of the pointer table."""
    memory: dict[str, str] = {}
    slots: dict[str, int] = {}
    for b in program.buffers.values():
        if b.base is not None or b.scope == "local" or b.dtype == FOREIGN:
            continue
        moved = program.chunked.get(b.name, 0)
        step = f" + c->chunk * {moved}L" if moved else ""
        if b.scope == "arena" and b.name in program.arena:
            memory[b.name] = f"(c->arena + {program.arena[b.name]}L{step})"
        elif b.scope == "arena" and b.name in program.band:
            memory[b.name] = f"(c->band + {program.band[b.name]}L)"
        else:
            slots[b.name] = len(slots)
            memory[b.name] = f"((char *)c->ptr[{slots[b.name]}]{step})"
    return memory, slots


def _parts(texts: list[str]) -> list[list[str]]:
    parts: list[list[str]] = []
    size = FILE_TEXT
    for t in texts:
        if size >= FILE_TEXT:
            parts.append([])
            size = 0
        parts[-1].append(t)
        size += len(t)
    return parts


def _declarations(tiles: dict[str, str]) -> str:
    return "".join("extern " + t.split(" {\n", 1)[0] + ";\n" for t in tiles.values())


def _file(parts: list[str], uses, pages, extern: str) -> str:
    body = "\n".join(parts)
    used = {u for u in uses if f"sol_{u[0]}_" in body}
    declared = "".join(
        line + "\n" for line in extern.splitlines() if line.split("(")[0].split()[-1] in body
    )
    page = "".join(
        f"extern {_page_declaration(k, n)};\n" for k, n in pages.items() if page_name(*k) in body
    )
    return "\n".join((PRELUDE(_LANES), HEADER, page, declared, definitions(used), body))


def _page_declaration(key: tuple[str, str], n: int) -> str:
    return f"{storage(key[0])} {page_name(*key)}[{n}]"


def _main(program, kernels, codes, pages, scratch) -> str:
    out = [PRELUDE(_LANES), HEADER]
    out.append(
        "typedef struct { void (*fn)(const sol_call *, long); long units; int first, last; } "
        "sol_step;"
    )
    names = [f"k{i}_{identifier(k.name)}" for i, k in enumerate(kernels)]
    out += [f"extern void {n}(const sol_call *c, long u);" for n in names]
    inner = [f"  {{{n}, {c.units}, 0, 0}}," for n, c in zip(names, codes, strict=True)]
    steps, k = [], 0
    place, n = {}, 0  # position in the program -> in the table of kernels
    for position, step in enumerate((*program.kernels, None)):
        place[position] = n
        n += isinstance(step, Kernel)
    bands = {place[d.first]: d for d in program.depth_first}
    while k < len(kernels):
        d = bands.get(k)
        if d is None:
            steps.append(inner[k])
            k += 1
        else:
            steps.append(f"  {{0, {d.trips}, {place[d.first]}, {place[d.last]}}},")
            k = place[d.last]
    out.append("static const sol_step sol_inner[] = {\n" + "\n".join(inner) + "\n};")
    out.append("static const sol_step sol_steps[] = {\n" + "\n".join(steps) + "\n};")
    scratch = -(-scratch // 4096) * 4096
    size = -(-max(scratch + program.band_bytes, 64) // 4096) * 4096 + 192  # no two threads alias
    out.append(f"enum {{ SOL_STEPS = {len(steps)} }};")
    out.append(f"#define SOL_KERNEL_SCRATCH {scratch}L\n#define SOL_SCRATCH_SIZE {size}L")
    for key, n in pages.items():
        fill = (
            "0" in key[1] and float.fromhex(key[1].rstrip("f")) == 0
            if key[1][0] not in "_-" and "inf" not in key[1]
            else False
        )
        start = "" if fill else f" = {{[0 ... {n - 1}] = {key[1]}}}"
        out.append(f"{_page_declaration(key, n)}{start};")
    out.append((Path(__file__).parent / "native.c").read_text())
    return "\n".join(out)
