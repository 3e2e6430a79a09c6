// What the cycle model knows of each opcode: its unit, the registers that it uses, how long it
// keeps a pipe. The table itself is in cycle_rules.cpp; times are in cycle_parameters.h.
#pragma once

#include <cstdint>

namespace vesim {

enum class Unit : uint8_t {
  None,        // no such instruction
  Scalar,      // integers, logic, moves
  Multiply,    // scalar floats and integer products
  Divide,      // scalar
  ScalarLoad,
  ScalarStore,
  Prefetch,
  Atomic,
  Branch,      // to an address relative to the instruction
  Jump,        // to an address in a register
  Fence,       // waits for all memory accesses
  StoreFence,  // vector loads after it wait for vector stores before it
  Fma,
  Alu,
  Complex,     // division, sums, permutations: one pipe
  Mask,        // on mask registers
  ToScalar,    // from a vector or mask register
  Load,
  Store,
  Gather,
  Scatter,
  Load2d,
  Store2d,
};

enum class Flop : uint8_t {
  None,
  Packed,  // .d where bits 55-54 are 00, two floats where 11, else one
  Single,  // .s where bit 55 is set, else .d
};

// `Row::registers` as bits.
enum Use : uint32_t {
  WriteS = 1, ReadS = 2, ReadY = 4, ReadZ = 8, WriteV = 16, ReadVx = 32, ReadVy = 64, ReadVz = 128,
  ReadVw = 256, ReadOne = 512, WriteM = 1024, ReadMasks = 2048, Serial = 4096,
  ReadVzOrY = 8192, Selects = 16384,
};

struct Rule {
  Unit unit = Unit::None;
  uint32_t uses = 0;
  const char* registers = "";
  uint8_t cycles = 1, bytes = 0, flops = 0;
  Flop flop = Flop::None;
};

const Rule& rule_of(unsigned opcode);  // Unit::None: not known

// The registers that an opcode's instructions use, in the letters of the table; nullptr: not known.
const char* cycle_rule(unsigned opcode);

}  // namespace vesim
