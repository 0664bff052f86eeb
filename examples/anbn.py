"""Two and three units that learn to count: a^n b^n and a^n b^n c^n, seen in two ways.

A simple recurrent network (tanh) reads ``$aaabbb`` and predicts the next character each time. How many a's come is
left to chance, but every character after the last a is certain once the first b was read, and to get the end right
the network has to count. Two hidden units learn a^n b^n, three learn a^n b^n c^n (n = 1 to 8).

    python examples/anbn.py --out pictures

View 1, ``activations.png``: the states of the trained networks, one dot for each character they have read, in the
space of their two or three units. The dots fall into clusters by character: a, the first b (b'), the later b's, and
c. b' is a cluster of its own although the letter is the same: there the count of a's, read off one curve, is handed
over to another. Along a cluster a place is a number: of a's read so far, or of letters of the kind still to come.
Each cluster is a counter. With two letters the later b's of all strings share one curve, so that nothing but the
number left to come is remembered. With three letters they spread over a sheet, for the network has to keep n for
the c's while it counts the b's down; the c's share one curve again.

View 2, ``mmphate_anbn.png`` and ``mmphate_anbncn.png``: the same training runs, recorded from before the first step
to the end and put through MM-PHATE. A dot is one unit at one time step of one snapshot; dots are close where units
treat the eight strings alike. The counters are not to be seen here, as a dot holds all strings at once. What shows
is time: nearly all the variance of the picture lies between time steps. With three letters the steps follow one
another around an open ring, and the units part and meet along it. With two letters the steps form patches instead;
snapshots run through them in streaks whose trained ends lie apart for the two units. The first two steps, where all
strings are still the same, and the last ones, which a single string reaches, hold no difference between strings and
pile up in one place.

Every run prints these things in numbers, which is how to tell whether the text holds for another seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from mmphate_gpu import MMPHATE, Embedding, Recorder, Trace, plots

EDGE = "$"  # stands at the start and at the end of every string
LEARNING_RATE = 0.02
COLORS = {"$": "#2b2b2b", "a": "#0072b2", "b'": "#d62728", "b": "#e69f00", "c": "#009e73"}


# ---------------------------------------------------------------- the language


@dataclass(frozen=True)
class Language:
    """Strings of each letter n times, n from 1 to ``longest``."""

    letters: str
    longest: int = 8

    @property
    def alphabet(self) -> str:
        return EDGE + self.letters

    @property
    def name(self) -> str:
        return " ".join(f"{letter}^n" for letter in self.letters)

    @property
    def counts(self) -> range:
        return range(1, self.longest + 1)

    def string(self, n: int) -> str:
        return EDGE + "".join(letter * n for letter in self.letters) + EDGE

    def inputs(self, counts: Sequence[int]) -> PackedSequence:
        """All characters but the last, one-hot."""
        codes = [self._codes(self.string(n)[:-1]) for n in counts]
        return _packed([nn.functional.one_hot(code, len(self.alphabet)).float() for code in codes])

    def targets(self, counts: Sequence[int]) -> torch.Tensor:  # in the order of `inputs`
        """All characters but the first, as numbers."""
        return _packed([self._codes(self.string(n)[1:]) for n in counts]).data

    def certain(self, counts: Sequence[int]) -> torch.Tensor:  # in the order of `inputs`
        """Whether the target follows from what was read: from the first b on."""
        return _packed([torch.arange(len(self.string(n)) - 1) > n for n in counts]).data

    def _codes(self, string: str) -> torch.Tensor:
        return torch.tensor([self.alphabet.index(character) for character in string])


def _packed(sequences: list[torch.Tensor]) -> PackedSequence:
    return pack_sequence(sequences, enforce_sorted=False)


# ---------------------------------------------------------------- the network


class NextCharacter(nn.Module):
    """One simple recurrent layer and a linear readout."""

    def __init__(self, n_characters: int, n_units: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(n_characters, n_units)
        self.readout = nn.Linear(n_units, n_characters)

    def forward(self, strings: PackedSequence) -> torch.Tensor:
        return self.readout(self.rnn(strings)[0].data)


def train(language: Language, n_units: int, *, epochs: int, n_snapshots: int, seed: int) -> tuple[NextCharacter, Trace]:
    """A network trained on all strings at once, and its hidden states before, during and after."""
    torch.manual_seed(seed)
    model = NextCharacter(len(language.alphabet), n_units)
    inputs, targets = language.inputs(language.counts), language.targets(language.counts)
    # Most of the learning is early, and so are most of the snapshots.
    snapshots = set((np.linspace(0, 1, n_snapshots) ** 2 * epochs).round().astype(int).tolist())
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=LEARNING_RATE / 50)
    with Recorder(model, "rnn", probe=inputs, label=list(language.counts)) as recorder:
        recorder.snapshot(0)
        for epoch in range(1, epochs + 1):
            _step(model, inputs, targets, optimizer)
            schedule.step()
            if epoch in snapshots:
                recorder.snapshot(epoch)
    return model, recorder.trace()


def _step(
    model: NextCharacter, inputs: PackedSequence, targets: torch.Tensor, optimizer: torch.optim.Optimizer
) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # the states jump where a string turns, and gradients with them
    optimizer.step()


@torch.no_grad()
def accuracy(model: NextCharacter, language: Language, counts: Sequence[int]) -> tuple[int, int]:
    """Of the certain characters of the strings with these counts: how many are right, how many there are."""
    right = model(language.inputs(counts)).argmax(1) == language.targets(counts)
    certain = language.certain(counts)
    return int(right[certain].sum()), int(certain.sum())


# ---------------------------------------------------------------- view 1: the raw states


@dataclass(frozen=True, eq=False)
class States:
    """The state after each character of each string."""

    points: np.ndarray  # (P, M)
    kind: np.ndarray  # (P,) "$", "a", "b'", "b" or "c"
    count: np.ndarray  # (P,) a's read so far; for the others, letters of this kind still to come
    string: np.ndarray  # (P,) n


@torch.no_grad()
def final_states(model: NextCharacter, language: Language) -> States:
    """The states of the trained network on all strings."""
    padded, lengths = pad_packed_sequence(model.rnn(language.inputs(language.counts))[0], batch_first=True)
    points = torch.cat([states[:length] for states, length in zip(padded, lengths, strict=True)])
    kinds, counts, strings = zip(*(reading for n in language.counts for reading in _readings(language, n)), strict=True)
    return States(points.numpy(), np.array(kinds), np.array(counts), np.array(strings))


def _readings(language: Language, n: int) -> list[tuple[str, int, int]]:
    """(kind, count, n) of every character that is read."""
    found = [(EDGE, 0, n)]
    for letter in language.letters:
        for k in range(1, n + 1):
            kind = "b'" if letter == "b" and k == 1 else letter
            found.append((kind, k if letter == "a" else n - k, n))
    return found


def describe_states(states: States) -> list[str]:
    """Per class of character: is it a cluster, and is a place in it a number?"""
    lines, counters = [], []
    for kind in [kind for kind in COLORS if kind != EDGE and (states.kind == kind).any()]:
        own = states.kind == kind
        share = float(np.mean([_nearest_kind(states, row) == kind for row in np.flatnonzero(own)]))
        order = abs(spearmanr(_main_axis(states.points[own]), states.count[own]).statistic)
        what = "letters read" if kind == "a" else "letters left"
        lines.append(f"  {kind:<2} nearest state of another string is of the class in {share:4.0%};")
        lines[-1] += f" place along the cluster against {what}: rank correlation {order:.2f}"
        counters += [kind] if share >= 0.75 and order >= 0.9 else []
    return [*lines, f"  clusters that count (at least 75% and 0.9): {', '.join(counters) or 'none'}"]


def _nearest_kind(states: States, row: int) -> str:
    """Class of the nearest state of another string."""
    distance = np.linalg.norm(states.points - states.points[row], axis=1)
    distance[states.string == states.string[row]] = np.inf
    return str(states.kind[distance.argmin()])


def _main_axis(points: np.ndarray) -> np.ndarray:  # (P, M) -> (P,)
    centred = points - points.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][0]


def draw_states(panels: dict[str, States], path: Path) -> None:
    """One panel per network, flat for two units and deep for three."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 * len(panels), 6.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, states) in enumerate(panels.items(), start=1):
        deep = states.points.shape[1] == 3
        axes = figure.add_subplot(1, len(panels), place, projection="3d" if deep else None)
        axes.set_title(title, loc="left")
        _draw_panel(axes, states)
        if deep:
            axes.view_init(elev=24, azim=-58)
    figure.savefig(path, dpi=150)


