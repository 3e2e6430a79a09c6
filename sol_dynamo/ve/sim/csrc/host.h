// Functions that VE code may call without bringing them: C's memory and string functions, the
// compiler's run-time library, what C++ needs without exceptions, and libm's scalar functions. They
// are executed by the host.
//
// Each has an address in VE memory whose instruction word only the interpreter understands; word 0
// there is the return to whoever called Core::run.
#pragma once

#include <cstdint>
#include <string>

#include "machine.h"

namespace vesim {

struct HostFunction {
  const char* name;
  void (*run)(Core&);  // arguments and result in s0, s1, ...; nullptr: the return to the host
};

constexpr uint64_t kThreadStorageOffset = 0x30;    // of thread-local memory from s14
constexpr uint64_t kThreadStorageBytes = 56 << 10;  // at most, of all images together

uint64_t firmware_address(Memory&);                            // of function 0, the return
uint64_t host_function(Memory&, const std::string& name);      // 0: there is no such function
const HostFunction* host_function_at(uint64_t firmware, uint64_t address);

}  // namespace vesim
