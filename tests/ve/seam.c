/* A host program as NEC's documentation writes them: process, library, context, arguments, call.
 *
 * Compiled against veo.h and linked with the driver's library by test_veo.py; argv[1] is the object
 * file of the VE code. It would compile against NEC's ve_offload.h as well, so it uses nothing of
 * ours.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef NEC_HEADER
#include <ve_offload.h>
#else
#include "veo.h"
#endif

#define CHECK(x)                                                       \
  do {                                                                 \
    if (!(x)) {                                                        \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);          \
      exit(1);                                                         \
    }                                                                  \
  } while (0)

static struct veo_proc_handle *proc;
static uint64_t library;

static uint64_t on_host(void *argument) { return ++*(uint64_t *)argument; }

/* Synchronous and asynchronous calls with values. */
static void call_functions(struct veo_thr_ctxt *ctx) {
  struct veo_args *args = veo_args_alloc();
  uint64_t result = 0;
  CHECK(veo_args_set_i64(args, 0, 40) == 0);
  CHECK(veo_args_set_i64(args, 1, -2) == 0);
  CHECK(veo_call_sync(proc, veo_get_sym(proc, library, "add"), args, &result) == 0);
  CHECK((int64_t)result == 38);

  uint64_t id = veo_call_async_by_name(ctx, library, "add", args);
  CHECK(id != VEO_REQUEST_ID_INVALID);
  result = 0;
  CHECK(veo_call_wait_result(ctx, id, &result) == VEO_COMMAND_OK);
  CHECK((int64_t)result == 38);
  CHECK(veo_call_wait_result(ctx, id, &result) == VEO_COMMAND_ERROR);
  CHECK(veo_call_async_by_name(ctx, library, "no_such", args) == VEO_REQUEST_ID_INVALID);

  veo_args_clear(args);
  float f;
  uint32_t upper;
  CHECK(veo_args_set_float(args, 0, 1.5f) == 0);
  CHECK(veo_args_set_double(args, 1, -0.25) == 0);
  CHECK(veo_call_sync(proc, veo_get_sym(proc, library, "scale"), args, &result) == 0);
  upper = (uint32_t)(result >> 32);
  memcpy(&f, &upper, 4);
  CHECK(f == -0.375f);
  veo_args_free(args);
}

/* Structures by address: in, out, and both. */
static void pass_structures(struct veo_thr_ctxt *ctx) {
  struct { int64_t n; double values[5]; char tail; } in = {5, {1, 2, 3, 4, 5}, 7};
  double out[5] = {0};
  int64_t both = 100;
  struct veo_args *args = veo_args_alloc();
  CHECK(veo_args_set_stack(args, VEO_INTENT_IN, 0, (char *)&in, sizeof in) == 0);
  CHECK(veo_args_set_stack(args, VEO_INTENT_OUT, 1, (char *)out, sizeof out) == 0);
  CHECK(veo_args_set_stack(args, VEO_INTENT_INOUT, 2, (char *)&both, sizeof both) == 0);
  uint64_t id = veo_call_async_by_name(ctx, library, "square_all", args), result;
  CHECK(veo_call_wait_result(ctx, id, &result) == VEO_COMMAND_OK);
  for (int i = 0; i < 5; ++i) CHECK(out[i] == (i + 1.0) * (i + 1.0));
  CHECK(both == 105);
  CHECK(in.n == 5 && in.tail == 7);
  veo_args_free(args);
}

/* Transfers and calls of one context keep their order. */
static void use_memory(struct veo_thr_ctxt *ctx) {
  enum { bytes = 1 << 20 };
  unsigned char *data = (unsigned char *)malloc(bytes);
  unsigned char *back = (unsigned char *)malloc(bytes);
  uint64_t address = 0, result = 0, sum = 0;
  for (int i = 0; i < bytes; ++i) sum += data[i] = (unsigned char)(i * 37 >> 3);
  CHECK(veo_alloc_mem(proc, &address, bytes) == 0);
  struct veo_args *args = veo_args_alloc();
  veo_args_set_u64(args, 0, address);
  veo_args_set_u64(args, 1, bytes);
  uint64_t written = veo_async_write_mem(ctx, address, data, bytes);
  uint64_t called = veo_call_async_by_name(ctx, library, "sum_bytes", args);
  uint64_t seen = veo_async_read_mem(ctx, back, address, bytes);
  veo_context_sync(ctx);
  CHECK(veo_call_peek_result(ctx, seen, &result) == VEO_COMMAND_OK);
  CHECK(veo_call_peek_result(ctx, called, &result) == VEO_COMMAND_OK);
  CHECK(result == sum);
  CHECK(veo_call_peek_result(ctx, written, &result) == VEO_COMMAND_OK);
  CHECK(memcmp(data, back, bytes) == 0);
  memset(back, 0, bytes);
  CHECK(veo_read_mem(proc, back, address, bytes) == 0);
  CHECK(memcmp(data, back, bytes) == 0);
  CHECK(veo_free_mem(proc, address) == 0);
  veo_args_free(args);
  free(data);
  free(back);
}

