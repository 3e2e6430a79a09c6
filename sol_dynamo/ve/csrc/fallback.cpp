// The boxed fallback: a program of ours (programs.h), else the CPU.
//
// Arguments are copied storage by storage, not tensor by tensor: tensors that share memory share
// it on the CPU too, with the same strides and overlaps, so that an operator does (and refuses)
// exactly what it does on the CPU. What it wrote to is written back. Any kernel that is registered
// for the device overrides this.
#include "fallback.h"

#include "copy.h"
#include "generator.h"
#include "programs.h"
#include "resize.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/List.h>
#include <ATen/ops/_efficientzerotensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

namespace ve {
namespace {

using at::Tensor;
using c10::IValue;

// --- Counting -----------------------------------------------------------------------------------

struct Counts {
  std::mutex mutex;
  std::map<std::string, int64_t> by_name;
  std::set<std::string> warned; // names without overloads
  bool warn = true;
};

Counts& counts() {
  static auto* the = new Counts;
  return *the;
}

std::string full_name(const c10::OperatorName& name) {
  return name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
}

// --- Copies of arguments ------------------------------------------------------------------------

// Offsets in a copied range keep their remainders for every element size up to 64 bytes.
constexpr int64_t kAlign = 64;

// The part of one storage that arguments use, on the CPU.
struct Range {
  int64_t begin = INT64_MAX; // bytes
  int64_t end = 0;
  Tensor bytes; // uint8, of end - begin
};

class Mirrors {
 public:
  // First all tensors are seen, then asked for.
  void see(const Tensor& tensor) {
    if (!on_device(tensor))
      return;
    const DeviceIndex device = tensor.device().index();
    TORCH_CHECK(
        device_ < 0 || device_ == device,
        "Expected all tensors to be on the same device, but found at least two devices, ve:",
        int(device_),
        " and ve:",
        int(device));
    device_ = device;
    if (tensor.numel() == 0)
      return; // wherever it begins, it uses nothing
    Range& range = ranges_[tensor.storage().unsafeGetStorageImpl()];
    const int64_t begin = tensor.storage_offset() * tensor.itemsize();
    range.begin = std::min(range.begin, begin / kAlign * kAlign);
    range.end = std::max<int64_t>(range.end, begin + span(tensor) * tensor.itemsize());
  }

  // The CPU tensor that stands for a tensor of the device; others stand for themselves. A tensor
  // that is given twice is one there, too: an operator may not resize a result that it reads.
  Tensor of(const Tensor& tensor) {
    if (!on_device(tensor))
      return tensor;
    Tensor& copy = copies_[tensor.unsafeGetTensorImpl()];
    if (!copy.defined())
      copy = copy_of(tensor);
    return copy;
  }

  // What the operator left in the CPU copy goes back, its new size included.
  static void write_back(const Tensor& tensor, const Tensor& copy) {
    if (!on_device(tensor))
      return;
    if (tensor.sizes() != copy.sizes() || tensor.strides() != copy.strides())
      set_geometry(tensor, copy.sizes(), copy.strides());
    write(tensor, copy);
  }

  static bool on_device(const Tensor& tensor) {
    return tensor.defined() && tensor.device().type() == kVE;
  }

  DeviceIndex device() const {
    return device_;
  }

 private:
  Tensor copy_of(const Tensor& tensor) {
    Tensor copy = at::empty({0}, at::TensorOptions().dtype(tensor.scalar_type()).device(at::kCPU));
    auto* impl = copy.unsafeGetTensorImpl();
    if (tensor.numel() != 0) {
      auto* storage = tensor.storage().unsafeGetStorageImpl();
      Range& range = ranges_.at(storage);
      if (!range.bytes.defined())
        fetch(range, *storage);
      impl->set_storage_keep_dtype(range.bytes.storage());
      impl->set_storage_offset(tensor.storage_offset() - range.begin / int64_t(tensor.itemsize()));
    }
    impl->set_sizes_and_strides(tensor.sizes(), tensor.strides());
    copy._set_conj(tensor.is_conj());
    copy._set_neg(tensor.is_neg());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number())
      impl->set_wrapped_number(true); // takes no part in type promotion
    return copy;
  }

  void fetch(Range& range, c10::StorageImpl& storage) {
    const int64_t bytes = range.end - range.begin;
    range.bytes = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(at::kCPU));
    current_queue(device_).read_now(
        range.bytes.mutable_data_ptr(),
        reinterpret_cast<uint64_t>(storage.data()) + range.begin,
        bytes);
  }

