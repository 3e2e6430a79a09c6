// Vector instructions that move elements (broadcast, merge, shuffle, compress) and mask registers.
//
// Bit 63 - e % 64 of word e / 64 of a mask register belongs to element e. Register 0 is all ones:
// writing it does nothing.
#include "vector.h"

namespace vesim {
namespace {

using u64 = uint64_t;
using u32 = uint32_t;
using i32 = int32_t;
using i64 = int64_t;

u64 scalar_z(const Core& core, const Instruction& i) { return i.cz ? core.s[i.sz] : i.z; }

// An operand that numbers a part of a register.
u64 index_below(Core& core, const Instruction& i, u64 limit, const char* what) {
  const u64 n = scalar_y(core, i);
  if (n >= limit) {
    core.raise(Trap::IllegalInstruction, 0,
               std::string("there is no ") + what + " " + std::to_string(n));
  }
  return n;
}

// --- single elements and words -------------------------------------------------------------------

void load_element(Core& core, const Instruction& i) {
  vector(core, i.vx)[index_below(core, i, kElements, "element")] = scalar_z(core, i);
}
void save_element(Core& core, const Instruction& i) {
  core.s[i.sx] = vector(core, i.vx)[index_below(core, i, kElements, "element")];
}
void load_mask(Core& core, const Instruction& i) {
  const u64 word = index_below(core, i, 4, "word of a mask register");
  if ((i.vx & 15) != 0) core.vm[i.vx & 15][word] = scalar_z(core, i);
}
void save_mask(Core& core, const Instruction& i) {
  core.s[i.sx] = core.vm[i.vz & 15][index_below(core, i, 4, "word of a mask register")];
}

// --- moves ---------------------------------------------------------------------------------------

template <u64 kKeep, bool kPacked>
void broadcast(Core& core, const Instruction& i) {
  const u64 value = scalar_y(core, i) & kKeep;
  write_vector(core, i, kPacked, [=](u64* x, unsigned n) {
    for (unsigned e = 0; e < n; ++e) x[e] = value;
  });
}

// vx[e] = vz[(e + sy) % 256]. The mask is asked about the element that is read.
void move(Core& core, const Instruction& i) {
  const u64 by = scalar_y(core, i);
  const u64* z = vector(core, i.vz);
  u64* x = vector(core, i.vx);
  u64 result[kElements];
  for (unsigned e = 0; e < core.vl; ++e) {
    const unsigned from = static_cast<unsigned>((e + by) % kElements);
    result[e] = i.m == 0 || mask_bit(core.vm[i.m], from) ? z[from] : x[e];
  }
  std::memcpy(x, result, core.vl * sizeof *x);
}

// vx = mask ? vz : vy (or sy); packed, each lane by its own mask.
template <bool kPacked, bool kScalar>
void merge(Core& core, const Instruction& i) {
  const u64 *y = vector(core, i.vy), *z = vector(core, i.vz);
  const u64 s = scalar_y(core, i);
  alignas(64) u64 mask[kElements];
  const unsigned vl = static_cast<unsigned>(core.vl);
  if (i.m == 0) {
    std::memset(mask, 0xff, sizeof mask);
  } else {
    expand_mask(core, i.m, kPacked, vl, mask);
  }
  Instruction unmasked = i;
  unmasked.m = 0;
  write_vector(core, unmasked, false, [&](u64* x, unsigned n) {
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) x[e] = (z[e] & mask[e]) | ((kScalar ? s : y[e]) & ~mask[e]);
  });
}

// Each half of vx is a half of vy or vz. sy: two bits for the upper half, two for the lower:
// whether it comes from vz, and whether it is that one's lower half.
void shuffle(Core& core, const Instruction& i) {
  const u64 code = scalar_y(core, i);
  const u64 *y = vector(core, i.vy), *z = vector(core, i.vz);
  const u64 *upper = (code & 8) != 0 ? z : y, *lower = (code & 2) != 0 ? z : y;
  const unsigned up = (code & 4) != 0 ? 32 : 0, down = (code & 1) != 0 ? 0 : 32;
  write_vector(core, i, false, [=](u64* x, unsigned n) {
    VESIM_INDEPENDENT
    for (unsigned e = 0; e < n; ++e) {
      x[e] = ((upper[e] << up) & kUpperHalf) | ((lower[e] >> down) & kLowerHalf);
    }
  });
}

// The active elements of vz, one behind another; the rest of vx stays.
void compress(Core& core, const Instruction& i) {
  const u64* z = vector(core, i.vz);
  u64* x = vector(core, i.vx);
  u64 result[kElements];
  unsigned n = 0;
  for (unsigned e = 0; e < core.vl; ++e) {
    if (mask_bit(core.vm[i.m], e)) result[n++] = z[e];
  }
  std::memcpy(x, result, n * sizeof *x);
}
// The first elements of vz, put where the mask is set.
void expand(Core& core, const Instruction& i) {
  u64 source[kElements];
  std::memcpy(source, vector(core, i.vz), sizeof source);
  u64* x = vector(core, i.vx);
  unsigned n = 0;
  for (unsigned e = 0; e < core.vl; ++e) {
    if (mask_bit(core.vm[i.m], e)) x[e] = source[n++];
  }
}

// --- forming masks -------------------------------------------------------------------------------

// A condition is a set of relations to 0: 1 greater, 2 less, 4 equal, 8 unordered.
template <class T, class Lane>
void form(Core& core, const Instruction& i, Lane lane) {
  const unsigned target = i.vx & 15, vl = static_cast<unsigned>(core.vl);
  if (target == 0) return;
  const u64* z = vector(core, i.vz);
  const unsigned condition = i.vy & 15, n = rounded_up(vl);
  const uint8_t greater = condition & 1, less = condition >> 1 & 1, equal = condition >> 2 & 1,
                unordered = condition >> 3 & 1;
  alignas(64) uint8_t truth[kElements];
  for (unsigned e = 0; e < n; ++e) {
    const T a = lane(z[e]);
    truth[e] = a > T{0} ? greater : a < T{0} ? less : a == T{0} ? equal : unordered;
  }
  for (unsigned word = 0; word * 64 < n; ++word) {
    u64 set = 0, all = 0;
    for (unsigned e = word * 64; e < n && e < word * 64 + 64; e += 8) {
      u64 eight;
      std::memcpy(&eight, truth + e, 8);
      // gathers the lowest bits of the 8 bytes, the first one as the highest bit
      const u64 byte = eight * 0x8040201008040201 >> 56;
      set |= byte << (56 - e % 64);
    }
    for (unsigned e = word * 64; e < vl && e < word * 64 + 64; ++e) all |= u64{1} << (63 - e % 64);
    if (i.m != 0) set &= core.vm[i.m][word];
    core.vm[target][word] = (core.vm[target][word] & ~all) | (set & all);
  }
}
void form_long(Core& core, const Instruction& i) {
  form<i64>(core, i, [](u64 z) { return static_cast<i64>(z); });
}
template <bool kUpper>
void form_word(Core& core, const Instruction& i) {
  form<i32>(core, i, [](u64 z) { return static_cast<i32>(kUpper ? z >> 32 : z); });
}
void form_double(Core& core, const Instruction& i) {
  form<double>(core, i, [](u64 z) { return bits_as<double>(z); });
}
template <bool kUpper>
void form_float(Core& core, const Instruction& i) {
  form<float>(core, i, [](u64 z) {
    return bits_as<float>(static_cast<u32>(kUpper ? z >> 32 : z));
  });
}

// --- masks ---------------------------------------------------------------------------------------

template <u64 F(u64, u64)>
void combine_masks(Core& core, const Instruction& i) {
  if ((i.vx & 15) == 0) return;
  for (unsigned word = 0; word < 4; ++word) {
    core.vm[i.vx & 15][word] = F(core.vm[i.vy & 15][word], core.vm[i.vz & 15][word]);
  }
}
u64 inverted(u64 y, u64) { return ~y; }

// Among the first VL bits: how many are set; how many stand before the first one that is; the
// position behind the last one that is.
void count_mask(Core& core, const Instruction& i) {
  u64 n = 0;
  for (unsigned e = 0; e < core.vl; ++e) n += mask_bit(core.vm[i.vy & 15], e);
  core.s[i.sx] = n;
}
void first_of_mask(Core& core, const Instruction& i) {
  unsigned e = 0;
  while (e < core.vl && !mask_bit(core.vm[i.vy & 15], e)) ++e;
  core.s[i.sx] = e;
}
void end_of_mask(Core& core, const Instruction& i) {
  unsigned e = static_cast<unsigned>(core.vl);
  while (e > 0 && !mask_bit(core.vm[i.vy & 15], e - 1)) --e;
  core.s[i.sx] = e;
}

// --- the table -----------------------------------------------------------------------------------

#define FORM(op, flags, name, handler)                                                       \
  {word_of(op, flags, u64{15} << 16), name ".at $n$m", handler},                             \
  {word_of(op, flags), name ".af $n$m", handler},                                            \
  {word_of(op, flags), name ".$e $n, $x$m", handler}

const Entry kRows[] = {
    {word_of(0x8e, 0), "lsv $v($U), $Z", load_element},
    {word_of(0x9e, 0), "lvs $d, $v($U)", save_element},
    {word_of(0xb7, 0), "lvm $n, $U, $Z", load_mask},
    {word_of(0xa7, 0), "svm $d, $p, $U", save_mask},
    {word_of(0x8c, 0), "vbrd $v, $Y$m", broadcast<~u64{0}, false>},
    {word_of(0x8c, 4), "vbrdl $v, $Y$m", broadcast<kLowerHalf, false>},
    {word_of(0x8c, 8), "vbrdu $v, $Y$m", broadcast<kUpperHalf, false>},
    {word_of(0x8c, 12), "pvbrd $v, $Y$M", broadcast<~u64{0}, true>},
    {word_of(0x9c, 0), "vmv $v, $U, $x$m", move},
    {word_of(0xd6, 0), "vmrg $v, $w, $x$m", merge<false, false>},
    {word_of(0xd6, 2), "vmrg $v, $Y, $x$m", merge<false, true>},
    {word_of(0xd6, 8), "vmrg.w $v, $w, $x$M", merge<true, false>},
    {word_of(0xd6, 10), "vmrg.w $v, $Y, $x$M", merge<true, true>},
    {word_of(0xbc, 0), "vshf $v, $w, $x, $U", shuffle},
    {word_of(0x8d, 0), "vcp $v, $x$m", compress},
    {word_of(0x9d, 0), "vex $v, $x$m", expand},
    FORM(0xb4, 0, "vfmk.l", form_long),
    FORM(0xb5, 0, "vfmk.w", form_word<false>),
    FORM(0xb5, 8, "pvfmk.w.up", form_word<true>),
    FORM(0xb6, 0, "vfmk.d", form_double),
    FORM(0xb6, 4, "pvfmk.s.lo", form_float<false>),
    FORM(0xb6, 8, "pvfmk.s.up", form_float<true>),
    {word_of(0x84, 0), "andm $n, $o, $p", combine_masks<bit_and<u64>>},
    {word_of(0x85, 0), "orm $n, $o, $p", combine_masks<bit_or<u64>>},
    {word_of(0x86, 0), "xorm $n, $o, $p", combine_masks<bit_xor<u64>>},
    {word_of(0x87, 0), "eqvm $n, $o, $p", combine_masks<bit_eqv<u64>>},
    {word_of(0x94, 0), "nndm $n, $o, $p", combine_masks<bit_nnd<u64>>},
    {word_of(0x95, 0), "negm $n, $o", combine_masks<inverted>},
    {word_of(0xa4, 0), "pcvm $d, $o", count_mask},
    {word_of(0xa5, 0), "lzvm $d, $o", first_of_mask},
    {word_of(0xa6, 0), "tovm $d, $o", end_of_mask},
};

}  // namespace

Rows vector_mask_rows() { return rows(kRows); }

}  // namespace vesim
