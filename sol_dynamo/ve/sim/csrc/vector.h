// How vector instructions run on the host: loops over whole registers that the compiler turns into
// the host's own vector instructions.
//
// A kernel computes elements 0 to n - 1, n a multiple of 8: more than VL, so that no remainder loop
// is needed (a register has room for 256). What may not be changed (past VL, or masked out) is
// sorted out afterwards. Element e is v[e]; lanes of 32 bits lie at 2 e (lower) and 2 e + 1
// (upper).
// Registers are read as the type that an instruction says: build with -fno-strict-aliasing.
#pragma once

#include <cstdint>
#include <cstring>

#include "decode.h"
#include "operations.h"
#include "trap.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the simulator needs a little-endian host"
#endif

// Iterations of a loop do not depend on each other: the destination may be one of the sources, but
// then an element is made from the same element only.
#if defined(__clang__)
#define VESIM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define VESIM_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace vesim {

constexpr unsigned kElements = 256;
constexpr uint64_t kUpperHalf = 0xffffffff00000000, kLowerHalf = 0x00000000ffffffff;

// Which 32-bit lanes an instruction writes. The other lane of an element becomes 0, but kSigned
// extends the lower one.
enum class Part { kBoth, kUpper, kLower, kSigned };

// Which operand is a scalar register.
enum class Scalar { kNone, kY, kZ };

inline uint64_t* vector(Core& core, unsigned number) {
  return core.v[number < 64 ? number : core.vix];
}
inline uint64_t scalar_y(const Core& core, const Instruction& i) {
  return i.cy ? core.s[i.sy] : i.y;
}
inline unsigned rounded_up(uint64_t vl) { return (static_cast<unsigned>(vl) + 7) & ~7u; }
inline bool mask_bit(const uint64_t* vm, unsigned e) {
  return (vm[e / 64] >> (63 - e % 64) & 1) != 0;
}

// A mask as one word of ones or zeros for each element; zeros from `vl` on.
inline void expand_mask(const uint64_t* vm, unsigned vl, uint64_t* out) {
  for (unsigned word = 0; word * 64 < vl; ++word) {
    const uint64_t bits = vm[word];
    uint64_t* to = out + word * 64;
    VESIM_INDEPENDENT
    for (uint64_t k = 0; k < 64; ++k) to[k] = uint64_t{0} - (bits >> (63 - k) & 1);
  }
  for (unsigned e = vl; e < rounded_up(vl); ++e) out[e] = 0;
}
// Packed: the mask register's number is even and tells the upper lanes', the next one the lower's.
inline void expand_mask(const Core& core, unsigned m, bool packed, unsigned vl, uint64_t* out) {
  expand_mask(core.vm[m], vl, out);
  if (!packed) return;
  uint64_t lower[kElements];
  expand_mask(core.vm[m + 1], vl, lower);
  const unsigned n = rounded_up(vl);
  for (unsigned e = 0; e < n; ++e) out[e] = (out[e] & kUpperHalf) | (lower[e] & kLowerHalf);
}

// Runs `kernel(destination, n)` for an instruction that writes vx, minding VL and the mask.
template <class Kernel>
inline void write_vector(Core& core, const Instruction& i, bool packed, Kernel kernel) {
  const unsigned vl = static_cast<unsigned>(core.vl), n = rounded_up(vl);
  uint64_t* x = vector(core, i.vx);
  if (n == vl && i.m == 0) {
    kernel(x, n);
    return;
  }
  alignas(64) uint64_t result[kElements];
  kernel(result, n);
  if (i.m == 0) {
    std::memcpy(x, result, vl * sizeof *x);
    return;
  }
  if (packed) {
    alignas(64) uint64_t mask[kElements];
    expand_mask(core, i.m, packed, vl, mask);
    for (unsigned e = 0; e < n; ++e) x[e] = (result[e] & mask[e]) | (x[e] & ~mask[e]);
    return;
  }
  for (unsigned first = 0; first < vl; first += 64) {
    const uint64_t beyond = vl - first < 64 ? ~uint64_t{0} >> (vl - first) : 0;
    const uint64_t take = core.vm[i.m][first / 64] & ~beyond;
    uint64_t* to = x + first;
    const uint64_t* from = result + first;
    VESIM_INDEPENDENT
    for (unsigned k = 0; k < 64; ++k) to[k] = (take >> (63 - k) & 1) != 0 ? from[k] : to[k];
  }
}

