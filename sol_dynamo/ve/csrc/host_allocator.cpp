// Page-locked host memory. See host_allocator.h.
#include "host_allocator.h"

#include "device.h"

#include <ATen/core/CachingHostAllocator.h>
#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>

namespace ve {
namespace {

constexpr size_t kPage = 4096;

struct Pages {
  size_t bytes;
  bool used;
};

class HostAllocator final : public at::HostAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? take((bytes + kPage - 1) / kPage * kPage) : nullptr;
    return {memory, memory, &give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &give_back;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  // Copies in flight hold the storage itself (copy.cpp), so nothing is to be recorded.
  bool record_event(void*, void*, c10::Stream) override {
    return true;
  }
  void empty_cache() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [bytes, memory] : free_) {
      munlock(memory, bytes);
      std::free(memory);
      all_.erase(memory);
    }
    free_.clear();
  }
  at::HostStats get_stats() override {
    return {};
  }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}

  bool holds(const void* address) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = all_.upper_bound(const_cast<void*>(address));
    if (found == all_.begin())
      return false;
    --found;
    const auto* begin = static_cast<const char*>(found->first);
    return found->second.used && static_cast<const char*>(address) < begin + found->second.bytes;
  }

 private:
  void* take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = free_.lower_bound(bytes);
        found != free_.end() && found->first <= 2 * bytes) { // wastes no more than half
      void* memory = found->second;
      free_.erase(found);
      all_.at(memory).used = true;
      return memory;
    }
    void* memory = std::aligned_alloc(kPage, bytes);
    TORCH_CHECK_WITH(
        OutOfMemoryError, memory, "out of host memory: ", bytes, " bytes of pinned memory");
    // A limit on locked memory (ulimit -l) leaves pages unlocked: slower, never wrong.
    (void)mlock(memory, bytes);
    all_[memory] = {bytes, true};
    return memory;
  }

  static void give_back(void* memory);

  std::mutex mutex_;
  std::map<void*, Pages> all_;
  std::multimap<size_t, void*> free_;
};

HostAllocator& the_allocator() {
  static auto* the = new HostAllocator;
  return *the;
}

void HostAllocator::give_back(void* memory) {
  if (!memory)
    return;
  auto& self = the_allocator();
  std::lock_guard<std::mutex> lock(self.mutex_);
  Pages& pages = self.all_.at(memory);
  pages.used = false;
  self.free_.emplace(pages.bytes, memory);
}

} // namespace

c10::Allocator& host_allocator() {
  return the_allocator();
}

bool is_pinned(const void* address) {
  return the_allocator().holds(address);
}

void register_host_allocator() {
  at::setHostAllocator(kVE, &the_allocator());
}

} // namespace ve
