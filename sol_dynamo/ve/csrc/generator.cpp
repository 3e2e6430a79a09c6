// Philox state of each device. See generator.h.
#include "generator.h"

#include <ATen/core/PhiloxRNGEngine.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

namespace ve {
namespace {

struct State {
  uint64_t seed;
  uint64_t offset;
};

} // namespace

Generator::Generator(DeviceIndex device, uint64_t seed)
    : c10::GeneratorImpl(
          c10::Device(kVE, device), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
      seed_(seed) {}

void Generator::set_current_seed(uint64_t seed) {
  seed_ = seed;
  offset_ = 0;
}

uint64_t Generator::current_seed() const {
  return seed_;
}

uint64_t Generator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom(true));
  return seed_;
}

void Generator::set_offset(uint64_t offset) {
  TORCH_CHECK(offset % 4 == 0, "a generator's offset is a multiple of 4, not ", offset);
  offset_ = offset;
}

uint64_t Generator::get_offset() const {
  return offset_;
}

c10::intrusive_ptr<c10::TensorImpl> Generator::get_state() const {
  const State state{seed_, offset_};
  auto bytes = at::empty({sizeof(State)}, at::TensorOptions().dtype(at::kByte).device(at::kCPU));
  std::memcpy(bytes.mutable_data_ptr(), &state, sizeof state);
  return bytes.getIntrusivePtr();
}

void Generator::set_state(const c10::TensorImpl& bytes) {
  TORCH_CHECK(
      bytes.device().is_cpu() && bytes.dtype() == caffe2::TypeMeta::Make<uint8_t>() &&
          bytes.is_contiguous() && bytes.numel() == sizeof(State),
      "a generator's state is a contiguous CPU tensor of ",
      sizeof(State),
      " uint8 (get_rng_state), not of ",
      bytes.numel(),
      " ",
      bytes.dtype(),
      " on ",
      bytes.device());
  State state;
  std::memcpy(&state, bytes.data(), sizeof state);
  seed_ = state.seed;
  set_offset(state.offset);
}

std::pair<uint64_t, uint64_t> Generator::advance(uint64_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t first = offset_;
  offset_ += (count + 3) / 4 * 4;
  return {seed_, first};
}

uint64_t Generator::draw() {
  const auto [seed, offset] = advance(4);
  at::Philox4_32 engine(seed, 0, offset / 4);
  const uint64_t low = engine();
  return low | static_cast<uint64_t>(engine()) << 32;
}

Generator* Generator::clone_impl() const {
  auto* copy = new Generator(device().index(), seed_);
  copy->offset_ = offset_;
  return copy;
}

namespace {
thread_local std::optional<at::Generator> given;
} // namespace

DrawFrom::DrawFrom(std::optional<at::Generator> generator) : before_(std::move(given)) {
  given = std::move(generator);
}

DrawFrom::~DrawFrom() {
  given = std::move(before_);
}

std::vector<int64_t> draw_seeds(DeviceIndex device, int64_t count) {
  auto* generator = (given ? *given : default_generator(device)).get<Generator>();
  std::vector<int64_t> seeds(count);
  for (int64_t& seed : seeds)
    seed = static_cast<int64_t>(generator->draw() % INT64_MAX);
  return seeds;
}

const at::Generator& default_generator(DeviceIndex device) {
  static auto* all = [] {
    auto* made = new std::vector<at::Generator>;
    for (DeviceIndex i = 0; i < device_count(); ++i)
      made->push_back(at::make_generator<Generator>(i));
    return made;
  }();
  return all->at(device < 0 ? current_device() : index_of(c10::Device(kVE, device)));
}

at::Generator new_generator(DeviceIndex device) {
  // like torch's other generators, a new one starts with the same seed each time
  return at::make_generator<Generator>(
      device < 0 ? current_device() : device, c10::default_rng_seed_val);
}

} // namespace ve
