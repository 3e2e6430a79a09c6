#include "veo_args.h"

#include <string.h>

#include <type_traits>

#include "registry.h"

using namespace vesim;

namespace {

constexpr unsigned kRegisters = 8;  // of the first arguments
constexpr uint64_t kStackReserve = uint64_t{1} << 20;  // for the callee, beside its arguments

// Integers are extended as their type says; a float is the upper half of its register.
template <typename T>
int set_argument(veo_args* args, int index, T value) {
  veo_args::Argument argument;
  if constexpr (std::is_same_v<T, double>) {
    memcpy(&argument.value, &value, 8);
  } else if constexpr (std::is_same_v<T, float>) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    argument.value = uint64_t{bits} << 32;
  } else {
    argument.value = static_cast<uint64_t>(static_cast<int64_t>(value));
  }
  return args ? args->set(index, argument) : -1;
}

}  // namespace

int veo_args::set(int index, const Argument& argument) {
  return guarded(-1, [&] {
    if (index < 0 || index >= VEO_MAX_NUM_ARGS) {
      throw Refused{"argument " + std::to_string(index) + " of at most " +
                           std::to_string(VEO_MAX_NUM_ARGS)};
    }
    if (arguments.size() <= static_cast<size_t>(index)) arguments.resize(index + 1);
    arguments[index] = argument;
    arguments[index].set = true;
    return 0;
  });
}

// The stack above the pointer: the register save area, a parameter area with a place for every
// argument (used from the ninth on), then the buffers, each at a multiple of 8.
Call veo_args::call(uint64_t function, uint64_t stack_bytes) const {
  Call call;
  call.function = function;
  uint64_t end = kParameters + 8 * arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Argument& a = arguments[i];
    if (!a.set) throw Refused{"argument " + std::to_string(i) + " was not set"};
    call.values.push_back(a.on_stack ? end : a.value);
    if (!a.on_stack) continue;
    if (a.bytes > stack_bytes) throw Refused{"an argument of " + std::to_string(a.bytes) +
                                             " bytes is larger than the stack"};
    call.addresses.push_back(static_cast<unsigned>(i));
    if (a.out) call.results.push_back({end, a.buffer, a.bytes});
    end += (a.bytes + 7) / 8 * 8;
  }
  call.frame = (end + 15) / 16 * 16;
  if (call.frame + kStackReserve > stack_bytes) {
    throw Refused{"arguments of " + std::to_string(call.frame) + " bytes leave less than " +
                  std::to_string(kStackReserve) + " of a stack of " + std::to_string(stack_bytes)};
  }
  if (arguments.size() <= kRegisters && call.addresses.empty()) return call;
  call.image.resize(call.frame);
  for (const unsigned i : call.addresses) {
    const Argument& a = arguments[i];
    if (a.in && a.bytes) memcpy(&call.image[call.values[i]], a.buffer, a.bytes);
  }
  return call;
}

extern "C" {

veo_args* veo_args_alloc(void) {
  return guarded<veo_args*>(nullptr, [] { return new veo_args; });
}
void veo_args_clear(veo_args* args) {
  if (args) args->arguments.clear();
}
void veo_args_free(veo_args* args) { delete args; }

int veo_args_set_i64(veo_args* args, int i, int64_t value) { return set_argument(args, i, value); }
int veo_args_set_u64(veo_args* args, int i, uint64_t value) { return set_argument(args, i, value); }
int veo_args_set_i32(veo_args* args, int i, int32_t value) { return set_argument(args, i, value); }
int veo_args_set_u32(veo_args* args, int i, uint32_t value) { return set_argument(args, i, value); }
int veo_args_set_i16(veo_args* args, int i, int16_t value) { return set_argument(args, i, value); }
int veo_args_set_u16(veo_args* args, int i, uint16_t value) { return set_argument(args, i, value); }
int veo_args_set_i8(veo_args* args, int i, int8_t value) { return set_argument(args, i, value); }
int veo_args_set_u8(veo_args* args, int i, uint8_t value) { return set_argument(args, i, value); }
int veo_args_set_double(veo_args* args, int i, double value) {
  return set_argument(args, i, value);
}
int veo_args_set_float(veo_args* args, int i, float value) { return set_argument(args, i, value); }

int veo_args_set_stack(veo_args* args, enum veo_args_intent intent, int index, char* buffer,
                       size_t bytes) {
  if (!args || (!buffer && bytes) || intent < VEO_INTENT_IN || intent > VEO_INTENT_OUT) return -1;
  veo_args::Argument argument;
  argument.on_stack = true;
  argument.buffer = buffer;
  argument.bytes = bytes;
  argument.in = intent != VEO_INTENT_OUT;
  argument.out = intent != VEO_INTENT_IN;
  return args->set(index, argument);
}

}  // extern "C"
