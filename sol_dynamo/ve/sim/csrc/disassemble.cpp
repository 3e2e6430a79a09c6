// Words to text, in the syntax of LLVM's disassembler (compared with it by tests/ve).
#include <string>

#include "decode.h"

namespace vesim {
namespace {

std::string number(int64_t n) { return std::to_string(n); }

std::string scalar(unsigned n) { return "%s" + number(n); }

std::string vector(unsigned n) { return n == 255 ? "%vix" : "%v" + number(n); }

std::string system_register(unsigned n) {
  if (n < 3) return std::string("%") + (n == 0 ? "usrcc" : n == 1 ? "psw" : "sar");
  if (n == 7) return "%pmmr";
  if (n >= 8 && n < 12) return "%pmcr" + number(n - 8);
  return "%pmc" + number(n - 16);
}

std::string run_of_bits(unsigned field) {
  return "(" + number(field & 63) + ")" + ((field & 64) != 0 ? "0" : "1");
}

// imm(sy, sz) with the parts that are zero left out; `comma`: sz stands behind one.
std::string address(const Instruction& i, bool with_sy, bool comma) {
  const std::string y = !with_sy ? "" : i.cy ? scalar(i.sy) : i.y != 0 ? number(int64_t(i.y)) : "";
  const std::string z = i.cz ? scalar(i.sz) : "";
  const std::string base = i.imm != 0 ? number(i.imm) : "";
  if (y.empty() && z.empty()) return base.empty() ? "0" : base;
  return base + "(" + y + (z.empty() ? "" : (comma ? ", " : "") + z) + ")";
}

std::string operand(char letter, const Instruction& i) {
  switch (letter) {
    case 'd': case 'q': return scalar(i.sx);
    case 'Y': case 'U': case 'Q': return i.cy ? scalar(i.sy) : number(static_cast<int64_t>(i.y));
    case '1': return i.cy ? scalar(i.sy) : number(i.sy);
    case 'j': return scalar(i.sy);
    case '7': return number(i.sy);
    case '6': return number(i.sx & 3);
    case '3': return number(i.sz);
    case 'Z': case 'R': return i.cz ? scalar(i.sz) : run_of_bits(i.sz);
    case 'W': return i.cy ? scalar(i.sy) : run_of_bits(i.sy);
    case 'z': return i.cz ? scalar(i.sz) : "0";
    case 'A': return address(i, true, true);
    case 'B': return address(i, false, true);
    case 'a': return address(i, false, false);
    case 'H':
      return (i.imm != 0 ? number(i.imm) : "") + "(" + (i.cz ? scalar(i.sz) : "") + ")";
    case 'D': return number(i.imm);
    case 'i': return system_register(i.sy);
    case 'c': return condition_name(i.m);
    case 'k': return condition_name(i.vw & 15);
    case 'e': return condition_name(i.vy & 15);
    case 'r': return rounding_name(i.sz & 15);
    case 'f': return rounding_name(i.vz & 15);
    case 'v': return vector(i.vx);
    case 'w': return vector(i.vy);
    case 'x': return vector(i.vz);
    case 't': return vector(i.vw);
    case 's': return scalar(i.sw);
    case 'm': case 'M': return i.m == 0 ? "" : ", %vm" + number(i.m);
    case 'n': return "%vm" + number(i.vx & 15);
    case 'o': return "%vm" + number(i.vy & 15);
    case 'p': return "%vm" + number(i.vz & 15);
  }
  return "?";
}

}  // namespace

std::string disassemble(uint64_t word) {
  const Instruction i = decode(word);
  if (i.entry == nullptr) return "";
  std::string text;
  for (const char* p = i.entry->syntax; *p != 0; ++p) {
    if (*p == '$') {
      text += operand(*++p, i);
    } else {
      text += *p;
    }
  }
  return text;
}

}  // namespace vesim
