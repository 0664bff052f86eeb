// A CUDA device of torch that is not there: tensors with the device "cuda" whose memory is the memory of the host.
//
// A torch without CUDA has no kernels under the key CUDA. This file registers an allocator, a device guard, hooks, and a
// fallback which calls the kernel of the CPU on the same memory. The rules of a real device stay in force, so that code
// breaks here as it would break there: tensors of two devices do not mix, fresh memory has no meaningful values, a
// read that waits for the device can be forbidden, and what is called while a graph is captured runs at replays only.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/ccol_indices_native.h>
#include <ATen/ops/col_indices_native.h>
#include <ATen/ops/crow_indices_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/values_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DispatchKey;
using c10::IValue;
using Stack = torch::jit::Stack;

constexpr c10::DeviceType CUDA = c10::DeviceType::CUDA;
constexpr DeviceIndex DEVICES = 2;
constexpr size_t GUARD = 64;                 // bytes before and behind a block, which nothing may write
constexpr unsigned char UNWRITTEN = 0xFF;    // fresh memory: NaN as floats, -1 as integers
constexpr unsigned char GUARDED = 0xA5;

thread_local DeviceIndex current_device = 0;
thread_local c10::StreamId current_stream[DEVICES] = {0, 0};

// ---------------------------------------------------------------- memory

struct Block {
    size_t bytes;
    DeviceIndex device;
};
std::mutex memory_lock;
std::map<char*, Block> blocks;  // by their address
int64_t allocated[DEVICES], most_allocated[DEVICES], capacity[DEVICES] = {int64_t(1) << 40, int64_t(1) << 40};
std::atomic<int64_t> overruns{0};

// Memory that is freed while a graph is captured stays, because the graph will use it: torch keeps a pool for it.
struct Graph {
    std::vector<std::function<void()>> steps;
    std::vector<void*> held;
};
thread_local Graph* captured = nullptr;

bool intact(const char* guard) {
    for (size_t i = 0; i < GUARD; ++i)
        if ((unsigned char)guard[i] != GUARDED) return false;
    return true;
}

void release(void* pointer) {
    if (pointer == nullptr) return;
    if (captured != nullptr) {
        captured->held.push_back(pointer);
        return;
    }
    std::lock_guard<std::mutex> hold(memory_lock);
    auto found = blocks.find(static_cast<char*>(pointer));
    const Block block = found->second;
    if (!intact(found->first - GUARD) || !intact(found->first + block.bytes)) ++overruns;
    blocks.erase(found);
    allocated[block.device] -= block.bytes;
    std::free(static_cast<char*>(pointer) - GUARD);
}

void* reserve(size_t bytes, DeviceIndex device) {
    if (bytes == 0) return nullptr;
    std::lock_guard<std::mutex> hold(memory_lock);
    TORCH_CHECK_WITH(OutOfMemoryError, allocated[device] + int64_t(bytes) <= capacity[device],
                     "CUDA out of memory. Tried to allocate ", bytes, " bytes on a pretended GPU.");
    char* raw = static_cast<char*>(std::aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64));
    TORCH_CHECK(raw != nullptr, "the host has no memory left");
    std::memset(raw, GUARDED, GUARD);
    std::memset(raw + GUARD, UNWRITTEN, bytes);
    std::memset(raw + GUARD + bytes, GUARDED, GUARD);
    blocks[raw + GUARD] = {bytes, device};
    allocated[device] += bytes;
    most_allocated[device] = std::max(most_allocated[device], allocated[device]);
    return raw + GUARD;
}

// The device of the block that holds an address, or -1.
int device_of(const void* pointer) {
    std::lock_guard<std::mutex> hold(memory_lock);
    char* address = static_cast<char*>(const_cast<void*>(pointer));
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return -1;
    auto block = std::prev(after);
    return address < block->first + block->second.bytes ? block->second.device : -1;
}

