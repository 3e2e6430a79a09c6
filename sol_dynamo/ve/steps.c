/* Runs the steps of a compiled program on one core of the card. Every core of a program's call runs
 * this; a step's units are shared out by their number, and all cores meet behind each step. */
#include <stdarg.h>

typedef struct { void (*fn)(const sol_call *, long); long units, first, last; } sol_step;
typedef struct { const sol_step *steps, *inner; long scratch_size, band; } sol_program;
typedef struct { const sol_program *p; long steps; void *const *ptr; char *arena; } sol_entry;

static void sol_unit(const sol_program *p, const sol_call *c, const sol_step *s, long u) {
  if (s->fn) { s->fn(c, u); return; }
  sol_call image = *c; /* depth first: all steps of one chunk of the batch */
  image.chunk = u;
  for (long k = s->first; k < s->last; k++)
    for (long v = 0; v < p->inner[k].units; v++) {
      p->inner[k].fn(&image, v);
      _vel_svob();
    }
}

/* Brings a kernel's code into the core's second cache: a line that is not there stalls it for as
 * long as memory takes, and short kernels were bound by that. `first`: bytes of code. */
static void sol_fetch(const sol_step *s) {
  if (s->fn)
    for (long at = 0; at < s->first; at += 128)
      __asm__ volatile("pfch 0(,%0)" ::"r"((const char *)s->fn + at));
}

/* Steps first..last-1. The pointer table stands behind the eight arguments that are in registers,
 * on the stack; a driver takes so many arguments and no more: with bit 16 of `who`, the first one
 * points to the table. `who`: this core's number, and in the second byte how many there are; `line`
 * and `meeting`: where they meet, and the number of the first barrier. */
void sol_run(const sol_program *p, long range, char *arena, char *scratch, sol_error *error,
             long who, unsigned long *line, unsigned long meeting, ...) {
  va_list table;
  va_start(table, meeting);
  const long first = range & 0xffffffff, last = range >> 32, core = who & 255;
  const long cores = who >> 8 & 255;
  char *own = scratch + core * p->scratch_size;
  void *const *ptr = (void *const *)table;
  if (who >> 16 & 1) ptr = (void *const *)ptr[0];
  const sol_call c = {ptr, arena, own, own + p->band, 0, error};
  sol_barrier(line, meeting++, cores);
  for (long k = first; k < last; k++) {
    const sol_step *s = &p->steps[k];
    const long end = s->units * (core + 1) / cores;
    sol_fetch(s);
    for (long u = s->units * core / cores; u < end; u++) sol_unit(p, &c, s, u);
    _vel_svob(); /* stores that loads may overtake are done */
    sol_barrier(line, meeting++, cores);
  }
  va_end(table);
}

/* Whole programs that know nothing of each other, as one call: the first step of each, all cores
 * meet, then the second ones. `range`: how many programs, and of how many steps the longest is. Who
 * begins with a program's first unit is another core for each: many have one unit only. */
void sol_run_all(const sol_entry *all, long range, char *arena, char *scratch, long scratch_size,
                 long who, unsigned long *line, unsigned long meeting) {
  const long count = range & 0xffffffff, steps = range >> 32, core = who & 255;
  const long cores = who >> 8 & 255;
  char *own = scratch + core * scratch_size;
  sol_barrier(line, meeting++, cores);
  for (long k = 0; k < steps; k++) {
    for (long n = 0, turn = core; n < count; n++, turn = turn + 1 == cores ? 0 : turn + 1) {
      if (k >= all[n].steps) continue;
      const sol_program *p = all[n].p;
      const sol_step *s = &p->steps[k];
      const sol_call c = {all[n].ptr, all[n].arena, own, own + p->band, 0, 0};
      const long end = s->units * (turn + 1) / cores;
      long u = s->units * turn / cores;
      if (u < end) sol_fetch(s);
      for (; u < end; u++) sol_unit(p, &c, s, u);
    }
    _vel_svob();
    sol_barrier(line, meeting++, cores);
  }
}
