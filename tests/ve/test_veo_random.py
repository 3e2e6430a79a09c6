"""Random calls of the driver's interface, with handles, addresses and requests of which many are
stale or none, from two threads: statuses, but never the end of the process.

In a process of its own, so that a crash is a failed test.
"""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from offload import compile_ve

from sol_dynamo.ve import driver as ve

pytestmark = pytest.mark.ve

KERNELS = """
typedef unsigned long u64;
u64 add(u64 a,u64 b){return a+b;}
u64 load(u64*p){return *p;}
void store(u64*p){*p=1;}
u64 jump(u64(*f)(void)){return f()+1;}
__attribute__((optnone)) u64 deep(u64 n){volatile char f[65536];f[0]=1;return deep(n+1)+f[0];}
u64 fill(char*p,u64 n,int c){n&=0xfff;for(u64 i=0;i<n;i++)p[i]=(char)c;return n;}
u64 spin(volatile u64*p,u64 n){n&=0xfff;while(!*p&&n--){}return *p;}
u64 quotient(u64 a){return 5/a;}
void out(long*a,long*b,double*c){*a+=1;*b=7;c[0]=2.5;}
"""
NAMES = ("add", "load", "store", "jump", "deep", "fill", "spin", "quotient", "out", "nothing")
CALLS = 2500
BUFFER = 1 << 16


