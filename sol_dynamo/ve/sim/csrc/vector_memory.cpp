// Vector loads and stores: strided, two-dimensional, gathered and scattered.
//
// The whole span of an access is looked up once; only where that fails, or the span is wide, does
// each element's address get checked. A load that traps leaves its register as it was.
#include <algorithm>

#include "vector.h"

namespace vesim {
namespace {

using u64 = uint64_t;
using u32 = uint32_t;
using i64 = int64_t;

constexpr u64 kWideSpan = u64{1} << 22;  // bytes; beyond, elements are looked up one by one

// What lies in memory for an element of a register.
struct Whole {
  using T = u64;
  static u64 in(T m) { return m; }
  static T out(u64 v) { return v; }
};
struct Upper {
  using T = u32;
  static u64 in(T m) { return u64{m} << 32; }
  static T out(u64 v) { return static_cast<T>(v >> 32); }
};
struct LowerSigned {
  using T = u32;
  static u64 in(T m) { return sign_extended(m); }
  static T out(u64 v) { return static_cast<T>(v); }
};
struct Lower {
  using T = u32;
  static u64 in(T m) { return m; }
  static T out(u64 v) { return static_cast<T>(v); }
};

u64 scalar_z(const Core& core, const Instruction& i) { return i.cz ? core.s[i.sz] : 0; }
bool active(const Core& core, const Instruction& i, unsigned e) {
  return i.m == 0 || mask_bit(core.vm[i.m], e);
}

// Offsets of elements from the base address.
struct Strided {
  i64 stride;
  explicit Strided(u64 sy) : stride(static_cast<i64>(sy)) {}
  i64 operator()(unsigned e) const { return stride * static_cast<i64>(e); }
};
// 16 elements in a row: sy holds the distance of rows, and in its low 16 bits that of elements.
struct Rows16 {
  i64 row, column;
  explicit Rows16(u64 sy)
      : row(static_cast<i64>(sy) >> 16), column(static_cast<int16_t>(sy & 0xffff)) {}
  i64 operator()(unsigned e) const { return row * (e / 16) + column * (e % 16); }
};

// The host's place of `base`, if all elements are there, aligned and may be accessed so.
template <class T, class Offsets>
uint8_t* span(Core& core, u64 base, const Offsets& offset, unsigned vl, unsigned rights) {
  i64 low = 0, high = 0, odd = static_cast<i64>(base);
  if (std::is_same<Offsets, Strided>::value) {
    if (static_cast<u64>(offset(1)) + kWideSpan > 2 * kWideSpan) return nullptr;  // may wrap around
    const i64 last = offset(vl - 1);
    low = std::min<i64>(0, last);
    high = std::max<i64>(0, last);
    odd |= vl > 1 ? offset(1) : 0;
  } else {
    for (unsigned e = 0; e < vl; ++e) {
      low = std::min(low, offset(e));
      high = std::max(high, offset(e));
      odd |= offset(e);
    }
  }
  const u64 bytes = static_cast<u64>(high - low);
  if (odd % static_cast<i64>(sizeof(T)) != 0 || bytes > kWideSpan) return nullptr;
  uint8_t* p = core.memory().at(base + static_cast<u64>(low), bytes + sizeof(T), rights);
  return p == nullptr ? nullptr : p - low;
}

template <class Element, class Offsets>
void load(Core& core, const Instruction& i) {
  using T = typename Element::T;
  const unsigned vl = static_cast<unsigned>(core.vl);
  if (vl == 0) return;
  const Offsets offset(scalar_y(core, i));
  const u64 base = scalar_z(core, i);
  u64* x = vector(core, i.vx);
  const uint8_t* p = span<T>(core, base, offset, vl, Memory::kRead);
  if (p != nullptr) {
    if (offset(1) == sizeof(T) && std::is_same<Offsets, Strided>::value) {
      const T* from = reinterpret_cast<const T*>(p);
      VESIM_INDEPENDENT
      for (unsigned e = 0; e < vl; ++e) x[e] = Element::in(from[e]);
      return;
    }
    for (unsigned e = 0; e < vl; ++e) {
      x[e] = Element::in(*reinterpret_cast<const T*>(p + offset(e)));
    }
    return;
  }
  u64 result[kElements];
  for (unsigned e = 0; e < vl; ++e) {
    const u64 address = base + static_cast<u64>(offset(e));
    result[e] = Element::in(*reinterpret_cast<const T*>(
        access(core, address, sizeof(T), Memory::kRead, sizeof(T))));
  }
  std::memcpy(x, result, vl * sizeof *x);
}

template <class Element, class Offsets>
void store(Core& core, const Instruction& i) {
  using T = typename Element::T;
  const unsigned vl = static_cast<unsigned>(core.vl);
  if (vl == 0) return;
  const Offsets offset(scalar_y(core, i));
  const u64 base = scalar_z(core, i);
  const u64* x = vector(core, i.vx);
  uint8_t* p = span<T>(core, base, offset, vl, Memory::kWrite);
  if (p != nullptr) {
    if (i.m == 0 && offset(1) == sizeof(T) && std::is_same<Offsets, Strided>::value) {
      T* to = reinterpret_cast<T*>(p);
      VESIM_INDEPENDENT
      for (unsigned e = 0; e < vl; ++e) to[e] = Element::out(x[e]);
      return;
    }
    for (unsigned e = 0; e < vl; ++e) {
      if (active(core, i, e)) *reinterpret_cast<T*>(p + offset(e)) = Element::out(x[e]);
    }
    return;
  }
  for (unsigned e = 0; e < vl; ++e) {
    if (!active(core, i, e)) continue;
    const u64 address = base + static_cast<u64>(offset(e));
    *reinterpret_cast<T*>(access(core, address, sizeof(T), Memory::kWrite, sizeof(T))) =
        Element::out(x[e]);
  }
}

// The address of each element lies in vy; with the cs bit in a scalar register, the same for all.
// sy and sz are ignored. open: they are taken for a hint about the range of addresses; compilers
// pass 0.
template <bool kScalar>
struct Addresses {
  const u64* of;
  Addresses(Core& core, const Instruction& i)
      : of(kScalar ? &core.s[i.sw] : vector(core, i.vy)) {}
  u64 operator()(unsigned e) const { return of[kScalar ? 0 : e]; }
};

// Where all active elements are, if that is one place: `at` is the host's of the address `low`.
template <class T>
struct Reach {
  T* at = nullptr;
  u64 low = 0;
  T& operator[](u64 address) const { return at[(address - low) / sizeof(T)]; }
};
template <class T, bool kScalar>
Reach<T> reach(Core& core, const Instruction& i, Addresses<kScalar> address, unsigned rights) {
  u64 low = ~u64{0}, high = 0, odd = 0;
  const unsigned vl = static_cast<unsigned>(core.vl);
  const auto include = [&](u64 a) {
    low = std::min(low, a);
    high = std::max(high, a);
    odd |= a;
  };
  if (i.m == 0) {
    for (unsigned e = 0; e < vl; ++e) include(address(e));
  } else {
    for (unsigned e = 0; e < vl; ++e) {
      if (active(core, i, e)) include(address(e));
    }
  }
  if (low > high || odd % sizeof(T) != 0 || high - low > kWideSpan) return {};
  return {reinterpret_cast<T*>(core.memory().at(low, high - low + sizeof(T), rights)), low};
}

template <class Element, bool kScalar>
void gather(Core& core, const Instruction& i) {
  using T = typename Element::T;
  const Addresses<kScalar> address(core, i);
  u64* x = vector(core, i.vx);
  const unsigned vl = static_cast<unsigned>(core.vl);
  const Reach<T> memory = reach<T, kScalar>(core, i, address, Memory::kRead);
  if (memory.at != nullptr && i.m == 0) {
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < vl; ++e) x[e] = Element::in(memory[address(e)]);
    return;
  }
  u64 result[kElements];
  for (unsigned e = 0; e < vl; ++e) {
    if (!active(core, i, e)) {
      result[e] = x[e];
    } else if (memory.at != nullptr) {
      result[e] = Element::in(memory[address(e)]);
    } else {
      const uint8_t* p = access(core, address(e), sizeof(T), Memory::kRead, sizeof(T));
      result[e] = Element::in(*reinterpret_cast<const T*>(p));
    }
  }
  std::memcpy(x, result, vl * sizeof *x);
}
template <class Element, bool kScalar>
void scatter(Core& core, const Instruction& i) {
  using T = typename Element::T;
  const Addresses<kScalar> address(core, i);
  const u64* x = vector(core, i.vx);
  const Reach<T> memory = reach<T, kScalar>(core, i, address, Memory::kWrite);
  for (unsigned e = 0; e < core.vl; ++e) {  // in order: the last of equal addresses stays
    if (!active(core, i, e)) continue;
    if (memory.at != nullptr) {
      memory[address(e)] = Element::out(x[e]);
    } else {
      uint8_t* p = access(core, address(e), sizeof(T), Memory::kWrite, sizeof(T));
      *reinterpret_cast<T*>(p) = Element::out(x[e]);
    }
  }
}

void prefetch(Core&, const Instruction&) {}

// --- the table -----------------------------------------------------------------------------------
// Bit 54 (flag 4) clear: not cached. Bit 55 (flag 8) of stores: order among them does not matter.

#define LOADS(op, flags, name, Element, Offsets)                               \
  {word_of(op, flags), name ".nc $v, $Y, $z", load<Element, Offsets>},         \
  {word_of(op, flags | 4), name " $v, $Y, $z", load<Element, Offsets>}
#define STORES(op, name, Element, Offsets)                                     \
  {word_of(op, 0), name ".nc $v, $Y, $z$m", store<Element, Offsets>},          \
  {word_of(op, 4), name " $v, $Y, $z$m", store<Element, Offsets>},             \
  {word_of(op, 8), name ".nc.ot $v, $Y, $z$m", store<Element, Offsets>},       \
  {word_of(op, 12), name ".ot $v, $Y, $z$m", store<Element, Offsets>}
#define INDEXED(op, flags, name, handler, Element)                             \
  {word_of(op, flags), name " $v, $w, $Y, $z$m", handler<Element, false>},     \
  {word_of(op, flags | 2), name " $v, $s, $Y, $z$m", handler<Element, true>}
#define GATHERS(op, flags, name, Element)                                      \
  INDEXED(op, flags, name ".nc", gather, Element), INDEXED(op, flags | 4, name, gather, Element)
#define SCATTERS(op, name, Element)                                            \
  INDEXED(op, 0, name ".nc", scatter, Element), INDEXED(op, 4, name, scatter, Element), \
  INDEXED(op, 8, name ".nc.ot", scatter, Element), INDEXED(op, 12, name ".ot", scatter, Element)

const Entry kRows[] = {
    {word_of(0x80, 0), "pfchv.nc $Y, $z", prefetch},
    {word_of(0x80, 4), "pfchv $Y, $z", prefetch},
    LOADS(0x81, 0, "vld", Whole, Strided),
    LOADS(0x82, 0, "vldu", Upper, Strided),
    LOADS(0x83, 0, "vldl.sx", LowerSigned, Strided),
    LOADS(0x83, 8, "vldl.zx", Lower, Strided),
    LOADS(0xc1, 0, "vld2d", Whole, Rows16),
    LOADS(0xc2, 0, "vldu2d", Upper, Rows16),
    LOADS(0xc3, 0, "vldl2d.sx", LowerSigned, Rows16),
    LOADS(0xc3, 8, "vldl2d.zx", Lower, Rows16),
    STORES(0x91, "vst", Whole, Strided),
    STORES(0x92, "vstu", Upper, Strided),
    STORES(0x93, "vstl", Lower, Strided),
    STORES(0xd1, "vst2d", Whole, Rows16),
    STORES(0xd2, "vstu2d", Upper, Rows16),
    STORES(0xd3, "vstl2d", Lower, Rows16),
    GATHERS(0xa1, 0, "vgt", Whole),
    GATHERS(0xa2, 0, "vgtu", Upper),
    GATHERS(0xa3, 0, "vgtl.sx", LowerSigned),
    GATHERS(0xa3, 8, "vgtl.zx", Lower),
    SCATTERS(0xb1, "vsc", Whole),
    SCATTERS(0xb2, "vscu", Upper),
    SCATTERS(0xb3, "vscl", Lower),
};

}  // namespace

Rows vector_memory_rows() { return rows(kRows); }

}  // namespace vesim
