// The arguments of a call as the C interface collects them.
#pragma once

#include <vector>

#include "process.h"
#include "veo.h"

struct veo_args {
  struct Argument {
    bool set = false;
    uint64_t value = 0;
    char* buffer = nullptr;  // on the stack, where `bytes`
    size_t bytes = 0;
    bool on_stack = false, in = false, out = false;
  };
  std::vector<Argument> arguments;

  // 0; -1 and the thread's last error where there is no such place.
  int set(int index, const Argument& argument);
  // What a core needs to run `function` with them on a stack of so many bytes, or Refused.
  vesim::Call call(uint64_t function, uint64_t stack_bytes) const;
};
