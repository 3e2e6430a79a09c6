// Operators that ATen asks of accelerators only: convolution, fused cells of LSTM and GRU, fused
// attention, dropout.
//
// Each is a program of ours where there is one (programs.h). Else cells and dropout are composed of
// the device's other operators, and convolution and attention run on the CPU, counted as fallbacks.
#include "copy.h"
#include "fallback.h"
#include "programs.h"

#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

namespace ve {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Tensor host(const Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kVE ? read(tensor) : tensor;
}

OptionalTensor host(const OptionalTensor& tensor) {
  return tensor && tensor->defined() ? OptionalTensor(host(*tensor)) : std::nullopt;
}

Tensor back(const Tensor& tensor, const Tensor& like) {
  return tensor.defined() ? to_device(tensor, like.device().index()) : tensor;
}

// Whether a program of ours did it: then its results are on the stack.
template <typename... Arguments>
bool ran(torch::jit::Stack& stack, const char* name, const Arguments&... arguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  torch::jit::push(stack, arguments...);
  return run_program(op, &stack);
}

Tensor result(const torch::jit::Stack& stack, size_t i) {
  return stack.at(i).toTensor();
}

// --- Convolution --------------------------------------------------------------------------------

Tensor convolution(
    const Tensor& input,
    const Tensor& weight,
    const OptionalTensor& bias,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups) {
  torch::jit::Stack stack;
  if (ran(
          stack,
          "aten::convolution_overrideable",
          input,
          weight,
          bias,
          stride,
          padding,
          dilation,
          transposed,
          output_padding,
          groups))
    return result(stack, 0);
  count_fallback({"aten::convolution_overrideable", ""});
  const Tensor result = at::convolution(
      host(input),
      host(weight),
      host(bias),
      stride,
      padding,
      dilation,
      transposed,
      output_padding,
      groups);
  return back(result, input);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad,
    const Tensor& input,
    const Tensor& weight,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups,
    std::array<bool, 3> mask) {
  torch::jit::Stack stack;
  if (ran(
          stack,
          "aten::convolution_backward_overrideable",
          grad,
          input,
          weight,
          stride,
          padding,
          dilation,
          transposed,
          output_padding,
          groups,
          mask))
    return {result(stack, 0), result(stack, 1), result(stack, 2)};
  count_fallback({"aten::convolution_backward_overrideable", ""});
  const auto [grad_input, grad_weight, grad_bias] = at::convolution_backward(
      host(grad),
      host(input),
      host(weight),
      IntArrayRef{grad.size(1)},
      stride,
      padding,
      dilation,
      transposed,
      output_padding,
      groups,
      mask);
  return {back(grad_input, input), back(grad_weight, input), back(grad_bias, input)};
}

// --- Dropout ------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> native_dropout(
    const Tensor& input, double p, std::optional<bool> train) {
  const auto mask_options = input.options().dtype(at::kBool);
  if (input.numel() == 0 || !train.value_or(true) || p == 0)
    return {input.clone(), at::ones_like(input, mask_options)};
  if (p == 1)
    return {at::zeros_like(input), at::zeros_like(input, mask_options)};
  torch::jit::Stack stack;
  if (ran(stack, "aten::native_dropout", input, p, train))
    return {result(stack, 0), result(stack, 1)};
  const Tensor mask = at::empty_like(input, mask_options).bernoulli_(1 - p);
  return {input.mul(mask).mul_(1 / (1 - p)), mask};
}

// --- Cells of recurrent networks ----------------------------------------------------------------

Tensor with_bias(const Tensor& gates, const OptionalTensor& bias) {
  return bias && bias->defined() ? gates.add(*bias) : gates;
}

Tensor sum_of_batch(const Tensor& grad, bool wanted) {
  return wanted ? grad.sum(0) : Tensor();
}

Tensor sigmoid_grad(const Tensor& value) { // by its result
  return value.mul(1 - value);
}

Tensor tanh_grad(const Tensor& value) {
  return 1 - value.mul(value);
}

