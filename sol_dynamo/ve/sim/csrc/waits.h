// Cores that wait for each other in memory: a wait gives the host's processor away, and ends where
// no core can end it any more because one of them has failed.
//
// A loop that comes to its begin with the same registers, and has nothing in it that changes
// memory, does nothing but wait for another core (Core::look_at_loop). It first yields, then
// sleeps. Once every busy core of the process waits so, the call that was requested first ends with
// a trap that tells the first failure since then: on hardware a failure ends the whole process.
// Only that one, since its end may let a later call begin that the others wait for. Of a group of
// calls one may fail before the last is requested: after any failure a wait that nothing ends is
// given a second. Without a failure the host may still write what ends it, so it is left alone for
// as long as `patience` says: a barrier that one core too few comes to would never end. This file
// knows nothing of instructions.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace vesim {

class Waits {
 public:
  // When a call was requested.
  struct Request {
    uint64_t order = 0;     // among all requests of the process
    uint64_t failures = 0;  // how many there had been
    std::chrono::steady_clock::time_point when{};
  };
  // What a waiting core remembers between two turns of its loop.
  struct Turns {
    Request request;
    uint64_t fruitless = 0;   // turns since it began to wait
    uint64_t epoch = 0;       // in which `seen` turns were made
    unsigned seen = 0;
    std::chrono::steady_clock::time_point since{};  // hopeless, in this epoch
  };

  Request request();                      // something is requested
  void busy(int change);                  // a core has work, or none any more
  void begin(Turns& of, const Request&);  // a call begins
  void fail(const std::string& text);     // a call has failed
  // A turn without progress: lets others run. Why it is the last one where none of them ever will.
  std::string turn(Turns& of);
  void patience(double seconds);

 private:
  struct Failure {
    uint64_t number;
    std::string text;
    std::chrono::steady_clock::time_point when;
  };
  void change();
  void record(const std::string& failure);
  std::string end(Turns& of);  // why a hopeless wait has to end, "" where it has not

  std::mutex mutex_;
  // Grows with all that may end a wait: a core that begins or ends its work, or begins to wait and
  // may have stored before.
  uint64_t epoch_ = 1;
  std::vector<uint64_t> waiting_;  // calls, by `order`, that made two whole turns in this epoch
  int busy_ = 0;
  uint64_t failures_ = 0, requests_ = 0;
  std::deque<Failure> last_;
  std::chrono::duration<double> patience_{30};
};

}  // namespace vesim
