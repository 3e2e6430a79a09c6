// Vector instructions on floating-point numbers and their conversions. See vector.h.
//
// Fused multiply-adds round once on every host: std::fma is an instruction where the host has one,
// else libm's exact function.
#include <algorithm>

#include "vector.h"

namespace vesim {
namespace {

using u64 = uint64_t;
using u32 = uint32_t;
using i32 = int32_t;
using i64 = int64_t;

// vx = F(vy, vz, vw), with sy in the place of vy or vz.
template <class T, T F(T, T, T), Scalar S>
void ternary64(Core& core, const Instruction& i) {
  const T* y = reinterpret_cast<const T*>(vector(core, i.vy));
  const T* z = reinterpret_cast<const T*>(vector(core, i.vz));
  const T* w = reinterpret_cast<const T*>(vector(core, i.vw));
  const T s = bits_as<T>(scalar_y(core, i));
  write_vector(core, i, false, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) {
      x[e] = F(S == Scalar::kY ? s : y[e], S == Scalar::kZ ? s : z[e], w[e]);
    }
  });
}
template <class T, T F(T, T, T), Part P, Scalar S>
void ternary32(Core& core, const Instruction& i) {
  const Spread<S> s(core, i);
  const T* y = reinterpret_cast<const T*>(s.or_else(vector(core, i.vy), Scalar::kY));
  const T* z = reinterpret_cast<const T*>(s.or_else(vector(core, i.vz), Scalar::kZ));
  const T* w = reinterpret_cast<const T*>(vector(core, i.vw));
  write_vector(core, i, P == Part::kBoth, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned k = 0; k < 2 * n; ++k) x[k] = F(y[k], z[k], w[k]);
    settle<P>(out, n);
  });
}

// Division of floats in the upper halves. (Packed division does not exist.)
template <Scalar S>
constexpr auto divide_floats = binary32<float, fdiv<float>, Part::kUpper, S>;

// --- approximations ------------------------------------------------------------------------------
// The bits of vrcp and vrsqrt are not published. Here they are the exact result rounded to 15
// significant bits: within 2^-15 of it, and with perturbation anywhere within 2^-14. The bound
// comes from clang's velintrin_approx.h, whose two refinements of vrsqrt must reach double
// precision.
constexpr double kPerturbation = 0x1p-14 - 0x1p-15;

template <class F>
F shortened(F x) {  // to 15 significant bits; zero, infinity, NaN and denormals stay as they are
  using U = typename std::conditional<sizeof(F) == 8, u64, u32>::type;
  constexpr unsigned kDrop = (sizeof(F) == 8 ? 53 : 24) - 15;
  constexpr U kExponent = sizeof(F) == 8 ? static_cast<U>(0x7ff0000000000000) : 0x7f800000;
  const U bits = bits_as<U>(x), exponent = bits & kExponent;
  const U rounded = (bits + (U{1} << (kDrop - 1))) & ~((U{1} << kDrop) - 1);
  return exponent == 0 || exponent == kExponent ? x : bits_as<F>(rounded);
}
template <class F> F reciprocal(F x) { return shortened<F>(F{1} / x); }
template <class F> F reciprocal_root(F x) {
  return shortened<F>(static_cast<F>(1 / std::sqrt(static_cast<double>(x))));
}

template <class F, F Op(F), Part P>
void approximate(Core& core, const Instruction& i) {
  if (sizeof(F) == 8) {
    unary64<F, Op, true>(core, i);
  } else {
    unary32<F, Op, P, true>(core, i);
  }
  if (core.perturb.seed == 0) return;
  F* x = reinterpret_cast<F*>(vector(core, i.vx));
  const unsigned lanes = 8 / sizeof(F);
  for (unsigned e = 0; e < core.vl; ++e) {
    for (unsigned k = 0; k < lanes; ++k) {
      if (lanes == 2 && ((k == 0 && P == Part::kUpper) || (k == 1 && P == Part::kLower))) continue;
      const unsigned m = lanes == 2 && P == Part::kBoth && k == 0 ? i.m + 1u : i.m;
      if (i.m != 0 && !mask_bit(core.vm[m], e)) continue;
      F& value = x[lanes * e + k];
      const F moved = static_cast<F>(value * (1 + kPerturbation * core.perturbation()));
      if (std::isnormal(value) && std::isnormal(moved)) value = moved;
    }
  }
}

// --- conversions ---------------------------------------------------------------------------------

// Calls f with the rounding mode of an instruction as a type.
template <Rounding R> using Mode = std::integral_constant<Rounding, R>;
template <class Function>
void with_rounding(unsigned mode, Function f) {
  switch (mode) {
    case kZero: return f(Mode<kZero>());
    case kPlus: return f(Mode<kPlus>());
    case kMinus: return f(Mode<kMinus>());
    case kEven: return f(Mode<kEven>());
    case kAway: return f(Mode<kAway>());
    default: return f(Mode<kMode>());
  }
}

