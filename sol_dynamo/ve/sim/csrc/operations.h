// What the arithmetic instructions compute, for one lane: scalar and vector instructions share it.
//
// Functions are pure and without branches where that matters, so that loops over them become the
// host's vector instructions. Where the architecture's documents leave a result open, the choice is
// marked "open:".
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace vesim {

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same number of bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// A float operand of a scalar register lies in its upper half.
inline float upper_float(uint64_t s) { return bits_as<float>(static_cast<uint32_t>(s >> 32)); }
inline uint64_t from_upper_float(float f) { return uint64_t{bits_as<uint32_t>(f)} << 32; }
inline uint64_t sign_extended(uint32_t w) {
  return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(w)));
}

// --- integers ------------------------------------------------------------------------------------
// Signed arithmetic wraps: the exceptions of fixed-point overflow are masked. (-fwrapv)

template <class T> inline T add(T y, T z) { return static_cast<T>(y + z); }
template <class T> inline T sub(T y, T z) { return static_cast<T>(y - z); }
template <class T> inline T mul(T y, T z) { return static_cast<T>(y * z); }
template <class T> inline T bit_and(T y, T z) { return y & z; }
template <class T> inline T bit_or(T y, T z) { return y | z; }
template <class T> inline T bit_xor(T y, T z) { return y ^ z; }
template <class T> inline T bit_eqv(T y, T z) { return static_cast<T>(~(y ^ z)); }
template <class T> inline T bit_nnd(T y, T z) { return static_cast<T>(~y & z); }
template <class T> inline T maximum(T y, T z) { return y > z ? y : z; }
template <class T> inline T minimum(T y, T z) { return y < z ? y : z; }

// The divisor is not 0. The quotient of the least number and -1 wraps.
template <class T> inline T divide(T y, T z) {
  if (std::is_signed<T>::value && z == static_cast<T>(-1)) {
    return static_cast<T>(typename std::make_unsigned<T>::type(0) -
                          static_cast<typename std::make_unsigned<T>::type>(y));
  }
  return static_cast<T>(y / z);
}

// A number with the sign of y - z. Hardware gives the difference itself where it can be
// represented. open: here it saturates where it cannot.
template <class T> inline T compare(T y, T z) {
  using U = typename std::make_unsigned<T>::type;
  using S = typename std::make_signed<T>::type;
  const U least = U{1} << (sizeof(T) * 8 - 1), most = static_cast<U>(least - 1);
  const U difference = static_cast<U>(static_cast<U>(y) - static_cast<U>(z));
  const bool negative = static_cast<S>(difference) < 0;
  const U result = y < z ? (negative ? difference : least) : (negative ? most : difference);
  return static_cast<T>(result);
}

// Shifts take as many bits of the distance as there are positions. The type tells whether a shift
// to the right is arithmetic.
template <class T> inline T shift_left(T z, T y) {
  using U = typename std::make_unsigned<T>::type;
  return static_cast<T>(static_cast<U>(z) << (static_cast<U>(y) & (sizeof(T) * 8 - 1)));
}
template <class T> inline T shift_right(T z, T y) {
  using U = typename std::make_unsigned<T>::type;
  return static_cast<T>(z >> (static_cast<U>(y) & (sizeof(T) * 8 - 1)));
}

// 128-bit shifts of (high, low) by 0 to 127.
inline uint64_t shift_left_double(uint64_t high, uint64_t low, uint64_t by) {
  by &= 127;
  if (by >= 64) return low << (by - 64);
  return by == 0 ? high : high << by | low >> (64 - by);
}
inline uint64_t shift_right_double(uint64_t high, uint64_t low, uint64_t by) {
  by &= 127;
  if (by >= 64) return high >> (by - 64);
  return by == 0 ? low : low >> by | high << (64 - by);
}

