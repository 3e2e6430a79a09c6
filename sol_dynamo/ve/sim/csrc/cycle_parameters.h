// The parameters of the cycle model, each with where it comes from.
//
// Published numbers are NEC's. What is not published is assumed, on the slow side; a number changes
// only with a source. Cycles, bytes and counts; bandwidths of the cards are in GB/s (1e9 bytes).
#pragma once

#include <array>
#include <cstdint>

#include "cycles.h"

namespace vesim {

constexpr uint64_t MiB = uint64_t{1} << 20;

// Clock, cores, memory bandwidth and LLC size are NEC's published numbers (VE10: type 10B, the
// slower of the two). 400 GB/s per core and 3 TB/s of the LLC are published for VE10; VE20B has the
// same cores. VE30's LLC bandwidth is not published in a form that could be cited: VE20B's is
// assumed, and its private L3 caches are left out, both pessimistic.
constexpr std::array<CardModel, 3> kCards{{
    {"VE10", Arch::VE1, 8, 1.4, 400, 3000, 1220, 16 * MiB},
    {"VE20B", Arch::VE1, 8, 1.6, 400, 3000, 1530, 16 * MiB},
    {"VE30", Arch::VE3, 16, 1.6, 400, 3000, 2450, 64 * MiB},
}};

// Of memory's published bandwidth, what streams get. An assumption: refresh and turns between
// reading and writing cost other machines with such memory about that much.
constexpr double kSustained = 0.8;

// Published: 32 lanes of 64 bit in each pipe, so that 256 elements take 8 cycles.
constexpr unsigned kLanes = 32;
// Published: beside three pipes of fused multiply-add (kFmaPipes), two of integers and logic, and
// one for division, square root, sums and other complex operations. Loads and stores: one pipe each
// is an assumption.
constexpr unsigned kAluPipes = 2;
// Published: vector instructions are renamed onto 256 registers and executed out of order. How many
// can wait is not published. 32 is assumed, and that a pipe does not change the order of its own.
constexpr unsigned kWindow = 32;
// Published: 256 physical registers, 64 architectural ones. 192 loads might be under way; a third
// of that is assumed.
constexpr unsigned kLoadsUnderWay = 64;

// Latencies are not published; all of these are assumptions, meant to be longer than the machine's.
// Cycles from the last element's entry into a pipe until its result can be read:
constexpr double kFmaLatency = 16, kAluLatency = 16, kMaskLatency = 16, kComplexLatency = 64;
// From a vector or mask register to a scalar one, and from issue until the vector unit has it:
constexpr double kToScalar = 32, kToVector = 8;
// From the last line's request to its data, in the LLC and (beyond the LLC) in memory:
constexpr double kLlcLatency = 200, kMemoryLatency = 400;
// Scalar results. Published: 32 KB of L1 and 256 KB of L2 cache; latencies, ways and lines of 128
// bytes as in the LLC are assumed.
constexpr double kScalarLatency = 2, kScalarFloat = 8, kScalarDivide = 48;
constexpr double kL1Latency = 6, kL2Latency = 24;
constexpr uint64_t kL1Bytes = 32 << 10, kL2Bytes = 256 << 10;
constexpr unsigned kL1Ways = 4, kL2Ways = 8, kLlcWays = 16;
constexpr unsigned kScalarMisses = 8;  // under way at a time
// Published: 128-byte lines.
constexpr uint64_t kLineBytes = 128;
// The published bandwidth of the LLC is 15 lines per cycle. That there are 16 banks, that lines go
// to them in turn, and that one bank serves the same core every fourth cycle, is assumed: strides
// of 2 KB are slow, as on the vector machines before.
constexpr uint64_t kBanks = 16;
constexpr double kBankBusy = 4;
// A branch that goes where its hint says, or backward without a hint, is foreseen; the machine has
// a real predictor. An indirect one (a return) never is.
constexpr double kTakenBranch = 3, kMispredicted = 20;
// Of a word that cores share (a line on which there was an atomic instruction): there and back.
constexpr double kShared = 2 * kLlcLatency;
// From the last core's arrival at a barrier until all go on: several trips to the LLC one after the
// other. It is longer than either way through a barrier, so that it does not matter who came last.
constexpr double kBarrier = 2000;
// Functions that the simulator provides instead of VE code (memcpy, expf): as scalar code would.
constexpr double kHostFunction = 200, kHostBytesPerCycle = 4;

}  // namespace vesim
