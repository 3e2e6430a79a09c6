// One VE process's address space.
//
// VE addresses start at 0x600000000000 and are *not* host pointers: host memory lies elsewhere, and
// only this class translates. Every page has rights; an access to a page without them is found
// here, so that wild pointers in VE code never become host faults. Between two allocations lies at
// least one unmapped page. This file knows nothing of instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace vesim {

class Memory {
 public:
  static constexpr uint64_t kDefaultBase = 0x600000000000;
  static constexpr uint64_t kDefaultBytes = uint64_t{48} << 30;
  static constexpr unsigned kPageBits = 12;
  static constexpr uint64_t kPageBytes = uint64_t{1} << kPageBits;

  // Rights and marks of a page. A page with kStackGuard has no rights: touching it is an overflow.
  enum Page : uint8_t { kRead = 1, kWrite = 2, kExecute = 4, kStackGuard = 8 };

  // Reserves address space only. Throws std::bad_alloc where the host refuses even that; of the
  // default size it may be less then.
  explicit Memory(uint64_t bytes = kDefaultBytes, uint64_t base = kDefaultBase);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Zero-filled memory; 0 where there is none. `align` is a power of two. Thread-safe.
  uint64_t allocate(uint64_t bytes, uint64_t align = 64);
  bool release(uint64_t address);  // false: `allocate` did not return it, or it is released already
  // What the simulator keeps there itself (code, stacks): no program's `release` frees it.
  uint64_t allocate_own(uint64_t bytes, uint64_t align = 64, unsigned rights = kRead | kWrite);
  // A stack: `bytes` of memory with a guard below it that traps as an overflow. Returns the lowest
  // usable address.
  uint64_t allocate_stack(uint64_t bytes);
  void release_own(uint64_t address);
  void protect(uint64_t address, uint64_t bytes, unsigned rights);

  // Host access, whatever the rights of mapped pages are (a loader writes code). false, and nothing
  // copied: not all of it is mapped.
  bool read(void* host, uint64_t address, uint64_t bytes) const;
  bool write(uint64_t address, const void* host, uint64_t bytes);

  // The host's view of [address, address + bytes), or nullptr unless every page of it has `rights`.
  uint8_t* at(uint64_t address, uint64_t bytes, unsigned rights) const {
    const uint64_t offset = address - base_;
    if (offset >= bytes_ || bytes > bytes_ - offset) return nullptr;
    if (bytes == 0) return host_ + offset;
    const uint64_t last = (offset + bytes - 1) >> kPageBits;
    for (uint64_t page = offset >> kPageBits; page <= last; ++page) {
      if ((rights_of_page(page) & rights) != rights) return nullptr;
    }
    return host_ + offset;
  }
  unsigned rights(uint64_t address) const {
    const uint64_t offset = address - base_;
    return offset < bytes_ ? rights_of_page(offset >> kPageBits) : 0;
  }

  // For loops over many addresses: page table and bounds. host = host_base() + (address - base()).
  uint64_t base() const { return base_; }
  uint64_t bytes() const { return bytes_; }
  uint8_t* host_base() const { return host_; }
  const uint8_t* page_table() const { return pages_; }

  uint64_t used() const;  // bytes of all live allocations, each rounded up to pages
  uint64_t largest_free() const;

  // Grows with every change of a page that is or becomes executable: decoded code is then stale.
  uint64_t code_version() const { return __atomic_load_n(&code_version_, __ATOMIC_ACQUIRE); }

  // Names of code and data, for messages. A range without a name gives "".
  void name(uint64_t address, uint64_t bytes, const std::string& name);
  void forget_names(uint64_t address, uint64_t bytes);
  std::string describe(uint64_t address) const;  // "kernel+0x38"

  // What a process has besides memory. `firmware`: address of the functions that the simulator
  // provides (host.cpp makes it at first use). `thread_storage`: what each core's thread-local
  // memory holds at first, one entry for each loaded image that has any, in the order of offsets.
  struct ThreadStorage {
    uint64_t offset;  // from the start of thread-local memory
    uint64_t bytes;
    std::vector<uint8_t> image;  // its content; empty while the image is being loaded
    uint64_t serial;             // cores set up what is newer than they have seen
  };
  // `communication`: registers that all cores of a process share (`lcr`, `scr`, ...).
  uint64_t firmware = 0;
  static constexpr unsigned kCommunicationRegisters = 32;
  uint64_t communication[kCommunicationRegisters] = {};
  std::vector<ThreadStorage> thread_storage;
  uint64_t thread_serial = 0;
  std::mutex process;  // guards firmware and thread_storage

 private:
  struct Block {
    uint64_t bytes;    // of pages
    uint64_t guard;    // bytes below `address` that belong to it
    bool own;          // the simulator's
  };
  struct Name {
    uint64_t bytes;
    std::string text;
  };

  unsigned rights_of_page(uint64_t page) const {
    return __atomic_load_n(&pages_[page], __ATOMIC_RELAXED);
  }
  bool use(uint64_t offset, uint64_t bytes);
  uint64_t take(uint64_t bytes, uint64_t align, uint64_t guard, unsigned rights, bool own);
  bool give_back(uint64_t address, bool own);
  void mark(uint64_t offset, uint64_t bytes, unsigned rights);

  uint64_t base_ = 0, bytes_ = 0;
  uint8_t* host_ = nullptr;
  uint8_t* pages_ = nullptr;  // one byte of `Page` bits for each page
  uint64_t code_version_ = 1;
  mutable std::mutex mutex_;
  std::vector<bool> usable_;            // pieces of host memory that have rights
  std::map<uint64_t, uint64_t> free_;   // offset -> bytes, coalesced
  std::map<uint64_t, Block> used_;      // offset -> block
  std::map<uint64_t, Name> names_;      // address -> name
};

}  // namespace vesim
