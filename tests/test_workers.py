"""Kernels compiled by other processes, for a GPU that need not be there: what comes back, what
happens where a worker can't, and that none outlives those whom it works for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("triton")

from sol_dynamo.kernels.triton import workers
from sol_dynamo.kernels.triton.compile import TooLarge
from sol_dynamo.kernels.triton.launch import Launch, interpreting
from sol_dynamo.kernels.triton.program import HEADER

pytestmark = pytest.mark.skipif(
    interpreting() or not hasattr(os, "fork"), reason="Triton's interpreter compiles nothing"
)


def job(name: str, value: str, shared: int = 99 << 10) -> workers.Job:
    """A kernel that stores a value made of `x`, for an H100 of so much shared memory."""
    text = f"""{HEADER}@triton.jit
def {name}(x, y, behind: tl.constexpr):
    at = tl.arange(0, 256)
    x = tl.load(x + at)
    tl.store(y + at, {value})
"""
    return Launch(name, 1, ("x", "y"), 4, 1), text, ["f32", "f32"], 90, shared


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Iterator[workers.Workers]:
    """Two workers, which look for compiled kernels where none are. (Lines would come with when
    their file was used last.)"""
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(own_cache / "first"))
    made = workers.Workers(90, 2)
    monkeypatch.setattr(workers, "_workers", made)
    yield made
    made.close()
    made.server.wait(60)


def here(*asked: *workers.Job) -> workers.Made:
    raise AssertionError("compiled in this process")


def until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def test_a_worker_makes_what_this_process_does(pool, monkeypatch, own_cache):
    jobs = [job(f"k{n}", f"libdevice.exp(x) * {n}") for n in range(3)]
    with monkeypatch.context() as m:
        m.setattr(workers, "_compiled", here)
        made = [workers.made(*j) for j in jobs]
    assert len(list((own_cache / "first").glob("*/k?.cubin"))) == 3
    # and in the environment that this process has by now
    monkeypatch.setenv("TRITON_CACHE_DIR", str(own_cache / "second"))
    assert workers._compiled(*jobs[0]) == made[0]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(own_cache / "third"))
    assert pool.made(jobs[1]) == made[1] == workers._compiled(*jobs[1])
    assert {p.name for p in (own_cache / "third").glob("*/*.cubin")} == {"k1.cubin"}


def test_other_processes_import_no_torch():
    code = """
import sys
from sol_dynamo.kernels.triton import device, workers
assert not {"torch", "numpy"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_are_those_of_this_process(pool, monkeypatch):
    from triton.compiler.errors import CompilationError

    summed = job("summed", "x + tl.sum(x, 0)", 1)
    with monkeypatch.context() as m:
        m.setattr(workers, "_compiled", here)
        with pytest.raises(TooLarge, match=r"summed takes .* a program on this GPU has 1$"):
            workers.made(*summed)
    wrong = job("wrong", "unknown")
    assert pool.made(wrong) is None
    with pytest.raises(CompilationError, match="unknown is not defined"):
        workers.made(*wrong)
    assert pool.made(job("right", "x")) is not None  # workers go on


def test_without_workers_threads_compile(pool, monkeypatch):
    asked = job("k", "x + 1")
    os.killpg(pool.server.pid, signal.SIGKILL)
    assert until(lambda: pool.server.poll() is not None)
    assert all(pool.made(asked) is None for _ in range(3))
    assert workers.made(*asked) == workers._compiled(*asked)
    assert workers.start(90) is pool  # what died would die again

    monkeypatch.setattr(workers, "_workers", None)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    assert workers.start(90) is None
    monkeypatch.setattr(workers, "cores", lambda: 64)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert workers.start(90) is None


def test_workers_retire(monkeypatch, own_cache):
    monkeypatch.setattr(workers, "IDLE", 0.1)
    monkeypatch.setattr(workers, "cores", lambda: workers.FEWEST)
    monkeypatch.setattr(workers, "_workers", None)
    first = workers.start(90)
    assert first is not None
    assert until(lambda: first.server.returncode == 0)  # waited for: no zombie
    assert first.made(job("k", "x")) is None
    second = workers.start(90)
    assert second is not first
    assert until(lambda: second.server.returncode == 0)


def exists(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whose parent is not there to be told


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"])
def test_workers_end_with_their_program(end, own_cache):
    """However it ends, also before what it forked, and its output is its own."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workers import job, workers
pool = workers.Workers(90, 2)
assert pool.made(job("k", "x"))
workers._workers = pool
child = os.fork()
if child == 0:
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1), os.dup2(devnull, 2)
    time.sleep(60)
print(pool.server.pid, child, flush=True)
{end}
"""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(own_cache)}
    # Python 3.12 warns of forks beside threads, which a program with a GPU has anyway; ours in the
    # other process would show
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == (0 if end == "pass" else -signal.SIGKILL) and not done.stderr, done
    server, child = map(int, done.stdout.split())
    try:
        assert until(lambda: not exists(server))
        assert exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
