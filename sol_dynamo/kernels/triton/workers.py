"""Kernels compiled by other processes, since Triton traces them under Python's lock.

One process is started before there is a kernel. It imports Triton, but neither torch nor CUDA, and
forks into workers, each at the other end of a socket, which end when that is closed: with whoever
started them, or once nothing has been compiled for a while. With few cores, and where a worker is
gone, Triton compiles in the threads that ask.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from subprocess import DEVNULL, Popen

from ...runtime import cache
from ...runtime.toolchain import cores
from .compile import TooLarge, compile_fitting, compile_launch, written
from .launch import Launch
from .program import HEADER

FEWEST = 4  # cores for which there are workers: two threads lose little to Python's lock
MOST = 16  # workers
IDLE = 300.0  # seconds after which they give their memory back
ERRORS = 2  # the file that Triton's own output goes to: a program's own output stays as it is

Job = tuple[Launch, str, list[str], int, int]  # what `compile_fitting` takes
Made = tuple[bytes | None, int]  # what is kept of a kernel, and its stages

NOTHING = """\
@triton.jit
def nothing(a, behind: tl.constexpr):
    pass
"""


class Workers:
    """Processes that compile for a compute capability."""

    def __init__(self, capability: int, count: int):
        """Errors: `OSError` where no process can be started."""
        self._ours, theirs = zip(*(Pipe() for _ in range(count)), strict=True)
        self._free: SimpleQueue[Connection] = SimpleQueue()
        self._used = threading.Event()
        self.retired = False
        sockets = [t.fileno() for t in theirs]
        path = os.pathsep.join(p or os.getcwd() for p in sys.path if isinstance(p, str))
        self.server = Popen(
            [sys.executable, "-P", "-u", "-m", __name__, str(capability), *map(str, sockets)],
            stdin=DEVNULL, stdout=ERRORS, pass_fds=sockets, env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # what a terminal interrupts is not this
        )  # fmt: skip
        for ours, their in zip(self._ours, theirs, strict=True):
            their.close()
            self._free.put(ours)
        threading.Thread(target=self._retire, daemon=True).start()

    def made(self, job: Job) -> Made | None:
        """What a worker makes of a kernel; None where the worker is gone, and where Triton refuses
        the kernel: whoever compiles it again gets Triton's error. Errors: `TooLarge`."""
        self._used.set()
        worker = self._free.get()
        try:
            worker.send((os.environ | {"SOL_CACHE_DIR": str(cache.directory())}, job))
            answer = worker.recv()
        except BaseException as e:
            worker.close()  # nobody may take this kernel for the next one
            self.server.poll()
            if not isinstance(e, (OSError, EOFError)):
                raise
            return None
        finally:
            self._free.put(worker)
        if isinstance(answer, TooLarge):
            raise answer
        return answer

    def close(self) -> None:
        for ours in self._ours:
            ours.close()

    def _retire(self) -> None:
        while self._used.wait(IDLE):
            self._used.clear()
        self.retired = True
        mine = [self._free.get() for _ in self._ours]
        self.close()
        for ours in mine:  # for those that wait
            self._free.put(ours)
        self.server.wait()


_starting = threading.Lock()
_workers: Workers | None = None
_loading: Future[None] | None = None


def start(capability: int) -> Workers | None:
    """What is to compile kernels for a compute capability, on its way: workers, else Triton in this
    process."""
    global _workers
    with _starting:
        if _workers is None or _workers.retired:
            _workers = _started(capability)
        if _workers is None:
            _loaded(capability)
        return _workers


def _started(capability: int) -> Workers | None:
    count = min(cores(), MOST)
    if count < FEWEST or not hasattr(os, "fork"):
        return None
    with suppress(OSError):
        return Workers(capability, count)
    return None


def made(*job: *Job) -> Made:
    """A kernel for a GPU's compute capability and shared memory, as `compile_fitting` takes it.
    Errors: those of Triton's compiler; `TooLarge`."""
    capability = job[3]
    workers = start(capability)
    answer = workers.made(job) if workers else None
    if answer is None:
        with _starting:
            loaded = _loaded(capability)
        loaded.exception()
        answer = _compiled(*job)
    return answer


def _compiled(*job: *Job) -> Made:
    kernel, stages = compile_fitting(*job)
    return written(kernel, stages), stages


def _loaded(capability: int) -> Future[None]:
    """Triton's compiler on its way into this process. A later kernel finds out what goes wrong."""
    global _loading
    if _loading is None:
        _loading = Future()
        threading.Thread(target=_load, args=(_loading, capability)).start()
    return _loading


def _load(done: Future[None], capability: int) -> None:
    try:
        _compile_nothing(capability)
        done.set_result(None)
    except BaseException as e:
        done.set_exception(e)


def _compile_nothing(capability: int) -> None:
    """Load Triton by a kernel that does nothing: importing it, hashing its own files (a third of a
    second of each thread that comes before that is done), LLVM."""
    compile_launch(Launch("nothing", 1, ("a",), 1, 1), HEADER + NOTHING, ["f32"], capability)


def _forget() -> None:
    """In a forked child: workers live as long as the one who started them, no longer."""
    if _workers is not None:
        _workers.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# -- the other processes ----------------------------------------------------------------------


def serve(capability: int, sockets: list[int]) -> None:
    """Become workers, one at each socket, and end after them."""
    with suppress(Exception):  # a kernel finds out
        _compile_nothing(capability)
    gc.freeze()  # what is shared stays so
    for mine in sockets:
        if os.fork() == 0:
            try:
                for other in sockets:
                    if other != mine:
                        os.close(other)
                _work(Connection(mine))
            finally:
                os._exit(0)
    for socket in sockets:
        os.close(socket)
    for _ in sockets:
        os.wait()


def _work(asked: Connection) -> None:
    """Compile, in the environment that the asking process has, until it is gone."""
    with suppress(EOFError, OSError):
        while True:
            environment, job = asked.recv()
            if environment != os.environ:
                os.environ.clear()
                os.environ.update(environment)
            answer: Made | TooLarge | None
            try:
                answer = _compiled(*job)
            except TooLarge as e:
                answer = e
            except Exception:
                answer = None
            asked.send(answer)


if __name__ == "__main__":
    serve(int(sys.argv[1]), [int(a) for a in sys.argv[2:]])
