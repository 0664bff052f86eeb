"""Small recurrent models with a carried state."""

from __future__ import annotations

import torch
from torch import nn

B, T, F, H = 6, 5, 3, 4


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


class Cells(nn.Module):
    """A recurrent layer written out: ``first(model, x)`` gives its state, and ``keep(model, h)`` keeps it."""

    def __init__(self, first, keep, start=lambda model: None):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.first, self.keep = nn.GRUCell(F, H), first, keep
        start(self)

    def forward(self, x):
        h, states = self.first(self, x), []
        for step in x.unbind(-2):
            h = self.cell(step, h)
            states.append(h)
        self.keep(self, h.detach())
        return torch.stack(states, -2)


def from_state(model, h, x=None):
    """The states that the cell of ``model`` passes through from ``h``, (timestep, unit, sample)."""
    states = []
    with torch.no_grad():
        for step in (probe() if x is None else x).unbind(1):
            h = model.cell(step, h)
            states.append(h)
    return torch.stack(states).permute(0, 2, 1)


def train(model, seed=1):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(probe(seed=seed)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
