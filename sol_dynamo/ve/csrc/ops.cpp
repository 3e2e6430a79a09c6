// The operators that every device must have itself: memory, views, and the way to and from it.
//
// Views are ATen's own, which only look at sizes and strides. What computes is registered from
// Python or falls back (fallback.cpp).
#include "allocator.h"
#include "copy.h"
#include "fallback.h"
#include "generator.h"
#include "resize.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/is_nonzero.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/multinomial_native.h>
#include <ATen/ops/randint_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <limits>
#include <memory>
#include <vector>

namespace ve {
namespace {

using at::Tensor;
using c10::SymIntArrayRef;

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

c10::IntArrayRef ints(SymIntArrayRef sizes) {
  return C10_AS_INTARRAYREF_SLOW(sizes);
}

int64_t integer(const c10::SymInt& value) {
  return value.guard_int(__FILE__, __LINE__);
}

c10::DeviceGuard on(std::optional<c10::Device> device) {
  return c10::DeviceGuard(c10::Device(kVE, index_of(device.value_or(c10::Device(kVE, -1)))));
}

// --- Memory -------------------------------------------------------------------------------------

void check_plain(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK(
      layout.value_or(c10::Layout::Strided) == c10::Layout::Strided,
      "the ve device has strided tensors only, not ",
      *layout);
  TORCH_CHECK(!pin_memory.value_or(false), "only CPU memory can be pinned, not the ve device's");
}

Tensor empty(
    SymIntArrayRef size,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory,
    std::optional<c10::MemoryFormat> format) {
  check_plain(layout, pin_memory);
  const auto guard = on(device);
  return at::detail::empty_generic(
      ints(size), &allocator(), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    SymIntArrayRef size,
    SymIntArrayRef stride,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  check_plain(layout, pin_memory);
  const auto guard = on(device);
  return at::detail::empty_strided_generic(
      ints(size), ints(stride), &allocator(), kKeys, c10::dtype_or_default(dtype));
}

// Zeros without memory, which autograd uses until somebody writes to them.
struct NoMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t) override {
    return {nullptr, c10::Device(kVE, current_device())};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void*, const void*, size_t) const override {}
};

Tensor efficient_zeros(
    SymIntArrayRef size,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  check_plain(layout, pin_memory);
  static auto* none = new NoMemory;
  const auto guard = on(device);
  const auto keys = kKeys | c10::DispatchKeySet(c10::DispatchKey::ZeroTensor);
  return at::detail::empty_generic(
      ints(size), none, keys, c10::dtype_or_default(dtype), std::nullopt);
}

const Tensor& resize_(
    const Tensor& self, SymIntArrayRef size, std::optional<c10::MemoryFormat> format) {
  const auto guard = on(self.device());
  auto sizes = ints(size);
  if (self.sizes() != sizes) {
    int64_t numel = 1;
    for (int64_t n : sizes) {
      TORCH_CHECK(n >= 0, "a tensor cannot be resized to the negative size ", n);
      numel *= n;
    }
    auto* impl = self.unsafeGetTensorImpl();
    impl->set_sizes_contiguous(sizes);
    set_geometry(self, sizes, impl->strides().vec());
  }
  if (format)
    self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return self;
}

Tensor& set_storage_at(
    Tensor& self,
    c10::Storage source,
    c10::SymInt offset,
    SymIntArrayRef size,
    SymIntArrayRef stride) {
  TORCH_CHECK(
      source.device() == self.device(),
      "a tensor on ",
      self.device(),
      " cannot be set to a storage on ",
      source.device());
  TORCH_CHECK(integer(offset) >= 0, "a tensor cannot start at the offset ", offset);
  TORCH_CHECK(
      stride.empty() || stride.size() == size.size(),
      size.size(),
      " sizes cannot have ",
      stride.size(),
      " strides");
  const auto guard = on(self.device());
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(integer(offset));
  impl->set_sizes_contiguous(ints(size));
  const auto contiguous = impl->strides().vec();
  set_geometry(self, ints(size), stride.empty() ? at::IntArrayRef(contiguous) : ints(stride));
  return self;
}

Tensor& set_storage(Tensor& self, c10::Storage source) {
  const int64_t elements = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return set_storage_at(self, std::move(source), 0, {c10::SymInt(elements)}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  if (self.is_same(source))
    return self;
  return set_storage_at(
      self, source.storage(), source.storage_offset(), source.sym_sizes(), source.sym_strides());
}

Tensor& set_nothing(Tensor& self) {
  const auto guard = on(self.device());
  c10::Storage none(
      c10::Storage::use_byte_size_t(), 0, allocator().allocate(0), &allocator(), true);
  return set_storage_at(self, std::move(none), 0, {c10::SymInt(0)}, {});
}

void record_stream(Tensor& self, c10::Stream stream) {
  allocator().recordStream(self.storage().data_ptr(), stream);
}

// --- Copies -------------------------------------------------------------------------------------

Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  copy(dst, self, non_blocking);
  return dst;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  if (dst.sizes() != self.sizes())
    dst.resize_(self.sizes());
  copy(dst, self, false);
  return dst;
}

c10::Scalar local_scalar_dense(const Tensor& self) {
  return at::_local_scalar_dense(read(self));
}

// Assertions wait: an error comes where it is, not later.
void assert_nonzero(const Tensor& self) {
  TORCH_CHECK(at::is_nonzero(self), "Expected Tensor with single nonzero value, but got zero");
}

void assert_nonzero_saying(const Tensor& self, c10::string_view message) {
  TORCH_CHECK(at::is_nonzero(self), message.empty() ? "Assertion failed" : message);
}

// As much of a constant as is written at a time.
constexpr int64_t kPattern = 1 << 20;

Tensor& fill_(Tensor& self, const c10::Scalar& value) {
  if (self.numel() == 0)
    return self;
  if (!self.is_non_overlapping_and_dense() || self.is_conj() || self.is_neg()) {
    Tensor held = read(self);
    held.fill_(value);
    write(self, held);
    return self;
  }
  const int64_t numel = self.numel();
  const auto options = at::TensorOptions().dtype(self.scalar_type()).device(at::kCPU);
  Tensor pattern = at::empty({std::min(numel, kPattern)}, options);
  pattern.fill_(value);
  const auto keep = std::make_shared<c10::Storage>(pattern.storage());
  auto address = reinterpret_cast<uint64_t>(self.mutable_data_ptr());
  Queue& queue = current_queue(self.device().index());
  for (int64_t done = 0; done < numel; done += pattern.numel()) {
    const size_t bytes = std::min(pattern.numel(), numel - done) * self.itemsize();
    queue.write(address + done * self.itemsize(), pattern.const_data_ptr(), bytes, keep);
  }
  return self;
}

Tensor& fill_tensor_(Tensor& self, const Tensor& value) {
  TORCH_CHECK(
      value.dim() == 0, "fill_ takes a tensor of no dimensions, not of ", value.dim());
  return fill_(self, value.item());
}

Tensor& zero_(Tensor& self) {
  return fill_(self, 0);
}

// --- Random numbers -----------------------------------------------------------------------------

// All the numbers that an int64 holds are what programs ask for to seed themselves: words of the
// device's generator. Other integers are drawn by `random_`.
Tensor randint(
    c10::SymInt low,
    c10::SymInt high,
    SymIntArrayRef size,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  const auto type = dtype.value_or(at::kLong);
  const int64_t first = integer(low), end = integer(high);
  if (first != 0 || end != std::numeric_limits<int64_t>::max() || type != at::kLong)
    return at::native::randint(first, end, ints(size), type, layout, device, pin_memory);
  Tensor made = empty(size, type, layout, device, pin_memory, std::nullopt);
  const auto words = std::make_shared<std::vector<int64_t>>(
      draw_seeds(made.device().index(), made.numel()));
  if (made.numel())
    current_queue(made.device().index())
        .write(
            reinterpret_cast<uint64_t>(made.mutable_data_ptr()), words->data(), made.nbytes(), words);
  return made;
}

// One sample, or some without replacement: those with the largest quotients by exponential numbers,
// which ATen composes for any device that has a kernel. With replacement they are the CPU's.
void multinomial(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto given = torch::jit::last(*stack, 4);
  const int64_t samples = given[1].toInt();
  const bool replacement = given[2].toBool();
  if (samples != 1 && replacement) {
    run_operator(op, stack);
    return;
  }
  Tensor made = at::native::multinomial(
      given[0].toTensor(), samples, replacement, given[3].toOptional<at::Generator>());
  torch::jit::drop(*stack, 4);
  stack->emplace_back(std::move(made));
}

// --- Views --------------------------------------------------------------------------------------

Tensor as_strided(
    const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride, std::optional<c10::SymInt> at) {
  return at::native::as_strided_tensorimpl(
      self, ints(size), ints(stride), at ? std::optional<int64_t>(integer(*at)) : std::nullopt);
}

Tensor view(const Tensor& self, SymIntArrayRef size) {
  return at::native::view(self, ints(size));
}

Tensor reshape_alias(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, ints(size), ints(stride));
}

