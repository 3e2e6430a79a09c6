// The cards and their VE processes. See device.h.
#include "device.h"

#include <c10/util/Exception.h>

#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace ve {
namespace {

struct Card {
  int node = 0;
  std::atomic<veo_proc_handle*> process{nullptr};
  std::mutex creating;
};

std::vector<std::unique_ptr<Card>>& cards() {
  static auto* all = new std::vector<std::unique_ptr<Card>>; // lives as long as the process
  return *all;
}

thread_local DeviceIndex current = 0;
std::atomic<bool> forked{false};

void check_index(DeviceIndex index) {
  TORCH_CHECK(
      index >= 0 && index < device_count(),
      "there is no device ve:",
      static_cast<int>(index),
      ": ",
      static_cast<int>(device_count()),
      " found, so the last one is ve:",
      device_count() - 1);
}

void after_fork() {
  for (const auto& card : cards())
    if (card->process.load())
      forked = true;
}

} // namespace

void set_nodes(const std::vector<int>& nodes) {
  TORCH_CHECK(cards().empty(), "the cards of the ve device are known already");
  for (int node : nodes) {
    cards().push_back(std::make_unique<Card>());
    cards().back()->node = node;
  }
  pthread_atfork(nullptr, nullptr, after_fork);
}

DeviceIndex device_count() noexcept {
  return static_cast<DeviceIndex>(cards().size());
}

DeviceIndex current_device() noexcept {
  return current;
}

void set_device(DeviceIndex index, bool checked) {
  if (index < 0)
    return;
  if (checked)
    check_index(index);
  current = index;
}

DeviceIndex exchange_device(DeviceIndex index) {
  const DeviceIndex before = current;
  set_device(index);
  return before;
}

DeviceIndex index_of(c10::Device device) {
  TORCH_CHECK(device.type() == kVE, "expected a ve device, not ", device);
  const DeviceIndex index = device.has_index() ? device.index() : current;
  check_index(index);
  return index;
}

veo_proc_handle* process(DeviceIndex index) {
  check_index(index);
  TORCH_CHECK(
      !forked,
      "the ve device was in use when this process was forked and cannot be used in the child: "
      "start processes with the method 'spawn'");
  Card& card = *cards()[index];
  if (auto* handle = card.process.load())
    return handle;
  std::lock_guard<std::mutex> lock(card.creating);
  if (!card.process.load()) {
    auto* handle = driver().proc_create(card.node);
    TORCH_CHECK(
        handle,
        "no VE process could be started on node ",
        card.node,
        " for the device ve:",
        static_cast<int>(index),
        driver().refusal(),
        ", driver ",
        driver().path);
    card.process = handle;
  }
  return card.process.load();
}

bool has_process(DeviceIndex index) noexcept {
  return index >= 0 && index < device_count() && cards()[index]->process.load();
}

bool in_bad_fork() noexcept {
  return forked;
}

} // namespace ve
