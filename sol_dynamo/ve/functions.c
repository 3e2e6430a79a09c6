/* Math functions of vectors. A lane holds a double, a float in its upper half, or a long.

   Functions of floats are computed in double, which costs the vector unit nothing: the error is
   that of the last rounding, and no argument needs care for subnormals or overflow. The cores are
   those of kernels/c/vecmath_f32.c, whose comments give their errors. Functions of doubles are
   within about one ulp. functions.py takes what a file needs: every function stands by itself,
   from `static inline` to a brace in the first column. L is the vector length. */

static inline __vr sol_select(__vm256 m, __vr a, __vr b, int L)
{
  return _vel_vmrg_vvvml(b, a, m, L);
}

/* y, which is positive or has it already, with the sign of x */
static inline __vr sol_signed(__vr y, __vr x, int L)
{
  return _vel_vor_vvvl(y, _vel_vand_vsvl(-0x7fffffffffffffffL - 1, x, L), L);
}

/* lo <= x <= hi; NaN stays */
static inline __vr sol_clamp_f64(__vr x, double lo, double hi, int L)
{
  x = sol_select(_vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(hi, x, L), L), _vel_vbrdd_vsl(hi, L), x, L);
  return sol_select(_vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(lo, x, L), L), _vel_vbrdd_vsl(lo, L), x, L);
}

/* -- rounding (exact) ------------------------------------------------------------------------- */

/* x + 2^52 has no fraction, and the sum rounds half to even; larger x are integers already */
static inline __vr sol_round_f64v(__vr x, int L)
{
  const __vr a = sol_magnitude(x, L);
  const __vr n = _vel_vfaddd_vsvl(-0x1p52, _vel_vfaddd_vsvl(0x1p52, a, L), L);
  const __vm256 small = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p52, a, L), L);
  return sol_select(small, sol_signed(n, x, L), x, L);
}

static inline __vr sol_floor_f64v(__vr x, int L)
{
  const __vr n = sol_round_f64v(x, L);
  const __vm256 above = _vel_vfmkdgt_mvl(_vel_vfcmpd_vvvl(n, x, L), L);
  return sol_signed(sol_select(above, _vel_vfaddd_vsvl(-1.0, n, L), n, L), x, L);
}

static inline __vr sol_ceil_f64v(__vr x, int L)
{
  const __vr n = sol_round_f64v(x, L);
  const __vm256 below = _vel_vfmkdlt_mvl(_vel_vfcmpd_vvvl(n, x, L), L);
  return sol_signed(sol_select(below, _vel_vfaddd_vsvl(1.0, n, L), n, L), x, L);
}

static inline __vr sol_trunc_f64v(__vr x, int L)
{
  return sol_signed(sol_floor_f64v(sol_magnitude(x, L), L), x, L);
}

static inline __vr sol_sqrt_f64v(__vr x, int L)
{
  return _vel_vfsqrtd_vvl(x, L);
}

static inline __vr sol_sqrt_f32v(__vr x, int L)
{
  return _vel_vfsqrts_vvl(x, L);
}

static inline __vr sol_rsqrt_f64v(__vr x, int L)
{
  return _vel_vfdivd_vsvl(1.0, _vel_vfsqrtd_vvl(x, L), L);
}

/* -- parts ------------------------------------------------------------------------------------ */

/* exp(r) - 1 for |r| <= log(2)/2, error 2^-31.9 */
static inline __vr sol_expm1_near(__vr r, int L)
{
  __vr q = _vel_vfmadd_vsvvl(0x1.6d723defb46f3p-10, _vel_vbrdd_vsl(0x1.a032c08f01e98p-13, L), r, L);
  q = _vel_vfmadd_vsvvl(0x1.1111899adb9bap-7, q, r, L);
  q = _vel_vfmadd_vsvvl(0x1.5554b0ec6fd96p-5, q, r, L);
  q = _vel_vfmadd_vsvvl(0x1.555554ef4e7d9p-3, q, r, L);
  q = _vel_vfmadd_vsvvl(0x1.00000026069abp-1, q, r, L);
  return _vel_vfmadd_vvvvl(r, _vel_vfmuld_vvvl(r, r, L), q, L);
}

/* 2^n of a double t = n + 1.5 * 2^52 */
static inline __vr sol_power_of_two(__vr t, int L)
{
  return _vel_vsll_vvsl(_vel_vaddsl_vsvl(1023, t, L), 52, L);
}

/* x = n log(2) + r (Cody & Waite 1980): gives exp(r) - 1, and 2^n in *s; |x| < 700.
   1.5 * 2^52 added rounds to an integer, which then stands in the low bits. */
static inline __vr sol_exp_parts(__vr x, __vr *s, int L)
{
  const __vr t = _vel_vfaddd_vsvl(0x1.8p52, _vel_vfmuld_vsvl(0x1.71547652b82fep+0, x, L), L);
  const __vr n = _vel_vfaddd_vsvl(-0x1.8p52, t, L);
  *s = sol_power_of_two(t, L);
  return sol_expm1_near(_vel_vfmadd_vvsvl(x, -0x1.62e42fefa39efp-1, n, L), L);
}

