// The instruction trace of SOL_VE_TRACE: one line for each instruction, before it is executed.
#include <cerrno>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "decode.h"

namespace vesim {
namespace {

class Trace : public Observer {
 public:
  explicit Trace(std::FILE* file, std::shared_ptr<std::FILE> shared = nullptr)
      : file_(file), shared_(std::move(shared)) {}
  ~Trace() override { std::fflush(file_); }

  void issued(const Instruction& i, const Core& core) override {
    std::string values;
    char text[64];
    const auto value = [&](const char* what, uint64_t v) {
      snprintf(text, sizeof text, " %s=0x%" PRIx64, what, v);
      values += text;
    };
    const auto scalar = [&](unsigned n) {
      char name[8];
      snprintf(name, sizeof name, "s%u", n & 63);
      value(name, core.s[n & 63]);
    };
    if (i.entry != nullptr) {
      for (const char* p = i.entry->syntax; *p != 0; ++p) {
        if (*p != '$') continue;
        ++p;
        if (std::strchr("YUWQAj", *p) != nullptr && i.cy) scalar(i.sy);
        if (std::strchr("ZzRABaH", *p) != nullptr && i.cz) scalar(i.sz);
        if (*p == 'v' || *p == 'n') {
          snprintf(text, sizeof text, " vl=%" PRIu64, core.vl);
          values += text;
        }
      }
    }
    const std::string code = disassemble(i.word);
    const std::string place = core.memory().describe(core.ic);
    // one call, so that lines of several cores do not mix
    std::fprintf(file_, "%012" PRIx64 " %-24s %-40s%s\n", core.ic, place.c_str(), code.c_str(),
                 values.c_str());
  }
  void host_function(const char* name, const Core& core) override {
    std::fprintf(file_, "%012" PRIx64 " %-24s library function\n", core.ic, name);
  }

 private:
  std::FILE* file_;
  std::shared_ptr<std::FILE> shared_;  // the same one, where the last trace is to close it
};

// One stream for all cores that write to a file: each has a buffer of its own, whose blocks would
// end in the middle of lines.
std::shared_ptr<std::FILE> shared_file(const char* name) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<std::FILE>> open;
  std::lock_guard<std::mutex> hold(mutex);
  std::shared_ptr<std::FILE> file = open[name].lock();
  if (file == nullptr) {
    if (std::FILE* made = std::fopen(name, "a")) file.reset(made, std::fclose);
    open[name] = file;
  }
  return file;
}

}  // namespace

std::unique_ptr<Observer> make_trace(std::FILE* file) {
  return std::make_unique<Trace>(file);
}

std::unique_ptr<Observer> trace_from_environment() {
  const char* name = std::getenv("SOL_VE_TRACE");
  if (name == nullptr || *name == 0) return nullptr;
  if (std::strcmp(name, "-") == 0) return make_trace(stderr);
  std::shared_ptr<std::FILE> file = shared_file(name);
  if (file == nullptr) {
    std::fprintf(stderr, "SOL_VE_TRACE: cannot write %s: %s\n", name, std::strerror(errno));
    return nullptr;
  }
  std::FILE* const stream = file.get();
  return std::make_unique<Trace>(stream, std::move(file));
}

}  // namespace vesim
