// Calls on which several cores of a card work together. See cores.h.
#include "cores.h"

#include <c10/util/Exception.h>

#include <map>

namespace ve {
namespace {

constexpr uint64_t kLineBytes = 128; // SOL_BARRIER_BYTES of barrier.h
// A stream's barrier: two calls that run at the same time must not meet each other.
struct Line {
  uint64_t address = 0;
  uint64_t next = 1; // number of the next barrier
};

struct Group {
  std::vector<std::unique_ptr<Queue>> further; // contexts beyond those of streams
  bool full = false; // no more can be had
  std::map<c10::StreamId, Line> lines;
};

Group& group(DeviceIndex device) {
  static auto* all = new std::array<Group, 128>; // contexts end with the process, not before it
  return (*all)[device];
}

// The contexts that help a stream: those of the other streams, then further ones.
std::vector<Queue*> helpers(Group& group, const Queue& of, size_t count) {
  std::vector<Queue*> found;
  for (c10::StreamId id = 0; id <= kPool && found.size() < count; ++id)
    if (id != of.id)
      found.push_back(&queue(of.device, id));
  while (found.size() + group.further.size() < count && !group.full) {
    const auto id = kPool + 1 + static_cast<c10::StreamId>(group.further.size());
    try {
      group.further.push_back(std::make_unique<Queue>(of.device, id));
    } catch (const c10::Error&) {
      group.full = true;
    }
  }
  for (size_t k = 0; k < group.further.size() && found.size() < count; ++k)
    found.push_back(group.further[k].get());
  return found;
}

Line& line_of(Group& group, Queue& queue) {
  Line& line = group.lines[queue.id];
  if (line.address == 0) {
    uint64_t start = 0;
    const int status = driver().alloc_mem(process(queue.device), &start, 2 * kLineBytes);
    TORCH_CHECK(status == 0, "no memory for a barrier on the card", driver().refusal());
    line.address = (start + kLineBytes - 1) / kLineBytes * kLineBytes;
    const std::vector<char> zeros(kLineBytes);
    queue.write_now(line.address, zeros.data(), zeros.size());
  }
  return line;
}

} // namespace

void call_on_cores(
    Queue& queue,
    uint64_t function,
    std::vector<uint64_t> words,
    const std::string& name,
    unsigned cores,
    uint64_t meetings) {
  TORCH_CHECK(
      words.size() >= kCore + 3 && cores < 256, name, " has no words that say which core it is on");
  if (cores < 2) {
    words[kCore] |= 1 << 8;
    queue.call(function, arguments(words, name), name);
    return;
  }
  std::lock_guard<std::mutex> lock(crossing());
  Group& all = group(queue.device);
  const std::vector<Queue*> others = helpers(all, queue, cores - 1);
  cores = static_cast<unsigned>(others.size() + 1);
  Line& line = line_of(all, queue);
  words[kCore + 1] = line.address;
  words[kCore + 2] = line.next;
  const uint64_t flags = words[kCore];
  std::vector<Args> args; // all of them before the first request, which would wait for the others
  for (unsigned core = 0; core < cores; ++core) {
    words[kCore] = flags | core | cores << 8;
    args.push_back(arguments(words, name));
  }
  line.next += meetings;
  for (unsigned core = 1; core < cores; ++core)
    others[core - 1]->assist(function, args[core], name);
  queue.call(function, args[0], name);
}

void settle(DeviceIndex device) {
  std::vector<Queue*> further;
  {
    std::lock_guard<std::mutex> lock(crossing());
    for (const auto& queue : group(device).further)
      further.push_back(queue.get());
  }
  synchronize_device(device);
  for (Queue* queue : further)
    queue->drain();
}

} // namespace ve
