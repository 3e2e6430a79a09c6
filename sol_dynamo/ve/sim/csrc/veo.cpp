// The C interface of veo.h on the simulator's processes and contexts.
//
// Statuses and null pointers instead of exceptions; everything else is in process.h (what happens),
// registry.h (handles, cards), veo_args.h (arguments) and veo_hmem.cpp.
#include "veo.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "cycle_rules.h"
#include "registry.h"
#include "veo_args.h"

namespace vesim {
namespace {

thread_local std::string last_fault;

// Runs in the main context, in its turn. The outcome's value, or Refused.
uint64_t in_turn(const std::shared_ptr<Process>& process, Context::Work work) {
  Outcome outcome = process->main->perform(std::move(work));
  if (outcome.status != VEO_COMMAND_OK) throw Refused{outcome.fault};
  return outcome.value;
}

Libraries::Call initializer(const Process& process) {
  return [main = process.main](uint64_t function) { main->initialize(function); };
}

veo_proc_handle* create(int venode, const char* program) {
  return guarded<veo_proc_handle*>(nullptr, [&] {
    const int node = node_of(venode);
    const CardModel& card = model();
    auto process = std::make_shared<Process>(card.arch, card, node);
    process->space->owner = process;
    if (program) {
      in_turn(process, [&] {
        process->space->libraries.load_as_program(program, initializer(*process));
        return Outcome{VEO_COMMAND_OK};
      });
    }
    Registry& all = registry();
    veo_proc_handle* handle = all.processes.add(process);
    std::lock_guard<std::mutex> lock(all.mutex);
    auto free = std::find(all.identifiers.begin(), all.identifiers.end(), nullptr);
    if (free == all.identifiers.end()) free = all.identifiers.insert(free, nullptr);
    *free = handle;
    return handle;
  });
}

// --- what requests do ----------------------------------------------------------------------------

Outcome allocate(Space& space, uint64_t bytes) {
  return {VEO_COMMAND_OK, space.memory.allocate(std::max<uint64_t>(bytes, 1))};
}

Outcome release(Space& space, uint64_t address) {
  if (address == 0) return {VEO_COMMAND_OK};  // as free() on the card
  if (space.memory.release(address)) return {VEO_COMMAND_OK};
  throw Refused{"no VE memory was allocated at " + hex(address)};
}

Outcome transfer(bool done, const char* what, uint64_t address, uint64_t bytes) {
  if (done) return {VEO_COMMAND_OK};
  throw Refused{std::string(what) + " of " + std::to_string(bytes) + " bytes at VE address " +
                hex(address) + ": not all of it is allocated"};
}

Outcome read_memory(Space& space, void* to, uint64_t from, uint64_t bytes) {
  return transfer(space.memory.read(to, from, bytes), "read", from, bytes);
}

Outcome write_memory(Space& space, uint64_t to, const void* from, uint64_t bytes) {
  return transfer(space.memory.write(to, from, bytes), "write", to, bytes);
}

uint64_t request(veo_thr_ctxt* ctx, Outcome (*what)(Space&, uint64_t), uint64_t operand) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID, [&] {
    const auto context = context_of(ctx);
    Space* const space = &context->space();  // outlives the context's requests
    return context->submit([=] { return what(*space, operand); });
  });
}

}  // namespace
}  // namespace vesim

struct veo_thr_ctxt_attr {
  size_t stack_bytes = vesim::Process::kStackBytes;
};

using namespace vesim;

namespace {

uint64_t submit_call(const std::shared_ptr<Context>& context, uint64_t function,
                     const veo_args* args) {
  if (!args) throw Refused{"the arguments are a null pointer; veo_args_alloc() gives empty ones"};
  if (!function) throw Refused{"the function's address is 0: was its symbol found?"};
  return context->submit(args->call(function, context->stack_bytes()));
}

int picked_up(veo_thr_ctxt* ctx, uint64_t request, uint64_t* result, bool wait) {
  return guarded(static_cast<int>(VEO_COMMAND_ERROR), [&] {
    Outcome outcome = context_of(ctx)->pick_up(request, wait);
    if (result && outcome.status != VEO_COMMAND_UNFINISHED) *result = outcome.value;
    if (!outcome.fault.empty()) last_error = outcome.fault;
    return outcome.status;
  });
}

// A report's row as the C interface gives it, with what follows from its numbers.
vesim_kernel kernel_row(const KernelReport& k) {
  vesim_kernel row{};
  strncpy(row.name, k.name.c_str(), sizeof row.name - 1);
  row.calls = k.calls;
  row.cycles = k.cycles;
  row.instructions = k.instructions;
  row.vector_instructions = k.vector_instructions;
  row.vector_elements = k.vector_elements;
  row.flop_f64 = k.flop_f64;
  row.flop_f32 = k.flop_f32;
  row.bytes_loaded = k.bytes_loaded;
  row.bytes_stored = k.bytes_stored;
  row.memory_bytes = k.memory_bytes;
  const auto ratio = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  const double cycles = static_cast<double>(k.cycles);
  const double operations = static_cast<double>(k.instructions - k.vector_instructions +
                                                k.vector_elements);
  row.seconds = k.seconds;
  row.vector_ratio = ratio(static_cast<double>(k.vector_elements), operations);
  row.average_length = ratio(static_cast<double>(k.vector_elements),
                             static_cast<double>(k.vector_instructions));
  row.peak_f64 = ratio(static_cast<double>(k.flop_f64), cycles * kPeakF64);
  row.peak_f32 = ratio(static_cast<double>(k.flop_f32), cycles * kPeakF32);
  row.fma_busy = ratio(k.fma_busy, cycles * kFmaPipes);
  row.memory_busy = ratio(k.memory_busy, cycles);
  return row;
}

}  // namespace

