/* Math functions of float vectors, within about one ulp for every argument.

   xN stands for a lane count: vecmath.py puts a number there and takes what a file needs. Plain GNU
   vector code, no lane treated by another formula than its neighbours, so that every lane count
   gives the same bits. Where a float's precision does not suffice, a core (sol_*_wide_*) computes
   in double: its error is that of the last rounding, and no argument needs care for subnormals or
   overflow. Polynomials are minimax fits of our own (Remez 1934). Comments give a fit's relative
   error, then in ulp the largest error found over all floats, on a machine with FMA and on one
   without; benchmarks/vecmath_exhaustive.py measures them. */

static inline f32xN sol_select_f32xN(i32xN m, f32xN a, f32xN b)
{
  return (f32xN)(((i32xN)a & m) | ((i32xN)b & ~m)); /* compilers make one blend of it */
}

static inline f64xN sol_select_f64xN(i64xN m, f64xN a, f64xN b)
{
  return (f64xN)(((i64xN)a & m) | ((i64xN)b & ~m));
}

/* lo <= x <= hi; NaN stays */
static inline f32xN sol_clamp_f32xN(f32xN x, f32 lo, f32 hi)
{
  const f32xN a = (f32xN){0} + lo, b = (f32xN){0} + hi;
  x = sol_select_f32xN(x > b, b, x);
  return sol_select_f32xN(x < a, a, x);
}

/* y, which is positive or has it already, with the sign of x */
static inline f32xN sol_signed_f32xN(f32xN y, f32xN x)
{
  return (f32xN)((u32xN)y | ((u32xN)x & 0x80000000u));
}

static inline f32xN sol_magnitude_f32xN(f32xN x)
{
  return (f32xN)((u32xN)x & 0x7fffffffu);
}

static inline i32 sol_any_i32xN(i32xN m)
{
  i32 any = 0;
  for (int i = 0; i < (int)(sizeof m / 4); i++) any |= m[i];
  return any;
}

/* -- rounding (exact) and roots --------------------------------------------------------------- */

/* x + 2^23 has no fraction, and the sum rounds half to even; larger x are integers already */
static inline f32xN sol_round_f32xN(f32xN x)
{
  const f32xN a = sol_magnitude_f32xN(x);
  const f32xN n = sol_signed_f32xN((a + 0x1p23f) - 0x1p23f, x);
  return sol_select_f32xN(a < 0x1p23f, n, x);
}

static inline f32xN sol_floor_f32xN(f32xN x)
{
  const f32xN n = sol_round_f32xN(x);
  return sol_signed_f32xN(sol_select_f32xN(n > x, n - 1, n), x);
}

static inline f32xN sol_ceil_f32xN(f32xN x)
{
  const f32xN n = sol_round_f32xN(x);
  return sol_signed_f32xN(sol_select_f32xN(n < x, n + 1, n), x);
}

static inline f32xN sol_trunc_f32xN(f32xN x)
{
  return sol_signed_f32xN(sol_floor_f32xN(sol_magnitude_f32xN(x)), x);
}

