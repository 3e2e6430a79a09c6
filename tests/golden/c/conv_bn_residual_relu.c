void tile_ffa76d14247f7ee5(const long n0, const long n1, const long n2, const long n3, f32 *p0, f32 *p1, f32 *p2, f32 *p3, f32 *p4, f32 *p5) {
  f32x8 a0 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a1 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a2 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a3 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a4 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a5 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a6 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a7 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a8 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a9 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a10 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a11 = (f32x8){0} + 0x0.0p+0f;
  const long lo0 = SOL_MAX(0, n1);
  const long hi0 = SOL_MIN(n0, n2 + 1);
  for (long kh0_0 = lo0; kh0_0 < hi0; kh0_0++) {
  {
  const f32 *q0 = p0 + (kh0_0 * 50);
  const f32 *q1 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x0 = *(q0 + -50);
    f32x8 x1 = *(const f32x8u *)(q1 + 0);
    SOL_KEEP(32, x1);
    const f32x8 t0 = (x0 - (f32x8){0}) * x1;
    a3 = a3 + t0;
    f32x8 x2 = *(const f32x8u *)(q1 + 8);
    SOL_KEEP(32, x2);
    const f32x8 t1 = (x0 - (f32x8){0}) * x2;
    a4 = a4 + t1;
    f32x8 x3 = *(const f32x8u *)(q1 + 16);
    SOL_KEEP(32, x3);
    const f32x8 t2 = (x0 - (f32x8){0}) * x3;
    a5 = a5 + t2;
    const f32 x4 = *(q0 + -45);
    const f32x8 t3 = (x4 - (f32x8){0}) * x1;
    a6 = a6 + t3;
    const f32x8 t4 = (x4 - (f32x8){0}) * x2;
    a7 = a7 + t4;
    const f32x8 t5 = (x4 - (f32x8){0}) * x3;
    a8 = a8 + t5;
    const f32 x5 = *(q0 + -40);
    const f32x8 t6 = (x5 - (f32x8){0}) * x1;
    a9 = a9 + t6;
    const f32x8 t7 = (x5 - (f32x8){0}) * x2;
    a10 = a10 + t7;
    const f32x8 t8 = (x5 - (f32x8){0}) * x3;
    a11 = a11 + t8;
    q0 += 1; SOL_OPAQUE(q0);
    q1 += 24; SOL_OPAQUE(q1);
  }}
  {
  const f32 *q2 = p0 + (kh0_0 * 50);
  const f32 *q3 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x6 = *(q2 + -50);
    f32x8 x7 = *(const f32x8u *)(q3 + 120);
    SOL_KEEP(32, x7);
    const f32x8 t9 = (x6 - (f32x8){0}) * x7;
    a0 = a0 + t9;
    f32x8 x8 = *(const f32x8u *)(q3 + 128);
    SOL_KEEP(32, x8);
    const f32x8 t10 = (x6 - (f32x8){0}) * x8;
    a1 = a1 + t10;
    f32x8 x9 = *(const f32x8u *)(q3 + 136);
    SOL_KEEP(32, x9);
    const f32x8 t11 = (x6 - (f32x8){0}) * x9;
    a2 = a2 + t11;
    const f32 x10 = *(q2 + -45);
    const f32x8 t12 = (x10 - (f32x8){0}) * x7;
    a3 = a3 + t12;
    const f32x8 t13 = (x10 - (f32x8){0}) * x8;
    a4 = a4 + t13;
    const f32x8 t14 = (x10 - (f32x8){0}) * x9;
    a5 = a5 + t14;
    const f32 x11 = *(q2 + -40);
    const f32x8 t15 = (x11 - (f32x8){0}) * x7;
    a6 = a6 + t15;
    const f32x8 t16 = (x11 - (f32x8){0}) * x8;
    a7 = a7 + t16;
    const f32x8 t17 = (x11 - (f32x8){0}) * x9;
    a8 = a8 + t17;
    const f32 x12 = *(q2 + -35);
    const f32x8 t18 = (x12 - (f32x8){0}) * x7;
    a9 = a9 + t18;
    const f32x8 t19 = (x12 - (f32x8){0}) * x8;
    a10 = a10 + t19;
    const f32x8 t20 = (x12 - (f32x8){0}) * x9;
    a11 = a11 + t20;
    q2 += 1; SOL_OPAQUE(q2);
    q3 += 24; SOL_OPAQUE(q3);
  }}
  {
  const f32 *q4 = p0 + (kh0_0 * 50);
  const f32 *q5 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x13 = *(q4 + -45);
    f32x8 x14 = *(const f32x8u *)(q5 + 240);
    SOL_KEEP(32, x14);
    const f32x8 t21 = (x13 - (f32x8){0}) * x14;
    a0 = a0 + t21;
    f32x8 x15 = *(const f32x8u *)(q5 + 248);
    SOL_KEEP(32, x15);
    const f32x8 t22 = (x13 - (f32x8){0}) * x15;
    a1 = a1 + t22;
    f32x8 x16 = *(const f32x8u *)(q5 + 256);
    SOL_KEEP(32, x16);
    const f32x8 t23 = (x13 - (f32x8){0}) * x16;
    a2 = a2 + t23;
    const f32 x17 = *(q4 + -40);
    const f32x8 t24 = (x17 - (f32x8){0}) * x14;
    a3 = a3 + t24;
    const f32x8 t25 = (x17 - (f32x8){0}) * x15;
    a4 = a4 + t25;
    const f32x8 t26 = (x17 - (f32x8){0}) * x16;
    a5 = a5 + t26;
    const f32 x18 = *(q4 + -35);
    const f32x8 t27 = (x18 - (f32x8){0}) * x14;
    a6 = a6 + t27;
    const f32x8 t28 = (x18 - (f32x8){0}) * x15;
    a7 = a7 + t28;
    const f32x8 t29 = (x18 - (f32x8){0}) * x16;
    a8 = a8 + t29;
    const f32 x19 = *(q4 + -30);
    const f32x8 t30 = (x19 - (f32x8){0}) * x14;
    a9 = a9 + t30;
    const f32x8 t31 = (x19 - (f32x8){0}) * x15;
    a10 = a10 + t31;
    const f32x8 t32 = (x19 - (f32x8){0}) * x16;
    a11 = a11 + t32;
    q4 += 1; SOL_OPAQUE(q4);
    q5 += 24; SOL_OPAQUE(q5);
  }}
  }
  const f32x8 x20 = *(const f32x8u *)p2;
  const f32x8 t33 = a0 * x20;
  const f32x8 x21 = *(const f32x8u *)p3;
  const f32x8 t34 = t33 + x21;
  const f32x8 x22 = *(const f32x8u *)p4;
  const f32x8 t35 = t34 + x22;
  const f32x8 t36 = sol_relu_f32x8(t35);
  *(f32x8u *)p5 = t36;
  const f32x8 x23 = *(const f32x8u *)(p2 + 8);
  const f32x8 t37 = a1 * x23;
  const f32x8 x24 = *(const f32x8u *)(p3 + 8);
  const f32x8 t38 = t37 + x24;
  const f32x8 x25 = *(const f32x8u *)(p4 + 8);
  const f32x8 t39 = t38 + x25;
  const f32x8 t40 = sol_relu_f32x8(t39);
  *(f32x8u *)(p5 + 8) = t40;
  const f32x8 x26 = *(const f32x8u *)(p2 + 16);
  const f32x8 t41 = a2 * x26;
  const f32x8 x27 = *(const f32x8u *)(p3 + 16);
  const f32x8 t42 = t41 + x27;
  const f32x8 x28 = *(const f32x8u *)(p4 + 16);
  const f32x8 t43 = t42 + x28;
  const f32x8 t44 = sol_relu_f32x8(t43);
  *(f32x8u *)(p5 + 16) = t44;
  const f32x8 t45 = a3 * x20;
  const f32x8 t46 = t45 + x21;
  const f32x8 x29 = *(const f32x8u *)(p4 + 24);
  const f32x8 t47 = t46 + x29;
  const f32x8 t48 = sol_relu_f32x8(t47);
  *(f32x8u *)(p5 + 24) = t48;
  const f32x8 t49 = a4 * x23;
  const f32x8 t50 = t49 + x24;
  const f32x8 x30 = *(const f32x8u *)(p4 + 32);
  const f32x8 t51 = t50 + x30;
  const f32x8 t52 = sol_relu_f32x8(t51);
  *(f32x8u *)(p5 + 32) = t52;
  const f32x8 t53 = a5 * x26;
  const f32x8 t54 = t53 + x27;
  const f32x8 x31 = *(const f32x8u *)(p4 + 40);
  const f32x8 t55 = t54 + x31;
  const f32x8 t56 = sol_relu_f32x8(t55);
  *(f32x8u *)(p5 + 40) = t56;
  const f32x8 t57 = a6 * x20;
  const f32x8 t58 = t57 + x21;
  const f32x8 x32 = *(const f32x8u *)(p4 + 48);
  const f32x8 t59 = t58 + x32;
  const f32x8 t60 = sol_relu_f32x8(t59);
  *(f32x8u *)(p5 + 48) = t60;
  const f32x8 t61 = a7 * x23;
  const f32x8 t62 = t61 + x24;
  const f32x8 x33 = *(const f32x8u *)(p4 + 56);
  const f32x8 t63 = t62 + x33;
  const f32x8 t64 = sol_relu_f32x8(t63);
  *(f32x8u *)(p5 + 56) = t64;
  const f32x8 t65 = a8 * x26;
  const f32x8 t66 = t65 + x27;
  const f32x8 x34 = *(const f32x8u *)(p4 + 64);
  const f32x8 t67 = t66 + x34;
  const f32x8 t68 = sol_relu_f32x8(t67);
  *(f32x8u *)(p5 + 64) = t68;
  const f32x8 t69 = a9 * x20;
  const f32x8 t70 = t69 + x21;
  const f32x8 x35 = *(const f32x8u *)(p4 + 72);
  const f32x8 t71 = t70 + x35;
  const f32x8 t72 = sol_relu_f32x8(t71);
  *(f32x8u *)(p5 + 72) = t72;
  const f32x8 t73 = a10 * x23;
  const f32x8 t74 = t73 + x24;
  const f32x8 x36 = *(const f32x8u *)(p4 + 80);
  const f32x8 t75 = t74 + x36;
  const f32x8 t76 = sol_relu_f32x8(t75);
  *(f32x8u *)(p5 + 80) = t76;
  const f32x8 t77 = a11 * x26;
  const f32x8 t78 = t77 + x27;
  const f32x8 x37 = *(const f32x8u *)(p4 + 88);
  const f32x8 t79 = t78 + x37;
  const f32x8 t80 = sol_relu_f32x8(t79);
  *(f32x8u *)(p5 + 88) = t80;
}