  DeviceIndex device_ = -1;
  std::unordered_map<c10::StorageImpl*, Range> ranges_;
  std::unordered_map<c10::TensorImpl*, Tensor> copies_;
};

bool is_tensors(const IValue& value) { // Tensor[] or Tensor?[]
  if (value.isTensorList())
    return true;
  if (!value.isList())
    return false;
  const auto& elements = value.toListRef();
  return std::any_of(elements.begin(), elements.end(), [](auto& e) { return e.isTensor(); });
}

// Calls f(tensor) for the tensors in an argument, however it holds them.
template <typename F>
void each_tensor(const IValue& value, F f) {
  if (value.isTensor())
    f(value.toTensor());
  else if (is_tensors(value))
    for (const IValue& element : value.toListRef())
      if (element.isTensor())
        f(element.toTensor());
}

IValue mirrored(const IValue& value, Mirrors& mirrors) {
  if (value.isTensor())
    return mirrors.of(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector())
      list.push_back(mirrors.of(tensor));
    return list;
  }
  c10::List<std::optional<Tensor>> list;
  for (const IValue& element : value.toListRef())
    list.push_back(
        element.isTensor() ? std::optional<Tensor>(mirrors.of(element.toTensor())) : std::nullopt);
  return list;
}

bool writes(const c10::Argument& argument) {
  const auto* alias = argument.alias_info();
  if (!alias)
    return false;
  const auto& inner = alias->containedTypes();
  return alias->isWrite() ||
      std::any_of(inner.begin(), inner.end(), [](auto& type) { return type.isWrite(); });
}

// Batch norm updates running statistics that some of its schemas do not mark as written to.
bool writes_unmarked(const c10::FunctionSchema& schema, const c10::Argument& argument) {
  return (argument.name() == "running_mean" || argument.name() == "running_var") &&
      schema.name().find("backward") == std::string::npos &&
      schema.name().find("batch_norm") != std::string::npos;
}

// Arguments that lie on the CPU for every device: indices, lengths. (Numbers may, anywhere.)
const std::set<std::string> kTakesHostTensors = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
    "aten::_unsafe_index_put",
    "aten::_pack_padded_sequence",
    "aten::_ctc_loss",
    "aten::_ctc_loss_backward",
};

void check_on_device(const c10::OperatorHandle& op, const Tensor& tensor, DeviceIndex device) {
  const bool fine = device < 0 || !tensor.defined() || tensor.dim() == 0 ||
      Mirrors::on_device(tensor) || kTakesHostTensors.count(op.operator_name().name);
  TORCH_CHECK(
      fine,
      "Expected all tensors to be on the same device, but found at least two devices, ve:",
      int(device),
      " and ",
      tensor.device(),
      ", in the arguments of ",
      op.operator_name().name);
}

// --- Random numbers -----------------------------------------------------------------------------

bool is_generator(const c10::Argument& argument) {
  return argument.name() == "generator";
}

// A generator of the CPU whose numbers follow from those of the device's generator.
at::Generator cpu_generator(const IValue& given, DeviceIndex device) {
  const at::Generator& own = given.isNone() ? default_generator(device) : given.toGenerator();
  if (own.device().type() != kVE)
    return own;
  return at::detail::createCPUGenerator(own.get<Generator>()->draw());
}

// --- Results ------------------------------------------------------------------------------------

const c10::Argument* aliased_argument(
    const c10::FunctionSchema& schema, const c10::Argument& result, size_t& index) {
  for (index = 0; index < schema.arguments().size(); ++index) {
    const auto& argument = schema.arguments()[index];
    if (argument.alias_info() && result.alias_info() &&
        argument.alias_info()->beforeSets() == result.alias_info()->beforeSets())
      return &argument;
  }
  return nullptr;
}

Tensor result_to_device(const Tensor& tensor, DeviceIndex device) {
  if (!tensor.defined() || !tensor.device().is_cpu())
    return tensor;
  TORCH_CHECK_NOT_IMPLEMENTED(
      tensor.layout() == c10::Layout::Strided,
      "the ve device has strided tensors only, and the result is ",
      tensor.layout(),
      ": compute it on the CPU");
  if (tensor._is_zerotensor())
    return at::_efficientzerotensor(
        tensor.sizes(), tensor.options().device(c10::Device(kVE, device)));
  Tensor made = to_device(tensor, device);
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number())
    made.unsafeGetTensorImpl()->set_wrapped_number(true);
  return made;
}

