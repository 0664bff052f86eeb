"""Results of analyses with invented values, and what holds for every picture of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmphate_gpu.analysis import (
    Entropy,
    LabelInformation,
    LinearProbe,
    Phases,
    TimestepAblation,
    UnitAblation,
    UnitCommunities,
    UnitImportance,
)

HOSTILE = np.array(["$x^2$", "_hidden", "\\frac{", "a\nb", "", "é"], dtype=object)
HOSTILE_SHOWN = ["$x^2$", "_hidden", "\\frac{", "a\\nb", "", "é"]


def made(cls: type, **fields: Any) -> Any:
    """A ``cls`` with None in all other fields."""
    return cls(**{field.name: fields.get(field.name) for field in dataclasses.fields(cls)})


def labels(axis: Any) -> np.ndarray:
    return axis if isinstance(axis, np.ndarray) else np.arange(axis)


def wave(*shape: int) -> np.ndarray:
    return np.sin(np.arange(np.prod(shape)) * 0.37).reshape(shape)


def entropies(epoch: Any = 12, other: Any = 4, *, over: str = "units", replicates: int = 5) -> Entropy:
    axes = {"epoch": labels(epoch), "timestep" if over == "units" else "unit": labels(other)}
    values = wave(*map(len, axes.values())) + 2
    spread = np.linspace(-0.2, 0.2, replicates)[:, None, None] + values if replicates else None
    settings = {"of": "embedding"}
    return made(
        Entropy, values=values, dims=tuple(axes), coords=axes, over=over, base=2, replicates=spread, settings=settings
    )


def phases_of(entropy: Entropy, starts: tuple[int, ...] = (0, 5, 9)) -> Phases:
    epoch, curve = entropy.coords["epoch"], entropy.values.mean(axis=1)
    start, stop = np.array(starts), np.array([*starts[1:], len(epoch)]) - 1
    slope = np.resize([0.25, -0.5, 0.001], len(starts))
    return made(
        Phases, curve=curve, epoch=epoch, fitted=curve + 0.1, start=epoch[start], stop=epoch[stop], start_index=start,
        stop_index=stop, slope=slope, low=slope - 0.01, high=slope + 0.01, settings={"per": "epoch"},
        trend=np.resize(["growth", "compression", "plateau"], len(starts)),
    )  # fmt: skip


def probes(epoch: Any = 12, timestep: Any = 4, **fields: Any) -> LinearProbe:
    shape = len(labels(epoch)), len(labels(timestep))
    defaults = {
        "epoch": labels(epoch), "timestep": labels(timestep), "score": 0.5 + 0.4 * wave(*shape), "chance": 0.25,
        "cross_entropy": 2 + wave(*shape), "permuted_score": np.full(shape, 0.3), "measure": "balanced accuracy",
        "permuted_cross_entropy": np.full(shape, 2.5),
    }  # fmt: skip
    return made(LinearProbe, **defaults | fields)


def information(epoch: Any = 12, timestep: Any = 4, unit: Any = 6) -> LabelInformation:
    axes = {"epoch": labels(epoch), "timestep": labels(timestep), "unit": labels(unit)}
    shape = tuple(map(len, axes.values()))
    names = ("mean", "bound", "dsmi", "permuted_mean", "permuted_bound", "permuted_dsmi")
    cells = {name: number + wave(*shape[:2]) for number, name in enumerate(names)}
    return made(LabelInformation, **axes, **cells, per_unit=wave(*shape))


def ablated(cls: type, epoch: Any = 12, other: Any = 4, **fields: Any) -> TimestepAblation | UnitAblation:
    axes = {"epoch": labels(epoch), "timestep" if cls is TimestepAblation else "unit": labels(other)}
    change = wave(*map(len, axes.values()))
    cells = {"loss": change + 1, "accuracy": 0.5 - change / 4, "loss_change": change, "accuracy_change": -change / 4}
    settings = {"loss": "cross-entropy (nats)"}
    return made(cls, **axes, **cells | fields, replacement="shuffle", settings=settings)


def importance(
    unit: Any = 20, scores: tuple[str, ...] = ("entropy", "ablation", "label information")
) -> UnitImportance:
    unit = labels(unit)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, len(unit) + 1), (len(scores), 1)), axis=1)
    pairs = [(a, b) for index, a in enumerate(scores) for b in scores[index + 1 :]]
    rho, p = np.linspace(-0.5, 0.9, len(pairs)), np.linspace(0.001, 0.9, len(pairs))
    return made(UnitImportance, unit=unit, ranks=dict(zip(scores, order, strict=True)), pairs=pairs, spearman=rho, p=p)


def strips(epoch: Any = 12, unit: Any = 20, n: int = 4, *, noise: bool = False) -> UnitCommunities:
    unit, n_epochs = labels(unit), 1 if epoch is None else len(labels(epoch))
    community = (np.arange(len(unit)) * n // len(unit) + np.arange(n_epochs)[:, None] // 5) % n
    community[-1, 0] = -1 if noise else 0
    return made(
        UnitCommunities, unit=unit, epoch=None if epoch is None else labels(epoch), community=community,
        silhouette=np.linspace(0.1, 0.6, n_epochs), seed_stability=np.full(n_epochs, 0.8),
        epoch_stability=np.full(n_epochs - 1, 0.7), null_silhouette=np.tile(np.linspace(0.1, 0.3, 41), (n_epochs, 1)),
    )  # fmt: skip


def shown_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn, with those of ticks within the limits."""
    figure.draw_without_rendering()
    hidden = {id(text) for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)
              for text in axis.findobj(Text)}  # fmt: skip
    outside = {id(tick.label1) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.majorTicks
               if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())}  # fmt: skip
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in texts if id(text) not in hidden | outside]


def assert_legible(figure: Figure) -> None:
    """Every text lies within the figure, and none touches another."""
    texts = shown_texts(figure)
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    corners = np.array([box.extents for box in boxes])
    inner = corners + [1, 1, -1, -1]  # a pixel of the 220 in an inch
    meet = (inner[:, None, :2] < inner[None, :, 2:]).all(-1) & (inner[None, :, :2] < inner[:, None, 2:]).all(-1)
    touching = [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(np.triu(meet, 1))]
    assert touching == []


def axes_of(figure: Figure, name: str) -> Any:
    (axes,) = [axes for axes in figure.axes if axes.get_label() == name]
    return axes


def tick_names(axes: Any, axis: str) -> list[str]:
    return [tick.get_text() for tick in getattr(axes, f"get_{axis}ticklabels")()]
