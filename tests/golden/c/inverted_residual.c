/* inverted_residual: convolution, hardtanh, convolution, hardtanh, convolution, add */
void k0_inverted_residual(const sol_call *c, long u) {
  const long n0_0 = u;
  long done0 = 0;
  for (long h0_0 = 0; h0_0 < 12; h0_0++) {
  const long lo0 = SOL_MAX(0, SOL_MAX(done0 - (h0_0 - 1), (h0_0 * -1 + 1)));
  const long hi0 = SOL_MIN(3, (h0_0 * -1 + 12) + 1);
  for (long h0_1 = lo0; h0_1 < hi0; h0_1++) {
  for (long w0_0 = 0; w0_0 < 2; w0_0++) {
  for (long m0_0 = 0; m0_0 < 3; m0_0++) {
  const f32x8 x2 = *(const f32x8u *)(((f32 *)((char *)c->ptr[4])) + (m0_0 * 8));
  f32x8 a0 = x2;
  const f32x8 x4 = *(const f32x8u *)(((f32 *)((char *)c->ptr[4])) + (m0_0 * 8));
  f32x8 a1 = x4;
  const f32x8 x6 = *(const f32x8u *)(((f32 *)((char *)c->ptr[4])) + (m0_0 * 8));
  f32x8 a2 = x6;
  const f32x8 x8 = *(const f32x8u *)(((f32 *)((char *)c->ptr[4])) + (m0_0 * 8));
  f32x8 a3 = x8;
  const f32x8 x10 = *(const f32x8u *)(((f32 *)((char *)c->ptr[4])) + (m0_0 * 8));
  f32x8 a4 = x10;
  {
  const f32 *q0 = ((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + h0_1 * 80 + n0_0 * 960 + w0_0 * 40);
  const f32 *q1 = ((f32 *)((char *)c->ptr[1])) + (m0_0 * 8);
  #pragma GCC unroll 1
  for (long n = 8; n > 0; n--) {
    const f32 x0 = *(q0 + -80);
    f32x8 x1 = *(const f32x8u *)(q1 + 0);
    SOL_KEEP(32, x1);
    const f32x8 t0 = (x0 - (f32x8){0}) * x1;
    a0 = a0 + t0;
    const f32 x3 = *(q0 + -72);
    const f32x8 t1 = (x3 - (f32x8){0}) * x1;
    a1 = a1 + t1;
    const f32 x5 = *(q0 + -64);
    const f32x8 t2 = (x5 - (f32x8){0}) * x1;
    a2 = a2 + t2;
    const f32 x7 = *(q0 + -56);
    const f32x8 t3 = (x7 - (f32x8){0}) * x1;
    a3 = a3 + t3;
    const f32 x9 = *(q0 + -48);
    const f32x8 t4 = (x9 - (f32x8){0}) * x1;
    a4 = a4 + t4;
    q0 += 1; SOL_OPAQUE(q0);
    q1 += 24; SOL_OPAQUE(q1);
  }}
  const f32x8 t5 = sol_relu_f32x8(a0);
  const f32x8 t6 = sol_min_f32x8(t5, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 0)) + (m0_0 * 8 + w0_0 * 120 + (((h0_0 + h0_1 + 2)) % 3) * 240)) = t6;
  const f32x8 t7 = sol_relu_f32x8(a1);
  const f32x8 t8 = sol_min_f32x8(t7, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 0)) + (m0_0 * 8 + w0_0 * 120 + (((h0_0 + h0_1 + 2)) % 3) * 240 + 24)) = t8;
  const f32x8 t9 = sol_relu_f32x8(a2);
  const f32x8 t10 = sol_min_f32x8(t9, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 0)) + (m0_0 * 8 + w0_0 * 120 + (((h0_0 + h0_1 + 2)) % 3) * 240 + 48)) = t10;
  const f32x8 t11 = sol_relu_f32x8(a3);
  const f32x8 t12 = sol_min_f32x8(t11, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 0)) + (m0_0 * 8 + w0_0 * 120 + (((h0_0 + h0_1 + 2)) % 3) * 240 + 72)) = t12;
  const f32x8 t13 = sol_relu_f32x8(a4);
  const f32x8 t14 = sol_min_f32x8(t13, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 0)) + (m0_0 * 8 + w0_0 * 120 + (((h0_0 + h0_1 + 2)) % 3) * 240 + 96)) = t14;
  }
  }
  }
  done0 = SOL_MAX(done0, SOL_MIN((h0_0 + 2), 12));
  for (long w0_1 = 0; w0_1 < 2; w0_1++) {
  for (long m0_1 = 0; m0_1 < 3; m0_1++) {
  const f32x8 x13 = *(const f32x8u *)(((f32 *)((char *)c->ptr[5])) + (m0_1 * 8));
  f32x8 a5 = x13;
  const f32x8 x15 = *(const f32x8u *)(((f32 *)((char *)c->ptr[5])) + (m0_1 * 8));
  f32x8 a6 = x15;
  const f32x8 x17 = *(const f32x8u *)(((f32 *)((char *)c->ptr[5])) + (m0_1 * 8));
  f32x8 a7 = x17;
  const f32x8 x19 = *(const f32x8u *)(((f32 *)((char *)c->ptr[5])) + (m0_1 * 8));
  f32x8 a8 = x19;
  const f32x8 x21 = *(const f32x8u *)(((f32 *)((char *)c->ptr[5])) + (m0_1 * 8));
  f32x8 a9 = x21;
  const long lo1 = SOL_MAX(0, (h0_0 * -1 + 1));
  const long hi1 = SOL_MIN(3, (h0_0 * -1 + 12) + 1);
  for (long kh0_0 = lo1; kh0_0 < hi1; kh0_0++) {
  {
  const f32 *q2 = ((f32 *)((char *)c->ptr[2])) + (kh0_0 * 72 + m0_1 * 8);
  const f32 *q3 = ((f32 *)SOL_SCRATCH(f32, 0)) + (m0_1 * 8 + w0_1 * 120 + (((h0_0 + kh0_0 + 2)) % 3) * 240);
  #pragma GCC unroll 1
  for (long kw0_0 = 0; kw0_0 < 3; kw0_0++) {
    const f32x8 x11 = *(const f32x8u *)((kw0_0 + w0_1 * 5 - 1) >= 0 ? (((f32 *)SOL_SCRATCH(f32, 0)) + (kw0_0 * 24 + m0_1 * 8 + w0_1 * 120 + (((h0_0 + kh0_0 + 2)) % 3) * 240 - 24)) : sol_page_c9c8a0ad);
    f32x8 x12 = *(const f32x8u *)(q2 + 0);
    SOL_KEEP(32, x12);
    const f32x8 t15 = x11 * x12;
    a5 = a5 + t15;
    const f32x8 x14 = *(const f32x8u *)(q3 + 0);
    const f32x8 t16 = x14 * x12;
    a6 = a6 + t16;
    const f32x8 x16 = *(const f32x8u *)(q3 + 24);
    const f32x8 t17 = x16 * x12;
    a7 = a7 + t17;
    const f32x8 x18 = *(const f32x8u *)(q3 + 48);
    const f32x8 t18 = x18 * x12;
    a8 = a8 + t18;
    const f32x8 x20 = *(const f32x8u *)((kw0_0 * -1 + w0_1 * -5 + 6) >= 0 ? (((f32 *)SOL_SCRATCH(f32, 0)) + (kw0_0 * 24 + m0_1 * 8 + w0_1 * 120 + (((h0_0 + kh0_0 + 2)) % 3) * 240 + 72)) : sol_page_c9c8a0ad);
    const f32x8 t19 = x20 * x12;
    a9 = a9 + t19;
    q2 += 24; SOL_OPAQUE(q2);
    q3 += 24; SOL_OPAQUE(q3);
  }}
  }
  const f32x8 t20 = sol_relu_f32x8(a5);
  const f32x8 t21 = sol_min_f32x8(t20, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 14464)) + (m0_1 * 8 + w0_1 * 120)) = t21;
  const f32x8 t22 = sol_relu_f32x8(a6);
  const f32x8 t23 = sol_min_f32x8(t22, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 14464)) + (m0_1 * 8 + w0_1 * 120 + 24)) = t23;
  const f32x8 t24 = sol_relu_f32x8(a7);
  const f32x8 t25 = sol_min_f32x8(t24, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 14464)) + (m0_1 * 8 + w0_1 * 120 + 48)) = t25;
  const f32x8 t26 = sol_relu_f32x8(a8);
  const f32x8 t27 = sol_min_f32x8(t26, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 14464)) + (m0_1 * 8 + w0_1 * 120 + 72)) = t27;
  const f32x8 t28 = sol_relu_f32x8(a9);
  const f32x8 t29 = sol_min_f32x8(t28, (0x1.8000000000000p+2f - (f32x8){0}));
  *(f32x8u *)(((f32 *)SOL_SCRATCH(f32, 14464)) + (m0_1 * 8 + w0_1 * 120 + 96)) = t29;
  }
  }
  for (long w0_2 = 0; w0_2 < 2; w0_2++) {
  const f32x8 x24 = *(const f32x8u *)((f32 *)((char *)c->ptr[6]));
  f32x8 a10 = x24;
  const f32x8 x26 = *(const f32x8u *)((f32 *)((char *)c->ptr[6]));
  f32x8 a11 = x26;
  const f32x8 x28 = *(const f32x8u *)((f32 *)((char *)c->ptr[6]));
  f32x8 a12 = x28;
  const f32x8 x30 = *(const f32x8u *)((f32 *)((char *)c->ptr[6]));
  f32x8 a13 = x30;
  const f32x8 x32 = *(const f32x8u *)((f32 *)((char *)c->ptr[6]));
  f32x8 a14 = x32;
  {
  const f32 *q4 = ((f32 *)SOL_SCRATCH(f32, 14464)) + (w0_2 * 120);
  const f32 *q5 = ((f32 *)((char *)c->ptr[3])) + 0;
  #pragma GCC unroll 1
  for (long n = 24; n > 0; n--) {
    const f32 x22 = *(q4 + 0);
    f32x8 x23 = *(const f32x8u *)(q5 + 0);
    SOL_KEEP(32, x23);
    const f32x8 t30 = (x22 - (f32x8){0}) * x23;
    a10 = a10 + t30;
    const f32 x25 = *(q4 + 24);
    const f32x8 t31 = (x25 - (f32x8){0}) * x23;
    a11 = a11 + t31;
    const f32 x27 = *(q4 + 48);
    const f32x8 t32 = (x27 - (f32x8){0}) * x23;
    a12 = a12 + t32;
    const f32 x29 = *(q4 + 72);
    const f32x8 t33 = (x29 - (f32x8){0}) * x23;
    a13 = a13 + t33;
    const f32 x31 = *(q4 + 96);
    const f32x8 t34 = (x31 - (f32x8){0}) * x23;
    a14 = a14 + t34;
    q4 += 1; SOL_OPAQUE(q4);
    q5 += 8; SOL_OPAQUE(q5);
  }}
  const f32x8 x33 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40));
  const f32x8 t35 = a10 + x33;
  *(f32x8u *)(((f32 *)((char *)c->ptr[7])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40)) = t35;
  const f32x8 x34 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 8));
  const f32x8 t36 = a11 + x34;
  *(f32x8u *)(((f32 *)((char *)c->ptr[7])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 8)) = t36;
  const f32x8 x35 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 16));
  const f32x8 t37 = a12 + x35;
  *(f32x8u *)(((f32 *)((char *)c->ptr[7])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 16)) = t37;
  const f32x8 x36 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 24));
  const f32x8 t38 = a13 + x36;
  *(f32x8u *)(((f32 *)((char *)c->ptr[7])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 24)) = t38;
  const f32x8 x37 = *(const f32x8u *)(((f32 *)((char *)c->ptr[0])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 32));
  const f32x8 t39 = a14 + x37;
  *(f32x8u *)(((f32 *)((char *)c->ptr[7])) + (h0_0 * 80 + n0_0 * 960 + w0_2 * 40 + 32)) = t39;
  }
  }
}
