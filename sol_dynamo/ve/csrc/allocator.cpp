// The caching allocator. See allocator.h.
//
// Sizes follow torch's CUDA allocator, whose trade-offs are well known: blocks are multiples of
// 512 bytes; up to 1 MiB they are cut from segments of 2 MiB, up to 10 MiB from segments of
// 20 MiB, larger ones have segments of their own. A call of the driver for memory waits for all
// that runs on the default stream (AVEO's synchronous calls do), so few such calls matter.
#include "allocator.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <unordered_set>

namespace ve {
namespace {

using c10::CachingAllocator::format_size;
using c10::CachingAllocator::StatArray;
using c10::CachingAllocator::StatType;
using c10::CachingDeviceAllocator::DeviceStats;

constexpr size_t kUnit = 512; // also the alignment: four lines of the last-level cache
constexpr size_t kSmall = 1 << 20; // the largest block of the small pool
constexpr size_t kSmallSegment = 2 << 20;
constexpr size_t kMedium = 10 << 20; // the largest block that shares a segment of the large pool
constexpr size_t kLargeSegment = 20 << 20;
constexpr size_t kSegmentUnit = 2 << 20;

size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

size_t block_size(size_t bytes) {
  return std::max(kUnit, round_up(bytes, kUnit));
}

size_t segment_size(size_t block) {
  if (block <= kSmall)
    return kSmallSegment;
  return block < kMedium ? kLargeSegment : round_up(block, kSegmentUnit);
}

struct Pool;

// A piece of a segment. Neighbours in the segment are linked, so that free ones can be merged.
struct Block {
  DeviceIndex device;
  c10::StreamId stream;
  uint64_t address;
  size_t size;
  Pool* pool;
  size_t requested = 0;
  bool allocated = false;
  uint64_t segment = 0; // of a first block: the address that the driver gave
  Block* before = nullptr;
  Block* after = nullptr;
  std::unordered_set<c10::StreamId> used_by; // other streams
  std::vector<std::pair<std::shared_ptr<Mark>, Queue*>> awaited; // once freed: points in those

  Block(DeviceIndex device, c10::StreamId stream, uint64_t address, size_t size, Pool* pool)
      : device(device), stream(stream), address(address), size(size), pool(pool) {}
  bool split() const {
    return before || after;
  }
};

// By stream, then size: the first block not below a key is the best fit.
struct ByFit {
  bool operator()(const Block* a, const Block* b) const {
    return std::tie(a->stream, a->size, a->address) < std::tie(b->stream, b->size, b->address);
  }
};

struct Pool {
  const StatType kind;
  std::set<Block*, ByFit> free;
};

class DeviceCache {
 public:
  explicit DeviceCache(DeviceIndex device) : device_(device) {}

  Block* allocate(size_t bytes);
  void free(Block* block);
  void record(Block* block, c10::StreamId stream);
  void empty();
  bool holds(uint64_t address);

  DeviceStats stats();
  void reset_accumulated();
  void reset_peak();
  std::pair<size_t, size_t> memory_info(size_t total);
  size_t limit = SIZE_MAX;

 private:
  Block* find(Pool& pool, size_t size, c10::StreamId stream);
  Block* add_segment(Pool& pool, size_t size, c10::StreamId stream);
  Block* cut(Block* block, size_t size);
  void put_back(Block* block);
  bool merge(Block* into, Block* other);
  void release_free();
  void take_awaited(bool wait);
  [[noreturn]] void out_of_memory(size_t bytes);

  static void add(StatArray& array, StatType kind, int64_t amount);

