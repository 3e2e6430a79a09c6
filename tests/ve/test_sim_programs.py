"""Compiled C programs on the simulator against the same C on the host; loading of files.

Results are compared bit by bit (a NaN equals a NaN) for random arguments with the odd ones among
them. Code is compiled without and with optimization, position-independent and not.
"""

from __future__ import annotations

import ctypes
import math
import random
import struct
from typing import Any

import numpy as np
import pytest
from compiled import host_library, ve_object

from sol_dynamo.ve import sim

MASK = (1 << 64) - 1

# name: types of the arguments and the result (l, u: 64 bits; i, v: 32 bits, signed and not; d, f;
# p: a buffer of 256 bytes, compared after the call), then the function
PROGRAMS = {
    "fib": ("i:i", "int fib(int n){n&=15;return n<2?n:fib(n-1)+fib(n-2);}"),
    "collatz": (
        "u:i",
        "int collatz(u64 n){int c=0;n=(n&0xffff)+1;while(n!=1){n=n%2?3*n+1:n/2;c++;}return c;}",
    ),
    "mix": ("uu:u", "u64 mix(u64 a,u64 b){u64 r=a*b+(a>>7)-(b<<3);r^=a/(b|1);return r+a%(b|1);}"),
    "mixs": (
        "ll:l",
        "i64 mixs(i64 a,i64 b){i64 r=(i64)((u64)a-(u64)b);b|=1;if(b!=-1)r^=a/b-a%b;"
        "return r^(a>>5)^(i64)((u64)a<<9);}",
    ),
    "words": (
        "ii:i",
        "int words(int a,int b){unsigned u=(unsigned)a*(unsigned)b+(unsigned)a;b|=1;"
        "if(b!=-1)u^=(unsigned)(a/b+a%b);return (int)(u^(unsigned)(a>>3)^((unsigned)b<<5));}",
    ),
    "unsigneds": (
        "vv:v",
        "unsigned unsigneds(unsigned a,unsigned b){b|=1;return a/b*3+a%b-(a>>(b&31))+(a<b);}",
    ),
    "orders": (
        "lluu:i",
        "int orders(i64 a,i64 b,u64 c,u64 d){return (a<b)+2*(a<=b)+4*(a>b)+8*(a==b)+16*(c<d)"
        "+32*(c>=d)+64*((int)a<(int)b)+128*((unsigned)c>(unsigned)d);}",
    ),
    "floats": (
        "ffdd:i",
        "int floats(float a,float b,double c,double d){return (a<b)+2*(a<=b)+4*(a==b)+8*(a!=b)"
        "+16*(c<d)+32*(c>=d)+64*(c!=d)+128*(a>(float)d)+256*!(c<=d)+512*(a!=a);}",
    ),
    "arithmetic": (
        "dd:d",
        "double arithmetic(double a,double b){double r=a*b+a/b-(a-b)*(b+0.5);return r<0?-r*a:r/b;}",
    ),
    "singles": ("ff:f", "float singles(float a,float b){return a*b+a/b-(a-b)*(b+0.5f);}"),
    "select": (
        "ddff:d",
        "double select(double a,double b,float c,float d){return (a>b?a:b)+(c<d?c:d)-(a==0?b:a);}",
    ),
    "to_integers": (
        "df:l",
        # only what fits: else the result is C's undefined one
        "i64 to_integers(double d,float f){if(!(d>-1e9&&d<1e9))d=3.75;if(!(f>-1e9f&&f<1e9f))f=-3;"
        "return (i64)d+(int)f*3ll+(i64)(u64)(d<0?-d:d)+(unsigned)(f<0?-f:f)+(short)(int)d;}",
    ),
    "from_integers": (
        "luiv:d",
        "double from_integers(i64 a,u64 b,int c,unsigned d){return (double)a+(double)b*3+(double)c"
        "-(float)(short)c+(double)d;}",
    ),
    "narrow": ("d:f", "float narrow(double d){return (float)d;}"),
    "widen": ("f:d", "double widen(float f){return f;}"),
    "switches": (
        "i:i",
        "int switches(int x){switch(x&15){case 0:return 5;case 1:return -7;case 2:return 11;case 3:"
        "return 99;case 4:return 3;case 5:return 77;case 9:return x;default:return -1;}}",
    ),
    "bits": (
        "u:u",
        "u64 bits(u64 x){return __builtin_popcountll(x)*1000+__builtin_clzll(x|1)*10"
        "+__builtin_ctzll(x|1ull<<63)+(__builtin_bswap64(x)^__builtin_bswap32((unsigned)x)"
        "^__builtin_bswap16((unsigned short)x));}",
    ),
    "wide": (
        "ll:l",
        "i64 wide(i64 a,i64 b){i128 p=(i128)a*b;u128 q=(u128)a*(u64)b;p+=(i128)a<<(b&63);"
        "i64 s=(i64)(p>>(a&127))^(i64)(q>>77);i128 d=((i128)b<<40|5);"
        "return s^(i64)(p/d)^(i64)(p%d)^(i64)(q/(u128)d);}",
    ),
    "wide_floats": (
        "ldf:d",
        "double wide_floats(i64 a,double d,float f){if(!(d>-1e30&&d<1e30))d=7;if(!(f>0&&f<1e30f))"
        "f=3;return (double)((i128)a*a)+(double)(i64)((i128)d>>3)+(float)(u128)f;}",
    ),
    "structs": (
        "id:d",
        "struct P{int a;double b;char c[5];short s;}; NOINLINE static struct P made(int a,double b)"
        "{struct P p={a,b,{1,2,3,4,5},(short)a};return p;} double structs(int a,double b)"
        "{struct P p=made(a,b),q=p;q.c[2]+=3;return p.a*q.b+q.c[2]+q.s;}",
    ),
    "bytes": (
        "p:v",
        "unsigned bytes(unsigned char*p){unsigned s=0;for(int i=0;i<255;i++){p[i]^=(unsigned char)i"
        ";s=s*31+p[i]+(signed char)p[i+1];}return s;}",
    ),
    "shorts": (
        "p:i",
        "int shorts(short*p){int s=0;for(int i=0;i<128;i++){p[i]=(short)(p[i]*3);"
        "s+=p[i]-(unsigned short)p[i];}return s;}",
    ),
    "odd_places": (  # scalar accesses need no alignment
        "p:u",
        "u64 odd_places(char*p){u64 a;int b;__builtin_memcpy(&a,p+3,8);__builtin_memcpy(&b,p+13,4);"
        "a+=b;__builtin_memcpy(p+21,&a,8);return a;}",
    ),
    "sort": (
        "p:i",
        "int sort(int*p){int n=0;for(int i=1;i<64;i++)for(int j=i;j>0&&p[j-1]>p[j];j--){int t=p[j];"
        "p[j]=p[j-1];p[j-1]=t;n++;}return n;}",
    ),
    "matrix": (
        "p:d",
        "double matrix(double*p){double s=0;for(int i=0;i<32;i++)if(!(p[i]>-1e3&&p[i]<1e3))p[i]=i;"
        "for(int i=0;i<4;i++)for(int j=0;j<4;j++)for(int k=0;k<4;k++)s+=p[4*i+k]*p[16+4*k+j];"
        "return s;}",
    ),
    "data": (
        "i:i",
        "static const int table[5]={1,10,100,1000,10000};static int zero;int common_;int set_=7;"
        'static const char*const text[3]={"a","bcd","ef"};static int(*const way[2])(int)='
        "{fib,switches}; int data(int i){unsigned k=(unsigned)i%5;zero+=table[k];int r=zero;zero=0;"
        "common_+=2;r+=common_;common_=0;return r+set_+text[k%3][0]+way[k&1](i);}",
    ),
    "many": (
        "lliiddffll:d",
        "NOINLINE static double ten(i64 a,i64 b,int c,int d,double e,double f,float g,float h,"
        "i64 i,double j,float k,int l){return (double)a+2.*(double)b+3.*c+4.*d+e*.5+f+g-h+(double)i"
        "*6+j/3+k*2+l;} double many(i64 a,i64 b,int c,int d,double e,double f,float g,float h,"
        "i64 i,i64 j){return ten(a,b,c,d,e,f,g,h,i,e-f,g*2,(int)j)+(double)j;}",
    ),
    "variable": (
        "i:i",
        "int variable(int n){n=(n&31)+1;int b[n];for(int i=0;i<n;i++)b[i]=i*i-n;int s=0;"
        "for(int i=0;i<n;i++)s+=b[i]*(i&1?1:-1);return s;}",
    ),
    "atomics": (
        "pi:i",
        "int atomics(int*p,int v){int r=__atomic_exchange_n(p,v,5);r^=__atomic_fetch_add(p+1,v,5);"
        "r^=__atomic_fetch_or(p+2,v,5);int e=p[3];r+=__atomic_compare_exchange_n(p+3,&e,v,0,5,5);"
        "e=v+1;r+=__atomic_compare_exchange_n(p+3,&e,9,0,5,5)*2;unsigned char*c=(unsigned char*)"
        "(p+4);r+=__atomic_exchange_n(c+1,(unsigned char)v,5);i64*l=(i64*)(p+6);"
        "__atomic_fetch_xor(l,(i64)v<<7,5);return r+(int)__atomic_exchange_n(l,v,5);}",
    ),
}
HEADER = """
typedef long long i64; typedef unsigned long long u64;
typedef __int128 i128; typedef unsigned __int128 u128;
#define NOINLINE __attribute__((noinline))
"""
SOURCE = HEADER + "\n".join(text for _, text in PROGRAMS.values())
CTYPES: dict[str, Any] = {
    "l": ctypes.c_int64, "u": ctypes.c_uint64, "i": ctypes.c_int32, "v": ctypes.c_uint32,
    "d": ctypes.c_double, "f": ctypes.c_float, "p": ctypes.c_void_p,
}  # fmt: skip
WAYS = [("-O0", "-fPIC"), ("-O1",), ("-O2", "-fPIC"), ("-O3",)]
EDGES = [0, 1, -1, 2, 7, 63, 64, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63), 2**53 + 1]
NUMBERS = [0.0, -0.0, 1.0, -1.5, math.inf, -math.inf, math.nan, 5e-324, -1e-310, 1e308, 1e-40, 2.5,
           0.1, 16777217.0, 3.4e38, 1e39]  # fmt: skip


