// What Python sees: sol_dynamo/ve/module.py makes torch.ve of it.
#include "allocator.h"
#include "cores.h"
#include "fallback.h"
#include "generator.h"
#include "programs.h"
#include "torch_interfaces.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h> // not torch's pybind.h, which takes half a minute to compile
#include <torch/csrc/Generator.h>

namespace py = pybind11;

namespace ve {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;

void initialize(const std::string& path, const std::vector<int>& nodes) {
  load_driver(path);
  set_nodes(nodes);
  register_with_torch();
}

py::object generator_of(DeviceIndex device) {
  return py::reinterpret_steal<py::object>(
      THPGenerator_initDefaultGenerator(default_generator(device)));
}

std::pair<uint64_t, uint64_t> advance(py::handle generator, uint64_t count) {
  TORCH_CHECK(THPGenerator_Check(generator.ptr()), "a torch.Generator is needed");
  const auto& given = reinterpret_cast<THPGenerator*>(generator.ptr())->cdata;
  TORCH_CHECK(
      given.device().type() == kVE, "a generator of ve is needed, not of ", given.device());
  return given.get<Generator>()->advance(count);
}

uint64_t load_library(DeviceIndex device, const std::string& path) {
  const uint64_t library = driver().load_library(process(device), path.c_str());
  TORCH_CHECK(library, path, " could not be loaded on ve:", int(device), driver().refusal());
  return library;
}

void unload_library(DeviceIndex device, uint64_t library) {
  const int status = driver().unload_library(process(device), library);
  TORCH_CHECK(
      status == 0, "a library could not be unloaded on ve:", int(device), driver().refusal());
}

uint64_t find_symbol(DeviceIndex device, uint64_t library, const std::string& name) {
  const uint64_t address = driver().get_sym(process(device), library, name.c_str());
  TORCH_CHECK(
      address, "there is no ", name, " in the library on ve:", int(device), driver().refusal());
  return address;
}

// Calls a function of the card on the device's current stream; `words` are its arguments as the
// registers hold them (a float in the upper half). Errors of the call come with a later one that
// waits.
void launch(
    DeviceIndex device,
    uint64_t function,
    const std::vector<uint64_t>& words,
    const std::string& name) {
  Queue& queue = current_queue(index_of(c10::Device(kVE, device)));
  queue.call(function, arguments(words, name), name);
}

// The same on several cores of the card: see cores.h.
void launch_on_cores(
    DeviceIndex device,
    uint64_t function,
    std::vector<uint64_t> words,
    const std::string& name,
    unsigned cores,
    uint64_t meetings) {
  Queue& queue = current_queue(index_of(c10::Device(kVE, device)));
  call_on_cores(queue, function, std::move(words), name, cores, meetings);
}

} // namespace

// Errors without the C++ stack behind them, which says nothing to who calls from Python.
void translate(std::exception_ptr error) {
  try {
    if (error)
      std::rethrow_exception(error);
  } catch (const c10::Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what_without_backtrace());
  }
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::register_exception_translator(translate);

  m.def("initialize", initialize, Released());
  m.def("in_bad_fork", in_bad_fork);
  m.def("driver_version", [] { return std::string(driver().version_string()); });
  m.def("model", [] { return std::string(driver().model ? driver().model() : ""); });
  m.def("arch", [](int node) { return driver().get_ve_arch ? driver().get_ve_arch(node) : 0; });
  m.def("device_count", device_count);
  m.def("current_device", current_device);
  m.def("set_device", [](DeviceIndex device) { set_device(device); });
  m.def("exchange_device", exchange_device);
  m.def("has_process", has_process);
  m.def("process_handle", [](DeviceIndex device) { // AVEO's
    return reinterpret_cast<uint64_t>(process(device));
  });
  m.def("start_process", [](DeviceIndex device) { queue(device, 0); }, Released());

  m.def("synchronize", synchronize_device, Released());
  m.def("synchronize_all", synchronize_all, Released());

  m.def("milliseconds", [](uint64_t first, uint64_t second) { // torch.Event's event_id
    return milliseconds(reinterpret_cast<Event*>(first), reinterpret_cast<Event*>(second));
  });

  m.def("empty_cache", [] { allocator().emptyCache(); }, Released());
  m.def("set_memory_limit", set_memory_limit);
  m.def("set_total_memory", set_total_memory);
  m.def("memory_info", memory_info);

  m.def("default_generator", generator_of);
  m.def("advance_generator", advance);

  m.def("load_library", load_library, Released());
  m.def("settle", settle, Released());
  m.def("unload_library", unload_library, Released());
  m.def("find_symbol", find_symbol, Released());
  m.def("launch", launch, Released());
  m.def("launch_on_cores", launch_on_cores, Released());

  m.def("set_compiler", [](py::object compile, std::unordered_map<std::string, std::vector<size_t>> lifted) {
    set_compiler(compile.is_none() ? nullptr : compile.ptr(), std::move(lifted));
  });
  m.def("program_counts", program_counts);

  m.def("fallbacks", fallbacks);
  m.def("reset_fallbacks", reset_fallbacks);
  m.def("set_fallback_warnings", set_fallback_warnings);
}

} // namespace ve
