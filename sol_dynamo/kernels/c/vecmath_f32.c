/* Math functions of float vectors, within about one ulp for every argument.

   xN stands for a lane count: vecmath.py puts a number there and takes what a file needs. Plain GNU
   vector code without branches on lanes, so that every lane count gives the same bits. Where a
   float's precision does not suffice, the core (sol_*_wide_*) computes in double: errors are then
   those of the last rounding, and no argument needs care for subnormals or overflow. Polynomials
   are minimax fits (Remez 1934) of the project's own; each comment gives the fit's relative error,
   the largest error measured over all 2^32 floats (benchmarks/vecmath_exhaustive.py) and a source.
   Contraction to FMA changes last bits, never a bound. */

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

/* -- rounding and roots: exact, or correctly rounded ------------------------------------------ */

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

static inline f32xN sol_sqrt_f32xN(f32xN x)
{
  for (int i = 0; i < (int)(sizeof x / 4); i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

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

/* x = 2^k m with sqrt(1/2) <= m < sqrt(2): gives log(m) = 2 atanh((m - 1) / (m + 1)), and k;
   error 2^-44.9; x positive, normal, finite */
static inline f64xN sol_log_parts_f64xN(f64xN x, f64xN *k)
{
  const u64xN e = ((u64xN)x - 0x3fe6a09e667f3bcdUL + (1023UL << 52)) >> 52;
  const f64xN m = (f64xN)((u64xN)x - (e << 52) + (1023UL << 52));
  const f64xN z = (m - 1) * sol_reciprocal_f64xN(m + 1), w = z * z;
  f64xN q = 0x1.91128464f2cf9p-3 * w + 0x1.c62b4c8670351p-3;
  q = q * w + 0x1.2494113d1c145p-2;
  q = q * w + 0x1.999996ab0537bp-2;
  q = q * w + 0x1.555555561d966p-1;
  *k = (f64xN)(e | 0x4330000000000000UL) - (0x1p52 + 1023);
  return z * (2 + w * q);
}

/* y = log(x - pole) of some base, where that is no finite number */
static inline f32xN sol_log_limits_f32xN(f32xN y, f32xN x, f32 pole)
{
  const f32xN infinity = (f32xN){0} + __builtin_inff();
  const f32xN nan = (f32xN){0} + __builtin_nanf("");
  y = sol_select_f32xN(x > pole, y, sol_select_f32xN(x == pole, -infinity, nan));
  return sol_select_f32xN(x == infinity, infinity, y);
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
   Waite 1980); exp(r) = 1 + (r + r^2 q(r)), error 2^-28.2 */
static inline f32xN sol_exp_f32xN(f32xN x)
{
  x = sol_clamp_f32xN(x, -104.0f, 89.0f);
  const f32xN n = (x * 0x1.715476p+0f + 0x1.8p23f) - 0x1.8p23f;
  const f32xN r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  f32xN q = 0x1.6ac132p-10f * r + 0x1.123da6p-7f;
  q = q * r + 0x1.555858p-5f;
  q = q * r + 0x1.55548cp-3f;
  q = q * r + 0x1.fffffcp-2f;
  return sol_scale_f32xN(1 + (r + r * r * q), n);
}

static inline f64xN sol_expm1_wide_f64xN(f64xN x)
{
  f64xN s, p = sol_exp_parts_f64xN(x, &s);
  return s * p + (s - 1);
}

static inline f32xN sol_expm1_f32xN(f32xN x)
{
  return sol_signed_f32xN(sol_expm1_wide_f32xN(sol_clamp_f32xN(x, -30.0f, 89.0f)), x);
}

/* t / (1 + t) or 1 / (1 + t) with t = exp(-|x|), which cannot overflow */
static inline f64xN sol_sigmoid_wide_f64xN(f64xN x)
{
  f64xN s, p = sol_exp_parts_f64xN(sol_select_f64xN(x < 0, x, -x), &s);
  const f64xN t = s + s * p;
  return sol_select_f64xN(x < 0, t, (f64xN){0} + 1) * sol_reciprocal_f64xN(1 + t);
}

static inline f32xN sol_sigmoid_f32xN(f32xN x)
{
  return sol_sigmoid_wide_f32xN(sol_clamp_f32xN(x, -104.0f, 104.0f));
}

/* e / (e + 2) with e = exp(2x) - 1, which keeps its precision near zero */
static inline f64xN sol_tanh_wide_f64xN(f64xN x)
{
  f64xN s, p = sol_exp_parts_f64xN(x + x, &s);
  const f64xN e = s * p + (s - 1);
  return e * sol_reciprocal_f64xN(e + 2);
}

static inline f32xN sol_tanh_f32xN(f32xN x)
{
  return sol_signed_f32xN(sol_tanh_wide_f32xN(sol_clamp_f32xN(x, -10.0f, 10.0f)), x);
}

/* 1 - exp(-x g(x)) for 0 <= x <= 4, where g = -log(1 - erf) / x is smooth, error 2^-31.1; it is 1
   beyond. Exponentials of polynomials: Juffa, "my_erff" (2016). */
static inline f64xN sol_erf_wide_f64xN(f64xN x)
{
  f64xN g = 0x1.4053373f14020p-20 * x - 0x1.664573d12bb15p-16;
  g = g * x + 0x1.5f3bb5e17c1dep-13;
  g = g * x - 0x1.845530f5d4f78p-11;
  g = g * x + 0x1.d7b096b586189p-10;
  g = g * x - 0x1.095a83fcb0ba6p-12;
  g = g * x - 0x1.39396ca9b91d2p-6;
  g = g * x + 0x1.a4f37ea6acbc9p-4;
  g = g * x + 0x1.45f308f2fd215p-1;
  g = g * x + 0x1.20dd75022740fp+0;
  f64xN s, p = sol_exp_parts_f64xN(-x * g, &s);
  return (1 - s) - s * p;
}

static inline f32xN sol_erf_f32xN(f32xN x)
{
  const f32xN a = sol_clamp_f32xN(sol_magnitude_f32xN(x), 0.0f, 4.0f);
  return sol_signed_f32xN(sol_erf_wide_f32xN(a), x);
}

/* -- logarithms ------------------------------------------------------------------------------- */

static inline f64xN sol_log_wide_f64xN(f64xN x)
{
  f64xN k, l = sol_log_parts_f64xN(x, &k);
  return k * 0x1.62e42fefa39efp-1 + l;
}

static inline f32xN sol_log_f32xN(f32xN x)
{
  return sol_log_limits_f32xN(sol_log_wide_f32xN(x), x, 0.0f);
}

static inline f64xN sol_log2_wide_f64xN(f64xN x)
{
  f64xN k, l = sol_log_parts_f64xN(x, &k);
  return k + l * 0x1.71547652b82fep+0;
}

static inline f32xN sol_log2_f32xN(f32xN x)
{
  return sol_log_limits_f32xN(sol_log2_wide_f32xN(x), x, 0.0f);
}

static inline f64xN sol_log10_wide_f64xN(f64xN x)
{
  f64xN k, l = sol_log_parts_f64xN(x, &k);
  return k * 0x1.34413509f79ffp-2 + l * 0x1.bcb7b1526e50ep-2;
}

static inline f32xN sol_log10_f32xN(f32xN x)
{
  return sol_log_limits_f32xN(sol_log10_wide_f32xN(x), x, 0.0f);
}

/* log(u) + c where u + c = 1 + x exactly; for u far from 1, c is nothing */
static inline f64xN sol_log1p_wide_f64xN(f64xN x)
{
  const f64xN u = 1 + x, c = x - (u - 1);
  return sol_log_wide_f64xN(u) + c;
}

static inline f32xN sol_log1p_f32xN(f32xN x)
{
  const f32xN y = sol_log_limits_f32xN(sol_log1p_wide_f32xN(x), x, -1.0f);
  return sol_select_f32xN(x == 0, x, y);
}

/* -- trigonometry ----------------------------------------------------------------------------- */

/* Angles up to 2^22 are reduced in double with pi in two parts: n times the first, of 29 bits, is
   exact, and what remains is known to 2^-59. Larger ones go lane by lane through libm, which
   reduces them with as many digits of pi as they need (Payne & Hanek 1983). */


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
      if (large[i]) y[i] = __builtin_sinf(x[i]);
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
      if (large[i]) y[i] = __builtin_cosf(x[i]);
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
      if (large[i]) y[i] = __builtin_tanf(x[i]);
  return y;
}

/* -- powers ----------------------------------------------------------------------------------- */

/* 2^(y log2(x)) for x >= 0, infinities included; log2 is known to 2^-44 of itself */
static inline f64xN sol_pow_wide_f64xN(f64xN x, f64xN y)
{
  const f64xN infinity = (f64xN){0} + __builtin_inf(), limit = (f64xN){0} + 200.0;
  f64xN k, l = sol_log_parts_f64xN(x, &k);
  l = k + l * 0x1.71547652b82fep+0;
  l = sol_select_f64xN(x < infinity, l, x);
  l = sol_select_f64xN(x == 0, -infinity, l) * y;
  l = sol_select_f64xN(l > limit, limit, l);
  l = sol_select_f64xN(l < -limit, -limit, l);
  const f64xN t = l + 0x1.8p52, s = (f64xN)(((u64xN)t + 1023) << 52);
  return s + s * sol_expm1_near_f64xN((l - (t - 0x1.8p52)) * 0x1.62e42fefa39efp-1);
}

/* the special cases of C99, F.9.4.4 */
static inline f32xN sol_pow_f32xN(f32xN x, f32xN y)
{
  const f32xN a = sol_magnitude_f32xN(x), half = y * 0.5f, one = (f32xN){0} + 1;
  const f32xN infinity = (f32xN){0} + __builtin_inff();
  const i32xN whole = sol_trunc_f32xN(y) == y;
  const i32xN odd = whole & (sol_trunc_f32xN(half) != half);
  f32xN z = sol_select_f32xN((a == 1) | (y == 0), one, sol_pow_wide_f32xN(a, y));
  z = (f32xN)((i32xN)z ^ ((i32xN)x & odd & (1 << 31)));
  return sol_select_f32xN((x < 0) & (a < infinity) & ~whole, (f32xN){0} + __builtin_nanf(""), z);
}
