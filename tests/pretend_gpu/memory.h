// Memory of the host that stands for the memory of two devices, and the graph that is captured.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DispatchKey;

constexpr c10::DeviceType CUDA = c10::DeviceType::CUDA;
constexpr DeviceIndex DEVICES = 2;
constexpr size_t GUARD = 64;               // bytes before and behind a block, which nothing may write
constexpr unsigned char UNWRITTEN = 0xFF;  // fresh memory: NaN as floats, -1 as integers
constexpr unsigned char GUARDED = 0xA5;

thread_local DeviceIndex current_device = 0;

// ---------------------------------------------------------------- memory

struct Block {
    size_t bytes;
    DeviceIndex device;
};
// Both live as long as the process, because tensors may be released after the objects of this file are destroyed.
std::mutex& memory_lock = *new std::mutex;
std::map<char*, Block>& blocks = *new std::map<char*, Block>;  // by their address
int64_t allocated[DEVICES], most_allocated[DEVICES], reserved[DEVICES],
    capacity[DEVICES] = {int64_t(1) << 40, int64_t(1) << 40};
std::atomic<int64_t> overruns{0};

// Memory that is freed while a graph is captured stays, because the graph will use it: torch keeps a pool for it.
struct Graph {
    std::vector<std::function<void()>> steps;
    std::vector<void*> held;
};
// It is one for a thread, so a backward pass, which has threads of its own, is not captured.
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
    auto entry = blocks.find(static_cast<char*>(pointer));
    if (entry == blocks.end()) {  // released twice, or never reserved
        ++overruns;
        return;
    }
    const Block block = entry->second;
    if (!intact(entry->first - GUARD) || !intact(entry->first + block.bytes)) ++overruns;
    blocks.erase(entry);
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
    reserved[device] = std::max(reserved[device], allocated[device]);
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

// ---------------------------------------------------------------- graphs

bool reads_are_errors = false;  // torch.cuda.set_sync_debug_mode("error")

void refuse_to_wait_if_forbidden(const std::string& what) {
    TORCH_CHECK(captured == nullptr, "CUDA error: operation not permitted when stream is capturing (", what, ")");
    TORCH_CHECK(!reads_are_errors, "called a synchronizing CUDA operation (", what, ")");
}

}  // namespace
