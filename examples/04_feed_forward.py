"""Watch a network without time steps, through the class that scripts for M-PHATE use.

Two copies of one network learn handwritten digits, one from the true labels, one from shuffled labels that it can only
memorize. Every dot is a hidden unit at one epoch. Units that learn the digits fan out, each on a nearly straight path;
units that memorize wander.

    python examples/04_feed_forward.py [picture.png]
"""

import sys

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from mmphate_gpu import M_PHATE, Embedding, Trace, as_trace

N_EPOCHS, N_HIDDEN, N_TRAIN, N_PROBE = 40, 20, 600, 200

images, digits = (torch.tensor(values) for values in load_digits(return_X_y=True))
images = images.float() / 16
train, probe = slice(0, N_TRAIN), slice(N_TRAIN, N_TRAIN + N_PROBE)


def record_training(labels: torch.Tensor) -> Trace:
    """Train on ``labels``, and record all hidden units on the probe after every epoch."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(64, N_HIDDEN), nn.LeakyReLU(0.1))
    second = nn.Sequential(nn.Linear(N_HIDDEN, N_HIDDEN), nn.LeakyReLU(0.1))
    model = nn.Sequential(first, second, nn.Linear(N_HIDDEN, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    states = []
    for _ in range(N_EPOCHS):
        for batch in torch.randperm(N_TRAIN).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[train][batch]), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            hidden = first(images[probe])
            states.append(torch.cat([hidden, second(hidden)], dim=1).T)  # (unit, sample)
    right = (model(images[probe]).argmax(1) == digits[probe]).float().mean().item()
    print(f"  {right:.0%} of the digits that were not trained on are named correctly")
    return as_trace(torch.stack(states), label=digits[probe])  # (slice, unit, sample); a slice is an epoch


def straightness(embedding: Embedding) -> float:
    """Distance between the ends of the units' paths, over the length of the paths."""
    paths = embedding.coordinates.reshape(N_EPOCHS, -1, 2)  # (epoch, unit, component)
    length = np.linalg.norm(np.diff(paths, axis=0), axis=-1).sum()
    return float(np.linalg.norm(paths[-1] - paths[0], axis=-1).sum() / length)


figure = Figure(figsize=(9, 5.6), layout="constrained")
FigureCanvasAgg(figure)
rows = figure.subplots(2, 3)
shuffled = digits[train][torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(1))]
for number, (name, labels) in enumerate({"true labels": digits[train], "shuffled labels": shuffled}.items()):
    print(name)
    embedding = M_PHATE(random_state=0).fit(record_training(labels)).result_
    print(f"  straightness of the units' paths: {straightness(embedding):.2f}")
    columns = {
        "Epoch": (embedding.by("epoch"), "viridis", None),
        "Layer": (1 + embedding.by("unit") // N_HIDDEN, colormaps["coolwarm"].resampled(2), range(1, 3)),
        "Most active digit": (embedding.most_active, "tab10", range(10)),
    }
    for axes, (title, (values, color_map, ticks)) in zip(rows[number], columns.items(), strict=True):
        limits = {} if ticks is None else {"vmin": ticks[0] - 0.5, "vmax": ticks[-1] + 0.5}
        dots = axes.scatter(*embedding.coordinates.T, c=values, cmap=color_map, s=5, linewidths=0, **limits)
        axes.set(xticks=[], yticks=[], title=title if number == 0 else "")
        axes.set_aspect("equal", adjustable="datalim")
        figure.colorbar(dots, ax=axes, ticks=ticks)
    rows[number, 0].set_ylabel(name, fontsize=11)

path = sys.argv[1] if len(sys.argv) > 1 else "feed_forward.png"
figure.savefig(path, dpi=100)
print(f"picture in {path}")
