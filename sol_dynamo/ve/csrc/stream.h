// Streams and events: a stream is an AVEO context, a queue of requests executed in order.
//
// Stream 0 of a device is its first context. An event is a host function in the queue: its turn
// comes when all that was requested before is done. Waiting for an event of another stream is a
// host function too, which returns when the event has come; since an event is recorded before it
// is waited for, no circle can arise. This must not know tensors.
#pragma once

#include "device.h"

#include <c10/core/Stream.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace ve {

using Clock = std::chrono::steady_clock;
// What a request needs until it is done: host memory. Memory of the device needs no keeping (its
// stream executes in order), and must not be kept: it would be freed inside its allocator's lock.
using Keep = std::shared_ptr<const void>;
using Args = std::shared_ptr<veo_args>;

// A point in a queue; reached once.
class Mark {
 public:
  bool reached() const {
    return reached_.load(std::memory_order_acquire);
  }
  void reach();
  Clock::time_point time() const; // of a mark that was reached
  bool wait_for(std::chrono::microseconds) const;

 private:
  std::atomic<bool> reached_{false};
  Clock::time_point time_{};
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
};

// One AVEO context and what was requested of it.
class Queue {
 public:
  Queue(DeviceIndex device, c10::StreamId id);

  const DeviceIndex device;
  const c10::StreamId id;

  // Requests; `what` names it in an error. `keep` lives until the request is done.
  // The driver reads arguments when it comes to the call: the queue keeps them until it is done.
  void call(uint64_t function, Args args, std::string what);
  // The same for a call that belongs to another queue's, which tells what goes wrong in it.
  void assist(uint64_t function, Args args, std::string what);
  void write(uint64_t to, const void* from, size_t bytes, Keep keep);
  void read(void* to, uint64_t from, size_t bytes, Keep keep);
  std::shared_ptr<Mark> mark();
  void await(const std::shared_ptr<Mark>& mark, Queue& origin);

  // The same, done when they return. They raise what went wrong before them, too.
  void write_now(uint64_t to, const void* from, size_t bytes);
  void read_now(void* to, uint64_t from, size_t bytes);

  void drain(); // waits; what went wrong is kept for the next call that raises
  bool idle(); // raises what went wrong
  void check(); // waits for nothing; raises what is known to have gone wrong
  void synchronize(); // raises what went wrong
  // Takes note of requests that are done: moves a queue on whose driver has no thread of its own.
  void progress();

 private:
  struct Request {
    uint64_t id;
    std::string what;
    Keep keep;
    std::shared_ptr<Mark> mark;
    bool assists = false;
  };

  void push(Request request);
  void wait(uint64_t id, const std::string& what);
  void collect(); // with mutex_ held
  void note(int status, const std::string& what); // with mutex_ held
  void raise(); // without mutex_: drops what is done, throws the first fault

  veo_thr_ctxt* const context_;
  std::mutex mutex_;
  std::deque<Request> pending_;
  std::vector<Keep> done_; // let go of by the next caller, never by a thread of the driver
  std::string fault_; // the first one, "" for none
};

// What a call is given, as registers and the stack hold it.
Args arguments(const std::vector<uint64_t>& words, const std::string& name);

// Held while a request is made that waits for one in another queue, and while requests are made that
// wait for each other: else a queue could be made to wait for what comes behind it.
std::mutex& crossing();

Queue& queue(DeviceIndex device, c10::StreamId id);
Queue& queue(const c10::Stream& stream);
Queue& current_queue(DeviceIndex device);

c10::Stream stream_of(DeviceIndex device, c10::StreamId id);
c10::Stream default_stream(DeviceIndex device);
c10::Stream current_stream(DeviceIndex device);
c10::Stream exchange_stream(const c10::Stream& stream);
// One of a few that are handed out in turn.
c10::Stream pool_stream(DeviceIndex device);

void synchronize_device(DeviceIndex device);
void synchronize_all();

// Streams of a device: ids 0 to kPool.
constexpr c10::StreamId kPool = 7;

// What a torch event points to.
struct Event {
  DeviceIndex device;
  std::shared_ptr<Mark> mark;
  Queue* origin = nullptr;
};
void synchronize_mark(const Mark& mark, Queue& origin);
double milliseconds(const Event* first, const Event* second);

} // namespace ve
