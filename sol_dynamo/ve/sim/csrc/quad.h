// 128-bit IEEE numbers, for the VE's quadruple precision, on the host's integers: a compiler's own
// (__float128) rounds to nearest with some run-time libraries, whatever the rounding mode is. A
// number of VE code lies in a pair of registers: the even one holds the upper half.
#pragma once

#include <cstdint>

#include "machine.h"

namespace vesim {

using u128 = unsigned __int128;
using i128 = __int128;

struct Quad {
  u128 bits;
};

inline Quad quad_from(uint64_t upper, uint64_t lower) {
  return {static_cast<u128>(upper) << 64 | lower};
}
inline Quad quad_in(const Core& core, unsigned pair) {
  return quad_from(core.s[pair], core.s[pair + 1]);
}
inline void set_quad(Core& core, unsigned pair, Quad q) {
  core.s[pair] = static_cast<uint64_t>(q.bits >> 64);
  core.s[pair + 1] = static_cast<uint64_t>(q.bits);
}

// All round as the host's rounding mode says, which is the program's while VE code runs. open:
// which NaN comes out; here the first operand's, made quiet, or a positive one.
Quad quad_add(Quad, Quad);
Quad quad_sub(Quad, Quad);
Quad quad_mul(Quad, Quad);
Quad quad_div(Quad, Quad);
enum class Order { kLess, kEqual, kGreater, kNone };
Order quad_order(Quad, Quad);

Quad quad_of(double);  // exact, of floats too
template <class F> F quad_to(Quad);  // float, double
Quad quad_of_integer(bool negative, u128 magnitude);
// Its magnitude, towards zero, and its sign. `finite` false: an infinity or more than 128 bits, or
// a NaN, whose magnitude is 0 then.
struct Whole128 {
  u128 magnitude;
  bool negative, finite;
};
Whole128 quad_whole(Quad);

}  // namespace vesim
