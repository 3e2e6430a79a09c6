// Storages of the device that grow or shrink.
#pragma once

#include <ATen/core/Tensor.h>

namespace ve {

// Gives a storage so many bytes on its device; what both sizes have is kept.
void resize_bytes(c10::StorageImpl& storage, size_t bytes);

// Gives a tensor sizes and strides, its storage being enlarged where they need more.
void set_geometry(const at::Tensor& tensor, at::IntArrayRef sizes, at::IntArrayRef strides);

} // namespace ve
