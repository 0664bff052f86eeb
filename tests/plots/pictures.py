"""Every picture, built from any names, and names of all kinds: new pictures and new kinds of names get a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from mmphate_gpu import plots
from mmphate_gpu.analysis import UnitAblation
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.landmarks import Landmarks
from mmphate_gpu.operators.sparse import SparseAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.plots.canvas import SMALLEST, plain_style
from mmphate_gpu.plots.films import Options, film_of
from mmphate_gpu.slices import SliceLayout

from .results import ablated, assert_legible, entropies, importance, phases_of, probes, shown_texts, strips
from .test_baseline_plots import invented
from .test_trust_plots import nulls, study

Size = tuple[float, float] | None
Draw = Callable[[np.ndarray, Size], Figure]
FEW, MOST_NODES = 12, 5000

# ---------------------------------------------------------------- names


def _days(n: int, step: int, unit: str) -> np.ndarray:
    return np.datetime64("2026-03-01T08:00:00", "ns") + (step * np.arange(n)).astype(f"m8[{unit}]")


NAMES: dict[str, np.ndarray] = {
    "mathematics": np.array(["$x^2$", "_hidden", "\\frac{", "$", "%s {0}", "^_^", "$$", "\\sqrt["]),
    "controls": np.array(["a\nb", "a\tb", "\x00x", "\x7f", "\u2028", "\ufeff", "\u202edlrow", "\ud800", "\udfff"]),
    "dotted": np.array([f"encoder.layers.{i}.attention.self" for i in range(12)]),
    "both ends alike": np.array([f"encoder.layers.{i}.attention.self" for i in range(0, 2400, 200)]),
    "long": np.array(["m" * 10_000 + str(i) for i in range(3)] + [f"{'m' * 5000}{i}{'m' * 5000}" for i in range(3)]),
    "wide": np.array([f"{letter}WWWWWWWWW{letter}" for letter in "ABCDEFGHIJKLMN"]),
    "right to left": np.array(["שלום עולם", "مرحبا بالعالم", "שלום 1", "שלום 2", "abc שלום", "سلام (3)"]),
    "wide characters": np.array(["隐藏层单元一号神经元的名字", "隐藏层单元二号", "ユニット", "뉴런", "單元"]),
    "emoji": np.array(["😀", "👩‍👩‍👧‍👦 family", "🇮🇱", "é\u0301\u0302\u0303", "z̶a̶l̶g̶o̶"]),
    "blank": np.array(["", " ", "\u00a0", "a", "a "]),
    "markup": np.array(["<script>alert(1)</script>", "&amp;", "<b>", "\"quoted'", "-->", "]]>"]),
    "dates": np.datetime64("2026-03-01") + 20 * np.arange(12),
    "dates of years": np.array(["1969-12-31", "2026-01-01", "2199-06-05", "9000-01-01"], "M8[D]"),
    "hours": _days(12, 7, "h"),
    "seconds": _days(12, 7, "s"),
    "nanoseconds": _days(12, 7, "ns"),
    "unsorted dates": _days(12, 7, "h")[::-1].copy(),
    "a missing date": np.array(["2026-03-01", "NaT", "2026-03-03"], "M8[D]"),
    "durations": (90 * np.arange(12)).astype("m8[s]"),
    "unix seconds": 1_700_000_000 + 3600 * np.arange(12),
    "unix nanoseconds": 1_700_000_000_000_000_000 + 3_600_000_000_000 * np.arange(12),
    "huge integers": 10**18 + np.arange(12),
    "uneven huge integers": 10**18 + np.array([0, 1, 5, 500, 501, 9_000]),
    "near floats": 1 + 1e-12 * np.arange(12),
    "tiny floats": 1e-300 * np.arange(1, 6),
    "not finite": np.array([0.0, np.nan, np.inf, -np.inf, 3.5]),
    "booleans": np.array([False, True]),
    "a single name": np.array(["encoder.layers.0.attention.self"]),
    "two names": np.array(["left_hand", "right_hand"]),
    "sixty names": np.array([f"hidden_unit_{i}" for i in range(60)]),
    "500 names": np.array([f"class {i}" for i in range(500)]),
    "5000 numbers": np.arange(5000),
}

# ---------------------------------------------------------------- pictures


def _first(names: np.ndarray, n: int = FEW) -> np.ndarray:
    return names[: min(n, len(names))]


def _layout(names: np.ndarray) -> SliceLayout:
    """All names are units, and as many are epochs and time steps as `MOST_NODES` nodes leave."""
    timestep = _first(names, 3)
    return SliceLayout(_first(names, max(1, MOST_NODES // (len(names) * len(timestep)))), timestep, names)


def _embedding(names: np.ndarray, n_components: int) -> Embedding:
    layout = _layout(names)
    points = np.random.default_rng(0).normal(size=(layout.n_nodes, n_components))
    return Embedding(points, layout, most_active=np.resize(names, layout.n_nodes), entropy=np.linspace(4, 1, 9), t=3)


def _identity(names: np.ndarray) -> tuple[SparseAffinity, SliceLayout]:
    layout = _layout(names)
    offsets = torch.arange(layout.n_nodes + 1, dtype=torch.int32)
    csr = Csr(offsets, offsets[:-1], torch.ones(layout.n_nodes, dtype=torch.float64), 2 * (layout.n_nodes,))
    return SparseAffinity(csr), layout


def _curves(names: np.ndarray, figsize: Size, over: str) -> Figure:
    epoch = _first(names)
    entropy = entropies(epoch, names, over=over, replicates=2)
    metrics = {str(name): np.linspace(1e-9, 2e-9, len(epoch)) for name in _first(names, 2).tolist()}
    phases = phases_of(entropy, (0, len(epoch) // 2)) if len(epoch) > 3 else None
    return plots.entropy_curves(entropy, phases=phases, metrics=metrics, figsize=figsize)


def _rankings(names: np.ndarray, figsize: Size) -> Figure:
    scores = *dict.fromkeys(str(name) for name in _first(names, 2).tolist()), "ablation"
    return plots.unit_rankings(importance(names, scores), figsize=figsize)


def _strips(names: np.ndarray, figsize: Size) -> Figure:
    return plots.community_strips(strips(_first(names), names), figsize=figsize)


def _nulls(names: np.ndarray, figsize: Size) -> Figure:
    few = [str(name) for name in _first(names, 4).tolist()]
    return plots.null_models(nulls(few, few), figsize=figsize)


def _study(names: np.ndarray, figsize: Size) -> Figure:
    few = [str(name) for name in _first(names, 3).tolist()]
    return plots.subsampling(study(few, epoch=names), figsize=figsize)


def _others(names: np.ndarray, figsize: Size, color_by: str) -> Figure:
    few, layout = [str(name) for name in _first(names, 5).tolist()], _layout(names)
    result = invented(metrics=few, epoch=layout.epoch, timestep=layout.timestep, unit=layout.unit)
    return plots.baselines(result, color_by=color_by, figsize=figsize)


def _landmarks() -> Landmarks:
    operator = torch.eye(9, dtype=torch.float64) / 2 + 1 / 18
    return Landmarks(operator, torch.eye(9).to_sparse_csr(), torch.arange(9))


def _panels(n_components: int) -> Draw:
    return lambda names, size: plots.panels(_embedding(names, n_components), figsize=size)


def _film(show: str, color_by: str) -> Draw:
    def drawn(names: np.ndarray, size: Size) -> Figure:
        with plain_style():
            n = max(len(names), 2 if show == "timesteps" else 1)  # a film needs two time steps
            embedding = _embedding(np.resize(names, n), 3)
            film = film_of(embedding, Options(show, color_by, 10, 1.0, 2.0, size, embedding.n_nodes))
            film.scene(film.n_frames - 1)
        return film.figure

    return drawn


def _paths(color_by: str) -> Draw:
    options: dict[str, Any] = {"through": "both", "color_by": color_by}
    return lambda names, size: plots.trajectories(_embedding(names, 1), _first(names, 8), figsize=size, **options)


def _grid(names: np.ndarray, figsize: Size) -> Figure:
    embedding = _embedding(names, 2)
    return plots.grid({str(name): embedding for name in _first(names, 3).tolist()}, figsize=figsize)


def _heatmap(result: Callable[[np.ndarray, np.ndarray], Any]) -> Draw:
    return lambda names, size: plots.heatmap(result(_first(names), names), figsize=size)


# Inches of the height at one column (3.35 wide) and at full width (7.2), and the picture of names.
PICTURES: dict[str, tuple[float, float, Draw]] = {
    "panels in the plane": (8.0, 6.4, _panels(2)),
    "panels in space": (8.0, 6.4, _panels(3)),
    "panels over epochs": (8.0, 6.4, _panels(1)),
    "film of time steps": (2.8, 5.0, _film("timesteps", "most_active")),
    "film of a turn": (2.8, 5.0, _film("rotation", "unit")),
    "trajectories of units": (8.0, 6.0, _paths("unit")),
    "trajectories in time": (8.0, 6.0, _paths("time")),
    "grid": (5.2, 5.0, _grid),
    "entropy": (2.4, 3.6, lambda names, size: plots.entropy(_embedding(names, 1), figsize=size)),
    "affinity_blocks": (4.8, 4.2, lambda names, size: plots.affinity_blocks(*_identity(names), figsize=size)),
    "spectrum": (5.4, 3.4, lambda names, size: plots.spectrum(_landmarks(), figsize=size)),
    "entropy_curves of time steps": (5.2, 5.2, lambda names, size: _curves(names, size, "units")),
    "entropy_curves of units": (5.2, 5.2, lambda names, size: _curves(names, size, "timesteps")),
    "heatmap of units": (2.4, 3.4, _heatmap(lambda epoch, unit: ablated(UnitAblation, epoch, unit))),
    "heatmap of time steps": (2.4, 3.4, _heatmap(probes)),
    "unit_rankings": (5.2, 5.0, _rankings),
    "community_strips": (4.8, 4.8, _strips),
    "null_models": (6.0, 3.6, _nulls),
    "subsampling": (6.4, 5.0, _study),
    "baselines by epoch": (6.4, 6.0, lambda names, size: _others(names, size, "epoch")),
    "baselines by unit": (6.4, 6.0, lambda names, size: _others(names, size, "unit")),
}
WIDTHS = (3.35, None, 7.2)


def picture_of(picture: str, names: str, width: float | None) -> Figure:
    """The picture with the names of a line of `NAMES`: one column, the default size, or full width."""
    column, full, draw = PICTURES[picture]
    size = None if width is None else (width, column if width < 5 else full)
    return draw(NAMES[names], size)


# ---------------------------------------------------------------- what holds for each


def tick_texts(figure: Figure) -> list[list[str]]:
    """The texts of the ticks of every axis, and of every legend."""
    axes = [axis for axes in figure.axes if axes.axison for axis in (axes.xaxis, axes.yaxis)]
    ticks = [[label.get_text() for label in axis.get_ticklabels()] for axis in axes]
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    return [*ticks, *([text.get_text() for text in legend.get_texts()] for legend in legends)]


def assert_plain(figure: Figure) -> None:
    """Texts are legible and no smaller than `SMALLEST`, and no two ticks of an axis have equal texts."""
    with plain_style():  # without warnings of characters that no font has
        assert_legible(figure)
    small: list[tuple[str, Any]] = [
        (text.get_text(), text.get_fontsize()) for text in shown_texts(figure) if text.get_fontsize() < SMALLEST
    ]
    assert small == []
    for names in tick_texts(figure):
        shown = [name for name in names if name]
        assert len(set(shown)) == len(shown), shown