// Sets the lanes that an instruction does not compute.
template <Part P>
inline void settle(uint64_t* x, unsigned n) {
  if (P == Part::kUpper) {
    for (unsigned e = 0; e < n; ++e) x[e] &= kUpperHalf;
  } else if (P == Part::kLower) {
    for (unsigned e = 0; e < n; ++e) x[e] &= kLowerHalf;
  } else if (P == Part::kSigned) {
    for (unsigned e = 0; e < n; ++e) x[e] = sign_extended(static_cast<uint32_t>(x[e]));
  }
}

// vx = F(vy, vz), F(sy, vz) or F(vy, sy), on 64-bit elements.
template <class T, T F(T, T), Scalar S = Scalar::kNone>
void binary64(Core& core, const Instruction& i) {
  const T* y = reinterpret_cast<const T*>(vector(core, i.vy));
  const T* z = reinterpret_cast<const T*>(vector(core, i.vz));
  const T s = bits_as<T>(scalar_y(core, i));
  write_vector(core, i, false, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) {
      x[e] = F(S == Scalar::kY ? s : y[e], S == Scalar::kZ ? s : z[e]);
    }
  });
}

// A scalar operand as a register that holds it in each element: loops over lanes of 32 bits are
// then the same for all forms, and fast.
template <Scalar S>
struct Spread {
  alignas(64) uint64_t element[S == Scalar::kNone ? 1 : kElements];
  Spread(const Core& core, const Instruction& i) {
    if (S == Scalar::kNone) return;
    const uint64_t s = scalar_y(core, i);
    const unsigned n = rounded_up(core.vl);
    for (unsigned e = 0; e < n; ++e) element[e] = s;
  }
  const uint64_t* or_else(const uint64_t* v, Scalar which) const {
    return S == which ? element : v;
  }
};

// The same on lanes of 32 bits.
template <class T, T F(T, T), Part P, Scalar S = Scalar::kNone>
void binary32(Core& core, const Instruction& i) {
  const Spread<S> s(core, i);
  const T* y = reinterpret_cast<const T*>(s.or_else(vector(core, i.vy), Scalar::kY));
  const T* z = reinterpret_cast<const T*>(s.or_else(vector(core, i.vz), Scalar::kZ));
  write_vector(core, i, P == Part::kBoth, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned k = 0; k < 2 * n; ++k) x[k] = F(y[k], z[k]);
    settle<P>(out, n);
  });
}

// vx = F(source), whose register stands in the place of vz or vy.
template <class T, T F(T), bool kFromY>
void unary64(Core& core, const Instruction& i) {
  const T* a = reinterpret_cast<const T*>(vector(core, kFromY ? i.vy : i.vz));
  write_vector(core, i, false, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) x[e] = F(a[e]);
  });
}
template <class T, T F(T), Part P, bool kFromY>
void unary32(Core& core, const Instruction& i) {
  const T* a = reinterpret_cast<const T*>(vector(core, kFromY ? i.vy : i.vz));
  write_vector(core, i, P == Part::kBoth, [=](uint64_t* out, unsigned n) {
    T* x = reinterpret_cast<T*>(out);
    VESIM_INDEPENDENT
    for (unsigned k = 0; k < 2 * n; ++k) x[k] = F(a[k]);
    settle<P>(out, n);
  });
}


}  // namespace vesim
