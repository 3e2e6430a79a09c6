// See decode.h. What an operand's letter means for the bits of a word stands here and nowhere else.
#include "decode.h"

#include <array>
#include <cstring>
#include <vector>

namespace vesim {
namespace {

constexpr uint64_t field(unsigned high, unsigned low) {
  return ((uint64_t{2} << (high - low)) - 1) << low;
}

constexpr uint64_t kSx = field(53, 48), kSy = field(47, 40), kSz = field(39, 32);
constexpr uint64_t kImm = field(31, 0);

uint64_t bits_of(char letter) {
  switch (letter) {
    case 'd': case 'q': return kSx;
    case 'Y': case 'U': case 'Q': case 'W': return kSy;
    case 'Z': case 'R': case 'z': return kSz;
    case 'A': return kSy | kSz | kImm;
    case 'B': case 'a': case 'H': return kSz | kImm;
    case 'D': return kImm;
    case '1': return field(40, 40);
    case '3': return field(34, 32);
    case '7': return field(42, 40);
    case '6': return field(49, 48);
    case 'i': case 'j': return field(46, 40);
    case 'c': case 'm': return field(51, 48);
    case 'M': return field(51, 49);
    case 'k': return field(3, 0);
    case 'r': return field(35, 32);
    case 'e': case 'o': return field(19, 16);
    case 'f': case 'p': return field(11, 8);
    case 'n': return field(27, 24);
    case 'v': return field(31, 24);
    case 'w': return field(23, 16);
    case 'x': return field(15, 8);
    case 't': return field(7, 0);
    case 's': return field(5, 0);
  }
  return 0;
}

bool is_vector(uint64_t number) { return number < 64 || number == 255; }

// Whether an operand's bits name something that exists.
bool valid(char letter, uint64_t word) {
  const bool cy = bits(word, 47, 47) != 0, cz = bits(word, 39, 39) != 0;
  const uint64_t sy = bits(word, 46, 40), sz = bits(word, 38, 32);
  const bool y = !cy || sy < 64, z = cz ? sz < 64 : sz == 0;
  switch (letter) {
    case 'q': return bits(word, 48, 48) == 0;
    case 'Y': case 'U': case 'W': return y;
    case 'Q': return !cy || (sy < 64 && sy % 2 == 0);
    case 'Z': return !cz || sz < 64;
    case 'R': return !cz || (sz < 64 && sz % 2 == 0);
    case 'z': case 'B': case 'a': case 'H': return z;
    case 'A': return y && z;
    case 'j': return sy < 64;
    case 'i': return sy < 3 || (sy >= 7 && sy < 12) || (sy >= 16 && sy < 31);
    case 'r': return rounding_name(static_cast<unsigned>(bits(word, 35, 32))) != nullptr;
    case 'f': return rounding_name(static_cast<unsigned>(bits(word, 11, 8))) != nullptr;
    case 'v': return is_vector(bits(word, 31, 24));
    case 'w': return is_vector(bits(word, 23, 16));
    case 'x': return is_vector(bits(word, 15, 8));
    case 't': return is_vector(bits(word, 7, 0));
  }
  return true;
}

struct Table {
  std::vector<Entry> entries;
  std::array<std::vector<const Entry*>, 256> of_opcode;

  Table() {
    for (const Rows& part : {scalar_rows(), floating_rows(), vector_integer_rows(),
                             vector_float_rows(), vector_memory_rows(), vector_mask_rows(),
                             vector_reduction_rows()}) {
      entries.insert(entries.end(), part.first, part.first + part.count);
    }
    for (Entry& e : entries) {
      e.mask = ~uint64_t{0};
      for (const char* p = e.syntax; *p != 0; ++p) {
        if (*p == '$') e.mask &= ~bits_of(*++p);
      }
      of_opcode[e.opcode()].push_back(&e);
    }
  }
};

const Table& table() {
  static const Table t;
  return t;
}

}  // namespace

std::string Entry::mnemonic() const {
  std::string name(syntax, std::strcspn(syntax, " "));
  const size_t operand = name.find('$');  // of a condition or rounding mode: "br$c.l" is "br.l"
  return operand == std::string::npos ? name : name.erase(operand, 2);
}

const Entry* find_entry(uint64_t word) {
  for (const Entry* e : table().of_opcode[word >> 56]) {
    if ((word & e->mask) != (e->fixed & e->mask)) continue;
    bool good = true;
    for (const char* p = e->syntax; *p != 0 && good; ++p) {
      if (*p == '$') good = valid(*++p, word);
    }
    if (good) return e;
  }
  return nullptr;
}

const Entry* entry_of_row(unsigned n) {
  return n < table().entries.size() ? &table().entries[n] : nullptr;
}

Instruction decode(uint64_t word) {
  Instruction i;
  i.word = word;
  i.entry = find_entry(word);
  if (i.entry == nullptr) return i;
  i.handler = i.entry->handler;
  i.flags = static_cast<uint8_t>(bits(word, 55, 52));
  i.cs = bits(word, 53, 53) != 0;
  i.m = static_cast<uint8_t>(bits(word, 51, 48));
  i.sx = static_cast<uint8_t>(bits(word, 53, 48));
  i.cy = bits(word, 47, 47) != 0;
  i.sy = static_cast<uint8_t>(bits(word, 46, 40));
  i.cz = bits(word, 39, 39) != 0;
  i.sz = static_cast<uint8_t>(bits(word, 38, 32));
  i.sw = static_cast<uint8_t>(bits(word, 5, 0));
  i.vx = static_cast<uint8_t>(bits(word, 31, 24));
  i.vy = static_cast<uint8_t>(bits(word, 23, 16));
  i.vz = static_cast<uint8_t>(bits(word, 15, 8));
  i.vw = static_cast<uint8_t>(bits(word, 7, 0));
  i.imm = static_cast<int32_t>(bits(word, 31, 0));
  i.y = static_cast<uint64_t>(static_cast<int64_t>(uint64_t{i.sy} << 57) >> 57);  // simm7
  i.z = mimm(i.sz);
  for (const char* p = i.entry->syntax; *p != 0; ++p) {
    if (*p != '$') continue;
    ++p;
    if (*p == 'U' || *p == '1' || *p == '7' || *p == 'i') i.y = i.sy;
    if (*p == 'W') i.y = mimm(i.sy);
    if (std::strchr("zABaH", *p) != nullptr) i.z = 0;
    if (*p == '3') i.z = i.sz;
  }
  return i;
}

const char* condition_name(unsigned condition) {
  static const char* const names[16] = {"af",  "gt",    "lt",    "ne",    "eq",    "ge",
                                        "le",  "num",   "nan",   "gtnan", "ltnan", "nenan",
                                        "eqnan", "genan", "lenan", "at"};
  return names[condition & 15];
}

const char* rounding_name(unsigned mode) {
  switch (mode) {
    case 0: return "";  // as the program mode says
    case 8: return ".rz";
    case 9: return ".rp";
    case 10: return ".rm";
    case 11: return ".rn";
    case 12: return ".ra";
  }
  return nullptr;
}

}  // namespace vesim
