// Finds the program of an operator. See programs.h.
//
// The key is all that a program may depend on: the operator, each tensor's dtype, sizes, strides
// and device, numbers and flags by value. It is compared byte by byte and made without Python, so
// that what the CPU has to do does not wait for the interpreter.
#include "programs.h"

#include "fallback.h"
#include "generator.h"

#include <ATen/core/List.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>

namespace torch::jit {
// of torch/csrc/jit/python/pybind_utils.h, which takes half a minute to compile
TORCH_PYTHON_API py::object toPyObject(IValue value);
} // namespace torch::jit

namespace ve {
namespace {

using at::Tensor;
using c10::IValue;

// A program: a function of Python, and how many tensors each result is; or none.
struct Program {
  bool final = true; // false: ask again next time
  PyObject* function = nullptr;
  std::vector<int64_t> results; // -1: a tensor by itself
};

struct Compiler {
  std::mutex mutex;
  PyObject* compile = nullptr;
  std::unordered_map<const void*, std::vector<size_t>> lifted; // by operator
  std::unordered_map<std::string, std::vector<size_t>> lifted_by_name;
  std::unordered_map<std::string, Program> programs;
  std::atomic<int64_t> calls{0};
};

Compiler& compiler() {
  static auto* the = new Compiler;
  return *the;
}

std::string full_name(const c10::OperatorName& name) {
  return name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
}

std::vector<size_t> lifted_of(const c10::OperatorHandle& op) {
  auto& all = compiler();
  const void* address = &op.operator_name();
  std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.lifted.find(address);
  if (found != all.lifted.end())
    return found->second;
  const auto named = all.lifted_by_name.find(full_name(op.operator_name()));
  return all.lifted[address] =
             named == all.lifted_by_name.end() ? std::vector<size_t>() : named->second;
}

// --- Keys ---------------------------------------------------------------------------------------

// What a call looks like, and what it brings. `fits` is false where no program could take it.
class Call {
 public:
  Call(const c10::OperatorHandle& op, const torch::jit::Stack& stack)
      : host_tensors_(takes_host_tensors(op.operator_name().name)) {
    const size_t count = op.schema().arguments().size();
    const size_t begin = stack.size() - count;
    const auto lifted = lifted_of(op);
    put(static_cast<const void*>(&op.operator_name()));
    put(c10::get_default_dtype_as_scalartype());
    if (!lifted.empty())
      look_at_dtypes(stack, begin, count);
    for (size_t i = 0; i < count && fits; ++i) {
      const IValue& value = stack[begin + i];
      if (plain_floats_ && std::find(lifted.begin(), lifted.end(), i) != lifted.end() &&
          lift(value)) {
        numbers_at.push_back(i);
        continue;
      }
      see(value);
    }
    if (op.schema().is_mutable())
      put_memory();
    fits = fits && (device >= 0 || asked_);
    if (device < 0)
      device = current_device();
    put(device);
  }

  std::string key;
  bool fits = true;
  DeviceIndex device = -1;
  std::optional<at::Generator> generator; // its numbers are seeds, and no part of a program
  std::vector<Tensor> tensors;
  std::vector<double> numbers;
  std::vector<size_t> numbers_at;

 private:
  template <typename T>
  void put(T value) {
    key.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  // Which tensors share memory with one before: a result may be stored where nothing is read.
  void put_memory() {
    std::unordered_map<const void*, size_t> first;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto [at, alone] = first.emplace(tensors[i].storage().unsafeGetStorageImpl(), i);
      if (alone)
        continue;
      put(i);
      put(at->second);
      put(tensors[i].storage_offset() * int64_t(tensors[i].itemsize()) -
          tensors[at->second].storage_offset() * int64_t(tensors[at->second].itemsize()));
    }
  }

  // Numbers stand for tensors of the dtype that all others have, float or double.
  void look_at_dtypes(const torch::jit::Stack& stack, size_t begin, size_t count) {
    std::optional<c10::ScalarType> common;
    plain_floats_ = true;
    const auto look = [&](const IValue& value) {
      if (!value.isTensor() || !value.toTensor().defined())
        return;
      const Tensor& tensor = value.toTensor();
      if (tensor.unsafeGetTensorImpl()->is_wrapped_number())
        return;
      const auto dtype = tensor.scalar_type();
      plain_floats_ = plain_floats_ && (dtype == at::kFloat || dtype == at::kDouble) &&
          common.value_or(dtype) == dtype && tensor.device().type() == kVE;
      common = dtype;
    };
    for (size_t i = 0; i < count; ++i) {
      const IValue& value = stack[begin + i];
      if (value.isList())
        for (const IValue& element : value.toListRef())
          look(element);
      else
        look(value);
    }
  }

  // Numbers of a list are lifted all or not at all.
  bool lift(const IValue& value) {
    if (!value.isList())
      return lift_number(value);
    const size_t key_before = key.size(), numbers_before = numbers.size();
    const auto elements = value.toListRef();
    put('L');
    put(elements.size());
    if (std::all_of(elements.begin(), elements.end(), [&](const IValue& element) {
          return element.isDouble() && lift_number(element);
        }))
      return true;
    key.resize(key_before);
    numbers.resize(numbers_before);
    return false;
  }

