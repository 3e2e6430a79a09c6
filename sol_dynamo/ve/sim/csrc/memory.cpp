// See memory.h. Host memory is reserved without rights and gets them in large pieces as it is used,
// so that an idle machine of 48 GiB costs nothing and many small blocks cost no host mappings. What
// VE code may touch is said by our own page table alone.
#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

namespace vesim {
namespace {

constexpr uint64_t kPage = Memory::kPageBytes;
constexpr uint64_t kPieceBytes = uint64_t{32} << 20;
constexpr uint64_t kLeastBytes = uint64_t{1} << 30;
constexpr uint64_t kStackGuardBytes = uint64_t{1} << 20;  // a frame rarely leaps over this much

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

uint8_t* reserve(uint64_t bytes, int rights) {
  void* p = mmap(nullptr, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(p);
}

}  // namespace

Memory::Memory(uint64_t bytes, uint64_t base) : base_(base) {
  bytes_ = round_up(std::max<uint64_t>(bytes, uint64_t{64} << 20), kPieceBytes);
  for (;;) {
    try {
      host_ = reserve(bytes_, PROT_NONE);
      break;
    } catch (const std::bad_alloc&) {  // a limit on address space: the usual size may be less
      if (bytes != kDefaultBytes || bytes_ <= kLeastBytes) throw;
      bytes_ /= 2;
    }
  }
  try {
    pages_ = reserve(bytes_ >> kPageBits, PROT_READ | PROT_WRITE);
  } catch (...) {
    munmap(host_, bytes_);
    throw;
  }
  usable_.assign(bytes_ / kPieceBytes, false);
  free_[kPage] = bytes_ - 2 * kPage;  // the first and last page are never mapped
}

Memory::~Memory() {
  munmap(host_, bytes_);
  munmap(pages_, bytes_ >> kPageBits);
}

void Memory::mark(uint64_t offset, uint64_t bytes, unsigned rights) {
  bool code = (rights & kExecute) != 0;
  for (uint64_t p = offset >> kPageBits; p < (offset + bytes) >> kPageBits; ++p) {
    code |= (pages_[p] & kExecute) != 0;
    __atomic_store_n(&pages_[p], static_cast<uint8_t>(rights), __ATOMIC_RELAXED);
  }
  if (code) __atomic_fetch_add(&code_version_, 1, __ATOMIC_RELEASE);
}

// Lets the host use [offset, offset + bytes); false: it has no memory.
bool Memory::use(uint64_t offset, uint64_t bytes) {
  for (uint64_t p = offset / kPieceBytes; p <= (offset + bytes - 1) / kPieceBytes; ++p) {
    if (usable_[p]) continue;
    if (mprotect(host_ + p * kPieceBytes, kPieceBytes, PROT_READ | PROT_WRITE) != 0) return false;
    usable_[p] = true;
  }
  return true;
}

// First fit. One page between blocks stays unmapped: running off the end of one is found.
uint64_t Memory::take(uint64_t bytes, uint64_t align, uint64_t guard, unsigned rights, bool own) {
  if (bytes > bytes_ || align > bytes_ || (align & (align - 1)) != 0) return 0;
  const uint64_t size = round_up(std::max<uint64_t>(bytes, 1), kPage);
  align = std::max(align, kPage);
  std::lock_guard<std::mutex> hold(mutex_);
  for (auto hole = free_.begin(); hole != free_.end(); ++hole) {
    const uint64_t low = hole->first, end = hole->first + hole->second;
    const uint64_t start = round_up(base_ + low + guard, align) - base_;
    if (start + size + kPage > end) continue;
    if (!use(start, size)) return 0;
    const uint64_t first = start - guard, last = start + size + kPage;
    free_.erase(hole);
    if (first > low) free_[low] = first - low;
    if (last < end) free_[last] = end - last;
    used_[start] = {size, guard, own};
    if (guard != 0) mark(first, guard, kStackGuard);
    mark(start, size, rights);
    return base_ + start;
  }
  return 0;
}

uint64_t Memory::allocate(uint64_t bytes, uint64_t align) {
  return take(bytes, align, 0, kRead | kWrite, false);
}

uint64_t Memory::allocate_own(uint64_t bytes, uint64_t align, unsigned rights) {
  return take(bytes, align, 0, rights, true);
}

uint64_t Memory::allocate_stack(uint64_t bytes) {
  return take(bytes, kPage, kStackGuardBytes, kRead | kWrite, true);
}

bool Memory::release(uint64_t address) { return give_back(address, false); }
void Memory::release_own(uint64_t address) { give_back(address, true); }

bool Memory::give_back(uint64_t address, bool own) {
  std::lock_guard<std::mutex> hold(mutex_);
  const auto block = used_.find(address - base_);
  if (block == used_.end() || block->second.own != own) return false;
  const uint64_t start = block->first, size = block->second.bytes, guard = block->second.guard;
  used_.erase(block);
  mark(start - guard, size + guard, 0);
  // Gives the host's memory back, as far as its pages are ours alone; the next owner finds zeros.
  static const uint64_t host_page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t first = round_up(start, host_page), last = (start + size) / host_page * host_page;
  if (first < last && madvise(host_ + first, last - first, MADV_DONTNEED) == 0) {
    std::memset(host_ + start, 0, first - start);
    std::memset(host_ + last, 0, start + size - last);
  } else {
    std::memset(host_ + start, 0, size);
  }
  uint64_t low = start - guard, end = start + size + kPage;
  const auto after = free_.lower_bound(low);
  if (after != free_.end() && after->first == end) {
    end += after->second;
    free_.erase(after);
  }
  const auto next = free_.lower_bound(low);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == low) {
      low = before->first;
      free_.erase(before);
    }
  }
  free_[low] = end - low;
  return true;
}