// From 64-bit to 64-bit elements, through any function.
template <class From, class F>
void convert_elements(Core& core, const Instruction& i, F f) {
  const u64* y = vector(core, i.vy);
  write_vector(core, i, false, [=](uint64_t* x, unsigned n) {
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) x[e] = f(bits_as<From>(y[e]));
  });
}
void fix_long(Core& core, const Instruction& i) {  // double -> i64
  with_rounding(i.vz & 15, [&](auto mode) {
    convert_elements<double>(core, i, [](double y) {
      return static_cast<u64>(to_integer<i64>(rounded<decltype(mode)::value>(y)));
    });
  });
}
template <bool kSignExtend>
void fix_double(Core& core, const Instruction& i) {  // double -> i32
  with_rounding(i.vz & 15, [&](auto mode) {
    convert_elements<double>(core, i, [](double y) {
      const i32 n = to_integer<i32>(rounded<decltype(mode)::value>(y));
      return kSignExtend ? static_cast<u64>(i64{n}) : static_cast<u64>(static_cast<u32>(n));
    });
  });
}
template <bool kSignExtend>
void fix_float(Core& core, const Instruction& i) {  // float in the upper half -> i32 in the lower
  with_rounding(i.vz & 15, [&](auto mode) {
    convert_elements<u64>(core, i, [](u64 y) {
      const i32 n = to_integer<i32>(rounded<decltype(mode)::value>(upper_float(y)));
      return kSignExtend ? static_cast<u64>(i64{n}) : static_cast<u64>(static_cast<u32>(n));
    });
  });
}
template <Rounding R>
u32 fix_lane(u32 y) {
  return static_cast<u32>(to_integer<i32>(rounded<R>(bits_as<float>(y))));
}
template <Part P>
void fix_lanes(Core& core, const Instruction& i) {  // float -> i32 in the same lane
  with_rounding(i.vz & 15, [&](auto mode) {
    unary32<u32, fix_lane<decltype(mode)::value>, P, true>(core, i);
  });
}
u32 fly_lane(u32 y) { return bits_as<u32>(static_cast<float>(static_cast<i32>(y))); }

void double_from_long(Core& core, const Instruction& i) {
  convert_elements<i64>(core, i, [](i64 y) { return bits_as<u64>(static_cast<double>(y)); });
}
void double_from_word(Core& core, const Instruction& i) {
  convert_elements<u64>(core, i, [](u64 y) {
    return bits_as<u64>(static_cast<double>(static_cast<i32>(y)));
  });
}
void float_from_word(Core& core, const Instruction& i) {
  convert_elements<u64>(
      core, i, [](u64 y) { return from_upper_float(static_cast<float>(static_cast<i32>(y))); });
}
void float_from_double(Core& core, const Instruction& i) {
  convert_elements<double>(core, i,
                           [](double y) { return from_upper_float(static_cast<float>(y)); });
}
void double_from_float(Core& core, const Instruction& i) {
  convert_elements<u64>(core, i, [](u64 y) {
    return bits_as<u64>(static_cast<double>(upper_float(y)));
  });
}

// --- the table -----------------------------------------------------------------------------------

#define BINARY_D(op, flags, name, F)                                                          \
  {word_of(op, flags), name " $v, $w, $x$m", binary64<double, F<double>>},                    \
  {word_of(op, flags | 2), name " $v, $Y, $x$m", binary64<double, F<double>, Scalar::kY>}
#define BINARY_S(op, flags, name, m, F, P)                                                    \
  {word_of(op, flags), name " $v, $w, $x$" m, binary32<float, F<float>, Part::P>},            \
  {word_of(op, flags | 2), name " $v, $Y, $x$" m, binary32<float, F<float>, Part::P, Scalar::kY>}
#define BINARY(op, other, name, F)                                                            \
  BINARY_D(op, 0 | other, name ".d", F), BINARY_S(op, 4 | other, "p" name ".lo", "m", F, kLower), \
  BINARY_S(op, 8 | other, "p" name ".up", "m", F, kUpper),                                    \
  BINARY_S(op, 12 | other, "p" name, "M", F, kBoth)
#define UNARY_D(op, flags, name, F) \
  {word_of(op, flags), name " $v, $w$m", unary64<double, F<double>, true>}
#define UNARY_S(op, flags, name, F) \
  {word_of(op, flags), name " $v, $w$m", unary32<float, F<float>, Part::kUpper, true>}
#define TERNARY_D(op, name, F)                                                                \
  {word_of(op, 0), name " $v, $w, $x, $t$m", ternary64<double, F<double>, Scalar::kNone>},    \
  {word_of(op, 1), name " $v, $w, $Y, $t$m", ternary64<double, F<double>, Scalar::kZ>},       \
  {word_of(op, 2), name " $v, $Y, $x, $t$m", ternary64<double, F<double>, Scalar::kY>}
#define TERNARY_S(op, flags, name, m, F, P)                                                   \
  {word_of(op, flags), name " $v, $w, $x, $t$" m,                                             \
   ternary32<float, F<float>, Part::P, Scalar::kNone>},                                       \
  {word_of(op, flags | 1), name " $v, $w, $Y, $t$" m,                                         \
   ternary32<float, F<float>, Part::P, Scalar::kZ>},                                          \
  {word_of(op, flags | 2), name " $v, $Y, $x, $t$" m,                                         \
   ternary32<float, F<float>, Part::P, Scalar::kY>}
