// The cycle model's table of instructions, by opcode.
//
// It is independent of the simulator's own table, which describes encodings and syntax; a test
// compares what the two say about operands.
#include "cycle_rules.h"

#include <array>
#include <cstring>

namespace vesim {
namespace {

// Registers: d = sx written, e = sx read, y, z = sy and sz read where cy, cz (of vector
// instructions: scalar operands). D = vx written, E = vx read, Y = vy read unless cs, Z = vz read,
// V = vz read unless cs2, W = vw read, Q = the only vector operand, in vy or vz. M = mask register
// vx written, P = masks vy and vz read. L = all elements one after the other. S = the mask chooses
// between operands and leaves no element as it was. Reductions write one element or two: the others
// stay, so that they read vx.
struct Row {
  uint8_t opcode;
  Unit unit;
  const char* registers;
  uint8_t cycles;  // of its pipe, for 32 elements
  uint8_t bytes;   // of memory, for an element
  Flop flop = Flop::None;
  uint8_t flops = 0;  // per element
};

constexpr Row kRows[] = {
    // Scalar loads and stores; dld* do not change the cache, which is left out.
    {0x01, Unit::ScalarLoad, "dyz", 1, 8}, {0x02, Unit::ScalarLoad, "dyz", 1, 4},
    {0x03, Unit::ScalarLoad, "dyz", 1, 4}, {0x04, Unit::ScalarLoad, "dyz", 1, 2},
    {0x05, Unit::ScalarLoad, "dyz", 1, 1}, {0x09, Unit::ScalarLoad, "dyz", 1, 8},
    {0x0a, Unit::ScalarLoad, "dyz", 1, 4}, {0x0b, Unit::ScalarLoad, "dyz", 1, 4},
    {0x0c, Unit::Prefetch, "yz", 1, 0},    {0x21, Unit::ScalarLoad, "dz", 1, 8},
    {0x11, Unit::ScalarStore, "eyz", 1, 8}, {0x12, Unit::ScalarStore, "eyz", 1, 4},
    {0x13, Unit::ScalarStore, "eyz", 1, 4}, {0x14, Unit::ScalarStore, "eyz", 1, 2},
    {0x15, Unit::ScalarStore, "eyz", 1, 1}, {0x31, Unit::ScalarStore, "ez", 1, 8},
    {0x42, Unit::Atomic, "deyz", 1, 8}, {0x43, Unit::Atomic, "deyz", 1, 8},
    {0x52, Unit::Atomic, "deyz", 1, 8}, {0x53, Unit::Atomic, "deyz", 1, 8},
    {0x62, Unit::Atomic, "deyz", 1, 8},
    // Branches. bsic and sic write the next address.
    {0x08, Unit::Jump, "dyz", 1, 0}, {0x18, Unit::Branch, "yz", 1, 0},
    {0x19, Unit::Jump, "yz", 1, 0}, {0x1b, Unit::Jump, "yz", 1, 0},
    {0x1c, Unit::Jump, "yz", 1, 0}, {0x28, Unit::Scalar, "d", 1, 0},
    // Scalar arithmetic.
    {0x06, Unit::Scalar, "dyz", 1, 0}, {0x0f, Unit::Multiply, "dy", 1, 0},
    {0x1f, Unit::Multiply, "dy", 1, 0}, {0x20, Unit::Fence, "", 1, 0},
    {0x22, Unit::Scalar, "d", 1, 0}, {0x29, Unit::Scalar, "d", 1, 0},
    {0x2a, Unit::Scalar, "d", 1, 0}, {0x2b, Unit::Scalar, "dyz", 1, 0},
    {0x2d, Unit::Multiply, "dy", 1, 0}, {0x2e, Unit::Scalar, "d", 1, 0},
    {0x2f, Unit::Scalar, "d", 1, 0}, {0x30, Unit::StoreFence, "", 1, 0},
    {0x38, Unit::Scalar, "dz", 1, 0}, {0x39, Unit::Scalar, "dz", 1, 0},
    {0x3a, Unit::Scalar, "y", 1, 0}, {0x3b, Unit::Scalar, "deyz", 1, 0},
    {0x3e, Unit::Multiply, "dyz", 1, 0}, {0x3f, Unit::Fence, "", 1, 0},
    {0x40, Unit::Divide, "dyz", 1, 0}, {0x41, Unit::Divide, "dyz", 1, 0},
    {0x44, Unit::Scalar, "dyz", 1, 0}, {0x45, Unit::Scalar, "dyz", 1, 0},
    {0x46, Unit::Scalar, "dyz", 1, 0}, {0x47, Unit::Scalar, "dyz", 1, 0},
    {0x48, Unit::Scalar, "dyz", 1, 0}, {0x49, Unit::Multiply, "dyz", 1, 0},
    {0x4a, Unit::Scalar, "dyz", 1, 0}, {0x4b, Unit::Multiply, "dyz", 1, 0},
    {0x4c, Unit::Multiply, "dyz", 1, 0, Flop::Single, 1},
    {0x4d, Unit::Multiply, "dyz", 1, 0, Flop::Single, 1},
    {0x4e, Unit::Multiply, "dy", 1, 0}, {0x4f, Unit::Multiply, "dy", 1, 0},
    {0x50, Unit::Divide, "eyz", 1, 0}, {0x51, Unit::Divide, "dyz", 1, 0},
    {0x54, Unit::Scalar, "dyz", 1, 0}, {0x55, Unit::Scalar, "dyz", 1, 0},
    {0x56, Unit::Scalar, "deyz", 1, 0}, {0x57, Unit::Scalar, "dyz", 1, 0},
    {0x58, Unit::Scalar, "dyz", 1, 0}, {0x59, Unit::Scalar, "dyz", 1, 0},
    {0x5a, Unit::Scalar, "dyz", 1, 0}, {0x5b, Unit::Scalar, "dyz", 1, 0},
    {0x5c, Unit::Multiply, "dyz", 1, 0, Flop::Single, 1},
    {0x5d, Unit::Divide, "dyz", 1, 0, Flop::Single, 1},
    {0x5e, Unit::Multiply, "dy", 1, 0}, {0x5f, Unit::Multiply, "dy", 1, 0},
    {0x64, Unit::Scalar, "deyz", 1, 0}, {0x65, Unit::Scalar, "dyz", 1, 0},
    {0x66, Unit::Scalar, "dyz", 1, 0}, {0x67, Unit::Scalar, "dz", 1, 0},
    {0x68, Unit::Scalar, "dyz", 1, 0}, {0x69, Unit::Scalar, "y", 1, 0},
    {0x6a, Unit::Scalar, "dyz", 1, 0}, {0x6b, Unit::Multiply, "dyz", 1, 0},
    {0x6c, Unit::Divide, "dyz", 1, 0}, {0x6d, Unit::Divide, "dyz", 1, 0},
    {0x6e, Unit::Multiply, "dyz", 1, 0}, {0x6f, Unit::Divide, "dyz", 1, 0},
    {0x74, Unit::Scalar, "deyz", 1, 0}, {0x75, Unit::Scalar, "dyz", 1, 0},
    {0x76, Unit::Scalar, "dyz", 1, 0}, {0x77, Unit::Scalar, "dyz", 1, 0},
    {0x78, Unit::Scalar, "dyz", 1, 0}, {0x79, Unit::Scalar, "", 1, 0},
    {0x7a, Unit::Scalar, "dyz", 1, 0}, {0x7b, Unit::Divide, "dyz", 1, 0},
    {0x7c, Unit::Divide, "dyz", 1, 0}, {0x7d, Unit::Divide, "dyz", 1, 0},
    {0x7e, Unit::Multiply, "dyz", 1, 0}, {0x7f, Unit::Divide, "dyz", 1, 0},
    // The vector unit's length and index registers: scalar instructions.
    {0xaf, Unit::Scalar, "y", 1, 0}, {0xbf, Unit::Scalar, "y", 1, 0},
    // Vector memory access.
    {0x80, Unit::Load, "yz", 1, 8},    {0x81, Unit::Load, "Dyz", 1, 8},
    {0x82, Unit::Load, "Dyz", 1, 4},   {0x83, Unit::Load, "Dyz", 1, 4},
    {0x91, Unit::Store, "Eyz", 1, 8},  {0x92, Unit::Store, "Eyz", 1, 4},
    {0x93, Unit::Store, "Eyz", 1, 4},  {0xa1, Unit::Gather, "DYyz", 1, 8},
    {0xa2, Unit::Gather, "DYyz", 1, 4}, {0xa3, Unit::Gather, "DYyz", 1, 4},
    {0xb1, Unit::Scatter, "EYyz", 1, 8}, {0xb2, Unit::Scatter, "EYyz", 1, 4},
    {0xb3, Unit::Scatter, "EYyz", 1, 4}, {0xc1, Unit::Load2d, "Dyz", 1, 8},
    {0xc2, Unit::Load2d, "Dyz", 1, 4}, {0xc3, Unit::Load2d, "Dyz", 1, 4},
    {0xd1, Unit::Store2d, "Eyz", 1, 8}, {0xd2, Unit::Store2d, "Eyz", 1, 4},
    {0xd3, Unit::Store2d, "Eyz", 1, 4},
    // Between vector, mask and scalar registers.
    {0x8e, Unit::Alu, "DEyz", 1, 0},   {0x9e, Unit::ToScalar, "dEy", 1, 0},
    {0xa4, Unit::ToScalar, "dP", 1, 0}, {0xa5, Unit::ToScalar, "dP", 1, 0},
    {0xa6, Unit::ToScalar, "dP", 1, 0}, {0xa7, Unit::ToScalar, "dPy", 1, 0},
    {0xb7, Unit::Mask, "Myz", 1, 0},
    // Masks.
    {0x84, Unit::Mask, "MP", 1, 0}, {0x85, Unit::Mask, "MP", 1, 0},
    {0x86, Unit::Mask, "MP", 1, 0}, {0x87, Unit::Mask, "MP", 1, 0},
    {0x94, Unit::Mask, "MP", 1, 0}, {0x95, Unit::Mask, "MP", 1, 0},
    {0xb4, Unit::Alu, "MZ", 1, 0}, {0xb5, Unit::Alu, "MZ", 1, 0}, {0xb6, Unit::Alu, "MZ", 1, 0},
    // Broadcasts, logic, shifts, integers.
    {0x8c, Unit::Alu, "Dy", 1, 0},   {0x99, Unit::Alu, "D", 1, 0},
    {0x8a, Unit::Alu, "DYZy", 1, 0}, {0x8b, Unit::Alu, "DYZy", 1, 0},
    {0x9a, Unit::Alu, "DYZy", 1, 0}, {0x9b, Unit::Alu, "DYZy", 1, 0},
    {0xb9, Unit::Alu, "DYZy", 1, 0}, {0xba, Unit::Alu, "DYZy", 1, 0},
    {0xc4, Unit::Alu, "DYZy", 1, 0}, {0xc5, Unit::Alu, "DYZy", 1, 0},
    {0xc6, Unit::Alu, "DYZy", 1, 0}, {0xc7, Unit::Alu, "DYZy", 1, 0},
    {0xc8, Unit::Alu, "DYZy", 1, 0}, {0xca, Unit::Alu, "DYZy", 1, 0},
    {0xd4, Unit::Alu, "DYZy", 1, 0}, {0xd5, Unit::Alu, "DYZy", 1, 0},
    {0xd6, Unit::Alu, "DYZyS", 1, 0}, {0xd7, Unit::Alu, "DZyz", 1, 0},
    {0xd8, Unit::Alu, "DYZy", 1, 0}, {0xda, Unit::Alu, "DYZy", 1, 0},
    {0xe4, Unit::Alu, "DYZy", 1, 0}, {0xf4, Unit::Alu, "DYZy", 1, 0},
    {0xe5, Unit::Alu, "DYZy", 1, 0}, {0xe6, Unit::Alu, "DYZy", 1, 0},
    {0xe7, Unit::Alu, "DQ", 1, 0},   {0xf5, Unit::Alu, "DYZy", 1, 0},
    {0xf6, Unit::Alu, "DYZy", 1, 0}, {0xf7, Unit::Alu, "DQ", 1, 0},
    {0xfa, Unit::Alu, "DYZy", 1, 0}, {0xac, Unit::Complex, "DQ", 1, 0},
    // Products of integers; comparisons and conversions of floats.
    {0xc9, Unit::Fma, "DYZy", 1, 0}, {0xcb, Unit::Fma, "DYZy", 1, 0},
    {0xd9, Unit::Fma, "DYZy", 1, 0}, {0xdb, Unit::Fma, "DYZy", 1, 0},
    {0xbd, Unit::Alu, "DYZy", 1, 0}, {0xfc, Unit::Alu, "DYZy", 1, 0},
    {0x8f, Unit::Alu, "DQ", 1, 0},   {0x9f, Unit::Alu, "DQ", 1, 0},
    {0xa8, Unit::Alu, "DQ", 1, 0},   {0xb8, Unit::Alu, "DQ", 1, 0},
    {0xe8, Unit::Alu, "DQ", 1, 0},   {0xf8, Unit::Alu, "DQ", 1, 0},
    // Floats.
    {0xcc, Unit::Fma, "DYZy", 1, 0, Flop::Packed, 1},
    {0xdc, Unit::Fma, "DYZy", 1, 0, Flop::Packed, 1},
    {0xcd, Unit::Fma, "DYZy", 1, 0, Flop::Packed, 1},
    {0xe2, Unit::Fma, "DYVWy", 1, 0, Flop::Packed, 2},
    {0xe3, Unit::Fma, "DYVWy", 1, 0, Flop::Packed, 2},
    {0xf2, Unit::Fma, "DYVWy", 1, 0, Flop::Packed, 2},
    {0xf3, Unit::Fma, "DYVWy", 1, 0, Flop::Packed, 2},
    // The complex pipe. That division takes 16 cycles for 32 elements, and approximations 2, is
    // assumed. Recurrences take an element after the other.
    {0xdd, Unit::Complex, "DYVy", 16, 0, Flop::Single, 1},
    {0xed, Unit::Complex, "DQ", 16, 0, Flop::Single, 1},
    {0xe9, Unit::Complex, "DYVy", 16, 0}, {0xeb, Unit::Complex, "DYVy", 16, 0},
    {0xfb, Unit::Complex, "DYVy", 16, 0},
    {0xe1, Unit::Complex, "DQ", 2, 0}, {0xf1, Unit::Complex, "DQ", 2, 0},
    {0xea, Unit::Complex, "DEQ", 2, 0}, {0xaa, Unit::Complex, "DEQ", 2, 0},
    {0xec, Unit::Complex, "DEQ", 2, 0, Flop::Single, 1},
    {0x88, Unit::Complex, "DEQ", 2, 0}, {0x89, Unit::Complex, "DEQ", 2, 0},
    {0x98, Unit::Complex, "DEQ", 2, 0}, {0xab, Unit::Complex, "DEQ", 2, 0},
    {0xad, Unit::Complex, "DEQ", 2, 0}, {0xbb, Unit::Complex, "DEQ", 2, 0},
    {0x8d, Unit::Complex, "DEQ", 2, 0}, {0x9d, Unit::Complex, "DEQ", 2, 0},
    {0x9c, Unit::Complex, "DZy", 2, 0}, {0xbc, Unit::Complex, "DYZy", 2, 0},
    {0xce, Unit::Complex, "DQyL", 16, 0, Flop::Single, 1},
    {0xcf, Unit::Complex, "DQyL", 16, 0, Flop::Single, 1},
    {0xde, Unit::Complex, "DQyL", 16, 0, Flop::Single, 1},
    {0xee, Unit::Complex, "DYZyL", 16, 0, Flop::Single, 2},
    {0xef, Unit::Complex, "DYZyL", 16, 0, Flop::Single, 2},
    {0xfe, Unit::Complex, "DYZyL", 16, 0, Flop::Single, 2},
    {0xff, Unit::Complex, "DYZyL", 16, 0, Flop::Single, 2},
};

std::array<Rule, 256> make_rules() {
  static constexpr char letters[] = "deyzDEYZWQMPLVS";
  std::array<Rule, 256> rules;
  for (const Row& row : kRows) {
    Rule& rule = rules[row.opcode];
    rule = {row.unit, 0, row.registers, row.cycles, row.bytes, row.flops, row.flop};
    for (const char* r = row.registers; *r; ++r) {
      rule.uses |= 1u << (std::strchr(letters, *r) - letters);
    }
  }
  return rules;
}

const std::array<Rule, 256> kRules = make_rules();

}  // namespace

const Rule& rule_of(unsigned opcode) { return kRules[opcode & 255]; }

const char* cycle_rule(unsigned opcode) {
  const Rule& rule = rule_of(opcode);
  return rule.unit == Unit::None ? nullptr : rule.registers;
}

}  // namespace vesim
