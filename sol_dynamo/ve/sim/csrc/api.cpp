// The simulator as C functions (vesim.h), for C and for Python's ctypes (../__init__.py).
//
// Nothing here throws: errors become texts. Those of NEC's driver are in veo.cpp.
#include "vesim.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "decode.h"
#include "machine.h"

using namespace vesim;

namespace {

void copy_text(const std::string& text, char* to, uint64_t size) {
  if (to == nullptr || size == 0) return;
  const uint64_t n = std::min<uint64_t>(text.size(), size - 1);
  std::memcpy(to, text.data(), n);
  to[n] = 0;
}

}  // namespace

struct vesim_machine {
  Memory memory;
  Core core;
  std::unique_ptr<Observer> trace;
  std::FILE* trace_file = nullptr;
  uint64_t scratch = 0, scratch_bytes = 0;  // for vesim_execute
  std::mutex loading;
  std::vector<std::weak_ptr<const Image>> images;

  vesim_machine(Arch arch, uint64_t memory_bytes, uint64_t stack_bytes)
      : memory(memory_bytes), core(memory, arch, stack_bytes) {
    trace = trace_from_environment();
    core.observer = trace.get();
  }
  ~vesim_machine() {
    trace.reset();
    if (trace_file != nullptr) std::fclose(trace_file);
  }
};

struct vesim_image {
  std::shared_ptr<Image> image;
};

static int32_t report(const Trap& trap, vesim_trap* out) {
  if (out == nullptr) return trap.kind;
  out->kind = trap.kind;
  out->ic = trap.ic;
  out->address = trap.address;
  out->word = trap.word;
  copy_text(trap.text, out->text, sizeof out->text);
  return trap.kind;
}

// Errors of the host, such as a lack of memory, end a run as traps do.
template <class Run>
static int32_t run(Run code, vesim_trap* out) {
  try {
    return report(code(), out);
  } catch (const std::exception& error) {
    Trap trap;
    trap.kind = Trap::HostFunction;
    trap.text = std::string("the simulator cannot go on: ") + error.what();
    return report(trap, out);
  }
}