template <class T> inline T population(T z) {
  T n = z;
  const T one = static_cast<T>(~T{0}) / 3, two = static_cast<T>(~T{0}) / 15 * 3,
          four = static_cast<T>(~T{0}) / 255 * 15, sum = static_cast<T>(~T{0}) / 255;
  n = static_cast<T>(n - ((n >> 1) & one));
  n = static_cast<T>((n & two) + ((n >> 2) & two));
  n = static_cast<T>((n + (n >> 4)) & four);
  return static_cast<T>(static_cast<T>(n * sum) >> (sizeof(T) * 8 - 8));
}
template <class T> inline T leading_zeros(T z) {
  for (unsigned s = 1; s < sizeof(T) * 8; s *= 2) z = static_cast<T>(z | z >> s);
  return static_cast<T>(sizeof(T) * 8 - population<T>(z));
}
template <class T> inline T reversed(T z) {
  const T one = static_cast<T>(~T{0}) / 3, two = static_cast<T>(~T{0}) / 15 * 3,
          four = static_cast<T>(~T{0}) / 255 * 15;
  z = static_cast<T>((z >> 1 & one) | (z & one) << 1);
  z = static_cast<T>((z >> 2 & two) | (z & two) << 2);
  z = static_cast<T>((z >> 4 & four) | (z & four) << 4);
  return sizeof(T) == 8 ? static_cast<T>(__builtin_bswap64(z))
                        : static_cast<T>(__builtin_bswap32(static_cast<uint32_t>(z)));
}

// --- floating point ------------------------------------------------------------------------------
// IEEE results in the current rounding mode, with denormals. open: which NaN comes out where one
// does; here it is the host's.

template <class F> inline F fadd(F y, F z) { return y + z; }
template <class F> inline F fsub(F y, F z) { return y - z; }
template <class F> inline F fmul(F y, F z) { return y * z; }
template <class F> inline F fdiv(F y, F z) { return y / z; }
template <class F> inline F fsqrt(F y) { return std::sqrt(y); }

// The difference, which has the sign of the comparison; 0 where equal (infinities too), NaN where
// unordered. With denormals the difference of two unequal numbers is never 0.
template <class F> inline F fcompare(F y, F z) { return y == z ? F{0} : y - z; }

// A NaN loses against a number; of two a quiet one comes out. open: of +0 and -0, which compare
// equal, y is taken.
template <class F> inline F fmaximum(F y, F z) {
  return y != y ? (z != z ? y + z : z) : z > y ? z : y;
}
template <class F> inline F fminimum(F y, F z) {
  return y != y ? (z != z ? y + z : z) : z < y ? z : y;
}

// One rounding: z * w is exact before y is added.
template <class F> inline F fmad(F y, F z, F w) { return std::fma(z, w, y); }
template <class F> inline F fmsb(F y, F z, F w) { return std::fma(z, w, -y); }
// The sign is changed as a bit: gcc makes -fma(z, w, y) a single -(z * w) - y, which has another
// zero and rounds to the other side in directed modes.
template <class F> inline F negated(F x) {
  using U = typename std::conditional<sizeof(F) == 8, uint64_t, uint32_t>::type;
  return bits_as<F>(static_cast<U>(bits_as<U>(x) ^ U{1} << (sizeof(F) * 8 - 1)));
}
template <class F> inline F fnmad(F y, F z, F w) { return negated(std::fma(z, w, y)); }
template <class F> inline F fnmsb(F y, F z, F w) { return negated(std::fma(z, w, -y)); }

// Rounding modes as they stand in conversions. kMode: that of the host, which is the program's.
enum Rounding : unsigned { kMode = 0, kZero = 8, kPlus = 9, kMinus = 10, kEven = 11, kAway = 12 };

template <Rounding R, class F> inline F rounded(F x) {
  if (R == kZero) return std::trunc(x);
  if (R == kPlus) return std::ceil(x);
  if (R == kMinus) return std::floor(x);
  if (R == kMode) return std::rint(x);
  const F whole = std::trunc(x), part = std::fabs(x - whole);  // exact
  const bool odd = whole * F{0.5} != std::trunc(whole * F{0.5});
  const bool out = R == kAway ? part >= F{0.5} : part > F{0.5} || (part == F{0.5} && odd);
  return out ? whole + std::copysign(F{1}, x) : whole;
}

// open: numbers that do not fit become the nearest that does, NaN the greatest.
template <class I, class F> inline I to_integer(F whole) {
  const F limit = static_cast<F>(I{1} << (sizeof(I) * 8 - 2)) * F{2};  // exact: a power of two
  const bool high = !(whole < limit), low = whole < -limit;            // high: NaN too
  const I inside = static_cast<I>(high || low ? F{0} : whole);
  return high ? std::numeric_limits<I>::max() : low ? std::numeric_limits<I>::min() : inside;
}

}  // namespace vesim