def _draw_panel(axes, states: States) -> None:
    longest = states.string == states.string.max()
    axes.plot(*states.points[longest].T, color="#bbbbbb", linewidth=0.9, zorder=0, label="the longest string")
    names = {"$": "$, start", "b'": "b', the first b", "b": "b, later"}
    for kind, color in COLORS.items():
        own = states.points[states.kind == kind]
        if len(own):
            axes.scatter(*own.T, color=color, s=26, linewidths=0, alpha=0.85, label=names.get(kind, kind))
    # Letters b and c have a number for each string; those of the longest stand for the others.
    for row in np.flatnonzero(longest & (states.kind != EDGE)):
        place = states.points[row] + 0.035
        axes.text(*place, str(states.count[row]), color=COLORS[states.kind[row]], fontsize=8)
    axes.set(**{f"{axis}label": f"unit {unit}" for unit, axis in enumerate("xyz"[: states.points.shape[1]])})
    axes.legend(frameon=False, fontsize=9, loc="best")


# ---------------------------------------------------------------- view 2: the training run through MM-PHATE


def embed(trace: Trace, seed: int) -> Embedding:
    """The picture of the run. Each time step occurs in every snapshot, so its neighbourhood must reach beyond these."""
    reach = 4 * trace.n_epochs // 3
    return (
        MMPHATE(n_components=2, n_landmark=min(1000, trace.n_nodes // 2), interslice_knn=reach, random_state=seed)
        .fit(trace)
        .result_
    )


def describe_embedding(embedding: Embedding) -> list[str]:
    """How much of the picture each axis of the trace explains: variance between its values over all variance."""
    share = {axis: _share_between(embedding.coordinates, embedding.by(axis)) for axis in ("timestep", "epoch", "unit")}
    first = max(share, key=share.__getitem__)
    return [
        "  variance of the picture between the values of one axis: "
        + ", ".join(f"{a} {s:.0%}" for a, s in share.items()),
        f"  the picture is ordered by {first} first" if share[first] > 0.5 else "  no single axis orders the picture",
    ]


def _share_between(coordinates: np.ndarray, label: np.ndarray) -> float:
    centred = coordinates - coordinates.mean(0)
    groups = [centred[label == value] for value in np.unique(label)]
    return float(sum(len(group) * (group.mean(0) ** 2).sum() for group in groups) / (centred**2).sum())


# ---------------------------------------------------------------- both


@contextmanager
def _one_thread() -> Iterator[None]:
    """Three units are no work to share out: threads would only wait. And one thread gives one picture everywhere."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def run(language: Language, n_units: int, options: argparse.Namespace) -> States:
    """Train, print what is seen, draw the MM-PHATE panels; the states are for the common picture."""
    started = time.perf_counter()
    sizes = {"epochs": options.epochs, "n_snapshots": options.snapshots, "seed": options.seed}
    model, trace = train(language, n_units, **sizes)
    seconds = time.perf_counter() - started
    print(f"{language.name}, {n_units} units, {options.epochs} epochs in {seconds:.0f} s")
    unseen = range(language.longest + 1, language.longest + 5)
    for what, counts in (("trained on", language.counts), ("never seen", unseen)):
        right, total = accuracy(model, language, counts)
        span = f"n = {counts[0]} to {counts[-1]}, {what}"
        print(f"  {span}: {right} of {total} certain characters right ({right / total:.1%})")
    states = final_states(model, language)
    print(" View 1, states by class of character (clusters, and counters along them):")
    print("\n".join(describe_states(states)))
    embedding = embed(trace, options.seed)
    file = options.out / f"mmphate_{language.name.replace('^', '').replace(' ', '')}.png"
    plots.panels(embedding, path=file)
    print(f" View 2, {trace}: t = {embedding.t}, stress {embedding.stress:.2f}, {file}")
    print("\n".join(describe_embedding(embedding)))
    return states


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("anbn-out"), help="folder of the pictures, by default ./anbn-out"
    )
    parser.add_argument("--epochs", type=int, help="training epochs (default: 3000; 150 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a short run that shows the way, not the result")
    parser.add_argument("--seed", type=int, default=57, help="of training and embedding (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.epochs is None:
        options.epochs = 150 if options.quick else 3000
    if options.epochs < 1:
        parser.error(f"--epochs {options.epochs} must be at least 1")
    options.snapshots = min(12 if options.quick else 60, options.epochs + 1)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Both networks, three pictures."""
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    networks = ((Language("ab"), 2), (Language("abc"), 3))
    with _one_thread():
        states = {
            f"{language.name}, {n_units} units": run(language, n_units, options) for language, n_units in networks
        }
    draw_states(states, options.out / "activations.png")
    print(f"View 1 drawn in {options.out / 'activations.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