extern "C" {

vesim_machine* vesim_create(int arch, uint64_t memory_bytes, uint64_t stack_bytes) {
  try {
    return new vesim_machine(arch == 3 ? Arch::VE3 : Arch::VE1,
                             memory_bytes != 0 ? memory_bytes : Memory::kDefaultBytes, stack_bytes);
  } catch (const std::exception&) {
    return nullptr;  // the host has no address space left
  }
}
void vesim_destroy(vesim_machine* m) { delete m; }

uint64_t vesim_allocate(vesim_machine* m, uint64_t bytes, uint64_t align) {
  return m->memory.allocate(bytes, align);
}
int vesim_release(vesim_machine* m, uint64_t address) { return m->memory.release(address); }
int vesim_read(vesim_machine* m, void* host, uint64_t address, uint64_t bytes) {
  return m->memory.read(host, address, bytes);
}
int vesim_write(vesim_machine* m, uint64_t address, const void* host, uint64_t bytes) {
  return m->memory.write(address, host, bytes);
}
uint64_t vesim_used(vesim_machine* m) { return m->memory.used(); }

vesim_image* vesim_load(vesim_machine* m, const void* bytes, uint64_t size, const char* name,
                        char* error, uint64_t error_size) {
  std::string why;
  std::lock_guard<std::mutex> hold(m->loading);
  Image::Others others;
  auto& images = m->images;
  for (size_t n = 0; n < images.size();) {
    if (std::shared_ptr<const Image> other = images[n].lock()) {
      others.push_back(std::move(other));
      ++n;
    } else {
      images.erase(images.begin() + static_cast<std::ptrdiff_t>(n));
    }
  }
  std::shared_ptr<Image> image = Image::load(m->memory, bytes, size, name, others, why);
  copy_text(why, error, error_size);
  if (image == nullptr) return nullptr;
  images.push_back(image);
  return new vesim_image{std::move(image)};
}
void vesim_unload(vesim_image* i) { delete i; }
uint64_t vesim_symbol(vesim_image* i, const char* name) { return i->image->symbol(name); }
uint64_t vesim_symbols(vesim_image* i, char* out, uint64_t size) {
  std::string all;
  for (const std::string& name : i->image->symbols()) all += name + "\n";
  copy_text(all, out, size);
  return all.size() + 1;
}
uint64_t vesim_initializers(vesim_image* i, uint64_t* out, uint64_t count) {
  const auto& list = i->image->initializers();
  std::copy_n(list.begin(), std::min<uint64_t>(count, list.size()), out);
  return list.size();
}

int32_t vesim_call(vesim_machine* m, uint64_t function, const uint64_t* arguments, uint32_t count,
                   uint64_t* result, vesim_trap* trap) {
  return run([&] { return m->core.call(function, arguments, count, result); }, trap);
}
int32_t vesim_resume(vesim_machine* m, uint64_t* result, vesim_trap* trap) {
  const int32_t kind = run([&] { return m->core.resume(); }, trap);
  if (kind == Trap::None && result != nullptr) *result = m->core.s[0];
  return kind;
}
int32_t vesim_execute(vesim_machine* m, const uint64_t* words, uint64_t count, vesim_trap* trap) {
  const uint64_t bytes = 8 * count;
  if (m->scratch == 0 || m->scratch_bytes < bytes) {
    if (m->scratch != 0) m->memory.release_own(m->scratch);
    m->scratch_bytes = std::max<uint64_t>(bytes, 1 << 16);
    m->scratch = m->memory.allocate_own(m->scratch_bytes, 64, Memory::kRead | Memory::kExecute);
    if (m->scratch == 0) {
      Trap t;
      t.kind = Trap::MemoryAccess;
      t.text = "no memory for " + std::to_string(bytes) + " bytes of code";
      return report(t, trap);
    }
  }
  m->memory.write(m->scratch, words, bytes);
  return run([&] { return m->core.execute(m->scratch, m->scratch + bytes); }, trap);
}
void vesim_interrupt(vesim_machine* m) { m->core.interrupt(); }

uint64_t* vesim_s(vesim_machine* m) { return m->core.s; }
uint64_t* vesim_v(vesim_machine* m) { return m->core.v[0]; }
uint64_t* vesim_vm(vesim_machine* m) { return m->core.vm[0]; }
uint64_t* vesim_state(vesim_machine* m, int which) {
  Core& c = m->core;
  uint64_t* const all[] = {&c.vl,         &c.vix,          &c.psw,  &c.executed,
                           &c.step_limit, &c.perturb.seed,  &c.slice};
  return all[which];
}
uint64_t vesim_stack_high(vesim_machine* m) { return m->core.stack_high(); }
uint64_t vesim_stack_low(vesim_machine* m) { return m->core.stack_low(); }

int vesim_trace(vesim_machine* m, const char* path) {
  m->core.observer = nullptr;
  m->trace.reset();
  if (m->trace_file != nullptr) std::fclose(m->trace_file);
  m->trace_file = path == nullptr ? nullptr : std::fopen(path, "a");
  if (m->trace_file == nullptr) return path == nullptr;
  m->trace = make_trace(m->trace_file);
  m->core.observer = m->trace.get();
  return 1;
}
void vesim_flush(vesim_machine* m) {
  if (m->trace_file != nullptr) std::fflush(m->trace_file);
}

uint64_t vesim_disassemble(uint64_t word, char* out, uint64_t size) {
  const std::string text = disassemble(word);
  copy_text(text, out, size);
  return text.size();
}
uint32_t vesim_row(uint32_t n, char* syntax, uint64_t size, uint64_t* fixed, uint64_t* mask) {
  const Entry* e = entry_of_row(n);
  if (e == nullptr) return 0;
  copy_text(e->syntax, syntax, size);
  *fixed = e->fixed;
  *mask = e->mask;
  return 1;
}
}  // extern "C"