/* log(m) = 2 atanh((m - 1) / (m + 1)) for 3/4 <= m < 3/2, error 2^-42.2 */
static inline __vr sol_log_near(__vr m, int L)
{
  const __vr z = _vel_vfdivd_vvvl(_vel_vfaddd_vsvl(-1.0, m, L), _vel_vfaddd_vsvl(1.0, m, L), L);
  const __vr w = _vel_vfmuld_vvvl(z, z, L);
  __vr q = _vel_vfmadd_vsvvl(0x1.c553ad0fa44d6p-3, _vel_vbrdd_vsl(0x1.9c1d3420e93a3p-3, L), w, L);
  q = _vel_vfmadd_vsvvl(0x1.2496e39812271p-2, q, w, L);
  q = _vel_vfmadd_vsvvl(0x1.99998f47318c0p-2, q, w, L);
  q = _vel_vfmadd_vsvvl(0x1.5555555915625p-1, q, w, L);
  return _vel_vfmuld_vvvl(z, _vel_vfmadd_vsvvl(2.0, q, w, L), L);
}

/* x = 2^k m with 3/4 <= m < 3/2, for any log(x) = k log(2) + log(m): infinite k for 0 and
   infinity, NaN m for negative x and NaN. x is zero or no subnormal double. */
static inline __vr sol_split(__vr x, __vr *k, int L)
{
  const __vr e = _vel_vsral_vvsl(_vel_vaddsl_vsvl(-0x3fe8000000000000L, x, L), 52, L);
  const __vm256 zero = _vel_vfmkdeq_mvl(x, L);
  const __vm256 infinite = _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(__builtin_inf(), x, L), L);
  const __vm256 number = _vel_vfmkdge_mvl(x, L);
  __vr n = _vel_vcvtdl_vvl(e, L);
  n = sol_select(infinite, _vel_vbrdd_vsl(__builtin_inf(), L), n, L);
  *k = sol_select(zero, _vel_vbrdd_vsl(-__builtin_inf(), L), n, L);
  const __vr m = _vel_vsubsl_vvvl(x, _vel_vsll_vvsl(e, 52, L), L);
  return sol_select(number, m, _vel_vbrdd_vsl(__builtin_nan(""), L), L);
}

/* -- exponentials of floats ------------------------------------------------------------------- */

static inline __vr sol_exp_f32v(__vr x, int L)
{
  __vr s;
  const __vr p = sol_exp_parts(sol_clamp_f64(_vel_vcvtds_vvl(x, L), -120.0, 120.0, L), &s, L);
  return _vel_vcvtsd_vvl(_vel_vfmadd_vvvvl(s, s, p, L), L);
}

static inline __vr sol_exp2_f32v(__vr x, int L)
{
  const __vr y = sol_clamp_f64(_vel_vcvtds_vvl(x, L), -160.0, 160.0, L);
  const __vr t = _vel_vfaddd_vsvl(0x1.8p52, y, L), s = sol_power_of_two(t, L);
  const __vr r = _vel_vfsubd_vvvl(y, _vel_vfaddd_vsvl(-0x1.8p52, t, L), L);
  const __vr p = sol_expm1_near(_vel_vfmuld_vsvl(0x1.62e42fefa39efp-1, r, L), L);
  return _vel_vcvtsd_vvl(_vel_vfmadd_vvvvl(s, s, p, L), L);
}

/* 2^n p + (2^n - 1), which keeps its precision near zero */
static inline __vr sol_expm1_wide(__vr x, int L)
{
  __vr s;
  const __vr p = sol_exp_parts(x, &s, L);
  return _vel_vfmadd_vvvvl(_vel_vfaddd_vsvl(-1.0, s, L), s, p, L);
}

static inline __vr sol_expm1_f32v(__vr x, int L)
{
  const __vr y = sol_clamp_f64(_vel_vcvtds_vvl(x, L), -40.0, 120.0, L);
  return sol_signed(_vel_vcvtsd_vvl(sol_expm1_wide(y, L), L), x, L);
}

/* t / (1 + t) or 1 / (1 + t) with t = exp(-|x|), which cannot overflow */
static inline __vr sol_sigmoid_f32v(__vr x, int L)
{
  const __vr y = _vel_vcvtds_vvl(x, L), one = _vel_vbrdd_vsl(1.0, L);
  const __vr a = sol_clamp_f64(sol_magnitude(y, L), 0.0, 120.0, L);
  __vr s;
  const __vr p = sol_exp_parts(_vel_vfsubd_vsvl(0.0, a, L), &s, L);
  const __vr t = _vel_vfmadd_vvvvl(s, s, p, L);
  const __vr n = sol_select(_vel_vfmkdlt_mvl(y, L), t, one, L);
  return _vel_vcvtsd_vvl(_vel_vfdivd_vvvl(n, _vel_vfaddd_vsvl(1.0, t, L), L), L);
}

/* t / (2 + t) with t = exp(2 |x|) - 1 */
static inline __vr sol_tanh_f32v(__vr x, int L)
{
  const __vr a = sol_clamp_f64(sol_magnitude(_vel_vcvtds_vvl(x, L), L), 0.0, 20.0, L);
  const __vr t = sol_expm1_wide(_vel_vfaddd_vvvl(a, a, L), L);
  const __vr y = _vel_vfdivd_vvvl(t, _vel_vfaddd_vsvl(2.0, t, L), L);
  return sol_signed(_vel_vcvtsd_vvl(y, L), x, L);
}

