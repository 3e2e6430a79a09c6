// A barrier between cores of one card, for generated code: included as text, freestanding C.
//
// `line` points to 128 bytes of VE memory, at a multiple of 128, zero before the first use; every
// core of a group passes the same. `generation` numbers the group's barriers: each has a greater
// one than all before it on this line, across calls too, and is less than 2^56. It is what makes a
// barrier whole again by itself after a call that failed: counts and releases of other generations
// are not taken for this one's. So nothing has to be reset between calls, and cores that are still
// in a failed call cannot disturb those of the next.
//
// Memory: what any core did before the barrier, vector stores (.ot too) among it, all cores see
// behind it. 255 cores at most. No library function, no stack, no vector register.
#ifndef SOL_VE_BARRIER_H
#define SOL_VE_BARRIER_H

#define SOL_BARRIER_BYTES 128

static inline __attribute__((always_inline)) void sol_barrier(unsigned long *line,
                                                              unsigned long generation,
                                                              unsigned long cores) {
  if (cores < 2) return;
  // [0]: the generation that cores are arriving at, and in the low byte how many have; [1]: the
  // last generation that was released. One line, so that a wait is one line's traffic.
  __asm__ volatile("svob\n\tfencem 3" ::: "memory");
  unsigned long before = 0, after;
  do {  // the first try mostly fails: it is the load
    if (before >> 8 > generation) break;  // this core's call has failed elsewhere: it is stopped
    after = (before >> 8 == generation ? before : generation << 8) + 1;
  } while (!__atomic_compare_exchange_n(&line[0], &before, after, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
  if (before >> 8 <= generation && (after & 255) == cores) {
    __atomic_store_n(&line[1], generation, __ATOMIC_SEQ_CST);
  } else {
    while (__atomic_load_n(&line[1], __ATOMIC_RELAXED) != generation) {
    }
  }
  __asm__ volatile("fencem 3" ::: "memory");
}

#endif
