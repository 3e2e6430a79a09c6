// What the C interface needs beside processes: handles, refusals, the cards of the environment.
//
// A handle is a number that is never given out twice, so that one that outlived its process is an
// error and not somebody else's process. After fork() a child starts with no handles.
#pragma once

#include <errno.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "process.h"
#include "veo.h"

namespace vesim {

extern thread_local std::string last_error;  // why this thread's last call was refused

// Runs the body of one of the interface's functions; `failed` is what it returns when refused.
template <typename Result, typename Body>
Result guarded(Result failed, Body body) {
  try {
    return body();
  } catch (const Refused& refused) {
    last_error = refused.text;
    errno = EINVAL;
  } catch (const std::bad_alloc&) {
    last_error = "the host has not enough memory";
    errno = ENOMEM;
  } catch (const std::exception& error) {
    last_error = error.what();
    errno = EIO;
  }
  return failed;
}

extern std::atomic<uintptr_t> next_handle;

// Why a handle is none; those below `first` were made before a fork.
Refused unknown_handle(uintptr_t handle, uintptr_t first, const char* what);

template <typename Handle, typename Object>
class Table {
 public:
  Handle* add(std::shared_ptr<Object> object) {
    std::lock_guard<std::mutex> lock(mutex_);
    Handle*& handle = handles_[object.get()];
    if (!handle) {
      handle = reinterpret_cast<Handle*>(next_handle.fetch_add(16));
      objects_[handle] = std::move(object);
    }
    return handle;
  }
  std::shared_ptr<Object> find(const Handle* handle, const char* what) const {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = objects_.find(handle);
    if (entry != objects_.end()) return entry->second;
    throw unknown(handle, what);
  }
  std::shared_ptr<Object> take(const Handle* handle, const char* what) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = objects_.find(handle);
    if (entry == objects_.end()) throw unknown(handle, what);
    std::shared_ptr<Object> object = std::move(entry->second);
    objects_.erase(entry);
    handles_.erase(object.get());
    return object;
  }
  void remove(const Object* object) {
    std::shared_ptr<Object> kept;  // its destructor runs without the lock
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = handles_.find(object);
    if (entry == handles_.end()) return;
    kept = std::move(objects_[entry->second]);
    objects_.erase(entry->second);
    handles_.erase(entry);
  }

 private:
  Refused unknown(const Handle* handle, const char* what) const {
    return unknown_handle(reinterpret_cast<uintptr_t>(handle), first_, what);
  }

  const uintptr_t first_ = next_handle;  // older ones were made before a fork
  mutable std::mutex mutex_;
  std::map<const Handle*, std::shared_ptr<Object>> objects_;
  std::map<const Object*, Handle*> handles_;
};

struct Registry {
  Table<veo_proc_handle, Process> processes;
  Table<veo_thr_ctxt, Context> contexts;
  std::mutex mutex;
  std::vector<veo_proc_handle*> identifiers;  // null: free
};

Registry& registry();
std::shared_ptr<Process> process_of(const veo_proc_handle*);  // Refused where it is none
std::shared_ptr<Context> context_of(const veo_thr_ctxt*);

std::string environment(const char* name);
int cards();               // SOL_VE_CARDS
const CardModel& model();  // SOL_VE_MODEL
// The card that a caller's number means: itself, or one of those that a job scheduler allotted.
int node_of(int venode);

std::string hex(uint64_t value);

}  // namespace vesim
