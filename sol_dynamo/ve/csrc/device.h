// The cards: how many there are, which one this thread works on, and one VE process on each.
//
// A process is created when its card is first used. Neither it nor its memory survives fork(): a
// child that touches the device gets an error. This must not know streams or tensors.
#pragma once

#include "driver.h"

#include <c10/core/Device.h>

#include <vector>

namespace ve {

using c10::DeviceIndex;
constexpr c10::DeviceType kVE = c10::DeviceType::PrivateUse1;

// Cards `nodes[i]` become devices i. Called once, before all else.
void set_nodes(const std::vector<int>& nodes);

DeviceIndex device_count() noexcept;
DeviceIndex current_device() noexcept;
// `checked`: raises for an index that is not there.
void set_device(DeviceIndex index, bool checked = true);
DeviceIndex exchange_device(DeviceIndex index);

// The index of a device argument: its own, else the current one. Raises for one that is not there.
DeviceIndex index_of(c10::Device device);

// The VE process of a device, created at the first call. Raises in a forked child.
veo_proc_handle* process(DeviceIndex index);
bool has_process(DeviceIndex index) noexcept;

// Whether this process was forked from one that had used the device.
bool in_bad_fork() noexcept;

} // namespace ve
