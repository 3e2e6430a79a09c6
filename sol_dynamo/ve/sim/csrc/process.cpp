#include "process.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "veo.h"

namespace vesim {

// --- libraries -----------------------------------------------------------------------------------

namespace {

bool exists(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

// As dlopen: a name without "/" is looked for in the folders of `search` only.
std::string found(const std::string& path, const std::string& search) {
  if (path.find('/') != std::string::npos) return path;
  size_t begin = 0;
  while (begin < search.size()) {
    const size_t end = std::min(search.find(':', begin), search.size());
    const std::string candidate = search.substr(begin, end - begin) + "/" + path;
    if (end > begin && exists(candidate)) return candidate;
    begin = end + 1;
  }
  throw Refused{"library '" + path + "' is in no folder of VE_LD_LIBRARY_PATH ('" + search +
                "'); a file of the current folder is './" + path + "'"};
}

std::string identity_of(const std::string& path) {
  struct stat s;
  if (stat(path.c_str(), &s) != 0) throw Refused{"no library file '" + path + "'"};
  return std::to_string(s.st_dev) + ":" + std::to_string(s.st_ino) + ":" +
         std::to_string(s.st_size) + ":" + std::to_string(s.st_mtim.tv_sec) + "." +
         std::to_string(s.st_mtim.tv_nsec);
}

}  // namespace

Libraries::Loaded Libraries::read(const std::string& path, const Call& call) const {
  Image::Others others;
  for (const auto& [handle, library] : loaded_) others.push_back(library.image);
  std::string error;
  Loaded library{Image::load(memory_, path, others, error), identity_of(path)};
  if (!library.image) throw Refused{"cannot load '" + path + "': " + error};
  for (const uint64_t function : library.image->initializers()) call(function);
  return library;
}

LibraryHandle Libraries::load(const std::string& path, const std::string& search,
                              const Call& call) {
  const std::string file = found(path, search);
  const std::string identity = identity_of(file);
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [handle, library] : loaded_) {
    if (handle != 0 && library.identity == identity) {
      ++library.uses;
      return handle;
    }
  }
  loaded_.emplace(next_, read(file, call));
  return next_++;
}

void Libraries::load_as_program(const std::string& path, const Call& call) {
  std::lock_guard<std::mutex> lock(mutex_);
  loaded_.emplace(0, read(path, call));
}

void Libraries::unload(LibraryHandle handle) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto library = handle ? loaded_.find(handle) : loaded_.end();
  if (library == loaded_.end()) throw Refused{"no library has handle " + std::to_string(handle)};
  if (--library->second.uses == 0) loaded_.erase(library);
}

uint64_t Libraries::symbol(LibraryHandle handle, const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (handle != 0) {
    const auto library = loaded_.find(handle);
    if (library == loaded_.end()) throw Refused{"no library has handle " + std::to_string(handle)};
    return library->second.image->symbol(name);
  }
  for (const auto& [any, library] : loaded_) {
    if (const uint64_t address = library.image->symbol(name)) return address;
  }
  return 0;
}

// --- contexts ------------------------------------------------------------------------------------

Context::Context(std::shared_ptr<Space> space, uint64_t stack_bytes)
    : space_(std::move(space)),
      stack_bytes_(stack_bytes),
      core_(std::make_unique<Core>(space_->memory, space_->arch, stack_bytes)),
      trace_(trace_from_environment()),
      worker_([this] { work(); }) {
  core_->waits = &space_->waits;
}

Context::~Context() { cancel(); }

void Context::admit(Lock& lock) {
  changed_.wait(lock, [this] {
    return closed_ || block_depth_ == 0 || block_owner_ == std::this_thread::get_id();
  });
  if (closed_) throw Refused{"the context is closed"};
}

// A context in a function of the host does not count as busy: it may wait for another context's
// request itself, and what it waits for is counted.
void Context::tell_waits() {
  const bool busy = !in_host_ && (!queue_.empty() || !running_.empty());
  if (busy != busy_) space_->waits.busy(busy ? 1 : -1);
  busy_ = busy;
}

uint64_t Context::queue(Lock& lock, Work work, bool host) {
  (void)lock;
  const uint64_t id = next_id_++;
  outcomes_.emplace(id, std::nullopt);
  queue_.push_back({id, std::move(work), host, space_->waits.request()});
  tell_waits();
  changed_.notify_all();
  return id;
}

uint64_t Context::submit(Work work) {
  Lock lock(mutex_);
  admit(lock);
  return queue(lock, std::move(work), false);
}

