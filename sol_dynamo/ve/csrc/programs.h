// Operators as compiled programs: found by what their arguments look like, made by Python.
#pragma once

#include "device.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

struct _object; // PyObject

namespace ve {

// Runs an operator as a program of ours: arguments are popped and results pushed. False, with the
// stack as it was, where there is none and the CPU has to do it.
bool run_program(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Whom to ask for a program that is not known: called with the operator's name and overload, its
// arguments, and the positions of those that are numbers to come, or lists of such. Gives None,
// False (not this time), or a function of the tensors and the numbers with how many tensors each
// result is. `lifted`: by full name, positions of arguments whose number is no part of a program.
// With the GIL; null: nobody.
void set_compiler(_object* compile, std::unordered_map<std::string, std::vector<size_t>> lifted);

// How many calls ran as programs, and how many programs there are.
std::pair<int64_t, int64_t> program_counts();

} // namespace ve
