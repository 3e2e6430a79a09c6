/* What generated vector code calls beside intrinsics. The machine loads and stores 4 and 8 bytes
 * alone: smaller elements are found in their words, and stored one by one, or as words where they
 * lie side by side. L is the vector length. */

/* |x| of doubles and of floats */
static inline __vr sol_magnitude(__vr x, int L) {
  return _vel_vand_vsvl(0x7fffffffffffffffL, x, L);
}

/* a number that the compiler takes for a new one, so that no loop keeps a vector of it */
static inline f32 sol_here_f32(f32 x) { __asm__ volatile("" : "+r"(x)); return x; }
static inline f64 sol_here_f64(f64 x) { __asm__ volatile("" : "+r"(x)); return x; }
static inline i64 sol_here_i64(i64 x) { __asm__ volatile("" : "+r"(x)); return x; }

/* for each address, the bytes from there on to the end of their word, the first one lowest */
static inline __vr sol_gather_small(__vr at, int L) {
  const __vr word = _vel_vgtlzx_vvssl(_vel_vand_vsvl(~3L, at, L), 0, 0, L);
  return _vel_vsrl_vvvl(word, _vel_vsll_vvsl(_vel_vand_vsvl(3, at, L), 3, L), L);
}
static inline __vr sol_gather_small_masked(__vr at, __vm256 m, int L) {
  const __vr none = _vel_vbrdl_vsl(0, L);
  const __vr word = _vel_vgtlzx_vvssmvl(_vel_vand_vsvl(~3L, at, L), 0, 0, m, none, L);
  return _vel_vsrl_vvvl(word, _vel_vsll_vvsl(_vel_vand_vsvl(3, at, L), 3, L), L);
}
/* the low `bits` of each lane, as an unsigned or a signed number */
static inline __vr sol_unsigned(__vr x, int bits, int L) {
  return _vel_vand_vsvl((1L << bits) - 1, x, L);
}
static inline __vr sol_extended(__vr x, int bits, int L) {
  return _vel_vsral_vvsl(_vel_vsll_vvsl(x, 64 - bits, L), 64 - bits, L);
}
/* a vector as longs in memory */
static inline void sol_put(long *to, __vr x, int L) { _vel_vst_vssl(x, 8, to, L); }

static inline void sol_store_u8(__vr x, u8 *p, long step, int L) {
  long t[256];
  sol_put(t, x, L);
  if (step == 1 && (L & 3) == 0 && ((long)p & 3) == 0) {
    __vr w = _vel_vand_vsvl(255, _vel_vld_vssl(32, t, L >> 2), L >> 2);
    for (int k = 1; k < 4; k++) {
      const __vr b = _vel_vand_vsvl(255, _vel_vld_vssl(32, t + k, L >> 2), L >> 2);
      w = _vel_vor_vvvl(w, _vel_vsll_vvsl(b, 8 * k, L >> 2), L >> 2);
    }
    _vel_vstl_vssl(w, 4, p, L >> 2);
    return;
  }
  for (int i = 0; i < L; i++) p[i * step] = t[i];
}
static inline void sol_store_u16(__vr x, u16 *p, long step, int L) {
  long t[256];
  sol_put(t, x, L);
  if (step == 1 && (L & 1) == 0 && ((long)p & 3) == 0) {
    const __vr a = _vel_vand_vsvl(65535, _vel_vld_vssl(16, t, L >> 1), L >> 1);
    const __vr b = _vel_vand_vsvl(65535, _vel_vld_vssl(16, t + 1, L >> 1), L >> 1);
    _vel_vstl_vssl(_vel_vor_vvvl(a, _vel_vsll_vvsl(b, 16, L >> 1), L >> 1), 4, p, L >> 1);
    return;
  }
  for (int i = 0; i < L; i++) p[i * step] = t[i];
}
/* elements of any size at addresses, where a mask (as longs) says so */
#define SOL_SCATTER(T, name)                                                        \
  static inline void name(__vr x, __vr at, __vr m, int L) {                         \
    long t[256], a[256], n[256];                                                    \
    sol_put(t, x, L), sol_put(a, at, L), sol_put(n, m, L);                          \
    for (int i = 0; i < L; i++)                                                     \
      if (n[i]) *(T *)a[i] = t[i];                                                  \
  }
SOL_SCATTER(u8, sol_scatter_u8)
SOL_SCATTER(u16, sol_scatter_u16)

/* doubles without their fraction as longs, or as numbers of 32 bits. What these do not hold, NaN too,
   is the least of them, as on the hosts that eager runs on; the conversions leave it open. */
static inline __vr sol_to_long(__vr x, int L) {
  const __vm256 fits = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p63, sol_magnitude(x, L), L), L);
  return _vel_vmrg_vsvml(1UL << 63, _vel_vcvtldrz_vvl(x, L), fits, L);
}
static inline __vr sol_to_int(__vr x, int L) {
  const __vm256 fits = _vel_andm_mmm(_vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p31, x, L), L),
                                     _vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(-0x1.00000002p31, x, L), L));
  return _vel_vmrg_vsvml(-(1L << 31), _vel_vcvtldrz_vvl(x, L), fits, L);
}
static inline i64 sol_to_long_of(f64 x) {
  return x < 0x1p63 && x >= -0x1p63 ? (i64)x : -0x7fffffffffffffffL - 1;
}
static inline i64 sol_to_int_of(f64 x) {
  return x < 0x1p31 && x > -0x1.00000002p31 ? (i64)x : -(1L << 31);
}

