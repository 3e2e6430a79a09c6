// How a handler stops the interpreter, and the checks that all handlers share.
#pragma once

#include <cstdint>

#include "machine.h"

namespace vesim {

struct TrapSignal {
  Trap trap;
};

// `at` with a trap instead of nullptr. `align`: what the address must be a multiple of.
uint8_t* checked(Core&, uint64_t address, uint64_t bytes, unsigned rights, uint64_t align);

inline uint8_t* access(Core& core, uint64_t address, uint64_t bytes, unsigned rights,
                       uint64_t align) {
  uint8_t* p = core.memory().at(address, bytes, rights);
  if (p == nullptr || (address & (align - 1)) != 0) {
    return checked(core, address, bytes, rights, align);
  }
  return p;
}

}  // namespace vesim
