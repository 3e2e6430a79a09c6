// The driver seam: the functions of AVEO that this device calls, looked up at run time.
//
// The library is NEC's libveo.so.1 or our simulator with the same ABI; Python says which. Nothing
// here or above knows whether a card or a simulator answers, but for the optional functions that
// put a fault into words. This file must not know tensors or torch's devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct veo_proc_handle;
struct veo_thr_ctxt;
struct veo_args;

namespace ve {

// What a request came to (AVEO's veo_command_state), and the id of a request that was refused.
enum Command : int { kOk = 0, kException = 1, kError = 2, kUnfinished = 3 };
constexpr uint64_t kInvalidRequest = ~uint64_t{0};

// F(result, name, parameters). Every one must be there.
#define VE_DRIVER_FUNCTIONS(F)                                                                     \
  F(int, api_version, (void))                                                                      \
  F(const char*, version_string, (void))                                                           \
  F(veo_proc_handle*, proc_create, (int node))                                                     \
  F(int, proc_destroy, (veo_proc_handle*))                                                         \
  F(uint64_t, load_library, (veo_proc_handle*, const char* path))                                  \
  F(int, unload_library, (veo_proc_handle*, uint64_t library))                                     \
  F(uint64_t, get_sym, (veo_proc_handle*, uint64_t library, const char* name))                     \
  F(int, alloc_mem, (veo_proc_handle*, uint64_t * address, size_t bytes))                          \
  F(int, free_mem, (veo_proc_handle*, uint64_t address))                                           \
  F(veo_thr_ctxt*, context_open, (veo_proc_handle*))                                               \
  F(int, context_close, (veo_thr_ctxt*))                                                           \
  F(void, context_sync, (veo_thr_ctxt*))                                                           \
  F(veo_args*, args_alloc, (void))                                                                 \
  F(void, args_clear, (veo_args*))                                                                 \
  F(void, args_free, (veo_args*))                                                                  \
  F(int, args_set_u64, (veo_args*, int index, uint64_t))                                           \
  F(int, args_set_i64, (veo_args*, int index, int64_t))                                            \
  F(int, args_set_double, (veo_args*, int index, double))                                          \
  F(int, args_set_float, (veo_args*, int index, float))                                            \
  F(uint64_t, call_async, (veo_thr_ctxt*, uint64_t function, veo_args*))                           \
  F(uint64_t, call_async_vh, (veo_thr_ctxt*, uint64_t (*function)(void*), void* argument))         \
  F(int, call_peek_result, (veo_thr_ctxt*, uint64_t request, uint64_t * result))                   \
  F(int, call_wait_result, (veo_thr_ctxt*, uint64_t request, uint64_t * result))                   \
  F(uint64_t, async_read_mem, (veo_thr_ctxt*, void* to, uint64_t from, size_t bytes))              \
  F(uint64_t, async_write_mem, (veo_thr_ctxt*, uint64_t to, const void* from, size_t bytes))

struct Driver {
#define VE_DECLARE(result, name, parameters) result(*name) parameters = nullptr;
  VE_DRIVER_FUNCTIONS(VE_DECLARE)
#undef VE_DECLARE

  // Optional. The architecture of a card, 1 or 3; the simulated model; why the last call of this
  // thread was refused or gave a failure, in words (of these two, our simulator alone has any).
  int (*get_ve_arch)(int node) = nullptr;
  const char* (*model)(void) = nullptr;
  const char* (*last_error)(void) = nullptr;

  std::string path;

  // What the driver says of the last call that it refused, as " (text)", or "".
  std::string refusal() const;
};

// Opens the library; a second call with another path is an error. Raises naming what is missing.
void load_driver(const std::string& path);

// The loaded driver. Raises where there is none.
const Driver& driver();

} // namespace ve
