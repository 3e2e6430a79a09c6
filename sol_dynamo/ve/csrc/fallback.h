// Operators without a kernel of the device run on the CPU: correct, slow, and counted.
#pragma once

#include "device.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ve {

// Notes that an operator runs on the CPU; the first time for each name, a warning says so.
void count_fallback(const c10::OperatorName& name);

// Runs an operator on CPU copies of its arguments.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Runs an operator as a program of ours where there is one, else on the CPU.
void run_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Whether an operator's arguments (indices, lengths) may lie on the CPU for every device.
bool takes_host_tensors(const std::string& name);

// How often each operator ran on the CPU, by name with overload. `reset_fallbacks` also lets each
// warn once more.
std::vector<std::pair<std::string, int64_t>> fallbacks();
void reset_fallbacks();
void set_fallback_warnings(bool on);

} // namespace ve
