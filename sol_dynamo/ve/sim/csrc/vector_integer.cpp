// Vector instructions on integers, bits and shifts. See vector.h.
#include "vector.h"

namespace vesim {
namespace {

using u64 = uint64_t;
using i64 = int64_t;
using u32 = uint32_t;
using i32 = int32_t;

// Shifts take the distance from y: the order of a row's operands.
template <class T> T left(T y, T z) { return shift_left<T>(z, y); }
template <class T> T right(T y, T z) { return shift_right<T>(z, y); }

// Products of the lower words; 64-bit multiplication on most hosts is slow, 32 x 32 -> 64 is not.
i64 multiply_long(i64 y, i64 z) {
  return static_cast<i64>(static_cast<i32>(y)) * static_cast<i64>(static_cast<i32>(z));
}

// Quotients, one after another: hosts have no vectors for them, and a divisor of 0 must be found,
// but only among the elements that are computed.
template <class T, bool kSignExtend, Scalar S>
void quotients(Core& core, const Instruction& i) {
  uint64_t* x = vector(core, i.vx);
  const uint64_t *y = vector(core, i.vy), *z = vector(core, i.vz);
  const uint64_t s = scalar_y(core, i);
  using U = typename std::make_unsigned<T>::type;
  uint64_t result[kElements];
  for (unsigned e = 0; e < core.vl; ++e) {
    if (i.m != 0 && !mask_bit(core.vm[i.m], e)) {
      result[e] = x[e];
      continue;
    }
    const T divisor = static_cast<T>(S == Scalar::kZ ? s : z[e]);
    if (divisor == 0) {
      core.raise(Trap::DivideByZero, 0, "the divisor of element " + std::to_string(e) + " is 0");
    }
    const T q = divide<T>(static_cast<T>(S == Scalar::kY ? s : y[e]), divisor);
    result[e] = kSignExtend ? static_cast<uint64_t>(q) : static_cast<U>(q);
  }
  std::memcpy(x, result, core.vl * sizeof *x);
}

// vx = elements' numbers. Packed they count the lanes, the upper one of an element first.
template <Part P, bool kWide>
void sequence(Core& core, const Instruction& i) {
  write_vector(core, i, P == Part::kBoth && !kWide, [](uint64_t* x, unsigned n) {
    for (u64 e = 0; e < n; ++e) {
      x[e] = kWide ? e
             : P == Part::kBoth  ? (2 * e) << 32 | (2 * e + 1)
             : P == Part::kUpper ? e << 32
                                 : e;
    }
  });
}

// 128-bit shifts of (vy, vz): vy is the upper half.
template <bool kLeft>
void shift_double(Core& core, const Instruction& i) {
  const uint64_t *y = vector(core, i.vy), *z = vector(core, i.vz);
  const uint64_t by = scalar_y(core, i);
  write_vector(core, i, false, [=](uint64_t* x, unsigned n) {
    for (unsigned e = 0; e < n; ++e) {
      x[e] = kLeft ? shift_left_double(y[e], z[e], by) : shift_right_double(y[e], z[e], by);
    }
  });
}

// vx = (vz << (sy & 7)) + sz: addresses from indices.
void shift_and_add(Core& core, const Instruction& i) {
  const uint64_t* z = vector(core, i.vz);
  const uint64_t by = scalar_y(core, i) & 7;
  const uint64_t base = i.cz ? core.s[i.sz] : i.z;
  write_vector(core, i, false, [=](uint64_t* x, unsigned n) {
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) x[e] = (z[e] << by) + base;
  });
}

// --- the table -----------------------------------------------------------------------------------

#define VV(m) " $v, $w, $x$" m
#define SV(letter, m) " $v, $" letter ", $x$" m
#define SHIFT_VV(m) " $v, $x, $w$" m
#define SHIFT_VS(m) " $v, $x, $U$" m

// vx, vy or sy, vz: of 64-bit elements, and of one form of 32-bit lanes.
#define ROWS64(op, flags, name, letter, T, F)                                       \
  {word_of(op, flags), name VV("m"), binary64<T, F<T>>},                            \
  {word_of(op, flags | 2), name SV(letter, "m"), binary64<T, F<T>, Scalar::kY>}
#define ROWS32(op, flags, name, letter, m, T, F, P)                                 \
  {word_of(op, flags), name VV(m), binary32<T, F<T>, Part::P>},                     \
  {word_of(op, flags | 2), name SV(letter, m), binary32<T, F<T>, Part::P, Scalar::kY>}
#define PACKED(op, other, name, letter, T, F)                                       \
  ROWS32(op, 4 | other, "p" name ".lo", letter, "m", T, F, kLower),                 \
  ROWS32(op, 8 | other, "p" name ".up", letter, "m", T, F, kUpper),                 \
  ROWS32(op, 12 | other, "p" name, letter, "M", T, F, kBoth)
#define SHIFT64(op, name, T, F)                                                     \
  {word_of(op, 0), name SHIFT_VV("m"), binary64<T, F<T>>},                          \
  {word_of(op, 2), name SHIFT_VS("m"), binary64<T, F<T>, Scalar::kY>}
#define SHIFT32(op, flags, name, m, T, F, P)                                        \
  {word_of(op, flags), name SHIFT_VV(m), binary32<T, F<T>, Part::P>},               \
  {word_of(op, flags | 2), name SHIFT_VS(m), binary32<T, F<T>, Part::P, Scalar::kY>}
#define PACKED_SHIFT(op, name, T, F)                                                \
  SHIFT32(op, 4, "p" name ".lo", "m", T, F, kLower),                                \
  SHIFT32(op, 8, "p" name ".up", "m", T, F, kUpper),                                \
  SHIFT32(op, 12, "p" name, "M", T, F, kBoth)
#define UNARY(op, name, F)                                                          \
  {word_of(op, 0), name " $v, $x$m", unary64<u64, F<u64>, false>},                  \
  {word_of(op, 4), "p" name ".lo $v, $x$m", unary32<u32, F<u32>, Part::kLower, false>},  \
  {word_of(op, 8), "p" name ".up $v, $x$m", unary32<u32, F<u32>, Part::kUpper, false>},  \
  {word_of(op, 12), "p" name " $v, $x$M", unary32<u32, F<u32>, Part::kBoth, false>}
#define QUOTIENTS(op, flags, name, T, sign)                                         \
  {word_of(op, flags), name VV("m"), quotients<T, sign, Scalar::kNone>},            \
  {word_of(op, flags | 1), name " $v, $w, $Y$m", quotients<T, sign, Scalar::kZ>},   \
  {word_of(op, flags | 2), name SV("Y", "m"), quotients<T, sign, Scalar::kY>}

const Entry kRows[] = {
    ROWS64(0xc8, 0, "vaddu.l", "Y", u64, add),
    PACKED(0xc8, 0, "vaddu", "Y", u32, add),
    ROWS32(0xca, 0, "vadds.w.sx", "Y", "m", i32, add, kSigned),
    PACKED(0xca, 0, "vadds", "Y", i32, add),
    ROWS64(0x8b, 0, "vadds.l", "Y", i64, add),
    ROWS64(0xd8, 0, "vsubu.l", "Y", u64, sub),
    PACKED(0xd8, 0, "vsubu", "Y", u32, sub),
    ROWS32(0xda, 0, "vsubs.w.sx", "Y", "m", i32, sub, kSigned),
    PACKED(0xda, 0, "vsubs", "Y", i32, sub),
    ROWS64(0x9b, 0, "vsubs.l", "Y", i64, sub),
    ROWS64(0xc9, 0, "vmulu.l", "Y", u64, mul),
    ROWS32(0xc9, 4, "vmulu.w", "Y", "m", u32, mul, kLower),
    ROWS32(0xcb, 0, "vmuls.w.sx", "Y", "m", i32, mul, kSigned),
    ROWS32(0xcb, 4, "vmuls.w.zx", "Y", "m", i32, mul, kLower),
    ROWS64(0xdb, 0, "vmuls.l", "Y", i64, mul),
    {word_of(0xd9, 0), "vmuls.l.w" VV("m"), binary64<i64, multiply_long>},
    {word_of(0xd9, 2), "vmuls.l.w" SV("Y", "m"), binary64<i64, multiply_long, Scalar::kY>},
    QUOTIENTS(0xe9, 0, "vdivu.l", u64, false),
    QUOTIENTS(0xe9, 4, "vdivu.w", u32, false),
    QUOTIENTS(0xeb, 0, "vdivs.w.sx", i32, true),
    QUOTIENTS(0xeb, 4, "vdivs.w.zx", i32, false),
    QUOTIENTS(0xfb, 0, "vdivs.l", i64, true),
    ROWS64(0xb9, 0, "vcmpu.l", "Y", u64, compare),
    PACKED(0xb9, 0, "vcmpu", "Y", u32, compare),
    ROWS32(0xfa, 0, "vcmps.w.sx", "Y", "m", i32, compare, kSigned),
    PACKED(0xfa, 0, "vcmps", "Y", i32, compare),
    ROWS64(0xba, 0, "vcmps.l", "Y", i64, compare),
    ROWS32(0x8a, 0, "vmaxs.w.sx", "Y", "m", i32, maximum, kSigned),
    PACKED(0x8a, 0, "vmaxs", "Y", i32, maximum),
    ROWS32(0x8a, 1, "vmins.w.sx", "Y", "m", i32, minimum, kSigned),
    PACKED(0x8a, 1, "vmins", "Y", i32, minimum),
    ROWS64(0x9a, 0, "vmaxs.l", "Y", i64, maximum),
    ROWS64(0x9a, 1, "vmins.l", "Y", i64, minimum),

    ROWS64(0xc4, 0, "vand", "W", u64, bit_and),
    PACKED(0xc4, 0, "vand", "W", u32, bit_and),
    ROWS64(0xc5, 0, "vor", "W", u64, bit_or),
    PACKED(0xc5, 0, "vor", "W", u32, bit_or),
    ROWS64(0xc6, 0, "vxor", "W", u64, bit_xor),
    PACKED(0xc6, 0, "vxor", "W", u32, bit_xor),
    ROWS64(0xc7, 0, "veqv", "W", u64, bit_eqv),
    PACKED(0xc7, 0, "veqv", "W", u32, bit_eqv),
    UNARY(0xe7, "vldz", leading_zeros),
    UNARY(0xac, "vpcnt", population),
    UNARY(0xf7, "vbrv", reversed),
    {word_of(0x99, 0), "vseq $v$m", sequence<Part::kBoth, true>},
    {word_of(0x99, 4), "pvseq.lo $v$m", sequence<Part::kLower, false>},
    {word_of(0x99, 8), "pvseq.up $v$m", sequence<Part::kUpper, false>},
    {word_of(0x99, 12), "pvseq $v$M", sequence<Part::kBoth, false>},

    SHIFT64(0xe5, "vsll", u64, left),
    PACKED_SHIFT(0xe5, "vsll", u32, left),
    SHIFT64(0xf5, "vsrl", u64, right),
    PACKED_SHIFT(0xf5, "vsrl", u32, right),
    SHIFT32(0xe6, 0, "vsla.w.sx", "m", i32, left, kSigned),
    PACKED_SHIFT(0xe6, "vsla", i32, left),
    SHIFT64(0xd4, "vsla.l", i64, left),
    SHIFT32(0xf6, 0, "vsra.w.sx", "m", i32, right, kSigned),
    PACKED_SHIFT(0xf6, "vsra", i32, right),
    SHIFT64(0xd5, "vsra.l", i64, right),
    {word_of(0xe4, 0), "vsld $v, ($w, $x), $U$m", shift_double<true>},
    {word_of(0xf4, 0), "vsrd $v, ($w, $x), $U$m", shift_double<false>},
    {word_of(0xd7, 0), "vsfa $v, $x, $U, $Z$m", shift_and_add},
};

}  // namespace

Rows vector_integer_rows() { return rows(kRows); }

}  // namespace vesim
