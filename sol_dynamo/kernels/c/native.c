/* The executor of a compiled program: every step's units are claimed by the threads of one parallel
 * region. A thread first takes units from its own share (its data stays in its core's cache), then
 * from the others'; a step begins when all units of the one before are done. No lock, no allocation.
 * Any number of threads that really come will do: results never depend on it. */
#include <stdatomic.h>
#include <string.h>

typedef struct { _Atomic long next; long end; char pad[48]; } sol_share;
typedef struct {
  void *const *ptr; char *arena, *scratch; long scratch_size; int threads;
  sol_share *shares; _Atomic long *done; double *times; int first, last; _Atomic int ticket; sol_error error;
} sol_run_state;

extern int sched_yield(void);
#include <time.h>
static double sol_now(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec;
}
#if defined(__x86_64__) || defined(__i386__)
#define SOL_PAUSE() __builtin_ia32_pause()
#else
#define SOL_PAUSE() ((void)0)
#endif

static void sol_unit(const sol_call *c, const sol_step *s, long u) {
  if (s->fn) { s->fn(c, u); return; }
  sol_call image = *c;                      /* depth first: all steps of one chunk of the batch */
  image.chunk = u;
  for (int k = s->first; k < s->last; k++)
    for (long v = 0; v < sol_inner[k].units; v++) sol_inner[k].fn(&image, v);
}

static void sol_thread(void *data) {
  sol_run_state *r = data;
  int me = atomic_fetch_add(&r->ticket, 1);
  if (me >= r->threads) return;
  char *scratch = r->scratch + me * r->scratch_size;
  sol_call c = {r->ptr, r->arena, scratch, scratch + SOL_KERNEL_SCRATCH, 0, &r->error};
  for (int k = r->first; k < r->last; k++) {
    const sol_step *s = &sol_steps[k];
    for (int i = 0; i < r->threads; i++) {
      sol_share *share = &r->shares[k * r->threads + (me + i) % r->threads];
      for (;;) {
        if (atomic_load_explicit(&share->next, memory_order_relaxed) >= share->end) break;
        long u = atomic_fetch_add(&share->next, 1);
        if (u >= share->end) break;
        sol_unit(&c, s, u);
        atomic_fetch_add_explicit(&r->done[k], 1, memory_order_release);
      }
    }
    for (int spins = 0; atomic_load_explicit(&r->done[k], memory_order_acquire) < s->units;)
      if (++spins < 4096) SOL_PAUSE(); else sched_yield();
    if (r->times && me == 0) r->times[k + 1] = sol_now();
  }
}

/* bytes of `state` that sol_program wants for a number of threads */
long sol_state_size(int threads) {
  return (long)sizeof(sol_share) * SOL_STEPS * threads + 64L * SOL_STEPS + 128;
}

/* Run steps first..last-1. ptr: base addresses of inputs, weights and outputs; scratch: threads * sol_scratch_size()
 * bytes; times: null, or room for SOL_STEPS + 1 moments (s), the end of each step in the first
 * thread; parallel: GOMP_parallel of the OpenMP runtime in this process, or null.
 * Returns 0, or the site of an indirect index that is out of range, its value at the start of state. */
int sol_program(void **ptr, char *arena, char *scratch, char *state, double *times, int threads,
                int first, int last, void (*parallel)(void (*)(void *), void *, unsigned, unsigned)) {
  if (threads < 1 || !parallel) threads = 1;
  sol_run_state r = {ptr, arena, scratch, SOL_SCRATCH_SIZE, threads, (sol_share *)state,
                     (_Atomic long *)(state + sizeof(sol_share) * SOL_STEPS * threads), times, first, last, 0, {0, 0}};
  for (int k = first; k < last; k++) {
    r.done[k] = 0;
    for (int t = 0; t < threads; t++) {
      sol_share *share = &r.shares[k * threads + t];
      share->next = sol_steps[k].units * t / threads;
      share->end = sol_steps[k].units * (t + 1) / threads;
    }
  }
  if (times) times[first] = sol_now();
  if (threads == 1) sol_thread(&r);
  else parallel(sol_thread, &r, threads, 0);
  if (r.error.site) *(long *)state = r.error.value;
  return (int)r.error.site;
}
long sol_scratch_size(void) { return SOL_SCRATCH_SIZE; }
