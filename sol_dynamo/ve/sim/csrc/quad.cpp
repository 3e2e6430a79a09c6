// See quad.h. A finite number is mantissa * 2^exponent; results are computed exactly, or as far as
// they decide, with a mark whether something was lost, and rounded once.
#include "quad.h"

#include <algorithm>
#include <cfenv>

#include "operations.h"

namespace vesim {
namespace {

// An interchange format: digits with the hidden one, the exponent of the last digit of the least
// number, the exponent field of infinities, and where the sign stands.
struct Format {
  int precision, least, top, sign;
};
constexpr Format kQuad{113, -16494, 0x7fff, 127};
template <class F> constexpr Format kFormat{};
template <> constexpr Format kFormat<double>{53, -1074, 0x7ff, 63};
template <> constexpr Format kFormat<float>{24, -149, 0xff, 31};

constexpr u128 kOne = 1;

enum class Kind { kFinite, kInfinite, kNan };
struct Number {
  Kind kind;
  bool negative;
  u128 mantissa;
  int exponent;
};

u128 fraction_mask(const Format& f) { return (kOne << (f.precision - 1)) - 1; }

Number unpacked(u128 bits, const Format& f = kQuad) {
  const bool negative = (bits >> f.sign & 1) != 0;
  const int biased = static_cast<int>(bits >> (f.precision - 1)) & f.top;
  const u128 fraction = bits & fraction_mask(f);
  if (biased == f.top) return {fraction != 0 ? Kind::kNan : Kind::kInfinite, negative, 0, 0};
  if (biased == 0) return {Kind::kFinite, negative, fraction, f.least};
  return {Kind::kFinite, negative, fraction | kOne << (f.precision - 1), f.least + biased - 1};
}

int length(u128 n) {
  const auto high = static_cast<uint64_t>(n >> 64), low = static_cast<uint64_t>(n);
  if (high != 0) return 128 - __builtin_clzll(high);
  return low != 0 ? 64 - __builtin_clzll(low) : 0;
}

u128 infinity(bool negative, const Format& f) {
  return static_cast<u128>(negative) << f.sign | static_cast<u128>(f.top) << (f.precision - 1);
}
u128 not_a_number(const Format& f) { return infinity(false, f) | kOne << (f.precision - 2); }

// (mantissa + a part of 1 if `more`) * 2^exponent as the nearest number in the rounding mode's
// sense. With `more`, the mantissa has more digits than the format.
u128 rounded_to(bool negative, u128 mantissa, int exponent, bool more, const Format& f = kQuad) {
  const u128 sign = static_cast<u128>(negative) << f.sign;
  if (mantissa == 0 && !more) return sign;
  const int mode = std::fegetround();
  const bool away = negative ? mode == FE_DOWNWARD : mode == FE_UPWARD;
  int last = std::max(exponent + length(mantissa) - f.precision, f.least);
  const int shift = last - exponent;
  u128 kept = 0, lost = 0, half = 0;
  if (shift <= 0) {
    kept = mantissa << -shift;
  } else if (shift < 128) {
    kept = mantissa >> shift;
    lost = mantissa & ((kOne << shift) - 1);
    half = kOne << (shift - 1);
  } else {  // all is lost, and less than a half but where the mantissa fills its 128 bits
    lost = mantissa;
    half = shift == 128 ? kOne << 127 : ~u128{0};
    more = more || shift > 128;
    if (shift > 128) lost = std::min(lost, half - 1);
  }
  const bool nearest = lost > half || (lost == half && half != 0 && (more || (kept & 1) != 0));
  const bool inexact = lost != 0 || more;
  if (mode == FE_TONEAREST ? nearest : inexact && away) ++kept;
  if (kept >> f.precision != 0) {
    kept >>= 1;
    ++last;
  }
  if (kept >> (f.precision - 1) == 0) return sign | kept;  // denormal
  const int biased = last - f.least + 1;
  if (biased >= f.top) {
    return infinity(negative, f) - (mode == FE_TONEAREST || away ? 0 : 1);
  }
  return sign | static_cast<u128>(biased) << (f.precision - 1) | (kept & fraction_mask(f));
}

Quad quiet(Quad a, Quad b) {
  const Quad nan = unpacked(a.bits).kind == Kind::kNan ? a : b;
  return {nan.bits | kOne << (kQuad.precision - 2)};
}
bool any_nan(const Number& x, const Number& y) {
  return x.kind == Kind::kNan || y.kind == Kind::kNan;
}

}  // namespace

Quad quad_add(Quad a, Quad b) {
  Number x = unpacked(a.bits), y = unpacked(b.bits);
  if (any_nan(x, y)) return quiet(a, b);
  if (x.kind == Kind::kInfinite || y.kind == Kind::kInfinite) {
    if (x.kind == y.kind && x.negative != y.negative) return {not_a_number(kQuad)};
    return x.kind == Kind::kInfinite ? a : b;
  }
  if (x.mantissa == 0 && y.mantissa == 0) {
    const bool down = std::fegetround() == FE_DOWNWARD;
    const bool negative = x.negative == y.negative ? x.negative : down;
    return {static_cast<u128>(negative) << kQuad.sign};
  }
  if (x.mantissa == 0) return b;
  if (y.mantissa == 0) return a;
  if (x.exponent < y.exponent) std::swap(x, y);
  // 14 more digits: where the exponents are that far apart, at most one digit cancels
  constexpr int kGuard = 14;
  const int apart = x.exponent - y.exponent;
  u128 p = x.mantissa << kGuard, q = y.mantissa << kGuard;
  bool more = false;
  if (apart >= 127) {
    q = 0;
    more = true;
  } else if (apart > 0) {
    more = (q & ((kOne << apart) - 1)) != 0;
    q >>= apart;
  }
  const int exponent = x.exponent - kGuard;
  if (x.negative == y.negative) {
    return {rounded_to(x.negative, p + q, exponent, more)};
  }
  if (p == q && !more) {
    return {static_cast<u128>(std::fegetround() == FE_DOWNWARD) << kQuad.sign};
  }
  const bool swapped = p < q;  // only where the exponents are equal, so that nothing was lost
  const u128 difference = swapped ? q - p : p - q - (more ? 1 : 0);
  return {rounded_to(swapped ? y.negative : x.negative, difference, exponent, more)};
}

Quad quad_sub(Quad a, Quad b) {
  if (unpacked(b.bits).kind == Kind::kNan) return quad_add(a, b);
  return quad_add(a, {b.bits ^ kOne << kQuad.sign});
}

Quad quad_mul(Quad a, Quad b) {
  const Number x = unpacked(a.bits), y = unpacked(b.bits);
  if (any_nan(x, y)) return quiet(a, b);
  const bool negative = x.negative != y.negative;
  if (x.kind == Kind::kInfinite || y.kind == Kind::kInfinite) {
    const auto zero = [](const Number& n) { return n.kind == Kind::kFinite && n.mantissa == 0; };
    return {zero(x) || zero(y) ? not_a_number(kQuad) : infinity(negative, kQuad)};
  }
  if (x.mantissa == 0 || y.mantissa == 0) return {static_cast<u128>(negative) << kQuad.sign};
  // 128 by 128 bits of products of 64, after a shift to the left so that the high half decides
  const int up_x = 128 - length(x.mantissa), up_y = 128 - length(y.mantissa);
  const u128 p = x.mantissa << up_x, q = y.mantissa << up_y;
  constexpr u128 kLow = ~uint64_t{0};
  const u128 low = (p & kLow) * (q & kLow), high = (p >> 64) * (q >> 64);
  const u128 one = (p >> 64) * (q & kLow), two = (p & kLow) * (q >> 64);
  const u128 middle = (low >> 64) + (one & kLow) + (two & kLow);
  const u128 top = high + (one >> 64) + (two >> 64) + (middle >> 64);
  const bool more = ((low | middle) & kLow) != 0;
  return {rounded_to(negative, top, x.exponent + y.exponent - up_x - up_y + 128, more)};
}

Quad quad_div(Quad a, Quad b) {
  const Number x = unpacked(a.bits), y = unpacked(b.bits);
  if (any_nan(x, y)) return quiet(a, b);
  const bool negative = x.negative != y.negative;
  if (x.kind == Kind::kInfinite) {
    return {y.kind == Kind::kInfinite ? not_a_number(kQuad) : infinity(negative, kQuad)};
  }
  const u128 zero = static_cast<u128>(negative) << kQuad.sign;
  if (y.kind == Kind::kInfinite) return {zero};
  if (y.mantissa == 0) return {x.mantissa == 0 ? not_a_number(kQuad) : infinity(negative, kQuad)};
  if (x.mantissa == 0) return {zero};
  const int up_x = 113 - length(x.mantissa), up_y = 113 - length(y.mantissa);
  u128 rest = x.mantissa << up_x, quotient = 0;
  const u128 divisor = y.mantissa << up_y;
  constexpr int kDigits = 117;  // the first may be 0
  for (int digit = 0; digit < kDigits; ++digit) {
    quotient <<= 1;
    if (rest >= divisor) {
      rest -= divisor;
      quotient |= 1;
    }
    rest <<= 1;
  }
  const int exponent = x.exponent - up_x - (y.exponent - up_y) - (kDigits - 1);
  return {rounded_to(negative, quotient, exponent, rest != 0)};
}

Order quad_order(Quad a, Quad b) {
  const Number x = unpacked(a.bits), y = unpacked(b.bits);
  if (any_nan(x, y)) return Order::kNone;
  const u128 magnitude = ~(kOne << kQuad.sign);
  if (((a.bits | b.bits) & magnitude) == 0) return Order::kEqual;
  if (x.negative != y.negative) return x.negative ? Order::kLess : Order::kGreater;
  if (a.bits == b.bits) return Order::kEqual;
  return (a.bits < b.bits) != x.negative ? Order::kLess : Order::kGreater;
}

Quad quad_of(double d) {
  const Number x = unpacked(bits_as<uint64_t>(d), kFormat<double>);
  const u128 sign = static_cast<u128>(x.negative) << kQuad.sign;
  if (x.kind == Kind::kFinite) return {rounded_to(x.negative, x.mantissa, x.exponent, false)};
  if (x.kind == Kind::kInfinite) return {infinity(x.negative, kQuad)};
  const u128 fraction = bits_as<uint64_t>(d) & ((uint64_t{1} << 52) - 1);
  return {sign | not_a_number(kQuad) | fraction << 60};
}

template <class F>
F quad_to(Quad q) {
  using U = typename std::conditional<sizeof(F) == 8, uint64_t, uint32_t>::type;
  constexpr Format f = kFormat<F>;
  const Number x = unpacked(q.bits);
  u128 bits = 0;
  switch (x.kind) {
    case Kind::kFinite: bits = rounded_to(x.negative, x.mantissa, x.exponent, false, f); break;
    case Kind::kInfinite: bits = infinity(x.negative, f); break;
    case Kind::kNan:
      bits = static_cast<u128>(x.negative) << f.sign | not_a_number(f) |
             (q.bits & fraction_mask(kQuad)) >> (kQuad.precision - f.precision);
  }
  return bits_as<F>(static_cast<U>(bits));
}
template float quad_to<float>(Quad);
template double quad_to<double>(Quad);

Quad quad_of_integer(bool negative, u128 magnitude) {
  return {rounded_to(negative && magnitude != 0, magnitude, 0, false)};
}

Whole128 quad_whole(Quad q) {
  const Number x = unpacked(q.bits);
  if (x.kind == Kind::kNan) return {0, false, false};
  const bool large = x.kind == Kind::kInfinite || x.exponent + length(x.mantissa) > 128;
  if (large) return {~u128{0}, x.negative, false};
  const u128 whole = x.exponent >= 0      ? x.mantissa << x.exponent
                     : x.exponent > -128 ? x.mantissa >> -x.exponent
                                          : 0;
  return {whole, x.negative, true};
}

}  // namespace vesim