/* correctly rounded */
static inline f32xN sol_sqrt_f32xN(f32xN x)
{
  for (int i = 0; i < (int)(sizeof x / 4); i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

/* as eager's; 1.48 ulp, since two roundings add up */
static inline f32xN sol_rsqrt_f32xN(f32xN x)
{
  return 1.0f / sol_sqrt_f32xN(x);
}

/* -- parts ------------------------------------------------------------------------------------ */

/* p * 2^n, rounded once, for an integer -250 <= n <= 250 */
static inline f32xN sol_scale_f32xN(f32xN p, f32xN n)
{
  const i32xN e = __builtin_convertvector(n, i32xN), half = e >> 1;
  return p * (f32xN)((half + 127) << 23) * (f32xN)((e - half + 127) << 23);
}

/* (n + nl) / (d + dl) where nl and dl are what was rounded off n and d: within 0.6 ulp with FMA */
static inline f32xN sol_quotient_f32xN(f32xN n, f32xN nl, f32xN d, f32xN dl)
{
  const f32xN inverse = 1.0f / d, q = n * inverse;
  return q + inverse * (((n - q * d) - q * dl) + nl);
}

/* x = 2^k m with 3/4 <= m < 3/2, for any log(x) = k log(2) + log(m): infinite k for 0 and
   infinity, NaN m for negative x and NaN */
static inline f32xN sol_split_f32xN(f32xN x, f32xN *k)
{
  const f32xN infinity = (f32xN){0} + __builtin_inff(), nan = (f32xN){0} + __builtin_nanf("");
  const i32xN small = x < 0x1p-126f;
  const i32xN bits = (i32xN)sol_select_f32xN(small, x * 0x1p23f, x);
  const i32xN e = (bits - 0x3f400000) >> 23;
  f32xN n = __builtin_convertvector(e, f32xN);
  n = sol_select_f32xN(x == infinity, infinity, sol_select_f32xN(small, n - 23, n));
  *k = sol_select_f32xN(x == 0, -infinity, n);
  return sol_select_f32xN(x >= 0, (f32xN)(bits - (e << 23)), nan);
}

/* 1 / d to 46 bits, for 2^-100 < |d| < 2^100: float division and a Newton step */
static inline f64xN sol_reciprocal_f64xN(f64xN d)
{
  const f32xN guess = 1.0f / __builtin_convertvector(d, f32xN);
  const f64xN y = sol_double_f32xN(guess);
  return y * (2.0 - d * y);
}

/* exp(r) - 1 for |r| <= log(2)/2, error 2^-31.9 */
static inline f64xN sol_expm1_near_f64xN(f64xN r)
{
  f64xN q = 0x1.a032c08f01e98p-13 * r + 0x1.6d723defb46f3p-10;
  q = q * r + 0x1.1111899adb9bap-7;
  q = q * r + 0x1.5554b0ec6fd96p-5;
  q = q * r + 0x1.555554ef4e7d9p-3;
  q = q * r + 0x1.00000026069abp-1;
  return r + r * r * q;
}

/* x = n log(2) + r (Cody & Waite 1980): gives exp(r) - 1, and 2^n in *s; |x| < 700.
   1.5 * 2^52 added rounds to an integer, which then stands in the low bits. */
static inline f64xN sol_exp_parts_f64xN(f64xN x, f64xN *s)
{
  const f64xN t = x * 0x1.71547652b82fep+0 + 0x1.8p52;
  *s = (f64xN)(((u64xN)t + 1023) << 52);
  return sol_expm1_near_f64xN(x - (t - 0x1.8p52) * 0x1.62e42fefa39efp-1);
}

/* log(m) = 2 atanh((m - 1) / (m + 1)) for 3/4 <= m < 3/2, error 2^-42.2 */
static inline f64xN sol_log_near_f64xN(f64xN m)
{
  const f64xN z = (m - 1) * sol_reciprocal_f64xN(m + 1), w = z * z;
  f64xN q = 0x1.9c1d3420e93a3p-3 * w + 0x1.c553ad0fa44d6p-3;
  q = q * w + 0x1.2496e39812271p-2;
  q = q * w + 0x1.99998f47318c0p-2;
  q = q * w + 0x1.5555555915625p-1;
  return z * (2 + w * q);
}

/* sin(r) for |r| <= pi/2, error 2^-35.3 */
static inline f64xN sol_sin_near_f64xN(f64xN r)
{
  const f64xN s = r * r;
  f64xN q = -0x1.9a686ee3a6d4ap-26 * s + 0x1.71707f10bfdcap-19;
  q = q * s - 0x1.a017d998210d9p-13;
  q = q * s + 0x1.11110c49e9977p-7;
  q = q * s - 0x1.55555547691e3p-3;
  return r * (1 + s * q);
}

/* -- exponentials ----------------------------------------------------------------------------- */

/* x = n log(2) + r with log(2) in two parts, so that n times the first is exact without FMA (Cody &
   Waite 1980); exp(r) = 1 + (r + r^2 q(r)), error 2^-28.2. Gives exp(r) - 1; -104 <= x <= 89. */
static inline f32xN sol_exp_parts_f32xN(f32xN x, f32xN *n)
{
  *n = (x * 0x1.715476p+0f + 0x1.8p23f) - 0x1.8p23f;
  const f32xN most = x - *n * 0x1.62e4p-1f, r = most - *n * 0x1.7f7d1cp-20f;
  const f32xN rest = (most - r) - *n * 0x1.7f7d1cp-20f; /* without it 1.013 ulp */
  f32xN q = 0x1.6ac132p-10f * r + 0x1.123da6p-7f;
  q = q * r + 0x1.555858p-5f;
  q = q * r + 0x1.55548cp-3f;
  q = q * r + 0x1.fffffcp-2f;
  return r + (rest + r * r * q);
}

/* exp(x), and in *low what was rounded off; -104 <= x <= 0 */
static inline f32xN sol_exp_pair_f32xN(f32xN x, f32xN *low)
{
  f32xN n;
  const f32xN p = sol_exp_parts_f32xN(x, &n), high = 1 + p;
  *low = sol_scale_f32xN(p - (high - 1), n);
  return sol_scale_f32xN(high, n);
}

/* 0.88 ulp, 0.89 without FMA */
static inline f32xN sol_exp_f32xN(f32xN x)
{
  f32xN n;
  const f32xN p = sol_exp_parts_f32xN(sol_clamp_f32xN(x, -104.0f, 89.0f), &n);
  return sol_scale_f32xN(1 + p, n);
}

/* 2^n p + (2^n - 1), which keeps its precision near zero; 0.505 ulp */
static inline f64xN sol_expm1_wide_f64xN(f64xN x)
{
  f64xN s, p = sol_exp_parts_f64xN(x, &s);
  return s * p + (s - 1);
}

static inline f32xN sol_expm1_f32xN(f32xN x)
{
  return sol_signed_f32xN(sol_expm1_wide_f32xN(sol_clamp_f32xN(x, -30.0f, 89.0f)), x);
}

/* t / (1 + t) or 1 / (1 + t) with t = exp(-|x|), which cannot overflow; 0.90 ulp, 1.46 without
   FMA */
static inline f32xN sol_sigmoid_f32xN(f32xN x)
{
  const f32xN zero = {0}, one = zero + 1;
  const i32xN negative = x < 0;
  f32xN l, t = sol_exp_pair_f32xN(sol_clamp_f32xN(-sol_magnitude_f32xN(x), -104.0f, 0.0f), &l);
  const f32xN d = 1 + t, dl = (t - (d - 1)) + l;
  const f32xN n = sol_select_f32xN(negative, t, one), nl = sol_select_f32xN(negative, l, zero);
  return sol_quotient_f32xN(n, nl, d, dl);
}

/* (1 - t) / (1 + t) with t = exp(-2|x|), but x + x^3 q(x^2) near zero, error 2^-29.7;
   0.73 ulp, 1.00 without FMA */
static inline f32xN sol_tanh_f32xN(f32xN x)
{
  const f32xN a = sol_clamp_f32xN(sol_magnitude_f32xN(x), 0.0f, 10.0f), s = a * a;
  f32xN l, t = sol_exp_pair_f32xN(a * -2, &l);
  const f32xN d = 1 + t, dl = (t - (d - 1)) + l;
  const f32xN n = 1 - t, nl = ((1 - n) - t) - l;
  f32xN q = -0x1.9921a0p-8f * s + 0x1.58e518p-6f;
  q = q * s - 0x1.b91e7ep-5f;
  q = q * s + 0x1.110ceep-3f;
  q = q * s - 0x1.55554ap-2f;
  const f32xN y = sol_select_f32xN(a < 0.55f, a + a * s * q, sol_quotient_f32xN(n, nl, d, dl));
  return sol_signed_f32xN(y, x);
}

/* x + x q(x^2) below 1, error 2^-29.4; above, 1 - exp(-g(x)), error 2^-29.7, which is 1 from 4 on.
   The exponential of a polynomial is N. Juffa's idea. 1.06 ulp, 1.26 without FMA. */
static inline f32xN sol_erf_f32xN(f32xN x)
{
  const f32xN a = sol_clamp_f32xN(sol_magnitude_f32xN(x), 0.0f, 4.0f), s = a * a;
  f32xN q = 0x1.4771fcp-14f * s - 0x1.a3515ep-11f;
  q = q * s + 0x1.53f224p-8f;
  q = q * s - 0x1.b7f71ap-6f;
  q = q * s + 0x1.ce2ce6p-4f;
  q = q * s - 0x1.81273ep-2f;
  q = q * s + 0x1.06eba8p-3f;
  f32xN g = -0x1.871b58p-13f * a + 0x1.8282aap-9f;
  g = g * a - 0x1.65e044p-6f;
  g = g * a + 0x1.a65ea2p-4f;
  g = g * a + 0x1.46b936p-1f;
  g = g * a + 0x1.208974p+0f;
  g = g * a + 0x1.63eb4ap-12f;
  f32xN n, p = sol_exp_parts_f32xN(-g, &n);
  const f32xN large = 1 - sol_scale_f32xN(1 + p, n);
  return sol_signed_f32xN(sol_select_f32xN(a < 1, a + a * q, large), x);
}

/* -- logarithms: log2, log10 and log1p within 0.501 ulp --------------------------------------- */

/* k log(2) + f - f^2/2 + f^3 q(f) with f = m - 1, error 2^-27.6, the form of Cephes' logf
   (Moshier); the first sum is split exactly into two floats, since k = -1 and f near 1/2 cancel.
   0.90 ulp, 0.92 without FMA. */
static inline f32xN sol_log_f32xN(f32xN x)
{
  f32xN k, f = sol_split_f32xN(x, &k) - 1;
  f32xN q = -0x1.71440ap-5f * f + 0x1.aca8cap-4f;
  q = q * f - 0x1.0d95e0p-3f;
  q = q * f + 0x1.288636p-3f;
  q = q * f - 0x1.54eebep-3f;
  q = q * f + 0x1.99696ap-3f;
  q = q * f - 0x1.000044p-2f;
  q = q * f + 0x1.5555a4p-2f;
  const f32xN s = f * f, high = k * 0x1.62e4p-1f + f;
  f32xN low = (k * 0x1.62e4p-1f - high) + f + k * 0x1.7f7d1cp-20f;
  low = sol_select_f32xN(sol_magnitude_f32xN(k) < 200, low, (f32xN){0}); /* no inf - inf */
  return high + (low + (s * f * q - s * 0.5f));
}

static inline f64xN sol_log2_wide_f64xN(f64xN m, f64xN k)
{
  return k + sol_log_near_f64xN(m) * 0x1.71547652b82fep+0;
}

static inline f32xN sol_log2_f32xN(f32xN x)
{
  f32xN k, m = sol_split_f32xN(x, &k);
  return sol_log2_wide_f32xN(m, k);
}

static inline f64xN sol_log10_wide_f64xN(f64xN m, f64xN k)
{
  return k * 0x1.34413509f79ffp-2 + sol_log_near_f64xN(m) * 0x1.bcb7b1526e50ep-2;
}

static inline f32xN sol_log10_f32xN(f32xN x)
{
  f32xN k, m = sol_split_f32xN(x, &k);
  return sol_log10_wide_f32xN(m, k);
}

/* log(u) + c where u + c = 1 + x exactly; for u far from 1, c is nothing. u = 2^k m. */
static inline f64xN sol_log1p_wide_f64xN(f64xN x)
{
  const f64xN u = 1 + x, c = x - (u - 1);
  const u64xN e = ((u64xN)u - (0x3feUL << 52) - (1UL << 51) + (1023UL << 52)) >> 52;
  const f64xN m = (f64xN)((u64xN)u - (e << 52) + (1023UL << 52));
  const f64xN k = (f64xN)(e | 0x4330000000000000UL) - (0x1p52 + 1023);
  return k * 0x1.62e42fefa39efp-1 + (sol_log_near_f64xN(m) + c);
}

static inline f32xN sol_log1p_f32xN(f32xN x)
{
  const f32xN infinity = (f32xN){0} + __builtin_inff();
  const f32xN beyond = sol_select_f32xN(x == -1, -infinity, (f32xN){0} + __builtin_nanf(""));
  f32xN y = sol_select_f32xN(x > -1, sol_log1p_wide_f32xN(x), beyond);
  y = sol_select_f32xN(x == infinity, infinity, y);
  return sol_select_f32xN(x == 0, x, y);
}

/* -- trigonometry ----------------------------------------------------------------------------- */

/* Angles up to 2^22 are reduced in double with pi in two parts: n times the first, of 29 bits, is
   exact, and what remains is known to 2^-59. Larger ones go lane by lane through libm's double
   functions, which use as many digits of pi as it takes (Payne & Hanek 1983). 0.501 ulp. */


/* sin(r + n pi) = (-1)^n sin(r) */
static inline f64xN sol_sin_wide_f64xN(f64xN x)
{
  const f64xN t = x * 0x1.45f306dc9c883p-2 + 0x1.8p52, n = t - 0x1.8p52;
  const f64xN y = sol_sin_near_f64xN((x - n * 0x1.921fb54p+1) - n * 0x1.10b4611a62633p-29);
  return (f64xN)((u64xN)y ^ ((u64xN)t << 63));
}

static inline f32xN sol_sin_f32xN(f32xN x)
{
  const i32xN large = sol_magnitude_f32xN(x) > 0x1p22f;
  f32xN y = sol_sin_wide_f32xN(x);
  if (sol_any_i32xN(large))
    for (int i = 0; i < (int)(sizeof x / 4); i++)
      if (large[i]) y[i] = __builtin_sin(x[i]);
  return y;
}

/* sin(r + n pi) where x + pi/2 = r + n pi */
static inline f64xN sol_cos_wide_f64xN(f64xN x)
{
  const f64xN t = (x * 0x1.45f306dc9c883p-2 + 0.5) + 0x1.8p52, n = (t - 0x1.8p52) - 0.5;
  const f64xN y = sol_sin_near_f64xN((x - n * 0x1.921fb54p+1) - n * 0x1.10b4611a62633p-29);
  return (f64xN)((u64xN)y ^ ((u64xN)t << 63));
}

static inline f32xN sol_cos_f32xN(f32xN x)
{
  const i32xN large = sol_magnitude_f32xN(x) > 0x1p22f;
  f32xN y = sol_cos_wide_f32xN(x);
  if (sol_any_i32xN(large))
    for (int i = 0; i < (int)(sizeof x / 4); i++)
      if (large[i]) y[i] = __builtin_cos(x[i]);
  return y;
}

/* sin(r) / cos(r), or -cos(r) / sin(r) for odd n, where x = r + n pi/2; errors 2^-37, 2^-43 */
static inline f64xN sol_tan_wide_f64xN(f64xN x)
{
  const f64xN t = x * 0x1.45f306dc9c883p-1 + 0x1.8p52, n = t - 0x1.8p52;
  const f64xN r = (x - n * 0x1.921fb54p+0) - n * 0x1.10b4611a62633p-30, s = r * r;
  f64xN a = 0x1.6cd1ec72a22ddp-19 * s - 0x1.a00f7f0f1e590p-13;
  a = a * s + 0x1.1111086a42ae8p-7;
  a = a * s - 0x1.5555554c71abcp-3;
  f64xN b = -0x1.23c977e14651cp-22 * s + 0x1.a00eb98b10c5dp-16;
  b = b * s - 0x1.6c16b3487832ap-10;
  b = b * s + 0x1.55555545c4b5fp-5;
  b = b * s - 0x1.ffffffffe98a7p-2;
  const f64xN sine = r * (1 + s * a), cosine = 1 + s * b;
  const i64xN odd = -((i64xN)t & 1);
  const f64xN over = sol_select_f64xN(odd, -cosine, sine);
  return over * sol_reciprocal_f64xN(sol_select_f64xN(odd, sine, cosine));
}

static inline f32xN sol_tan_f32xN(f32xN x)
{
  const i32xN large = sol_magnitude_f32xN(x) > 0x1p22f;
  f32xN y = sol_tan_wide_f32xN(x);
  if (sol_any_i32xN(large))
    for (int i = 0; i < (int)(sizeof x / 4); i++)
      if (large[i]) y[i] = __builtin_tan(x[i]);
  return y;
}

/* -- powers ----------------------------------------------------------------------------------- */

/* 2^(y log2(2^k m)), with log2 known to 2^-42 of itself */
static inline f64xN sol_pow_wide_f64xN(f64xN m, f64xN k, f64xN y)
{
  const f64xN limit = (f64xN){0} + 200.0;
  f64xN l = (k + sol_log_near_f64xN(m) * 0x1.71547652b82fep+0) * y;
  l = sol_select_f64xN(l > limit, limit, l);
  l = sol_select_f64xN(l < -limit, -limit, l);
  const f64xN t = l + 0x1.8p52, s = (f64xN)(((u64xN)t + 1023) << 52);
  return s + s * sol_expm1_near_f64xN((l - (t - 0x1.8p52)) * 0x1.62e42fefa39efp-1);
}

/* the special cases of C99, F.9.4.4; 0.502 ulp over 2^31 pairs */
static inline f32xN sol_pow_f32xN(f32xN x, f32xN y)
{
  const f32xN a = sol_magnitude_f32xN(x), half = y * 0.5f, one = (f32xN){0} + 1;
  const f32xN infinity = (f32xN){0} + __builtin_inff();
  const i32xN whole = sol_trunc_f32xN(y) == y;
  const i32xN odd = whole & (sol_trunc_f32xN(half) != half);
  f32xN k, m = sol_split_f32xN(a, &k);
  f32xN z = sol_select_f32xN((a == 1) | (y == 0), one, sol_pow_wide_f32xN(m, k, y));
  z = (f32xN)((i32xN)z ^ ((i32xN)x & odd & (1 << 31)));
  return sol_select_f32xN((x < 0) & (a < infinity) & ~whole, (f32xN){0} + __builtin_nanf(""), z);
}
