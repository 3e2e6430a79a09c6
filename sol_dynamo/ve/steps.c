/* Runs the steps of a compiled program on one core of the card. Every core of a program's call runs
 * this; a step's units are shared out by their number, and all cores meet behind each step. */
#include <stdarg.h>

typedef struct { void (*fn)(const sol_call *, long); long units, first, last; } sol_step;
typedef struct { const sol_step *steps, *inner; long scratch_size, band; } sol_program;
typedef struct { sol_error error; long arrived; } sol_state;

static void sol_unit(const sol_program *p, const sol_call *c, const sol_step *s, long u) {
  if (s->fn) { s->fn(c, u); return; }
  sol_call image = *c; /* depth first: all steps of one chunk of the batch */
  image.chunk = u;
  for (long k = s->first; k < s->last; k++)
    for (long v = 0; v < p->inner[k].units; v++) p->inner[k].fn(&image, v);
}

static void sol_meet(sol_state *s, long cores, long *met) {
  if (cores == 1) return;
  const long all = *met += cores;
  _vel_fencem_s(3);
  _vel_svob();
  __atomic_fetch_add(&s->arrived, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&s->arrived, __ATOMIC_SEQ_CST) < all) SOL_YIELD();
  _vel_fencem_s(2);
}

/* Steps first..last-1. The pointer table stands behind the eight arguments that are in registers,
 * on the stack. `met`: the value of `arrived` before this call. */
void sol_run(const sol_program *p, long range, char *arena, char *scratch, sol_state *state,
             long core, long cores, long met, ...) {
  va_list table;
  va_start(table, met);
  const long first = range & 0xffffffff, last = range >> 32;
  char *own = scratch + core * p->scratch_size;
  const sol_call c = {(void *const *)table, arena, own, own + p->band, 0, &state->error};
  sol_meet(state, cores, &met);
  for (long k = first; k < last; k++) {
    const sol_step *s = &p->steps[k];
    const long end = s->units * (core + 1) / cores;
    for (long u = s->units * core / cores; u < end; u++) sol_unit(p, &c, s, u);
    sol_meet(state, cores, &met);
  }
  va_end(table);
}
