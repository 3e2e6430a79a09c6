// The caching allocator of VE memory, with statistics in torch's terms.
//
// Memory comes from the driver in segments, is cut into blocks and merged again, and belongs to
// the stream that was current when it was asked for: on the same stream it can be used again at
// once, since a stream executes in order. Used on another one (record_stream), it comes back when
// that one has got there. Addresses are the VE's: the host must never dereference them.
#pragma once

#include "stream.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <utility>

namespace ve {

c10::DeviceAllocator& allocator();

// Memory on a device of one's choice; zero bytes give a null pointer that knows its device.
c10::DataPtr allocate_on(DeviceIndex device, size_t bytes);

// Registers the allocator with torch. Called once.
void register_allocator();

// How much a device may reserve in this process, and how much there is; in bytes.
void set_memory_limit(DeviceIndex device, size_t bytes);
void set_total_memory(size_t bytes);
// (what may still be reserved, all there is)
std::pair<size_t, size_t> memory_info(DeviceIndex device);

// The device whose memory holds an address, or -1. Processes may give equal addresses to
// different devices: the first one that fits is named.
DeviceIndex device_holding(const void* address);

} // namespace ve
