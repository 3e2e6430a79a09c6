"""Cores that work together: the barrier of generated code, on more cores than the host has.

A wait must give the host's processor away, memory must be whole behind it, and where a core fails
the others must not wait for it forever.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from offload import Process, compile_ve

from sol_dynamo.ve import driver as ve

pytestmark = pytest.mark.ve

HEADER = Path(ve.__file__).with_name("barrier.h").read_text()
CORES = 8

# Each phase, a core reads what its neighbours wrote in the one before: once scalar, once by vectors
# whose stores have no order among themselves.
PROGRAM = f"""
#include <velintrin.h>
{HEADER}
typedef unsigned long u64;
u64 phases(u64 *line, u64 first, u64 cores, u64 me, u64 n, u64 *slots, u64 fails) {{
  u64 wrong = 0;
  u64 *mine = slots + 512 * me, *left = slots + 512 * ((me + 1) % cores);
  for (u64 p = 0; p < n; ++p) {{
    mine[0] = 3 * p + me;
    _vel_vstot_vssl(_vel_vbrdl_vsl(5 * p + me, 256), 8, mine + 256, 256);
    if (fails && p == fails) *(volatile u64 *)(8 * me) = 1;
    sol_barrier(line, first + 2 * p, cores);
    wrong += left[0] != 3 * p + (me + 1) % cores;
    __vr got = _vel_vldnc_vssl(8, left + 256, 256);
    wrong += _vel_lvsl_svs(got, 255) != 5 * p + (me + 1) % cores;
    sol_barrier(line, first + 2 * p + 1, cores);
  }}
  return wrong;
}}
u64 spin(volatile u64 *flag) {{
  while (!*flag) {{}}
  return *flag;
}}
u64 store_far(volatile u64 *p) {{ return *p = 1; }}
"""


# Counts memory down with the same registers at every turn: looks like a wait, but for its store
COUNT = """
	.text
	.globl count
	.type count,@function
count:
1:
	ld %s1, (, %s0)
	breq.l 0, %s1, 2f
	lea %s1, -1(, %s1)
	st %s1, (, %s0)
	or %s1, 0, (0)1
	br.l.t 1b
2:
	b.l.t (, %s10)
"""


# Counts by an atomic addition until a flag is set; waits for that count and sets the flag: both
# with the same registers at every turn. And branches to itself.
LOOPS = """
	.text
	.globl add_until, wait_for, stay
	.type add_until,@function
	.type wait_for,@function
	.type stay,@function
add_until:
	lea %s1, 1
	atmam %s1, (%s0), 2
	or %s1, 0, (0)1
	ld %s2, 8(, %s0)
	breq.l 0, %s2, add_until
	b.l.t (, %s10)
wait_for:
	ld %s2, (, %s0)
	cmpu.l %s3, %s2, %s1
	or %s2, 0, (0)1
	srl %s3, %s3, 63
	brne.l 0, %s3, wait_for
	lea %s2, 1
	st %s2, 8(, %s0)
	b.l.t (, %s10)
stay:
	br.l.t stay
"""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setenv("SOL_VE_DRIVER", "sim")
    for name in ("SOL_VE_CARDS", "SOL_VE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    p = Process()
    yield p
    p.destroy()


class Group:
    """Eight contexts with the program above, a barrier's line, and memory of each core."""

    def __init__(self, process: Process, folder: Path):
        self.p = process
        library = process.load(compile_ve(folder, "phases.c", PROGRAM, "-O2"))
        self.phases, self.spin, self.store_far = (
            process.symbol(library, n) for n in ("phases", "spin", "store_far")
        )
        self.contexts = [process.main, *(process.open() for _ in range(CORES - 1))]
        self.slots = process.alloc(512 * 8 * CORES)
        line = process.alloc(256)
        self.line = line + -line % 128
        process.write(self.line, bytes(128))
        self.generation = 1

    def start(self, n: int, fails: dict[int, int] | None = None) -> list[int]:
        """`fails`: core -> the phase in which it stores to an address that is not mapped."""
        fails = fails or {}
        requests = [
            self.p.start(
                context,
                self.phases,
                *(self.line, self.generation, CORES, me, n, self.slots, fails.get(me, 0)),
            )
            for me, context in enumerate(self.contexts)
        ]
        self.generation += 2 * n
        return requests

    def wait(self, requests: list[int]) -> list[tuple[int, int]]:
        return [self.p.wait(c, r) for c, r in zip(self.contexts, requests, strict=True)]


@pytest.fixture
def group(process: Process, tmp_path: Path) -> Group:
    return Group(process, tmp_path)


def test_a_thousand_barriers(group: Group) -> None:
    assert group.wait(group.start(500)) == [(ve.OK, 0)] * CORES