/* x + x q(x^2) below 1, error 2^-29.4; above, 1 - exp(-g(x)), error 2^-29.7, which is 1 from 4 on */
static inline __vr sol_erf_f32v(__vr x, int L)
{
  const __vr a = sol_clamp_f64(sol_magnitude(_vel_vcvtds_vvl(x, L), L), 0.0, 4.0, L);
  const __vr w = _vel_vfmuld_vvvl(a, a, L);
  __vr q = _vel_vfmadd_vsvvl(-0x1.a3515ep-11, _vel_vbrdd_vsl(0x1.4771fcp-14, L), w, L);
  q = _vel_vfmadd_vsvvl(0x1.53f224p-8, q, w, L);
  q = _vel_vfmadd_vsvvl(-0x1.b7f71ap-6, q, w, L);
  q = _vel_vfmadd_vsvvl(0x1.ce2ce6p-4, q, w, L);
  q = _vel_vfmadd_vsvvl(-0x1.81273ep-2, q, w, L);
  q = _vel_vfmadd_vsvvl(0x1.06eba8p-3, q, w, L);
  __vr g = _vel_vfmadd_vsvvl(0x1.8282aap-9, _vel_vbrdd_vsl(-0x1.871b58p-13, L), a, L);
  g = _vel_vfmadd_vsvvl(-0x1.65e044p-6, g, a, L);
  g = _vel_vfmadd_vsvvl(0x1.a65ea2p-4, g, a, L);
  g = _vel_vfmadd_vsvvl(0x1.46b936p-1, g, a, L);
  g = _vel_vfmadd_vsvvl(0x1.208974p+0, g, a, L);
  g = _vel_vfmadd_vsvvl(0x1.63eb4ap-12, g, a, L);
  __vr s;
  const __vr p = sol_exp_parts(_vel_vfsubd_vsvl(0.0, g, L), &s, L);
  const __vr large = _vel_vfsubd_vsvl(1.0, _vel_vfmadd_vvvvl(s, s, p, L), L);
  const __vr small = _vel_vfmadd_vvvvl(a, a, q, L);
  const __vm256 below = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(1.0, a, L), L);
  return sol_signed(_vel_vcvtsd_vvl(sol_select(below, small, large, L), L), x, L);
}

/* -- logarithms of floats --------------------------------------------------------------------- */

static inline __vr sol_log_f32v(__vr x, int L)
{
  __vr k;
  const __vr m = sol_split(_vel_vcvtds_vvl(x, L), &k, L);
  return _vel_vcvtsd_vvl(_vel_vfmadd_vvsvl(sol_log_near(m, L), 0x1.62e42fefa39efp-1, k, L), L);
}

static inline __vr sol_log2_f32v(__vr x, int L)
{
  __vr k;
  const __vr m = sol_split(_vel_vcvtds_vvl(x, L), &k, L);
  return _vel_vcvtsd_vvl(_vel_vfmadd_vvsvl(k, 0x1.71547652b82fep+0, sol_log_near(m, L), L), L);
}

static inline __vr sol_log10_f32v(__vr x, int L)
{
  __vr k;
  const __vr m = sol_split(_vel_vcvtds_vvl(x, L), &k, L);
  const __vr l = _vel_vfmuld_vsvl(0x1.bcb7b1526e50ep-2, sol_log_near(m, L), L);
  return _vel_vcvtsd_vvl(_vel_vfmadd_vvsvl(l, 0x1.34413509f79ffp-2, k, L), L);
}

/* log(1 + y) = log(u) + c where u + c = 1 + y exactly; for u far from 1, c is nothing. u = 2^k m. */
static inline __vr sol_log1p_wide(__vr y, int L)
{
  const __vr u = _vel_vfaddd_vsvl(1.0, y, L);
  const __vr c = _vel_vfsubd_vvvl(y, _vel_vfaddd_vsvl(-1.0, u, L), L);
  __vr k;
  const __vr m = sol_split(u, &k, L);
  /* infinity - infinity is no correction */
  const __vm256 finite = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p1000, u, L), L);
  const __vr rest = sol_select(finite, c, _vel_vbrdd_vsl(0.0, L), L);
  const __vr l = _vel_vfaddd_vvvl(sol_log_near(m, L), rest, L);
  return _vel_vfmadd_vvsvl(l, 0x1.62e42fefa39efp-1, k, L);
}

static inline __vr sol_log1p_f32v(__vr x, int L)
{
  const __vr y = _vel_vcvtsd_vvl(sol_log1p_wide(_vel_vcvtds_vvl(x, L), L), L);
  return sol_select(_vel_vfmkseq_mvl(x, L), x, y, L);
}

/* -- trigonometry of floats ------------------------------------------------------------------- */

/* Angles up to 2^22 are reduced in double with pi in two parts: n times the first, of 29 bits, is
   exact, and what remains is known to 2^-59. Of larger ones, x = 2^e m with a whole m of 24 bits,
   the product of m and 96 bits of 2/pi from the place that 2^e chooses holds the angle modulo a
   turn (Payne & Hanek 1983): the number of quarters modulo 4 in *n, and the rest. */
