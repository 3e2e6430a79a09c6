// What torch asks of a device: the guard (devices, streams, events) and the hooks.
#pragma once

namespace ve {

// Puts allocator, host allocator, guard and hooks into torch's tables. Called once, after
// set_nodes: torch reads the number of devices when it first sees them.
void register_with_torch();

} // namespace ve