#define TERNARY(op, name, F)                                                                  \
  TERNARY_D(op, name ".d", F), TERNARY_S(op, 4, "p" name ".lo", "m", F, kLower),              \
  TERNARY_S(op, 8, "p" name ".up", "m", F, kUpper), TERNARY_S(op, 12, "p" name, "M", F, kBoth)
#define APPROXIMATE(op, other, name, nex, F)                                                  \
  {word_of(op, 0 | other), name ".d" nex " $v, $w$m",                                         \
   approximate<double, F<double>, Part::kBoth>},                                              \
  {word_of(op, 4 | other), "p" name ".lo" nex " $v, $w$m",                                    \
   approximate<float, F<float>, Part::kLower>},                                               \
  {word_of(op, 8 | other), "p" name ".up" nex " $v, $w$m",                                    \
   approximate<float, F<float>, Part::kUpper>},                                               \
  {word_of(op, 12 | other), "p" name nex " $v, $w$M", approximate<float, F<float>, Part::kBoth>}

const Entry kRows[] = {
    BINARY(0xcc, 0, "vfadd", fadd),
    BINARY(0xdc, 0, "vfsub", fsub),
    BINARY(0xcd, 0, "vfmul", fmul),
    BINARY(0xfc, 0, "vfcmp", fcompare),
    BINARY(0xbd, 0, "vfmax", fmaximum),
    BINARY(0xbd, 1, "vfmin", fminimum),
    {word_of(0xdd, 0), "vfdiv.d $v, $w, $x$m", binary64<double, fdiv<double>>},
    {word_of(0xdd, 1), "vfdiv.d $v, $w, $Y$m", binary64<double, fdiv<double>, Scalar::kZ>},
    {word_of(0xdd, 2), "vfdiv.d $v, $Y, $x$m", binary64<double, fdiv<double>, Scalar::kY>},
    {word_of(0xdd, 8), "vfdiv.s $v, $w, $x$m", divide_floats<Scalar::kNone>},
    {word_of(0xdd, 9), "vfdiv.s $v, $w, $Y$m", divide_floats<Scalar::kZ>},
    {word_of(0xdd, 10), "vfdiv.s $v, $Y, $x$m", divide_floats<Scalar::kY>},
    UNARY_D(0xed, 0, "vfsqrt.d", fsqrt),
    UNARY_S(0xed, 8, "vfsqrt.s", fsqrt),
    TERNARY(0xe2, "vfmad", fmad),
    TERNARY(0xf2, "vfmsb", fmsb),
    TERNARY(0xe3, "vfnmad", fnmad),
    TERNARY(0xf3, "vfnmsb", fnmsb),
    APPROXIMATE(0xe1, 0, "vrcp", "", reciprocal),
    APPROXIMATE(0xf1, 0, "vrsqrt", "", reciprocal_root),
    APPROXIMATE(0xf1, 1, "vrsqrt", ".nex", reciprocal_root),
    {word_of(0xe8, 0), "vcvt.w.d.sx$f $v, $w$m", fix_double<true>},
    {word_of(0xe8, 4), "vcvt.w.d.zx$f $v, $w$m", fix_double<false>},
    {word_of(0xe8, 8), "vcvt.w.s.sx$f $v, $w$m", fix_float<true>},
    {word_of(0xe8, 12), "vcvt.w.s.zx$f $v, $w$m", fix_float<false>},
    {word_of(0xe8, 5), "pvcvt.w.s.lo$f $v, $w$m", fix_lanes<Part::kLower>},
    {word_of(0xe8, 9), "pvcvt.w.s.up$f $v, $w$m", fix_lanes<Part::kUpper>},
    {word_of(0xe8, 13), "pvcvt.w.s$f $v, $w$M", fix_lanes<Part::kBoth>},
    {word_of(0xa8, 0), "vcvt.l.d$f $v, $w$m", fix_long},
    {word_of(0xf8, 0), "vcvt.d.w $v, $w$m", double_from_word},
    {word_of(0xf8, 8), "vcvt.s.w $v, $w$m", float_from_word},
    {word_of(0xf8, 5), "pvcvt.s.w.lo $v, $w$m", unary32<u32, fly_lane, Part::kLower, true>},
    {word_of(0xf8, 9), "pvcvt.s.w.up $v, $w$m", unary32<u32, fly_lane, Part::kUpper, true>},
    {word_of(0xf8, 13), "pvcvt.s.w $v, $w$M", unary32<u32, fly_lane, Part::kBoth, true>},
    {word_of(0xb8, 0), "vcvt.d.l $v, $w$m", double_from_long},
    {word_of(0x9f, 0), "vcvt.s.d $v, $w$m", float_from_double},
    {word_of(0x8f, 0), "vcvt.d.s $v, $w$m", double_from_float},
};

}  // namespace

Rows vector_float_rows() { return rows(kRows); }

}  // namespace vesim
