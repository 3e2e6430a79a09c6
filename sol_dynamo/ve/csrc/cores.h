// Calls on which several cores of a card work together.
//
// A program's call is one request on each core's context: the stream's own, and a worker context for
// each further core. Cores meet at barriers in memory, the first one at the call's begin, so that
// workers start when the stream's turn has come, and the last one at its end, so that the stream's
// request is done when all are. Requests of one call go to all contexts in one piece, so that calls
// of several streams come to the workers in an order in which they can be done. This must not know
// tensors.
#pragma once

#include "stream.h"

#include <string>
#include <vector>

namespace ve {

// Where a call's words tell a core what it is, from kCore on: its number and the number of cores
// (in the second byte), the barrier's line, and the number of the first barrier of this call.
constexpr size_t kCore = 5;

// Calls a function on a stream and `cores - 1` workers, or fewer where the card has no more contexts.
// `meetings`: how many barriers it has.
void call_on_cores(
    Queue& queue,
    uint64_t function,
    std::vector<uint64_t> words,
    const std::string& name,
    unsigned cores,
    uint64_t meetings);

} // namespace ve
