"""Record a small recurrent network while it learns, embed the recording, and draw the picture.

The task is to remember: the first input is one of four cues, noise follows, and the network names the cue at the end.

    python examples/01_quickstart.py [picture.png]
"""

import sys

import torch
from torch import nn

from mmphate_gpu import MMPHATE, Recorder, plots

N_CUES, N_TIMESTEPS, N_UNITS, N_EPOCHS = 4, 10, 12, 40


class Memory(nn.Module):
    """A GRU that reads a sequence, and a readout of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(N_CUES, N_UNITS, batch_first=True)
        self.readout = nn.Linear(N_UNITS, N_CUES)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(sequences)
        return self.readout(states[:, -1])


def sequences(cues: torch.Tensor) -> torch.Tensor:
    """Noise in which each sequence starts with its cue."""
    noise = 0.3 * torch.randn(len(cues), N_TIMESTEPS, N_CUES)
    noise[:, 0] += nn.functional.one_hot(cues, N_CUES)
    return noise


def train_one_epoch(model: Memory, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(10):
        cues = torch.randint(N_CUES, (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(sequences(cues)), cues).backward()
        optimizer.step()


torch.manual_seed(0)
model = Memory()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

# The probe is a fixed batch. The recorder runs it through the model at every snapshot and keeps the hidden states.
probe_cues = torch.arange(N_CUES).repeat(15)
probe = sequences(probe_cues)

with Recorder(model, "rnn", probe, labels=probe_cues) as recorder:
    recorder.snapshot(0)  # before training
    for epoch in range(1, N_EPOCHS + 1):
        train_one_epoch(model, optimizer)
        recorder.snapshot(epoch)
trace = recorder.trace()
print(trace)

accuracy = (model(probe).argmax(1) == probe_cues).float().mean().item()
print(f"accuracy on the probe after training: {accuracy:.0%}")

op = MMPHATE(n_landmark=500, random_state=0).fit(trace)
print(f"{op.result_}, diffusion time {op.t_}, stress {op.stress_:.3f}")

# Before training the time steps lie apart, since a state is hardly more than the last input. A network that remembers
# has units with a place of their own instead.
places = op.embedding_.reshape(*trace.shape[:3], 2)  # (epoch, timestep, unit, component)
for epoch, place in ((0, places[0]), (N_EPOCHS, places[-1])):
    deviations = place - place.mean((0, 1))
    share = (deviations.mean(1) ** 2).sum(-1).mean() / (deviations**2).sum(-1).mean()
    print(f"epoch {epoch}: {share:.0%} of the variance lies between time steps")

path = sys.argv[1] if len(sys.argv) > 1 else "quickstart.png"
plots.panels(op.result_, figsize=(8, 6.6)).savefig(path, dpi=100)
print(f"picture in {path}")
