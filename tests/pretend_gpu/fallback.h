// An op of the device without a kernel: the kernel of the CPU runs on the same memory.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include <set>
#include <utility>

#include "copies.h"
#include "hooks.h"

namespace {

using c10::IValue;
using Stack = torch::jit::Stack;

// Ops that wait for a real device: the size of their result, or a decision of the host, depends on values.
const std::set<std::string> WAIT = {"aten::nonzero",    "aten::masked_select",        "aten::_unique2",
                                    "aten::unique_dim", "aten::unique_consecutive",   "aten::equal",
                                    "aten::bincount",   "aten::_linalg_check_errors", "aten::is_nonzero"};
// Ops whose indices may be on the CPU.
const std::set<std::string> INDEXED = {"aten::index",         "aten::index_put",
                                       "aten::index_put_",    "aten::_index_put_impl_",
                                       "aten::_unsafe_index", "aten::_unsafe_index_put"};
// Ops that refuse a tensor of the CPU beside those of the device, even if it has no dimensions.
const std::set<std::string> STRICT = {"aten::cat",
                                      "aten::stack",
                                      "aten::bucketize",
                                      "aten::searchsorted",
                                      "aten::scatter",
                                      "aten::scatter_",
                                      "aten::gather",
                                      "aten::index_select",
                                      "aten::mm",
                                      "aten::addmm",
                                      "aten::bmm",
                                      "aten::mv",
                                      "aten::dot",
                                      "aten::index_add",
                                      "aten::index_add_",
                                      "aten::index_copy",
                                      "aten::index_copy_",
                                      "aten::scatter_add_",
                                      "aten::scatter_add",
                                      "aten::scatter_reduce",
                                      "aten::masked_scatter_",
                                      "aten::repeat_interleave"};

// Products, for which CUDA has no integer kernels.
const std::set<std::string> PRODUCTS = {"aten::mm",    "aten::addmm", "aten::bmm",  "aten::baddbmm", "aten::mv",
                                        "aten::addmv", "aten::dot",   "aten::vdot", "aten::addbmm"};

// Names of all ops that were called, for a comparison with torch's list of kernels for CUDA.
std::mutex names_lock;
std::set<std::string> names;

struct Call {
    const c10::OperatorHandle& op;
    Stack& stack;
    size_t begin;  // of the arguments
    std::string name;
    std::vector<std::pair<const c10::Argument*, at::Tensor>> tensors;  // all among the arguments, in their order

    Call(const c10::OperatorHandle& op_, Stack& stack_) : op(op_), stack(stack_), name(op_.schema().name()) {
        const auto& arguments = op.schema().arguments();
        begin = stack.size() - arguments.size();
        for (size_t i = 0; i < arguments.size(); ++i) collect(&arguments[i], stack[begin + i]);
        std::lock_guard<std::mutex> hold(names_lock);
        const std::string& overload = op.schema().overload_name();
        names.insert(overload.empty() ? name : name + "." + overload);
    }

    bool waits() const {
        if (name == "aten::repeat_interleave") return stack.back().isNone();  // the size of the output
        if (INDEXED.count(name) > 0)                                          // a mask is turned into indices
            for (const auto& [argument, tensor] : tensors)
                if (argument->name() == "indices" &&
                    (tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte))
                    return true;
        return WAIT.count(name) > 0;
    }

    // What a real device refuses, and the CPU does not.
    void refuse() const {
        for (size_t i = begin; i < stack.size(); ++i)
            TORCH_CHECK(!stack[i].isGenerator() || !stack[i].toGenerator().device().is_cpu(),
                        "Expected a 'cuda' device type for generator but found 'cpu' (", name, ")");
        for (const auto& [argument, tensor] : tensors)
            TORCH_CHECK(PRODUCTS.count(name) == 0 || !at::isIntegralType(tensor.scalar_type(), true), name,
                        "_cuda not implemented for '", tensor.scalar_type(), "'");
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
        std::optional<Device> common;
        const bool strict = STRICT.count(name) > 0;
        for (const auto& [argument, tensor] : tensors) {
            if (!tensor.is_cuda()) continue;
            TORCH_CHECK(!common || *common == tensor.device(), "Expected all tensors to be on the same device, but ",
                        name, " has tensors on ", *common, " and ", tensor.device());
            common = tensor.device();
        }
        if (common)
            for (const auto& [argument, tensor] : tensors) {
                if (tensor.is_cuda() || (tensor.dim() == 0 && !strict)) continue;
                if (argument->name() == "indices" && INDEXED.count(name) > 0) continue;
                TORCH_CHECK(false, "Expected all tensors to be on the same device, but ", name, " has tensors on ",
                            *common, " and ", tensor.device(), " (argument ", argument->name(), ")");
            }
        if (common) return *common;
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
    if (value.isGenerator()) return host_generator(value.toGenerator());
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

// Calls the kernel of the CPU. An argument that the op writes is passed as a copy, because an `out` may change its
// size. The copy is written back unless `discard`.
std::vector<IValue> call_on_cpu(const c10::OperatorHandle& op, const std::vector<IValue>& arguments, bool discard) {
    Stack inner;
    const auto& declared = op.schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
        IValue value = on_cpu(arguments[i]);
        if (written(declared[i]) && arguments[i].isTensor() && arguments[i].toTensor().is_cuda()) {
            const at::Tensor original = value.toTensor();
            value = compressed(original)
                        ? original.clone()
                        : at::empty_strided(original.sizes(), original.strides(), original.options()).copy_(original);
        }
        // `driver` names a solver of CUDA, which the CPU refuses.
        inner.push_back(declared[i].name() == "driver" ? IValue() : value);
    }
    const std::vector<IValue> passed(inner.begin(), inner.end());
    std::optional<RandomNumbers> random;
    if (op.hasTag(at::Tag::nondeterministic_seeded)) random.emplace(current_device);
    op.callBoxed(&inner);
    random.reset();
    if (!discard)
        for (size_t i = 0; i < arguments.size(); ++i)
            if (written(declared[i]) && arguments[i].isTensor() && arguments[i].toTensor().is_cuda())
                rewrite(arguments[i], passed[i]);
    return {inner.begin(), inner.end()};
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    Call call(op, *stack);
    const Device device = call.device();
    call.refuse();
    c10::DeviceGuard guard(device);
    if (call.waits()) refuse_to_wait_if_forbidden(call.name);
    const auto& schema = op.schema();
    const std::vector<IValue> arguments(stack->begin() + call.begin, stack->end());
    for (size_t i = 0; i < arguments.size(); ++i)
        TORCH_CHECK(captured == nullptr || !written(schema.arguments()[i]) || !arguments[i].isList(),
                    "the pretended GPU cannot capture ", call.name, ", which writes a list");
    std::vector<IValue> results;
    {
        Graph* const graph = std::exchange(captured, nullptr);  // so that ops within the kernel are not captured
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
            if (captured != nullptr && result.isTensor() && result.toTensor().layout() == at::kStrided) {
                const at::Storage storage = result.toTensor().storage();
                if (storage.nbytes() > 0) std::memset(storage.mutable_data(), UNWRITTEN, storage.nbytes());
            }
        } else {
            TORCH_CHECK(info->isWrite(), "the pretended GPU cannot make the view that ", call.name, " returns");
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

}  // namespace
