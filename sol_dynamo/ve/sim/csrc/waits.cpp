// See waits.h.
#include "waits.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace vesim {
namespace {

// A core that comes to a barrier last is mostly a few switches of the host's threads away; beyond,
// it computes, and needs the processor more than the waiting cores do. Yielding alone leaves each
// of them its share of the processor.
constexpr uint64_t kYields = 64;
constexpr std::chrono::microseconds kSleep{50};
constexpr std::chrono::duration<double> kAfterFailure{1};
constexpr size_t kKept = 64;  // failures; a call begun before as many is told of the oldest kept

}  // namespace

void Waits::change() {
  ++epoch_;
  waiting_.clear();
}

Waits::Request Waits::request() {
  std::lock_guard<std::mutex> hold(mutex_);
  return {++requests_, failures_, std::chrono::steady_clock::now()};
}

void Waits::busy(int change_by) {
  std::lock_guard<std::mutex> hold(mutex_);
  busy_ += change_by;
  change();
}

void Waits::begin(Turns& of, const Request& request) {
  std::lock_guard<std::mutex> hold(mutex_);
  of = {};
  of.request = request;
  change();
}

void Waits::record(const std::string& text) {
  last_.push_back({++failures_, text, std::chrono::steady_clock::now()});
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

std::string Waits::end(Turns& of) {
  const auto now = std::chrono::steady_clock::now();
  const bool hopeless = of.seen >= 2 && static_cast<int>(waiting_.size()) >= busy_;
  if (!hopeless) {
    of.since = now;
    return "";
  }
  if (of.request.order != *std::min_element(waiting_.begin(), waiting_.end())) return "";
  for (const Failure& failure : last_) {
    if (failure.number <= of.request.failures) continue;
    change();  // this one waits no more
    return "a call has failed: " + failure.text;
  }
  const auto waited = now - of.since;
  const bool group = !last_.empty() && of.request.when - last_.back().when < kAfterFailure;
  if (group && waited > std::min(patience_, kAfterFailure)) {
    const std::string text = last_.back().text;
    record(text);  // the others of its group need not wait as long
    return "a call has failed: " + text;
  }
  if (waited <= patience_) return "";
  const std::string text = "all " + std::to_string(busy_) + " busy ones wait like it";
  record(text);
  return text;
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
      waiting_.push_back(of.request.order);
    }
    std::string why = end(of);
    if (!why.empty()) return why;
  }
  std::this_thread::sleep_for(kSleep);
  return "";
}

}  // namespace vesim