static inline __vr sol_quarter_large(__vr x, __vr *n, int L)
{
  static const u32 words[] = {0, 0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561, 0xb7246e3a};
  const __vr bits = sol_magnitude(x, L);
  const __vr m = _vel_vsrl_vvsl(_vel_vor_vsvl(1L << 52, _vel_vand_vsvl((1L << 52) - 1, bits, L), L), 29, L);
  /* 32 zeros stand before the point; of small or infinite numbers no word is read that is not there */
  __vr e = _vel_vaddsl_vsvl(-1023 - 23 - 2 + 32, _vel_vsrl_vvsl(bits, 52, L), L);
  e = _vel_vminsl_vsvl(160, _vel_vmaxsl_vsvl(0, e, L), L);
  const __vr at = _vel_vaddsl_vsvl((long)words, _vel_vsll_vvsl(_vel_vsrl_vvsl(e, 5, L), 2, L), L);
  const __vr s = _vel_vand_vsvl(31, e, L), left = _vel_vsubsl_vsvl(32, s, L);
  __vr w[4], f[3];
  for (int k = 0; k < 4; k++)
    w[k] = _vel_vgtlzx_vvssl(_vel_vaddsl_vsvl(4 * k, at, L), 0, 0, L);
  for (int k = 0; k < 3; k++) {
    const __vr high = _vel_vsll_vvvl(w[k], s, L), low = _vel_vsrl_vvvl(w[k + 1], left, L);
    f[k] = _vel_vand_vsvl(0xffffffffL, _vel_vor_vvvl(high, low, L), L);
  }
  __vr p = _vel_vsll_vvsl(_vel_vmulsl_vvvl(m, f[0], L), 32, L);
  p = _vel_vaddsl_vvvl(p, _vel_vmulsl_vvvl(m, f[1], L), L);
  p = _vel_vaddsl_vvvl(p, _vel_vsrl_vvsl(_vel_vmulsl_vvvl(m, f[2], L), 32, L), L);
  const __vr q = _vel_vsrl_vvsl(_vel_vaddsl_vsvl(1L << 61, p, L), 62, L);
  const __vr r = _vel_vsubsl_vvvl(p, _vel_vsll_vvsl(q, 62, L), L);
  const __vm256 negative = _vel_vfmkllt_mvl(x, L);
  const __vr sign = _vel_vand_vsvl(-0x7fffffffffffffffL - 1, x, L);
  *n = _vel_vmrg_vvvml(q, _vel_vsubsl_vsvl(0, q, L), negative, L);
  return _vel_vxor_vvvl(_vel_vfmuld_vsvl(0x1.921fb54442d18p-62, _vel_vcvtdl_vvl(r, L), L), sign, L);
}

/* x = r + n pi/2: gives r, |r| <= pi/4, and n modulo 4 in the low bits of *n */
static inline __vr sol_quarter(__vr x, __vr *n, int L)
{
  const __vr t = _vel_vfaddd_vsvl(0x1.8p52, _vel_vfmuld_vsvl(0x1.45f306dc9c883p-1, x, L), L);
  const __vr k = _vel_vfaddd_vsvl(-0x1.8p52, t, L);
  __vr r = _vel_vfmadd_vvsvl(x, -0x1.921fb54p+0, k, L);
  r = _vel_vfmadd_vvsvl(r, -0x1.10b4611a62633p-30, k, L);
  *n = t;
  const __vm256 large = _vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(0x1p22, sol_magnitude(x, L), L), L);
  if (_vel_pcvm_sml(large, L)) {
    __vr other;
    const __vr rest = sol_quarter_large(x, &other, L);
    r = sol_select(large, rest, r, L);
    *n = sol_select(large, other, t, L);
  }
  const __vm256 infinite = _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(__builtin_inf(), sol_magnitude(x, L), L), L);
  return sol_select(infinite, _vel_vbrdd_vsl(__builtin_nan(""), L), r, L);
}

/* sine and cosine of |r| <= pi/4; errors 2^-37, 2^-43 */
static inline __vr sol_sine_near(__vr r, int L)
{
  const __vr s = _vel_vfmuld_vvvl(r, r, L);
  __vr a = _vel_vfmadd_vsvvl(-0x1.a00f7f0f1e590p-13, _vel_vbrdd_vsl(0x1.6cd1ec72a22ddp-19, L), s, L);
  a = _vel_vfmadd_vsvvl(0x1.1111086a42ae8p-7, a, s, L);
  a = _vel_vfmadd_vsvvl(-0x1.5555554c71abcp-3, a, s, L);
  return _vel_vfmadd_vvvvl(r, _vel_vfmuld_vvvl(r, s, L), a, L);
}

static inline __vr sol_cosine_near(__vr r, int L)
{
  const __vr s = _vel_vfmuld_vvvl(r, r, L);
  __vr b = _vel_vfmadd_vsvvl(0x1.a00eb98b10c5dp-16, _vel_vbrdd_vsl(-0x1.23c977e14651cp-22, L), s, L);
  b = _vel_vfmadd_vsvvl(-0x1.6c16b3487832ap-10, b, s, L);
  b = _vel_vfmadd_vsvvl(0x1.55555545c4b5fp-5, b, s, L);
  b = _vel_vfmadd_vsvvl(-0x1.ffffffffe98a7p-2, b, s, L);
  return _vel_vfmadd_vsvvl(1.0, s, b, L);
}

/* sin(r + n pi/2): of each odd quarter the cosine, of the upper two with the other sign */
static inline __vr sol_turned(__vr r, __vr n, int L)
{
  const __vm256 odd = _vel_vfmklne_mvl(_vel_vand_vsvl(1, n, L), L);
  const __vr y = sol_select(odd, sol_cosine_near(r, L), sol_sine_near(r, L), L);
  return _vel_vxor_vvvl(y, _vel_vsll_vvsl(_vel_vand_vsvl(2, n, L), 62, L), L);
}

static inline __vr sol_sin_f32v(__vr x, int L)
{
  __vr n;
  const __vr r = sol_quarter(_vel_vcvtds_vvl(x, L), &n, L);
  const __vr y = _vel_vcvtsd_vvl(sol_turned(r, n, L), L);
  return sol_select(_vel_vfmkseq_mvl(x, L), x, y, L);
}