IValue result_to_device(const IValue& value, DeviceIndex device) {
  if (value.isTensor())
    return result_to_device(value.toTensor(), device);
  if (!value.isTensorList())
    return value;
  c10::List<Tensor> list;
  for (const Tensor& tensor : value.toTensorVector())
    list.push_back(result_to_device(tensor, device));
  return list;
}

} // namespace

bool takes_host_tensors(const std::string& name) {
  return kTakesHostTensors.count(name);
}

void count_fallback(const c10::OperatorName& name) {
  bool warn;
  {
    auto& all = counts();
    std::lock_guard<std::mutex> lock(all.mutex);
    ++all.by_name[full_name(name)];
    warn = all.warned.insert(name.name).second && all.warn;
  }
  if (warn)
    TORCH_WARN(
        name.name,
        " has no kernel for the ve device and runs on the CPU, with copies both ways (said once "
        "for each operator; torch.ve.fallbacks() counts them)");
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& arguments = schema.arguments();
  const auto& returns = schema.returns();
  for (const auto& result : returns)
    TORCH_CHECK_NOT_IMPLEMENTED(
        !result.alias_info() || result.alias_info()->isWrite() || writes(result),
        schema.name(),
        " gives a view of its argument, which a copy on the CPU cannot: the ve device has no "
        "kernel for it");
  count_fallback(op.operator_name());

  const size_t begin = stack->size() - arguments.size();
  const std::vector<IValue> given(stack->begin() + begin, stack->end());
  Mirrors mirrors;
  std::optional<DeviceIndex> asked; // by a factory function
  for (const IValue& value : given) {
    each_tensor(value, [&](const Tensor& tensor) { mirrors.see(tensor); });
    if (value.isDevice() && value.toDevice().type() == kVE)
      asked = index_of(value.toDevice());
  }
  const DeviceIndex device =
      asked.value_or(mirrors.device() >= 0 ? mirrors.device() : current_device());
  const c10::DeviceGuard guard(c10::Device(kVE, device));

  for (size_t i = 0; i < given.size(); ++i) {
    IValue& value = (*stack)[begin + i];
    if (value.isTensor() || is_tensors(value)) {
      each_tensor(value, [&](const Tensor& t) { check_on_device(op, t, mirrors.device()); });
      value = mirrored(given[i], mirrors);
    } else if (value.isDevice() && value.toDevice().type() == kVE) {
      value = c10::Device(at::kCPU);
    } else if (is_generator(arguments[i])) {
      value = cpu_generator(given[i], device);
    }
  }
  const std::vector<IValue> copies(stack->begin() + begin, stack->end());

  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  for (size_t i = 0; i < given.size(); ++i) {
    if (!writes(arguments[i]) && !writes_unmarked(schema, arguments[i]))
      continue;
    std::vector<Tensor> to;
    each_tensor(given[i], [&](const Tensor& tensor) { to.push_back(tensor); });
    size_t k = 0;
    each_tensor(copies[i], [&](const Tensor& copy) { Mirrors::write_back(to[k++], copy); });
  }
  const size_t results = stack->size() - returns.size();
  for (size_t i = 0; i < returns.size(); ++i) {
    IValue& value = (*stack)[results + i];
    size_t index = 0;
    if (returns[i].alias_info() && aliased_argument(schema, returns[i], index))
      value = given[index];
    else
      value = result_to_device(value, device);
  }
}

std::vector<std::pair<std::string, int64_t>> fallbacks() {
  auto& all = counts();
  std::lock_guard<std::mutex> lock(all.mutex);
  return {all.by_name.begin(), all.by_name.end()};
}

void reset_fallbacks() {
  auto& all = counts();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.by_name.clear();
  all.warned.clear();
}

void set_fallback_warnings(bool on) {
  auto& all = counts();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.warn = on;
}

void run_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (!run_program(op, stack))
    run_on_cpu(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_operator>());
}

// ATen would compose these for a device without a kernel, with views that some strides forbid.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("native_layer_norm", torch::CppFunction::makeFromBoxedFunction<&run_operator>());
  m.impl("native_group_norm", torch::CppFunction::makeFromBoxedFunction<&run_operator>());
}

} // namespace ve
