/* The C interface of AVEO, API version 16: how a host program (VH) drives vector engines (VE).
 *
 * Written from the interface's documentation and NEC's ve_offload.h, with the same names, types and
 * values, so that programs compiled against either header run on either library: NEC's libveo.so.1
 * with a card, our libveo_sim.so without one. What follows after "vesim_" is ours alone. Nothing
 * here shows that a simulator stands behind it, but for those.
 */
#ifndef SOL_DYNAMO_VEO_H
#define SOL_DYNAMO_VEO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VEO_API_VERSION 16
#define VEO_SYMNAME_LEN_MAX (255)
#define VEO_MAX_NUM_ARGS (256)
#define VEO_MAX_HMEM_PROCS (16)
#define VEO_REQUEST_ID_INVALID (~0UL)

#ifdef __cplusplus
extern "C" {
#endif

enum veo_context_state {
  VEO_STATE_UNKNOWN = 0,
  VEO_STATE_RUNNING,
  VEO_STATE_SYSCALL, /* of an older implementation, never seen */
  VEO_STATE_BLOCKED, /* likewise */
  VEO_STATE_EXIT,
};

enum veo_command_state {
  VEO_COMMAND_OK = 0,
  VEO_COMMAND_EXCEPTION, /* the VE code trapped */
  VEO_COMMAND_ERROR,     /* no such request, picked up already, cancelled, or refused */
  VEO_COMMAND_UNFINISHED,
};

enum veo_queue_state { VEO_QUEUE_READY = 0, VEO_QUEUE_CLOSED };

enum veo_args_intent { VEO_INTENT_IN = 0, VEO_INTENT_INOUT, VEO_INTENT_OUT };

struct veo_args;
struct veo_proc_handle;
struct veo_thr_ctxt;
struct veo_thr_ctxt_attr;

/* --- Processes -----------------------------------------------------------------------------------
 * venode -1: the card of VE_NODE_NUMBER, else the first. NULL: refused. */
int veo_api_version(void);
const char *veo_version_string(void);
int veo_get_ve_arch(int venode); /* 1 (VE10, VE20) or 3 (VE30); 0: no such card */
struct veo_proc_handle *veo_proc_create(int venode);
/* `veobin`: a program whose symbols are found with library handle 0; here an object file. */
struct veo_proc_handle *veo_proc_create_static(int venode, char *veobin);
int veo_proc_destroy(struct veo_proc_handle *); /* running code is stopped, requests end as ERROR */
int veo_proc_identifier(struct veo_proc_handle *);

/* --- Libraries ---------------------------------------------------------------------------------
 * 0: refused. Library 0 in veo_get_sym: any loaded library, in the order of loading. */
uint64_t veo_load_library(struct veo_proc_handle *, const char *path);
int veo_unload_library(struct veo_proc_handle *, const uint64_t library);
uint64_t veo_get_sym(struct veo_proc_handle *, uint64_t library, const char *name);

/* --- Memory --------------------------------------------------------------------------------------
 * Each waits for what was requested of the main context before. 0: done; negative: refused. */
int veo_alloc_mem(struct veo_proc_handle *, uint64_t *address, const size_t bytes);
int veo_free_mem(struct veo_proc_handle *, uint64_t address);
int veo_read_mem(struct veo_proc_handle *, void *to, uint64_t from, size_t bytes);
int veo_write_mem(struct veo_proc_handle *, uint64_t to, const void *from, size_t bytes);

/* --- Contexts ------------------------------------------------------------------------------------
 * A context is a core with a queue of requests, executed in order. The first one opened is the main
 * context, index 0, which also serves the synchronous calls above; closing it does nothing. Closing
 * another one waits for its requests. */
int veo_num_contexts(struct veo_proc_handle *);
struct veo_thr_ctxt *veo_get_context(struct veo_proc_handle *, int index);
struct veo_thr_ctxt *veo_context_open(struct veo_proc_handle *);
struct veo_thr_ctxt *veo_context_open_with_attr(struct veo_proc_handle *,
                                                struct veo_thr_ctxt_attr *);
int veo_context_close(struct veo_thr_ctxt *);
int veo_get_context_state(struct veo_thr_ctxt *);
void veo_context_sync(struct veo_thr_ctxt *); /* waits; all results stay to be picked up */
struct veo_thr_ctxt_attr *veo_alloc_thr_ctxt_attr(void);
int veo_free_thr_ctxt_attr(struct veo_thr_ctxt_attr *);
int veo_set_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *, size_t bytes); /* at least 4 MiB */
int veo_get_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *, size_t *bytes);

/* --- Arguments -----------------------------------------------------------------------------------
 * Values are taken when a call is requested, and so is the content of IN and INOUT buffers. OUT and
 * INOUT buffers are written before the call's result can be picked up. */
struct veo_args *veo_args_alloc(void);
int veo_args_set_i64(struct veo_args *, int index, int64_t);
int veo_args_set_u64(struct veo_args *, int index, uint64_t);
int veo_args_set_i32(struct veo_args *, int index, int32_t);
int veo_args_set_u32(struct veo_args *, int index, uint32_t);
int veo_args_set_i16(struct veo_args *, int index, int16_t);
int veo_args_set_u16(struct veo_args *, int index, uint16_t);
int veo_args_set_i8(struct veo_args *, int index, int8_t);
int veo_args_set_u8(struct veo_args *, int index, uint8_t);
int veo_args_set_double(struct veo_args *, int index, double);
int veo_args_set_float(struct veo_args *, int index, float);
int veo_args_set_stack(struct veo_args *, enum veo_args_intent, int index, char *buffer,
                       size_t bytes);
