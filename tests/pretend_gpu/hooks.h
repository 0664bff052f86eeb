// What torch asks a device for: its streams, its random numbers, and whether it can be used.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <utility>

#include "memory.h"

namespace {

thread_local c10::StreamId current_stream[DEVICES] = {0, 0};

// ---------------------------------------------------------------- random numbers

// A generator of the device: one of the CPU under another name.
struct DeviceGenerator final : c10::GeneratorImpl {
    at::Generator host;

    DeviceGenerator(DeviceIndex index, at::Generator host_)
        : GeneratorImpl(Device(CUDA, index), c10::DispatchKeySet(DispatchKey::CUDA)), host(std::move(host_)) {}
    static c10::DeviceType device_type() { return CUDA; }
    void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
    void set_offset(uint64_t offset) override { host.set_offset(offset); }
    uint64_t get_offset() const override { return 0; }
    uint64_t current_seed() const override { return host.current_seed(); }
    uint64_t seed() override { return host.seed(); }
    void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
    c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
        return host.unsafeGetGeneratorImpl()->get_state();
    }
    DeviceGenerator* clone_impl() const override { return new DeviceGenerator(device_.index(), host.clone()); }
};

DeviceIndex checked(DeviceIndex index) {
    TORCH_CHECK(index < DEVICES, "CUDA error: invalid device ordinal ", int(index));
    return index < 0 ? current_device : index;
}

at::Generator new_generator(DeviceIndex index) {
    const DeviceIndex device = checked(index);
    return at::make_generator<DeviceGenerator>(device, at::detail::createCPUGenerator());
}

const at::Generator& default_generator(DeviceIndex index) {
    static const std::vector<at::Generator> generators{new_generator(0), new_generator(1)};
    return generators[checked(index)];
}

at::Generator host_generator(const at::Generator& generator) {
    return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->host;
}

// While it lives, the random numbers of the CPU are those of a device.
std::mutex random_lock;
struct RandomNumbers {
    std::lock_guard<std::mutex> hold{random_lock};
    at::Generator host = at::detail::getDefaultCPUGenerator(), device;
    at::Tensor kept;

    explicit RandomNumbers(DeviceIndex index)
        : device(host_generator(default_generator(index))), kept(host.get_state()) {
        host.set_state(device.get_state());
    }
    ~RandomNumbers() {
        device.set_state(host.get_state());
        host.set_state(kept);
    }
};

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
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasCUDA() const override { return true; }
    bool isPinnedPtr(const void*) const override { return false; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    Device getDeviceFromPtr(void* pointer) const override {
        const int device = device_of(pointer);
        TORCH_CHECK(device >= 0, "the address is not in the memory of the pretended GPU");
        return {CUDA, DeviceIndex(device)};
    }
    DeviceIndex current_device() const override { return ::current_device; }
    DeviceIndex deviceCount() const override { return DEVICES; }
    DeviceIndex getCurrentDevice() const override { return ::current_device; }
    int getNumGPUs() const override { return DEVICES; }
    c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
    c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
    void deviceSynchronize(DeviceIndex) const override {}
    // The first generator of a device is the default one, which `torch.cuda.default_generators` has to hold.
    at::Generator getNewGenerator(DeviceIndex index) const override {
        static bool has_default[DEVICES] = {};
        const DeviceIndex device = checked(index);
        return std::exchange(has_default[device], true) ? new_generator(device) : default_generator(device);
    }
    const at::Generator& getDefaultGenerator(DeviceIndex index) const override { return default_generator(index); }
};

}  // namespace
