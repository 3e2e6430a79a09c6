// Scalar floating-point instructions: single, double and quadruple precision, conversions.
// Immediates are bit patterns: simm7 sign-extended, or "(m)0" and "(m)1".
#include "decode.h"
#include "operations.h"
#include "quad.h"

namespace vesim {
namespace {

uint64_t y(const Core& core, const Instruction& i) { return i.cy ? core.s[i.sy] : i.y; }
uint64_t z(const Core& core, const Instruction& i) { return i.cz ? core.s[i.sz] : i.z; }

template <class F> F from(uint64_t s);
template <> double from<double>(uint64_t s) { return bits_as<double>(s); }
template <> float from<float>(uint64_t s) { return upper_float(s); }
uint64_t to(double f) { return bits_as<uint64_t>(f); }
uint64_t to(float f) { return from_upper_float(f); }  // the lower half becomes 0

template <class F, F Op(F, F)>
void binary(Core& core, const Instruction& i) {
  core.s[i.sx] = to(Op(from<F>(y(core, i)), from<F>(z(core, i))));
}

// An immediate as a quad is its upper half and zeros. open: LLVM never makes one.
Quad quad_y(const Core& core, const Instruction& i) {
  return i.cy ? quad_in(core, i.sy) : quad_from(i.y, 0);
}
Quad quad_z(const Core& core, const Instruction& i) {
  return i.cz ? quad_in(core, i.sz) : quad_from(i.z, 0);
}
template <Quad Op(Quad, Quad)>
void quad_binary(Core& core, const Instruction& i) {
  set_quad(core, i.sx, Op(quad_y(core, i), quad_z(core, i)));
}
// open: a double with the sign of the comparison, NaN where unordered; compilers use the sign only.
void quad_compare(Core& core, const Instruction& i) {
  static const double results[] = {-1, 0, 1, std::numeric_limits<double>::quiet_NaN()};
  const Order order = quad_order(quad_y(core, i), quad_z(core, i));
  core.s[i.sx] = to(results[static_cast<int>(order)]);
}

// --- conversions ---------------------------------------------------------------------------------

template <class I, class F>
I convert(F x, unsigned mode) {
  switch (mode) {
    case kZero: return to_integer<I>(rounded<kZero>(x));
    case kPlus: return to_integer<I>(rounded<kPlus>(x));
    case kMinus: return to_integer<I>(rounded<kMinus>(x));
    case kEven: return to_integer<I>(rounded<kEven>(x));
    case kAway: return to_integer<I>(rounded<kAway>(x));
    default: return to_integer<I>(rounded<kMode>(x));
  }
}
template <class I, class F, bool kSignExtend>
void fix(Core& core, const Instruction& i) {
  const I n = convert<I>(from<F>(y(core, i)), i.sz & 15);
  using U = typename std::make_unsigned<I>::type;
  core.s[i.sx] = kSignExtend ? static_cast<uint64_t>(n) : static_cast<U>(n);
}
template <class I, class F>
void fly(Core& core, const Instruction& i) {
  core.s[i.sx] = to(static_cast<F>(static_cast<I>(y(core, i))));
}
template <class From, class To>
void reformat(Core& core, const Instruction& i) {
  core.s[i.sx] = to(static_cast<To>(from<From>(y(core, i))));
}
template <class F>
void from_quad(Core& core, const Instruction& i) {
  core.s[i.sx] = to(quad_to<F>(quad_y(core, i)));
}
template <class F>
void to_quad(Core& core, const Instruction& i) {
  set_quad(core, i.sx, quad_of(from<F>(y(core, i))));
}

// --- the table -----------------------------------------------------------------------------------

constexpr uint64_t kCw = 0x80;

#define BINARY(op, name, Op)                                                    \
  {word_of(op, 0), name ".d $d, $Y, $Z", binary<double, Op<double>>},           \
  {word_of(op, 8), name ".s $d, $Y, $Z", binary<float, Op<float>>}

const Entry kRows[] = {
    BINARY(0x4c, "fadd", fadd),
    BINARY(0x5c, "fsub", fsub),
    BINARY(0x4d, "fmul", fmul),
    BINARY(0x5d, "fdiv", fdiv),
    BINARY(0x7e, "fcmp", fcompare),
    BINARY(0x3e, "fmax", fmaximum),
    {word_of(0x3e, 0, kCw), "fmin.d $d, $Y, $Z", binary<double, fminimum<double>>},
    {word_of(0x3e, 8, kCw), "fmin.s $d, $Y, $Z", binary<float, fminimum<float>>},
    {word_of(0x6c, 0), "fadd.q $q, $Q, $R", quad_binary<quad_add>},
    {word_of(0x7c, 0), "fsub.q $q, $Q, $R", quad_binary<quad_sub>},
    {word_of(0x6d, 0), "fmul.q $q, $Q, $R", quad_binary<quad_mul>},
    {word_of(0x7d, 0), "fcmp.q $d, $Q, $R", quad_compare},
    {word_of(0x4e, 0), "cvt.w.d.sx$r $d, $Y", fix<int32_t, double, true>},
    {word_of(0x4e, 0, kCw), "cvt.w.d.zx$r $d, $Y", fix<int32_t, double, false>},
    {word_of(0x4e, 8), "cvt.w.s.sx$r $d, $Y", fix<int32_t, float, true>},
    {word_of(0x4e, 8, kCw), "cvt.w.s.zx$r $d, $Y", fix<int32_t, float, false>},
    {word_of(0x4f, 0), "cvt.l.d$r $d, $Y", fix<int64_t, double, true>},
    {word_of(0x5e, 0), "cvt.d.w $d, $Y", fly<int32_t, double>},
    {word_of(0x5e, 8), "cvt.s.w $d, $Y", fly<int32_t, float>},
    {word_of(0x5f, 0), "cvt.d.l $d, $Y", fly<int64_t, double>},
    {word_of(0x1f, 0), "cvt.s.d $d, $Y", reformat<double, float>},
    {word_of(0x1f, 8), "cvt.s.q $d, $Q", from_quad<float>},
    {word_of(0x0f, 0), "cvt.d.s $d, $Y", reformat<float, double>},
    {word_of(0x0f, 8), "cvt.d.q $d, $Q", from_quad<double>},
    {word_of(0x2d, 0), "cvt.q.d $q, $Y", to_quad<double>},
    {word_of(0x2d, 8), "cvt.q.s $q, $Y", to_quad<float>},
};

}  // namespace

Rows floating_rows() { return rows(kRows); }

}  // namespace vesim