/* Two requests in a row that no other thread's may come between: the second returns what the first
 * was given. */
static void *in_blocks(void *shared) {
  struct veo_thr_ctxt *ctx = (struct veo_thr_ctxt *)shared;
  struct veo_args *args = veo_args_alloc();
  for (uint64_t i = 0; i < 50; ++i) {
    const uint64_t mine = (uint64_t)pthread_self() * 1000 + i;
    uint64_t first, second, a = 0, b = 0;
    veo_req_block_begin(ctx);
    veo_args_clear(args);
    veo_args_set_u64(args, 0, mine);
    first = veo_call_async_by_name(ctx, library, "keep", args);
    veo_args_clear(args);
    second = veo_call_async_by_name(ctx, library, "kept", args);
    veo_req_block_end(ctx);
    CHECK(veo_call_wait_result(ctx, first, &a) == VEO_COMMAND_OK);
    CHECK(veo_call_wait_result(ctx, second, &b) == VEO_COMMAND_OK);
    CHECK(a == mine && b == mine);
  }
  veo_args_free(args);
  return NULL;
}

/* Each context counts in memory of its own, at the same time as the others. */
static void *count(void *which) {
  uint64_t address, result, value = 0;
  struct veo_thr_ctxt *ctx = veo_get_context(proc, (int)(intptr_t)which);
  CHECK(ctx);
  CHECK(veo_alloc_mem(proc, &address, 8) == 0);
  CHECK(veo_write_mem(proc, address, &value, 8) == 0);
  struct veo_args *args = veo_args_alloc();
  veo_args_set_u64(args, 0, address);
  for (uint64_t i = 0; i < 100; ++i) {
    uint64_t id = veo_call_async_by_name(ctx, library, "increment", args);
    CHECK(veo_call_wait_result(ctx, id, &result) == VEO_COMMAND_OK);
    CHECK(result == i);
  }
  CHECK(veo_read_mem(proc, &value, address, 8) == 0);
  CHECK(value == 100);
  CHECK(veo_free_mem(proc, address) == 0);
  veo_args_free(args);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(veo_api_version() >= 11);
  proc = veo_proc_create(-1);
  CHECK(proc);
  library = veo_load_library(proc, argv[1]);
  CHECK(library);
  struct veo_thr_ctxt *ctx = veo_context_open(proc);
  CHECK(ctx && veo_get_context(proc, 0) == ctx && veo_num_contexts(proc) == 1);
  CHECK(veo_get_context_state(ctx) == VEO_STATE_RUNNING);
  call_functions(ctx);
  pass_structures(ctx);
  use_memory(ctx);

  uint64_t host = 1, result = 0;
  uint64_t id = veo_call_async_vh(ctx, on_host, &host);
  CHECK(veo_call_wait_result(ctx, id, &result) == VEO_COMMAND_OK && result == 2 && host == 2);

  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) CHECK(pthread_create(&threads[i], NULL, in_blocks, ctx) == 0);
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);

  struct veo_thr_ctxt *others[3];
  for (int i = 0; i < 3; ++i) CHECK((others[i] = veo_context_open(proc)));
  CHECK(veo_num_contexts(proc) == 4);
  for (int i = 0; i < 4; ++i) {
    CHECK(pthread_create(&threads[i], NULL, count, (void *)(intptr_t)i) == 0);
  }
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
  for (int i = 0; i < 3; ++i) CHECK(veo_context_close(others[i]) == 0);
  CHECK(veo_num_contexts(proc) == 1);
  CHECK(veo_context_close(ctx) == 0);
  CHECK(veo_num_contexts(proc) == 1);
  CHECK(veo_unload_library(proc, library) == 0);
  CHECK(veo_proc_destroy(proc) == 0);
  puts("all well");
  return 0;
}
