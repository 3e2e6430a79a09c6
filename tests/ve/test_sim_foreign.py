"""Code as others write it, on the simulator and on the host: programs.c, complex numbers, calls of
libm, kernels of intrinsics. What the smaller programs of test_sim_programs.py leave out.
"""

from __future__ import annotations

import ctypes
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from compiled import host_library, ve_object
from test_sim_programs import CTYPES, MASK, random_argument, result_bits

from sol_dynamo.ve import sim

SOURCE = Path(__file__).with_name("programs.c").read_text()
PROGRAMS = dict(re.findall(r"^/\*: (\w+) (\w+:\w) \*/$", SOURCE, re.MULTILINE))
WAYS = [("-O0", "-fcommon"), ("-O2", "-fPIC", "-ffunction-sections", "-fdata-sections"), ("-Os",)]


def compared(
    library: sim.Library, host: ctypes.CDLL, name: str, signature: str, times: int = 25
) -> str:
    """What differs for random arguments, of which many are special values; "" for nothing."""
    arguments, result = signature.split(":")
    function, rng = getattr(host, name), random.Random(name)
    function.argtypes, function.restype = [CTYPES[k] for k in arguments], CTYPES[result]
    machine = library.machine
    buffer = machine.allocate(256)
    for _ in range(times):
        data = bytearray(rng.randbytes(256))
        memory = (ctypes.c_char * 256).from_buffer(data)
        machine.write(buffer, bytes(data))
        values = [random_argument(k, rng) if k != "p" else None for k in arguments]
        mine = [
            buffer if v is None else sim.f32(v) if k == "f" else v
            for k, v in zip(arguments, values, strict=True)
        ]
        got = result_bits(result, library.call(name, *mine))
        want = function(*(ctypes.addressof(memory) if v is None else v for v in values))
        if result in "df":
            want = "nan" if math.isnan(want) else float(want).hex()
        else:
            want &= MASK if result in "lu" else 0xFFFFFFFF
        if got != want or machine.read(buffer, 256) != bytes(data):
            return f"{name}{values}: {got}, the host {want}\n"
    machine.release(buffer)
    return ""


@pytest.mark.parametrize("flags", WAYS, ids=" ".join)
def test_programs(flags: tuple[str, ...]) -> None:
    machine, host = sim.Machine(), host_library(SOURCE)
    machine.core.step_limit = 50_000_000
    library = machine.load_bytes(ve_object(SOURCE, "-w", *flags), "programs.o")
    wrong = "".join(compared(library, host, *program) for program in PROGRAMS.items())
    assert not wrong and len(PROGRAMS) > 50, wrong


COMPLEX = """
void products(double*p){_Complex double a,b;__real__ a=p[0];__imag__ a=p[1];__real__ b=p[2];
__imag__ b=p[3];_Complex double c=a*b,d=a/b;p[4]=__real__ c;p[5]=__imag__ c;p[6]=__real__ d;
p[7]=__imag__ d;_Complex float e,f;__real__ e=(float)p[0];__imag__ e=(float)p[1];
__real__ f=(float)p[2];__imag__ f=(float)p[3];e=e*f;p[8]=__real__ e;p[9]=__imag__ e;
__real__ e=(float)p[1];__imag__ e=(float)p[0];e=e/f;p[10]=__real__ e;p[11]=__imag__ e;}
"""


@pytest.mark.parametrize("flags", [("-O0",), ("-O2", "-fPIC")], ids=" ".join)
def test_complex_numbers(flags: tuple[str, ...]) -> None:
    """Annex G's infinities and zeros as the host's library has them, other numbers to an ulp or two
    (libraries scale divisors differently)."""
    machine, host = sim.Machine(), host_library(COMPLEX).products
    library = machine.load_bytes(ve_object(COMPLEX, "-w", *flags))
    host.argtypes = [ctypes.c_void_p]
    buffer, rng = machine.allocate(96), random.Random(7)
    special = [0.0, -0.0, 1.0, -2.5, math.inf, -math.inf, math.nan, 3.0, 1e10, -1e-10]
    for n in range(400):
        parts = [rng.choice(special) if n % 2 else rng.gauss(0, 3) for _ in range(4)]
        theirs = (ctypes.c_double * 12)(*parts)
        machine.write(buffer, bytes(theirs))
        library.call("products", buffer)
        host(ctypes.addressof(theirs))
        mine = (ctypes.c_double * 12).from_buffer_copy(machine.read(buffer, 96))
        for at, digits in ((4, 50), (6, 48), (8, 21), (10, 19)):
            got, want = complex(*mine[at : at + 2]), complex(*theirs[at : at + 2])
            where = (parts, at, got, want)
            if math.isinf(want.real) or math.isinf(want.imag):
                assert math.isinf(got.real) or math.isinf(got.imag), where
            elif want != want:
                assert got != got, where
            else:
                assert abs(got - want) <= 2.0**-digits * abs(want), where


def test_powers_by_integers() -> None:
    source = """double power(double x,int n){return __builtin_powi(x,n);}
    float powerf(float x,int n){return __builtin_powif(x,n);}"""
    machine = sim.Machine()
    library = machine.load_bytes(ve_object(source, "-O1"))
    for x in (2.0, -1.5, 0.0, -0.0, math.inf, 1.0):
        for n in (0, 1, 2, 5, -1, -3, 31):
            want = x**n if x or n >= 0 else math.copysign(math.inf, x if n % 2 else 1)
            assert result_bits("d", library.call("power", x, n)) == float(want).hex(), (x, n)
            single = float(np.float32(1 / np.float32(x**-n)) if x and n < 0 else np.float32(want))
            got = result_bits("f", library.call("powerf", sim.f32(x), n))
            assert got == single.hex() or (x, n) == (-1.5, 31), (x, n)  # that one is inexact
    assert result_bits("d", library.call("power", 2.0, -(2**31))) == "0x0.0p+0"
