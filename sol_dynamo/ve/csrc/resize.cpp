// Storages that grow. See resize.h.
#include "resize.h"

#include "allocator.h"
#include "copy.h"

#include <ATen/EmptyTensor.h>
#include <c10/util/Exception.h>

namespace ve {

void resize_bytes(c10::StorageImpl& storage, size_t bytes) {
  TORCH_CHECK(storage.resizable(), "this storage of the ve device cannot be resized");
  const DeviceIndex device = storage.device().index();
  c10::DataPtr memory = allocate_on(device, bytes);
  const size_t kept = std::min(bytes, storage.nbytes());
  if (kept)
    copy_bytes(device, memory.get(), device, storage.data(), kept);
  storage.set_data_ptr_noswap(std::move(memory));
  storage.set_nbytes(bytes);
}

void set_geometry(const at::Tensor& tensor, at::IntArrayRef sizes, at::IntArrayRef strides) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(sizes, strides);
  if (impl->numel() == 0)
    return;
  const size_t needed = at::detail::computeStorageNbytes(
      sizes, strides, tensor.itemsize(), static_cast<size_t>(tensor.storage_offset()));
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  if (needed > storage->nbytes())
    resize_bytes(*storage, needed);
}

} // namespace ve
