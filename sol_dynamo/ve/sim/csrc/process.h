// A VE process: an address space, its libraries, and contexts that execute requests in order.
//
// What the C interface (veo.cpp) is made of, in C++ terms: no handles, no errno, no environment. A
// Context is a thread with a Core of its own; all contexts of a process share one Space. Who holds
// a Context may use it after the process is gone: its requests then end as errors.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cycles.h"
#include "machine.h"

namespace vesim {

// What one of the interface's functions refuses, with the reason for the caller to read.
struct Refused {
  std::string text;
};

// A symbol's name in an object file, its handle: what dlopen would give.
using LibraryHandle = uint64_t;

class Libraries {
 public:
  explicit Libraries(Memory& memory) : memory_(memory) {}

  using Call = std::function<void(uint64_t)>;  // runs a library's initializer

  // The same file again gives the same handle, to be unloaded as often as it was loaded. A name
  // without "/" is looked for in the folders of `search` (separated by colons).
  LibraryHandle load(const std::string& path, const std::string& search, const Call&);
  void load_as_program(const std::string& path, const Call&);  // its handle is 0
  void unload(LibraryHandle);
  uint64_t symbol(LibraryHandle, const std::string& name) const;  // handle 0: in any; 0: none

 private:
  struct Loaded {
    std::shared_ptr<Image> image;
    std::string identity;  // device, inode, size and time of change of the file
    unsigned uses = 1;
  };
  Loaded read(const std::string& path, const Call&) const;

  Memory& memory_;
  mutable std::mutex mutex_;
  LibraryHandle next_ = 1;
  std::map<LibraryHandle, Loaded> loaded_;  // in the order of loading
};

class Process;

// What the contexts of a process share.
struct Space {
  Space(Arch arch, const CardModel& card, int node)
      : arch(arch), card(card), node(node), libraries(memory) {}
  const Arch arch;
  const CardModel& card;
  const int node;
  std::weak_ptr<Process> owner;
  Memory memory;
  Libraries libraries;
  Waits waits;                        // of the contexts' cores for each other
  enum Timing { Off, Cold, Warm };   // whether calls are timed, with empty caches or not
  std::atomic<Timing> timing{Off};
  Barriers barriers;
  std::atomic<unsigned> sharing{0};   // cores that share the card's bandwidth; 0: all contexts
  std::atomic<unsigned> contexts{1};  // that are open
};

constexpr uint64_t kParameters = 176;  // where a frame's parameter area begins, by the ABI

// Arguments of a call, their values and IN buffers already taken.
struct Call {
  struct Buffer {
    uint64_t offset;  // from the stack pointer
    char* host;       // where the content goes afterwards, or null
    size_t bytes;
  };
  uint64_t function = 0;
  std::vector<uint64_t> values;       // of registers and of the parameter area
  std::vector<unsigned> addresses;    // which values are offsets from the stack pointer, still
  std::vector<uint8_t> image;         // what lies above the stack pointer; empty: nothing to copy
  std::vector<Buffer> results;
  uint64_t frame = 0;                 // bytes above the stack pointer
};

struct Outcome {
  int status;  // a veo_command_state
  uint64_t value = 0;
  std::string fault = {};  // why it is not OK
};

class Context {
 public:
  using Work = std::function<Outcome()>;
  static constexpr uint64_t kInvalid = ~uint64_t{0};

  Context(std::shared_ptr<Space>, uint64_t stack_bytes);
  ~Context();

  uint64_t submit(Work);       // an identifier; throws Refused once closed
  uint64_t submit(Call);
  uint64_t submit_host(Work);  // a function of the host, which may wait for other contexts
  // Runs a function without arguments, from within this context's own work; Refused if it traps.
  void initialize(uint64_t function);
  Outcome perform(Work);       // in its turn, and waits
  void sync();                 // until all that was submitted before is done
  // The outcome, once; `wait` false: status UNFINISHED where there is none yet.
  Outcome pick_up(uint64_t request, bool wait);

  void block_begin();
  void block_end();

  void close();    // executes what was submitted, then ends
  void cancel();   // stops what runs, and what was not begun ends as an error
  bool closed() const;
  bool is_this_thread() const { return std::this_thread::get_id() == worker_id_; }

  std::string last_fault() const;
  std::vector<KernelReport> report() const;
  void forget_report();
  uint64_t stack_bytes() const { return stack_bytes_; }
  Space& space() { return *space_; }

 private:
  struct Request {
    uint64_t id;
    Work work;
    bool host;  // a function of the host
    Waits::Request at;
  };
  using Lock = std::unique_lock<std::mutex>;

  void work();                              // the thread
  uint64_t queue(Lock&, Work, bool host);
  void execute_front(Lock&);
  Outcome execute(Lock&, const Request&);
  void tell_waits();                        // after each change of the queue or of what runs
  void admit(Lock&);                        // waits for other threads' blocks; throws when closed
  bool idle_before(uint64_t id) const;
  void join();
  Outcome run(const Call&);
  void place(const Call&, uint64_t stack_pointer);
  Trap run_timed(const Call&, uint64_t stack_pointer, const std::string& name);

  std::shared_ptr<Space> space_;
  const uint64_t stack_bytes_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<Observer> trace_;
  std::unique_ptr<CycleModel> model_;  // made at the first call that is to be timed

  mutable std::mutex mutex_;
  std::condition_variable changed_;    // any of what follows
  std::deque<Request> queue_;
  std::vector<uint64_t> running_;      // more than one where a host function waits for requests
  bool busy_ = false;                  // what `waits` was told
  bool in_host_ = false;               // the innermost of what runs is a function of the host
  std::unordered_map<uint64_t, std::optional<Outcome>> outcomes_;  // of requests not picked up
  uint64_t next_id_ = 0;
  bool closed_ = false, gone_ = false;
  std::thread::id block_owner_;
  unsigned block_depth_ = 0;
  std::string fault_;
  std::vector<KernelReport> reports_;
  std::mutex joining_;
  std::atomic<std::thread::id> worker_id_{};
  std::thread worker_;
};

class Process {
 public:
  static constexpr uint64_t kStackBytes = uint64_t{128} << 20;  // as NEC's, per context
  static constexpr uint64_t kLeastStackBytes = uint64_t{4} << 20;

  Process(Arch, const CardModel&, int node);
  ~Process();

  std::shared_ptr<Space> space;
  const std::shared_ptr<Context> main;

  // The first one is the main context. Throws Refused where each core has one.
  std::shared_ptr<Context> open(uint64_t stack_bytes);
  void close(const std::shared_ptr<Context>&);
  std::vector<std::shared_ptr<Context>> contexts() const;
  void cancel();

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Context>> open_;
  bool cancelled_ = false;
};

}  // namespace vesim
