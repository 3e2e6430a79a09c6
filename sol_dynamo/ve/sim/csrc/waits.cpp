// See waits.h.
#include "waits.h"

#include <sched.h>

#include <thread>

namespace vesim {
namespace {

// A core that comes to a barrier last is mostly a few switches of the host's threads away; beyond,
// it computes, and needs the processor more than the waiting cores do. Yielding alone leaves each
// of them its share of the processor.
constexpr uint64_t kYields = 64;
constexpr std::chrono::microseconds kSleep{50};
constexpr size_t kKept = 64;  // failures; a call begun before as many is told of the oldest kept

}  // namespace

void Waits::change() {
  ++epoch_;
  waiting_ = 0;
}

void Waits::busy(int change_by) {
  std::lock_guard<std::mutex> hold(mutex_);
  busy_ += change_by;
  change();
}

void Waits::begin(Turns& of) {
  std::lock_guard<std::mutex> hold(mutex_);
  of = {};
  of.failures = failures_;
  change();
}

void Waits::record(const std::string& text) {
  last_.push_back({++failures_, text});
  if (last_.size() > kKept) last_.pop_front();
  change();
}

void Waits::fail(const std::string& text) {
  std::lock_guard<std::mutex> hold(mutex_);
  record(text);
}

void Waits::patience(double seconds) {
  std::lock_guard<std::mutex> hold(mutex_);
  patience_ = std::chrono::duration<double>(seconds);
}

std::string Waits::turn(Turns& of) {
  if (++of.fruitless <= kYields) {
    sched_yield();
    return "";
  }
  {
    std::lock_guard<std::mutex> hold(mutex_);
    if (of.fruitless == kYields + 1) change();
    if (of.epoch != epoch_) {
      of.epoch = epoch_;
      of.seen = 0;
    } else if (++of.seen == 2) {
      ++waiting_;
    }
    const bool hopeless = of.seen >= 2 && static_cast<int>(waiting_) >= busy_;
    if (hopeless && failures_ > of.failures) {
      for (const Failure& failure : last_) {
        if (failure.number > of.failures) return "a call has failed: " + failure.text;
      }
    }
    const auto now = std::chrono::steady_clock::now();
    if (!hopeless) {
      of.since = now;
    } else if (now - of.since > patience_) {
      const std::string text = "all " + std::to_string(busy_) + " busy ones wait like it";
      record(text);
      return text;
    }
  }
  std::this_thread::sleep_for(kSleep);
  return "";
}

}  // namespace vesim