struct Allocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        void* pointer = reserve(bytes, current_device);
        return {pointer, pointer, &release, Device(CUDA, current_device)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Allocator allocator;

// ---------------------------------------------------------------- device, streams, hooks

struct Guard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override { return CUDA; }
    Device exchangeDevice(Device device) const override {
        const Device before = getDevice();
        setDevice(device);
        return before;
    }
    Device getDevice() const override { return {CUDA, current_device}; }
    void setDevice(Device device) const override {
        TORCH_CHECK(device.index() < DEVICES, "CUDA error: invalid device ordinal ", int(device.index()));
        uncheckedSetDevice(device);
    }
    void uncheckedSetDevice(Device device) const noexcept override {
        if (device.index() >= 0) current_device = device.index();
    }
    static c10::Stream stream(Device device, c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, device, id); }
    c10::Stream getStream(Device device) const override { return stream(device, current_stream[device.index()]); }
    c10::Stream getDefaultStream(Device device) const override { return stream(device, 0); }
    c10::Stream exchangeStream(c10::Stream next) const override {
        const c10::Stream before = getStream(next.device());
        current_stream[next.device_index()] = next.id();
        return before;
    }
    bool queryStream(const c10::Stream&) const override { return true; }
    void synchronizeStream(const c10::Stream&) const override {}
    void synchronizeDevice(DeviceIndex) const override {}
    DeviceIndex deviceCount() const noexcept override { return DEVICES; }
};

struct CUDAHooks final : at::CUDAHooksInterface {
    explicit CUDAHooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    Device getDeviceFromPtr(void* pointer) const override {
        const int device = device_of(pointer);
        TORCH_CHECK(device >= 0, "the pointer is not of a CUDA device");
        return {CUDA, DeviceIndex(device)};
    }
    DeviceIndex current_device() const override { return ::current_device; }
    DeviceIndex deviceCount() const override { return DEVICES; }
    DeviceIndex getCurrentDevice() const override { return ::current_device; }
    int getNumGPUs() const override { return DEVICES; }
    c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
    c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
    void deviceSynchronize(DeviceIndex) const override {}
};

// ---------------------------------------------------------------- graphs

bool reads_are_errors = false;  // torch.cuda.set_sync_debug_mode("error")

void waits_for_the_device(const std::string& what) {
    TORCH_CHECK(captured == nullptr, "CUDA error: operation not permitted when stream is capturing (", what, ")");
    TORCH_CHECK(!reads_are_errors, "called a synchronizing CUDA operation (", what, ")");
}

// ---------------------------------------------------------------- copies

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
    return at::_sparse_csr_tensor_unsafe(host_view(at::native::crow_indices_sparse_csr(tensor)),
                                         host_view(at::native::col_indices_sparse_csr(tensor)),
                                         host_view(at::native::values_sparse_csr(tensor)), tensor.sizes(),
                                         tensor.options().device(at::kCPU));
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
        return at::_sparse_csr_tensor_unsafe(to_device(tensor.crow_indices(), device),
                                             to_device(tensor.col_indices(), device),
                                             to_device(tensor.values(), device), tensor.sizes(),
                                             tensor.options().device(device));
    TORCH_CHECK(tensor.layout() == at::kStrided, "the pretended GPU has no tensors of layout ", tensor.layout());
    at::Tensor out = empty_strided(tensor.sizes(), tensor.strides(), tensor.scalar_type(), at::kStrided, device, false);
    if (tensor.numel() > 0) host_view(out).copy_(tensor);
    return out;
}

at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
    if (from.is_cuda() && !to.is_cuda()) waits_for_the_device("copy to the host");
    if (!from.is_cuda() && to.is_cuda() && !non_blocking) {
        TORCH_CHECK(captured == nullptr, "CUDA error: operation not permitted when stream is capturing (copy from the host)");
        TORCH_CHECK(!reads_are_errors || from.dim() == 0, "called a synchronizing CUDA operation (copy from the host)");
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
    waits_for_the_device("item");
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

// ---------------------------------------------------------------- the fallback

// Ops whose result has a size that depends on values: a real device must be waited for.
const std::set<std::string> WAIT = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
                                    "aten::unique_consecutive", "aten::equal", "aten::repeat_interleave",
                                    "aten::_linalg_check_errors", "aten::is_nonzero", "aten::_assert_async"};
// Ops whose indices may be on the CPU.
const std::set<std::string> INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_",
                                       "aten::_unsafe_index", "aten::_unsafe_index_put"};
// Ops of one device whose tensors of no dimension may not be on the CPU either.
const std::set<std::string> STRICT = {"aten::cat", "aten::stack", "aten::bucketize", "aten::searchsorted",
                                      "aten::scatter", "aten::scatter_", "aten::gather", "aten::index_select",
                                      "aten::mm", "aten::addmm", "aten::bmm", "aten::mv", "aten::dot",
                                      "aten::index_add", "aten::index_add_", "aten::index_copy", "aten::index_copy_",
                                      "aten::scatter_add_", "aten::scatter_add", "aten::scatter_reduce",
                                      "aten::masked_scatter_", "aten::repeat_interleave"};

