// The interpreter: instructions are decoded once per core and page, then called one after another.
// A handler that cannot go on throws; nothing else in the simulator uses exceptions for control.
#include "machine.h"

#include <algorithm>
#include <cfenv>
#include <cstring>
#include <thread>

#include "decode.h"
#include "host.h"
#include "trap.h"

namespace vesim {

constexpr uint64_t kPageBytes = Memory::kPageBytes;
constexpr uint64_t kWordsInPage = kPageBytes / 8;
constexpr uint64_t kCheckEvery = 1 << 16;  // instructions between two looks at `interrupted`
constexpr uint64_t kNoPage = 7;  // in the place of a page: no instruction lies at such an address
constexpr uint64_t kThreadBytes = uint64_t{64} << 10;
constexpr uint64_t kSystemCallArea = 0x18;  // s14 + 24 holds the address of its parameters

struct Core::CodePage {
  uint64_t address;
  Instruction words[kWordsInPage];
};

namespace {

const Entry kHostCall{0, "host $D", nullptr};

void call_host(Core& core, const Instruction& i) {
  const HostFunction* f = host_function_at(core.memory().firmware, core.ic);
  if (f == nullptr) core.raise(Trap::IllegalInstruction);
  (void)i;
  if (core.observer != nullptr) core.observer->host_function(f->name, core);
  f->run(core);
  core.next = core.s[10];
}

void illegal(Core& core, const Instruction&) { core.raise(Trap::IllegalInstruction); }

// The host's floating-point environment while VE code runs: IEEE's defaults and the rounding that
// the program mode asks for, whatever the caller has set (PyTorch may flush denormals).
class FloatingEnvironment {
 public:
  FloatingEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatingEnvironment() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
};

}  // namespace

struct Interpreter {
  // The first execution of a word: decode it in its place.
  static void first_time(Core& core, const Instruction& place) {
    Instruction& i = const_cast<Instruction&>(place);
    prepare(core, i);
    i.handler(core, i);
  }

  static void prepare(Core& core, Instruction& i) {
    uint64_t word = 0;
    core.memory_.read(&word, core.ic, 8);
    const uint64_t firmware = core.memory_.firmware;
    if (firmware != 0 && core.ic - firmware < kPageBytes) {
      i = Instruction{};
      i.word = word;
      i.entry = &kHostCall;
      i.handler = call_host;
      return;
    }
    i = decode(word);
    if (i.entry == nullptr) i.handler = illegal;
  }

  // Execution went, from the instruction at `from`, to where it cannot go on.
  [[noreturn]] static void no_code(Core& core, Trap::Kind kind, uint64_t from) {
    std::string why = kind == Trap::Alignment ? "instructions lie at multiples of 8"
                                              : "no code is there";
    const std::string place = core.memory_.describe(from);
    if (from != core.ic && !place.empty()) why += "; it was reached from " + place;
    core.raise(kind, core.ic, why);
  }

  // The page of the current instruction.
  static Core::CodePage* page_of(Core& core, uint64_t from) {
    const uint64_t version = core.memory_.code_version();
    if (version != core.code_version_) {
      core.code_.clear();
      core.code_version_ = version;
    }
    const uint64_t address = core.ic & ~(kPageBytes - 1);
    std::unique_ptr<Core::CodePage>& page = core.code_[address];
    if (page == nullptr) {
      if (core.memory_.at(address, kPageBytes, Memory::kExecute) == nullptr) {
        core.code_.erase(address);
        no_code(core, Trap::MemoryAccess, from);
      }
      page = std::make_unique<Core::CodePage>();
      page->address = address;
      for (Instruction& i : page->words) i.handler = first_time;
    }
    return page.get();
  }