uint64_t Context::submit_host(Work work) {
  Lock lock(mutex_);
  admit(lock);
  return queue(lock, std::move(work), true);
}

uint64_t Context::submit(Call call) {
  // A copy per request, held by the closure: std::function wants it copyable.
  auto shared = std::make_shared<const Call>(std::move(call));
  return submit([this, shared] { return run(*shared); });
}

Outcome Context::perform(Work work) {
  Lock lock(mutex_);
  admit(lock);
  if (queue_.empty() && running_.empty()) {
    // Nobody is before it: the caller's own thread does it, which saves two changes of thread.
    return execute(lock, {next_id_++, std::move(work), false, space_->waits.request()});
  }
  const uint64_t id = queue(lock, std::move(work), false);
  lock.unlock();
  return pick_up(id, true);
}

void Context::work() {
  worker_id_ = std::this_thread::get_id();
  Lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return running_.empty() && (closed_ || !queue_.empty()); });
    if (queue_.empty()) break;
    execute_front(lock);
  }
  gone_ = true;
  changed_.notify_all();
}

void Context::execute_front(Lock& lock) {
  const Request request = std::move(queue_.front());
  queue_.pop_front();
  Outcome outcome = execute(lock, request);
  outcomes_[request.id] = std::move(outcome);
}

Outcome Context::execute(Lock& lock, const Request& request) {
  const bool outer = in_host_;
  running_.push_back(request.id);
  in_host_ = request.host;
  core_->request = request.at;
  tell_waits();
  lock.unlock();
  Outcome outcome{VEO_COMMAND_ERROR};
  try {
    outcome = request.work();
  } catch (const Refused& refused) {
    outcome.fault = refused.text;
  } catch (const std::exception& error) {
    outcome.fault = error.what();
  }
  lock.lock();
  running_.pop_back();
  in_host_ = outer;
  tell_waits();
  if (!outcome.fault.empty()) fault_ = outcome.fault;
  changed_.notify_all();
  return outcome;
}

bool Context::idle_before(uint64_t id) const {
  const auto before = [id](uint64_t other) { return other < id; };
  return (queue_.empty() || !before(queue_.front().id)) &&
         std::none_of(running_.begin(), running_.end(), before);
}

void Context::sync() {
  Lock lock(mutex_);
  const uint64_t end = next_id_;
  if (is_this_thread()) {  // a host function waits for what stands behind it: do it here
    while (!queue_.empty() && queue_.front().id < end) execute_front(lock);
    return;
  }
  changed_.wait(lock, [&] { return idle_before(end); });
}

Outcome Context::pick_up(uint64_t request, bool wait) {
  Lock lock(mutex_);
  for (;;) {
    const auto entry = outcomes_.find(request);
    if (entry == outcomes_.end()) {
      return {VEO_COMMAND_ERROR, 0,
              "request " + std::to_string(request) + " is not one of this context, or its result " +
                  "was picked up before"};
    }
    if (entry->second) {
      Outcome outcome = std::move(*entry->second);
      outcomes_.erase(entry);
      changed_.notify_all();  // others that wait for the same result get an error
      return outcome;
    }
    if (!wait) return {VEO_COMMAND_UNFINISHED};
    if (!is_this_thread()) {
      changed_.wait(lock);
    } else if (!queue_.empty()) {
      execute_front(lock);
    } else {
      return {VEO_COMMAND_ERROR, 0, "a host function waits for itself"};
    }
  }
}

void Context::block_begin() {
  Lock lock(mutex_);
  admit(lock);
  block_owner_ = std::this_thread::get_id();
  ++block_depth_;
}

void Context::block_end() {
  Lock lock(mutex_);
  if (block_depth_ == 0 || block_owner_ != std::this_thread::get_id()) {
    throw Refused{"veo_req_block_end without veo_req_block_begin of the same thread"};
  }
  if (--block_depth_ == 0) changed_.notify_all();
}

void Context::close() {
  Lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return gone_; });
  lock.unlock();
  join();
}

void Context::cancel() {
  Lock lock(mutex_);
  closed_ = true;
  for (const Request& request : queue_) {
    outcomes_[request.id] = Outcome{VEO_COMMAND_ERROR, 0, "cancelled: the process was destroyed"};
  }
  queue_.clear();
  tell_waits();
  changed_.notify_all();
  while (!gone_ || !running_.empty()) {
    core_->interrupt();  // again and again: a run that was about to begin forgets earlier ones
    changed_.wait_for(lock, std::chrono::milliseconds(2));
  }
  lock.unlock();
  join();
}