struct Call {
    const c10::OperatorHandle& op;
    Stack& stack;
    size_t begin;  // of the arguments
    std::string name;
    std::vector<std::pair<const c10::Argument*, at::Tensor>> tensors;  // of the device or the CPU, in their order

    Call(const c10::OperatorHandle& op_, Stack& stack_) : op(op_), stack(stack_), name(op_.schema().name()) {
        const auto& arguments = op.schema().arguments();
        begin = stack.size() - arguments.size();
        for (size_t i = 0; i < arguments.size(); ++i) collect(&arguments[i], stack[begin + i]);
    }

    void collect(const c10::Argument* argument, const IValue& value) {
        if (value.isTensor()) {
            if (value.toTensor().defined()) tensors.emplace_back(argument, value.toTensor());
        } else if (value.isTensorList()) {
            for (const at::Tensor& tensor : value.toTensorVector()) tensors.emplace_back(argument, tensor);
        } else if (value.isList()) {
            for (const IValue& each : value.toListRef())
                if (each.isTensor() && each.toTensor().defined()) tensors.emplace_back(argument, each.toTensor());
        }
    }

    // The device of all tensors, by the rules of torch.
    Device device() const {
        std::optional<Device> found;
        const bool strict = STRICT.count(name) > 0;
        for (const auto& [argument, tensor] : tensors) {
            if (!tensor.is_cuda()) continue;
            TORCH_CHECK(!found || *found == tensor.device(), "Expected all tensors to be on the same device, but ",
                        name, " has tensors on ", *found, " and ", tensor.device());
            found = tensor.device();
        }
        if (found)
            for (const auto& [argument, tensor] : tensors) {
                if (tensor.is_cuda() || (tensor.dim() == 0 && !strict)) continue;
                if (argument->name() == "indices" && INDEXED.count(name) > 0) continue;
                TORCH_CHECK(false, "Expected all tensors to be on the same device, but ", name, " has tensors on ",
                            *found, " and ", tensor.device(), " (argument ", argument->name(), ")");
            }
        if (found) return *found;
        for (size_t i = begin; i < stack.size(); ++i)
            if (stack[i].isDevice() && stack[i].toDevice().is_cuda()) {
                const Device device = stack[i].toDevice();
                return device.has_index() ? device : Device(CUDA, current_device);
            }
        return {CUDA, current_device};
    }
};

bool written(const c10::Argument& argument) { return argument.alias_info() && argument.alias_info()->isWrite(); }

IValue on_cpu(const IValue& value) {
    if (value.isTensor()) return to_cpu(value.toTensor());
    if (value.isDevice()) return value.toDevice().is_cuda() ? IValue(Device(at::kCPU)) : value;
    if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(to_cpu(tensor));
        return list;
    }
    if (value.isList() && value.toListRef().size() > 0 &&
        value.toList().elementType()->kind() == c10::TypeKind::OptionalType) {
        c10::List<std::optional<at::Tensor>> list;
        for (const IValue& each : value.toListRef())
            list.push_back(each.isTensor() ? std::make_optional(to_cpu(each.toTensor())) : std::nullopt);
        return list;
    }
    return value;
}

IValue on_device(const IValue& value, Device device) {
    if (value.isTensor()) return value.toTensor().defined() ? IValue(to_device(value.toTensor(), device)) : value;
    if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(to_device(tensor, device));
        return list;
    }
    return value;
}

void overwrite(const at::Tensor& target, const at::Tensor& source) {
    if (compressed(target)) {
        const at::Tensor copy = to_device(source, target.device());
        at::sparse_csr::get_sparse_csr_impl(target)->set_member_tensors(copy.crow_indices(), copy.col_indices(),
                                                                        copy.values(), source.sizes());
        return;
    }
    if (target.sizes() != source.sizes()) resize_(target, source.sizes(), std::nullopt);
    if (target.numel() > 0) host_view(target).copy_(source);
}

