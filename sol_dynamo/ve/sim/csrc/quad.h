// 128-bit IEEE numbers of the host, for the VE's quadruple precision. A number of VE code lies in a
// pair of registers: the even one holds the upper half.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#include "machine.h"

namespace vesim {

#if defined(__SIZEOF_FLOAT128__)
using quad = __float128;
#elif LDBL_MANT_DIG == 113
using quad = long double;
#else
#error "the simulator needs 128-bit floating point: gcc or clang on x86-64 or AArch64"
#endif

inline quad quad_from(uint64_t upper, uint64_t lower) {
  const uint64_t halves[2] = {lower, upper};
  quad q;
  std::memcpy(&q, halves, sizeof q);
  return q;
}
inline void quad_to(quad q, uint64_t* upper, uint64_t* lower) {
  uint64_t halves[2];
  std::memcpy(halves, &q, sizeof q);
  *lower = halves[0];
  *upper = halves[1];
}
inline quad quad_in(const Core& core, unsigned pair) {
  return quad_from(core.s[pair], core.s[pair + 1]);
}
inline void set_quad(Core& core, unsigned pair, quad q) {
  quad_to(q, &core.s[pair], &core.s[pair + 1]);
}

}  // namespace vesim