  const DeviceIndex device_;
  std::mutex mutex_;
  Pool small_{StatType::SMALL_POOL, {}};
  Pool large_{StatType::LARGE_POOL, {}};
  std::unordered_set<Block*> live_; // allocated, or freed and awaited
  std::vector<Block*> awaited_;
  DeviceStats stats_;
};

void DeviceCache::add(StatArray& array, StatType kind, int64_t amount) {
  for (auto type : {StatType::AGGREGATE, kind}) {
    auto& stat = array[static_cast<size_t>(type)];
    if (amount >= 0)
      stat.increase(amount);
    else
      stat.decrease(-amount);
  }
}

Block* DeviceCache::allocate(size_t bytes) {
  const size_t size = block_size(bytes);
  const c10::StreamId stream = current_stream(device_).id();
  std::lock_guard<std::mutex> lock(mutex_);
  take_awaited(false);
  Pool& pool = size <= kSmall ? small_ : large_;
  Block* block = find(pool, size, stream);
  if (!block)
    block = add_segment(pool, size, stream);
  if (!block) { // give back what is cached, then wait for what other streams still use
    ++stats_.num_alloc_retries;
    take_awaited(true);
    block = find(pool, size, stream);
    if (!block) {
      release_free();
      block = add_segment(pool, size, stream);
    }
  }
  if (!block)
    out_of_memory(bytes);
  block = cut(block, size);
  block->allocated = true;
  block->requested = bytes;
  live_.insert(block);
  add(stats_.allocation, pool.kind, 1);
  add(stats_.allocated_bytes, pool.kind, block->size);
  add(stats_.active, pool.kind, 1);
  add(stats_.active_bytes, pool.kind, block->size);
  add(stats_.requested_bytes, pool.kind, bytes);
  return block;
}

Block* DeviceCache::find(Pool& pool, size_t size, c10::StreamId stream) {
  Block key(device_, stream, 0, size, &pool);
  auto found = pool.free.lower_bound(&key);
  if (found == pool.free.end() || (*found)->stream != stream)
    return nullptr;
  Block* block = *found;
  // a segment of its own would waste too much on a small block
  if (block->size > kLargeSegment && size < kMedium && pool.kind == StatType::LARGE_POOL &&
      !block->split())
    return nullptr;
  pool.free.erase(found);
  if (block->split()) {
    add(stats_.inactive_split, pool.kind, -1);
    add(stats_.inactive_split_bytes, pool.kind, -static_cast<int64_t>(block->size));
  }
  return block;
}

Block* DeviceCache::add_segment(Pool& pool, size_t size, c10::StreamId stream) {
  const size_t bytes = segment_size(size);
  const auto reserved = stats_.reserved_bytes[0].current;
  if (bytes > limit || static_cast<size_t>(reserved) > limit - bytes)
    return nullptr;
  auto* proc = process(device_);
  uint64_t base = 0;
  // the driver promises no alignment: ask for as much more as it takes to make one
  if (driver().alloc_mem(proc, &base, bytes + kUnit) != 0 || base == 0)
    return nullptr;
  ++stats_.num_device_alloc;
  auto* block = new Block(device_, stream, round_up(base, kUnit), bytes, &pool);
  block->segment = base;
  add(stats_.segment, pool.kind, 1);
  add(stats_.reserved_bytes, pool.kind, bytes);
  return block;
}

// The first `size` bytes of a free block that was taken out of its pool; the rest goes back.
Block* DeviceCache::cut(Block* block, size_t size) {
  const size_t rest = block->size - size;
  const bool worth = block->pool == &small_ ? rest >= kUnit : rest > kSmall;
  if (!worth)
    return block;
  auto* tail = new Block(device_, block->stream, block->address + size, rest, block->pool);
  tail->before = block;
  tail->after = block->after;
  if (tail->after)
    tail->after->before = tail;
  block->after = tail;
  block->size = size;
  tail->pool->free.insert(tail);
  add(stats_.inactive_split, tail->pool->kind, 1);
  add(stats_.inactive_split_bytes, tail->pool->kind, rest);
  return block;
}

void DeviceCache::free(Block* block) {
  // before the lock: a queue that is asked for a mark lets go of host memory, which may be Python's
  for (auto id : block->used_by)
    try {
      Queue& user = queue(device_, id);
      block->awaited.emplace_back(user.mark(), &user);
    } catch (const c10::Error&) {
      // a broken stream will do no more: nothing to wait for, and a destructor must not throw
    }
  block->used_by.clear();
  std::lock_guard<std::mutex> lock(mutex_);
  const auto kind = block->pool->kind;
  block->allocated = false;
  add(stats_.allocation, kind, -1);
  add(stats_.allocated_bytes, kind, -static_cast<int64_t>(block->size));
  add(stats_.requested_bytes, kind, -static_cast<int64_t>(block->requested));
  if (block->awaited.empty())
    put_back(block);
  else
    awaited_.push_back(block);
}

void DeviceCache::put_back(Block* block) {
  const auto kind = block->pool->kind;
  live_.erase(block);
  add(stats_.active, kind, -1);
  add(stats_.active_bytes, kind, -static_cast<int64_t>(block->size));
  merge(block, block->before);
  merge(block, block->after);
  block->pool->free.insert(block);
  if (block->split()) {
    add(stats_.inactive_split, kind, 1);
    add(stats_.inactive_split_bytes, kind, block->size);
  }
}

bool DeviceCache::merge(Block* into, Block* other) {
  if (!other || live_.count(other))
    return false;
  const auto kind = other->pool->kind;
  other->pool->free.erase(other);
  add(stats_.inactive_split, kind, -1);
  add(stats_.inactive_split_bytes, kind, -static_cast<int64_t>(other->size));
  if (other == into->before) {
    into->address = other->address;
    into->segment = other->segment;
    into->before = other->before;
    if (into->before)
      into->before->after = into;
  } else {
    into->after = other->after;
    if (into->after)
      into->after->before = into;
  }
  into->size += other->size;
  delete other;
  return true;
}

void DeviceCache::record(Block* block, c10::StreamId stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stream != block->stream)
    block->used_by.insert(stream);
}

void DeviceCache::take_awaited(bool wait) {
  auto done = [&](Block* block) {
    for (const auto& [mark, user] : block->awaited) {
      if (wait)
        synchronize_mark(*mark, *user);
      else if (!mark->reached())
        return false;
    }
    block->awaited.clear();
    put_back(block);
    return true;
  };
  awaited_.erase(std::remove_if(awaited_.begin(), awaited_.end(), done), awaited_.end());
}

void DeviceCache::release_free() {
  for (Pool* pool : {&small_, &large_})
    for (auto it = pool->free.begin(); it != pool->free.end();) {
      Block* block = *it;
      if (block->split()) {
        ++it;
        continue;
      }
      // what the stream has been asked to do with it must be done first
      queue(device_, block->stream).drain();
      driver().free_mem(process(device_), block->segment);
      ++stats_.num_device_free;
      add(stats_.segment, pool->kind, -1);
      add(stats_.reserved_bytes, pool->kind, -static_cast<int64_t>(block->size));
      it = pool->free.erase(it);
      delete block;
    }
}

void DeviceCache::empty() {
  std::lock_guard<std::mutex> lock(mutex_);
  take_awaited(true);
  release_free();
}

bool DeviceCache::holds(uint64_t address) {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::any_of(live_.begin(), live_.end(), [&](const Block* b) {
    return address >= b->address && address < b->address + b->size;
  });
}

void DeviceCache::out_of_memory(size_t bytes) {
  ++stats_.num_ooms;
  const size_t allocated = stats_.allocated_bytes[0].current;
  const size_t reserved = stats_.reserved_bytes[0].current;
  const std::string limited = limit == SIZE_MAX
      ? ""
      : " This process may reserve " + format_size(limit) +
          " there (set_per_process_memory_fraction).";
  TORCH_CHECK_WITH(
      OutOfMemoryError,
      false,
      "ve:",
      static_cast<int>(device_),
      " is out of memory: tried to allocate ",
      format_size(bytes),
      ". Tensors hold ",
      format_size(allocated),
      ", and ",
      format_size(reserved - allocated),
      " are reserved but unused.",
      limited,
      driver().refusal());
}

DeviceStats DeviceCache::stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

template <typename Reset>
void for_each_stat(DeviceStats& stats, Reset reset) {
  for (auto* array :
       {&stats.allocation,
        &stats.segment,
        &stats.active,
        &stats.inactive_split,
        &stats.allocated_bytes,
        &stats.reserved_bytes,
        &stats.active_bytes,
        &stats.inactive_split_bytes,
        &stats.requested_bytes})
    for (auto& stat : *array)
      reset(stat);
}

void DeviceCache::reset_accumulated() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_stat(stats_, [](auto& stat) { stat.reset_accumulated(); });
  stats_.num_alloc_retries = stats_.num_ooms = 0;
  stats_.num_device_alloc = stats_.num_device_free = 0;
}

