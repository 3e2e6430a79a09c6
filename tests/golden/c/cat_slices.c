/* slice0: relu */
void k0_slice0(const sol_call *c, long u) {
  for (long n0_0 = 0; n0_0 < 2; n0_0++) {
  {
  const f32 *q0 = ((f32 *)((char *)c->ptr[0])) + (n0_0 * 30);
  f32 *q1 = ((f32 *)(c->arena + 0L)) + (n0_0 * 60);
  #pragma GCC unroll 1
  for (long n = 3; n > 0; n--) {
    const f32x8 x0 = *(const f32x8u *)(q0 + 0);
    const f32x8 t0 = sol_relu_f32x8(x0);
    *(f32x8u *)(q1 + 0) = t0;
    q0 += 8; SOL_OPAQUE(q0);
    q1 += 8; SOL_OPAQUE(q1);
  }}
  const f32x4 x1 = *(const f32x4u *)(((f32 *)((char *)c->ptr[0])) + (n0_0 * 30 + 24));
  const f32x4 t1 = sol_relu_f32x4(x1);
  *(f32x4u *)(((f32 *)(c->arena + 0L)) + (n0_0 * 60 + 24)) = t1;
  const f32x2 x2 = *(const f32x2u *)(((f32 *)((char *)c->ptr[0])) + (n0_0 * 30 + 28));
  const f32x2 t2 = sol_relu_f32x2(x2);
  *(f32x2u *)(((f32 *)(c->arena + 0L)) + (n0_0 * 60 + 28)) = t2;
  }
}

/* slice1: mul */
void k1_slice1(const sol_call *c, long u) {
  for (long n0_0 = 0; n0_0 < 2; n0_0++) {
  {
  const f32 *q0 = ((f32 *)((char *)c->ptr[0])) + (n0_0 * 30);
  f32 *q1 = ((f32 *)(c->arena + 0L)) + (n0_0 * 60);
  #pragma GCC unroll 1
  for (long n = 3; n > 0; n--) {
    const f32x8 x0 = *(const f32x8u *)(q0 + 0);
    const f32x8 t0 = x0 * (0x1.0000000000000p+1f - (f32x8){0});
    *(f32x8u *)(q1 + 30) = t0;
    q0 += 8; SOL_OPAQUE(q0);
    q1 += 8; SOL_OPAQUE(q1);
  }}
  const f32x4 x1 = *(const f32x4u *)(((f32 *)((char *)c->ptr[0])) + (n0_0 * 30 + 24));
  const f32x4 t1 = x1 * (0x1.0000000000000p+1f - (f32x4){0});
  *(f32x4u *)(((f32 *)(c->arena + 0L)) + (n0_0 * 60 + 54)) = t1;
  const f32x2 x2 = *(const f32x2u *)(((f32 *)((char *)c->ptr[0])) + (n0_0 * 30 + 28));
  const f32x2 t2 = x2 * (0x1.0000000000000p+1f - (f32x2){0});
  *(f32x2u *)(((f32 *)(c->arena + 0L)) + (n0_0 * 60 + 58)) = t2;
  }
}

/* out: mul */
void k2_out(const sol_call *c, long u) {
  {
  const f32 *q0 = ((f32 *)(c->arena + 0L)) + 0;
  const f32 *q1 = ((f32 *)((char *)c->ptr[1])) + 0;
  f32 *q2 = ((f32 *)((char *)c->ptr[2])) + 0;
  #pragma GCC unroll 1
  for (long n = 7; n > 0; n--) {
    const f32x8 x0 = *(const f32x8u *)(q0 + 0);
    const f32x8 x1 = *(const f32x8u *)(q1 + 0);
    const f32x8 t0 = x0 * x1;
    *(f32x8u *)(q2 + 0) = t0;
    const f32x8 x2 = *(const f32x8u *)(q0 + 8);
    const f32x8 x3 = *(const f32x8u *)(q1 + 8);
    const f32x8 t1 = x2 * x3;
    *(f32x8u *)(q2 + 8) = t1;
    q0 += 16; SOL_OPAQUE(q0);
    q1 += 16; SOL_OPAQUE(q1);
    q2 += 16; SOL_OPAQUE(q2);
  }}
  const f32x8 x4 = *(const f32x8u *)(((f32 *)(c->arena + 0L)) + 112);
  const f32x8 x5 = *(const f32x8u *)(((f32 *)((char *)c->ptr[1])) + 112);
  const f32x8 t2 = x4 * x5;
  *(f32x8u *)(((f32 *)((char *)c->ptr[2])) + 112) = t2;
}
