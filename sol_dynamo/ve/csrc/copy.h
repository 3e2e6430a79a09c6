// Tensors between the host and the device, and within it.
//
// AVEO moves contiguous bytes. What lies otherwise, or has another dtype, goes through host
// memory, where ATen's own kernels convert and scatter. Copies within a card are an operator,
// sol_ve::copy_, which a kernel of the card may override.
#pragma once

#include "stream.h"

#include <ATen/core/Tensor.h>

namespace ve {

// A CPU tensor with the elements, sizes and strides of a tensor on the device; gaps are copied
// too. `write` puts back what `read` gave.
at::Tensor read(const at::Tensor& tensor);
void write(const at::Tensor& tensor, const at::Tensor& values);

// A new tensor on a device with the elements, sizes and strides of one on the CPU.
at::Tensor to_device(const at::Tensor& values, DeviceIndex device);

// dst = src, either or both on the device; sizes are broadcast, dtypes converted.
void copy(const at::Tensor& dst, const at::Tensor& src, bool non_blocking);

// Bytes between device addresses, in the order of the current streams of both devices.
void copy_bytes(
    DeviceIndex to_device, void* to, DeviceIndex from_device, const void* from, size_t bytes);

// Elements from a tensor's first to behind its last, gaps included.
int64_t span(const at::Tensor& tensor);

} // namespace ve