  template <bool kWatched>
  static void loop(Core& core, uint64_t entry) {
    const uint64_t end = core.stop_;
    const uint64_t limit = core.limit_;
    const uint64_t pause = core.slice != 0 ? core.executed + core.slice : ~uint64_t{0};
    uint64_t pc = entry, check = core.executed;
    uint64_t base = kNoPage;
    Core::CodePage* page = nullptr;
    core.ic = entry;
    if (entry % 8 != 0) no_code(core, Trap::Alignment, entry);
    while (pc != end) {
      // another page, or not at a multiple of 8
      if (((pc ^ base) & ~(kPageBytes - 8)) != 0) {
        const uint64_t from = core.ic;
        core.ic = pc;
        if (pc % 8 != 0) no_code(core, Trap::Alignment, from);
        page = page_of(core, from);
        base = page->address;
      }
      core.ic = pc;
      if (core.executed >= check) {
        if (__atomic_exchange_n(&core.interrupted_, false, __ATOMIC_RELAXED)) {
          core.raise(Trap::Interrupted);
        }
        if (core.executed >= limit) core.raise(Trap::StepLimit);
        if (core.executed >= pause) core.raise(Trap::Paused);
        check = std::min({core.executed + kCheckEvery, limit, pause});
      }
      ++core.executed;
      Instruction& i = page->words[(pc - base) / 8];
      core.next = pc + 8;
      if (kWatched) {
        if (i.handler == first_time) prepare(core, i);
        if (i.entry != nullptr) core.observer->issued(i, core);
      }
      i.handler(core, i);
      pc = core.next;
      if (core.code_version_ == 0) base = kNoPage;  // an instruction changed code
    }
  }
};

Core::Core(Memory& memory, Arch arch, uint64_t stack_bytes) : memory_(memory), arch_(arch) {
  std::memset(v, 0, sizeof v);
  std::memset(vm, 0, sizeof vm);
  std::memset(vm[0], 0xff, sizeof vm[0]);
  std::memset(s, 0, sizeof s);
  stack_bytes_ = (stack_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  firmware_address(memory_);
  stack_ = memory_.allocate_stack(stack_bytes_);
  thread_ = memory_.allocate_own(kThreadBytes);
  if (stack_ == 0 || thread_ == 0) {
    if (stack_ != 0) memory_.release_own(stack_);
    throw std::bad_alloc();
  }
  // [system calls' parameters, 4 KiB][s14: where they are; thread-local memory]
  static_assert(kPageBytes + kThreadStorageOffset + kThreadStorageBytes <= kThreadBytes,
                "thread-local memory has room");
  const uint64_t area = thread_;
  memory_.name(thread_, kPageBytes, "system-call area");
  thread_ += kPageBytes;
  memory_.write(thread_ + kSystemCallArea, &area, 8);
}

Core::~Core() {
  memory_.forget_names(thread_ - kPageBytes, kPageBytes);
  memory_.release_own(stack_);
  memory_.release_own(thread_ - kPageBytes);
}

uint64_t Core::return_address() const { return memory_.firmware; }

void Core::set_up_thread_storage() {
  std::lock_guard<std::mutex> hold(memory_.process);
  if (thread_serial_ == memory_.thread_serial) return;
  for (const Memory::ThreadStorage& t : memory_.thread_storage) {
    if (t.serial <= thread_serial_) continue;
    memory_.write(thread_ + kThreadStorageOffset + t.offset, t.image.data(), t.image.size());
  }
  thread_serial_ = memory_.thread_serial;
}

void Core::rounding_changed() {
  static const int host[4] = {FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD, FE_TONEAREST};
  std::fesetround(host[psw >> kRoundShift & 3]);
}

// Whether the loop that ends at this branch, and begins where it goes, changes nothing: no store,
// no vector, no call. Atomic instructions may be there: those that change memory are counted.
bool Core::only_waits() const {
  constexpr uint64_t kLongest = 64;
  const uint64_t words = (ic - next) / 8 + 1;
  const uint8_t* code = words > kLongest ? nullptr : memory_.at(next, 8 * words, Memory::kExecute);
  if (code == nullptr) return false;
  for (uint64_t n = 0; n < words; ++n) {
    const unsigned opcode = code[8 * n + 7];
    const bool store = (opcode >= 0x11 && opcode <= 0x15) || opcode == 0x31 || opcode == 0x50 ||
                       opcode == 0x51;
    if (store || opcode == 0x08 || opcode == 0x3f || opcode >= 0x80) return false;
  }
  return true;
}

// Every so many turns of a loop, less and less often: a loop that works has other registers then.
// One that has not, and can change nothing else, depends on memory that others write. This decides
// about the host's time, and when a hopeless wait ends; never about results.
void Core::look_at_loop() {
  const uint64_t most = loop_.turns * ((ic - next) / 8 + 1);  // instructions, if the loop's alone
  const bool stays = std::memcmp(s, loop_.s, sizeof s) == 0 &&
                     executed - loop_.executed <= most && changes == loop_.changes;
  loop_.turns = 0;
  loop_.executed = executed;
  loop_.changes = changes;
  if (!stays || !only_waits()) {
    std::memcpy(loop_.s, s, sizeof s);
    loop_.look = std::min(2 * loop_.look, kRareLook);
    if (turns_.fruitless != 0) loop_.look = kFirstLook;
    turns_.fruitless = 0;
    return;
  }
  loop_.look = 1;
  if (__atomic_load_n(&interrupted_, __ATOMIC_RELAXED)) raise(Trap::Interrupted);
  if (waits == nullptr) {
    std::this_thread::yield();
    return;
  }
  const std::string why = waits->turn(turns_);
  if (!why.empty()) raise(Trap::Interrupted, 0, "waits for another core, but " + why);
}

Trap Core::execute(uint64_t entry, uint64_t stop) {
  set_up_thread_storage();
  stop_ = stop;
  limit_ = step_limit != 0 ? executed + step_limit : ~uint64_t{0};
  __atomic_store_n(&interrupted_, false, __ATOMIC_RELAXED);
  loop_ = {};
  if (waits != nullptr) waits->begin(turns_, request);
  return go_on(entry);
}

Trap Core::resume() { return go_on(ic); }

Trap Core::go_on(uint64_t entry) {
  if (vl > 256 || vix > 63) {  // set from outside: loops over registers rely on both
    Trap t;
    t.kind = Trap::IllegalInstruction;
    t.ic = entry;
    t.text = vl > 256 ? "the vector length was set to " + std::to_string(vl) + ", more than 256"
                      : "%vix was set to " + std::to_string(vix) + ", more than 63";
    return t;
  }
  FloatingEnvironment environment;
  if ((psw >> kRoundShift & 3) != kRoundNearest) rounding_changed();
  try {
    if (observer != nullptr) {
      Interpreter::loop<true>(*this, entry);
    } else {
      Interpreter::loop<false>(*this, entry);
    }
  } catch (const TrapSignal& signal) {
    const Trap::Kind kind = signal.trap.kind;
    const bool failed = kind != Trap::Interrupted && kind != Trap::Paused;
    if (waits != nullptr && failed) waits->fail(signal.trap.text);
    return signal.trap;
  }
  return {};
}

Trap Core::run(uint64_t entry, uint64_t stack_top) {
  s[8] = stack_;
  s[10] = return_address();
  s[11] = stack_top;
  s[12] = entry;
  s[14] = thread_;
  return execute(entry, return_address());
}

Trap Core::call(uint64_t function, const uint64_t* arguments, unsigned count, uint64_t* result) {
  // The caller's part of a frame: 176 bytes for the callee, then a place for each argument.
  constexpr unsigned kRegisters = 8, kSaveArea = 176;
  const uint64_t frame = (kSaveArea + 8 * uint64_t{std::max(count, kRegisters)} + 15) / 16 * 16;
  const uint64_t sp = stack_high() - frame;
  for (unsigned n = 0; n < std::min(count, kRegisters); ++n) s[n] = arguments[n];
  if (count > kRegisters) {
    const unsigned rest = count - kRegisters;
    if (sp < stack_ ||
        !memory_.write(sp + kSaveArea + 8 * kRegisters, arguments + kRegisters, 8 * rest)) {
      Trap t;
      t.kind = Trap::StackOverflow;
      t.text = "the stack is too small for " + std::to_string(count) + " arguments";
      return t;
    }
  }
  s[9] = 0;
  const Trap trap = run(function, sp);
  if (!trap && result != nullptr) *result = s[0];
  return trap;
}

double Core::perturbation() {
  if (perturb.seed == 0) return 0;
  if (perturb.seed != random_seed_) random_ = random_seed_ = perturb.seed;
  // splitmix64: each number depends on the seed and its position only
  uint64_t z = random_ += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-52 - 1;
}

}  // namespace vesim