extern "C" {

// --- processes -----------------------------------------------------------------------------------

int veo_api_version(void) { return VEO_API_VERSION; }

const char* veo_version_string(void) { return "sol_dynamo VE simulator (AVEO API 16)"; }

int veo_get_ve_arch(int venode) {
  return guarded(0, [&] {
    node_of(venode);
    return model().arch == Arch::VE3 ? 3 : 1;
  });
}

veo_proc_handle* veo_proc_create(int venode) { return create(venode, nullptr); }

veo_proc_handle* veo_proc_create_static(int venode, char* veobin) { return create(venode, veobin); }

int veo_proc_destroy(veo_proc_handle* proc) {
  return guarded(-1, [&] {
    Registry& all = registry();
    const auto process = process_of(proc);
    const auto contexts = [&] {
      std::vector<std::shared_ptr<Context>> found = process->contexts();
      found.push_back(process->main);
      return found;
    };
    for (const auto& context : contexts()) {
      if (context->is_this_thread()) {
        throw Refused{"a host function cannot destroy the process that executes it"};
      }
    }
    all.processes.take(proc, "process");
    {
      std::lock_guard<std::mutex> lock(all.mutex);
      std::replace(all.identifiers.begin(), all.identifiers.end(), proc,
                   static_cast<veo_proc_handle*>(nullptr));
    }
    process->cancel();
    for (const auto& context : contexts()) all.contexts.remove(context.get());
    return 0;
  });
}

int veo_proc_identifier(veo_proc_handle* proc) {
  return guarded(-1, [&] {
    Registry& all = registry();
    process_of(proc);
    std::lock_guard<std::mutex> lock(all.mutex);
    const auto place = std::find(all.identifiers.begin(), all.identifiers.end(), proc);
    if (place == all.identifiers.end()) throw Refused{"the process is being destroyed"};
    return static_cast<int>(place - all.identifiers.begin());
  });
}

// --- libraries -----------------------------------------------------------------------------------

uint64_t veo_load_library(veo_proc_handle* proc, const char* path) {
  return guarded<uint64_t>(0, [&] {
    const auto process = process_of(proc);
    if (!path) throw Refused{"the library's path is a null pointer"};
    return in_turn(process, [&] {
      return Outcome{VEO_COMMAND_OK,
                     process->space->libraries.load(path, environment("VE_LD_LIBRARY_PATH"),
                                                    initializer(*process))};
    });
  });
}

int veo_unload_library(veo_proc_handle* proc, const uint64_t library) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    in_turn(process, [&] {
      process->space->libraries.unload(library);
      return Outcome{VEO_COMMAND_OK};
    });
    return 0;
  });
}

uint64_t veo_get_sym(veo_proc_handle* proc, uint64_t library, const char* name) {
  return guarded<uint64_t>(0, [&] {
    const auto process = process_of(proc);
    if (!name || strlen(name) > VEO_SYMNAME_LEN_MAX) {
      throw Refused{"a symbol's name has 1 to " + std::to_string(VEO_SYMNAME_LEN_MAX) + " bytes"};
    }
    const uint64_t address = process->space->libraries.symbol(library, name);
    if (!address) throw Refused{"no symbol '" + std::string(name) + "'"};
    return address;
  });
}

// --- memory --------------------------------------------------------------------------------------

int veo_alloc_mem(veo_proc_handle* proc, uint64_t* address, const size_t bytes) {
  return guarded(-2, [&] {
    const auto process = process_of(proc);
    if (!address) throw Refused{"there is no place for the address"};
    *address = in_turn(process, [&] { return allocate(*process->space, bytes); });
    if (*address) return 0;
    last_error = "no VE memory for " + std::to_string(bytes) + " bytes: " +
                 std::to_string(process->space->memory.used()) + " are in use";
    errno = ENOMEM;
    return -1;
  });
}

