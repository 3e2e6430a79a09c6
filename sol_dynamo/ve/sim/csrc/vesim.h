/* The simulator for C programs: a machine is one VE process's memory and one core.
 *
 * Link with the library that `python -c "from sol_dynamo.ve import sim; print(sim.library_path())"`
 * names. Nothing here aborts: errors are return values and texts. Addresses are VE's, never host
 * pointers. For NEC's own interface on the simulator see veo.h.
 */
#ifndef VESIM_H
#define VESIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vesim_machine vesim_machine;
typedef struct vesim_image vesim_image; /* a loaded file */

typedef struct vesim_trap {
  int32_t kind; /* Trap::Kind of machine.h; 0: none */
  uint32_t reserved;
  uint64_t ic;      /* address of the instruction */
  uint64_t address; /* of the access, where there was one */
  uint64_t word;    /* the instruction */
  char text[1024];  /* all of it for people */
} vesim_trap;

/* arch: 1 or 3. memory_bytes: 0 for the usual size. NULL: no address space is left. */
vesim_machine* vesim_create(int arch, uint64_t memory_bytes, uint64_t stack_bytes);
void vesim_destroy(vesim_machine*);

uint64_t vesim_allocate(vesim_machine*, uint64_t bytes, uint64_t align); /* 0: no memory */
int vesim_release(vesim_machine*, uint64_t address);                     /* 0: not allocated */
int vesim_read(vesim_machine*, void* host, uint64_t address, uint64_t bytes); /* 0: not mapped */
int vesim_write(vesim_machine*, uint64_t address, const void* host, uint64_t bytes);
uint64_t vesim_used(vesim_machine*); /* bytes of all allocations */

/* An object file or shared object. NULL: `error` says why. Unload it before its machine. What it
 * refers to and does not define may be in files that are loaded already: they then stay. */
vesim_image* vesim_load(vesim_machine*, const void* bytes, uint64_t size, const char* name,
                        char* error, uint64_t error_size);
void vesim_unload(vesim_image*);
uint64_t vesim_symbol(vesim_image*, const char* name); /* 0: no such global symbol */
/* All names, one a line, as far as they fit; the size that is needed is returned. */
uint64_t vesim_symbols(vesim_image*, char* out, uint64_t size);
/* Functions to be called once after loading; their number is returned. */
uint64_t vesim_initializers(vesim_image*, uint64_t* out, uint64_t count);

/* A function by VE's ABI: floats in the upper half, the result is s0. Returns trap->kind. */
int32_t vesim_call(vesim_machine*, uint64_t function, const uint64_t* arguments, uint32_t count,
                   uint64_t* result, vesim_trap* trap);
/* Goes on with a call or words that ended as Paused, after as many instructions as a slice has. */
int32_t vesim_resume(vesim_machine*, uint64_t* result, vesim_trap* trap);
/* Instruction words in a line, with registers as they are. */
int32_t vesim_execute(vesim_machine*, const uint64_t* words, uint64_t count, vesim_trap* trap);
void vesim_interrupt(vesim_machine*); /* from another thread: the running call traps */

uint64_t* vesim_s(vesim_machine*);  /* [64] */
uint64_t* vesim_v(vesim_machine*);  /* [64][256] */
uint64_t* vesim_vm(vesim_machine*); /* [16][4]; element e is bit 63 - e % 64 of word e / 64 */
/* 0 vl, 1 vix, 2 psw, 3 executed instructions, 4 their limit, 5 seed of perturbation, 6 slice */
uint64_t* vesim_state(vesim_machine*, int which);
uint64_t vesim_stack_low(vesim_machine*);
uint64_t vesim_stack_high(vesim_machine*);

int vesim_trace(vesim_machine*, const char* path); /* NULL ends it; 0: cannot write there */
void vesim_flush(vesim_machine*);

/* The text of a word in LLVM's syntax; its length is returned, 0 where it is no instruction. */
uint64_t vesim_disassemble(uint64_t word, char* out, uint64_t size);
/* Row n of the table of instructions (decode.h); 0 behind the last. */
uint32_t vesim_row(uint32_t n, char* syntax, uint64_t size, uint64_t* fixed, uint64_t* mask);

#ifdef __cplusplus
}
#endif

#endif
