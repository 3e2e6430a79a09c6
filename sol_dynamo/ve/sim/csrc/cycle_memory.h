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
    uint64_t tag = ~uint64_t{0};
    uint64_t used = 0;   // for the choice of the line that was not used for longest
    double ready = 0;
    bool dirty = false;
  };
  LineCache(uint64_t bytes, unsigned ways);
  Line* find(uint64_t line);                    // nullptr: not there
  Line* replace(uint64_t line, bool* written);  // `*written`: a changed line had to go
  void forget(uint64_t line);
  void settle();  // all data under way has arrived

 private:
  const unsigned ways_;
  const uint64_t sets_;
  uint64_t clock_ = 0;
  std::vector<Line> lines_;
};

// Barriers between the cores of a card, as the code that they execute shows them: an atomic
// instruction on a line is an arrival, a scalar store to that line afterwards is the release, and a
// scalar load of the stored value ends the wait. Calls of different contexts are taken to begin
// together. What the cores then read as time is the last arrival's, whichever of them came last on
// the host.
class Barriers {
 public:
  bool any() const { return count_.load(std::memory_order_relaxed) != 0; }
  bool known(uint64_t line) const;
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
  mutable std::mutex mutex_;
  std::atomic<size_t> count_{0};
  std::unordered_map<uint64_t, Line> lines_;
};

}  // namespace vesim
