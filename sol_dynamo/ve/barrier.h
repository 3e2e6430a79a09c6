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
  // last generation that was released. One line, so that a wait is one line's traffic. One piece of
  // assembly, which every core runs through from its begin to its end, whoever comes last: what
  // follows then depends neither on the order of arrivals nor on a compiler's order of blocks.
  unsigned long before, after, mine, t;
  __asm__ volatile(
      "svob\n\t"
      "fencem 3\n\t"
      "sll %[mine], %[generation], 8\n\t"
      "or %[before], 0, (0)1\n"  // the first try mostly fails: it is the load
      "0:\n\t"
      "srl %[t], %[before], 8\n\t"
      "brlt.l %[generation], %[t], 2f\n\t"  // its own call has failed elsewhere: it is stopped
      "or %[after], 0, %[mine]\n\t"
      "brne.l %[t], %[generation], 1f\n\t"
      "or %[after], 0, %[before]\n"
      "1:\n\t"
      "lea %[after], 1(, %[after])\n\t"
      "or %[t], 0, %[after]\n\t"
      "cas.l %[t], (%[line]), %[before]\n\t"
      "breq.l %[t], %[before], 1f\n\t"
      "or %[before], 0, %[t]\n\t"
      "br.l.t 0b\n"
      "1:\n\t"
      "and %[after], %[after], (56)0\n\t"
      "brne.l %[after], %[cores], 2f\n\t"
      "st %[generation], 8(, %[line])\n"
      "2:\n\t"
      "ld %[t], 8(, %[line])\n\t"
      "brne.l %[t], %[generation], 2b\n\t"
      "fencem 3"
      : [before] "=&r"(before), [after] "=&r"(after), [mine] "=&r"(mine), [t] "=&r"(t)
      : [line] "r"(line), [generation] "r"(generation), [cores] "r"(cores)
      : "memory");
}

#endif
