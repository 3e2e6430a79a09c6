// See host.h. The functions' results are those of the host's libm and compiler: a machine with its
// own libm may differ in the last bit, so kernels that must not depend on that bring their own.
#include "host.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <vector>

#include "operations.h"
#include "quad.h"
#include "trap.h"

namespace vesim {
namespace {

// --- arguments and results -----------------------------------------------------------------------
// The ABI: integers of less than 64 bits are extended by the caller or not at all (only their own
// bits are read), floats lie in upper halves, 128-bit numbers in two registers.

template <class T> T argument(const Core& core, unsigned n) { return static_cast<T>(core.s[n]); }
template <> float argument<float>(const Core& core, unsigned n) { return upper_float(core.s[n]); }
template <> double argument<double>(const Core& core, unsigned n) {
  return bits_as<double>(core.s[n]);
}
template <> Quad argument<Quad>(const Core& core, unsigned n) { return quad_in(core, n); }
template <> u128 argument<u128>(const Core& core, unsigned n) {
  return static_cast<u128>(core.s[n + 1]) << 64 | core.s[n];
}
template <> i128 argument<i128>(const Core& core, unsigned n) {
  return static_cast<i128>(argument<u128>(core, n));
}

template <class T> void give(Core& core, T value) { core.s[0] = static_cast<uint64_t>(value); }
void give(Core& core, float value) { core.s[0] = from_upper_float(value); }
void give(Core& core, double value) { core.s[0] = bits_as<uint64_t>(value); }
void give(Core& core, Quad value) { set_quad(core, 0, value); }
void give(Core& core, u128 value) {
  core.s[0] = static_cast<uint64_t>(value);
  core.s[1] = static_cast<uint64_t>(value >> 64);
}
void give(Core& core, i128 value) { give(core, static_cast<u128>(value)); }
void give(Core& core, int32_t value) { core.s[0] = static_cast<uint64_t>(int64_t{value}); }

template <class T> constexpr unsigned registers() { return sizeof(T) == 16 ? 2 : 1; }

// Calls a host function with arguments of these types.
template <class R, class A, R F(A)>
void call1(Core& core) { give(core, F(argument<A>(core, 0))); }
template <class R, class A, class B, R F(A, B)>
void call2(Core& core) {
  give(core, F(argument<A>(core, 0), argument<B>(core, registers<A>())));
}
template <class R, class A, R F(A, A, A)>
void call3(Core& core) {
  give(core, F(argument<A>(core, 0), argument<A>(core, 1), argument<A>(core, 2)));
}

// --- memory --------------------------------------------------------------------------------------

void copy(Core& core) {  // memcpy and memmove: s0 stays, it is the result
  const uint64_t bytes = core.s[2];
  if (bytes == 0) return;
  const uint8_t* from = access(core, core.s[1], bytes, Memory::kRead, 1);
  std::memmove(access(core, core.s[0], bytes, Memory::kWrite, 1), from, bytes);
}
void fill(Core& core) {
  const uint64_t bytes = core.s[2];
  if (bytes == 0) return;
  std::memset(access(core, core.s[0], bytes, Memory::kWrite, 1), static_cast<int>(core.s[1]),
              bytes);
}
void clear(Core& core) {
  const uint64_t bytes = core.s[1];
  if (bytes != 0) std::memset(access(core, core.s[0], bytes, Memory::kWrite, 1), 0, bytes);
}
void differ(Core& core) {
  const uint64_t bytes = core.s[2];
  int32_t result = 0;
  if (bytes != 0) {
    const uint8_t* a = access(core, core.s[0], bytes, Memory::kRead, 1);
    result = std::memcmp(a, access(core, core.s[1], bytes, Memory::kRead, 1), bytes);
  }
  give(core, result);
}
uint8_t byte_at(Core& core, uint64_t address) {
  return *access(core, address, 1, Memory::kRead, 1);
}
uint64_t string_length(Core& core, uint64_t address, uint64_t most = ~uint64_t{0}) {
  uint64_t n = 0;
  while (n < most && byte_at(core, address + n) != 0) ++n;
  return n;
}
void length(Core& core) { core.s[0] = string_length(core, core.s[0]); }
void length_at_most(Core& core) { core.s[0] = string_length(core, core.s[0], core.s[1]); }
template <bool kAtMost>
void strings_differ(Core& core) {
  const uint64_t most = kAtMost ? core.s[2] : ~uint64_t{0};
  int32_t difference = 0;
  for (uint64_t n = 0; n < most; ++n) {
    const uint8_t a = byte_at(core, core.s[0] + n), b = byte_at(core, core.s[1] + n);
    difference = int32_t{a} - b;
    if (difference != 0 || a == 0) break;
  }
  give(core, difference);
}
void copy_string(Core& core) {
  const uint64_t bytes = string_length(core, core.s[1]) + 1;
  const uint8_t* from = access(core, core.s[1], bytes, Memory::kRead, 1);
  std::memmove(access(core, core.s[0], bytes, Memory::kWrite, 1), from, bytes);
}
void copy_string_at_most(Core& core) {  // filled up with zeros
  const uint64_t bytes = core.s[2], used = string_length(core, core.s[1], bytes);
  if (bytes == 0) return;
  uint8_t* to = access(core, core.s[0], bytes, Memory::kWrite, 1);
  if (used != 0) std::memmove(to, access(core, core.s[1], used, Memory::kRead, 1), used);
  std::memset(to + used, 0, bytes - used);
}
template <bool kString>
void find_byte(Core& core) {
  const uint64_t most = kString ? ~uint64_t{0} : core.s[2];
  for (uint64_t n = 0; n < most; ++n) {
    const uint8_t byte = byte_at(core, core.s[0] + n);
    if (byte == static_cast<uint8_t>(core.s[1])) {
      core.s[0] += n;
      return;
    }
    if (kString && byte == 0) break;
  }
  core.s[0] = 0;
}
void make(Core& core) { core.s[0] = core.memory().allocate(core.s[0]); }
void make_zeros(Core& core) {
  uint64_t bytes = 0;
  core.s[0] = __builtin_mul_overflow(core.s[0], core.s[1], &bytes) ? 0
                                                                   : core.memory().allocate(bytes);
}
void release(Core& core) {
  if (core.s[0] != 0 && !core.memory().release(core.s[0])) {
    core.raise(Trap::HostFunction, core.s[0], "free of an address that malloc did not return");
  }
}
void stop(Core& core) { core.raise(Trap::HostFunction, 0, "the program called abort"); }
void make_or_stop(Core& core) {  // C++'s new, which has no exception to throw
  const uint64_t bytes = core.s[0];
  make(core);
  if (core.s[0] == 0) {
    core.raise(Trap::HostFunction, 0, "new: no memory for " + std::to_string(bytes) + " bytes");
  }
}
void pure_virtual(Core& core) {
  core.raise(Trap::HostFunction, 0, "a pure virtual function was called");
}
// A program here has no end at which its destructors would run: to register them does nothing.
void register_destructor(Core& core) { core.s[0] = 0; }

// __ve_grow_stack(bytes) and __ve_grow_stack_align(bytes, mask) of the compiler's run-time library
// make room on the stack for alloca and arrays of variable length; only s62 and s63 may change.
template <bool kAlign>
void grow_stack(Core& core) {
  uint64_t sp = core.s[11] - core.s[0];
  if (kAlign) sp &= core.s[1];
  if (sp < core.stack_low() || sp > core.s[11]) {
    core.raise(Trap::StackOverflow, sp,
               "an array of " + std::to_string(core.s[0]) + " bytes does not fit on the stack");
  }
  core.s[11] = sp;
}
// All thread-local memory lies behind s14; the pair that s0 points to holds its offset there.
void thread_local_address(Core& core) {
  uint64_t offset = 0;
  std::memcpy(&offset, access(core, core.s[0] + 8, 8, Memory::kRead, 8), 8);
  core.s[0] = core.thread_pointer() + kThreadStorageOffset + offset;
}

// --- the compiler's run-time library -------------------------------------------------------------

template <class T> T quotient_of(T a, T b) { return b == 0 ? T{0} : a / b; }
template <class T> T remainder_of(T a, T b) { return b == 0 ? T{0} : a % b; }
template <class T, T F(T, T)>
void divide_wide(Core& core) {
  const T divisor = argument<T>(core, 2);
  if (divisor == 0) core.raise(Trap::DivideByZero);
  give(core, F(argument<T>(core, 0), divisor));
}
u128 multiply_wide(u128 a, u128 b) { return a * b; }
u128 shift_wide_left(u128 a, int b) { return a << (b & 127); }
u128 shift_wide_right(u128 a, int b) { return a >> (b & 127); }
i128 shift_wide_arithmetic(i128 a, int b) { return a >> (b & 127); }

// Products and quotients of complex numbers, by C's Annex G (as compiler-rt): where both parts come
// out as NaN, an infinite operand, or a product that overflowed, still gives an infinity. Operands
// are four registers, the result two.
template <class F>
void recover(F& part) { part = std::copysign(std::isinf(part) ? F{1} : F{0}, part); }
template <class F>
void give_complex(Core& core, F real, F imaginary) {
  give(core, imaginary);
  core.s[1] = core.s[0];
  give(core, real);
}
template <class F>
void multiply_complex(Core& core) {
  F a = argument<F>(core, 0), b = argument<F>(core, 1), c = argument<F>(core, 2),
    d = argument<F>(core, 3);
  const F ac = a * c, bd = b * d, ad = a * d, bc = b * c;
  F real = ac - bd, imaginary = ad + bc;
  if (std::isnan(real) && std::isnan(imaginary)) {
    const auto zero_if_nan = [](F& part) {
      if (std::isnan(part)) part = std::copysign(F{0}, part);
    };
    bool again = false;
    if (std::isinf(a) || std::isinf(b)) {
      recover(a), recover(b), zero_if_nan(c), zero_if_nan(d);
      again = true;
    }
    if (std::isinf(c) || std::isinf(d)) {
      recover(c), recover(d), zero_if_nan(a), zero_if_nan(b);
      again = true;
    }
    if (!again && (std::isinf(ac) || std::isinf(bd) || std::isinf(ad) || std::isinf(bc))) {
      zero_if_nan(a), zero_if_nan(b), zero_if_nan(c), zero_if_nan(d);
      again = true;
    }
    if (again) {
      real = std::numeric_limits<F>::infinity() * (a * c - b * d);
      imaginary = std::numeric_limits<F>::infinity() * (a * d + b * c);
    }
  }
  give_complex(core, real, imaginary);
}
template <class F>
void divide_complex(Core& core) {
  F a = argument<F>(core, 0), b = argument<F>(core, 1), c = argument<F>(core, 2),
    d = argument<F>(core, 3);
  const F scale = std::logb(std::fmax(std::fabs(c), std::fabs(d)));
  int exponent = 0;
  if (std::isfinite(scale)) {
    exponent = static_cast<int>(scale);
    c = std::scalbn(c, -exponent);
    d = std::scalbn(d, -exponent);
  }
  const F square = c * c + d * d;
  F real = std::scalbn((a * c + b * d) / square, -exponent);
  F imaginary = std::scalbn((b * c - a * d) / square, -exponent);
  if (std::isnan(real) && std::isnan(imaginary)) {
    const F infinity = std::numeric_limits<F>::infinity();
    if (square == 0 && (!std::isnan(a) || !std::isnan(b))) {
      real = std::copysign(infinity, c) * a;
      imaginary = std::copysign(infinity, c) * b;
    } else if ((std::isinf(a) || std::isinf(b)) && std::isfinite(c) && std::isfinite(d)) {
      recover(a), recover(b);
      real = infinity * (a * c + b * d);
      imaginary = infinity * (b * c - a * d);
    } else if (std::isinf(scale) && scale > 0 && std::isfinite(a) && std::isfinite(b)) {
      recover(c), recover(d);
      real = F{0} * (a * c + b * d);
      imaginary = F{0} * (b * c - a * d);
    }
  }
  give_complex(core, real, imaginary);
}

// Conversions that have no instruction. Out of range is undefined in C: here it saturates.
template <class To> constexpr bool kSigned = To(-1) < To(0);
template <class To> constexpr To kMost = static_cast<To>(
    (kSigned<To> ? u128{1} << (8 * sizeof(To) - 1) : u128{1} << (8 * sizeof(To) - 1) << 1) - 1);
template <class To> constexpr To kLeast = kSigned<To> ? static_cast<To>(-kMost<To> - 1) : To(0);

template <class To, class From>
To converted(From x) {
  if constexpr (std::is_same_v<From, Quad>) {
    const Whole128 whole = quad_whole(x);
    if (!whole.negative) {
      return static_cast<To>(std::min(whole.magnitude, static_cast<u128>(kMost<To>)));
    }
    const u128 most = kSigned<To> ? static_cast<u128>(kMost<To>) + 1 : 0;
    return static_cast<To>(u128{0} - std::min(whole.magnitude, most));
  } else {
    if (x != x) return 0;
    if (x >= static_cast<From>(kMost<To>)) return kMost<To>;
    if (x <= static_cast<From>(kLeast<To>)) return kLeast<To>;
    return static_cast<To>(x);
  }
}
template <class To, class From>
To exact(From x) {
  if constexpr (std::is_same_v<To, Quad>) {
    const bool negative = x < From(0);
    const auto bits = static_cast<u128>(x);
    return quad_of_integer(negative, negative ? u128{0} - bits : bits);
  } else {
    return static_cast<To>(x);
  }
}

float half_to_float(uint32_t h) {
  const uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
  if (exponent == 31) return bits_as<float>(sign | 0x7f800000 | fraction << 13);
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(fraction | 0x400),
                                           static_cast<int>(exponent) - 25);
  return bits_as<float>(bits_as<uint32_t>(magnitude) | sign);
}
// Rounds to nearest even, from double, so that both floats and doubles round once.
uint32_t double_to_half(double x) {
  const auto sign = static_cast<uint32_t>(bits_as<uint64_t>(x) >> 48 & 0x8000);
  if (x != x) return sign | 0x7e00;
  const double a = std::fabs(x);
  if (a >= 65520) return sign | 0x7c00;
  int exponent = 0;
  std::frexp(a, &exponent);
  const int shift = std::max(exponent, -13) - 11;  // of the last bit that half precision holds
  const double units = rounded<kEven>(std::ldexp(a, -shift));
  const double back = std::ldexp(units, shift);
  if (back == 0) return sign;
  std::frexp(back, &exponent);
  if (exponent < -13) return sign | static_cast<uint32_t>(std::ldexp(back, 24));
  const auto fraction = static_cast<uint32_t>(std::ldexp(back, 11 - exponent)) & 0x3ff;
  return back >= 65536 ? sign | 0x7c00
                       : sign | static_cast<uint32_t>(exponent + 14) << 10 | fraction;
}
template <class F>
F integer_power(F x, int n) {  // by repeated squaring, as the compiler's library
  const bool inverse = n < 0;
  F power{1};
  for (unsigned k = inverse ? 0u - static_cast<unsigned>(n) : static_cast<unsigned>(n); k != 0;) {
    if (k % 2 != 0) power *= x;
    k /= 2;
    if (k != 0) x *= x;
  }
  return inverse ? F{1} / power : power;
}
template <class F> F power_of_ten(F x) { return static_cast<F>(std::pow(10.0, double{x})); }
template <class F>
void exponent_apart(Core& core) {
  int32_t exponent = 0;
  uint8_t* to = access(core, core.s[1], sizeof exponent, Memory::kWrite, 1);
  give(core, std::frexp(argument<F>(core, 0), &exponent));
  std::memcpy(to, &exponent, sizeof exponent);
}
template <class F>
void whole_apart(Core& core) {
  F whole{};
  uint8_t* to = access(core, core.s[1], sizeof whole, Memory::kWrite, 1);
  give(core, std::modf(argument<F>(core, 0), &whole));
  std::memcpy(to, &whole, sizeof whole);
}
uint32_t float_to_half(float x) { return double_to_half(static_cast<double>(x)); }

// --- the table -----------------------------------------------------------------------------------

#define MATH1(name)                                                                   \
  {#name, call1<double, double, ::name>}, {#name "f", call1<float, float, ::name##f>}
#define MATH2(name)                                                                   \
  {#name, call2<double, double, double, ::name>},                                     \
  {#name "f", call2<float, float, float, ::name##f>}
#define ROUND_TO(name, R)                                                             \
  {#name, call1<R, double, ::name>}, {#name "f", call1<R, float, ::name##f>}
#define FIX(suffix, F)                                                                \
  {"__fix" suffix "si", call1<int32_t, F, converted<int32_t, F>>},                    \
  {"__fix" suffix "di", call1<int64_t, F, converted<int64_t, F>>},                    \
  {"__fix" suffix "ti", call1<i128, F, converted<i128, F>>},                          \
  {"__fixuns" suffix "si", call1<uint32_t, F, converted<uint32_t, F>>},               \
  {"__fixuns" suffix "di", call1<uint64_t, F, converted<uint64_t, F>>},               \
  {"__fixuns" suffix "ti", call1<u128, F, converted<u128, F>>}
#define FLY(suffix, F)                                                                \
  {"__floatsi" suffix, call1<F, int32_t, exact<F, int32_t>>},                         \
  {"__floatdi" suffix, call1<F, int64_t, exact<F, int64_t>>},                         \
  {"__floatti" suffix, call1<F, i128, exact<F, i128>>},                               \
  {"__floatunsi" suffix, call1<F, uint32_t, exact<F, uint32_t>>},                     \
  {"__floatundi" suffix, call1<F, uint64_t, exact<F, uint64_t>>},                     \
  {"__floatunti" suffix, call1<F, u128, exact<F, u128>>}

const HostFunction kFunctions[] = {
    {"return to the host", nullptr},  // where Core::run ends; never called
    {"memcpy", copy}, {"memmove", copy}, {"memset", fill}, {"memcmp", differ}, {"bcmp", differ},
    {"bzero", clear}, {"memchr", find_byte<false>}, {"strchr", find_byte<true>},
    {"strlen", length}, {"strnlen", length_at_most}, {"strcpy", copy_string},
    {"strncpy", copy_string_at_most}, {"strcmp", strings_differ<false>},
    {"strncmp", strings_differ<true>},
    {"malloc", make}, {"calloc", make_zeros}, {"free", release}, {"abort", stop},
    {"_Znwm", make_or_stop}, {"_Znam", make_or_stop}, {"_ZdlPv", release}, {"_ZdaPv", release},
    {"_ZdlPvm", release}, {"_ZdaPvm", release}, {"__cxa_pure_virtual", pure_virtual},
    {"__cxa_atexit", register_destructor}, {"__dso_handle", stop},
    {"__ve_grow_stack", grow_stack<false>}, {"__ve_grow_stack_align", grow_stack<true>},
    {"__tls_get_addr", thread_local_address},

    {"__multi3", call2<u128, u128, u128, multiply_wide>},
    {"__divti3", divide_wide<i128, quotient_of<i128>>},
    {"__modti3", divide_wide<i128, remainder_of<i128>>},
    {"__udivti3", divide_wide<u128, quotient_of<u128>>},
    {"__umodti3", divide_wide<u128, remainder_of<u128>>},
    {"__ashlti3", call2<u128, u128, int, shift_wide_left>},
    {"__lshrti3", call2<u128, u128, int, shift_wide_right>},
    {"__ashrti3", call2<i128, i128, int, shift_wide_arithmetic>},
    {"__addtf3", call2<Quad, Quad, Quad, quad_add>},
    {"__subtf3", call2<Quad, Quad, Quad, quad_sub>},
    {"__multf3", call2<Quad, Quad, Quad, quad_mul>},
    {"__divtf3", call2<Quad, Quad, Quad, quad_div>},
    {"__muldc3", multiply_complex<double>}, {"__mulsc3", multiply_complex<float>},
    {"__divdc3", divide_complex<double>}, {"__divsc3", divide_complex<float>},
    FIX("sf", float), FIX("df", double), FIX("tf", Quad),
    FLY("sf", float), FLY("df", double), FLY("tf", Quad),
    {"__extendhfsf2", call1<float, uint32_t, half_to_float>},
    {"__gnu_h2f_ieee", call1<float, uint32_t, half_to_float>},
    {"__truncsfhf2", call1<uint32_t, float, float_to_half>},
    {"__gnu_f2h_ieee", call1<uint32_t, float, float_to_half>},
    {"__truncdfhf2", call1<uint32_t, double, double_to_half>},

    MATH1(sqrt), MATH1(cbrt), MATH1(exp), MATH1(exp2), MATH1(expm1), MATH1(log), MATH1(log2),
    MATH1(log10), MATH1(log1p), MATH1(sin), MATH1(cos), MATH1(tan), MATH1(asin), MATH1(acos),
    MATH1(atan), MATH1(sinh), MATH1(cosh), MATH1(tanh), MATH1(asinh), MATH1(acosh), MATH1(atanh),
    MATH1(erf), MATH1(erfc), MATH1(tgamma), MATH1(lgamma), MATH1(fabs), MATH1(floor), MATH1(ceil),
    MATH1(trunc), MATH1(round), MATH1(rint), MATH1(nearbyint), MATH1(logb),
    MATH2(pow), MATH2(fmod), MATH2(remainder), MATH2(atan2), MATH2(hypot), MATH2(fmin), MATH2(fmax),
    MATH2(fdim), MATH2(copysign), MATH2(nextafter),
    {"exp10", call1<double, double, power_of_ten<double>>},
    {"exp10f", call1<float, float, power_of_ten<float>>},
    {"roundeven", call1<double, double, rounded<kEven, double>>},
    {"roundevenf", call1<float, float, rounded<kEven, float>>},
    {"frexp", exponent_apart<double>}, {"frexpf", exponent_apart<float>},
    {"modf", whole_apart<double>}, {"modff", whole_apart<float>},
    ROUND_TO(lrint, long), ROUND_TO(llrint, long long), ROUND_TO(lround, long),
    ROUND_TO(llround, long long), ROUND_TO(ilogb, int),
    {"fma", call3<double, double, ::fma>}, {"fmaf", call3<float, float, ::fmaf>},
    {"ldexp", call2<double, double, int, ::ldexp>}, {"ldexpf", call2<float, float, int, ::ldexpf>},
    {"scalbn", call2<double, double, int, ::scalbn>},
    {"scalbnf", call2<float, float, int, ::scalbnf>},
    {"__powidf2", call2<double, double, int, integer_power<double>>},
    {"__powisf2", call2<float, float, int, integer_power<float>>},
};
constexpr uint64_t kCount = sizeof kFunctions / sizeof *kFunctions;
static_assert(kCount * 8 <= Memory::kPageBytes, "the firmware is one page of words");

}  // namespace

uint64_t firmware_address(Memory& memory) {
  std::lock_guard<std::mutex> hold(memory.process);
  if (memory.firmware == 0) {
    const uint64_t page = memory.allocate_own(Memory::kPageBytes);
    if (page == 0) throw std::bad_alloc();
    std::vector<uint64_t> words(Memory::kPageBytes / 8);
    for (uint64_t n = 0; n < kCount; ++n) {
      words[n] = n;
      memory.name(page + 8 * n, 8, kFunctions[n].name);
    }
    memory.write(page, words.data(), Memory::kPageBytes);
    memory.protect(page, Memory::kPageBytes, Memory::kRead | Memory::kExecute);
    memory.firmware = page;
  }
  return memory.firmware;
}

uint64_t host_function(Memory& memory, const std::string& name) {
  static const auto* const index = [] {
    auto* map = new std::unordered_map<std::string, uint64_t>;
    for (uint64_t n = 1; n < kCount; ++n) map->emplace(kFunctions[n].name, n);
    return map;
  }();
  const auto found = index->find(name);
  return found == index->end() ? 0 : firmware_address(memory) + 8 * found->second;
}

const HostFunction* host_function_at(uint64_t firmware, uint64_t address) {
  const uint64_t n = (address - firmware) / 8;
  return n == 0 || n >= kCount ? nullptr : &kFunctions[n];
}

}  // namespace vesim