  bool lift_number(const IValue& value) {
    double number;
    if (value.isDouble()) {
      number = value.toDouble();
    } else if (value.isTensor() && value.toTensor().defined()) {
      const Tensor& tensor = value.toTensor();
      if (!tensor.unsafeGetTensorImpl()->is_wrapped_number() ||
          tensor.scalar_type() != at::kDouble || !tensor.device().is_cpu())
        return false;
      number = *tensor.const_data_ptr<double>();
    } else {
      return false;
    }
    // what these do may be a matter of code: times one, beta = 0
    if (!std::isfinite(number) || number == 0 || number == 1 || number == -1)
      return false;
    put(value.isDouble() ? 'D' : 'W');
    put(std::abs(number) < 0.5); // where lerp changes its formula
    numbers.push_back(number);
    return true;
  }

  void see(const Tensor& tensor) {
    if (!tensor.defined()) {
      put('u');
      return;
    }
    const auto* impl = tensor.unsafeGetTensorImpl();
    const auto where = tensor.device().type();
    if (impl->is_wrapped_number() && where == c10::DeviceType::CPU) {
      put('w');
      see(tensor.item());
      return;
    }
    fits = fits && tensor.layout() == c10::Layout::Strided && !tensor.is_conj() &&
        !tensor.is_neg() && !tensor._is_zerotensor() &&
        !impl->key_set().has(c10::DispatchKey::Python);
    if (where == kVE) {
      fits = fits && (device < 0 || device == tensor.device().index());
      device = tensor.device().index();
    } else {
      fits = fits && where == c10::DeviceType::CPU && (tensor.dim() == 0 || host_tensors_);
    }
    if (!fits)
      return;
    put('t');
    put(where);
    put(tensor.scalar_type());
    put(static_cast<char>(impl->is_wrapped_number()));
    put(tensor.dim());
    for (int64_t i = 0; i < tensor.dim(); ++i) {
      put(tensor.size(i));
      put(tensor.stride(i));
    }
    tensors.push_back(tensor);
  }

  void see(const c10::Scalar& number) {
    if (number.isComplex()) {
      put('z');
      put(number.toComplexDouble());
    } else if (number.isBoolean()) {
      put('b');
      put(number.toBool());
    } else if (number.isIntegral(false)) {
      put('i');
      put(number.toLong());
    } else {
      put('d');
      put(number.toDouble());
    }
  }

  void see(const IValue& value) {
    if (value.isTensor()) {
      see(value.toTensor());
    } else if (value.isNone()) {
      put('n');
    } else if (value.isScalar()) { // of all numbers
      see(value.toScalar());
    } else if (value.isList()) {
      const auto elements = value.toListRef();
      put('l');
      put(elements.size());
      for (const IValue& element : elements) {
        if (!fits)
          return;
        see(element);
      }
    } else if (value.isString()) {
      put('s');
      put(value.toStringRef().size());
      key += value.toStringRef();
    } else if (value.isDevice()) {
      const auto given = value.toDevice();
      put('v');
      put(given.type());
      put(given.index());
      asked_ = asked_ || given.type() == kVE;
    } else if (value.isGenerator() && value.toGenerator().device().type() == kVE) {
      put('g');
      generator = value.toGenerator();
    } else {
      fits = false; // streams, objects
    }
  }

  bool host_tensors_;
  bool plain_floats_ = false;
  bool asked_ = false;
};

// --- Making and running -------------------------------------------------------------------------

[[noreturn]] void raise_from_python() {
  python_error error;
  error.persist();
  throw std::move(error);
}

// With the GIL. Dynamo compiles what Python a thread calls while its callback is set, whoever calls
// it: not what computes an operator.
class Plainly {
 public:
  Plainly() {
    // for good: it may go after the interpreter
    static PyObject* const set =
        py::object(py::module_::import("torch._C._dynamo.eval_frame").attr("set_eval_frame"))
            .release()
            .ptr();
    set_ = set;
    before_ = py::reinterpret_steal<py::object>(PyObject_CallOneArg(set_, Py_None));
    if (!before_)
      throw py::error_already_set();
  }
  ~Plainly() {
    PyObject *type, *value, *trace; // of an error under way
    PyErr_Fetch(&type, &value, &trace);
    Py_XDECREF(PyObject_CallOneArg(set_, before_.ptr()));
    PyErr_Restore(type, value, trace);
  }
  Plainly(const Plainly&) = delete;

