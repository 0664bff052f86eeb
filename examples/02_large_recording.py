"""Plan and embed a recording that stays in its file and is read block by block.

The recording is made up: units drift slowly from epoch to epoch until a new task begins and they all change at once. It
is small here, so that the script takes seconds; nothing in the script depends on the size.

    python examples/02_large_recording.py [picture.png]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmphate_gpu import MMPHATE, load_trace, plan

N_EPOCHS, N_TIMESTEPS, N_UNITS, N_SAMPLES = SHAPE = (60, 10, 12, 240)
NEW_TASK = 36  # the epoch at which the task changes


def write_recording(path: Path) -> None:
    """Write the states of one epoch after the other, so that they are never in memory together."""
    states = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=SHAPE)
    rng = np.random.default_rng(0)
    angle = np.linspace(0, np.pi, N_TIMESTEPS)[:, None, None]
    by_step = np.cos(angle) * rng.normal(size=N_SAMPLES) + np.sin(angle) * rng.normal(size=N_SAMPLES)
    response = rng.normal(size=(N_UNITS, N_SAMPLES))
    for epoch in range(N_EPOCHS):
        response += (0.35 if epoch == NEW_TASK else 0.1) * rng.normal(size=response.shape)
        states[epoch] = np.tanh(response + 0.5 * by_step)
    states.flush()


with tempfile.TemporaryDirectory() as folder:
    write_recording(Path(folder, "states.npy"))
    # stream=None decides by the free memory. A fit from the file gives the same bits as a fit from memory.
    trace = load_trace(Path(folder, "states.npy"), stream=True)
    print(trace)
    print(plan(trace, n_landmark=500, device="cpu"))
    embedding = MMPHATE(n_landmark=500, random_state=0, device="cpu").fit(trace).result_
    del trace  # it holds the file open, and an open file cannot be deleted everywhere

places = embedding.coordinates.reshape(N_EPOCHS, -1, 2)  # (epoch, timestep and unit, component)
steps = np.linalg.norm(np.diff(places, axis=0), axis=-1).mean(1)  # (n_epochs - 1,)
print(f"the largest step of the picture leads to epoch {steps.argmax() + 1}; the new task begins at epoch {NEW_TASK}")

figure = Figure(figsize=(8.6, 3.9), layout="constrained")
FigureCanvasAgg(figure)
left, right = figure.subplots(1, 2)

dots = left.scatter(*embedding.coordinates.T, c=embedding.by("epoch"), cmap="viridis", s=4, linewidths=0)
left.set(title="Embedding of the recording", xlabel="MM-PHATE 1", ylabel="MM-PHATE 2", xticks=[], yticks=[])
left.set_aspect("equal", adjustable="datalim")
bar = figure.colorbar(dots, ax=left, label="epoch (white: the new task)")
bar.ax.axhline(NEW_TASK, color="white", linewidth=2)

# What longer recordings would take. Only sizes are needed for that, and no data.
epochs = [60, 120, 240, 480, 960, 1920]
sizes = [(n, *SHAPE[1:]) for n in epochs]
nodes = np.array([float(np.prod(size[:3])) for size in sizes])
right.loglog(nodes, 8 * nodes**2, color="#999999", label="one dense N x N array")
for storage, color in (("sparse", "#d62728"), ("lazy", "#0072b2")):
    peaks = [plan(size, n_landmark=500, storage=storage, device="cpu").peak_bytes for size in sizes]
    right.loglog(nodes, peaks, "o-", color=color, markersize=4, label=f'run with storage="{storage}"')
right.loglog(nodes, 4 * nodes * N_SAMPLES, "k:", label="the recording itself")
right.set(title="Planned memory of longer recordings", xlabel="nodes (epochs x time steps x units)", ylabel="bytes")
right.legend(frameon=False, fontsize=8)

path = sys.argv[1] if len(sys.argv) > 1 else "large_recording.png"
figure.savefig(path, dpi=100)
print(f"picture in {path}")