int veo_free_mem(veo_proc_handle* proc, uint64_t address) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    in_turn(process, [&] { return release(*process->space, address); });
    return 0;
  });
}

int veo_read_mem(veo_proc_handle* proc, void* to, uint64_t from, size_t bytes) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    in_turn(process, [&] { return read_memory(*process->space, to, from, bytes); });
    return 0;
  });
}

int veo_write_mem(veo_proc_handle* proc, uint64_t to, const void* from, size_t bytes) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    in_turn(process, [&] { return write_memory(*process->space, to, from, bytes); });
    return 0;
  });
}

// --- contexts ------------------------------------------------------------------------------------

int veo_num_contexts(veo_proc_handle* proc) {
  return guarded(-1, [&] { return static_cast<int>(process_of(proc)->contexts().size()); });
}

veo_thr_ctxt* veo_get_context(veo_proc_handle* proc, int index) {
  return guarded<veo_thr_ctxt*>(nullptr, [&] {
    const auto contexts = process_of(proc)->contexts();
    if (index < 0 || static_cast<size_t>(index) >= contexts.size()) {
      throw Refused{"context " + std::to_string(index) + " of " + std::to_string(contexts.size()) +
                    " open ones; the main context has to be opened first, too"};
    }
    return registry().contexts.add(contexts[index]);
  });
}

veo_thr_ctxt* veo_context_open(veo_proc_handle* proc) {
  return guarded<veo_thr_ctxt*>(nullptr, [&] {
    return registry().contexts.add(process_of(proc)->open(Process::kStackBytes));
  });
}

veo_thr_ctxt* veo_context_open_with_attr(veo_proc_handle* proc, veo_thr_ctxt_attr* attributes) {
  return guarded<veo_thr_ctxt*>(nullptr, [&] {
    if (!attributes) throw Refused{"the attributes are a null pointer"};
    return registry().contexts.add(process_of(proc)->open(attributes->stack_bytes));
  });
}

int veo_context_close(veo_thr_ctxt* ctx) {
  return guarded(-1, [&] {
    Registry& all = registry();
    const auto context = context_of(ctx);
    const std::shared_ptr<Process> owner = context->space().owner.lock();
    if (!owner) throw Refused{"the context's process is being destroyed"};
    if (context == owner->main) return 0;
    if (context->is_this_thread()) {
      throw Refused{"a host function cannot close the context that executes it"};
    }
    all.contexts.take(ctx, "context");
    owner->close(context);
    return 0;
  });
}

int veo_get_context_state(veo_thr_ctxt* ctx) {
  return guarded(static_cast<int>(VEO_STATE_EXIT), [&] {
    return static_cast<int>(context_of(ctx)->closed() ? VEO_STATE_EXIT : VEO_STATE_RUNNING);
  });
}

void veo_context_sync(veo_thr_ctxt* ctx) {
  guarded(0, [&] {
    context_of(ctx)->sync();
    return 0;
  });
}

veo_thr_ctxt_attr* veo_alloc_thr_ctxt_attr(void) {
  return guarded<veo_thr_ctxt_attr*>(nullptr, [] { return new veo_thr_ctxt_attr; });
}

int veo_free_thr_ctxt_attr(veo_thr_ctxt_attr* attributes) {
  return guarded(-1, [&] {
    if (!attributes) throw Refused{"the attributes are a null pointer"};
    delete attributes;
    return 0;
  });
}

int veo_set_thr_ctxt_stacksize(veo_thr_ctxt_attr* attributes, size_t bytes) {
  return guarded(-1, [&] {
    if (!attributes) throw Refused{"the attributes are a null pointer"};
    if (bytes < Process::kLeastStackBytes) {
      throw Refused{"a stack of " + std::to_string(bytes) + " bytes; the least is " +
                    std::to_string(Process::kLeastStackBytes)};
    }
    attributes->stack_bytes = bytes;
    return 0;
  });
}

int veo_get_thr_ctxt_stacksize(veo_thr_ctxt_attr* attributes, size_t* bytes) {
  return guarded(-1, [&] {
    if (!attributes || !bytes) throw Refused{"a null pointer"};
    *bytes = attributes->stack_bytes;
    return 0;
  });
}

// --- requests ------------------------------------------------------------------------------------

int veo_call_sync(veo_proc_handle* proc, uint64_t function, veo_args* args, uint64_t* result) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    const uint64_t request = submit_call(process->main, function, args);
    Outcome outcome = process->main->pick_up(request, true);
    if (outcome.status != VEO_COMMAND_OK) throw Refused{outcome.fault};
    if (result) *result = outcome.value;
    return 0;
  });
}

uint64_t veo_call_async(veo_thr_ctxt* ctx, uint64_t function, veo_args* args) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID,
                           [&] { return submit_call(context_of(ctx), function, args); });
}

