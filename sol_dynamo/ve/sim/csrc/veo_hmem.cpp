// The C interface's addresses that name their process: bit 63 is set, bits 62-59 are the
// identifier.
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "registry.h"

using namespace vesim;

namespace {

constexpr uint64_t kHmemFlag = uint64_t{1} << 63;
constexpr unsigned kHmemShift = 59;

uint64_t bits_of(const void* address) { return reinterpret_cast<uint64_t>(address); }
bool is_hmem(const void* address) { return bits_of(address) & kHmemFlag; }
uint64_t plain(const void* address) {
  return bits_of(address) & ((uint64_t{1} << kHmemShift) - 1);
}

veo_proc_handle* owner_of(const void* address) {
  const size_t identifier = bits_of(address) >> kHmemShift & 15;
  Registry& all = registry();
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!is_hmem(address) || identifier >= all.identifiers.size() || !all.identifiers[identifier]) {
    throw Refused{"address " + hex(bits_of(address)) + " names no process"};
  }
  return all.identifiers[identifier];
}

}  // namespace

extern "C" {

int veo_alloc_hmem(veo_proc_handle* proc, void** address, const size_t bytes) {
  return guarded(-1, [&] {
    if (!address) throw Refused{"there is no place for the address"};
    if (!proc) return (*address = malloc(bytes)) ? 0 : -1;
    const int identifier = veo_proc_identifier(proc);
    uint64_t plain_address = 0;
    if (identifier < 0 || identifier >= VEO_MAX_HMEM_PROCS) return -1;
    if (const int refused = veo_alloc_mem(proc, &plain_address, bytes)) return refused;
    *address = veo_set_proc_identifier(reinterpret_cast<void*>(plain_address), identifier);
    return 0;
  });
}

int veo_free_hmem(void* address) {
  return guarded(-1, [&] {
    if (is_hmem(address)) return veo_free_mem(owner_of(address), plain(address));
    free(address);
    return 0;
  });
}

int veo_hmemcpy(void* to, const void* from, size_t bytes) {
  return guarded(-1, [&] {
    if (is_hmem(to) && is_hmem(from)) {
      if (owner_of(to) != owner_of(from)) throw Refused{"a copy from one process to another"};
      std::vector<char> between(bytes);
      const int refused = veo_read_mem(owner_of(from), between.data(), plain(from), bytes);
      return refused ? refused : veo_write_mem(owner_of(to), plain(to), between.data(), bytes);
    }
    if (is_hmem(to)) return veo_write_mem(owner_of(to), plain(to), from, bytes);
    if (is_hmem(from)) return veo_read_mem(owner_of(from), to, plain(from), bytes);
    if (bytes) memcpy(to, from, bytes);
    return 0;
  });
}

int veo_args_set_hmem(veo_args* args, int index, void* address) {
  return veo_args_set_u64(args, index, bits_of(address));
}

int veo_is_ve_addr(const void* address) { return is_hmem(address); }

void* veo_get_hmem_addr(void* address) {
  return is_hmem(address) ? reinterpret_cast<void*>(plain(address)) : address;
}

void* veo_set_proc_identifier(void* address, int identifier) {
  if (identifier < 0 || identifier >= VEO_MAX_HMEM_PROCS) return nullptr;
  return reinterpret_cast<void*>(bits_of(address) | kHmemFlag | uint64_t(identifier) << kHmemShift);
}

int veo_get_max_proc_identifier(void) { return VEO_MAX_HMEM_PROCS; }

int veo_get_proc_identifier_from_hmem(const void* address) {
  return is_hmem(address) ? static_cast<int>(bits_of(address) >> kHmemShift & 15) : -1;
}

veo_proc_handle* veo_get_proc_handle_from_hmem(const void* address) {
  return guarded<veo_proc_handle*>(nullptr, [&] { return owner_of(address); });
}

int veo_get_venum_from_hmem(const void* address) {
  return guarded(-1, [&] { return process_of(owner_of(address))->space->node; });
}

}  // extern "C"
