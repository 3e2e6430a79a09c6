// The table of instructions: encoding, syntax and meaning of each in one row.
//
// A row's syntax names its operands as `$` and a letter; the letter also says which bits of the
// word the operand occupies. All other bits must be as in `fixed`: what no row describes is no
// instruction. Decoder and disassembler are both driven by these rows, which lie beside the
// functions that execute them (scalar.cpp, vector_*.cpp).
#pragma once

#include <cstdint>
#include <string>

#include "machine.h"

namespace vesim {

// The letters. "register or immediate": bit 47 (sy) or 39 (sz) set means a register.
//   d  sx, register               q  the same, even: a pair of registers (128 bits)
//   Y  sy, register or simm7      U  sy, register or uimm7      Q  sy, pair or simm7
//   Z  sz, register or (m)0/(m)1  z  sz, register or 0          R  sz, pair or (m)0/(m)1
//   A  address imm(sy, sz)        B  address imm(, sz)          a  address imm(sz)
//   H  the same, of host memory   D  imm, a branch's distance
//   W  sy, register or (m)0/(m)1
//   1  sy, uimm1    3  sz, uimm3    j  sy, register    7 6  kinds of fence
//   c  condition, bits 51-48      k  condition, bits 3-0        e  condition, bits 19-16
//   r  rounding, bits 35-32       f  rounding, bits 11-8        i  name of a system register, sy
//   v w x t  vector registers vx, vy, vz, vw                    s  sw, scalar register
//   m  mask, bits 51-48, printed as ", %vm2" unless it is 0     M  the same, an even one (packed)
//   n o p  mask registers in the place of vx, vy, vz
struct Entry {
  uint64_t fixed;         // opcode and the bits that no operand occupies
  const char* syntax;     // "vfmad.d $v, $w, $x, $t$m"
  Instruction::Handler handler;
  uint64_t mask = 0;      // of the bits that must be as in `fixed`, from the syntax

  unsigned opcode() const { return static_cast<unsigned>(fixed >> 56); }
  std::string mnemonic() const;  // up to the first operand: "vfmad.d"
};

struct Rows {
  const Entry* first;
  unsigned count;
};

template <unsigned N>
constexpr Rows rows(const Entry (&table)[N]) { return {table, N}; }

Rows scalar_rows();
Rows floating_rows();
Rows vector_integer_rows();
Rows vector_float_rows();
Rows vector_memory_rows();
Rows vector_mask_rows();
Rows vector_reduction_rows();

// The row of a word, or nullptr.
const Entry* find_entry(uint64_t word);
// The table's row number n, nullptr behind the last.
const Entry* entry_of_row(unsigned n);
// All fields of a word. handler and entry are nullptr where it is no instruction.
Instruction decode(uint64_t word);

constexpr uint64_t word_of(unsigned opcode, unsigned flags, uint64_t rest = 0) {
  return uint64_t{opcode} << 56 | uint64_t{flags} << 52 | rest;
}

constexpr uint64_t bits(uint64_t word, unsigned high, unsigned low) {
  return word >> low & ((uint64_t{2} << (high - low)) - 1);
}

// "(m)0": m zeros, then ones; "(m)1": m ones, then zeros. Bit 6 tells which.
constexpr uint64_t mimm(unsigned field) {
  const unsigned m = field & 63;
  const uint64_t zeros_then_ones = ~uint64_t{0} >> m;
  return (field & 64) != 0 ? zeros_then_ones : ~zeros_then_ones;
}

// Conditions and rounding modes as they stand in a word; nullptr: no such one.
const char* condition_name(unsigned condition);
const char* rounding_name(unsigned mode);

}  // namespace vesim
