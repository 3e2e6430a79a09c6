// Copies. See copy.h.
#include "copy.h"

#include "host_allocator.h"
#include "programs.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

namespace ve {
namespace {

// Bytes that a copy from device to device holds on the host at a time.
constexpr size_t kBounce = size_t{32} << 20;

// The memory of a tensor on the host. Some have none (zeros that autograd has not made yet).
const void* host_memory(const at::Tensor& tensor) {
  const void* memory = tensor.const_data_ptr();
  TORCH_CHECK(
      memory, "a tensor without memory cannot be copied to the ve device: ", tensor.toString());
  return memory;
}

uint64_t address(const at::Tensor& tensor) {
  return reinterpret_cast<uint64_t>(tensor.const_data_ptr());
}

DeviceIndex card_of(const at::Tensor& tensor) {
  return tensor.device().index();
}

Keep keep_storage(const at::Tensor& tensor) {
  return std::make_shared<c10::Storage>(tensor.storage());
}

// As in a view: conjugation and negation that are bits of the tensor, not of its memory.
void set_bits(at::Tensor& tensor, const at::Tensor& like) {
  tensor._set_conj(like.is_conj());
  tensor._set_neg(like.is_neg());
}

// Whether one's bytes are the other's: then nothing needs converting.
bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.is_conj() != b.is_conj() || a.is_neg() != b.is_neg())
    return false;
  for (int64_t i = 0; i < a.dim(); ++i)
    if (a.size(i) > 1 && a.stride(i) != b.stride(i))
      return false;
  return a.is_non_overlapping_and_dense();
}

at::TensorOptions on_host(const at::Tensor& tensor) {
  return at::TensorOptions().dtype(tensor.scalar_type()).device(at::kCPU);
}

void host_to_device(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  Queue& queue = current_queue(card_of(dst));
  if (!dst.is_non_overlapping_and_dense()) {
    at::Tensor held = read(dst);
    held.copy_(src);
    write(dst, held);
    return;
  }
  at::Tensor staged = src;
  const bool as_it_is = same_bytes(src, dst);
  if (!as_it_is) {
    staged = at::empty_strided(dst.sizes(), dst.strides(), on_host(dst));
    set_bits(staged, dst);
    staged.copy_(src);
  }
  // what was staged is ours, so that nobody can change it under way
  const void* from = host_memory(staged);
  if (non_blocking && (!as_it_is || is_pinned(from)))
    queue.write(address(dst), from, dst.nbytes(), keep_storage(staged));
  else
    queue.write_now(address(dst), from, dst.nbytes());
}

void device_to_host(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  if (!same_bytes(src, dst)) {
    at::Tensor(dst).copy_(read(src));
    return;
  }
  Queue& queue = current_queue(card_of(src));
  void* to = dst.mutable_data_ptr();
  if (non_blocking && is_pinned(to))
    queue.read(to, address(src), dst.nbytes(), keep_storage(dst));
  else
    queue.read_now(to, address(src), dst.nbytes());
}

void between_devices(const at::Tensor& dst, const at::Tensor& src) {
  if (same_bytes(src, dst))
    copy_bytes(
        card_of(dst), dst.mutable_data_ptr(), card_of(src), src.const_data_ptr(), dst.nbytes());
  else
    host_to_device(dst, read(src), /*non_blocking=*/true);
}

// sol_ve::copy_ where there is no program for it.
at::Tensor& copy_by_host(at::Tensor& dst, const at::Tensor& src) {
  between_devices(dst, src);
  return dst;
}

void copy_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (run_program(op, stack))
    return;
  const at::Tensor src = torch::jit::pop(*stack).toTensor();
  at::Tensor dst = torch::jit::pop(*stack).toTensor();
  copy_by_host(dst, src);
  stack->emplace_back(std::move(dst));
}

void copy_on_card(const at::Tensor& dst, const at::Tensor& src) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sol_ve::copy_", "")
                             .typed<at::Tensor&(at::Tensor&, const at::Tensor&)>();
  at::Tensor to = dst;
  op.call(to, src);
}

} // namespace

int64_t span(const at::Tensor& tensor) {
  if (tensor.numel() == 0)
    return 0;
  int64_t last = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i)
    last += (tensor.size(i) - 1) * tensor.stride(i);
  return last + 1;
}

at::Tensor read(const at::Tensor& tensor) {
  const int64_t elements = span(tensor);
  at::Tensor flat = at::empty({elements}, on_host(tensor));
  if (elements)
    current_queue(card_of(tensor))
        .read_now(flat.mutable_data_ptr(), address(tensor), flat.nbytes());
  at::Tensor values = flat.as_strided(tensor.sizes(), tensor.strides());
  set_bits(values, tensor);
  return values;
}

// Gaps are written as they were read: what another stream writes there meanwhile is lost.
void write(const at::Tensor& tensor, const at::Tensor& values) {
  const size_t bytes = span(tensor) * tensor.itemsize();
  if (bytes)
    current_queue(card_of(tensor)).write_now(address(tensor), host_memory(values), bytes);
}

at::Tensor to_device(const at::Tensor& values, DeviceIndex device) {
  at::Tensor made = at::empty_strided(
      values.sizes(), values.strides(), values.options().device(at::Device(kVE, device)));
  set_bits(made, values);
  write(made, values);
  return made;
}

void copy(const at::Tensor& dst, const at::Tensor& given, bool non_blocking) {
  const at::Tensor src = given.sizes() == dst.sizes() ? given : given.expand(dst.sizes());
  if (dst.numel() == 0)
    return;
  at::assert_no_internal_overlap(dst);
  const bool from = src.device().type() == kVE;
  const bool to = dst.device().type() == kVE;
  TORCH_CHECK(
      (from || src.device().is_cpu()) && (to || dst.device().is_cpu()),
      "the ve device copies to and from the CPU, not from ",
      src.device(),
      " to ",
      dst.device());
  if (from && to) {
    if (src.is_same(dst))
      return;
    at::assert_no_partial_overlap(dst, src);
    if (src.device() == dst.device())
      copy_on_card(dst, src);
    else
      between_devices(dst, src);
  } else if (to) {
    host_to_device(dst, src, non_blocking);
  } else {
    device_to_host(dst, src, non_blocking);
  }
}

void copy_bytes(
    DeviceIndex to_device, void* to, DeviceIndex from_device, const void* from, size_t bytes) {
  std::vector<char> held(std::min(bytes, kBounce));
  const auto target = reinterpret_cast<uint64_t>(to);
  const auto source = reinterpret_cast<uint64_t>(from);
  for (size_t done = 0; done < bytes; done += held.size()) {
    const size_t now = std::min(held.size(), bytes - done);
    current_queue(from_device).read_now(held.data(), source + done, now);
    current_queue(to_device).write_now(target + done, held.data(), now);
  }
}

TORCH_LIBRARY(sol_ve, m) {
  m.def("copy_(Tensor(a!) dst, Tensor src) -> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(sol_ve, PrivateUse1, m) {
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&copy_operator>());
}

} // namespace ve