void Memory::protect(uint64_t address, uint64_t bytes, unsigned rights) {
  std::lock_guard<std::mutex> hold(mutex_);
  const uint64_t low = (address - base_) / kPage * kPage;
  mark(low, round_up(address - base_ + bytes, kPage) - low, rights);
}

bool Memory::read(void* host, uint64_t address, uint64_t bytes) const {
  if (bytes == 0) return true;
  const uint8_t* from = at(address, bytes, kRead);
  if (from == nullptr) return false;
  std::memcpy(host, from, bytes);
  return true;
}

bool Memory::write(uint64_t address, const void* host, uint64_t bytes) {
  if (bytes == 0) return true;
  uint8_t* to = at(address, bytes, kRead);
  if (to == nullptr) return false;
  std::memcpy(to, host, bytes);
  const uint64_t low = (address - base_) >> kPageBits;
  const uint64_t high = (address - base_ + bytes - 1) >> kPageBits;
  for (uint64_t p = low; p <= high; ++p) {
    if ((rights_of_page(p) & kExecute) != 0) {
      __atomic_fetch_add(&code_version_, 1, __ATOMIC_RELEASE);
      break;
    }
  }
  return true;
}

uint64_t Memory::used() const {
  std::lock_guard<std::mutex> hold(mutex_);
  uint64_t sum = 0;
  for (const auto& block : used_) sum += block.second.bytes;
  return sum;
}

uint64_t Memory::largest_free() const {
  std::lock_guard<std::mutex> hold(mutex_);
  uint64_t most = 0;
  for (const auto& hole : free_) most = std::max(most, hole.second);
  return most > kPage ? most - kPage : 0;
}

void Memory::name(uint64_t address, uint64_t bytes, const std::string& name) {
  std::lock_guard<std::mutex> hold(mutex_);
  names_[address] = {bytes, name};
}

void Memory::forget_names(uint64_t address, uint64_t bytes) {
  std::lock_guard<std::mutex> hold(mutex_);
  names_.erase(names_.lower_bound(address), names_.lower_bound(address + bytes));
}

std::string Memory::describe(uint64_t address) const {
  std::lock_guard<std::mutex> hold(mutex_);
  auto found = names_.upper_bound(address);
  if (found == names_.begin()) return "";
  --found;
  const uint64_t offset = address - found->first;
  if (offset >= std::max<uint64_t>(found->second.bytes, 1)) return "";
  char text[32];
  snprintf(text, sizeof text, "+0x%llx", static_cast<unsigned long long>(offset));
  return found->second.text + text;
}

}  // namespace vesim