void Context::join() {
  std::lock_guard<std::mutex> lock(joining_);  // closed and destroyed by two threads at once
  if (worker_.joinable()) worker_.join();
}

bool Context::closed() const {
  Lock lock(mutex_);
  return closed_;
}

std::string Context::last_fault() const {
  Lock lock(mutex_);
  return fault_;
}

std::vector<KernelReport> Context::report() const {
  Lock lock(mutex_);
  return reports_;
}

void Context::forget_report() {
  Lock lock(mutex_);
  reports_.clear();
}

void Context::initialize(uint64_t function) {
  Call call;
  call.function = function;
  call.frame = 256;
  const Outcome outcome = run(call);
  if (outcome.status != VEO_COMMAND_OK) throw Refused{"an initializer failed: " + outcome.fault};
}

// Arguments into registers and onto the stack; values that are addresses there become ones.
void Context::place(const Call& call, uint64_t stack_pointer) {
  std::vector<uint64_t> values = call.values;
  for (const unsigned index : call.addresses) values[index] += stack_pointer;
  std::copy_n(values.begin(), std::min<size_t>(values.size(), 8), core_->s);
  if (call.image.empty()) return;
  std::vector<uint8_t> image = call.image;
  if (values.size() > 8) {
    std::memcpy(&image[kParameters + 8 * 8], &values[8], 8 * (values.size() - 8));
  }
  if (!space_->memory.write(stack_pointer, image.data(), image.size())) {
    throw Refused{"the stack at " + std::to_string(stack_pointer) + " is not mapped"};
  }
}

Trap Context::run_timed(const Call& call, uint64_t stack_pointer, const std::string& name) {
  const Space::Timing timing = space_->timing;
  core_->observer = trace_.get();
  if (timing == Space::Off) return core_->run(call.function, stack_pointer);
  const unsigned sharing = space_->sharing ? space_->sharing : space_->contexts;
  if (!model_) model_ = std::make_unique<CycleModel>(space_->card, space_->barriers);
  model_->begin(sharing, timing == Space::Warm, trace_.get());
  core_->observer = model_.get();
  Trap trap = core_->run(call.function, stack_pointer);
  const KernelReport one = model_->end(name);
  Lock lock(mutex_);
  add_to(reports_, one);
  return trap;
}

Outcome Context::run(const Call& call) {
  const Memory& memory = space_->memory;
  const uint64_t stack_pointer = (core_->stack_high() - call.frame) & ~uint64_t{15};
  place(call, stack_pointer);
  core_->s[9] = 0;  // the outermost frame
  std::string name = memory.describe(call.function);
  name = name.substr(0, name.find('+'));
  if (name.empty()) name = "function at " + std::to_string(call.function);
  if (const Trap trap = run_timed(call, stack_pointer, name)) {
    return {VEO_COMMAND_EXCEPTION, 0, "in a call of '" + name + "': " + trap.text};
  }
  for (const Call::Buffer& buffer : call.results) {
    if (!memory.read(buffer.host, stack_pointer + buffer.offset, buffer.bytes)) {
      throw Refused{"cannot read back an argument from the stack"};
    }
  }
  return {VEO_COMMAND_OK, core_->s[0], ""};
}

// --- processes -----------------------------------------------------------------------------------

Process::Process(Arch arch, const CardModel& card, int node)
    : space(std::make_shared<Space>(arch, card, node)),
      main(std::make_shared<Context>(space, kStackBytes)) {}

Process::~Process() { cancel(); }

std::shared_ptr<Context> Process::open(uint64_t stack_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (cancelled_) throw Refused{"the process is being destroyed"};
  if (open_.empty()) {
    open_.push_back(main);
    return main;
  }
  if (open_.size() >= space->card.cores) {
    throw Refused{"the card has " + std::to_string(space->card.cores) +
                  " cores, and each has its context already"};
  }
  open_.push_back(std::make_shared<Context>(space, stack_bytes));
  space->contexts = static_cast<unsigned>(open_.size());
  return open_.back();
}

void Process::close(const std::shared_ptr<Context>& context) {
  if (context == main) return;
  context->close();
  std::lock_guard<std::mutex> lock(mutex_);
  open_.erase(std::remove(open_.begin(), open_.end(), context), open_.end());
  space->contexts = static_cast<unsigned>(std::max<size_t>(open_.size(), 1));
}

std::vector<std::shared_ptr<Context>> Process::contexts() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return open_;
}

void Process::cancel() {
  std::vector<std::shared_ptr<Context>> all;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    all = open_;
  }
  for (const auto& context : all) context->cancel();
  main->cancel();
}

}  // namespace vesim
