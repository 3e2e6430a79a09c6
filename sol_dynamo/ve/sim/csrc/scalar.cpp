// Scalar instructions: loads and stores, integers, shifts, branches, control.
// Each template is one form of instruction; the table at the end says which operation goes with it.
#include <algorithm>
#include <cstring>

#include "decode.h"
#include "operations.h"
#include "trap.h"

namespace vesim {
namespace {

// --- operands ------------------------------------------------------------------------------------

uint64_t y(const Core& core, const Instruction& i) {
  const uint64_t* p = i.cy ? &core.s[i.sy] : &i.y;
  return *p;
}
uint64_t z(const Core& core, const Instruction& i) {
  const uint64_t* p = i.cz ? &core.s[i.sz] : &i.z;
  return *p;
}
uint64_t address(const Core& core, const Instruction& i) {  // imm(sy, sz)
  return y(core, i) + z(core, i) + static_cast<uint64_t>(i.imm);
}
uint64_t address_without_y(const Core& core, const Instruction& i) {  // imm(, sz)
  return z(core, i) + static_cast<uint64_t>(i.imm);
}

// --- integers: sx = F(sy, sz) --------------------------------------------------------------------
// A 32-bit result is extended to 64 bits, by its sign (.sx) or by zeros (.zx, and unsigned).

template <class T, T F(T, T)>
void binary(Core& core, const Instruction& i) {
  core.s[i.sx] = static_cast<uint64_t>(F(static_cast<T>(y(core, i)), static_cast<T>(z(core, i))));
}
template <class T, T F(T, T)>
void binary_zx(Core& core, const Instruction& i) {
  core.s[i.sx] =
      static_cast<uint32_t>(F(static_cast<T>(y(core, i)), static_cast<T>(z(core, i))));
}
template <class T, bool kSignExtend>
void quotient(Core& core, const Instruction& i) {
  const T divisor = static_cast<T>(z(core, i));
  if (divisor == 0) core.raise(Trap::DivideByZero);
  const T q = divide<T>(static_cast<T>(y(core, i)), divisor);
  using U = typename std::make_unsigned<T>::type;
  core.s[i.sx] = kSignExtend ? static_cast<uint64_t>(q) : static_cast<U>(q);
}
void multiply_long(Core& core, const Instruction& i) {  // 32 x 32 -> 64
  core.s[i.sx] = sign_extended(static_cast<uint32_t>(y(core, i))) *
                 sign_extended(static_cast<uint32_t>(z(core, i)));
}

template <class T, T F(T)>
void unary(Core& core, const Instruction& i) {
  core.s[i.sx] = F(z(core, i));
}
// open: the bits of sx that sz selects come from sy.
void merge(Core& core, const Instruction& i) {
  const uint64_t mask = z(core, i);
  core.s[i.sx] = (y(core, i) & mask) | (core.s[i.sx] & ~mask);
}
void byte_swap(Core& core, const Instruction& i) {
  const uint64_t swapped = __builtin_bswap64(z(core, i));
  core.s[i.sx] = i.y == 0 ? swapped : swapped << 32 | swapped >> 32;  // 1: within each word
}

template <class T, T F(T, T), bool kSignExtend>
void shift(Core& core, const Instruction& i) {
  using U = typename std::make_unsigned<T>::type;
  const T r = F(static_cast<T>(z(core, i)), static_cast<T>(y(core, i)));
  core.s[i.sx] = kSignExtend ? static_cast<uint64_t>(r) : static_cast<U>(r);
}
void shift_left_pair(Core& core, const Instruction& i) {
  core.s[i.sx] = shift_left_double(core.s[i.sx], z(core, i), y(core, i));
}
void shift_right_pair(Core& core, const Instruction& i) {
  core.s[i.sx] = shift_right_double(z(core, i), core.s[i.sx], y(core, i));
}

// --- conditions ----------------------------------------------------------------------------------
// A condition is a set of relations: 1 greater, 2 less, 4 equal, 8 unordered.

template <class T>
bool holds(unsigned condition, T a, T b) {
  return (condition & (a > b ? 1u : a < b ? 2u : a == b ? 4u : 8u)) != 0;
}
template <class T>
T converted(uint64_t s) { return static_cast<T>(s); }
template <>
double converted<double>(uint64_t s) { return bits_as<double>(s); }
template <>
float converted<float>(uint64_t s) { return upper_float(s); }

template <class T>
void conditional_move(Core& core, const Instruction& i) {
  if (holds<T>(i.vw & 15, converted<T>(y(core, i)), T{0})) core.s[i.sx] = z(core, i);
}
template <class T>
void branch(Core& core, const Instruction& i) {
  if (holds<T>(i.m, converted<T>(y(core, i)), T{0})) core.next = address_without_y(core, i);
}
template <class T>
void branch_relative(Core& core, const Instruction& i) {
  if (holds<T>(i.m, converted<T>(y(core, i)), converted<T>(z(core, i)))) {
    core.next = core.ic + static_cast<uint64_t>(i.imm);
    if (i.imm <= 0) core.turn();
  }
}
void never(Core&, const Instruction&) {}
void jump(Core& core, const Instruction& i) { core.next = address_without_y(core, i); }
void jump_relative(Core& core, const Instruction& i) {
  core.next = core.ic + static_cast<uint64_t>(i.imm);
  if (i.imm <= 0) core.turn();
}
void branch_and_save(Core& core, const Instruction& i) {
  const uint64_t target = address(core, i);
  core.s[i.sx] = core.next;
  core.next = target;
}
void save_counter(Core& core, const Instruction& i) { core.s[i.sx] = core.next; }

// --- loads and stores ----------------------------------------------------------------------------

void load_address(Core& core, const Instruction& i) { core.s[i.sx] = address(core, i); }
void load_address_high(Core& core, const Instruction& i) {
  core.s[i.sx] = (static_cast<uint64_t>(i.imm) << 32) + y(core, i) + z(core, i);
}

// T is the type in memory: its signedness says how it is extended. Scalar accesses need no
// alignment (LLVM's code generator relies on that); vector and atomic ones do. A copy of fixed size
// is one move of the host, so that other cores see all of an aligned store or nothing. (Of vectors'
// elements too: x86 and AArch64 do not tear them.) Telling aligned ones apart, to make them atomic
// for the compiler as well, cost a third of the speed of scalar code.
template <class T, unsigned kShift = 0>
void load(Core& core, const Instruction& i) {
  T value;
  std::memcpy(&value, access(core, address(core, i), sizeof(T), Memory::kRead, 1), sizeof(T));
  core.s[i.sx] = static_cast<uint64_t>(static_cast<int64_t>(value)) << kShift;
}
template <class T, unsigned kShift = 0>
void store(Core& core, const Instruction& i) {
  const T value = static_cast<T>(core.s[i.sx] >> kShift);
  std::memcpy(access(core, address(core, i), sizeof(T), Memory::kWrite, 1), &value, sizeof(T));
}
// Host memory is only the area for system calls, which code writes before `monc`.
template <class T, bool kLoad>
void host_memory(Core& core, const Instruction& i) {
  const uint64_t at = address_without_y(core, i);
  if (at - (core.thread_pointer() - Memory::kPageBytes) > Memory::kPageBytes - sizeof(T)) {
    core.raise(Trap::MemoryAccess, at, "the host's memory is not mapped for this process");
  }
  uint8_t* p = access(core, at, sizeof(T), Memory::kRead | Memory::kWrite, sizeof(T));
  T value = static_cast<T>(core.s[i.sx]);
  if (kLoad) {
    std::memcpy(&value, p, sizeof(T));
    core.s[i.sx] = value;
  } else {
    std::memcpy(p, &value, sizeof(T));
  }
}

// --- atomic access -------------------------------------------------------------------------------

template <class T>
T* shared(Core& core, uint64_t at) {
  return reinterpret_cast<T*>(
      access(core, at, sizeof(T), Memory::kRead | Memory::kWrite, sizeof(T)));
}

// Swaps the bytes that the mask in sy names; the whole of memory's old value goes to sx.
template <class T>
void test_and_set(Core& core, const Instruction& i) {
  T* p = shared<T>(core, address_without_y(core, i));
  T mask = 0;
  for (unsigned b = 0; b < sizeof(T); ++b) {
    if ((y(core, i) >> b & 1) != 0) mask |= T{0xff} << (8 * b);
  }
  const T value = static_cast<T>(core.s[i.sx]);
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST), changed = 0;
  do {
    changed = static_cast<T>((old & ~mask) | (value & mask));
  } while (!__atomic_compare_exchange_n(p, &old, changed, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
  core.changes += changed != old;
  core.s[i.sx] = old;
}
// If memory holds sy it gets sx; its old value goes to sx.
template <class T>
void compare_and_swap(Core& core, const Instruction& i) {
  T* p = shared<T>(core, address_without_y(core, i));
  T old = static_cast<T>(y(core, i));
  const T value = static_cast<T>(core.s[i.sx]);
  const bool done = __atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST);
  core.changes += done && value != old;
  core.s[i.sx] = old;
}
void atomic_update(Core& core, const Instruction& i) {  // sy: 0 and, 1 or, 2 add
  uint64_t* p = shared<uint64_t>(core, address_without_y(core, i));
  const uint64_t value = core.s[i.sx];
  uint64_t old = 0, changed = 0;
  switch (y(core, i)) {
    case 0:
      old = __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);
      changed = old & value;
      break;
    case 1:
      old = __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);
      changed = old | value;
      break;
    case 2:
      old = __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
      changed = old + value;
      break;
    default:
      core.raise(Trap::IllegalInstruction, 0, "atmam knows the operations 0, 1 and 2, not " +
                                                  std::to_string(y(core, i)));
  }
  core.changes += changed != old;
  core.s[i.sx] = old;
}
void unimplemented(Core& core, const Instruction&) {
  core.raise(Trap::UnimplementedInstruction, 0, "what it does is not published");
}