def random_argument(kind: str, rng: random.Random) -> Any:
    if kind in "df":
        number = rng.gauss(0, 10 ** rng.uniform(-3, 6))
        if rng.random() < 0.5:
            number = rng.choice(NUMBERS)
        with np.errstate(over="ignore"):
            return np.float32(number).item() if kind == "f" else number
    bits = 64 if kind in "lu" else 32
    number = rng.getrandbits(rng.randrange(1, bits + 1))
    if rng.random() < 0.4:
        number = rng.choice(EDGES)
    number = (-number if rng.random() < 0.3 else number) & (1 << bits) - 1
    return number - (1 << bits) if kind in "li" and number >> (bits - 1) else number


def result_bits(kind: str, s0: int) -> Any:
    """What a register means as a result, so that equal results are equal objects."""
    if kind == "d":
        number = struct.unpack("<d", struct.pack("<Q", s0))[0]
    elif kind == "f":
        number = struct.unpack("<f", struct.pack("<I", s0 >> 32))[0]
    else:
        return s0 & (MASK if kind in "lu" else 0xFFFFFFFF)
    return "nan" if math.isnan(number) else number.hex()


@pytest.fixture(scope="module", params=WAYS, ids=" ".join)
def library(request: pytest.FixtureRequest) -> sim.Library:
    machine = sim.Machine()
    machine.core.step_limit = 10_000_000
    return machine.load_bytes(ve_object(SOURCE, *request.param), "programs.o")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, library: sim.Library) -> None:
    arguments, result = PROGRAMS[name][0].split(":")
    host = getattr(host_library(SOURCE), name)
    host.argtypes, host.restype = [CTYPES[k] for k in arguments], CTYPES[result]
    machine, rng = library.machine, random.Random(name)
    buffer = machine.allocate(256)
    for _ in range(25):
        data = bytearray(rng.randbytes(256))
        memory = (ctypes.c_char * 256).from_buffer(data)
        machine.write(buffer, bytes(data))
        values = [random_argument(k, rng) if k != "p" else None for k in arguments]
        mine = [
            buffer if k == "p" else sim.f32(v) if k == "f" else v
            for k, v in zip(arguments, values, strict=True)
        ]
        theirs = [ctypes.addressof(memory) if v is None else v for v in values]
        got = result_bits(result, library.call(name, *mine))
        expected = host(*theirs)
        if result in "df":
            want = "nan" if math.isnan(expected) else float(expected).hex()
        else:
            want = expected & (MASK if result in "lu" else 0xFFFFFFFF)
        assert got == want, (name, values)
        assert machine.read(buffer, 256) == bytes(data), (name, values)
    machine.release(buffer)