static inline __vr sol_cos_f32v(__vr x, int L)
{
  __vr n;
  const __vr r = sol_quarter(_vel_vcvtds_vvl(x, L), &n, L);
  return _vel_vcvtsd_vvl(sol_turned(r, _vel_vaddsl_vsvl(1, n, L), L), L);
}

/* sin(r) / cos(r), or -cos(r) / sin(r) for odd n */
static inline __vr sol_tan_f32v(__vr x, int L)
{
  __vr n;
  const __vr r = sol_quarter(_vel_vcvtds_vvl(x, L), &n, L);
  const __vr sine = sol_sine_near(r, L), cosine = sol_cosine_near(r, L);
  const __vm256 odd = _vel_vfmklne_mvl(_vel_vand_vsvl(1, n, L), L);
  const __vr over = sol_select(odd, _vel_vfsubd_vsvl(0.0, cosine, L), sine, L);
  const __vr y = _vel_vfdivd_vvvl(over, sol_select(odd, sine, cosine, L), L);
  return sol_select(_vel_vfmkseq_mvl(x, L), x, _vel_vcvtsd_vvl(y, L), L);
}

/* atan(a) for a >= 0: the series below tan(pi/8), error 2^-35; above, of (a - 1) / (a + 1) beside
   pi/4, and of -1 / a beside pi/2 */
static inline __vr sol_atan_wide(__vr a, int L)
{
  const __vm256 middle = _vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(0x1.a827999fcef34p-2, a, L), L);
  const __vm256 top = _vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(0x1.3504f333f9de6p+1, a, L), L);
  const __vr one = _vel_vbrdd_vsl(1.0, L);
  __vr n = sol_select(middle, _vel_vfaddd_vsvl(-1.0, a, L), a, L);
  __vr d = sol_select(middle, _vel_vfaddd_vsvl(1.0, a, L), one, L);
  n = sol_select(top, _vel_vbrdd_vsl(-1.0, L), n, L);
  d = sol_select(top, a, d, L);
  __vr base = sol_select(middle, _vel_vbrdd_vsl(0x1.921fb54442d18p-1, L), _vel_vbrdd_vsl(0.0, L), L);
  base = sol_select(top, _vel_vbrdd_vsl(0x1.921fb54442d18p+0, L), base, L);
  const __vr t = _vel_vfdivd_vvvl(n, d, L), s = _vel_vfmuld_vvvl(t, t, L);
  __vr q = _vel_vfmadd_vsvvl(1.0 / 25, _vel_vbrdd_vsl(-1.0 / 27, L), s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 23, q, s, L);
  q = _vel_vfmadd_vsvvl(1.0 / 21, q, s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 19, q, s, L);
  q = _vel_vfmadd_vsvvl(1.0 / 17, q, s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 15, q, s, L);
  q = _vel_vfmadd_vsvvl(1.0 / 13, q, s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 11, q, s, L);
  q = _vel_vfmadd_vsvvl(1.0 / 9, q, s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 7, q, s, L);
  q = _vel_vfmadd_vsvvl(1.0 / 5, q, s, L);
  q = _vel_vfmadd_vsvvl(-1.0 / 3, q, s, L);
  return _vel_vfaddd_vvvl(base, _vel_vfmadd_vvvvl(t, _vel_vfmuld_vvvl(t, s, L), q, L), L);
}

static inline __vr sol_atan_f32v(__vr x, int L)
{
  const __vr y = sol_atan_wide(sol_magnitude(_vel_vcvtds_vvl(x, L), L), L);
  return sol_signed(_vel_vcvtsd_vvl(y, L), x, L);
}

/* atan(x / sqrt(1 - x^2)) */
static inline __vr sol_asin_f32v(__vr x, int L)
{
  const __vr a = sol_magnitude(_vel_vcvtds_vvl(x, L), L);
  const __vr s = _vel_vfmuld_vvvl(_vel_vfsubd_vsvl(1.0, a, L), _vel_vfaddd_vsvl(1.0, a, L), L);
  const __vr y = sol_atan_wide(_vel_vfdivd_vvvl(a, _vel_vfsqrtd_vvl(s, L), L), L);
  return sol_signed(_vel_vcvtsd_vvl(y, L), x, L);
}

/* 2 atan(sqrt((1 - x) / (1 + x))) */
static inline __vr sol_acos_f32v(__vr x, int L)
{
  const __vr y = _vel_vcvtds_vvl(x, L);
  const __vr s = _vel_vfdivd_vvvl(_vel_vfsubd_vsvl(1.0, y, L), _vel_vfaddd_vsvl(1.0, y, L), L);
  const __vr z = sol_atan_wide(_vel_vfsqrtd_vvl(s, L), L);
  return _vel_vcvtsd_vvl(_vel_vfaddd_vvvl(z, z, L), L);
}

/* of y and x: the special cases of C99, F.9.1.4 */
static inline __vr sol_atan2_f32v(__vr y, __vr x, int L)
{
  const __vr u = sol_magnitude(_vel_vcvtds_vvl(y, L), L), v = sol_magnitude(_vel_vcvtds_vvl(x, L), L);
  const double infinity = __builtin_inf();
  const __vm256 zeros = _vel_andm_mmm(_vel_vfmkdeq_mvl(u, L), _vel_vfmkdeq_mvl(v, L));
  const __vm256 infinite = _vel_andm_mmm(_vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(infinity, u, L), L),
                                         _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(infinity, v, L), L));
  __vr r = sol_select(zeros, u, _vel_vfdivd_vvvl(u, v, L), L);
  r = sol_atan_wide(sol_select(infinite, _vel_vbrdd_vsl(1.0, L), r, L), L);
  const __vm256 behind = _vel_vfmkllt_mvl(x, L);
  r = sol_select(behind, _vel_vfsubd_vsvl(0x1.921fb54442d18p+1, r, L), r, L);
  return sol_signed(_vel_vcvtsd_vvl(r, L), y, L);
}

