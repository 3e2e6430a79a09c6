// Looks up the functions of driver.h in a shared library. It must not know who calls them.
#include "driver.h"

#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <memory>
#include <mutex>

namespace ve {
namespace {

// Never unloaded: threads of the driver may run until the process ends.
Driver* loaded = nullptr;
std::mutex loading;

template <typename Function>
void look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

} // namespace

std::string Driver::refusal() const {
  const char* text = last_error ? last_error() : nullptr;
  return text && *text ? std::string(" (") + text + ")" : std::string();
}

void load_driver(const std::string& path) {
  std::lock_guard<std::mutex> lock(loading);
  if (loaded) {
    TORCH_CHECK(
        loaded->path == path,
        "the ve device runs on the driver ",
        loaded->path,
        " and cannot change to ",
        path,
        " in the same process");
    return;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  TORCH_CHECK(library, "the ve device cannot load its driver ", path, ": ", dlerror());
  auto found = std::make_unique<Driver>();
  std::string missing;
#define VE_LOOK_UP(result, name, parameters)    \
  look_up(library, "veo_" #name, found->name);  \
  if (!found->name)                             \
    missing += " veo_" #name;
  VE_DRIVER_FUNCTIONS(VE_LOOK_UP)
#undef VE_LOOK_UP
  TORCH_CHECK(
      missing.empty(), path, " is no AVEO driver, or too old a one: it lacks", missing);
  look_up(library, "veo_get_ve_arch", found->get_ve_arch);
  look_up(library, "vesim_model", found->model);
  look_up(library, "vesim_last_error", found->last_error);
  found->path = path;
  loaded = found.release();
}

const Driver& driver() {
  TORCH_CHECK(loaded, "the ve device has no driver yet: call torch.ve.init()");
  return *loaded;
}

} // namespace ve
