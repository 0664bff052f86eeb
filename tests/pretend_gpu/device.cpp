// The pretended GPU: tensors of torch with the device "cuda" whose memory is the memory of the host.
//
// A torch without CUDA has no kernels under the key CUDA. This file registers an allocator, a device guard, hooks, and a
// fallback which calls the kernel of the CPU on the same memory. Code breaks here as it would break on a GPU: tensors of
// two devices do not mix, fresh memory has no meaningful values, a read that waits for the device can be forbidden, and
// what is called while a graph is captured runs at replays only.
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <cmath>

#include "cells.h"
#include "fallback.h"

namespace {

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(_, SparseCsrCUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    m.impl("empty.memory_format", TORCH_FN(empty));
    m.impl("empty_strided", TORCH_FN(empty_strided));
    m.impl("copy_", TORCH_FN(copy_));
    m.impl("_copy_from", TORCH_FN(copy_from));
    m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
    m.impl("resize_", TORCH_FN(resize_));
    m.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
    m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
    m.impl("view", TORCH_FN(at::native::view));
    m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
    m.impl("unfold", TORCH_FN(at::native::unfold));
    m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
    m.impl("set_.source_Storage", TORCH_FN(set_whole_storage));
    m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
}

// The root is rounded correctly on CUDA. That of torch on the CPU may be MKL's, whose last bit is at times wrong.
at::Tensor& sqrt_out(const at::Tensor& self, at::Tensor& out) {
    TORCH_CHECK(self.device() == out.device(), "Expected all tensors to be on the same device (aten::sqrt.out)");
    TORCH_CHECK(captured == nullptr, "the pretended GPU cannot capture a square root");
    at::Tensor roots = host_view(self).to(out.scalar_type()).clone(at::MemoryFormat::Contiguous);
    const auto take = [&roots](auto* value) {
        for (int64_t i = 0; i < roots.numel(); ++i) value[i] = std::sqrt(value[i]);
    };
    if (out.scalar_type() == at::kDouble)
        take(roots.data_ptr<double>());
    else if (out.scalar_type() == at::kFloat)
        take(roots.data_ptr<float>());
    else
        roots.sqrt_();
    overwrite(out, roots);
    return out;
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    m.impl("sqrt.out", TORCH_FN(sqrt_out));
    m.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm_cell));
    m.impl("_thnn_fused_lstm_cell_backward_impl", TORCH_FN(lstm_cell_back));
    m.impl("_thnn_fused_gru_cell", TORCH_FN(gru_cell));
    m.impl("_thnn_fused_gru_cell_backward", TORCH_FN(gru_cell_back));
}

TORCH_LIBRARY_IMPL(aten, SparseCsrCUDA, m) {
    m.impl("crow_indices", TORCH_FN(at::native::crow_indices_sparse_csr));
    m.impl("col_indices", TORCH_FN(at::native::col_indices_sparse_csr));
    m.impl("values", TORCH_FN(at::native::values_sparse_csr));
    // torch's general kernels for these expect kernels of CUDA underneath, so the fallback replaces them.
    for (const char* name : {"mm", "mm.out", "addmm", "addmm.out", "clone", "_to_dense", "empty_like", "copy_"})
        m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

C10_REGISTER_GUARD_IMPL(CUDA, Guard)
const c10::AllocatorRegisterer<c10::DeviceType::CUDA> register_allocator(&allocator);

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, CUDAHooks)
}

// ---------------------------------------------------------------- what torch.cuda asks for

extern "C" {
int pretend_get_device() { return current_device; }
void pretend_set_device(int device) { current_device = DeviceIndex(device); }
int64_t pretend_get_stream(int device) { return current_stream[device]; }
void pretend_set_stream(int device, int64_t id) { current_stream[device] = id; }
int64_t pretend_allocated(int device) { return allocated[device]; }
int64_t pretend_reserved(int device) { return reserved[device] = std::max(reserved[device], allocated[device]); }
void pretend_empty_cache() {
    for (DeviceIndex device = 0; device < DEVICES; ++device) reserved[device] = allocated[device];
}
int64_t pretend_most_allocated(int device) { return most_allocated[device]; }
void pretend_reset_most(int device) { most_allocated[device] = allocated[device]; }
void pretend_set_capacity(int device, int64_t bytes) { capacity[device] = bytes; }
int64_t pretend_capacity(int device) { return capacity[device]; }
int64_t pretend_overruns() { return overruns; }
void pretend_forget_overruns() { overruns = 0; }
// The names of all ops that were called, one a line.
const char* pretend_names() {
    static std::string text;
    std::lock_guard<std::mutex> hold(names_lock);
    text.clear();
    for (const std::string& name : names) text += name + "\n";
    return text.c_str();
}
int pretend_device_of(const void* pointer) { return device_of(pointer); }
void* pretend_reserve(size_t bytes, int device) { return reserve(bytes, DeviceIndex(device)); }
void pretend_release(void* pointer) { release(pointer); }
void pretend_forbid_reads(int forbid) { reads_are_errors = forbid; }
int pretend_device_count() { return DEVICES; }
void* pretend_capture_begin() { return captured = new Graph(); }
void pretend_capture_end() { captured = nullptr; }
int pretend_capturing() { return captured != nullptr; }
void pretend_record(void (*call)(int64_t), int64_t number) {
    captured->steps.push_back([=]() { call(number); });
}
// Returns what went wrong, or null.
const char* pretend_replay(void* graph) {
    static thread_local std::string fault;
    try {
        for (const auto& step : static_cast<Graph*>(graph)->steps) step();
    } catch (const std::exception& error) {
        fault = error.what();
        return fault.c_str();
    }
    return nullptr;
}
void pretend_forget(void* graph) {
    for (void* pointer : static_cast<Graph*>(graph)->held) release(pointer);
    delete static_cast<Graph*>(graph);
}
}