 private:
  PyObject* set_;
  py::object before_;
};

// With the GIL. Asks Python for a program, which may be none.
Program compile(const c10::OperatorHandle& op, const torch::jit::Stack& stack, const Call& call) {
  const auto& name = op.operator_name();
  const size_t count = op.schema().arguments().size();
  py::list arguments;
  for (size_t i = 0; i < count; ++i) {
    const IValue& value = stack[stack.size() - count + i];
    const bool wrapped = value.isTensor() && value.toTensor().defined() &&
        value.toTensor().unsafeGetTensorImpl()->is_wrapped_number() &&
        value.toTensor().device().is_cpu();
    arguments.append(
        value.isGenerator() ? py::object(py::none())
                            : torch::jit::toPyObject(wrapped ? IValue(value.toTensor().item()) : value));
  }
  py::list at;
  for (size_t i : call.numbers_at)
    at.append(i);
  const auto function = py::handle(compiler().compile);
  const auto made = py::reinterpret_steal<py::object>(PyObject_CallFunctionObjArgs(
      function.ptr(),
      py::str(name.name).ptr(),
      py::str(name.overload_name).ptr(),
      arguments.ptr(),
      at.ptr(),
      nullptr));
  if (!made)
    raise_from_python();
  Program program;
  if (made.ptr() == Py_False) {
    program.final = false;
  } else if (!made.is_none()) {
    const auto pair = py::reinterpret_borrow<py::tuple>(made);
    program.function = py::object(pair[0]).release().ptr(); // for good
    for (const auto& n : py::reinterpret_borrow<py::tuple>(pair[1]))
      program.results.push_back(n.cast<int64_t>());
  }
  return program;
}

Tensor tensor_of(PyObject* object) {
  if (object == Py_None)
    return Tensor();
  TORCH_CHECK(THPVariable_Check(object), "a program gave what is no tensor");
  return THPVariable_Unpack(object);
}

// With the GIL. The results that are no arguments, in order.
std::vector<Tensor> run(const Program& program, const Call& call) {
  const auto tensors = py::reinterpret_steal<py::object>(PyList_New(call.tensors.size()));
  for (size_t i = 0; i < call.tensors.size(); ++i)
    PyList_SET_ITEM(tensors.ptr(), i, THPVariable_Wrap(call.tensors[i]));
  const auto numbers = py::reinterpret_steal<py::object>(PyList_New(call.numbers.size()));
  for (size_t i = 0; i < call.numbers.size(); ++i)
    PyList_SET_ITEM(numbers.ptr(), i, PyFloat_FromDouble(call.numbers[i]));
  const auto made = py::reinterpret_steal<py::object>(
      PyObject_CallFunctionObjArgs(program.function, tensors.ptr(), numbers.ptr(), nullptr));
  if (!made)
    raise_from_python();
  std::vector<Tensor> found;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(made.ptr()); ++i)
    found.push_back(tensor_of(PyList_GET_ITEM(made.ptr(), i)));
  return found;
}

// Which argument a result is, if it is one that was written to.
std::optional<size_t> same_argument(
    const c10::FunctionSchema& schema, const c10::Argument& result) {
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* info = schema.arguments()[i].alias_info();
    if (info && result.alias_info() && info->beforeSets() == result.alias_info()->beforeSets())
      return i;
  }
  return std::nullopt;
}

} // namespace

bool run_program(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto& all = compiler();
  if (!all.compile)
    return false;
  const auto& schema = op.schema();
  for (const auto& result : schema.returns())
    if (result.alias_info() && !result.alias_info()->isWrite() &&
        result.alias_info()->containedTypes().empty())
      return false; // a view
  const Call call(op, *stack);
  if (!call.fits)
    return false;
  Program program;
  bool known;
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    const auto found = all.programs.find(call.key);
    known = found != all.programs.end();
    if (known)
      program = found->second;
  }
  if (known && !program.function)
    return false;
  const c10::DeviceGuard guard(c10::Device(kVE, call.device));
  const DrawFrom draw(call.generator);
  std::vector<Tensor> made;
  {
    py::gil_scoped_acquire gil;
    const Plainly plainly;
    if (!known) {
      program = compile(op, *stack, call);
      std::lock_guard<std::mutex> lock(all.mutex);
      if (program.final)
        all.programs.emplace(call.key, program);
    }
    if (!program.function)
      return false;
    made = run(program, call);
  }
  ++all.calls;

  const size_t begin = stack->size() - schema.arguments().size();
  const std::vector<IValue> given(stack->begin() + begin, stack->end());
  torch::jit::drop(*stack, given.size());
  size_t next = 0, described = 0;
  for (const auto& result : schema.returns()) {
    if (const auto argument = same_argument(schema, result)) {
      stack->push_back(given[*argument]);
      continue;
    }
    const int64_t count = program.results.at(described++);
    if (count < 0) {
      stack->emplace_back(made.at(next++));
      continue;
    }
    c10::List<Tensor> list;
    for (int64_t i = 0; i < count; ++i)
      list.push_back(made.at(next++));
    stack->emplace_back(std::move(list));
  }
  return true;
}

void set_compiler(
    PyObject* compile, std::unordered_map<std::string, std::vector<size_t>> lifted) {
  auto& all = compiler();
  std::lock_guard<std::mutex> lock(all.mutex);
  Py_XINCREF(compile);
  all.compile = compile; // what was there before may be running
  all.programs.clear();
  all.lifted.clear();
  all.lifted_by_name = std::move(lifted);
}

std::pair<int64_t, int64_t> program_counts() {
  auto& all = compiler();
  std::lock_guard<std::mutex> lock(all.mutex);
  return {all.calls.load(), static_cast<int64_t>(all.programs.size())};
}

} // namespace ve