void tile_88f273e16a8b6724(const long n0, const long n1, const long n2, const long n3, f32 *p0, f32 *p1, f32 *p2, f32 *p3, f32 *p4, f32 *p5) {
  f32x8 a0 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a1 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a2 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a3 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a4 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a5 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a6 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a7 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a8 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a9 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a10 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a11 = (f32x8){0} + 0x0.0p+0f;
  const long lo0 = SOL_MAX(0, n1);
  const long hi0 = SOL_MIN(n0, n2 + 1);
  for (long kh0_0 = lo0; kh0_0 < hi0; kh0_0++) {
  for (long kw0_0 = 0; kw0_0 < n0; kw0_0++) {
  {
  const f32 *q0 = p0 + (kh0_0 * 50 + kw0_0 * 5);
  const f32 *q1 = p1 + (kh0_0 * 360 + kw0_0 * 120);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x0 = *(q0 + -35);
    f32x8 x1 = *(const f32x8u *)(q1 + 0);
    SOL_KEEP(32, x1);
    const f32x8 t0 = (x0 - (f32x8){0}) * x1;
    a0 = a0 + t0;
    f32x8 x2 = *(const f32x8u *)(q1 + 8);
    SOL_KEEP(32, x2);
    const f32x8 t1 = (x0 - (f32x8){0}) * x2;
    a1 = a1 + t1;
    f32x8 x3 = *(const f32x8u *)(q1 + 16);
    SOL_KEEP(32, x3);
    const f32x8 t2 = (x0 - (f32x8){0}) * x3;
    a2 = a2 + t2;
    const f32 x4 = *(q0 + -30);
    const f32x8 t3 = (x4 - (f32x8){0}) * x1;
    a3 = a3 + t3;
    const f32x8 t4 = (x4 - (f32x8){0}) * x2;
    a4 = a4 + t4;
    const f32x8 t5 = (x4 - (f32x8){0}) * x3;
    a5 = a5 + t5;
    const f32 x5 = *(q0 + -25);
    const f32x8 t6 = (x5 - (f32x8){0}) * x1;
    a6 = a6 + t6;
    const f32x8 t7 = (x5 - (f32x8){0}) * x2;
    a7 = a7 + t7;
    const f32x8 t8 = (x5 - (f32x8){0}) * x3;
    a8 = a8 + t8;
    const f32 x6 = *(q0 + -20);
    const f32x8 t9 = (x6 - (f32x8){0}) * x1;
    a9 = a9 + t9;
    const f32x8 t10 = (x6 - (f32x8){0}) * x2;
    a10 = a10 + t10;
    const f32x8 t11 = (x6 - (f32x8){0}) * x3;
    a11 = a11 + t11;
    q0 += 1; SOL_OPAQUE(q0);
    q1 += 24; SOL_OPAQUE(q1);
  }}
  }
  }
  const f32x8 x7 = *(const f32x8u *)p2;
  const f32x8 t12 = a0 * x7;
  const f32x8 x8 = *(const f32x8u *)p3;
  const f32x8 t13 = t12 + x8;
  const f32x8 x9 = *(const f32x8u *)(p4 + 96);
  const f32x8 t14 = t13 + x9;
  const f32x8 t15 = sol_relu_f32x8(t14);
  *(f32x8u *)(p5 + 96) = t15;
  const f32x8 x10 = *(const f32x8u *)(p2 + 8);
  const f32x8 t16 = a1 * x10;
  const f32x8 x11 = *(const f32x8u *)(p3 + 8);
  const f32x8 t17 = t16 + x11;
  const f32x8 x12 = *(const f32x8u *)(p4 + 104);
  const f32x8 t18 = t17 + x12;
  const f32x8 t19 = sol_relu_f32x8(t18);
  *(f32x8u *)(p5 + 104) = t19;
  const f32x8 x13 = *(const f32x8u *)(p2 + 16);
  const f32x8 t20 = a2 * x13;
  const f32x8 x14 = *(const f32x8u *)(p3 + 16);
  const f32x8 t21 = t20 + x14;
  const f32x8 x15 = *(const f32x8u *)(p4 + 112);
  const f32x8 t22 = t21 + x15;
  const f32x8 t23 = sol_relu_f32x8(t22);
  *(f32x8u *)(p5 + 112) = t23;
  const f32x8 t24 = a3 * x7;
  const f32x8 t25 = t24 + x8;
  const f32x8 x16 = *(const f32x8u *)(p4 + 120);
  const f32x8 t26 = t25 + x16;
  const f32x8 t27 = sol_relu_f32x8(t26);
  *(f32x8u *)(p5 + 120) = t27;
  const f32x8 t28 = a4 * x10;
  const f32x8 t29 = t28 + x11;
  const f32x8 x17 = *(const f32x8u *)(p4 + 128);
  const f32x8 t30 = t29 + x17;
  const f32x8 t31 = sol_relu_f32x8(t30);
  *(f32x8u *)(p5 + 128) = t31;
  const f32x8 t32 = a5 * x13;
  const f32x8 t33 = t32 + x14;
  const f32x8 x18 = *(const f32x8u *)(p4 + 136);
  const f32x8 t34 = t33 + x18;
  const f32x8 t35 = sol_relu_f32x8(t34);
  *(f32x8u *)(p5 + 136) = t35;
  const f32x8 t36 = a6 * x7;
  const f32x8 t37 = t36 + x8;
  const f32x8 x19 = *(const f32x8u *)(p4 + 144);
  const f32x8 t38 = t37 + x19;
  const f32x8 t39 = sol_relu_f32x8(t38);
  *(f32x8u *)(p5 + 144) = t39;
  const f32x8 t40 = a7 * x10;
  const f32x8 t41 = t40 + x11;
  const f32x8 x20 = *(const f32x8u *)(p4 + 152);
  const f32x8 t42 = t41 + x20;
  const f32x8 t43 = sol_relu_f32x8(t42);
  *(f32x8u *)(p5 + 152) = t43;
  const f32x8 t44 = a8 * x13;
  const f32x8 t45 = t44 + x14;
  const f32x8 x21 = *(const f32x8u *)(p4 + 160);
  const f32x8 t46 = t45 + x21;
  const f32x8 t47 = sol_relu_f32x8(t46);
  *(f32x8u *)(p5 + 160) = t47;
  const f32x8 t48 = a9 * x7;
  const f32x8 t49 = t48 + x8;
  const f32x8 x22 = *(const f32x8u *)(p4 + 168);
  const f32x8 t50 = t49 + x22;
  const f32x8 t51 = sol_relu_f32x8(t50);
  *(f32x8u *)(p5 + 168) = t51;
  const f32x8 t52 = a10 * x10;
  const f32x8 t53 = t52 + x11;
  const f32x8 x23 = *(const f32x8u *)(p4 + 176);
  const f32x8 t54 = t53 + x23;
  const f32x8 t55 = sol_relu_f32x8(t54);
  *(f32x8u *)(p5 + 176) = t55;
  const f32x8 t56 = a11 * x13;
  const f32x8 t57 = t56 + x14;
  const f32x8 x24 = *(const f32x8u *)(p4 + 184);
  const f32x8 t58 = t57 + x24;
  const f32x8 t59 = sol_relu_f32x8(t58);
  *(f32x8u *)(p5 + 184) = t59;
}

