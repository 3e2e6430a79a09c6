"""Code as others write it, on the simulator and on the host: programs.c, complex numbers, calls of
C's library, C++. What the smaller programs of test_sim_programs.py leave out.
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


STRINGS = """
unsigned long strlen(const char*),strnlen(const char*,unsigned long);
int strcmp(const char*,const char*),strncmp(const char*,const char*,unsigned long);
char*strcpy(char*,const char*),*strncpy(char*,const char*,unsigned long),*strchr(const char*,int);
void*memchr(const void*,int,unsigned long);
static long sign(int x){return (x>0)-(x<0);}
static long place(const void*p,const char*from){return p?(const char*)p-from:-1;}
long use(char*p){for(int i=0;i<256;i++)p[i]=(char)(p[i]&3?p[i]|64:p[i]&67);p[63]=p[127]=p[255]=0;
int n=p[200]&63;long r=(long)strlen(p)+100*(long)strnlen(p+64,(unsigned)n);
r+=10000*sign(strcmp(p,p+64))+20000*sign(strncmp(p,p+100,(unsigned)n%5));
r=r*7+sign(strcmp(p,p))+place(strchr(p,p[n]),p)*3+place(strchr(p+64,0),p);
r=r*7+place(memchr(p,p[n/2],(unsigned)n),p)+place(memchr(p,200,0),p);
r+=place(strcpy(p+128,p),p)+place(strncpy(p+192,p,(unsigned)n),p);return r;}
"""
LIBM = """
double frexp(double,int*),modf(double,double*),roundeven(double),exp10(double);
float frexpf(float,int*),modff(float,float*),roundevenf(float);
double parts(double x,float y){int e=0,f=0;double whole;float single;
double r=frexp(x,&e)+modf(x,&whole)*3;r+=(double)(frexpf(y,&f)+modff(y,&single)*2);
if(!(x==x&&x-x==0))e=0;if(!(y==y&&y-y==0))f=0;
return r+whole+(double)single+e*5+f*7+roundeven(x)+(double)roundevenf(y);}
"""


@pytest.mark.parametrize("flags", [("-O0",), ("-O2", "-fPIC")], ids=" ".join)
def test_library_functions(flags: tuple[str, ...]) -> None:
    machine = sim.Machine()
    strings = machine.load_bytes(ve_object(STRINGS, *flags))
    wrong = compared(strings, host_library(STRINGS), "use", "p:l", 200)
    libm = machine.load_bytes(ve_object(LIBM, *flags))
    host = LIBM.replace("roundeven", "nearbyint")  # not in every libm; the mode is to nearest
    assert not wrong + compared(libm, host_library(host), "parts", "df:d", 200)
    text = machine.allocate(4096)
    machine.write(text, b"x" * 4096)
    length = ve_object("long strlen(const char*); long f(char*p){return strlen(p);}", *flags)
    with pytest.raises(sim.Fault, match=r"in strlen\+0x0, called in f\+0x"):
        machine.load_bytes(length).call("f", text)


def test_new_delete_and_abstract_classes() -> None:
    source = """struct A{virtual int f()=0;virtual ~A(){}int n=2;};
    struct B:A{int f()override{return n*3;}};
    struct C{int x[100];C(){for(int&i:x)i=7;}}; A*made; static B fixed; unsigned long big=1ul<<60;
    extern "C" {int run(int n){A*a=new B;int r=a->f();delete a;C*c=new C[n];r+=c[n-1].x[99];
    delete[]c;A&b=fixed;return r+b.f();} char*much(){return new char[big];}}
    struct D{D();virtual void g()=0;void h(){g();}};struct E:D{void g()override{}};D::D(){h();}
    extern "C" void early(){E e;}"""
    machine = sim.Machine()
    library = machine.load_bytes(
        ve_object(source, "-O1", "-fno-exceptions", "-fno-rtti", suffix=".cpp")
    )
    used = machine.memory_used
    assert library.call("run", 5) == 6 + 7 + 6 and machine.memory_used == used
    with pytest.raises(sim.Fault, match="no memory for 1152921504606846976 bytes"):
        library.call("much")
    with pytest.raises(sim.Fault, match="a pure virtual function was called"):
        library.call("early")
