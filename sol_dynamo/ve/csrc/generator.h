// The random number generator of a device: Philox 4x32-10, a counter-based stream.
//
// Its state is a seed and an offset. Whoever draws takes a range of offsets (`advance`) and makes
// the numbers from it, on the card or on the host: the same seed gives the same numbers, in
// whatever order threads or cores make them.
#pragma once

#include "device.h"

#include <ATen/core/Generator.h>
#include <c10/core/GeneratorImpl.h>

#include <optional>
#include <utility>
#include <vector>

namespace ve {

class Generator final : public c10::GeneratorImpl {
 public:
  explicit Generator(DeviceIndex device, uint64_t seed = c10::detail::getNonDeterministicRandom());

  static c10::DeviceType device_type() {
    return kVE;
  }

  void set_current_seed(uint64_t seed) override;
  uint64_t current_seed() const override;
  uint64_t seed() override;
  void set_offset(uint64_t offset) override;
  uint64_t get_offset() const override;
  void set_state(const c10::TensorImpl& state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;

  // The seed, and the first of `count` offsets (rounded up to multiples of 4) that are the
  // caller's. Takes the generator's lock.
  std::pair<uint64_t, uint64_t> advance(uint64_t count);
  // 64 bits of the stream, to seed a generator of another kind.
  uint64_t draw();

 private:
  Generator* clone_impl() const override;

  uint64_t seed_;
  uint64_t offset_ = 0;
};

// While one lives, this thread's seeds come from a generator that the caller was given.
class DrawFrom {
 public:
  explicit DrawFrom(std::optional<at::Generator> generator);
  ~DrawFrom();
  DrawFrom(const DrawFrom&) = delete;
  DrawFrom& operator=(const DrawFrom&) = delete;

 private:
  std::optional<at::Generator> before_;
};

// Numbers of the generator that is drawn from, 63 bits each.
std::vector<int64_t> draw_seeds(DeviceIndex device, int64_t count);

// The generator that an op uses which was given none.
const at::Generator& default_generator(DeviceIndex device);
at::Generator new_generator(DeviceIndex device);

} // namespace ve