uint64_t veo_call_async_by_name(veo_thr_ctxt* ctx, uint64_t library, const char* name,
                                veo_args* args) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID, [&] {
    const auto context = context_of(ctx);
    if (!name) throw Refused{"the function's name is a null pointer"};
    const uint64_t function = context->space().libraries.symbol(library, name);
    if (!function) throw Refused{"no symbol '" + std::string(name) + "'"};
    return submit_call(context, function, args);
  });
}

uint64_t veo_call_async_vh(veo_thr_ctxt* ctx, uint64_t (*function)(void*), void* argument) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID, [&] {
    if (!function) throw Refused{"the function is a null pointer"};
    return context_of(ctx)->submit_host(
        [=] { return Outcome{VEO_COMMAND_OK, function(argument)}; });
  });
}

int veo_call_peek_result(veo_thr_ctxt* ctx, uint64_t request, uint64_t* result) {
  return picked_up(ctx, request, result, false);
}

int veo_call_wait_result(veo_thr_ctxt* ctx, uint64_t request, uint64_t* result) {
  return picked_up(ctx, request, result, true);
}

uint64_t veo_async_read_mem(veo_thr_ctxt* ctx, void* to, uint64_t from, size_t bytes) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID, [&] {
    const auto context = context_of(ctx);
    Space* const space = &context->space();
    return context->submit([=] { return read_memory(*space, to, from, bytes); });
  });
}

uint64_t veo_async_write_mem(veo_thr_ctxt* ctx, uint64_t to, const void* from, size_t bytes) {
  return guarded<uint64_t>(VEO_REQUEST_ID_INVALID, [&] {
    const auto context = context_of(ctx);
    Space* const space = &context->space();
    return context->submit([=] { return write_memory(*space, to, from, bytes); });
  });
}

uint64_t veo_alloc_mem_async(veo_thr_ctxt* ctx, const size_t bytes) {
  return request(ctx, allocate, bytes);
}

uint64_t veo_free_mem_async(veo_thr_ctxt* ctx, uint64_t address) {
  return request(ctx, release, address);
}

void veo_req_block_begin(veo_thr_ctxt* ctx) {
  guarded(0, [&] {
    context_of(ctx)->block_begin();
    return 0;
  });
}

void veo_req_block_end(veo_thr_ctxt* ctx) {
  guarded(0, [&] {
    context_of(ctx)->block_end();
    return 0;
  });
}

// --- of the simulator only -----------------------------------------------------------------------

const char* vesim_last_fault(veo_thr_ctxt* ctx) {
  return guarded("", [&] {
    last_fault = context_of(ctx)->last_fault();
    return last_fault.c_str();
  });
}

const char* vesim_last_error(void) { return last_error.c_str(); }

int vesim_num_cards(void) { return guarded(-1, [] { return cards(); }); }

const char* vesim_model(void) {
  return guarded("", [] { return model().name; });
}

int64_t vesim_memory_used(veo_proc_handle* proc) {
  return guarded<int64_t>(
      -1, [&] { return static_cast<int64_t>(process_of(proc)->space->memory.used()); });
}

int vesim_patience(veo_proc_handle* proc, double seconds) {
  return guarded(-1, [&] {
    process_of(proc)->space->waits.patience(seconds);
    return 0;
  });
}

int vesim_cycles_enable(veo_proc_handle* proc, int on) {
  return guarded(-1, [&] {
    if (on < 0 || on > 2) throw Refused{"timing is 0, 1 or 2, not " + std::to_string(on)};
    process_of(proc)->space->timing = static_cast<Space::Timing>(on);
    return 0;
  });
}

int vesim_cycles_share(veo_proc_handle* proc, int cores) {
  return guarded(-1, [&] {
    const auto process = process_of(proc);
    const int most = static_cast<int>(process->space->card.cores);
    if (cores < 0 || cores > most) {
      throw Refused{std::to_string(cores) + " cores share a card that has " + std::to_string(most)};
    }
    process->space->sharing = static_cast<unsigned>(cores);
    return 0;
  });
}

int vesim_report(veo_thr_ctxt* ctx, struct vesim_kernel* rows, int capacity) {
  return guarded(-1, [&] {
    const auto context = context_of(ctx);
    const std::vector<KernelReport> kernels = context->report();
    for (int i = 0; rows && i < capacity && i < static_cast<int>(kernels.size()); ++i) {
      rows[i] = kernel_row(kernels[i]);
    }
    return static_cast<int>(kernels.size());
  });
}

const char* vesim_cycle_rule(unsigned opcode) { return cycle_rule(opcode); }

int vesim_report_clear(veo_thr_ctxt* ctx) {
  return guarded(-1, [&] {
    context_of(ctx)->forget_report();
    return 0;
  });
}

}  // extern "C"
