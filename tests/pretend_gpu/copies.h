// Fresh tensors, and tensors that go from one device to another.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/col_indices_native.h>
#include <ATen/ops/crow_indices_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/values_native.h>

#include "memory.h"

namespace {

bool compressed(const at::Tensor& tensor) { return tensor.layout() == at::kSparseCsr; }

// A tensor of the CPU over the memory of a strided tensor of the device.
at::Tensor host_view(const at::Tensor& tensor) {
    auto options = tensor.options().device(at::kCPU);
    if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
    const at::Storage keeper = tensor.storage();  // holds the memory
    return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), [keeper](void*) {}, options);
}

at::Tensor to_cpu(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    if (!compressed(tensor)) return host_view(tensor);
    return at::_sparse_csr_tensor_unsafe(
        host_view(at::native::crow_indices_sparse_csr(tensor)), host_view(at::native::col_indices_sparse_csr(tensor)),
        host_view(at::native::values_sparse_csr(tensor)), tensor.sizes(), tensor.options().device(at::kCPU));
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
    c10::DeviceGuard guard(device.value_or(Device(CUDA, current_device)));
    return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(DispatchKey::CUDA),
                                             dtype.value_or(at::get_default_dtype_as_scalartype()));
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
    c10::DeviceGuard guard(device.value_or(Device(CUDA, current_device)));
    return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(DispatchKey::CUDA),
                                     dtype.value_or(at::get_default_dtype_as_scalartype()), format);
}

at::Tensor to_device(const at::Tensor& tensor, Device device) {
    if (compressed(tensor))
        return at::_sparse_csr_tensor_unsafe(
            to_device(tensor.crow_indices(), device), to_device(tensor.col_indices(), device),
            to_device(tensor.values(), device), tensor.sizes(), tensor.options().device(device));
    TORCH_CHECK(tensor.layout() == at::kStrided, "the pretended GPU has no tensors of layout ", tensor.layout());
    at::Tensor out = empty_strided(tensor.sizes(), tensor.strides(), tensor.scalar_type(), at::kStrided, device, false);
    if (tensor.numel() > 0) host_view(out).copy_(tensor);
    return out;
}

at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
    if (from.is_cuda() && !to.is_cuda()) refuse_to_wait_if_forbidden("copy to the host");
    if (!from.is_cuda() && to.is_cuda()) {
        TORCH_CHECK(captured == nullptr,
                    "CUDA error: operation not permitted when stream is capturing (copy from the host)");
        TORCH_CHECK(!reads_are_errors || non_blocking || from.dim() == 0,
                    "called a synchronizing CUDA operation (copy from the host)");
    }
    at::Tensor target = to_cpu(to), source = to_cpu(from);
    if (captured != nullptr)
        captured->steps.push_back([target, source]() mutable { target.copy_(source); });
    else
        target.copy_(source);
    return to;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
    at::Tensor target = to;
    return copy_(target, from, non_blocking);
}

const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
    c10::DeviceGuard guard(self.device());
    at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), size, std::nullopt, true);
    return self;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
    resize_(to, from.sizes(), std::nullopt);
    return copy_from(from, to, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
    refuse_to_wait_if_forbidden("item");
    return host_view(self).item();
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
    return at::native::set_storage_cpu_(self, std::move(storage), offset, size, stride);
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage storage) {
    const int64_t items = storage.nbytes() / self.itemsize();
    return set_storage(self, std::move(storage), 0, {items}, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& other) {
    return set_storage(self, other.storage(), other.storage_offset(), other.sizes(), other.strides());
}

}  // namespace
