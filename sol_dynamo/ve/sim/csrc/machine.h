// A vector engine's core: registers and the interpreter of its instructions.
//
// The meeting point of the simulator's parts: the driver (veo.cpp) loads an Image and calls Core;
// a cycle model or trace watches as an Observer. Results are those of the architecture; nothing
// here knows of time, of PyTorch or of Python.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "waits.h"

namespace vesim {

// VE10 and VE20 are VE1, VE30 is VE3. Both execute the same instructions here: what VE3 has besides
// is in no public source.
enum class Arch { VE1, VE3 };

struct Trap {
  enum Kind {
    None,
    IllegalInstruction,        // no such instruction, or not for user code
    UnimplementedInstruction,  // exists on this machine, but the simulator does not have it
    MemoryAccess,              // nothing mapped there, or not with the rights that were needed
    Alignment,
    StackOverflow,
    SystemCall,
    DivideByZero,              // of integers
    StepLimit,                 // Core::step_limit instructions were executed
    Interrupted,               // Core::interrupt was called
    HostFunction,              // a function that the simulator provides refused its arguments
    Paused,                    // Core::slice instructions were executed: Core::resume goes on
  };
  Kind kind = None;
  uint64_t ic = 0;       // address of the instruction
  uint64_t address = 0;  // of the access, where there was one
  uint64_t word = 0;     // the instruction
  std::string text;      // kind, addresses, disassembly, symbol and offset

  explicit operator bool() const { return kind != None; }
  static const char* name(Kind kind);  // "illegal instruction"
};

struct Entry;  // a row of the table of instructions, decode.h
class Core;

// An instruction, decoded. Which of the fields mean something depends on Entry::type.
struct Instruction {
  using Handler = void (*)(Core&, const Instruction&);
  Handler handler = nullptr;
  const Entry* entry = nullptr;  // nullptr: not decoded yet
  uint64_t word = 0;
  // Scalar operands: sx is a register; sy and sz are registers where cy, cz; else immediates.
  uint8_t sx = 0, sy = 0, sz = 0, sw = 0;
  bool cy = false, cz = false, cs = false;
  uint8_t flags = 0;          // bits 55-52 of the word
  uint8_t m = 0;              // mask register, 0: all elements
  uint8_t vx = 0, vy = 0, vz = 0, vw = 0;  // vector registers; 255: %vix
  int64_t imm = 0;            // bits 31-0, sign-extended
  uint64_t y = 0, z = 0;      // values of the immediates, where !cy, !cz
};

// Watches a core. Called before each instruction is executed: registers hold the operands.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void issued(const Instruction&, const Core&) = 0;
  // One of the simulator's own functions is about to run instead of VE code (memcpy, expf, ...).
  virtual void host_function(const char* /*name*/, const Core&) {}
};

// Results that the architecture leaves open are moved within their bounds by a seeded random
// sequence, so that tests show whether code depends on them. 0: the model's plain result.
struct Perturb {
  uint64_t seed = 0;
};

// A loaded object file or shared object.
class Image {
 public:
  // nullptr and `error` where the file cannot be used; nothing stays allocated then. What the file
  // lacks is looked for among the simulator's functions, then in `others`, in their order; those
  // that have something stay loaded as long as it does.
  using Others = std::vector<std::shared_ptr<const Image>>;
  static std::unique_ptr<Image> load(Memory&, const std::string& path, const Others&,
                                     std::string& error);
  static std::unique_ptr<Image> load(Memory&, const void* bytes, size_t size,
                                     const std::string& name, const Others&, std::string& error);
  ~Image();  // releases its memory
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  uint64_t symbol(const std::string& name) const;  // 0: no such global symbol
  const std::vector<uint64_t>& initializers() const { return initializers_; }  // to be called once
  const std::string& name() const { return name_; }
  std::vector<std::string> symbols() const;        // names of the global symbols that are defined
  uint64_t address() const { return address_; }    // of its memory
  uint64_t bytes() const { return bytes_; }

 private:
  friend class ElfLoader;
  explicit Image(Memory& memory) : memory_(memory) {}
  Memory& memory_;
  std::string name_;
  uint64_t address_ = 0, bytes_ = 0;
  std::map<std::string, uint64_t> symbols_;
  std::vector<uint64_t> initializers_;
  Others needs_;  // images that its code refers to
  bool has_thread_storage_ = false;
  uint64_t thread_offset_ = 0;  // of its thread-local memory
};

class Core {
 public:
  explicit Core(Memory&, Arch = Arch::VE1, uint64_t stack_bytes = uint64_t{8} << 20);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // The rounding mode is bits 13-12 of psw. Flags of floating exceptions are not modelled: they are
  // what `lfr` or `lpm` last wrote.
  enum Round : uint64_t { kRoundZero, kRoundUp, kRoundDown, kRoundNearest };
  static constexpr unsigned kRoundShift = 12;

