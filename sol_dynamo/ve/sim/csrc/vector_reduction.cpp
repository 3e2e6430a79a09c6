// Vector instructions that combine the elements of a register: sums, extrema, bit reductions and
// first-order recurrences.
//
// A reduction writes element 0 of vx. Masked-out elements do not take part.
#include <algorithm>

#include "vector.h"

namespace vesim {
namespace {

using u64 = uint64_t;
using u32 = uint32_t;
using i32 = int32_t;
using i64 = int64_t;

bool active(const Core& core, const Instruction& i, unsigned e) {
  return i.m == 0 || mask_bit(core.vm[i.m], e);
}

// T F(T, T) over elements read as T, from `neutral`.
template <class T, T F(T, T)>
T fold(Core& core, const Instruction& i, T neutral) {
  const u64* y = vector(core, i.vy);
  T result = neutral;
  for (unsigned e = 0; e < core.vl; ++e) {
    if (active(core, i, e)) result = F(result, static_cast<T>(y[e]));
  }
  return result;
}
template <class T, T F(T, T), u64 kNeutral>
void reduce(Core& core, const Instruction& i) {
  if (core.vl == 0) return;
  vector(core, i.vx)[0] = static_cast<u64>(fold<T, F>(core, i, static_cast<T>(kNeutral)));
}

template <class F> F number(u64 element);
template <> double number<double>(u64 element) { return bits_as<double>(element); }
template <> float number<float>(u64 element) { return upper_float(element); }
template <> i64 number<i64>(u64 element) { return static_cast<i64>(element); }
template <> i32 number<i32>(u64 element) { return static_cast<i32>(element); }
u64 element_of(double f) { return bits_as<u64>(f); }
u64 element_of(float f) { return from_upper_float(f); }

// The order of vfsum is not published. Here: 32 partial sums of every 32nd element, as the machine
// has 32 lanes, which are then added in pairs. With perturbation the elements come in a random
// order, one after another. Any order is within the usual bound (VL - 1) * epsilon * sum |y|.
// open: without any active element the sum is +0.
template <class F>
void float_sum(Core& core, const Instruction& i) {
  if (core.vl == 0) return;
  constexpr unsigned kLanes = 32;
  const u64* y = vector(core, i.vy);
  F items[kElements];
  unsigned count = 0;
  for (unsigned e = 0; e < core.vl; ++e) {
    if (active(core, i, e)) items[count++] = number<F>(y[e]);
  }
  F sum{0};
  if (core.perturb.seed != 0) {
    for (unsigned k = count; k > 1; --k) {
      const auto other = static_cast<unsigned>((core.perturbation() + 1) / 2 * k);
      std::swap(items[k - 1], items[std::min(other, k - 1)]);
    }
    for (unsigned k = 0; k < count; ++k) sum = k == 0 ? items[0] : sum + items[k];
  } else if (count != 0) {
    for (unsigned k = kLanes; k < count; ++k) items[k % kLanes] += items[k];
    for (unsigned n = std::min(count, kLanes); n > 1; n = (n + 1) / 2) {
      for (unsigned k = 0; k < n / 2; ++k) items[k] += items[(n + 1) / 2 + k];
    }
    sum = items[0];
  }
  vector(core, i.vx)[0] = element_of(sum);
}

// The extremum goes to element 0. open: its index to element 1 (that is all that .fst and .lst, the
// first or last of equal ones, can be about); nothing is written without an active element; a NaN
// counts only where there is no number.
template <class F, bool kMaximum, bool kLast, bool kSignExtend = true>
void extremum(Core& core, const Instruction& i) {
  const u64* y = vector(core, i.vy);
  unsigned best = kElements;
  F value{};
  for (unsigned e = 0; e < core.vl; ++e) {
    if (!active(core, i, e)) continue;
    const F next = number<F>(y[e]);
    const bool better = kMaximum ? next > value : next < value;
    if (best == kElements || better || (value != value && next == next) ||
        (kLast && (next == value || (value != value && next != next)))) {
      best = e;
      value = next;
    }
  }
  if (best == kElements) return;
  const u64 result = sizeof(F) == 8 || std::is_floating_point<F>::value ? y[best]
                     : kSignExtend ? sign_extended(static_cast<u32>(y[best]))
                                   : y[best] & kLowerHalf;
  u64* x = vector(core, i.vx);
  x[0] = std::is_same<F, float>::value ? result & kUpperHalf : result;
  x[1] = best;
}

// --- recurrences ---------------------------------------------------------------------------------
// vx[e] = F(vx[e - 1], vy[e], vz[e]), with sy before the first. open: their formulas are not
// published with the encodings; these follow the names and NEC's older machines:
//   vfia p + y   vfis y - p   vfim p * y     vfiam (p + y) * z   vfism (y - p) * z
//   vfima p * z + y   vfims y - p * z        (p: the element before; each operation rounds)

template <class F> F next_add(F p, F y, F) { return p + y; }
template <class F> F next_sub(F p, F y, F) { return y - p; }
template <class F> F next_mul(F p, F y, F) { return p * y; }
template <class F> F next_add_mul(F p, F y, F z) { return (p + y) * z; }
template <class F> F next_sub_mul(F p, F y, F z) { return (y - p) * z; }
template <class F> F next_mul_add(F p, F y, F z) { const F product = p * z; return product + y; }
template <class F> F next_mul_sub(F p, F y, F z) { const F product = p * z; return y - product; }

template <class F, F Next(F, F, F)>
void iterate(Core& core, const Instruction& i) {
  const u64 *y = vector(core, i.vy), *z = vector(core, i.vz);
  u64* x = vector(core, i.vx);
  F previous = number<F>(scalar_y(core, i));
  for (unsigned e = 0; e < core.vl; ++e) {
    previous = Next(previous, number<F>(y[e]), number<F>(z[e]));
    x[e] = element_of(previous);
  }
}

// --- the table -----------------------------------------------------------------------------------

#define WORD_EXTREMA(flags, end, sign)                                                          \
  {word_of(0xbb, flags), "vrmaxs.w.fst" end " $v, $w$m", extremum<i32, true, false, sign>},     \
  {word_of(0xbb, flags | 1), "vrmins.w.fst" end " $v, $w$m", extremum<i32, false, false, sign>}, \
  {word_of(0xbb, flags | 2), "vrmaxs.w.lst" end " $v, $w$m", extremum<i32, true, true, sign>},  \
  {word_of(0xbb, flags | 3), "vrmins.w.lst" end " $v, $w$m", extremum<i32, false, true, sign>}
#define ALL_EXTREMA(op, flags, most, least, type, F)                                            \
  {word_of(op, flags), most type ".fst $v, $w$m", extremum<F, true, false>},                    \
  {word_of(op, flags | 1), least type ".fst $v, $w$m", extremum<F, false, false>},              \
  {word_of(op, flags | 2), most type ".lst $v, $w$m", extremum<F, true, true>},                 \
  {word_of(op, flags | 3), least type ".lst $v, $w$m", extremum<F, false, true>}
#define ITERATE2(op, name, Next)                                                                \
  {word_of(op, 0), name ".d $v, $w, $Y", iterate<double, Next<double>>},                        \
  {word_of(op, 8), name ".s $v, $w, $Y", iterate<float, Next<float>>}
#define ITERATE3(op, name, Next)                                                                \
  {word_of(op, 0), name ".d $v, $w, $x, $Y", iterate<double, Next<double>>},                    \
  {word_of(op, 8), name ".s $v, $w, $x, $Y", iterate<float, Next<float>>}

const Entry kRows[] = {
    {word_of(0xea, 0), "vsum.w.sx $v, $w$m", reduce<i32, add<i32>, 0>},
    {word_of(0xea, 4), "vsum.w.zx $v, $w$m", reduce<u32, add<u32>, 0>},
    {word_of(0xaa, 0), "vsum.l $v, $w$m", reduce<u64, add<u64>, 0>},
    {word_of(0xec, 0), "vfsum.d $v, $w$m", float_sum<double>},
    {word_of(0xec, 8), "vfsum.s $v, $w$m", float_sum<float>},
    WORD_EXTREMA(0, ".sx", true),
    WORD_EXTREMA(4, ".zx", false),
    ALL_EXTREMA(0xab, 0, "vrmaxs", "vrmins", ".l", i64),
    ALL_EXTREMA(0xad, 0, "vfrmax", "vfrmin", ".d", double),
    ALL_EXTREMA(0xad, 8, "vfrmax", "vfrmin", ".s", float),
    {word_of(0x88, 0), "vrand $v, $w$m", reduce<u64, bit_and<u64>, ~u64{0}>},
    {word_of(0x98, 0), "vror $v, $w$m", reduce<u64, bit_or<u64>, 0>},
    {word_of(0x89, 0), "vrxor $v, $w$m", reduce<u64, bit_xor<u64>, 0>},
    ITERATE2(0xce, "vfia", next_add),
    ITERATE2(0xde, "vfis", next_sub),
    ITERATE2(0xcf, "vfim", next_mul),
    ITERATE3(0xee, "vfiam", next_add_mul),
    ITERATE3(0xfe, "vfism", next_sub_mul),
    ITERATE3(0xef, "vfima", next_mul_add),
    ITERATE3(0xff, "vfims", next_mul_sub),
};

}  // namespace

Rows vector_reduction_rows() { return rows(kRows); }

}  // namespace vesim
