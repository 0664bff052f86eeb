"""Make a film of a network while it learns to remember: every dot is a unit at a time step, and moves with training.

The task is that of 01_quickstart.py: the first input is one of four cues, noise follows, and the network names the cue.

    python examples/06_film.py [film.gif]
"""

import sys

import numpy as np
import torch
from torch import nn

from mmphate_gpu import MMPHATE, Recorder, plots

N_CUES, N_TIMESTEPS, N_UNITS, N_EPOCHS = 4, 8, 10, 18


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout = nn.GRU(N_CUES, N_UNITS, batch_first=True), nn.Linear(N_UNITS, N_CUES)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:  # (batch, timestep, cue)
        return self.readout(self.rnn(sequences)[0][:, -1])


def sequences(cues: torch.Tensor) -> torch.Tensor:
    """Noise in which each sequence starts with its cue."""
    noise = 0.3 * torch.randn(len(cues), N_TIMESTEPS, N_CUES)
    noise[:, 0] += nn.functional.one_hot(cues, N_CUES)
    return noise


torch.manual_seed(0)
model = Memory()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
with Recorder(model, "rnn", sequences(torch.arange(N_CUES).repeat(15))) as recorder:
    for epoch in range(N_EPOCHS):
        recorder.snapshot(epoch)
        for _ in range(10):
            cues = torch.randint(N_CUES, (128,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(sequences(cues)), cues).backward()
            optimizer.step()

embedding = MMPHATE(n_landmark=500, random_state=0).fit(recorder.trace()).result_
places = embedding.coordinates.reshape(N_EPOCHS, N_TIMESTEPS, N_UNITS, 2)
moved = np.linalg.norm(np.diff(places, axis=0), axis=-1).sum((1, 2))  # from each epoch to the next
first_half = moved[: N_EPOCHS // 2].sum() / moved.sum()
print(f"the dots move most after epoch {moved.argmax()}; {first_half:.0%} of all movement is over halfway")

path = sys.argv[1] if len(sys.argv) > 1 else "film.gif"
plots.animate(embedding, "epochs", path, color_by="timestep", seconds=4, fps=10, figsize=(3.35, 2.7))
print(f"film in {path}")