// Gates in the order input, forget, cell, output. The workspace holds them after activation.
std::tuple<Tensor, Tensor, Tensor> lstm_cell(
    const Tensor& input_gates,
    const Tensor& hidden_gates,
    const Tensor& cx,
    const OptionalTensor& input_bias,
    const OptionalTensor& hidden_bias) {
  torch::jit::Stack stack;
  if (ran(
          stack,
          "aten::_thnn_fused_lstm_cell",
          input_gates,
          hidden_gates,
          cx,
          input_bias,
          hidden_bias))
    return {result(stack, 0), result(stack, 1), result(stack, 2)};
  const Tensor gates =
      with_bias(input_gates, input_bias).add(with_bias(hidden_gates, hidden_bias));
  const auto parts = gates.chunk(4, 1);
  const Tensor in = parts[0].sigmoid(), forget = parts[1].sigmoid();
  const Tensor cell = parts[2].tanh(), out = parts[3].sigmoid();
  const Tensor cy = forget.mul(cx).add(in.mul(cell));
  return {out.mul(cy.tanh()), cy, at::cat({in, forget, cell, out}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(
    const OptionalTensor& grad_hy,
    const OptionalTensor& grad_cy,
    const Tensor& cx,
    const Tensor& cy,
    const Tensor& workspace,
    bool has_bias) {
  const bool of_hy = grad_hy && grad_hy->defined();
  const bool of_cy = grad_cy && grad_cy->defined();
  if (!of_hy && !of_cy)
    return {};
  torch::jit::Stack stack;
  if (ran(
          stack,
          "aten::_thnn_fused_lstm_cell_backward_impl",
          grad_hy,
          grad_cy,
          cx,
          cy,
          workspace,
          has_bias))
    return {result(stack, 0), result(stack, 1), result(stack, 2)};
  const auto parts = workspace.chunk(4, 1);
  const Tensor &in = parts[0], &forget = parts[1], &cell = parts[2], &out = parts[3];
  const Tensor tanh_cy = cy.tanh();
  const Tensor dhy = of_hy ? *grad_hy : at::zeros_like(cy);
  Tensor dcy = dhy.mul(out).mul(tanh_grad(tanh_cy));
  if (of_cy)
    dcy = dcy.add(*grad_cy);
  const Tensor grad_gates = at::cat(
      {dcy.mul(cell).mul(sigmoid_grad(in)),
       dcy.mul(cx).mul(sigmoid_grad(forget)),
       dcy.mul(in).mul(tanh_grad(cell)),
       dhy.mul(tanh_cy).mul(sigmoid_grad(out))},
      1);
  return {grad_gates, dcy.mul(forget), sum_of_batch(grad_gates, has_bias)};
}

// Gates in the order reset, update, new. The workspace holds reset, update, new, hx, and the
// hidden part of new.
std::tuple<Tensor, Tensor> gru_cell(
    const Tensor& input_gates,
    const Tensor& hidden_gates,
    const Tensor& hx,
    const OptionalTensor& input_bias,
    const OptionalTensor& hidden_bias) {
  torch::jit::Stack stack;
  if (ran(
          stack,
          "aten::_thnn_fused_gru_cell",
          input_gates,
          hidden_gates,
          hx,
          input_bias,
          hidden_bias))
    return {result(stack, 0), result(stack, 1)};
  const auto in = with_bias(input_gates, input_bias).chunk(3, 1);
  const auto hidden = with_bias(hidden_gates, hidden_bias).chunk(3, 1);
  const Tensor reset = in[0].add(hidden[0]).sigmoid();
  const Tensor update = in[1].add(hidden[1]).sigmoid();
  const Tensor fresh = in[2].add(reset.mul(hidden[2])).tanh();
  return {
      fresh.add(update.mul(hx.sub(fresh))), at::cat({reset, update, fresh, hx, hidden[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(
    const Tensor& grad, const Tensor& workspace, bool has_bias) {
  torch::jit::Stack stack;
  if (ran(stack, "aten::_thnn_fused_gru_cell_backward", grad, workspace, has_bias))
    return {
        result(stack, 0), result(stack, 1), result(stack, 2), result(stack, 3), result(stack, 4)};
  const auto parts = workspace.chunk(5, 1);
  const Tensor &reset = parts[0], &update = parts[1], &fresh = parts[2], &hx = parts[3];
  const Tensor d_update = grad.mul(hx.sub(fresh)).mul(sigmoid_grad(update));
  const Tensor d_fresh = grad.mul(1 - update).mul(tanh_grad(fresh));
  const Tensor d_reset = d_fresh.mul(parts[4]).mul(sigmoid_grad(reset));
  const Tensor grad_in = at::cat({d_reset, d_update, d_fresh}, 1);
  const Tensor grad_hidden = at::cat({d_reset, d_update, d_fresh.mul(reset)}, 1);
  return {
      grad_in,
      grad_hidden,
      grad.mul(update),
      sum_of_batch(grad_in, has_bias),
      sum_of_batch(grad_hidden, has_bias)};
}

// --- Attention ----------------------------------------------------------------------------------

// What the two operators below run, as a program of ours or on the CPU.
std::tuple<Tensor, Tensor> fused_attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const OptionalTensor& mask,
    bool is_causal,
    std::optional<double> scale) {
  return at::_scaled_dot_product_flash_attention_for_cpu(
      query, key, value, 0, is_causal, mask, scale);
}

std::tuple<Tensor, Tensor, Tensor> fused_attention_backward(
    const Tensor& grad,
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const Tensor& out,
    const Tensor& logsumexp,
    const OptionalTensor& mask,
    bool is_causal,
    std::optional<double> scale) {
  return at::_scaled_dot_product_flash_attention_for_cpu_backward(
      grad, query, key, value, out, logsumexp, 0, is_causal, mask, scale);
}

bool differentiable(const OptionalTensor& tensor) {
  return tensor && tensor->defined() && tensor->requires_grad();
}

// The fused operator takes what the CPU's takes; the rest is composed by ATen.
int64_t attention_choice(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const OptionalTensor& mask,
    double dropout_p,
    bool,
    std::optional<double>,
    bool enable_gqa) {
  const auto fits = [&](const Tensor& t) {
    return t.dim() == 4 && t.numel() > 0 && t.stride(-1) == 1 &&
        t.scalar_type() == query.scalar_type() && t.size(-1) == query.size(-1) &&
        t.size(0) == query.size(0) && t.size(1) == query.size(1);
  };
  const bool fused = at::globalContext().userEnabledOverrideableSDP() && dropout_p == 0 &&
      !enable_gqa && !differentiable(mask) && query.is_floating_point() && fits(query) &&
      fits(key) && fits(value);
  return static_cast<int64_t>(fused ? at::SDPBackend::overrideable : at::SDPBackend::math);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>
attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const OptionalTensor& mask,
    double dropout_p,
    bool is_causal,
    bool,
    std::optional<double> scale) {
  TORCH_CHECK(
      dropout_p == 0, "fused attention on the ve device has no dropout, not ", dropout_p);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sol_ve::fused_attention", "")
                             .typed<decltype(fused_attention)>();
  const auto [out, logsumexp] = op.call(query, key, value, mask, is_causal, scale);
  const Tensor none = at::empty({0}, query.options());
  const Tensor number = at::empty({}, at::TensorOptions().dtype(at::kLong).device(at::kCPU));
  return {
      out,
      logsumexp,
      Tensor(),
      Tensor(),
      query.size(2),
      key.size(2),
      number,
      number.clone(),
      none};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& grad,
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const Tensor& mask,
    std::array<bool, 4>,
    const Tensor& out,
    const Tensor& logsumexp,
    const Tensor&,
    const Tensor&,
    int64_t,
    int64_t,
    double,
    bool is_causal,
    const Tensor&,
    const Tensor&,
    std::optional<double> scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sol_ve::fused_attention_backward", "")
                             .typed<decltype(fused_attention_backward)>();
  const OptionalTensor given = mask.defined() ? OptionalTensor(mask) : std::nullopt;
  const auto [grad_query, grad_key, grad_value] =
      op.call(grad, query, key, value, out, logsumexp, given, is_causal, scale);
  return {grad_query, grad_key, grad_value, Tensor()};
}

} // namespace

TORCH_LIBRARY_FRAGMENT(sol_ve, m) {
  m.def(
      "fused_attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool is_causal, "
      "float? scale) -> (Tensor, Tensor)");
  m.def(
      "fused_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
      "Tensor logsumexp, Tensor? mask, bool is_causal, float? scale) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(sol_ve, CPU, m) {
  m.impl("fused_attention", fused_attention);
  m.impl("fused_attention_backward", fused_attention_backward);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  m.impl("native_dropout", native_dropout);
  m.impl("_thnn_fused_lstm_cell", lstm_cell);
  m.impl("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward);
  m.impl("_thnn_fused_gru_cell", gru_cell);
  m.impl("_thnn_fused_gru_cell_backward", gru_cell_backward);
  m.impl("_fused_sdp_choice", attention_choice);
  m.impl("_scaled_dot_product_fused_attention_overrideable", attention);
  m.impl("_scaled_dot_product_fused_attention_overrideable_backward", attention_backward);
}

} // namespace ve

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &ve::attention_choice)
} // namespace at::native
