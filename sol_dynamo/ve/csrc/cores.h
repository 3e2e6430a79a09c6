// Calls on which several cores of a card work together.
//
// A program's call is one request on each core's context: the stream's own and those of other
// streams, since a card has a context for each core and no more. Cores meet at barriers in memory,
// the first one at the call's begin, so that helpers start when the stream's turn has come, and the
// last one at its end, so that the stream's request is done when all are. Requests of one call go to
// all contexts in one piece (`crossing`), so that no queue waits for what comes behind it. This must
// not know tensors.
#pragma once

#include "stream.h"

#include <string>
#include <vector>

namespace ve {

// Where a call's words tell a core what it is, from kCore on: its number and the number of cores
// (in the second byte; what is above is the caller's), the barrier's line, and the number of the first barrier of this call.
constexpr size_t kCore = 5;

// Calls a function on a stream and `cores - 1` others, or fewer where the card has no more contexts.
// `meetings`: how many barriers it has.
void call_on_cores(
    Queue& queue,
    uint64_t function,
    std::vector<uint64_t> words,
    const std::string& name,
    unsigned cores,
    uint64_t meetings);

// Waits until no core of a card works on a call, not even on its way back from one that is done
// for its stream. Raises what went wrong there.
void settle(DeviceIndex device);

} // namespace ve