// --- communication registers ---------------------------------------------------------------------

uint64_t* communication(Core& core, uint64_t number) {
  if (number >= Memory::kCommunicationRegisters) {
    core.raise(Trap::MemoryAccess, number,
               "there is no communication register " + std::to_string(number));
  }
  return &core.memory().communication[number];
}
void load_communication(Core& core, const Instruction& i) {
  core.s[i.sx] =
      __atomic_load_n(communication(core, y(core, i) + z(core, i)), __ATOMIC_SEQ_CST);
}
void store_communication(Core& core, const Instruction& i) {
  __atomic_store_n(communication(core, y(core, i) + z(core, i)), core.s[i.sx], __ATOMIC_SEQ_CST);
}
// Takes the register, by its highest bit, unless it is taken.
void take_communication(Core& core, const Instruction& i) {
  uint64_t* p = communication(core, y(core, i) + z(core, i));
  constexpr uint64_t kTaken = uint64_t{1} << 63;
  uint64_t old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while ((old & kTaken) == 0 &&
         !__atomic_compare_exchange_n(p, &old, core.s[i.sx] | kTaken, false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST)) {
  }
  core.changes += (old & kTaken) == 0;
  core.s[i.sx] = old;
}
void count_communication(Core& core, const Instruction& i) {
  uint64_t* p = communication(core, y(core, i));
  uint64_t old = __atomic_load_n(p, __ATOMIC_SEQ_CST), changed = 0;
  do {
    switch (i.z) {
      case 0: changed = old + 1; break;
      case 1: changed = old - 1; break;
      case 2: changed = old == 0 ? 0 : old + 1; break;
      case 3: changed = old == 0 ? 0 : old - 1; break;
      case 4: {  // a barrier: the low word counts down from the middle one, then the top bit flips
        const uint64_t low = (old - 1) & 0xffffffff, start = old >> 32 & 0x7fffffff;
        changed = low != 0 ? (old & 0xffffffff00000000) | low
                           : ((old ^ uint64_t{1} << 63) & 0xffffffff00000000) | start;
        break;
      }
      default: unimplemented(core, i);
    }
  } while (!__atomic_compare_exchange_n(p, &old, changed, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
  core.s[i.sx] = old;
}

// --- control -------------------------------------------------------------------------------------

void fence(Core&, const Instruction&) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void fence_code(Core& core, const Instruction&) { core.forget_code(); }

constexpr uint64_t kFlags = 0x3f;    // of psw: flags of exceptions,
constexpr uint64_t kMode = 0x3fff;  // and with their masks and the rounding mode

void save_flags(Core& core, const Instruction& i) { core.s[i.sx] = core.psw & kFlags; }
void load_flags(Core& core, const Instruction& i) {
  core.psw = (core.psw & ~kFlags) | (y(core, i) & kFlags);
}
void save_mode(Core& core, const Instruction& i) { core.s[i.sx] = core.psw & kMode; }
void load_mode(Core& core, const Instruction& i) {
  core.psw = (core.psw & ~kMode) | (y(core, i) & kMode);
  core.rounding_changed();
}
// %usrcc counts cycles on hardware; here it counts instructions.
void save_system(Core& core, const Instruction& i) {
  switch (i.sy) {
    case 0: core.s[i.sx] = core.executed; break;
    case 1: core.s[i.sx] = core.psw; break;
    default: core.raise(Trap::UnimplementedInstruction, 0, "this register is not modelled");
  }
}

void load_length(Core& core, const Instruction& i) {
  const uint64_t length = y(core, i);
  if (length > 256) {
    core.raise(Trap::IllegalInstruction, 0,
               "vector length " + std::to_string(length) + " is more than 256");
  }
  core.vl = length;
}
void save_length(Core& core, const Instruction& i) { core.s[i.sx] = core.vl; }
void save_maximum_length(Core& core, const Instruction& i) { core.s[i.sx] = 256; }
void load_index(Core& core, const Instruction& i) {
  const uint64_t number = y(core, i);
  if (number > 63) {
    core.raise(Trap::IllegalInstruction, 0,
               "there is no vector register " + std::to_string(number));
  }
  core.vix = number;
}

// A system call: its number and arguments lie where the code has put them with `shm`. The only one
// that code makes by itself is the request for more stack, in the prologue of functions.
void monitor_call(Core& core, const Instruction& i) {
  constexpr uint64_t kGrowStack = 315;
  if (i.flags != 0) core.raise(Trap::SystemCall, 0, "a debugger's breakpoint");
  uint64_t number = 0;
  core.memory().read(&number, core.thread_pointer() - Memory::kPageBytes, 8);
  if (number == kGrowStack && core.s[11] < core.stack_low()) {
    core.raise(Trap::StackOverflow, core.s[11],
               "the function needs " + std::to_string(core.stack_low() - core.s[11]) +
                   " bytes more than the stack of " +
                   std::to_string(core.stack_high() - core.stack_low()) + " has");
  }
  core.raise(Trap::SystemCall, 0, "call " + std::to_string(number) +
                                      "; the simulator has no operating system");
}

// --- the table -----------------------------------------------------------------------------------

using u64 = uint64_t;
using i64 = int64_t;
using u32 = uint32_t;
using i32 = int32_t;

constexpr u64 kCw = 0x80, kCw2 = 0x40;  // bits 7 and 6

#define LOADS(op, cx, name, T, shift) \
  {word_of(op, cx), name " $d, $A", load<T, shift>}
#define STORES(op, name, T, shift) {word_of(op, 0), name " $d, $A", store<T, shift>}
#define BINARY(op, cx, name, handler) {word_of(op, cx), name " $d, $Y, $Z", handler}
#define SHIFT(op, cx, name, handler) {word_of(op, cx), name " $d, $Z, $U", handler}
#define MAXMIN(op, cx, cw, name, handler) {word_of(op, cx, cw), name " $d, $Y, $Z", handler}
#define CMOV(bits, name, T) \
  {word_of(0x3b, 0, bits), "cmov." name ".$k $d, $Z, $Y", conditional_move<T>}
// A branch without and with the two predictions; conditions "always" and "never" take no operands.
#define PREDICTED(op, cx, predicted, t, name, T)                                              \
  {word_of(op, cx | predicted, u64{15} << 48), "b." name t " $B", jump},                     \
  {word_of(op, cx | predicted), "baf." name t " $B", never},                                 \
  {word_of(op, cx | predicted), "b$c." name t " $Y, $B", branch<T>}
#define BRANCH(op, cx, name, T)                                                               \
  PREDICTED(op, cx, 0, "", name, T), PREDICTED(op, cx, 2, ".nt", name, T),                    \
  PREDICTED(op, cx, 3, ".t", name, T)
#define PREDICTED_RELATIVE(cx, predicted, t, name, T)                                         \
  {word_of(0x18, cx | predicted, u64{15} << 48), "br." name t " $D", jump_relative},          \
  {word_of(0x18, cx | predicted), "braf." name t " $D", never},                               \
  {word_of(0x18, cx | predicted), "br$c." name t " $Y, $z, $D", branch_relative<T>}
#define BRANCH_RELATIVE(cx, name, T)                                                          \
  PREDICTED_RELATIVE(cx, 0, "", name, T), PREDICTED_RELATIVE(cx, 2, ".nt", name, T),          \
  PREDICTED_RELATIVE(cx, 3, ".t", name, T)
#define HOST_MEMORY(size, name, T)                                                            \
  {word_of(0x21, 0, u64{size} << 40), "lhm." name " $d, $H", host_memory<T, true>},           \
  {word_of(0x31, 0, u64{size} << 40), "shm." name " $d, $H", host_memory<T, false>}

const Entry kRows[] = {
    {word_of(0x06, 0), "lea $d, $A", load_address},
    {word_of(0x06, 8), "lea.sl $d, $A", load_address_high},
    LOADS(0x01, 0, "ld", u64, 0),
    LOADS(0x02, 0, "ldu", u32, 32),
    LOADS(0x03, 0, "ldl.sx", i32, 0),
    LOADS(0x03, 8, "ldl.zx", u32, 0),
    LOADS(0x04, 0, "ld2b.sx", int16_t, 0),
    LOADS(0x04, 8, "ld2b.zx", uint16_t, 0),
    LOADS(0x05, 0, "ld1b.sx", int8_t, 0),
    LOADS(0x05, 8, "ld1b.zx", uint8_t, 0),
    LOADS(0x09, 0, "dld", u64, 0),
    LOADS(0x0a, 0, "dldu", u32, 32),
    LOADS(0x0b, 0, "dldl.sx", i32, 0),
    LOADS(0x0b, 8, "dldl.zx", u32, 0),
    STORES(0x11, "st", u64, 0),
    STORES(0x12, "stu", u32, 32),
    STORES(0x13, "stl", u32, 0),
    STORES(0x14, "st2b", uint16_t, 0),
    STORES(0x15, "st1b", uint8_t, 0),
    {word_of(0x0c, 0), "pfch $A", never},
    {word_of(0x42, 0), "ts1am.l $d, $a, $U", test_and_set<u64>},
    {word_of(0x42, 8), "ts1am.w $d, $a, $U", test_and_set<u32>},
    {word_of(0x43, 0), "ts2am $d, $a, $U", unimplemented},
    {word_of(0x52, 0), "ts3am $d, $a, $U", unimplemented},
    {word_of(0x53, 0), "atmam $d, $a, $U", atomic_update},
    {word_of(0x62, 0), "cas.l $d, $a, $Y", compare_and_swap<u64>},
    {word_of(0x62, 8), "cas.w $d, $a, $Y", compare_and_swap<u32>},
    HOST_MEMORY(0, "b", uint8_t),
    HOST_MEMORY(1, "h", uint16_t),
    HOST_MEMORY(2, "w", u32),
    HOST_MEMORY(3, "l", u64),

    BINARY(0x48, 0, "addu.l", (binary<u64, add<u64>>)),
    BINARY(0x48, 8, "addu.w", (binary_zx<u32, add<u32>>)),
    BINARY(0x4a, 0, "adds.w.sx", (binary<i32, add<i32>>)),
    BINARY(0x4a, 8, "adds.w.zx", (binary_zx<i32, add<i32>>)),
    BINARY(0x59, 0, "adds.l", (binary<i64, add<i64>>)),
    BINARY(0x58, 0, "subu.l", (binary<u64, sub<u64>>)),
    BINARY(0x58, 8, "subu.w", (binary_zx<u32, sub<u32>>)),
    BINARY(0x5a, 0, "subs.w.sx", (binary<i32, sub<i32>>)),
    BINARY(0x5a, 8, "subs.w.zx", (binary_zx<i32, sub<i32>>)),
    BINARY(0x5b, 0, "subs.l", (binary<i64, sub<i64>>)),
    BINARY(0x49, 0, "mulu.l", (binary<u64, mul<u64>>)),
    BINARY(0x49, 8, "mulu.w", (binary_zx<u32, mul<u32>>)),
    BINARY(0x4b, 0, "muls.w.sx", (binary<i32, mul<i32>>)),
    BINARY(0x4b, 8, "muls.w.zx", (binary_zx<i32, mul<i32>>)),
    BINARY(0x6e, 0, "muls.l", (binary<i64, mul<i64>>)),
    BINARY(0x6b, 0, "muls.l.w", multiply_long),
    BINARY(0x6f, 0, "divu.l", (quotient<u64, false>)),
    BINARY(0x6f, 8, "divu.w", (quotient<u32, false>)),
    BINARY(0x7b, 0, "divs.w.sx", (quotient<i32, true>)),
    BINARY(0x7b, 8, "divs.w.zx", (quotient<i32, false>)),
    BINARY(0x7f, 0, "divs.l", (quotient<i64, true>)),
    BINARY(0x55, 0, "cmpu.l", (binary<u64, compare<u64>>)),
    BINARY(0x55, 8, "cmpu.w", (binary_zx<u32, compare<u32>>)),
    BINARY(0x7a, 0, "cmps.w.sx", (binary<i32, compare<i32>>)),
    BINARY(0x7a, 8, "cmps.w.zx", (binary_zx<i32, compare<i32>>)),
    BINARY(0x6a, 0, "cmps.l", (binary<i64, compare<i64>>)),
    MAXMIN(0x78, 0, 0, "maxs.w.sx", (binary<i32, maximum<i32>>)),
    MAXMIN(0x78, 8, 0, "maxs.w.zx", (binary_zx<i32, maximum<i32>>)),
    MAXMIN(0x78, 0, kCw, "mins.w.sx", (binary<i32, minimum<i32>>)),
    MAXMIN(0x78, 8, kCw, "mins.w.zx", (binary_zx<i32, minimum<i32>>)),
    MAXMIN(0x68, 0, 0, "maxs.l", (binary<i64, maximum<i64>>)),
    MAXMIN(0x68, 0, kCw, "mins.l", (binary<i64, minimum<i64>>)),

    BINARY(0x44, 0, "and", (binary<u64, bit_and<u64>>)),
    BINARY(0x45, 0, "or", (binary<u64, bit_or<u64>>)),
    BINARY(0x46, 0, "xor", (binary<u64, bit_xor<u64>>)),
    BINARY(0x47, 0, "eqv", (binary<u64, bit_eqv<u64>>)),
    BINARY(0x54, 0, "nnd", (binary<u64, bit_nnd<u64>>)),
    BINARY(0x56, 0, "mrg", merge),
    {word_of(0x67, 0), "ldz $d, $Z", unary<u64, leading_zeros<u64>>},
    {word_of(0x38, 0), "pcnt $d, $Z", unary<u64, population<u64>>},
    {word_of(0x39, 0), "brv $d, $Z", unary<u64, reversed<u64>>},
    {word_of(0x2b, 0), "bswp $d, $Z, $1", byte_swap},
    CMOV(0, "l", i64),
    CMOV(kCw, "w", i32),
    CMOV(kCw2, "d", double),
    CMOV(kCw | kCw2, "s", float),

    SHIFT(0x65, 0, "sll", (shift<u64, shift_left<u64>, false>)),
    SHIFT(0x64, 0, "sld", shift_left_pair),
    SHIFT(0x75, 0, "srl", (shift<u64, shift_right<u64>, false>)),
    SHIFT(0x74, 0, "srd", shift_right_pair),
    SHIFT(0x66, 0, "sla.w.sx", (shift<i32, shift_left<i32>, true>)),
    SHIFT(0x66, 8, "sla.w.zx", (shift<i32, shift_left<i32>, false>)),
    SHIFT(0x57, 0, "sla.l", (shift<i64, shift_left<i64>, true>)),
    SHIFT(0x76, 0, "sra.w.sx", (shift<i32, shift_right<i32>, true>)),
    SHIFT(0x76, 8, "sra.w.zx", (shift<i32, shift_right<i32>, false>)),
    SHIFT(0x77, 0, "sra.l", (shift<i64, shift_right<i64>, true>)),

    BRANCH(0x19, 0, "l", i64),
    BRANCH(0x1b, 0, "w", i32),
    BRANCH(0x1c, 0, "d", double),
    BRANCH(0x1c, 8, "s", float),
    BRANCH_RELATIVE(0, "l", i64),
    BRANCH_RELATIVE(8, "w", i32),
    BRANCH_RELATIVE(4, "d", double),
    BRANCH_RELATIVE(12, "s", float),
    {word_of(0x08, 0), "bsic $d, $A", branch_and_save},

    {word_of(0x28, 0), "sic $d", save_counter},
    {word_of(0x20, 8), "fencei", fence_code},
    {word_of(0x20, 0), "fencem $6", fence},
    {word_of(0x20, 0), "fencec $7", fence},
    {word_of(0x30, 0), "svob", fence},
    {word_of(0x3a, 0, u64{1} << 47), "lpm $j", load_mode},
    {word_of(0x2a, 0), "spm $d", save_mode},
    {word_of(0x69, 0), "lfr $U", load_flags},
    {word_of(0x29, 0), "sfr $d", save_flags},
    {word_of(0x22, 0), "smir $d, $i", save_system},
    {word_of(0x79, 0), "nop", never},
    {word_of(0x3f, 0), "monc", monitor_call},
    {word_of(0x3f, 8), "monc.hdb", monitor_call},
    {word_of(0x40, 0), "lcr $d, $Y, $z", load_communication},
    {word_of(0x50, 0), "scr $d, $Y, $z", store_communication},
    {word_of(0x41, 0), "tscr $d, $Y, $z", take_communication},
    {word_of(0x51, 0), "fidcr $d, $Y, $3", count_communication},
    {word_of(0xbf, 0), "lvl $Y", load_length},
    {word_of(0x2f, 0), "svl $d", save_length},
    {word_of(0x2e, 0), "smvl $d", save_maximum_length},
    {word_of(0xaf, 0), "lvix $U", load_index},
};

}  // namespace

Rows scalar_rows() { return rows(kRows); }

}  // namespace vesim