class Caller:
    """What one thread does; the lists of what there was are everybody's."""

    processes: list[int] = []
    contexts: list[int] = []
    process_of: dict[int, int] = {}  # of contexts
    addresses: list[int] = []
    libraries: list[int] = []
    functions: list[int] = []
    requests: list[tuple[int, int]] = []
    host_functions: list[Any] = []  # as long as they may be called

    def __init__(self, seed: int, file: str):
        self.lib = ve.open_driver().lib
        self.rng, self.file = random.Random(seed), file.encode()
        self.memory = ctypes.create_string_buffer(BUFFER)
        self.number = ctypes.c_uint64()

    def nonsense(self) -> int:
        r = self.rng
        return r.choice([0, 2**64 - 1, 2**64 - 8, r.getrandbits(32), r.getrandbits(64), 8,
                         0x600000000000 + r.randrange(1 << 20), 0x600000001000])  # fmt: skip

    def one_of(self, known: list[int]) -> int:
        return self.nonsense() if not known or self.rng.random() < 0.06 else self.rng.choice(known)

    def keep(self, known: list[int], handle: int | None) -> None:
        if handle:
            known.append(handle)
            del known[:-50]

    def of(self, process: int, context: int | None) -> int | None:
        if context:
            self.process_of[context] = process
        return context

    def arguments(self) -> int:
        lib, r, args = self.lib, self.rng, self.lib.veo_args_alloc()
        for n in range(r.randrange(4)):
            kind = r.randrange(4)
            if kind == 0:
                lib.veo_args_set_u64(args, n, self.one_of(self.addresses))
            elif kind == 1:
                lib.veo_args_set_i32(args, n, r.randrange(-500, 500))
            elif kind == 2:
                lib.veo_args_set_u64(args, n, self.nonsense())
            else:
                size = r.randrange(200)
                lib.veo_args_set_stack(args, r.randrange(-1, 4), n, self.memory, size)
        if r.random() < 0.1:
            lib.veo_args_set_double(args, r.randrange(-5, 300), 1.5)
        return int(args)

    def host_function(self, context: int) -> Any:
        """It waits for nothing but its own process, or two of them might wait for each other."""
        kind, lib = self.rng.randrange(5), self.lib
        process = self.process_of.get(context, 0)

        @ve.VH_FUNCTION
        def run(_: int) -> int:
            if kind == 0:
                return int(lib.veo_num_contexts(process) & 0xFF)
            if kind == 1:
                return int(lib.veo_alloc_mem(process, ctypes.byref(ctypes.c_uint64()), 100) & 1)
            if kind == 2:
                return int(lib.veo_proc_destroy(process) & 1)  # refused
            if kind == 3:
                return int(lib.veo_context_close(context) & 1)  # likewise
            return int(lib.veo_async_read_mem(context, self.memory, 64, 64) & 1)

        self.host_functions.append(run)
        return run

    def call(self) -> None:
        lib, r, number = self.lib, self.rng, ctypes.byref(self.number)
        process, context = self.one_of(self.processes), self.one_of(self.contexts)
        address, function = self.one_of(self.addresses), self.one_of(self.functions)
        library, size = self.one_of(self.libraries), r.randrange(5000)
        request = None
        kind = r.randrange(24)
        if kind == 0 and len(self.processes) < 3:
            made = lib.veo_proc_create(r.randrange(-2, 3))
            self.keep(self.processes, made)
            lib.vesim_patience(made, 0.05)
        elif kind == 1 and r.random() < 0.1:
            if lib.veo_proc_destroy(process) == 0 and process in self.processes:
                self.processes.remove(process)
        elif kind == 2:
            self.keep(self.contexts, self.of(process, lib.veo_context_open(process)))
        elif kind == 3:
            made = lib.veo_get_context(process, r.randrange(-1, 9))
            self.keep(self.contexts, self.of(process, made))
        elif kind == 4 and r.random() < 0.2:
            lib.veo_context_close(context)
        elif kind == 5:
            lib.veo_context_sync(context)
            lib.veo_get_context_state(context)
        elif kind in (6, 7):
            if (
                lib.veo_alloc_mem(process, number, size if r.random() < 0.9 else self.nonsense())
                == 0
            ):
                self.keep(self.addresses, self.number.value)
        elif kind == 8:
            lib.veo_free_mem(process, address)
        elif kind == 9:
            lib.veo_read_mem(process, self.memory, address, size)
        elif kind == 10:
            lib.veo_write_mem(process, address, self.memory, size)
        elif kind == 11:
            request = lib.veo_async_read_mem(context, self.memory, address, size)
        elif kind == 12:
            request = lib.veo_async_write_mem(context, address, self.memory, size)
        elif kind == 13:
            request = lib.veo_alloc_mem_async(context, size)
        elif kind == 14:
            request = lib.veo_free_mem_async(context, address)
        elif kind == 15:
            self.keep(self.libraries, lib.veo_load_library(process, self.file))
        elif kind == 16 and r.random() < 0.2:
            lib.veo_unload_library(process, library)
        elif kind in (16, 17):
            name = r.choice(NAMES).encode()
            self.keep(self.functions, lib.veo_get_sym(process, library, name))
        elif kind in (18, 19, 20):
            args = self.arguments()
            if r.random() < 0.3:
                lib.veo_call_sync(process, function, args, number)
            elif r.random() < 0.3:
                name = r.choice(NAMES).encode()
                request = lib.veo_call_async_by_name(context, library, name, args)
            else:
                request = lib.veo_call_async(context, function, args)
            lib.veo_args_free(args)
        elif kind == 21:
            request = lib.veo_call_async_vh(context, self.host_function(context), None)
        elif kind == 22 and self.requests:
            one, its = r.choice(self.requests)
            wait = lib.veo_call_wait_result if r.random() < 0.5 else lib.veo_call_peek_result
            assert wait(one if r.random() < 0.9 else context, its, number) in range(4)
        elif kind == 23:
            lib.veo_req_block_begin(context)
            lib.vesim_memory_used(process)
            lib.vesim_last_fault(context)
            lib.veo_req_block_end(context)
        if request is not None and request != ve.INVALID_REQUEST:
            self.requests.append((context, request))
            del self.requests[:-100]


def run(seed: int, file: str) -> None:
    def calls(caller: Caller) -> None:
        for _ in range(CALLS):
            caller.call()

    threads = [threading.Thread(target=calls, args=(Caller(2 * seed + n, file),)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lib = ve.open_driver().lib
    for process in list(Caller.processes):
        lib.veo_proc_destroy(process)
    assert len(Caller.functions) > 20, "too little has happened"
    print("all well", flush=True)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_calls(seed: int, tmp_path: Path) -> None:
    file = compile_ve(tmp_path, "kernels.c", KERNELS, "-O1")
    environment = {**os.environ, "SOL_VE_DRIVER": "sim", "SOL_VE_CARDS": "2"}
    command = [sys.executable, "-X", "faulthandler", __file__, str(seed), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stdout) == (0, "all well\n"), done.stderr[-4000:]


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2])
