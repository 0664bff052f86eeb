// Runs the kernels of csrc/cuda on the CPU, for tests: grid, block, barriers, shared memory, warp votes and shuffles.
//
// The threads of a block are fibers on one thread of the machine, so a run is deterministic. The caller chooses the
// order in which they are resumed. If a barrier is missing, the results of two orders differ, or differ from the
// reference. (One fault does not show: here a vote orders memory like __syncwarp, which it does not do on a GPU.)
// Blocks run one after the other, backwards if the threads do. So a kernel fails if it assumes that the last block by
// number ends last. Shared memory begins as NaN in every block. Faults that would hang or corrupt a GPU are reported: a
// barrier or a vote that some threads never reach, and arguments whose types are not those of the kernel.
#pragma once
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <ucontext.h>

#define MMP_EMULATION
#define MMP_KERNEL static
#define MMP_DEVICE inline
#define MMP_OUTLINED inline
#define MMP_SHARED(type, name)        \
    static const char name##_key = 0; \
    type& name = *static_cast<type*>(emulation::shared_object(&name##_key, sizeof(type)))
#define MMP_SHARED_BYTES(type, name) type* const name = static_cast<type*>(emulation::shared_bytes())
#define __launch_bounds__(...)

namespace emulation {

constexpr int warp_size = 32;
constexpr std::size_t stack_bytes = 1 << 16;

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

enum class State { ready, at_barrier, at_vote, done };

struct Fiber {
    Index index;
    State state = State::ready;
    bool begun = false;
    unsigned votes = 0;                                   // how many warp operations it has begun
    unsigned mask = 0;                                    // of the warp operation that it waits in
    std::vector<std::pair<float*, const float*>> copies;  // that it has begun, of four numbers each
    ucontext_t start;
    std::jmp_buf resume;
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
};

// The values that the lanes of a warp exchange. Operations use the two slots in turn, since no lane can be two
// operations ahead of another.
struct Warp {
    std::uint64_t slots[2][warp_size];
    unsigned arrived[2] = {0, 0};
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<std::pair<const void*, std::vector<std::uint64_t>>> objects;
    std::vector<std::uint64_t> bytes;
    int waiting = 0, alive = 0;
    int any = 0, any_result = 0;  // of __syncthreads_or
    std::jmp_buf scheduler;
    ucontext_t first;
    Fiber* current = nullptr;
    void (*body)(void*) = nullptr;
    void* context = nullptr;
    std::string error;
};

inline Block* block = nullptr;
inline Index block_index, block_size, grid_size;

inline Fiber& self() { return *block->current; }

[[noreturn]] inline void stop(const char* why) {
    if (block->error.empty()) block->error = why;
    self().state = State::done;
    std::longjmp(block->scheduler, 1);
}

inline void pause(State state) {
    self().state = state;
    if (setjmp(self().resume) == 0) std::longjmp(block->scheduler, 1);
}

inline void enter() {
    block->body(block->context);
    self().state = State::done;
    std::longjmp(block->scheduler, 1);
}

inline void resume(Fiber& fiber) {
    block->current = &fiber;
    if (setjmp(block->scheduler) != 0) return;
    if (fiber.begun) std::longjmp(fiber.resume, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}

inline void* shared_object(const void* key, std::size_t size) {
    for (auto& object : block->objects)
        if (object.first == key) return object.second.data();
    block->objects.emplace_back(key, std::vector<std::uint64_t>(size / 8 + 1, ~std::uint64_t(0)));
    return block->objects.back().second.data();
}

inline void* shared_bytes() { return block->bytes.data(); }

// ---------------------------------------------------------------- what kernels call

inline int barrier(int value) {
    block->any |= value;
    if (++block->waiting < (int)block->fibers.size()) {
        pause(State::at_barrier);
    } else {
        block->waiting = 0;
        block->any_result = block->any;
        block->any = 0;
        for (Fiber& fiber : block->fibers)
            if (fiber.state == State::at_barrier) fiber.state = State::ready;
    }
    // The next barrier overwrites the result, but only after every thread has returned from this one.
    return block->any_result;
}

// Gives `value` to the warp, waits for all lanes in `mask`, and returns their values.
inline const std::uint64_t* exchange(unsigned mask, std::uint64_t value) {
    Fiber& me = self();
    Warp& warp = block->warps[me.index.x / warp_size];
    const unsigned lane = me.index.x % warp_size, slot = me.votes++ % 2;
    if (!(mask >> lane & 1)) stop("a warp operation whose mask leaves out the lane that calls it");
    warp.slots[slot][lane] = value;
    warp.arrived[slot] |= 1u << lane;
    me.mask = mask;
    if ((warp.arrived[slot] & mask) != mask) {
        pause(State::at_vote);
    } else {
        warp.arrived[slot] &= ~mask;
        Fiber* lanes = &block->fibers[me.index.x / warp_size * warp_size];
        for (int l = 0; l < warp_size; ++l) {
            if (!(mask >> l & 1) || l == (int)lane) continue;
            if (lanes[l].mask != mask) stop("lanes of one warp operation name different masks");
            lanes[l].state = State::ready;
        }
    }
    return warp.slots[slot];
}

template <class T> std::uint64_t bits_of(T value) {
    static_assert(sizeof(T) <= 8, "values of up to 8 bytes");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T> T value_of(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

// ---------------------------------------------------------------- the launch

// Which of n is resumed at a turn. `order` 0 is forwards, 1 is backwards, and others are the offset of strides of 37.
inline std::size_t place(std::size_t turn, std::size_t n, int order) {
    if (order == 0) return turn;
    if (order == 1) return n - 1 - turn;
    return (turn * 37 + (std::size_t)order) % n;  // block sizes are no multiples of 37
}

inline void run_block(int order) {
    const std::size_t n = block->fibers.size();
    std::size_t left = n;
    while (left > 0) {
        bool progressed = false;
        for (std::size_t turn = 0; turn < n; ++turn) {
            Fiber& fiber = block->fibers[place(turn, n, order)];
            if (fiber.state != State::ready) continue;
            resume(fiber);
            progressed = true;
            if (!block->error.empty()) throw std::runtime_error(block->error);
            if (fiber.state == State::done) --left;
        }
        if (!progressed) throw std::runtime_error("some threads wait at a barrier or a vote that others never reach");
    }
}

inline void begin(Fiber& fiber, unsigned thread) {
    fiber.index.x = thread;
    fiber.state = State::ready;
    fiber.begun = false;
    fiber.votes = 0;
    fiber.copies.clear();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = stack_bytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
}

inline void run_grid(unsigned grid, unsigned threads, std::size_t bytes, int order, void (*body)(void*),
                     void* context) {
    Block now;
    block = &now;
    now.body = body, now.context = context;
    now.fibers = std::vector<Fiber>(threads);
    block_size = {threads, 1, 1}, grid_size = {grid, 1, 1};
    for (unsigned turn = 0; turn < grid; ++turn) {
        block_index = {(unsigned)place(turn, grid, order == 1), 0, 0};
        now.objects.clear();
        now.bytes.assign(bytes / 8 + 1, ~std::uint64_t(0));
        now.warps.assign((threads + warp_size - 1) / warp_size, Warp{});
        now.waiting = now.any = 0;
        for (unsigned t = 0; t < threads; ++t) begin(now.fibers[t], t);
        run_block(order);
    }
}

// The letter that the launcher uses for a type of argument. A pointer has the capital letter.
template <class A> constexpr char letter() {
    typedef std::remove_const_t<std::remove_pointer_t<A>> Plain;
    const bool wide = sizeof(Plain) == 8;
    const char plain = std::is_floating_point_v<Plain> ? (wide ? 'd' : 'f') : (wide ? 'q' : 'i');
    return std::is_pointer_v<A> ? (char)(plain - 'a' + 'A') : plain;
}

// Whether the letters of a launch fit those of the kernel. '-' is a null pointer, '*' a pointer of any type.
inline bool agree(const std::string& expected, const std::string& letters) {
    if (expected.size() != letters.size()) return false;
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (letters[i] != expected[i] && !(std::strchr("-*", letters[i]) && std::strchr("DFQI", expected[i])))
            return false;
    return true;
}

template <class... A, std::size_t... I>
void start(void (*kernel)(A...), std::index_sequence<I...>, const unsigned* geometry, void** arguments,
           const char* letters, int order) {
    const std::string expected{letter<A>()...};
    if (!agree(expected, letters)) throw std::runtime_error("arguments " + std::string(letters) + " for " + expected);
    std::tuple<void (*)(A...), A...> call(kernel, *static_cast<A*>(arguments[I])...);
    auto body = [](void* context) {
        std::apply([](auto function, auto... values) { function(values...); }, *static_cast<decltype(call)*>(context));
    };
    run_grid(geometry[0], geometry[1], geometry[2], order, body, &call);
}

template <class... A>
int launch(void (*kernel)(A...), const unsigned* geometry, void** arguments, const char* letters, int order,
           char* message) {
    try {
        start(kernel, std::index_sequence_for<A...>{}, geometry, arguments, letters, order);
    } catch (const std::exception& error) {
        std::snprintf(message, 256, "%s", error.what());
        return 1;
    }
    return 0;
}

}  // namespace emulation

// Exports the kernel `space`::`name` as the C function `space`_`name`.
#define MMP_EMULATE(space, name)                                                                              \
    extern "C" int space##_##name(const unsigned* geometry, void** arguments, const char* letters, int order, \
                                  char* message) {                                                            \
        return emulation::launch(space::name, geometry, arguments, letters, order, message);                  \
    }

#define threadIdx (emulation::self().index)
#define blockIdx (emulation::block_index)
#define blockDim (emulation::block_size)
#define gridDim (emulation::grid_size)

inline void __syncthreads() { emulation::barrier(0); }
inline int __syncthreads_or(int value) { return emulation::barrier(value != 0); }
inline void __threadfence() {}  // blocks run one after the other
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::exchange(mask, 0); }
inline unsigned __ballot_sync(unsigned mask, int value) {
    const std::uint64_t* values = emulation::exchange(mask, value != 0);
    unsigned bits = 0;
    for (int l = 0; l < emulation::warp_size; ++l)
        if (mask >> l & 1) bits |= (unsigned)values[l] << l;
    return bits;
}
template <class T> T __shfl_sync(unsigned mask, T value, int lane) {
    return emulation::value_of<T>(emulation::exchange(mask, emulation::bits_of(value))[lane % emulation::warp_size]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
    const int lane = (int)(threadIdx.x % emulation::warp_size) ^ bits;
    return emulation::value_of<T>(emulation::exchange(mask, emulation::bits_of(value))[lane]);
}
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
    const std::uint64_t* values = emulation::exchange(mask, emulation::bits_of(value));
    unsigned bits = 0;
    for (int l = 0; l < emulation::warp_size; ++l)
        if ((mask >> l & 1) && values[l] == emulation::bits_of(value)) bits |= 1u << l;
    return bits;
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }
template <class T> T atomicAdd(T* at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
template <class T> T atomicMax(T* at, T value) {
    const T before = *at;
    *at = before < value ? value : before;
    return before;
}
inline double __longlong_as_double(long long bits) { return emulation::value_of<double>((std::uint64_t)bits); }
inline long long __double_as_longlong(double value) { return (long long)emulation::bits_of(value); }

// A copy takes place when its thread waits for it. Until then the target has its former values.
inline void mmp_copy_four(float* to, const float* from) { emulation::self().copies.emplace_back(to, from); }
inline void mmp_end_copies() {
    for (const auto& copy : emulation::self().copies) std::memcpy(copy.first, copy.second, 4 * sizeof(float));
    emulation::self().copies.clear();
}
inline float mmp_anew(float value) { return value; }