void rewrite(const IValue& target, const IValue& source) {
    if (target.isTensor() && target.toTensor().defined()) overwrite(target.toTensor(), to_cpu(source.toTensor()));
    if (target.isTensorList()) {
        const auto targets = target.toTensorVector(), sources = source.toTensorVector();
        for (size_t i = 0; i < targets.size(); ++i) overwrite(targets[i], to_cpu(sources[i]));
    }
}

// Calls the kernel of the CPU. Arguments that are written are copies, which are copied back unless `discard`: an `out`
// may change its size.
std::vector<IValue> call_on_cpu(const c10::OperatorHandle& op, const std::vector<IValue>& arguments, bool discard) {
    Stack inner;
    const auto& declared = op.schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
        IValue value = on_cpu(arguments[i]);
        if (written(declared[i]) && arguments[i].isTensor() && arguments[i].toTensor().is_cuda()) {
            const at::Tensor own = value.toTensor();
            value = compressed(own) ? own.clone() : at::empty_strided(own.sizes(), own.strides(), own.options()).copy_(own);
        }
        inner.push_back(value);
    }
    const std::vector<IValue> passed(inner.begin(), inner.end());
    op.callBoxed(&inner);
    if (!discard)
        for (size_t i = 0; i < arguments.size(); ++i)
            if (written(declared[i]) && arguments[i].isTensor() && arguments[i].toTensor().is_cuda())
                rewrite(arguments[i], passed[i]);
    return {inner.begin(), inner.end()};
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    Call call(op, *stack);
    const Device device = call.device();
    c10::DeviceGuard guard(device);
    if (WAIT.count(call.name) > 0) waits_for_the_device(call.name);
    const auto& schema = op.schema();
    const std::vector<IValue> arguments(stack->begin() + call.begin, stack->end());
    std::vector<IValue> results;
    {
        Graph* const graph = std::exchange(captured, nullptr);  // so that the kernel of the CPU runs
        try {
            results = call_on_cpu(op, arguments, graph != nullptr);
        } catch (...) {
            captured = graph;
            throw;
        }
        captured = graph;
    }
    stack->erase(stack->begin() + call.begin, stack->end());
    std::vector<IValue> fresh;  // what the op returns on the device
    for (size_t i = 0; i < results.size(); ++i) {
        const auto* info = schema.returns()[i].alias_info();
        IValue result;
        if (info == nullptr) {
            result = on_device(results[i], device);
            if (captured != nullptr && result.isTensor() && result.toTensor().numel() > 0)
                std::memset(result.toTensor().data_ptr(), UNWRITTEN, result.toTensor().nbytes());
        } else {
            TORCH_CHECK(info->isWrite(), "the pretended GPU has no kernel for views by ", call.name);
            for (size_t j = 0; j < arguments.size(); ++j) {
                const auto* other = schema.arguments()[j].alias_info();
                if (other != nullptr && other->isWrite() && *other == *info) result = arguments[j];
            }
        }
        fresh.push_back(result);
        stack->push_back(result);
    }
    if (captured != nullptr)
        captured->steps.push_back([op, arguments, fresh]() {
            const std::vector<IValue> again = call_on_cpu(op, arguments, false);
            for (size_t i = 0; i < again.size(); ++i)
                if (op.schema().returns()[i].alias_info() == nullptr) rewrite(fresh[i], again[i]);
        });
}

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

TORCH_LIBRARY_IMPL(aten, SparseCsrCUDA, m) {
    m.impl("crow_indices", TORCH_FN(at::native::crow_indices_sparse_csr));
    m.impl("col_indices", TORCH_FN(at::native::col_indices_sparse_csr));
    m.impl("values", TORCH_FN(at::native::values_sparse_csr));
    // torch has general kernels for these, which do not fit sparse tensors of a device without kernels.
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
int64_t pretend_most_allocated(int device) { return most_allocated[device]; }
void pretend_reset_most(int device) { most_allocated[device] = allocated[device]; }
void pretend_set_capacity(int device, int64_t bytes) { capacity[device] = bytes; }
int64_t pretend_capacity(int device) { return capacity[device]; }
int64_t pretend_overruns() { return overruns; }
int pretend_device_of(const void* pointer) { return device_of(pointer); }
void* pretend_reserve(size_t bytes, int device) { return reserve(bytes, DeviceIndex(device)); }
void pretend_release(void* pointer) { release(pointer); }
void pretend_forbid_reads(int forbid) { reads_are_errors = forbid; }
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