QUAD = """
#ifdef __ve__
typedef long double quad;
#elif defined(__SIZEOF_FLOAT128__)
typedef __float128 quad;
#else
typedef long double quad;
#endif
void quads(quad*p){quad a=p[0],b=p[1];p[2]=a+b;p[3]=a-b;p[4]=a*b;p[5]=a/b;
p[6]=(quad)(double)a;p[7]=(quad)(float)b;p[8]=a<b?a:b;p[9]=(quad)(a==b)+(quad)(a!=b)*2+(a>=b)*4;
p[10]=-a;double d=(double)b;if(!(d>-1e9&&d<1e9))d=5;p[11]=(quad)(long long)((quad)d*a/a);}
"""


@pytest.mark.parametrize("flags", [("-O0",), ("-O2", "-fPIC")], ids=" ".join)
def test_quadruple_precision(flags: tuple[str, ...]) -> None:
    machine = sim.Machine()
    library = machine.load_bytes(ve_object(QUAD, *flags))
    host, rng = host_library(QUAD).quads, random.Random(1)
    host.argtypes = [ctypes.c_void_p]
    buffer = machine.allocate(192)
    for _ in range(100):
        data = bytearray(192)
        for n in (0, 16):  # sign and exponent, then the fraction
            exponent = rng.choice(
                [0x3FFF, 0x4001, 0x3FC0, 0x4030, rng.randrange(0x3F00, 0x4100), 0]
            )
            high = rng.getrandbits(1) << 63 | exponent << 48 | rng.getrandbits(48)
            data[n : n + 16] = struct.pack("<QQ", rng.getrandbits(64), high)
        machine.write(buffer, bytes(data))
        library.call("quads", buffer)
        host(ctypes.addressof((ctypes.c_char * 192).from_buffer(data)))
        got = machine.read(buffer, 192)
        for n in range(0, 192, 16):
            mine, theirs = (int.from_bytes(x[n : n + 16], "little") for x in (got, bytes(data)))
            nans = [x >> 112 & 0x7FFF == 0x7FFF and x & (1 << 112) - 1 != 0 for x in (mine, theirs)]
            assert mine == theirs or all(nans), (n // 16, hex(mine), hex(theirs))


VECTORS = """
#include <velintrin.h>
typedef long i64;
void fma_f32(float*x,float*y,float*z,int n){for(int i=0;i<n;i+=256){int vl=n-i<256?n-i:256;
__vr a=_vel_vldu_vssl(4,x+i,vl),b=_vel_vldu_vssl(4,y+i,vl);
_vel_vstu_vssl(_vel_vfmads_vvvvl(a,a,b,vl),4,z+i,vl);}}
void fma_packed(float*x,float*y,float*z,int n){for(int i=0;i<n;i+=512){int vl=n-i<512?(n-i)/2:256;
__vr a=_vel_vld_vssl(8,x+i,vl),b=_vel_vld_vssl(8,y+i,vl);
_vel_vst_vssl(_vel_pvfmad_vvvvl(a,a,b,vl),8,z+i,vl);}}
double dot(double*x,double*y,i64 n){__vr s=_vel_vbrdd_vsl(0.0,256);for(i64 i=0;i<n;i+=256){
int vl=n-i<256?n-i:256;
s=_vel_vfmadd_vvvvvl(s,_vel_vld_vssl(8,x+i,vl),_vel_vld_vssl(8,y+i,vl),s,vl);}
return _vel_lvsd_svs(_vel_vfsumd_vvl(s,256),0);}
void relu(float*x,float*y,int n){for(int i=0;i<n;i+=256){int vl=n-i<256?n-i:256;
__vr a=_vel_vldu_vssl(4,x+i,vl);__vm256 m=_vel_vfmksgt_mvl(a,vl);
_vel_vstu_vssl(_vel_vmrg_vvvml(_vel_vbrds_vsl(0.f,vl),a,m,vl),4,y+i,vl);}}
void table(double*t,i64*index,double*y,int n){__vr at=_vel_vsfa_vvssl(_vel_vld_vssl(8,index,n),3,
(unsigned long)t,n);_vel_vst_vssl(_vel_vgt_vvssl(at,0,0,n),8,y,n);_vel_vsc_vvssl(_vel_vseq_vl(n),at,
0,0,n);}
"""


def test_vector_programs() -> None:
    machine = sim.Machine()
    library = machine.load_bytes(ve_object(VECTORS, "-O2", "-fPIC"))
    rng = np.random.default_rng(2)
    x, y, z = (machine.allocate(8 << 10) for _ in range(3))
    for n in (1, 2, 7, 256, 258, 700, 1000):
        a, b = rng.standard_normal((2, n)).astype(np.float32)
        fused = (a.astype(np.float64) * b + a).astype(np.float32)  # exact in double, then rounded
        for name in ("fma_f32", "fma_packed"):
            if name == "fma_packed" and n % 2:
                continue
            machine.write(x, a.tobytes())
            machine.write(y, b.tobytes())
            machine.write(z, bytes(8 << 10))
            library.call(name, x, y, z, n)
            np.testing.assert_array_equal(np.frombuffer(machine.read(z, 4 * n), np.float32), fused)
            assert not any(machine.read(z + 4 * n, 64)), "written past the end"
        library.call("relu", x, z, n)
        relu = np.frombuffer(machine.read(z, 4 * n), np.float32)
        np.testing.assert_array_equal(relu, np.maximum(a, 0))
        c, d = rng.standard_normal((2, n))
        machine.write(x, c.tobytes())
        machine.write(y, d.tobytes())
        s0 = library.call("dot", x, y, n)
        dot = struct.unpack("<d", s0.to_bytes(8, "little"))[0]
        assert abs(dot - math.fsum(c * d)) <= n * 2.0**-52 * np.abs(c * d).sum()
    table, index = rng.standard_normal(100), rng.permutation(100)[:77]
    machine.write(x, table.tobytes())
    machine.write(y, index.astype(np.int64).tobytes())
    library.call("table", x, y, z, 77)
    np.testing.assert_array_equal(np.frombuffer(machine.read(z, 8 * 77)), table[index])
    scattered = np.frombuffer(machine.read(x, 800), np.int64)
    np.testing.assert_array_equal(scattered[index], np.arange(77))
