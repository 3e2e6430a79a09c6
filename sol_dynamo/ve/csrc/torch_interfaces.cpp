// The device guard and the hooks of torch: each function is a line on device.h and stream.h.
//
// It also starts autograd's threads for these devices where backward ran before they were there.
#include "torch_interfaces.h"

#include "allocator.h"
#include "generator.h"
#include "host_allocator.h"
#include "resize.h"
#include "stream.h"

#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/engine.h>

namespace ve {
namespace {

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kVE;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kVE, exchange_device(device.index())};
  }
  c10::Device getDevice() const override {
    return {kVE, current_device()};
  }
  void setDevice(c10::Device device) const override {
    set_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    set_device(device.index(), false);
  }
  DeviceIndex deviceCount() const noexcept override {
    return device_count();
  }
#if __has_include(<c10/core/DeviceCapability.h>) // not in every torch since 2.11
  c10::DeviceCapability getDeviceCapability(c10::Device) const override {
    return {}; // every dtype
  }
#endif

  c10::Stream getStream(c10::Device device) const override {
    return current_stream(index_of(device));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return default_stream(index_of(device));
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool = false) const override {
    return pool_stream(index_of(device));
  }
  c10::Stream getNewStream(c10::Device device, int = 0) const override {
    return pool_stream(index_of(device));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return exchange_stream(stream);
  }
  bool queryStream(const c10::Stream& stream) const override {
    return queue(stream).idle();
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    queue(stream).synchronize();
  }
  void synchronizeDevice(const DeviceIndex device) const override {
    synchronize_device(device < 0 ? current_device() : device);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    allocator().recordStream(data, stream);
  }

  void record(void** event, const c10::Stream& stream, const DeviceIndex, const c10::EventFlag)
      const override {
    const DeviceIndex device = index_of(stream.device());
    if (!*event)
      *event = new Event{device, nullptr, nullptr};
    auto* recorded = static_cast<Event*>(*event);
    TORCH_CHECK(
        recorded->device == device,
        "an event of ve:",
        int(recorded->device),
        " cannot be recorded on a stream of ve:",
        int(device));
    recorded->origin = &queue(stream);
    recorded->mark = recorded->origin->mark();
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (auto* recorded = static_cast<Event*>(event))
      queue(stream).await(recorded->mark, *recorded->origin);
  }
  bool queryEvent(void* event) const override {
    auto* recorded = static_cast<Event*>(event);
    if (!recorded || recorded->mark->reached())
      return true;
    recorded->origin->progress();
    return recorded->mark->reached();
  }
  void synchronizeEvent(void* event) const override {
    if (auto* recorded = static_cast<Event*>(event)) {
      synchronize_mark(*recorded->mark, *recorded->origin);
      recorded->origin->check(); // who waited for results must know that there are none
    }
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    return milliseconds(static_cast<Event*>(first), static_cast<Event*>(second));
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event); // a mark in flight is held by its request
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return device_count() > 0;
  }
  bool hasPrimaryContext(DeviceIndex device) const override {
    return has_process(device);
  }
  DeviceIndex deviceCount() const override {
    return device_count();
  }
  DeviceIndex getCurrentDevice() const override {
    return current_device();
  }
  void setCurrentDevice(DeviceIndex device) const override {
    set_device(device);
  }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    return exchange_device(device);
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return device < 0 || device >= device_count() ? current_device() : exchange_device(device);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex device) const override {
    return default_generator(device);
  }
  at::Generator getNewGenerator(DeviceIndex device = -1) const override {
    return new_generator(device);
  }
  bool isPinnedPtr(const void* address) const override {
    return is_pinned(address);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return &host_allocator();
  }
  at::Device getDeviceFromPtr(void* address) const override {
    const DeviceIndex device = device_holding(address);
    TORCH_CHECK(device >= 0, "no tensor of a ve device lies at ", address);
    return {kVE, device};
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    resize_bytes(*storage.unsafeGetStorageImpl(), bytes);
  }
};

// The members of torch's engine that its own device threads come from, protected as they are.
struct Engine : torch::autograd::Engine {
  static bool without_threads(torch::autograd::Engine& engine) {
    return (engine.*&Engine::device_ready_queues_).empty();
  }
  static void start(torch::autograd::Engine& engine) {
    (engine.*&Engine::start_device_threads)();
  }
};

// Autograd makes one thread per device at the first backward of the process, and never looks
// again. A backward on the CPU before this device was loaded left it none: with no accelerator
// then there were none to make, so that making them now is what would have happened.
void start_autograd_threads() {
  auto& engine = torch::autograd::Engine::get_default_engine();
  engine.initialize_device_threads_pool();
  if (Engine::without_threads(engine))
    Engine::start(engine);
}

} // namespace

void register_with_torch() {
  register_allocator();
  register_host_allocator();
  static const auto* guard = new Guard;
  c10::impl::registerDeviceGuard(kVE, guard);
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  start_autograd_threads();
}

} // namespace ve
