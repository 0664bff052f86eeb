"""Sequences of different lengths: what a mask keeps right, and what zeros after the end of a sequence do wrong.

A GRU learns to add up a stream of numbers. Its probe has streams of 20 steps, so that the true states are known. Then
all streams but one end early, and the same states are seen with a mask, and with zeros where a stream has ended.

    python examples/05_sequences_of_different_lengths.py [picture.png]
"""

import sys

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial import procrustes
from sklearn.metrics.pairwise import nan_euclidean_distances
from torch import nn

from mmphate_gpu import MMPHATE, Recorder, as_trace, reference

N_STEPS, N_UNITS, N_STREAMS, N_EPOCHS = 20, 8, 60, 16


def streams(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers between 0 and 0.5, larger in some streams than in others, and their running totals."""
    numbers = torch.rand(n, 1, 1) * (0.2 + 0.3 * torch.rand(n, N_STEPS, 1))
    return numbers, numbers.cumsum(1)


class Adder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.total = nn.GRU(1, N_UNITS, batch_first=True), nn.Linear(N_UNITS, 1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:  # (batch, timestep, 1)
        return self.total(self.rnn(numbers)[0])


torch.manual_seed(0)
model = Adder()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
probe = streams(N_STREAMS)[0]
lengths = torch.randint(10, N_STEPS - 1, (N_STREAMS,))
lengths[0] = N_STEPS  # a single stream reaches the last two steps
with Recorder(model, "rnn", probe) as whole, Recorder(model, "rnn", probe, lengths=lengths) as cut:
    for epoch in range(N_EPOCHS):
        whole.snapshot(epoch)
        cut.snapshot(epoch)
        for _ in range(5):
            numbers, totals = streams(64)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(numbers), totals).backward()
            optimizer.step()

truth, masked = whole.trace(), cut.trace()
present = np.asarray(masked.mask)  # (epoch, timestep, unit, sample)
padded = as_trace(np.where(present, np.asarray(truth.data), 0))
views = {"true states": truth, "masked": masked, "zeros after the end": padded}
embeddings = {name: MMPHATE(n_landmark=500, random_state=0).fit(trace).result_ for name, trace in views.items()}

n_streams = present.sum(-1).ravel()  # of each node
in_graph = ~np.isnan(embeddings["masked"].coordinates).any(1)
print(f"{(~in_graph).sum()} of {len(in_graph)} rows are NaN; {(n_streams < 2).sum()} nodes have fewer than 2 streams")
print(f"these are the same nodes: {np.array_equal(in_graph, n_streams >= 2)}")

figure = Figure(figsize=(9, 3.6), layout="constrained")
FigureCanvasAgg(figure)
first, distances = embeddings["true states"].coordinates[in_graph], {}
for axes, (name, trace) in zip(figure.subplots(1, 3), views.items(), strict=True):
    points = reference.normalize(np.asarray(trace.data), mask=present if name == "masked" else None)
    distances[name] = nan_euclidean_distances(points.reshape(len(in_graph), -1)[in_graph])
    apart = np.linalg.norm(distances[name] - distances["true states"]) / np.linalg.norm(distances["true states"])
    _, places, disparity = procrustes(first, embeddings[name].coordinates[in_graph])  # turned onto the true picture
    print(f"{name}: distances off by {apart:.1%}, picture off by {disparity:.1%}")
    axes.scatter(*places.T, c=embeddings[name].by("timestep")[in_graph], cmap="viridis", s=3, linewidths=0)
    axes.set(title=f"{name}: off by {disparity:.0%}" if disparity > 1e-9 else name, xticks=[], yticks=[])
path = sys.argv[1] if len(sys.argv) > 1 else "sequences_of_different_lengths.png"
figure.savefig(path, dpi=100)
print(f"picture in {path}")
