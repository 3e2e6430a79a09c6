/* total: softmax, softmax */
void k0_total(const sol_call *c, long u) {
  for (long i0_0 = 0; i0_0 < 6; i0_0++) {
  f32x8 a0 = (f32x8){0} + -__builtin_inff();
  f32x8 a1 = (f32x8){0} + -__builtin_inff();
  f32x8 a2 = (f32x8){0} + -__builtin_inff();
  f32x8 a3 = (f32x8){0} + -__builtin_inff();
  f32x4 a4 = (f32x4){0} + -__builtin_inff();
  f32 a5 = -__builtin_inff();
  const f32x8 x0 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37));
  a0 = sol_max_f32x8(a0, x0);
  const f32x8 x1 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 8));
  a1 = sol_max_f32x8(a1, x1);
  const f32x8 x2 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 16));
  a2 = sol_max_f32x8(a2, x2);
  const f32x8 x3 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 24));
  a3 = sol_max_f32x8(a3, x3);
  const f32x4 x4 = *(const f32x4u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 32));
  a4 = sol_max_f32x4(a4, x4);
  const f32 x5 = *(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 36));
  a5 = sol_max_f32(a5, x5);
  const f32 t0 = sol_hmax_f32x8(a0);
  const f32 t1 = sol_hmax_f32x8(a1);
  const f32 t2 = sol_max_f32(t0, t1);
  const f32 t3 = sol_hmax_f32x8(a2);
  const f32 t4 = sol_max_f32(t2, t3);
  const f32 t5 = sol_hmax_f32x8(a3);
  const f32 t6 = sol_max_f32(t4, t5);
  const f32 t7 = sol_hmax_f32x4(a4);
  const f32 t8 = sol_max_f32(t6, t7);
  const f32 t9 = sol_max_f32(t8, a5);
  f32x8 a6 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a7 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a8 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a9 = (f32x8){0} + 0x0.0p+0f;
  f32x4 a10 = (f32x4){0} + 0x0.0p+0f;
  f32 a11 = 0x0.0p+0f;
  const f32x8 x6 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37));
  const f32x8 t10 = x6 - (t9 - (f32x8){0});
  const f32x8 t11 = sol_exp_f32x8(t10);
  a6 = a6 + t11;
  const f32x8 x7 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 8));
  const f32x8 t12 = x7 - (t9 - (f32x8){0});
  const f32x8 t13 = sol_exp_f32x8(t12);
  a7 = a7 + t13;
  const f32x8 x8 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 16));
  const f32x8 t14 = x8 - (t9 - (f32x8){0});
  const f32x8 t15 = sol_exp_f32x8(t14);
  a8 = a8 + t15;
  const f32x8 x9 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 24));
  const f32x8 t16 = x9 - (t9 - (f32x8){0});
  const f32x8 t17 = sol_exp_f32x8(t16);
  a9 = a9 + t17;
  const f32x4 x10 = *(const f32x4u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 32));
  const f32x4 t18 = x10 - (t9 - (f32x4){0});
  const f32x4 t19 = sol_exp_f32x4(t18);
  a10 = a10 + t19;
  const f32 x11 = *(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 36));
  const f32 t20 = x11 - t9;
  const f32 t21 = sol_exp_f32(t20);
  a11 = a11 + t21;
  const f32 t22 = sol_hsum_f32x8(a6);
  const f32 t23 = sol_hsum_f32x8(a7);
  const f32 t24 = t22 + t23;
  const f32 t25 = sol_hsum_f32x8(a8);
  const f32 t26 = t24 + t25;
  const f32 t27 = sol_hsum_f32x8(a9);
  const f32 t28 = t26 + t27;
  const f32 t29 = sol_hsum_f32x4(a10);
  const f32 t30 = t28 + t29;
  const f32 t31 = t30 + a11;
  *(((f32 *)(c->arena + 0L)) + i0_0) = t9;
  *(((f32 *)(c->arena + 64L)) + i0_0) = t31;
  }
}

/* out: softmax */
void k1_out(const sol_call *c, long u) {
  for (long i0_0 = 0; i0_0 < 6; i0_0++) {
  {
  const f32 *q0 = ((f32 *)((char *)c->ptr[0])) + (i0_0 * 37);
  const f32 *q1 = ((f32 *)(c->arena + 0L)) + i0_0;
  const f32 *q2 = ((f32 *)(c->arena + 64L)) + i0_0;
  f32 *q3 = ((f32 *)((char *)c->ptr[1])) + (i0_0 * 37);
  #pragma GCC unroll 1
  for (long n = 2; n > 0; n--) {
    const f32x8 x0 = *(const f32x8u *)(q0 + 0);
    const f32 x1 = *(q1 + 0);
    const f32x8 t0 = x0 - (x1 - (f32x8){0});
    const f32x8 t1 = sol_exp_f32x8(t0);
    const f32 x2 = *(q2 + 0);
    const f32x8 t2 = t1 / (x2 - (f32x8){0});
    *(f32x8u *)(q3 + 0) = t2;
    const f32x8 x3 = *(const f32x8u *)(q0 + 8);
    const f32x8 t3 = x3 - (x1 - (f32x8){0});
    const f32x8 t4 = sol_exp_f32x8(t3);
    const f32x8 t5 = t4 / (x2 - (f32x8){0});
    *(f32x8u *)(q3 + 8) = t5;
    q0 += 16; SOL_OPAQUE(q0);
    q3 += 16; SOL_OPAQUE(q3);
  }}
  const f32x4 x4 = *(const f32x4u *)(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 32));
  const f32 x5 = *(((f32 *)(c->arena + 0L)) + i0_0);
  const f32x4 t6 = x4 - (x5 - (f32x4){0});
  const f32x4 t7 = sol_exp_f32x4(t6);
  const f32 x6 = *(((f32 *)(c->arena + 64L)) + i0_0);
  const f32x4 t8 = t7 / (x6 - (f32x4){0});
  *(f32x4u *)(((f32 *)((char *)c->ptr[1])) + (i0_0 * 37 + 32)) = t8;
  const f32 x7 = *(((f32 *)((char *)c->ptr[0])) + (i0_0 * 37 + 36));
  const f32 x8 = *(((f32 *)(c->arena + 0L)) + i0_0);
  const f32 t9 = x7 - x8;
  const f32 t10 = sol_exp_f32(t9);
  const f32 x9 = *(((f32 *)(c->arena + 64L)) + i0_0);
  const f32 t11 = t10 / x9;
  *(((f32 *)((char *)c->ptr[1])) + (i0_0 * 37 + 36)) = t11;
  }
}
