// Queues of requests, streams and events. See stream.h.
#include "stream.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>

namespace ve {
namespace {

// How long a waiting thread sleeps before it looks whether the other queue must be moved on.
constexpr std::chrono::microseconds kLook{200};

// Streams beside the default one: as many contexts as a card of eight cores can run at once.
struct Streams {
  std::array<std::atomic<Queue*>, kPool + 1> queues{};
  std::atomic<uint32_t> next{0};
  std::mutex opening;
};

Streams& streams(DeviceIndex device) {
  static auto* all = new std::array<Streams, 128>;
  TORCH_CHECK(device >= 0 && device < device_count(), "there is no device ve:", int(device));
  return (*all)[device];
}

thread_local std::array<c10::StreamId, 128> current_ids{};

uint64_t reach_mark(void* argument) {
  std::unique_ptr<std::shared_ptr<Mark>> mark(static_cast<std::shared_ptr<Mark>*>(argument));
  (*mark)->reach();
  return 0;
}

struct Awaited {
  std::shared_ptr<Mark> mark;
  Queue* origin;
};

uint64_t await_mark(void* argument) {
  std::unique_ptr<Awaited> awaited(static_cast<Awaited*>(argument));
  synchronize_mark(*awaited->mark, *awaited->origin);
  return 0;
}

} // namespace

// --- Mark ---------------------------------------------------------------------------------------

void Mark::reach() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (reached())
    return;
  time_ = Clock::now();
  reached_.store(true, std::memory_order_release);
  changed_.notify_all();
}

Clock::time_point Mark::time() const {
  TORCH_CHECK(reached(), "the event has not come yet: synchronize it before asking for its time");
  return time_;
}

bool Mark::wait_for(std::chrono::microseconds time) const {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return reached(); });
}

void synchronize_mark(const Mark& mark, Queue& origin) {
  while (!mark.wait_for(kLook))
    origin.progress();
}

double milliseconds(const Event* first, const Event* second) {
  TORCH_CHECK(
      first && second && first->mark && second->mark,
      "both events must be recorded before the time between them is asked for");
  return std::chrono::duration<double, std::milli>(second->mark->time() - first->mark->time())
      .count();
}

// --- Queue --------------------------------------------------------------------------------------

Queue::Queue(DeviceIndex device, c10::StreamId id)
    : device(device), id(id), context_(driver().context_open(process(device))) {
  TORCH_CHECK(
      context_,
      "no context could be opened for stream ",
      id,
      " of the device ve:",
      static_cast<int>(device),
      driver().refusal());
}

Args arguments(const std::vector<uint64_t>& words, const std::string& name) {
  Args args(driver().args_alloc(), driver().args_free);
  TORCH_CHECK(args, "the driver of the ve device has no memory for arguments");
  for (size_t i = 0; i < words.size(); ++i)
    TORCH_CHECK(
        driver().args_set_u64(args.get(), static_cast<int>(i), words[i]) == 0,
        "the driver refused argument ",
        i,
        " of ",
        name,
        driver().refusal());
  return args;
}

void Queue::call(uint64_t function, Args args, std::string what) {
  const uint64_t id = driver().call_async(context_, function, args.get());
  push({id, std::move(what), std::move(args), nullptr});
}

void Queue::assist(uint64_t function, Args args, std::string what) {
  const uint64_t id = driver().call_async(context_, function, args.get());
  push({id, std::move(what), std::move(args), nullptr, true});
}

void Queue::write(uint64_t to, const void* from, size_t bytes, Keep keep) {
  push({driver().async_write_mem(context_, to, from, bytes), "write", std::move(keep), nullptr});
}

void Queue::read(void* to, uint64_t from, size_t bytes, Keep keep) {
  push({driver().async_read_mem(context_, to, from, bytes), "read", std::move(keep), nullptr});
}

std::shared_ptr<Mark> Queue::mark() {
  auto mark = std::make_shared<Mark>();
  auto argument = std::make_unique<std::shared_ptr<Mark>>(mark);
  const auto id = driver().call_async_vh(context_, reach_mark, argument.get());
  if (id != kInvalidRequest)
    argument.release(); // reach_mark's
  push({id, "event", nullptr, mark});
  return mark;
}

void Queue::await(const std::shared_ptr<Mark>& mark, Queue& origin) {
  if (&origin == this || mark->reached())
    return;
  std::lock_guard<std::mutex> lock(crossing());
  auto argument = std::make_unique<Awaited>(Awaited{mark, &origin});
  const auto id = driver().call_async_vh(context_, await_mark, argument.get());
  if (id != kInvalidRequest)
    argument.release(); // await_mark's
  push({id, "wait", nullptr, nullptr});
}

