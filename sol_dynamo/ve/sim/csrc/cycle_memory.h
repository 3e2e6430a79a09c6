// The cycle model's caches, and what cores of a card learn of each other: barriers.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace vesim {

// A set-associative cache of lines that remembers when each line's data arrives.
class LineCache {
 public:
  struct Line {
    uint64_t used = 0;   // for the choice of the line that was not used for longest
    double ready = 0;
    bool dirty = false;
  };
  LineCache(uint64_t bytes, unsigned ways);
  Line* find(uint64_t line) {  // nullptr: not there
    const uint64_t first = first_of(line);
    for (uint64_t at = first; at < first + ways_; ++at) {
      if (tags_[at] != line) continue;
      Line& found = lines_[at];
      if (found.used <= settled_) found.ready = 0;
      found.used = ++clock_;
      return &found;
    }
    return nullptr;
  }
  Line* replace(uint64_t line, bool* written);  // `*written`: a changed line had to go
  void forget(uint64_t line);
  void settle() { settled_ = clock_; }  // all data under way has arrived

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};  // no line of an address has this number
  uint64_t first_of(uint64_t line) const {
    return (mask_ != 0 ? line & mask_ : line % sets_) * ways_;
  }

  const unsigned ways_;
  const uint64_t sets_, mask_;  // mask_: sets_ - 1 where that is one
  uint64_t clock_ = 0, settled_ = 0;
  std::vector<uint64_t> tags_;  // beside the lines: the search reads these only
  std::vector<Line> lines_;
};

// Barriers between the cores of a card, as the code that they execute shows them: an atomic
// instruction on a line is an arrival, a scalar store to that line afterwards is the release, and a
// scalar load of the stored value ends the wait. Calls of different contexts are taken to begin
// together. What the cores then read as time is the last arrival's, whichever of them came last on
// the host.
class Barriers {
 public:
  bool known(uint64_t line) const {  // asked for each scalar access, so mostly without the lock
    return (filter_[slot_of(line)].load(std::memory_order_relaxed) & bit_of(line)) != 0 &&
           contains(line);
  }
  void arrive(uint64_t line, double time);
  double release(uint64_t address, uint64_t value);         // the last arrival's time
  double released(uint64_t address, uint64_t value) const;  // the same; 0: nobody stored the value

 private:
  struct Release {
    uint64_t address, value;
    double time;
  };
  struct Line {
    double arrival = 0;
    bool over = false;               // released: the next arrival is of another barrier
    std::vector<Release> releases;   // the last ones
  };
  // Of lines that may be a barrier's: one bit for each of 4096 classes.
  static constexpr unsigned kSlots = 64;
  static unsigned slot_of(uint64_t line) { return line / 64 % kSlots; }
  static uint64_t bit_of(uint64_t line) { return uint64_t{1} << line % 64; }
  bool contains(uint64_t line) const;

  mutable std::mutex mutex_;
  std::atomic<uint64_t> filter_[kSlots] = {};
  std::unordered_map<uint64_t, Line> lines_;
};

}  // namespace vesim