/* -- hyperbolic functions of floats ----------------------------------------------------------- */

/* (t + t / (1 + t)) / 2 with t = exp(|x|) - 1 */
static inline __vr sol_sinh_f32v(__vr x, int L)
{
  const __vr a = sol_clamp_f64(sol_magnitude(_vel_vcvtds_vvl(x, L), L), 0.0, 120.0, L);
  const __vr t = sol_expm1_wide(a, L);
  const __vr y = _vel_vfaddd_vvvl(t, _vel_vfdivd_vvvl(t, _vel_vfaddd_vsvl(1.0, t, L), L), L);
  return sol_signed(_vel_vcvtsd_vvl(_vel_vfmuld_vsvl(0.5, y, L), L), x, L);
}

static inline __vr sol_cosh_f32v(__vr x, int L)
{
  const __vr a = sol_clamp_f64(sol_magnitude(_vel_vcvtds_vvl(x, L), L), 0.0, 120.0, L);
  __vr s;
  const __vr p = sol_exp_parts(a, &s, L), t = _vel_vfmadd_vvvvl(s, s, p, L);
  const __vr y = _vel_vfaddd_vvvl(t, _vel_vfdivd_vsvl(1.0, t, L), L);
  return _vel_vcvtsd_vvl(_vel_vfmuld_vsvl(0.5, y, L), L);
}

/* log1p(a + a^2 / (1 + sqrt(1 + a^2))) */
static inline __vr sol_asinh_f32v(__vr x, int L)
{
  const __vr a = sol_magnitude(_vel_vcvtds_vvl(x, L), L), s = _vel_vfmuld_vvvl(a, a, L);
  const __vr root = _vel_vfsqrtd_vvl(_vel_vfaddd_vsvl(1.0, s, L), L);
  const __vr t = _vel_vfdivd_vvvl(s, _vel_vfaddd_vsvl(1.0, root, L), L);
  const __vm256 infinite = _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(__builtin_inf(), a, L), L);
  const __vr y = sol_log1p_wide(_vel_vfaddd_vvvl(a, sol_select(infinite, a, t, L), L), L);
  return sol_signed(_vel_vcvtsd_vvl(y, L), x, L);
}

/* log1p(t + sqrt(2 t + t^2)) with t = x - 1 */
static inline __vr sol_acosh_f32v(__vr x, int L)
{
  const __vr t = _vel_vfaddd_vsvl(-1.0, _vel_vcvtds_vvl(x, L), L);
  const __vr s = _vel_vfmuld_vvvl(t, _vel_vfaddd_vsvl(2.0, t, L), L);
  const __vr y = sol_log1p_wide(_vel_vfaddd_vvvl(t, _vel_vfsqrtd_vvl(s, L), L), L);
  const __vm256 none = _vel_vfmkdlt_mvl(t, L);
  return _vel_vcvtsd_vvl(sol_select(none, _vel_vbrdd_vsl(__builtin_nan(""), L), y, L), L);
}

/* log1p(2 a / (1 - a)) / 2 */
static inline __vr sol_atanh_f32v(__vr x, int L)
{
  const __vr a = sol_magnitude(_vel_vcvtds_vvl(x, L), L);
  const __vr t = _vel_vfdivd_vvvl(_vel_vfaddd_vvvl(a, a, L), _vel_vfsubd_vsvl(1.0, a, L), L);
  const __vr y = _vel_vfmuld_vsvl(0.5, sol_log1p_wide(t, L), L);
  return sol_signed(_vel_vcvtsd_vvl(y, L), x, L);
}

/* -- remainders and lengths of floats --------------------------------------------------------- */

/* The remainder of |x| by |y| in steps of 2^28 at most: quotients of so few bits times a float are
   exact in double, and a quotient that is one too large is taken back. */
static inline __vr sol_fmod_f32v(__vr x, __vr y, int L)
{
  const double infinity = __builtin_inf();
  const __vr u = sol_magnitude(_vel_vcvtds_vvl(x, L), L), v = sol_magnitude(_vel_vcvtds_vvl(y, L), L);
  const __vm256 finite = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(infinity, u, L), L);
  const __vm256 divides = _vel_andm_mmm(_vel_vfmkdgt_mvl(v, L),
                                        _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(infinity, v, L), L));
  const __vm256 usual = _vel_andm_mmm(finite, divides);
  __vr r = sol_select(usual, u, _vel_vbrdd_vsl(0.0, L), L);
  const __vr d = sol_select(usual, v, _vel_vbrdd_vsl(1.0, L), L);
  for (;;) {
    const __vr apart = _vel_vsubsl_vvvl(_vel_vsrl_vvsl(r, 52, L), _vel_vsrl_vvsl(d, 52, L), L);
    const __vr step = _vel_vmaxsl_vsvl(0, _vel_vaddsl_vsvl(-26, apart, L), L);
    const __vr b = _vel_vaddsl_vvvl(d, _vel_vsll_vvsl(step, 52, L), L);
    const __vr q = _vel_vcvtdl_vvl(_vel_vcvtldrz_vvl(_vel_vfdivd_vvvl(r, b, L), L), L);
    r = _vel_vfnmsbd_vvvvl(r, q, b, L);
    r = sol_select(_vel_vfmkdlt_mvl(r, L), _vel_vfaddd_vvvl(r, b, L), r, L);
    r = sol_magnitude(r, L);
    if (_vel_pcvm_sml(_vel_vfmklgt_mvl(step, L), L) == 0) break;
  }
  const __vm256 endless = _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(infinity, v, L), L);
  __vr z = _vel_vbrdd_vsl(__builtin_nan(""), L);
  z = sol_select(usual, r, z, L);
  z = sol_select(_vel_andm_mmm(finite, endless), u, z, L);
  return sol_signed(_vel_vcvtsd_vvl(z, L), x, L);
}