void tile_b1e1742b113e2de3(const long n0, const long n1, const long n2, const long n3, f32 *p0, f32 *p1, f32 *p2, f32 *p3, f32 *p4, f32 *p5) {
  f32x8 a0 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a1 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a2 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a3 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a4 = (f32x8){0} + 0x0.0p+0f;
  f32x8 a5 = (f32x8){0} + 0x0.0p+0f;
  const long lo0 = SOL_MAX(0, n1);
  const long hi0 = SOL_MIN(n0, n2 + 1);
  for (long kh0_0 = lo0; kh0_0 < hi0; kh0_0++) {
  {
  const f32 *q0 = p0 + (kh0_0 * 50);
  const f32 *q1 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x0 = *(q0 + -15);
    f32x8 x1 = *(const f32x8u *)(q1 + 0);
    SOL_KEEP(32, x1);
    const f32x8 t0 = (x0 - (f32x8){0}) * x1;
    a0 = a0 + t0;
    f32x8 x2 = *(const f32x8u *)(q1 + 8);
    SOL_KEEP(32, x2);
    const f32x8 t1 = (x0 - (f32x8){0}) * x2;
    a1 = a1 + t1;
    f32x8 x3 = *(const f32x8u *)(q1 + 16);
    SOL_KEEP(32, x3);
    const f32x8 t2 = (x0 - (f32x8){0}) * x3;
    a2 = a2 + t2;
    const f32 x4 = *(q0 + -10);
    const f32x8 t3 = (x4 - (f32x8){0}) * x1;
    a3 = a3 + t3;
    const f32x8 t4 = (x4 - (f32x8){0}) * x2;
    a4 = a4 + t4;
    const f32x8 t5 = (x4 - (f32x8){0}) * x3;
    a5 = a5 + t5;
    q0 += 1; SOL_OPAQUE(q0);
    q1 += 24; SOL_OPAQUE(q1);
  }}
  {
  const f32 *q2 = p0 + (kh0_0 * 50);
  const f32 *q3 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x5 = *(q2 + -10);
    f32x8 x6 = *(const f32x8u *)(q3 + 120);
    SOL_KEEP(32, x6);
    const f32x8 t6 = (x5 - (f32x8){0}) * x6;
    a0 = a0 + t6;
    f32x8 x7 = *(const f32x8u *)(q3 + 128);
    SOL_KEEP(32, x7);
    const f32x8 t7 = (x5 - (f32x8){0}) * x7;
    a1 = a1 + t7;
    f32x8 x8 = *(const f32x8u *)(q3 + 136);
    SOL_KEEP(32, x8);
    const f32x8 t8 = (x5 - (f32x8){0}) * x8;
    a2 = a2 + t8;
    const f32 x9 = *(q2 + -5);
    const f32x8 t9 = (x9 - (f32x8){0}) * x6;
    a3 = a3 + t9;
    const f32x8 t10 = (x9 - (f32x8){0}) * x7;
    a4 = a4 + t10;
    const f32x8 t11 = (x9 - (f32x8){0}) * x8;
    a5 = a5 + t11;
    q2 += 1; SOL_OPAQUE(q2);
    q3 += 24; SOL_OPAQUE(q3);
  }}
  {
  const f32 *q4 = p0 + (kh0_0 * 50);
  const f32 *q5 = p1 + (kh0_0 * 360);
  #pragma GCC unroll 1
  for (long n = n3; n > 0; n--) {
    const f32 x10 = *(q4 + -5);
    f32x8 x11 = *(const f32x8u *)(q5 + 240);
    SOL_KEEP(32, x11);
    const f32x8 t12 = (x10 - (f32x8){0}) * x11;
    a0 = a0 + t12;
    f32x8 x12 = *(const f32x8u *)(q5 + 248);
    SOL_KEEP(32, x12);
    const f32x8 t13 = (x10 - (f32x8){0}) * x12;
    a1 = a1 + t13;
    f32x8 x13 = *(const f32x8u *)(q5 + 256);
    SOL_KEEP(32, x13);
    const f32x8 t14 = (x10 - (f32x8){0}) * x13;
    a2 = a2 + t14;
    q4 += 1; SOL_OPAQUE(q4);
    q5 += 24; SOL_OPAQUE(q5);
  }}
  }
  const f32x8 x14 = *(const f32x8u *)p2;
  const f32x8 t15 = a0 * x14;
  const f32x8 x15 = *(const f32x8u *)p3;
  const f32x8 t16 = t15 + x15;
  const f32x8 x16 = *(const f32x8u *)(p4 + 192);
  const f32x8 t17 = t16 + x16;
  const f32x8 t18 = sol_relu_f32x8(t17);
  *(f32x8u *)(p5 + 192) = t18;
  const f32x8 x17 = *(const f32x8u *)(p2 + 8);
  const f32x8 t19 = a1 * x17;
  const f32x8 x18 = *(const f32x8u *)(p3 + 8);
  const f32x8 t20 = t19 + x18;
  const f32x8 x19 = *(const f32x8u *)(p4 + 200);
  const f32x8 t21 = t20 + x19;
  const f32x8 t22 = sol_relu_f32x8(t21);
  *(f32x8u *)(p5 + 200) = t22;
  const f32x8 x20 = *(const f32x8u *)(p2 + 16);
  const f32x8 t23 = a2 * x20;
  const f32x8 x21 = *(const f32x8u *)(p3 + 16);
  const f32x8 t24 = t23 + x21;
  const f32x8 x22 = *(const f32x8u *)(p4 + 208);
  const f32x8 t25 = t24 + x22;
  const f32x8 t26 = sol_relu_f32x8(t25);
  *(f32x8u *)(p5 + 208) = t26;
  const f32x8 t27 = a3 * x14;
  const f32x8 t28 = t27 + x15;
  const f32x8 x23 = *(const f32x8u *)(p4 + 216);
  const f32x8 t29 = t28 + x23;
  const f32x8 t30 = sol_relu_f32x8(t29);
  *(f32x8u *)(p5 + 216) = t30;
  const f32x8 t31 = a4 * x17;
  const f32x8 t32 = t31 + x18;
  const f32x8 x24 = *(const f32x8u *)(p4 + 224);
  const f32x8 t33 = t32 + x24;
  const f32x8 t34 = sol_relu_f32x8(t33);
  *(f32x8u *)(p5 + 224) = t34;
  const f32x8 t35 = a5 * x20;
  const f32x8 t36 = t35 + x21;
  const f32x8 x25 = *(const f32x8u *)(p4 + 232);
  const f32x8 t37 = t36 + x25;
  const f32x8 t38 = sol_relu_f32x8(t37);
  *(f32x8u *)(p5 + 232) = t38;
}

