// The cycle model: its parameters, its table of instructions, and how time is counted.
//
// A core is a scalar unit that issues one instruction per cycle in order and stalls where an
// operand is missing, and a vector unit with a window of instructions that wait for their operands,
// then for a pipe. Each pipe serves its instructions in program order. A vector register can be
// read once all of it is written: there is no chaining. Times are in cycles from the begin of a
// call.
#include "cycles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cycle_parameters.h"
#include "cycle_rules.h"

namespace vesim {

const CardModel* card_model(const std::string& name) {
  for (const CardModel& card : kCards) {
    if (name == card.name) return &card;
  }
  return nullptr;
}

std::string card_model_names() {
  std::string names;
  for (const CardModel& card : kCards) {
    names += (names.empty() ? "" : ", ") + std::string(card.name);
  }
  return names;
}

void add_to(std::vector<KernelReport>& rows, const KernelReport& one) {
  const auto same = [&](const KernelReport& row) { return row.name == one.name; };
  const auto found = std::find_if(rows.begin(), rows.end(), same);
  if (found == rows.end()) {
    rows.push_back(one);
    return;
  }
  KernelReport& row = *found;
  row.calls += one.calls;
  row.cycles += one.cycles;
  row.instructions += one.instructions;
  row.vector_instructions += one.vector_instructions;
  row.vector_elements += one.vector_elements;
  row.flop_f64 += one.flop_f64;
  row.flop_f32 += one.flop_f32;
  row.bytes_loaded += one.bytes_loaded;
  row.bytes_stored += one.bytes_stored;
  row.memory_bytes += one.memory_bytes;
  row.fma_busy += one.fma_busy;
  row.memory_busy += one.memory_busy;
  row.seconds += one.seconds;
}

// --- the state of a call -------------------------------------------------------------------------

namespace {

// The times of the last n events of a kind: the oldest has to be over before another one begins.
template <unsigned n>
class Ring {
 public:
  double oldest() const { return times_[next_]; }
  void push(double time) {
    times_[next_] = time;
    next_ = (next_ + 1) % n;
  }

 private:
  std::array<double, n> times_{};
  unsigned next_ = 0;
};

}  // namespace

struct CycleModel::Caches {
  Caches(const CardModel& card, unsigned sharing)
      : sharing(sharing), llc(card.llc_bytes / sharing, kLlcWays) {}
  const unsigned sharing;
  LineCache llc, l1{kL1Bytes, kL1Ways}, l2{kL2Bytes, kL2Ways}, code{kL1Bytes, kL1Ways};
};

namespace {

// What scalar instructions change.
struct ScalarState {
  double scalar[64] = {};   // when a register can be read
  double now = 0;           // the scalar unit's next issue
  double finished = 0;      // the latest end of anything
  Ring<kScalarMisses> misses;
  KernelReport report;
};

}  // namespace

struct CycleModel::State : ScalarState {
  State(const CardModel& card, unsigned sharing, Caches& caches, Barriers& barriers)
      : port(std::min(card.core_bandwidth, card.llc_bandwidth / sharing) / card.ghz),
        channel(kSustained * std::min(card.core_bandwidth, card.card_bandwidth / sharing) /
                card.ghz),
        llc(caches.llc),
        l1(caches.l1),
        l2(caches.l2),
        code(caches.code),
        barriers(barriers) {}

  // Bytes per cycle: to the LLC, and this core's share of memory.
  const double port, channel;

  LineCache &llc, &l1, &l2, &code;
  Barriers& barriers;
  double vector[64] = {}, mask[16] = {};  // when a register can be read
  double fma[kFmaPipes] = {}, alu[kAluPipes] = {}, complex = 0, load = 0, store = 0;  // free from
  double channel_free = 0;
  double loads_from = 0;     // vector loads wait for stores that they may not overtake
  double stores_done = 0;
  Ring<kWindow> window;
  Ring<kLoadsUnderWay> loads;
  uint64_t code_line = ~uint64_t{0};
  // The branch before this instruction, whose target is only known now.
  Unit branch = Unit::None;
  uint64_t branch_ic = 0;
  bool foreseen_taken = false;