/* as Python and torch: the sign of the divisor */
static inline __vr sol_mod_f32v(__vr x, __vr y, int L)
{
  const __vr r = sol_fmod_f32v(x, y, L);
  const __vm256 apart = _vel_vfmkllt_mvl(_vel_vxor_vvvl(r, y, L), L);
  const __vm256 some = _vel_vfmksnenan_mvl(r, L);
  return sol_select(_vel_andm_mmm(apart, some), _vel_vfadds_vvvl(r, y, L), r, L);
}

/* as Python and torch: the remainder first, then a quotient that fits it */
static inline __vr sol_floordiv_f32v(__vr x, __vr y, int L)
{
  const __vr r = sol_fmod_f32v(x, y, L), direct = _vel_vfdivs_vvvl(x, y, L);
  __vr q = _vel_vfdivs_vvvl(_vel_vfsubs_vvvl(x, r, L), y, L);
  const __vm256 apart = _vel_andm_mmm(_vel_vfmkllt_mvl(_vel_vxor_vvvl(r, y, L), L),
                                      _vel_vfmksnenan_mvl(r, L));
  q = sol_select(apart, _vel_vfadds_vsvl(-1.0f, q, L), q, L);
  const __vr w = sol_floor_f32v(q, L), off = _vel_vfsubs_vvvl(q, w, L);
  const __vm256 above = _vel_vfmkslt_mvl(_vel_vfcmps_vsvl(0.5f, off, L), L);
  __vr z = sol_select(above, _vel_vfadds_vsvl(1.0f, w, L), w, L);
  const __vm256 none = _vel_vfmkseq_mvl(q, L);
  z = sol_select(none, sol_signed(_vel_vbrds_vsl(0.0f, L), direct, L), z, L);
  return sol_select(_vel_vfmkseq_mvl(y, L), direct, z, L);
}

static inline __vr sol_hypot_f32v(__vr x, __vr y, int L)
{
  const __vr u = sol_magnitude(_vel_vcvtds_vvl(x, L), L), v = sol_magnitude(_vel_vcvtds_vvl(y, L), L);
  const double infinity = __builtin_inf();
  const __vm256 infinite = _vel_orm_mmm(_vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(infinity, u, L), L),
                                        _vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(infinity, v, L), L));
  const __vr s = _vel_vfmadd_vvvvl(_vel_vfmuld_vvvl(u, u, L), v, v, L);
  const __vr z = sol_select(infinite, _vel_vbrdd_vsl(infinity, L), _vel_vfsqrtd_vvl(s, L), L);
  return _vel_vcvtsd_vvl(z, L);
}

/* -- powers of floats ------------------------------------------------------------------------- */

/* 2^(y log2(2^k m)), with log2 known to 2^-42 of itself; the special cases of C99, F.9.4.4 */
static inline __vr sol_pow_f32v(__vr x, __vr y, int L)
{
  const __vr u = _vel_vcvtds_vvl(x, L), v = _vel_vcvtds_vvl(y, L), a = sol_magnitude(u, L);
  const __vr half = _vel_vfmuld_vsvl(0.5, v, L), one = _vel_vbrdd_vsl(1.0, L);
  const __vm256 whole = _vel_vfmkdeq_mvl(_vel_vfcmpd_vvvl(sol_trunc_f64v(v, L), v, L), L);
  const __vm256 even = _vel_vfmkdeq_mvl(_vel_vfcmpd_vvvl(sol_trunc_f64v(half, L), half, L), L);
  __vr k;
  const __vr m = sol_split(a, &k, L);
  __vr l = _vel_vfmadd_vvsvl(k, 0x1.71547652b82fep+0, sol_log_near(m, L), L);
  l = sol_clamp_f64(_vel_vfmuld_vvvl(l, v, L), -200.0, 200.0, L);
  const __vr t = _vel_vfaddd_vsvl(0x1.8p52, l, L), s = sol_power_of_two(t, L);
  const __vr r = _vel_vfsubd_vvvl(l, _vel_vfaddd_vsvl(-0x1.8p52, t, L), L);
  const __vr p = sol_expm1_near(_vel_vfmuld_vsvl(0x1.62e42fefa39efp-1, r, L), L);
  const __vm256 plain = _vel_orm_mmm(_vel_vfmkdeq_mvl(_vel_vfcmpd_vsvl(1.0, a, L), L),
                                     _vel_vfmkdeq_mvl(v, L));
  __vr z = sol_select(plain, one, _vel_vfmadd_vvvvl(s, s, p, L), L);
  const __vr sign = _vel_vand_vsvl(-0x7fffffffffffffffL - 1, u, L);
  const __vm256 odd = _vel_nndm_mmm(even, whole);
  z = sol_select(odd, _vel_vxor_vvvl(z, sign, L), z, L);
  const __vm256 negative = _vel_andm_mmm(_vel_vfmkdlt_mvl(u, L),
      _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(__builtin_inf(), a, L), L));
  z = sol_select(_vel_nndm_mmm(whole, negative), _vel_vbrdd_vsl(__builtin_nan(""), L), z, L);
  return _vel_vcvtsd_vvl(z, L);
}