// --- What tensors are ---------------------------------------------------------------------------

// Whether `self.data = from` is possible: between dense tensors, as for the devices that torch
// knows. Without it `Module.to` makes new parameters: tied weights come apart, and an optimizer
// that was made before keeps the old ones.
bool may_become(const Tensor& self, const Tensor& from) {
  const auto dense = [](const Tensor& t) {
    constexpr c10::DispatchKeySet kinds(c10::DispatchKey::Dense);
    const bool there = t.device().type() == kVE || t.device().is_cpu() || t.device().is_cuda();
    return there && t.key_set().has_any(kinds);
  };
  return self.key_set() == from.key_set() || (dense(self) && dense(from));
}

} // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_efficientzerotensor", efficient_zeros);
  m.impl("resize_", resize_);
  m.impl("set_", set_nothing);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage_at);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("is_set_to", at::native::is_set_to);
  m.impl("record_stream", record_stream);
  m.impl("_has_compatible_shallow_copy_type", may_become);

  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("_assert_async", assert_nonzero);
  m.impl("_assert_async.msg", assert_nonzero_saying);
  m.impl("fill_.Scalar", fill_);
  m.impl("fill_.Tensor", fill_tensor_);
  m.impl("zero_", zero_);

  m.impl("randint.low", randint);
  m.impl("multinomial", torch::CppFunction::makeFromBoxedFunction<&multinomial>());

  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
}

// asked for parameters, too; there is nothing to differentiate
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_has_compatible_shallow_copy_type", may_become);
}

// These two read the bits of conjugation and negation themselves. Without this, the general rule
// for such bits (make a plain tensor first, which is a copy) would call them again without end.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
  m.impl("_copy_from_and_resize", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
  m.impl("_copy_from_and_resize", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(sol_ve, Conjugate, m) {
  m.impl("copy_", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(sol_ve, Negative, m) {
  m.impl("copy_", torch::CppFunction::makeFallthrough());
}

} // namespace ve
