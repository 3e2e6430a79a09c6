// The text of a trap: what is wrong, where, with which numbers. It is what a user of a failing
// kernel reads, often the only thing.
#include "trap.h"

#include <cinttypes>
#include <cstdio>

#include "decode.h"

namespace vesim {
namespace {

std::string hex(uint64_t n) {
  char text[24];
  snprintf(text, sizeof text, "0x%" PRIx64, n);
  return text;
}

}  // namespace

const char* Trap::name(Kind kind) {
  switch (kind) {
    case None: return "no trap";
    case IllegalInstruction: return "illegal instruction";
    case UnimplementedInstruction: return "unimplemented instruction";
    case MemoryAccess: return "memory access violation";
    case Alignment: return "misaligned access";
    case StackOverflow: return "stack overflow";
    case SystemCall: return "system call";
    case DivideByZero: return "integer division by zero";
    case StepLimit: return "instruction limit reached";
    case Interrupted: return "interrupted";
    case HostFunction: return "error in a library function";
    case Paused: return "paused";
  }
  return "unknown trap";
}

void Core::raise(Trap::Kind kind, uint64_t address, const std::string& detail) {
  Trap t;
  t.kind = kind;
  t.ic = ic;
  t.address = address;
  t.text = std::string(Trap::name(kind)) + " at " + hex(ic);
  const std::string place = memory_.describe(ic);
  if (!place.empty()) t.text += " in " + place;
  if (memory_.firmware != 0 && ic - memory_.firmware < Memory::kPageBytes) {
    const std::string caller = memory_.describe(s[10] - 8);
    t.text += ", called" + (caller.empty() ? " from " + hex(s[10] - 8) : " in " + caller);
  } else if (memory_.at(ic, 8, Memory::kExecute) != nullptr && memory_.read(&t.word, ic, 8)) {
    const std::string code = disassemble(t.word);
    if (!code.empty()) {
      t.text += ": " + code;
    } else if (kind == Trap::IllegalInstruction) {
      t.text += ": the word " + hex(t.word) + " is no instruction of a user's program";
    }
  }
  if (!detail.empty()) t.text += ": " + detail;
  throw TrapSignal{t};
}

uint8_t* checked(Core& core, uint64_t address, uint64_t bytes, unsigned rights, uint64_t align) {
  Memory& memory = core.memory();
  if (address % align != 0) {
    core.raise(Trap::Alignment, address,
               "address " + hex(address) + " is not a multiple of " + std::to_string(align));
  }
  uint8_t* p = memory.at(address, bytes, rights);
  if (p != nullptr) return p;
  uint64_t bad = address;  // the first byte that cannot be accessed
  while (bad - address < bytes && (memory.rights(bad) & rights) == rights) {
    bad = (bad | (Memory::kPageBytes - 1)) + 1;
  }
  const unsigned has = memory.rights(bad);
  if ((has & Memory::kStackGuard) != 0) {
    core.raise(Trap::StackOverflow, bad,
               "address " + hex(bad) + " lies below the stack " + hex(core.stack_low()) + "-" +
                   hex(core.stack_high()));
  }
  std::string why = "address " + hex(bad);
  const std::string name = memory.describe(bad);
  if (!name.empty()) why += " (" + name + ")";
  why += has == 0 ? " is not mapped" : (rights & Memory::kWrite) != 0 ? " is read-only"
                                                                      : " cannot be accessed so";
  if (has == 0 && bad < memory.base()) {
    why += "; VE memory is " + hex(memory.base()) + "-" + hex(memory.base() + memory.bytes());
  }
  core.raise(Trap::MemoryAccess, bad, why);
}

}  // namespace vesim
