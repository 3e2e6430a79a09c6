// Operators of lists of tensors (`_foreach_add_` and its like, which optimizers call): one program
// for a list where there is one (programs.h), else ATen's loop over its tensors.
#include "programs.h"

#include <ATen/core/List.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>

namespace ve {
namespace {

using at::Tensor;
using c10::IValue;

// Numbers that come as a tensor of the CPU, of one dimension: as a list, which has an overload of
// its own. ATen's loops begin so, too, and say what is wrong with others.
std::optional<c10::OperatorHandle> with_numbers(
    const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  if (op.operator_name().overload_name != "Tensor" || arguments.back().name() != "scalars" ||
      !stack->back().isTensor())
    return std::nullopt;
  const Tensor& numbers = stack->back().toTensor();
  const IValue& first = *(stack->end() - arguments.size());
  if (!numbers.defined() || !numbers.device().is_cpu() || numbers.dim() != 1 ||
      !numbers.is_contiguous() || numbers.size(0) != int64_t(first.toListRef().size()))
    return std::nullopt;
  auto found = c10::Dispatcher::singleton().findSchema({op.operator_name().name, "ScalarList"});
  if (!found)
    return std::nullopt;
  c10::impl::GenericList list(c10::NumberType::get());
  for (int64_t i = 0; i < numbers.size(0); ++i)
    list.push_back(IValue(numbers[i].item()));
  stack->back() = std::move(list);
  return found;
}

void run_list(const c10::OperatorHandle& given, torch::jit::Stack* stack) {
  const auto op = with_numbers(given, stack).value_or(given);
  // ATen's loops are for any device: under a key that nobody has, they are what there is
  if (!run_program(op, stack))
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::PrivateUse2), stack);
}

// What GradScaler asks of a device: gradients times a factor, and whether any is not finite.
void unscale(at::TensorList grads, Tensor& found, const Tensor& factor) {
  if (grads.empty())
    return;
  TORCH_CHECK(
      factor.numel() == 1 && found.numel() == 1, "the scale and found_inf are tensors of one number");
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("sol_ve::unscale_", "")
          .typed<void(at::TensorList, at::TensorList, const Tensor&)>();
  const Tensor flags = at::empty({int64_t(grads.size())}, found.options());
  op.call(grads, flags.unbind(), factor.reshape({}));
  found.copy_(at::maximum(found, flags.amax()));
}

void unscale_on_cpu(at::TensorList grads, at::TensorList found, const Tensor& factor) {
  for (size_t i = 0; i < grads.size(); ++i)
    at::_amp_foreach_non_finite_check_and_unscale_(grads[i], found[i].zero_(), factor);
}

} // namespace

TORCH_LIBRARY_FRAGMENT(sol_ve, m) {
  m.def("unscale_(Tensor(a!)[] grads, Tensor(b!)[] found, Tensor factor) -> ()");
}

TORCH_LIBRARY_IMPL(sol_ve, CPU, m) {
  m.impl("unscale_", unscale_on_cpu);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_amp_foreach_non_finite_check_and_unscale_", unscale);
  auto& all = c10::Dispatcher::singleton();
  for (const auto& name : all.getAllOpNames()) {
    const bool list = name.name.compare(0, 15, "aten::_foreach_") == 0;
    const auto op = list ? all.findSchema(name) : std::nullopt;
    if (!op)
      continue;
    const auto& arguments = op->schema().arguments();
    const bool plain = std::none_of(
        arguments.begin(), arguments.end(), [](const auto& a) { return a.is_out(); });
    if (plain && op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd))
      m.impl(
          (name.name + (name.overload_name.empty() ? "" : "." + name.overload_name)).c_str(),
          torch::CppFunction::makeFromBoxedFunction<&run_list>());
  }
}

} // namespace ve