  // --- architectural state ---------------------------------------------------------------------
  // Element e of vector register r is v[r][e]; packed: its upper half is "upper" (odd index in
  // memory). Element e's mask is bit 63 - e % 64 of vm[r][e / 64]. vm[0] reads as all ones.
  alignas(64) uint64_t v[64][256];
  alignas(64) uint64_t vm[16][4];
  uint64_t s[64];
  uint64_t vl = 0;   // 0 to 256
  uint64_t vix = 0;  // number of the V register that %vix means
  uint64_t psw = kRoundNearest << kRoundShift;  // program mode and flags, as `spm` gives them
  uint64_t ic = 0;   // address of the current instruction

  // --- execution -------------------------------------------------------------------------------
  // From `entry` until the code returns to `return_address()`, or a trap. s11 = `stack_top`.
  Trap run(uint64_t entry, uint64_t stack_top);
  // The same with all registers as they are, until execution arrives at `stop`.
  Trap execute(uint64_t entry, uint64_t stop);
  // Calls a function by the ABI: arguments in s0-s7 (floats in the upper half), the rest on the
  // stack; the result is s0. Uses this core's own stack.
  Trap call(uint64_t function, const uint64_t* arguments, unsigned count, uint64_t* result);
  // Goes on where a run was paused.
  Trap resume();
  uint64_t return_address() const;  // what s10 must hold when `run` is to end
  uint64_t stack_low() const { return stack_; }
  uint64_t stack_high() const { return stack_ + stack_bytes_; }
  uint64_t thread_pointer() const { return thread_; }

  // From another thread: the running code stops with a trap. Without any it does nothing.
  void interrupt() { __atomic_store_n(&interrupted_, true, __ATOMIC_RELAXED); }

  Memory& memory() const { return memory_; }
  Arch arch() const { return arch_; }

  uint64_t executed = 0;           // instructions, all together
  uint64_t step_limit = 0;         // of one run; 0: none
  uint64_t slice = 0;              // instructions after which a run pauses; 0: none
  Observer* observer = nullptr;    // called for every instruction
  Waits* waits = nullptr;          // of the cores of a process; nullptr: this one is alone
  Waits::Request request;          // that the next run is of
  Perturb perturb;

  // The next number of the perturbation's sequence, in [-1, 1]; 0 where perturb.seed is 0.
  double perturbation();

  // --- for handlers of instructions ------------------------------------------------------------
  [[noreturn]] void raise(Trap::Kind, uint64_t address = 0, const std::string& detail = "");
  uint64_t next = 0;               // address of the instruction after this one; branches set it
  void rounding_changed();         // psw has another rounding mode
  void forget_code() { code_version_ = 0; }
  uint64_t changes = 0;            // of memory by atomic instructions
  // A branch to the begin of a loop is taken, maybe to itself. Loops that wait for another core are found by it.
  void turn() {
    if (ic != loop_.ic) {
      loop_.ic = ic;
      loop_.turns = 0;
      loop_.look = kFirstLook;
      turns_.fruitless = 0;
    } else if (++loop_.turns >= loop_.look) {
      look_at_loop();
    }
  }

 private:
  struct CodePage;
  friend struct Interpreter;
  Trap go_on(uint64_t at);
  void set_up_thread_storage();
  void look_at_loop();
  bool only_waits() const;
  static constexpr unsigned kFirstLook = 8, kRareLook = 1 << 12;  // turns between two looks
  struct Loop {
    uint64_t ic = 0;               // of the branch that was taken last
    unsigned turns = 0, look = kFirstLook;
    uint64_t executed = 0, changes = 0;  // at the last look
    uint64_t s[64] = {};
  } loop_;
  Waits::Turns turns_;
  Memory& memory_;
  Arch arch_;
  uint64_t stack_ = 0, stack_bytes_ = 0;
  uint64_t thread_ = 0;            // page that s14 points to, for the prologue's stack check
  uint64_t stop_ = 0;              // where the running code ends
  uint64_t limit_ = 0;             // how many instructions may have been executed then
  bool interrupted_ = false;
  uint64_t random_ = 0, random_seed_ = 0;
  uint64_t code_version_ = 0;
  uint64_t thread_serial_ = 0;     // of memory_.thread_storage, what is newer is not set up
  std::map<uint64_t, std::unique_ptr<CodePage>> code_;
};

// Writes each instruction to a file: address, place, text, values of the scalar operands.
std::unique_ptr<Observer> make_trace(std::FILE*);
// Where the environment variable SOL_VE_TRACE says: a file's name (it is appended to) or "-" for
// stderr; nullptr where it is not set, or cannot be written, which stderr is told.
std::unique_ptr<Observer> trace_from_environment();

// The name of an instruction word with its operands, in LLVM's syntax; "" where it is none.
std::string disassemble(uint64_t word);

}  // namespace vesim
