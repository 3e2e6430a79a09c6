#include "registry.h"

#include <pthread.h>
#include <stdlib.h>

#include <algorithm>
#include <limits>
#include <sstream>

namespace vesim {

thread_local std::string last_error;
std::atomic<uintptr_t> next_handle{0x1000};

namespace {

constexpr int kMaxCards = 64;

// Never destroyed: at exit, threads may still be at work. A forked child leaves the parent's to the
// parent, its locks and threads being useless there.
std::atomic<Registry*> the_registry{nullptr};

int number(const std::string& text, const char* of) {
  char* end = nullptr;
  errno = 0;
  const long value = strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || errno || value < 0 || value > std::numeric_limits<int>::max()) {
    throw Refused{std::string(of) + "='" + text + "' is not a number"};
  }
  return static_cast<int>(value);
}

}  // namespace

Refused unknown_handle(uintptr_t handle, uintptr_t first, const char* what) {
  if (!handle) return {std::string("the ") + what + " is a null pointer"};
  if (handle < first) {
    return {std::string("the ") + what + " belongs to the process that fork() was called in; a " +
            "child has to create its own"};
  }
  return {std::string("no ") + what + " has handle " + hex(handle) + ": it is closed or destroyed"};
}

Registry& registry() {
  static const bool once = [] {
    the_registry = new Registry;
    return pthread_atfork(nullptr, nullptr, [] { the_registry = new Registry; }) == 0;
  }();
  (void)once;
  return *the_registry;
}

std::shared_ptr<Process> process_of(const veo_proc_handle* handle) {
  return registry().processes.find(handle, "process");
}
std::shared_ptr<Context> context_of(const veo_thr_ctxt* handle) {
  return registry().contexts.find(handle, "context");
}

// --- cards ---------------------------------------------------------------------------------------

std::string environment(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

int cards() {
  const std::string text = environment("SOL_VE_CARDS");
  const int count = text.empty() ? 1 : number(text, "SOL_VE_CARDS");
  if (count > kMaxCards) {
    throw Refused{"SOL_VE_CARDS=" + text + " is more than " + std::to_string(kMaxCards)};
  }
  return count;
}

const CardModel& model() {
  const std::string name = environment("SOL_VE_MODEL");
  if (const CardModel* found = card_model(name.empty() ? "VE20B" : name)) return *found;
  throw Refused{"SOL_VE_MODEL='" + name + "' is none of " + card_model_names()};
}

int node_of(int venode) {
  if (venode < -1) throw Refused{"card " + std::to_string(venode) + " is negative"};
  const std::string chosen = environment("VE_NODE_NUMBER");
  std::vector<int> allotted;
  std::istringstream list(environment("_VENODELIST"));
  for (std::string item; list >> item;) allotted.push_back(number(item, "_VENODELIST"));
  int node = venode;
  if (venode == -1) {
    node = !chosen.empty() ? number(chosen, "VE_NODE_NUMBER") : allotted.empty() ? 0 : allotted[0];
    if (!allotted.empty() && std::find(allotted.begin(), allotted.end(), node) == allotted.end()) {
      throw Refused{"card " + chosen + " of VE_NODE_NUMBER is not in _VENODELIST"};
    }
  } else if (!allotted.empty()) {
    if (static_cast<size_t>(venode) >= allotted.size()) {
      throw Refused{"card " + std::to_string(venode) + " of _VENODELIST, which has " +
                    std::to_string(allotted.size())};
    }
    node = allotted[venode];
  }
  const int count = cards();
  if (node >= count) {
    throw Refused{"card " + std::to_string(node) + " of " + std::to_string(count) +
                  " simulated ones: set SOL_VE_CARDS before the first call"};
  }
  return node;
}

std::string hex(uint64_t value) {
  std::ostringstream text;
  text << "0x" << std::hex << value;
  return text.str();
}

}  // namespace vesim