  // A core that waits at a barrier executes the same load again and again, as often as the host's
  // threads make it: that takes no time here, so what it changed is put back.
  struct Spin {
    uint64_t ic = 0, address = 0;
    bool quiet = false;       // only scalar instructions since
    ScalarState before;
  } spin;
  uint64_t arrived = ~uint64_t{0};  // line of the barrier at which this core is
  // When it goes on, if it is released: from its first instruction that has nothing to do with the
  // barrier. So it does not matter either which way through the barrier's code it took.
  double leaves = 0;
  // The load or cas whose result is only known at the next instruction; the load's address, or what
  // the cas compares with.
  bool awaits = false;
  Instruction awaited;  // a copy: the core may drop its decoded code
  uint64_t awaited_address = 0;

  double memory(double from, uint64_t bytes);
  double fetch(uint64_t line, double from, bool keep = true);
  void write_line(uint64_t line, double from, bool whole, bool keep);
  double scalar_access(uint64_t address, double from);
  void settle_branch(uint64_t ic);
  void fetch_code(uint64_t ic);
  double dispatch(double ready);
  void end_at(double time) { finished = std::max(finished, time); }

  void vector_arithmetic(const Rule&, const Instruction&, const Core&, double ready);
  void vector_memory(const Rule&, const Instruction&, const Core&, double ready);
  void scalar_memory(const Rule&, const Instruction&, const Core&);
  void spin_at(uint64_t ic, uint64_t address);
  void await(const Instruction& i, uint64_t address) {
    awaits = true;
    awaited = i;
    awaited_address = address;
  }
  void settle_load(const Core&);
  void leave() {
    now = std::max(now, leaves);
    leaves = 0;
  }
  void issue(const Instruction&, const Core&);
  void count_flop(const Rule&, const Instruction&, uint64_t elements);
};

// Transfers bytes over this core's share of the memory channel; when the last one is there.
double CycleModel::State::memory(double from, uint64_t bytes) {
  const double begin = std::max(from, channel_free);
  channel_free = begin + bytes / channel;
  report.memory_bytes += bytes;
  report.memory_busy += channel_free - begin;
  end_at(channel_free);
  return channel_free;
}

// When a line's data leaves the LLC; `keep` false: a line that is not there is not put there.
double CycleModel::State::fetch(uint64_t line, double from, bool keep) {
  if (LineCache::Line* found = llc.find(line)) {
    return std::max(from + kLlcLatency, found->ready);
  }
  const double ready = memory(from, kLineBytes) + kMemoryLatency;
  if (keep) {
    bool written = false;
    llc.replace(line, &written)->ready = ready;
    if (written) memory(from, kLineBytes);
  }
  return ready;
}

// A store to a line: a part of one that is not there has to be completed from memory.
void CycleModel::State::write_line(uint64_t line, double from, bool whole, bool keep) {
  LineCache::Line* found = llc.find(line);
  l1.forget(line);
  l2.forget(line);
  if (!found && !keep) {
    memory(from, kLineBytes);
    return;
  }
  double ready = from + kLlcLatency;
  if (!found) {
    bool written = false;
    found = llc.replace(line, &written);
    if (written) memory(from, kLineBytes);
    if (!whole) ready = memory(from, kLineBytes) + kMemoryLatency;
  }
  found->ready = std::max(found->ready, ready);
  found->dirty = true;
  end_at(ready);
}

// When a scalar load's data is there.
double CycleModel::State::scalar_access(uint64_t address, double from) {
  const uint64_t line = address / kLineBytes;
  if (const LineCache::Line* hit = l1.find(line)) return std::max(from + kL1Latency, hit->ready);
  double ready;
  if (const LineCache::Line* hit = l2.find(line)) {
    ready = std::max(from + kL2Latency, hit->ready);
  } else {
    from = std::max(from, misses.oldest());
    ready = fetch(line, from) + kL2Latency;
    misses.push(ready);
    bool ignored = false;
    l2.replace(line, &ignored)->ready = ready;
  }
  bool ignored = false;
  l1.replace(line, &ignored)->ready = ready;
  return ready;
}

void CycleModel::State::settle_branch(uint64_t ic) {
  const bool taken = ic != branch_ic + 8;
  if (branch == Unit::Jump && taken) {
    now += kMispredicted;
  } else if (taken != foreseen_taken) {
    now += kMispredicted;
  } else if (taken) {
    now += kTakenBranch;
  }
  branch = Unit::None;
}

void CycleModel::State::fetch_code(uint64_t ic) {
  const uint64_t line = ic / kLineBytes;
  if (line == code_line) return;
  code_line = line;
  if (code.find(line)) return;
  bool ignored = false;
  code.replace(line, &ignored);
  if (const LineCache::Line* hit = l2.find(line)) {
    now = std::max(now + kL2Latency, hit->ready);  // a prefetched line may be on its way still
  } else {
    l2.replace(line, &ignored)->ready = now = fetch(line, now) + kL2Latency;
  }
}

// An access to a barrier's line. The same one again, with only scalar instructions in between, is a
// wait: the first one counted.
void CycleModel::State::spin_at(uint64_t ic, uint64_t address) {
  ScalarState& here = *this;
  if (spin.quiet && spin.ic == ic && spin.address == address) {
    here = spin.before;
    return;
  }
  spin.ic = ic;
  spin.address = address;
  spin.quiet = true;
  spin.before = here;
}

// The value that a core at a barrier has just loaded says whether it was released; that of a cas,
// whether it found what it compared with, so that doing it again is no repetition.
void CycleModel::State::settle_load(const Core& core) {
  awaits = false;
  const uint64_t value = core.s[awaited.sx & 63];
  const unsigned opcode = awaited.word >> 56;
  if (opcode == 0x62) {
    const unsigned shift = awaited.flags & 8 ? 32 : 0;  // cas.w compares 32 bits
    if (value << shift == awaited_address << shift) spin.quiet = false;
    return;
  }
  const uint64_t bits = opcode == 0x01   ? value
                        : opcode == 0x02 ? value >> 32
                        : opcode == 0x03 ? value & 0xffffffff
                                         : value;
  if (const double time = barriers.released(awaited_address, bits)) leaves = time + kBarrier;
}

// A vector instruction enters the window; the scalar unit waits where it is full.
double CycleModel::State::dispatch(double ready) {
  now = std::max(now, window.oldest());
  return std::max(ready, now + kToVector);
}

void CycleModel::State::count_flop(const Rule& rule, const Instruction& i, uint64_t elements) {
  const unsigned kind = i.flags >> 2;
  switch (rule.flop) {
    case Flop::None: break;
    case Flop::Packed:
      (kind ? report.flop_f32 : report.flop_f64) += elements * rule.flops;
      break;
    case Flop::Single:
      (kind & 2 ? report.flop_f32 : report.flop_f64) += elements * rule.flops;
      break;
  }
}

namespace {

unsigned vector_register(uint8_t field, const Core& core) {
  return (field == 255 ? core.vix : field) & 63;
}

// How many elements a mask register lets through; 0 is no mask.
uint64_t active_elements(unsigned m, const Core& core) {
  const unsigned vl = static_cast<unsigned>(std::min<uint64_t>(core.vl, 256));
  if (m == 0) return vl;
  uint64_t active = 0;
  for (unsigned e = 0; e < vl; e += 64) {
    const unsigned here = std::min(vl - e, 64u);
    const uint64_t among = here == 64 ? ~uint64_t{0} : ~(~uint64_t{0} >> here);
    active += static_cast<unsigned>(__builtin_popcountll(core.vm[m & 15][e / 64] & among));
  }
  return active;
}

double& earliest(double* pipes, unsigned count) { return *std::min_element(pipes, pipes + count); }

}  // namespace

void CycleModel::State::vector_arithmetic(const Rule& rule, const Instruction& i, const Core& core,
                                          double ready) {
  const double vl = std::max<double>(std::min<uint64_t>(core.vl, 256), 1);
  const double turns = rule.uses & Serial ? vl : std::ceil(vl / kLanes);
  const double busy = turns * rule.cycles;
  double* pipe = &complex;
  double latency = kComplexLatency;
  if (rule.unit == Unit::Fma) {
    pipe = &earliest(fma, kFmaPipes);
    latency = kFmaLatency;
    report.fma_busy += busy;
  } else if (rule.unit != Unit::Complex) {
    pipe = &earliest(alu, kAluPipes);
    latency = rule.unit == Unit::Mask ? kMaskLatency : kAluLatency;
  }
  const double start = std::max(dispatch(ready), *pipe);
  window.push(start);
  *pipe = start + busy;
  const double done = start + busy + latency;
  if (rule.uses & WriteV) vector[vector_register(i.vx, core)] = done;
  if (rule.uses & WriteM) {
    double& written = mask[i.vx & 15];
    written = std::max(written, done);  // lvm writes a quarter of it
  }
  if (rule.unit == Unit::ToScalar) scalar[i.sx & 63] = done + kToScalar;
  end_at(done);
  // Both halves of packed elements have a mask of their own: an even register and the next one.
  const bool packed = rule.flop == Flop::Packed && i.flags >= 12;
  const uint64_t upper = active_elements(i.m, core);
  count_flop(rule, i, packed && i.m ? upper + active_elements(i.m | 1, core)
                      : packed      ? 2 * upper
                                    : upper);
}

// Vector loads and stores: by lines of the LLC, one after the other; neighbouring elements in one
// line are one access.
void CycleModel::State::vector_memory(const Rule& rule, const Instruction& i, const Core& core,
                                      double ready) {
  const bool stores = rule.unit == Unit::Store || rule.unit == Unit::Scatter ||
                      rule.unit == Unit::Store2d;
  const bool indexed = rule.unit == Unit::Gather || rule.unit == Unit::Scatter;
  const bool keep = i.flags & 4;           // else .nc
  const bool may_be_overtaken = i.flags & 8;  // .ot, of stores
  const unsigned vl = static_cast<unsigned>(std::min<uint64_t>(core.vl, 256));
  const uint64_t y = i.cy ? core.s[i.sy & 63] : i.y;
  const uint64_t z = i.cz ? core.s[i.sz & 63] : i.z;

  double start = std::max(dispatch(ready), stores ? store : load);
  if (!stores) start = std::max({start, loads.oldest(), loads_from});
  window.push(start);

  double port_busy = 0;  // by the lines so far
  double data = start;   // when the last element is there
  uint64_t line = ~uint64_t{0}, bank = kBanks;
  uint32_t covered = 0;  // which fours of a line's bytes
  // The line that is being collected is complete: access it.
  const auto access = [&] {
    if (line == ~uint64_t{0}) return;
    port_busy += line % kBanks == bank ? kBankBusy : kLineBytes / port;
    bank = line % kBanks;
    const double from = start + port_busy;
    if (stores) {
      write_line(line, from, covered == ~uint32_t{0}, keep);
    } else {
      data = std::max(data, fetch(line, from, keep));
    }
  };
  const auto element = [&](uint64_t address) {
    for (uint64_t l = address / kLineBytes; l <= (address + rule.bytes - 1) / kLineBytes; ++l) {
      if (l != line) {
        access();
        line = l;
        covered = 0;
      }
    }
    covered |= (rule.bytes == 8 ? 3u : 1u) << address % kLineBytes / 4;
  };
  const uint64_t* const elements = core.v[vector_register(i.vy, core)];
  for (unsigned e = 0; e < vl; ++e) {
    if (i.m != 0 && !(core.vm[i.m & 15][e / 64] >> (63 - e % 64) & 1)) continue;
    if (indexed) {
      element(i.cs ? core.s[i.sw & 63] : elements[e]);
    } else if (rule.unit == Unit::Load || rule.unit == Unit::Store) {
      element(z + e * y);
    } else {  // rows of 16 elements: y is the distance of rows, and below that of elements
      const int64_t row = static_cast<int64_t>(y) >> 16, column = static_cast<int16_t>(y);
      element(z + row * (e / 16) + column * (e % 16));
    }
  }
  access();

  const double busy = std::max(std::ceil(vl / double{kLanes}), port_busy);
  if (stores) {
    store = start + busy;
    stores_done = std::max(stores_done, store + kLlcLatency);
    if (!may_be_overtaken) loads_from = std::max(loads_from, store);
    report.bytes_stored += active_elements(i.m, core) * rule.bytes;
    end_at(stores_done);
  } else {
    load = start + busy;
    const double done = std::max(data, load) + (port_busy > 0 ? 0 : kLlcLatency);
    loads.push(done);
    if (rule.uses & WriteV) {  // else a prefetch
      vector[vector_register(i.vx, core)] = done;
      report.bytes_loaded += active_elements(i.m, core) * rule.bytes;
    }
    end_at(done);
  }
}

void CycleModel::State::scalar_memory(const Rule& rule, const Instruction& i, const Core& core) {
  const uint64_t y = i.cy ? core.s[i.sy & 63] : i.y;
  const uint64_t z = i.cz ? core.s[i.sz & 63] : 0;
  const bool two = rule.unit != Unit::Atomic && (i.word >> 56) != 0x21 && (i.word >> 56) != 0x31;
  const uint64_t address = z + (two ? y : 0) + static_cast<uint64_t>(i.imm);
  const uint64_t line = address / kLineBytes;
  const bool barrier = rule.unit == Unit::Atomic || barriers.known(line);
  if (line != arrived) leave();
  const bool compares = (i.word >> 56) == 0x62;  // cas, which is repeated until it succeeds
  if (barrier && (rule.unit == Unit::ScalarLoad || compares)) spin_at(core.ic, address);
  switch (rule.unit) {
    case Unit::ScalarStore: {
      if (!barrier) {
        spin.quiet = false;
        write_line(line, now, false, true);
      } else if (line == arrived) {
        const uint64_t value = core.s[i.sx & 63];
        const uint64_t bits = rule.bytes == 8 ? value : (i.word >> 56) == 0x12 ? value >> 32
                              : value & ((uint64_t{1} << 8 * rule.bytes) - 1);
        leaves = barriers.release(address, bits) + kBarrier;
      }
      stores_done = std::max(stores_done, now + kLlcLatency);
      report.bytes_stored += rule.bytes;
      break;
    }
    case Unit::Atomic: {  // done where all cores see it, with nothing under way
      now = std::max(now, finished);
      barriers.arrive(line, now);
      arrived = line;
      if (compares) {
        await(i, y);
      } else {
        spin.quiet = false;
      }
      scalar[i.sx & 63] = now + kShared;
      end_at(scalar[i.sx & 63]);
      break;
    }
    default: {
      if (line == arrived) {
        await(i, address);
      }
      const double done = barrier ? now + kShared : scalar_access(address, now);
      if (rule.uses & WriteS) {
        scalar[i.sx & 63] = done;
        report.bytes_loaded += rule.bytes;
      }
      end_at(done);
    }
  }
}

void CycleModel::State::issue(const Instruction& i, const Core& core) {
  const Rule& rule = rule_of(i.word >> 56);
  if (awaits) settle_load(core);
  if (branch != Unit::None) settle_branch(core.ic);
  fetch_code(core.ic);
  if (rule.unit >= Unit::Fma || rule.unit == Unit::Jump) leave();
  ++report.instructions;

  // The scalar unit stalls until its operands are there.
  double operands = now;
  const auto wait = [&operands](double time) { operands = std::max(operands, time); };
  if ((rule.uses & ReadS)) wait(scalar[i.sx & 63]);
  if ((rule.uses & ReadY) && i.cy) wait(scalar[i.sy & 63]);
  if ((rule.uses & ReadZ) && i.cz) wait(scalar[i.sz & 63]);
  if ((rule.unit == Unit::Gather || rule.unit == Unit::Scatter) && i.cs) wait(scalar[i.sw & 63]);
  now = operands;

  if (rule.unit < Unit::Fma) {
    switch (rule.unit) {
      case Unit::ScalarLoad:
      case Unit::ScalarStore:
      case Unit::Prefetch:
      case Unit::Atomic: scalar_memory(rule, i, core); break;
      case Unit::Branch:
      case Unit::Jump:
        branch = rule.unit;
        branch_ic = core.ic;
        // Bits 53-52: 2 is "not taken", 3 is "taken", 0 leaves it to the machine.
        foreseen_taken = (i.flags & 2) ? (i.flags & 1) : i.imm < 0;
        break;
      case Unit::Fence:
        now = std::max(now, finished);
        break;
      case Unit::StoreFence: loads_from = std::max(loads_from, stores_done); break;
      default: break;
    }
    if ((rule.uses & WriteS) && rule.unit != Unit::ScalarLoad && rule.unit != Unit::Atomic) {
      scalar[i.sx & 63] = now + (rule.unit == Unit::Divide     ? kScalarDivide
                                 : rule.unit == Unit::Multiply ? kScalarFloat
                                                               : kScalarLatency);
      end_at(scalar[i.sx & 63]);
    }
    count_flop(rule, i, 1);
  } else {
    spin.quiet = false;
    ++report.vector_instructions;
    report.vector_elements += std::min<uint64_t>(core.vl, 256);
    // The window waits for vector operands. Elements that stay as they are (masked, or beyond the
    // vector length) make the old content of the result an operand.
    double ready = 0;
    const auto read = [&](double time) { ready = std::max(ready, time); };
    const bool masked = i.m != 0 && !(rule.uses & Selects);
    const bool merges = (rule.uses & WriteV) && (masked || core.vl < 256);
    if ((rule.uses & ReadVx) || merges) read(vector[vector_register(i.vx, core)]);
    if ((rule.uses & ReadVy) && !(i.flags & 2)) read(vector[vector_register(i.vy, core)]);
    if (rule.uses & ReadVz) read(vector[vector_register(i.vz, core)]);
    if ((rule.uses & ReadVzOrY) && !(i.flags & 1)) read(vector[vector_register(i.vz, core)]);
    if (rule.uses & ReadVw) read(vector[vector_register(i.vw, core)]);
    if (rule.uses & ReadOne) read(vector[vector_register(std::max(i.vy, i.vz), core)]);
    if (rule.uses & ReadMasks) {
      for (const unsigned m : {i.vx, i.vy, i.vz}) read(mask[m & 15]);
    }
    if (i.m != 0 && rule.unit != Unit::ToScalar) {  // there, the bits belong to sx
      read(mask[i.m & 15]);
      read(mask[(i.m | 1) & 15]);
    }
    if (rule.unit >= Unit::Load) {
      vector_memory(rule, i, core, ready);
    } else {
      vector_arithmetic(rule, i, core, ready);
    }
  }
  now += 1;
  end_at(now);
}

// --- the observer --------------------------------------------------------------------------------

CycleModel::CycleModel(const CardModel& card, Barriers& barriers)
    : card_(card), barriers_(barriers) {}
CycleModel::~CycleModel() = default;

void CycleModel::begin(unsigned sharing, bool warm, Observer* next) {
  next_ = next;
  sharing = std::min(std::max(sharing, 1u), card_.cores);
  if (!warm || !caches_ || caches_->sharing != sharing) {
    caches_ = std::make_unique<Caches>(card_, sharing);
  } else {
    for (LineCache* cache : {&caches_->llc, &caches_->l1, &caches_->l2, &caches_->code}) {
      cache->settle();
    }
  }
  state_ = std::make_unique<State>(card_, sharing, *caches_, barriers_);
}

KernelReport CycleModel::end(const std::string& name) {
  KernelReport report = std::move(state_->report);
  report.name = name;
  report.calls = 1;
  report.cycles = static_cast<uint64_t>(std::ceil(state_->finished));
  report.seconds = report.cycles / (card_.ghz * 1e9);
  return report;
}

void CycleModel::issued(const Instruction& instruction, const Core& core) {
  state_->issue(instruction, core);
  if (next_) next_->issued(instruction, core);
}

// The simulator's own function stands for scalar code: everything before it is over, then it takes
// its time. Those that move memory are charged for it by the third argument, a number of bytes.
void CycleModel::host_function(const char* name, const Core& core) {
  State& state = *state_;
  state.now = std::max(state.now, state.finished) + kHostFunction;
  if (std::strncmp(name, "mem", 3) == 0) {
    state.now += static_cast<double>(core.s[2]) / kHostBytesPerCycle;
    state.report.bytes_loaded += core.s[2];
    state.report.bytes_stored += core.s[2];
  }
  for (double& time : state.scalar) time = std::max(time, state.now);
  state.end_at(state.now);
  if (next_) next_->host_function(name, core);
}

}  // namespace vesim