def test_a_barrier_on_the_cycle_model(group: Group) -> None:
    """All cores leave together, whoever came last on the host: every call takes the same time."""
    p = group.p
    assert p.lib.vesim_cycles_enable(p.handle, 1) == 0
    assert group.wait(group.start(1)) == [(ve.OK, 0)] * CORES  # the line is known as a barrier's
    for phases in (1, 3):
        cycles = set()
        for _ in range(10):
            for c in group.contexts:
                assert p.lib.vesim_report_clear(c) == 0
            assert group.wait(group.start(phases)) == [(ve.OK, 0)] * CORES
            cycles |= {p.driver.report(c)[0].cycles for c in group.contexts}
        assert len(cycles) == 1 and min(cycles) > 2 * phases * 2000


@pytest.mark.parametrize("when", [1, 7])
def test_a_failing_core_ends_the_others_wait(group: Group, when: int) -> None:
    """Of two calls in the queues the first fails on core 5: its others end with that reason, and
    the next call's barriers are whole."""
    first, second = group.start(10, {5: when}), group.start(10)
    done = group.wait(first)
    assert [status for status, _ in done] == [ve.EXCEPTION] * CORES
    assert group.wait(second) == [(ve.OK, 0)] * CORES
    for me, context in enumerate(group.contexts):
        said = group.p.fault(context)
        assert "memory access violation" in said and "0x28" in said and "phases" in said, said
        assert ("waits for another core" in said) == (me != 5)
    assert group.wait(group.start(10)) == [(ve.OK, 0)] * CORES


def test_the_first_of_several_failures_is_told(group: Group) -> None:
    done = group.wait(group.start(10, {2: 3, 6: 4}))
    assert [status for status, _ in done] == [ve.EXCEPTION] * CORES
    assert all("address 0x10 is not mapped" in group.p.fault(c) for c in group.contexts)


def test_failures_of_a_call_do_not_end_the_next_one(group: Group) -> None:
    """Core 0 is in the second call already, and waits there, when core 3 fails in the first."""
    p = group.p
    for _ in range(3):
        first = [p.start(group.contexts[0], group.store_far, 64)]
        for me in range(1, CORES):
            cores, n, fails = (1, 3000, 2999) if me == 3 else (CORES, 1, 0)
            arguments = group.line, group.generation, cores, me, n, group.slots, fails
            first.append(p.start(group.contexts[me], group.phases, *arguments))
        group.generation += 2
        second = group.start(3)
        assert [status for status, _ in group.wait(first)] == [ve.EXCEPTION] * CORES
        assert group.wait(second) == [(ve.OK, 0)] * CORES


def test_a_failure_before_the_others_are_requested(group: Group) -> None:
    p = group.p
    assert p.lib.vesim_patience(p.handle, 0.05) == 0
    assert p.wait(p.main, p.start(p.main, group.store_far, 64))[0] == ve.EXCEPTION
    requests = [
        p.start(c, group.phases, group.line, group.generation, CORES, me, 1, group.slots, 0)
        for me, c in enumerate(group.contexts[1:], 1)
    ]
    group.generation += 2
    for context, request in zip(group.contexts[1:], requests, strict=True):
        assert p.wait(context, request)[0] == ve.EXCEPTION
        assert "a call has failed: memory access violation" in p.fault(context)
    assert p.lib.vesim_patience(p.handle, 30) == 0
    assert group.wait(group.start(2)) == [(ve.OK, 0)] * CORES


def test_a_barrier_that_one_core_does_not_come_to(group: Group) -> None:
    """Nothing has failed, and nothing can go on: it ends, as a fault that says so."""
    p = group.p
    assert p.lib.vesim_patience(p.handle, 0.05) == 0
    requests = [
        p.start(c, group.phases, group.line, 1, CORES, me, 1, group.slots, 0)
        for me, c in enumerate(group.contexts[1:], 1)
    ]
    for context, request in zip(group.contexts[1:], requests, strict=True):
        assert p.wait(context, request)[0] == ve.EXCEPTION
        assert "busy ones wait like it" in p.fault(context)
    assert p.lib.vesim_patience(p.handle, 30) == 0
    group.generation = 3
    assert group.wait(group.start(2)) == [(ve.OK, 0)] * CORES


def test_a_host_function_that_waits_for_the_waiting(group: Group) -> None:
    """As a stream does that waits for another one's event: it does not count as at work."""
    p, (_, first, second, third, *_) = group.p, group.contexts
    flag = p.alloc(8)
    p.write(flag, bytes(8))
    waiting = p.start(first, group.spin, flag)

    @ve.VH_FUNCTION
    def wait(_: int) -> int:
        return p.wait(first, waiting)[0]

    request = p.lib.veo_call_async_vh(second, wait, None)
    behind = p.start(second, group.store_far, flag)  # would end the wait, but comes after it
    assert p.wait(third, p.start(third, group.store_far, 64))[0] == ve.EXCEPTION
    assert p.wait(second, request) == (ve.OK, ve.EXCEPTION)
    assert p.wait(second, behind) == (ve.OK, 1)
    assert "a call has failed" in p.fault(first)


