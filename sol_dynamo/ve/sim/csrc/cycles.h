// A model of the time that VE code takes on one core, as an Observer of the interpreter.
//
// It follows the order of instructions and their operands, not their results. Its figures are meant
// to be too slow rather than too fast: whatever is not published is assumed, with the assumption
// written next to the number (cycles.cpp). It is deterministic: nothing depends on the host's
// threads or clock, so cores that share memory get fixed shares of it. It never changes a result.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cycle_memory.h"
#include "machine.h"

namespace vesim {

// What differs between cards. Bandwidths are in GB/s (1e9 bytes).
struct CardModel {
  const char* name;
  Arch arch;
  unsigned cores;
  double ghz;
  double core_bandwidth;  // between a core and the last-level cache (LLC)
  double llc_bandwidth;   // of the LLC, all cores together
  double card_bandwidth;  // of memory, all cores together
  uint64_t llc_bytes;
};

constexpr unsigned kFmaPipes = 3;                    // published, as the two peaks:
constexpr double kPeakF64 = 192, kPeakF32 = 384;     // flop per cycle of a core

const CardModel* card_model(const std::string& name);  // nullptr: no such card
std::string card_model_names();                        // "VE10, VE20B, VE30"

// What all calls of one function took, or one call.
struct KernelReport {
  std::string name;
  uint64_t calls = 0;
  uint64_t cycles = 0;
  uint64_t instructions = 0;         // vector ones among them
  uint64_t vector_instructions = 0;
  uint64_t vector_elements = 0;      // sum of vector lengths
  uint64_t flop_f64 = 0, flop_f32 = 0;  // a fused multiply-add counts 2; masked elements count 0
  uint64_t bytes_loaded = 0, bytes_stored = 0;  // as the code asked for them
  uint64_t memory_bytes = 0;         // between LLC and memory, whole lines
  double fma_busy = 0;               // cycles of one of the three pipes: 3 * cycles is all
  double memory_busy = 0;            // cycles in which this core's share of memory was in use
  double seconds = 0;                // simulated
};

void add_to(std::vector<KernelReport>&, const KernelReport&);  // to the row of the same name

class CycleModel final : public Observer {
 public:
  CycleModel(const CardModel& card, Barriers& barriers);  // of all cores of a process
  ~CycleModel() override;

  // Around each call. `sharing`: cores among which the card's bandwidths and LLC are divided
  // evenly. `warm`: caches hold what the call before left there, else nothing (slower, and
  // independent of what ran before). `next`: another observer that also wants to see the
  // instructions, or nullptr.
  void begin(unsigned sharing, bool warm, Observer* next);
  KernelReport end(const std::string& name);

  void issued(const Instruction&, const Core&) override;
  void host_function(const char* name, const Core&) override;

 private:
  struct Caches;
  struct State;
  const CardModel& card_;
  Barriers& barriers_;
  Observer* next_ = nullptr;
  std::unique_ptr<Caches> caches_;
  std::unique_ptr<State> state_;
};

}  // namespace vesim