/* -- doubles ---------------------------------------------------------------------------------- */

/* Cody & Waite's reduction with log(2) in two parts; the series of exp(r) - 1 - r to r^13 leaves
   2^-57. 2^n in two steps, so that results may be subnormal. 0.6 ulp. */
static inline __vr sol_exp_f64v(__vr x, int L)
{
  const __vr y = sol_clamp_f64(x, -760.0, 720.0, L);
  const __vr t = _vel_vfaddd_vsvl(0x1.8p52, _vel_vfmuld_vsvl(0x1.71547652b82fep+0, y, L), L);
  const __vr n = _vel_vfaddd_vsvl(-0x1.8p52, t, L);
  const __vr most = _vel_vfmadd_vvsvl(y, -0x1.62e42feep-1, n, L);
  const __vr low = _vel_vfmuld_vsvl(0x1.a39ef35793c76p-33, n, L);
  const __vr r = _vel_vfsubd_vvvl(most, low, L);
  const __vr rest = _vel_vfsubd_vvvl(_vel_vfsubd_vvvl(most, r, L), low, L);
  __vr q = _vel_vfmadd_vsvvl(1.0 / 479001600, _vel_vbrdd_vsl(1.0 / 6227020800, L), r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 39916800, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 3628800, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 362880, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 40320, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 5040, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 720, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 120, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 24, q, r, L);
  q = _vel_vfmadd_vsvvl(1.0 / 6, q, r, L);
  q = _vel_vfmadd_vsvvl(0.5, q, r, L);
  q = _vel_vfmadd_vvvvl(rest, _vel_vfmuld_vvvl(r, r, L), q, L);
  const __vr e = _vel_vfaddd_vsvl(1.0, _vel_vfaddd_vvvl(r, q, L), L);
  const __vr i = _vel_vcvtldrz_vvl(n, L), h = _vel_vsral_vvsl(i, 1, L);
  const __vr one = _vel_vsll_vvsl(_vel_vaddsl_vsvl(1023, h, L), 52, L);
  const __vr two = _vel_vsll_vvsl(_vel_vaddsl_vsvl(1023, _vel_vsubsl_vvvl(i, h, L), L), 52, L);
  return _vel_vfmuld_vvvl(_vel_vfmuld_vvvl(e, one, L), two, L);
}

/* log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f), beside k log(2) in two parts:
   the form and the coefficients of FDLIBM's log (Sun, 1993). 1 ulp. */
static inline __vr sol_log_f64v(__vr x, int L)
{
  const __vm256 tiny = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p-1022, sol_magnitude(x, L), L), L);
  __vr k;
  __vr m = sol_split(sol_select(tiny, _vel_vfmuld_vsvl(0x1p54, x, L), x, L), &k, L);
  k = sol_select(tiny, _vel_vfaddd_vsvl(-54.0, k, L), k, L);
  const __vm256 high = _vel_vfmkdlt_mvl(_vel_vfcmpd_vsvl(0x1.6a09e667f3bcdp+0, m, L), L);
  m = sol_select(high, _vel_vfmuld_vsvl(0.5, m, L), m, L); /* sqrt(1/2) < m < sqrt(2) */
  k = sol_select(high, _vel_vfaddd_vsvl(1.0, k, L), k, L);
  const __vr f = _vel_vfaddd_vsvl(-1.0, m, L);
  const __vr s = _vel_vfdivd_vvvl(f, _vel_vfaddd_vsvl(2.0, f, L), L), z = _vel_vfmuld_vvvl(s, s, L);
  __vr q = _vel_vfmadd_vsvvl(1.531383769920937332e-01, _vel_vbrdd_vsl(1.479819860511658591e-01, L), z, L);
  q = _vel_vfmadd_vsvvl(1.818357216161805012e-01, q, z, L);
  q = _vel_vfmadd_vsvvl(2.222219843214978396e-01, q, z, L);
  q = _vel_vfmadd_vsvvl(2.857142874366239149e-01, q, z, L);
  q = _vel_vfmadd_vsvvl(3.999999999940941908e-01, q, z, L);
  q = _vel_vfmadd_vsvvl(6.666666666666735130e-01, q, z, L);
  const __vr half = _vel_vfmuld_vsvl(0.5, _vel_vfmuld_vvvl(f, f, L), L);
  const __vr r = _vel_vfmuld_vvvl(s, _vel_vfmadd_vvvvl(half, q, z, L), L);
  const __vm256 finite = _vel_vfmkdgt_mvl(_vel_vfcmpd_vsvl(0x1p20, sol_magnitude(k, L), L), L);
  const __vr low = _vel_vfmadd_vvsvl(r, 1.90821492927058770002e-10, k, L);
  const __vr rest = _vel_vfsubd_vvvl(f, _vel_vfsubd_vvvl(half, low, L), L);
  const __vr y = _vel_vfmadd_vvsvl(rest, 6.93147180369123816490e-01, k, L);
  return sol_select(_vel_orm_mmm(finite, _vel_vfmkdnan_mvl(m, L)), y, k, L);
}

static inline __vr sol_sigmoid_f64v(__vr x, int L)
{
  const __vr t = sol_exp_f64v(_vel_vfsubd_vsvl(0.0, x, L), L);
  return _vel_vfdivd_vsvl(1.0, _vel_vfaddd_vsvl(1.0, t, L), L);
}
