#include "cycle_memory.h"

#include <algorithm>

#include "cycle_parameters.h"

namespace vesim {

// --- caches --------------------------------------------------------------------------------------

LineCache::LineCache(uint64_t bytes, unsigned ways)
    : ways_(ways),
      sets_(std::max<uint64_t>(bytes / (kLineBytes * ways), 1)),
      mask_((sets_ & (sets_ - 1)) == 0 ? sets_ - 1 : 0),
      tags_(sets_ * ways, kNone),
      lines_(sets_ * ways) {}

LineCache::Line* LineCache::replace(uint64_t line, bool* written) {
  const uint64_t first = first_of(line);
  uint64_t oldest = first;
  for (uint64_t at = first + 1; at < first + ways_; ++at) {
    if (lines_[at].used < lines_[oldest].used) oldest = at;
  }
  *written = lines_[oldest].dirty;
  tags_[oldest] = line;
  lines_[oldest] = {++clock_, 0, false};
  return &lines_[oldest];
}

void LineCache::forget(uint64_t line) {
  if (Line* found = find(line)) {
    tags_[static_cast<uint64_t>(found - lines_.data())] = kNone;
    *found = Line{};
  }
}

// --- barriers ------------------------------------------------------------------------------------

bool Barriers::contains(uint64_t line) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return lines_.count(line) != 0;
}

void Barriers::arrive(uint64_t line, double time) {
  std::lock_guard<std::mutex> lock(mutex_);
  Line& found = lines_[line];
  found.arrival = found.over ? time : std::max(found.arrival, time);
  found.over = false;
  filter_[slot_of(line)].fetch_or(bit_of(line), std::memory_order_relaxed);
}

double Barriers::release(uint64_t address, uint64_t value) {
  constexpr size_t kKept = 8;
  std::lock_guard<std::mutex> lock(mutex_);
  Line& line = lines_[address / kLineBytes];
  line.over = true;
  const auto same = [&](const Release& r) { return r.address == address && r.value == value; };
  auto& all = line.releases;
  all.erase(std::remove_if(all.begin(), all.end(), same), all.end());
  if (all.size() == kKept) all.erase(all.begin());
  all.push_back({address, value, line.arrival});
  return line.arrival;
}

double Barriers::released(uint64_t address, uint64_t value) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto line = lines_.find(address / kLineBytes);
  if (line == lines_.end()) return 0;
  for (const Release& r : line->second.releases) {
    if (r.address == address && r.value == value) return r.time;
  }
  return 0;
}

}  // namespace vesim