void Queue::push(Request request) {
  const bool refused = request.id == kInvalidRequest;
  std::vector<Keep> done;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (refused)
      note(kError, request.what);
    else
      pending_.push_back(std::move(request));
    collect();
    done.swap(done_);
  }
  if (refused)
    raise();
}

void Queue::write_now(uint64_t to, const void* from, size_t bytes) {
  wait(driver().async_write_mem(context_, to, from, bytes), "write");
}

void Queue::read_now(void* to, uint64_t from, size_t bytes) {
  wait(driver().async_read_mem(context_, to, from, bytes), "read");
}

void Queue::wait(uint64_t id, const std::string& what) {
  uint64_t result = 0;
  const int status =
      id == kInvalidRequest ? int{kError} : driver().call_wait_result(context_, id, &result);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    collect(); // earlier requests first: theirs is the cause
    note(status, what);
  }
  raise();
}

void Queue::collect() {
  while (!pending_.empty()) {
    Request& first = pending_.front();
    uint64_t result = 0;
    const int status = driver().call_peek_result(context_, first.id, &result);
    if (status == kUnfinished)
      return;
    if (!first.assists)
      note(status, first.what);
    if (first.mark)
      first.mark->reach(); // its function did not run if the context broke before its turn
    if (first.keep)
      done_.push_back(std::move(first.keep));
    pending_.pop_front();
  }
}

void Queue::note(int status, const std::string& what) {
  if (status == kOk || !fault_.empty())
    return;
  // of the request that this thread has just asked about, or that was refused; a context's own
  // last fault may be a later request's
  const char* said = driver().last_error ? driver().last_error() : nullptr;
  std::string why = said && *said ? said : "";
  if (why.empty())
    why = status == kException ? "the VE code raised an exception" : "the driver refused it";
  fault_ = "ve:" + std::to_string(device) + ", stream " + std::to_string(id) + ": " + what + ": " +
      why;
}

void Queue::raise() {
  std::string fault;
  std::vector<Keep> done;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    fault.swap(fault_); // said once; the queue goes on
    done.swap(done_);
  }
  TORCH_CHECK(fault.empty(), fault);
}

void Queue::check() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    collect();
  }
  raise();
}

bool Queue::idle() {
  bool empty;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    collect();
    // the last thing that an event's request does is to end: who saw the event need not wait
    empty = std::all_of(pending_.begin(), pending_.end(), [](const Request& request) {
      return request.mark && request.mark->reached();
    });
  }
  raise();
  return empty;
}

void Queue::drain() {
  driver().context_sync(context_);
  std::lock_guard<std::mutex> lock(mutex_);
  collect();
}

void Queue::synchronize() {
  drain();
  raise();
}

void Queue::progress() {
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock); // its holder moves the queue on
  if (lock)
    collect();
}

std::mutex& crossing() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

// --- Streams ------------------------------------------------------------------------------------

Queue& queue(DeviceIndex device, c10::StreamId id) {
  process(device); // refuses an unknown device, and one that was in use before a fork
  Streams& all = streams(device);
  TORCH_CHECK(
      id >= 0 && id <= kPool, "there is no stream ", id, " on ve:", int(device), " (0 to 7)");
  if (Queue* found = all.queues[id].load(std::memory_order_acquire))
    return *found;
  if (id != 0)
    queue(device, 0); // the first context to be opened is the default stream's
  std::lock_guard<std::mutex> lock(all.opening);
  if (!all.queues[id].load())
    all.queues[id].store(new Queue(device, id), std::memory_order_release);
  return *all.queues[id].load();
}

Queue& queue(const c10::Stream& stream) {
  return queue(index_of(stream.device()), stream.id());
}

Queue& current_queue(DeviceIndex device) {
  return queue(device, current_ids[device]);
}

c10::Stream stream_of(DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(kVE, device), id);
}

c10::Stream default_stream(DeviceIndex device) {
  return stream_of(device, 0);
}

c10::Stream current_stream(DeviceIndex device) {
  return stream_of(device, current_ids[device]);
}

c10::Stream exchange_stream(const c10::Stream& stream) {
  const DeviceIndex device = index_of(stream.device());
  const c10::Stream before = current_stream(device);
  current_ids[device] = stream.id();
  return before;
}

c10::Stream pool_stream(DeviceIndex device) {
  return stream_of(device, 1 + streams(device).next++ % kPool);
}

void synchronize_device(DeviceIndex device) {
  if (!has_process(device))
    return;
  for (auto& slot : streams(device).queues)
    if (Queue* found = slot.load())
      found->synchronize();
}

void synchronize_all() {
  for (DeviceIndex i = 0; i < device_count(); ++i)
    synchronize_device(i);
}

} // namespace ve