def test_what_only_looks_like_a_wait(group: Group, tmp_path: Path) -> None:
    """A loop that counts in memory is neither slept in nor ended, whatever fails meanwhile."""
    p = group.p
    count = p.symbol(p.load(compile_ve(tmp_path, "count.s", COUNT)), "count")
    counter = p.alloc(8)
    p.write(counter, struct.pack("<Q", 1_000_000))
    assert p.lib.vesim_patience(p.handle, 0.0) == 0
    working = p.start(group.contexts[1], count, counter)
    failing = p.start(group.contexts[2], group.store_far, 64)
    assert p.wait(group.contexts[2], failing)[0] == ve.EXCEPTION
    assert p.wait(group.contexts[1], working)[0] == ve.OK
    assert p.read(counter, 8) == bytes(8)


def test_other_waits_outlive_a_failure(group: Group) -> None:
    """A core that waits for something else goes on: for another core that still works, or for the
    host where no core failed since its call began."""
    p = group.p
    flags = p.alloc(16)
    p.write(flags, bytes(16))
    waiting = p.start(group.contexts[1], group.spin, flags)
    p.write(flags, struct.pack("<Q", 7))
    assert p.wait(group.contexts[1], waiting) == (ve.OK, 7)

    # 2 fails while 3 waits for 4, whose call works long before it stores
    p.write(flags, bytes(16))
    waiting = p.start(group.contexts[3], group.spin, flags)
    long = group.phases, group.line, group.generation, 1, 0, 20_000, group.slots, 0
    work = p.start(group.contexts[4], *long)
    release = p.start(group.contexts[4], group.store_far, flags)
    failing = p.start(group.contexts[2], group.store_far, 64)
    assert p.wait(group.contexts[2], failing)[0] == ve.EXCEPTION
    assert p.wait(group.contexts[3], waiting) == (ve.OK, 1)
    assert p.wait(group.contexts[4], work)[0] == ve.OK
    assert p.wait(group.contexts[4], release) == (ve.OK, 1)


def test_atomic_additions_are_work(group: Group, tmp_path: Path) -> None:
    """One core waits for what another counts, and that one for a flag: neither is hopeless."""
    p = group.p
    library = p.load(compile_ve(tmp_path, "loops.s", LOOPS))
    add_until, wait_for = (p.symbol(library, n) for n in ("add_until", "wait_for"))
    counter = p.alloc(16)
    p.write(counter, bytes(16))
    assert p.lib.vesim_patience(p.handle, 0.0) == 0
    waiting = p.start(group.contexts[2], wait_for, counter, 100_000)
    working = p.start(group.contexts[1], add_until, counter)
    assert p.wait(group.contexts[1], working)[0] == ve.OK, p.fault(group.contexts[1])
    assert p.wait(group.contexts[2], waiting)[0] == ve.OK, p.fault(group.contexts[2])


def test_a_loop_of_one_branch_ends(group: Group, tmp_path: Path) -> None:
    """`for(;;);` as compilers write it is a wait that nothing ends, also beside other waits."""
    p = group.p
    stay = p.symbol(p.load(compile_ve(tmp_path, "loops.s", LOOPS)), "stay")
    flag = p.alloc(8)
    p.write(flag, bytes(8))
    assert p.lib.vesim_patience(p.handle, 0.05) == 0
    requests = [
        (group.contexts[1], p.start(group.contexts[1], stay)),
        (group.contexts[2], p.start(group.contexts[2], group.spin, flag)),
    ]
    deadline = time.monotonic() + 60
    for context, request in requests:
        while (status := p.peek(context, request)[0]) == ve.UNFINISHED:
            assert time.monotonic() < deadline, "it never ends"
            time.sleep(0.01)
        assert status == ve.EXCEPTION and "busy ones wait like it" in p.fault(context)


def test_old_failures_end_no_waits(group: Group) -> None:
    """A call that is requested well after a failure is of another group: it waits for the host."""
    p, context = group.p, group.contexts[1]
    flag = p.alloc(8)
    p.write(flag, bytes(8))
    failing = p.start(group.contexts[2], group.store_far, 64)
    assert p.wait(group.contexts[2], failing)[0] == ve.EXCEPTION
    time.sleep(1.2)  # more than Waits takes for one group (kAfterFailure)
    waiting = p.start(context, group.spin, flag)
    time.sleep(1.2)  # more than a call of the failure's group would wait
    assert p.peek(context, waiting)[0] == ve.UNFINISHED, p.fault(context)
    p.write(flag, struct.pack("<Q", 5))
    assert p.wait(context, waiting) == (ve.OK, 5)
