// What torch's profiler asks of a device: times of events in its streams.
//
// `torch.autograd.profiler.profile(use_device="ve")` records an event before and behind each
// operator. Of a simulated card, these are the host's times.
#include "stream.h"

#include <torch/csrc/profiler/stubs/base.h>

namespace ve {
namespace {

struct Profiler final : torch::profiler::impl::ProfilerStubs {
  using Stub = torch::profiler::impl::ProfilerVoidEventStub;

  void record(DeviceIndex* device, Stub* event, int64_t* host_ns) const override {
    const DeviceIndex index = current_device();
    Queue& at = current_queue(index);
    *event = std::make_shared<Event>(Event{index, at.mark(), &at});
    if (device)
      *device = index;
    if (host_ns)
      *host_ns = std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
  }

  // microseconds
  float elapsed(const Stub* first, const Stub* second) const override {
    const auto* a = static_cast<const Event*>(first->get());
    const auto* b = static_cast<const Event*>(second->get());
    for (const auto* event : {a, b})
      synchronize_mark(*event->mark, *event->origin);
    return static_cast<float>(1000 * milliseconds(a, b));
  }

  void onEachDevice(std::function<void(int)> f) const override {
    const DeviceIndex before = current_device();
    for (DeviceIndex i = 0; i < device_count(); ++i) {
      if (!has_process(i)) // nothing was asked of it
        continue;
      set_device(i);
      f(i);
    }
    set_device(before);
  }

  void synchronize() const override {
    synchronize_device(current_device());
  }
  bool enabled() const override {
    return true;
  }
  void mark(const char*) const override {}
  void rangePush(const char*) const override {}
  void rangePop() const override {}
};

const bool registered = [] {
  static Profiler profiler;
  torch::profiler::impl::registerPrivateUse1Methods(&profiler);
  return true;
}();

} // namespace
} // namespace ve