void DeviceCache::reset_peak() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_stat(stats_, [](auto& stat) { stat.reset_peak(); });
}

std::pair<size_t, size_t> DeviceCache::memory_info(size_t total) {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t reserved = stats_.reserved_bytes[0].current;
  const size_t usable = std::min(limit, total);
  return {usable - std::min(usable, reserved), total};
}

size_t total_memory = size_t{48} << 30;

DeviceCache& cache(DeviceIndex device) {
  static auto* all = [] {
    auto* made = new std::vector<std::unique_ptr<DeviceCache>>;
    for (DeviceIndex i = 0; i < device_count(); ++i)
      made->push_back(std::make_unique<DeviceCache>(i));
    return made;
  }();
  return *all->at(index_of(c10::Device(kVE, device)));
}

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  if (block && !in_bad_fork()) // the child of a fork has no VE process: there is nothing to free
    cache(block->device).free(block);
}

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    return allocate_on(current_device(), bytes);
  }
  void copy_data(void*, const void*, size_t) const override {
    TORCH_CHECK(false, "memory of the ve device is copied by tensors' copy_, not by its allocator");
  }
  bool initialized() override {
    return device_count() > 0;
  }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {
    for (DeviceIndex i = 0; i < device_count(); ++i)
      if (has_process(i))
        cache(i).empty();
  }
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override {
    if (data.get() && data.get_deleter() == &free_block)
      cache(data.device().index()).record(static_cast<Block*>(data.get_context()), stream.id());
  }
  DeviceStats getDeviceStats(DeviceIndex device) override {
    return cache(device).stats();
  }
  void resetAccumulatedStats(DeviceIndex device) override {
    cache(device).reset_accumulated();
  }
  void resetPeakStats(DeviceIndex device) override {
    cache(device).reset_peak();
  }
  // no `override`: torch 2.11's interface may lack it
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) {
    return memory_info(device);
  }
};

} // namespace

c10::DeviceAllocator& allocator() {
  static auto* the = new Allocator;
  return *the;
}

c10::DataPtr allocate_on(DeviceIndex device, size_t bytes) {
  const c10::Device where(kVE, index_of(c10::Device(kVE, device)));
  if (bytes == 0)
    return {nullptr, nullptr, &free_block, where};
  Block* block = cache(device).allocate(bytes);
  return {reinterpret_cast<void*>(block->address), block, &free_block, where};
}

void register_allocator() {
  c10::SetAllocator(kVE, &allocator());
}

void set_memory_limit(DeviceIndex device, size_t bytes) {
  cache(device).limit = bytes;
}

void set_total_memory(size_t bytes) {
  total_memory = bytes;
}

std::pair<size_t, size_t> memory_info(DeviceIndex device) {
  return cache(device).memory_info(total_memory);
}

DeviceIndex device_holding(const void* address) {
  for (DeviceIndex i = 0; i < device_count(); ++i)
    if (has_process(i) && cache(i).holds(reinterpret_cast<uint64_t>(address)))
      return i;
  return -1;
}

} // namespace ve
