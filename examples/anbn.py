"""Networks of two and three units learn to count: the languages a^n b^n and a^n b^n c^n, seen in two ways.

A simple recurrent network (tanh) reads ``$aaabbb`` and predicts the next character each time. The number of a's is
left to chance. Every character after the first b is certain, and to get the end right the network has to count. Two
hidden units learn a^n b^n, three learn a^n b^n c^n (n = 1 to 8).

    python examples/anbn.py --out pictures

View 1, ``activations.png``, shows the states of the trained networks: one dot for each character that they have read,
in the space of their two or three units. The dots form clusters by character: a, the first b (b'), the later b's, and
c. b' is a cluster of its own although the letter is the same, because the count of a's is handed over there. Along a
cluster a place is a number: of a's read so far, or of letters still to come. Each cluster is a counter. With two
letters the later b's of all strings share one curve, so the network remembers nothing but the number left to come.
With three letters they spread over a sheet, because the network has to keep n for the c's while it counts the b's
down. The c's share one curve.

View 2, ``mmphate_anbn.png`` and ``mmphate_anbncn.png``, shows the same training runs, recorded from before the first
step to the end, through MM-PHATE. A dot is one unit at one time step of one snapshot. Dots are close where units
treat the eight strings alike. The counters cannot be seen here, because a dot holds all strings at once. What shows
is time: nearly all the variance of the picture lies between time steps. With three letters the steps follow one
another around an open ring, and the units part and meet along it. With two letters the steps form patches, through
which the snapshots run in streaks, and the trained ends of the streaks lie apart for the two units. Nodes without a
difference between strings pile up in one place: the first two time steps, and the last ones, which a single string
reaches.

Every run prints these facts in numbers, so that the text can be checked for another seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from mmphate_gpu import MMPHATE, Embedding, Recorder, Trace, plots

EDGE = "$"  # the first and the last character of every string
TRAINED, UNSEEN = range(1, 9), range(9, 13)  # n of the strings
LEARNING_RATE = 0.02
COLORS = {"$": "#2b2b2b", "a": "#0072b2", "b'": "#d62728", "b": "#e69f00", "c": "#009e73"}
NAMES = {"$": "$, start", "a": "a", "b'": "b', the first b", "b": "b, later", "c": "c"}


# ---------------------------------------------------------------- the languages and the network


def strings(letters: str, counts: Sequence[int]) -> list[torch.Tensor]:
    """For each n, every letter n times between two edges, as numbers."""
    texts = [EDGE + "".join(letter * n for letter in letters) + EDGE for n in counts]
    return [torch.tensor([(EDGE + letters).index(character) for character in text]) for text in texts]


def packed(sequences: list[torch.Tensor]) -> PackedSequence:
    return pack_sequence(sequences, enforce_sorted=False)


def inputs(letters: str, counts: Sequence[int]) -> PackedSequence:
    """All characters but the last, one-hot."""
    return packed([nn.functional.one_hot(s[:-1], len(letters) + 1).float() for s in strings(letters, counts)])


def targets(letters: str, counts: Sequence[int]) -> torch.Tensor:
    """All characters but the first, in the order of `inputs`."""
    return packed([s[1:] for s in strings(letters, counts)]).data


class NextCharacter(nn.Module):
    """One simple recurrent layer and a linear readout."""

    def __init__(self, n_characters: int, n_units: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(n_characters, n_units)
        self.readout = nn.Linear(n_units, n_characters)

    def forward(self, characters: PackedSequence) -> torch.Tensor:
        return self.readout(self.rnn(characters)[0].data)


def train(letters: str, n_units: int, *, epochs: int, n_snapshots: int, seed: int) -> tuple[NextCharacter, Trace]:
    """A network trained on all strings at once, and its hidden states before, during and after."""
    torch.manual_seed(seed)
    model = NextCharacter(len(letters) + 1, n_units)
    x, y = inputs(letters, TRAINED), targets(letters, TRAINED)
    # Most of the learning is early, and so are most of the snapshots.
    snapshots = set((np.linspace(0, 1, n_snapshots) ** 2 * epochs).round().astype(int).tolist())
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=LEARNING_RATE / 50)
    with Recorder(model, "rnn", x, labels=list(TRAINED), epochs=snapshots) as recorder:
        recorder.snapshot(0)
        for epoch in range(1, epochs + 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            # States jump where a string turns from one letter to the next, and gradients jump with them.
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recorder.snapshot(epoch)
    return model, recorder.trace()


@torch.no_grad()
def report_accuracy(model: NextCharacter, letters: str, counts: range, name: str) -> None:
    """Print how many characters are right among those that follow from what was read: from the first b on."""
    certain = packed([torch.arange(len(s) - 1) > n for s, n in zip(strings(letters, counts), counts, strict=True)]).data
    right = (model(inputs(letters, counts)).argmax(1) == targets(letters, counts))[certain]
    numbers = f"{int(right.sum())} of {len(right)} certain characters right ({right.float().mean().item():.1%})"
    print(f"  n = {counts[0]} to {counts[-1]}, {name}: {numbers}")


# ---------------------------------------------------------------- view 1: the states themselves


class States(NamedTuple):
    """The state after each character of each string, one row per character."""

    points: np.ndarray  # (n_rows, M)
    character: np.ndarray  # (n_rows,) "$", "a", "b'", "b" or "c"
    number: np.ndarray  # (n_rows,) a's read so far; for the others, letters of this name still to come
    string: np.ndarray  # (n_rows,) n


@torch.no_grad()
def final_states(model: NextCharacter, letters: str) -> States:
    padded, lengths = pad_packed_sequence(model.rnn(inputs(letters, TRAINED))[0], batch_first=True)
    points = torch.cat([states[:length] for states, length in zip(padded, lengths, strict=True)])
    rows = [row for n in TRAINED for row in readings(letters, n)]
    return States(points.numpy(), *map(np.array, zip(*rows, strict=True)))


def readings(letters: str, n: int) -> list[tuple[str, int, int]]:
    """(character, count, n) of every character that is read."""
    rows = [(EDGE, 0, n)]
    for letter in letters:
        for k in range(1, n + 1):
            rows.append(("b'" if letter == "b" and k == 1 else letter, k if letter == "a" else n - k, n))
    return rows


def describe_states(states: States) -> None:
    """Print, per class of character: is it a cluster, and is a place in it a number?"""
    distance = np.linalg.norm(states.points[:, None] - states.points, axis=-1)
    distance[states.string[:, None] == states.string] = np.inf
    nearest = states.character[distance.argmin(1)]  # among the states of other strings
    counters = []
    for character in [name for name in COLORS if name != EDGE and name in states.character]:
        members = states.character == character
        share = (nearest[members] == character).mean()
        order = abs(spearmanr(main_axis(states.points[members]), states.number[members]).statistic)
        which = "letters read" if character == "a" else "letters left"
        print(
            f"  {character:<2} nearest state of another string is of the class in {share:4.0%}; "
            f"place along the cluster against {which}: rank correlation {order:.2f}"
        )
        counters += [character] if share >= 0.75 and order >= 0.9 else []
    print(f"  clusters that count (at least 75% and 0.9): {', '.join(counters) or 'none'}")


def main_axis(points: np.ndarray) -> np.ndarray:  # (n, M) -> (n,)
    centered = points - points.mean(0)
    return centered @ np.linalg.svd(centered, full_matrices=False)[2][0]


def draw_states(panels: dict[str, States], path: Path) -> None:
    """One panel per network, flat for two units and deep for three."""
    figure = Figure(figsize=(7 * len(panels), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, states) in enumerate(panels.items(), start=1):
        deep = states.points.shape[1] == 3
        axes: Any = figure.add_subplot(1, len(panels), place, projection="3d" if deep else None)
        axes.set_title(title, loc="left")
        longest = states.string == max(TRAINED)
        axes.plot(*states.points[longest].T, color="#bbbbbb", linewidth=0.9, zorder=0, label="the longest string")
        for character in [name for name in COLORS if name in states.character]:
            points = states.points[states.character == character]
            axes.scatter(*points.T, color=COLORS[character], s=26, alpha=0.85, linewidths=0, label=NAMES[character])
        # Letters b and c have a number for each string; those of the longest stand for the others.
        for row in np.flatnonzero(longest & (states.character != EDGE)):
            text, color = str(states.number[row]), COLORS[states.character[row]]
            axes.text(*(states.points[row] + 0.035), text, color=color, fontsize=8)
        axes.set(**{f"{axis}label": f"unit {unit}" for unit, axis in enumerate("xyz" if deep else "xy")})
        axes.legend(frameon=False, fontsize=9, loc="best")
        if deep:
            axes.view_init(elev=24, azim=-58)
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- view 2: the training run through MM-PHATE


def embed(trace: Trace, seed: int) -> Embedding:
    """Each time step occurs in every snapshot, so the neighborhood of a slice must reach beyond its own time step."""
    n_landmark, reach = min(1000, trace.n_nodes // 2), 4 * trace.n_epochs // 3
    return MMPHATE(n_landmark=n_landmark, interslice_knn=reach, random_state=seed).fit(trace).result_


def describe_embedding(embedding: Embedding) -> None:
    """Print how much of the picture each axis of the trace explains: variance between its values over all variance."""
    places = embedding.coordinates - embedding.coordinates.mean(0)
    share = {}
    for axis in ("timestep", "epoch", "unit"):
        groups = [places[embedding.by(axis) == value] for value in np.unique(embedding.by(axis))]
        share[axis] = sum(len(group) * (group.mean(0) ** 2).sum() for group in groups) / (places**2).sum()
    shares = ", ".join(f"{axis} {value:.0%}" for axis, value in share.items())
    print(f"  variance of the picture between the values of one axis: {shares}")


# ---------------------------------------------------------------- both


def run(letters: str, n_units: int, options: argparse.Namespace) -> States:
    """Train, print what is seen, draw the MM-PHATE panels; the states are for the common picture."""
    epochs, n_snapshots = (150, 12) if options.quick else (3000, 60)
    print(f"{' '.join(f'{letter}^n' for letter in letters)}, {n_units} units, {epochs} epochs")
    model, trace = train(letters, n_units, epochs=epochs, n_snapshots=n_snapshots, seed=options.seed)
    report_accuracy(model, letters, TRAINED, "trained on")
    report_accuracy(model, letters, UNSEEN, "never seen")
    print(" View 1, states by class of character (clusters, and counters along them):")
    states = final_states(model, letters)
    describe_states(states)
    embedding = embed(trace, options.seed)
    path = options.out / f"mmphate_{''.join(f'{letter}n' for letter in letters)}.png"
    plots.panels(embedding, path=path)
    print(f" View 2, {trace}: t = {embedding.t}, stress {embedding.stress:.2f}, {path}")
    describe_embedding(embedding)
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("anbn-out"), help="folder of the pictures (default: ./anbn-out)"
    )
    parser.add_argument("--quick", action="store_true", help="a short run that shows the way, not the result")
    parser.add_argument("--seed", type=int, default=57, help="of training and embedding (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # three units are no work to share; and one thread gives one picture everywhere
    networks = {"a^n b^n, 2 units": ("ab", 2), "a^n b^n c^n, 3 units": ("abc", 3)}
    states = {title: run(letters, n_units, options) for title, (letters, n_units) in networks.items()}
    draw_states(states, options.out / "activations.png")
    print(f"View 1 drawn in {options.out / 'activations.png'}")


if __name__ == "__main__":
    main()