/* longs rounded once to floats: what a double cannot hold leaves a bit that says so */
static inline __vr sol_long_to_float(__vr x, int L) {
  const __vr low = _vel_vand_vsvl(2047, x, L);
  const __vr odd = _vel_vor_vsvl(2048, _vel_vand_vsvl(~2047L, x, L), L);
  /* magnitudes below 2^53 are exact */
  const __vr high = _vel_vsral_vvsl(x, 53, L);
  const __vm256 wide = _vel_andm_mmm(
      _vel_vfmklne_mvl(low, L),
      _vel_andm_mmm(_vel_vfmklne_mvl(high, L), _vel_vfmklne_mvl(_vel_vaddsl_vsvl(1, high, L), L)));
  const __vr y = _vel_vmrg_vvvml(x, odd, wide, L);
  return _vel_vcvtsd_vvl(_vel_vcvtdl_vvl(y, L), L);
}
/* floats as bfloat16, to nearest even; NaN stays one */
static inline __vr sol_narrow_bf16(__vr x, int L) {
  const __vr b = _vel_vsrl_vvsl(x, 32, L);
  const __vr even = _vel_vand_vsvl(1, _vel_vsrl_vvsl(b, 16, L), L);
  const __vr r = _vel_vsrl_vvsl(_vel_vaddsl_vsvl(0x7fff, _vel_vaddsl_vvvl(b, even, L), L), 16, L);
  return _vel_vmrg_vvvml(r, _vel_vbrdl_vsl(0x7fc0, L), _vel_vfmksnan_mvl(x, L), L);
}
static inline __vr sol_widen_bf16(__vr x, int L) { return _vel_vsll_vvsl(x, 48, L); }
/* float16: subnormal ones are multiples of 2^-24 */
static inline __vr sol_widen_f16(__vr x, int L) {
  const __vr e = _vel_vand_vsvl(0x7fff, x, L);
  const __vm256 tiny = _vel_vfmkllt_mvl(_vel_vaddsl_vsvl(-0x400, e, L), L);
  const __vm256 last = _vel_vfmklge_mvl(_vel_vaddsl_vsvl(-0x7c00, e, L), L);
  __vr n = _vel_vaddsl_vsvl(0x38000000, _vel_vsll_vvsl(e, 13, L), L);
  n = _vel_vmrg_vvvml(n, _vel_vor_vsvl(0x7f800000, n, L), last, L);
  const __vr t = _vel_vcvtsd_vvl(_vel_vfmuld_vsvl(0x1p-24, _vel_vcvtdl_vvl(e, L), L), L);
  const __vr y = _vel_vmrg_vvvml(_vel_vsll_vvsl(n, 32, L), t, tiny, L);
  return _vel_vor_vvvl(y, _vel_vsll_vvsl(_vel_vand_vsvl(0x8000, x, L), 48, L), L);
}
static inline __vr sol_narrow_f16(__vr x, int L) {
  const __vr b = _vel_vsrl_vvsl(x, 32, L), a = _vel_vand_vsvl(0x7fffffff, b, L);
  const __vm256 tiny = _vel_vfmkllt_mvl(_vel_vaddsl_vsvl(-0x38800000L, a, L), L);
  const __vm256 big = _vel_vfmklgt_mvl(_vel_vaddsl_vsvl(-0x477fffffL, a, L), L);
  const __vm256 nan = _vel_vfmklgt_mvl(_vel_vaddsl_vsvl(-0x7f800000L, a, L), L);
  const __vr even = _vel_vand_vsvl(1, _vel_vsrl_vvsl(a, 13, L), L);
  __vr n = _vel_vaddsl_vsvl(-0x38000000L + 0xfff, _vel_vaddsl_vvvl(a, even, L), L);
  n = _vel_vsrl_vvsl(n, 13, L);
  /* x + 1/2 leaves the multiple of 2^-24 in the low bits */
  const __vr t = _vel_vfadds_vsvl(0.5f, _vel_vsll_vvsl(a, 32, L), L);
  n = _vel_vmrg_vvvml(n, _vel_vaddsl_vsvl(-0x3f000000L, _vel_vsrl_vvsl(t, 32, L), L), tiny, L);
  n = _vel_vmrg_vvvml(n, _vel_vbrdl_vsl(0x7c00, L), big, L);
  n = _vel_vmrg_vvvml(n, _vel_vbrdl_vsl(0x7e00, L), nan, L);
  return _vel_vor_vvvl(_vel_vand_vsvl(0x8000, _vel_vsrl_vvsl(b, 16, L), L), n, L);
}
/* quotient rounded down, and remainder, of longs by a positive number */
static inline __vr sol_quotient(__vr x, long d, int L) {
  const __vr q = _vel_vdivsl_vvsl(x, d, L);
  const __vr r = _vel_vsubsl_vvvl(x, _vel_vmulsl_vsvl(d, q, L), L);
  return _vel_vmrg_vvvml(q, _vel_vaddsl_vsvl(-1, q, L), _vel_vfmkllt_mvl(r, L), L);
}
