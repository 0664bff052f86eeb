// Kernels of recurrent cells.
#pragma once
#include <ATen/ATen.h>

namespace {

// The CPU has no kernels for whole cells, and CUDA has. The workspace keeps what the backward pass needs.
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(const at::Tensor& input, const at::Tensor& hidden,
                                                         const at::Tensor& cell,
                                                         const std::optional<at::Tensor>& input_bias,
                                                         const std::optional<at::Tensor>& hidden_bias) {
    at::Tensor gates = input + hidden;
    if (input_bias && input_bias->defined()) gates = gates + *input_bias + *hidden_bias;
    const auto part = gates.chunk(4, 1);
    const at::Tensor in = part[0].sigmoid(), forget = part[1].sigmoid(), made = part[2].tanh(), out = part[3].sigmoid();
    const at::Tensor next = forget * cell + in * made;
    return {out * next.tanh(), next, at::cat({in, forget, made, out}, 1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell_back(const std::optional<at::Tensor>& grad_hidden,
                                                              const std::optional<at::Tensor>& grad_cell,
                                                              const at::Tensor& cell, const at::Tensor& next,
                                                              const at::Tensor& workspace, bool has_bias) {
    const auto part = workspace.chunk(4, 1);
    const at::Tensor &in = part[0], &forget = part[1], &made = part[2], &out = part[3], shown = next.tanh();
    at::Tensor to_cell = grad_cell && grad_cell->defined() ? *grad_cell : at::zeros_like(next);
    at::Tensor to_out = at::zeros_like(next);
    if (grad_hidden && grad_hidden->defined()) {
        to_cell = to_cell + *grad_hidden * out * (1 - shown * shown);
        to_out = *grad_hidden * shown * out * (1 - out);
    }
    const at::Tensor gates = at::cat({to_cell * made * in * (1 - in), to_cell * cell * forget * (1 - forget),
                                      to_cell * in * (1 - made * made), to_out},
                                     1);
    return {gates, to_cell * forget, has_bias ? gates.sum(0) : at::Tensor()};
}

std::tuple<at::Tensor, at::Tensor> gru_cell(const at::Tensor& input, const at::Tensor& hidden, const at::Tensor& state,
                                            const std::optional<at::Tensor>& input_bias,
                                            const std::optional<at::Tensor>& hidden_bias) {
    const bool biased = input_bias && input_bias->defined();
    const auto from_input = (biased ? input + *input_bias : input).chunk(3, 1);
    const auto from_hidden = (biased ? hidden + *hidden_bias : hidden).chunk(3, 1);
    const at::Tensor reset = (from_input[0] + from_hidden[0]).sigmoid();
    const at::Tensor update = (from_input[1] + from_hidden[1]).sigmoid();
    const at::Tensor made = (from_input[2] + reset * from_hidden[2]).tanh();
    return {made + update * (state - made), at::cat({reset, update, made, state, from_hidden[2]}, 1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> gru_cell_back(const at::Tensor& grad,
                                                                                     const at::Tensor& workspace,
                                                                                     bool has_bias) {
    const auto part = workspace.chunk(5, 1);
    const at::Tensor &reset = part[0], &update = part[1], &made = part[2], &state = part[3], &hidden = part[4];
    const at::Tensor to_made = grad * (1 - update) * (1 - made * made);
    const at::Tensor to_update = grad * (state - made) * update * (1 - update);
    const at::Tensor to_reset = to_made * hidden * reset * (1 - reset);
    const at::Tensor to_input = at::cat({to_reset, to_update, to_made}, 1);
    const at::Tensor to_hidden = at::cat({to_reset, to_update, to_made * reset}, 1);
    const auto sum = [&](const at::Tensor& gates) { return has_bias ? gates.sum(0) : at::Tensor(); };
    return {to_input, to_hidden, grad * update, sum(to_input), sum(to_hidden)};
}

}  // namespace