void veo_args_clear(struct veo_args *);
void veo_args_free(struct veo_args *);

/* --- Requests ------------------------------------------------------------------------------------
 * An identifier belongs to its context and may be 0. A result is picked up once. */
int veo_call_sync(struct veo_proc_handle *, uint64_t function, struct veo_args *,
                  uint64_t *result); /* in the main context; negative: trapped or refused */
uint64_t veo_call_async(struct veo_thr_ctxt *, uint64_t function, struct veo_args *);
uint64_t veo_call_async_by_name(struct veo_thr_ctxt *, uint64_t library, const char *name,
                                struct veo_args *);
uint64_t veo_call_async_vh(struct veo_thr_ctxt *, uint64_t (*function)(void *), void *argument);
int veo_call_peek_result(struct veo_thr_ctxt *, uint64_t request, uint64_t *result);
int veo_call_wait_result(struct veo_thr_ctxt *, uint64_t request, uint64_t *result);
uint64_t veo_async_read_mem(struct veo_thr_ctxt *, void *to, uint64_t from, size_t bytes);
uint64_t veo_async_write_mem(struct veo_thr_ctxt *, uint64_t to, const void *from, size_t bytes);
uint64_t veo_alloc_mem_async(struct veo_thr_ctxt *, const size_t bytes); /* result: address or 0 */
uint64_t veo_free_mem_async(struct veo_thr_ctxt *, uint64_t address);
void veo_req_block_begin(struct veo_thr_ctxt *); /* until its end, other threads' requests wait */
void veo_req_block_end(struct veo_thr_ctxt *);

/* --- Addresses that say which process they belong to ------------------------------------------ */
int veo_alloc_hmem(struct veo_proc_handle *, void **address, const size_t bytes);
int veo_free_hmem(void *address);
int veo_hmemcpy(void *to, const void *from, size_t bytes);
int veo_args_set_hmem(struct veo_args *, int index, void *address);
int veo_is_ve_addr(const void *address);
void *veo_get_hmem_addr(void *address);
void *veo_set_proc_identifier(void *address, int identifier);
int veo_get_max_proc_identifier(void);
int veo_get_proc_identifier_from_hmem(const void *address);
struct veo_proc_handle *veo_get_proc_handle_from_hmem(const void *address);
int veo_get_venum_from_hmem(const void *address);

/* --- Of the simulator only -----------------------------------------------------------------------
 * SOL_VE_CARDS: how many cards there are (1). SOL_VE_MODEL: VE10, VE20B (default) or VE30. */

/* What the last failed request of a context said, "" where none did; valid until this thread asks
 * again. And why the last call of this thread was refused, whatever it was. */
const char *vesim_last_fault(struct veo_thr_ctxt *);
const char *vesim_last_error(void);
int vesim_num_cards(void);
const char *vesim_model(void); /* "VE20B" */
/* Bytes of VE memory in use; negative: no such process. */
int64_t vesim_memory_used(struct veo_proc_handle *);

/* For how long a context may wait for others of which none can go on any more: 30 seconds at first.
 * Its call then ends as an exception. (Where one of them has failed it ends at once.) */
int vesim_patience(struct veo_proc_handle *, double seconds);

/* --- Simulated time ------------------------------------------------------------------------------
 * What the calls of a function took on a model of the machine, since it was switched on: too slow
 * rather than too fast, the same in every run. What it assumes is in cycle_parameters.h. Off, it
 * costs nothing. */
struct vesim_kernel {
  char name[128]; /* the symbol that was called */
  uint64_t calls, cycles;
  uint64_t instructions, vector_instructions; /* all, and the vector ones among them */
  uint64_t vector_elements;                   /* sum of vector lengths */
  uint64_t flop_f64, flop_f32;                /* a fused multiply-add is 2, masked elements are 0 */
  uint64_t bytes_loaded, bytes_stored;        /* as the code asked for them */
  uint64_t memory_bytes;                      /* between the last-level cache and memory */
  double seconds;                             /* simulated */
  double vector_ratio;                        /* share of operations done by vector instructions */
  double average_length;                      /* of vectors */
  double peak_f64, peak_f32;                  /* 1 is 192 and 384 flop per cycle */
  double fma_busy, memory_busy;               /* shares of the cycles */
};

/* For calls that begin afterwards. 0: off; 1: on, each call finds its caches empty; 2: on, it
 * finds there what the call before in the same context left. */
int vesim_cycles_enable(struct veo_proc_handle *, int on);
/* How many cores share the card's memory and last-level cache; 0: as many as contexts are open. */
int vesim_cycles_share(struct veo_proc_handle *, int cores);
/* Rows of a context's report, one per function. The result is how many there are; `rows` gets at
 * most `capacity` of them and may be null. */
int vesim_report(struct veo_thr_ctxt *, struct vesim_kernel *rows, int capacity);
int vesim_report_clear(struct veo_thr_ctxt *);
/* Registers that the model takes an opcode to use (cycle_rules.cpp), for tests; null: unknown. */
const char *vesim_cycle_rule(unsigned opcode);

#ifdef __cplusplus
}
#endif
#endif
