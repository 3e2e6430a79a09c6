// Page-locked host memory, for copies that run beside the host.
//
// AVEO does not ask for registration of host memory; what "pinned" buys is that a copy to or from
// it may be asynchronous. Blocks are kept for reuse, and a copy in flight keeps its block alive.
#pragma once

#include <c10/core/Allocator.h>

namespace ve {

c10::Allocator& host_allocator();
bool is_pinned(const void* address);
void register_host_allocator();

} // namespace ve
