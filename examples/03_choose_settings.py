"""Compare settings on a data set whose structure is known, by two measures and by eye.

Three units follow an oscillator (Hopf bifurcation), three a switch (pitchfork bifurcation). A good picture keeps the
neighbors that a slice has, and tells the two groups apart.

    python examples/03_choose_settings.py [picture.png]
"""

import sys

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from mmphate_gpu import MMPHATE, Trace, datasets, neighborhood_preservation

REACHES = (10, 25, 60)  # interslice_knn: how many slices a unit is linked with along its own path
LANDMARKS = (80, 300, 700)  # n_landmark: how finely the picture is laid out
N_NEIGHBORS = 10


def scores(trace: Trace, coordinates: np.ndarray, oscillator: np.ndarray) -> tuple[float, float]:
    """Share of the nearest slices of a unit that the picture keeps; share of neighbors that are of the same group."""
    _, preserved = neighborhood_preservation(trace, coordinates, k=N_NEIGHBORS)
    neighbors = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(coordinates).kneighbors(return_distance=False)
    return preserved, float((oscillator[neighbors] == oscillator[:, None]).mean())


def principal_components(trace: Trace) -> np.ndarray:
    """What a linear method makes of the same points: z-scores of every node, in two components."""
    points = np.asarray(trace.data).reshape(trace.n_nodes, -1)
    points = (points - points.mean(1, keepdims=True)) / points.std(1, keepdims=True)
    return PCA(2).fit_transform(points)


trace = datasets.bifurcation("hopf_pitchfork", n_epochs=25, n_timesteps=20)
oscillator = np.arange(trace.n_nodes) % trace.n_units < 3  # the first three units of every slice

figure = Figure(figsize=(7.4, 7), layout="constrained")
FigureCanvasAgg(figure)
panels = figure.subplots(len(REACHES), len(LANDMARKS))
results = {}
for row, reach in enumerate(REACHES):
    for column, n_landmark in enumerate(LANDMARKS):
        op = MMPHATE(interslice_knn=reach, n_landmark=n_landmark, random_state=0).fit(trace)
        embedding = op.result_
        preserved, grouped = results[reach, n_landmark] = scores(trace, embedding.coordinates, oscillator)
        print(f"interslice_knn={reach:<3} n_landmark={n_landmark:<5}{preserved:.1%} preserved, {grouped:.1%} grouped")
        axes = panels[row, column]
        for group, color_map in ((oscillator, "Blues_r"), (~oscillator, "Oranges_r")):
            points, epochs = embedding.coordinates[group], embedding.by("epoch")[group]
            axes.scatter(*points.T, c=epochs, cmap=color_map, vmax=1.5 * trace.n_epochs, s=4, linewidths=0)
        axes.set_title(f"{preserved:.0%} preserved, {grouped:.0%} grouped", fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[:].set_color("#bbbbbb")
        axes.set_xlabel(f"n_landmark = {n_landmark}" if row == len(REACHES) - 1 else "")
        axes.set_ylabel(f"interslice_knn = {reach}" if column == 0 else "")
figure.suptitle("Blue: oscillator units. Orange: switch units. Dark: early epochs.", fontsize=10)

print("PCA: {:.1%} preserved, {:.1%} grouped".format(*scores(trace, principal_components(trace), oscillator)))
tells_apart = {setting: preserved for setting, (preserved, grouped) in results.items() if grouped > 0.99}
best = max(tells_apart, key=tells_apart.__getitem__)
print(f"best of those that tell the groups apart: interslice_knn={best[0]}, n_landmark={best[1]}")

path = sys.argv[1] if len(sys.argv) > 1 else "choose_settings.png"
figure.savefig(path, dpi=80)
print(f"picture in {path}")
