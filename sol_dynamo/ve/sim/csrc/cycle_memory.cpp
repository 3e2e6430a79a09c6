#include "cycle_memory.h"

#include <algorithm>

#include "cycle_parameters.h"

namespace vesim {

// --- caches --------------------------------------------------------------------------------------

LineCache::LineCache(uint64_t bytes, unsigned ways)
    : ways_(ways),
      sets_(std::max<uint64_t>(bytes / (kLineBytes * ways), 1)),
      lines_(sets_ * ways) {}

LineCache::Line* LineCache::find(uint64_t line) {
  Line* const set = &lines_[line % sets_ * ways_];
  for (unsigned way = 0; way < ways_; ++way) {
    if (set[way].tag == line) {
      set[way].used = ++clock_;
      return &set[way];
    }
  }
  return nullptr;
}

LineCache::Line* LineCache::replace(uint64_t line, bool* written) {
  Line* const set = &lines_[line % sets_ * ways_];
  Line* oldest = set;
  for (unsigned way = 1; way < ways_; ++way) {
    if (set[way].used < oldest->used) oldest = &set[way];
  }
  *written = oldest->dirty;
  *oldest = {line, ++clock_, 0, false};
  return oldest;
}

void LineCache::forget(uint64_t line) {
  if (Line* found = find(line)) *found = Line{};
}

void LineCache::settle() {
  for (Line& line : lines_) line.ready = 0;
}

// --- barriers ------------------------------------------------------------------------------------

bool Barriers::known(uint64_t line) const {
  if (!any()) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  return lines_.count(line) != 0;
}

void Barriers::arrive(uint64_t line, double time) {
  std::lock_guard<std::mutex> lock(mutex_);
  Line& found = lines_[line];
  found.arrival = found.over ? time : std::max(found.arrival, time);
  found.over = false;
  count_ = lines_.size();
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