/* out: convolution, batch_norm, add, relu, convolution, batch_norm, add, relu */
void k0_out(const sol_call *c, long u) {
  const long n0_0 = u;
  for (long h1_0 = 0; h1_0 < 9; h1_0++) {
  tile_ffa76d14247f7ee5(3, (h1_0 * -1 + 1), (h1_0 * -1 + 9), 5, ((f32 *)((char *)c->ptr[0])) + (h1_0 * 50 + n0_0 * 450), ((f32 *)((char *)c->ptr[6])) + 0, ((f32 *)((char *)c->ptr[3])) + 0, ((f32 *)((char *)c->ptr[4])) + 0, ((f32 *)((char *)c->ptr[1])) + (h1_0 * 240 + n0_0 * 2160), ((f32 *)((char *)c->ptr[5])) + (h1_0 * 240 + n0_0 * 2160));
  tile_88f273e16a8b6724(3, (h1_0 * -1 + 1), (h1_0 * -1 + 9), 5, ((f32 *)((char *)c->ptr[0])) + (h1_0 * 50 + n0_0 * 450), ((f32 *)((char *)c->ptr[6])) + 0, ((f32 *)((char *)c->ptr[3])) + 0, ((f32 *)((char *)c->ptr[4])) + 0, ((f32 *)((char *)c->ptr[1])) + (h1_0 * 240 + n0_0 * 2160), ((f32 *)((char *)c->ptr[5])) + (h1_0 * 240 + n0_0 * 2160));
  tile_b1e1742b113e2de3(3, (h1_0 * -1 + 1), (h1_0 * -1 + 9), 5, ((f32 *)((char *)c->ptr[0])) + (h1_0 * 50 + n0_0 * 450), ((f32 *)((char *)c->ptr[6])) + 0, ((f32 *)((char *)c->ptr[3])) + 0, ((f32 *)((char *)c->ptr[4])) + 0, ((f32 *)((char *)c->ptr[1])) + (h1_0 * 240 + n0_0 * 2160), ((f32 *)((char *)c->ptr[5])) + (h1_0 * 240 + n0_0 * 2160));
  }
}
