"""The block structure of the multislice affinity: between slices, within a slice, and within a unit."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_number
from ..operators import AffinityOperator
from ..runtime.arrays import to_numpy
from ..slices import SliceLayout
from .axis import LINE, MOST, Ticks, across, by_rank, set_across, set_upward, upward
from .canvas import INK, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .keys import draw_bar, missing_patch, show_missing
from .layout import Place, check_figsize, title_above, widest
from .names import texts

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

WIDTH = 6.4
BESIDE = 4.6  # inches from which the small blocks lie beside the large one, not below it
SHARE = 0.68  # of the large block
TOP, BOTTOM, GAP, NOTES = 0.34, 0.42, 0.12, 0.3  # inches above, below and beside a block, and of the notes
AROUND = TOP + BOTTOM + NOTES
SMALL_LEFT = 0.34  # inches on the left of a small block
BAR = 0.13  # inches of the bar of colors
LEAST_BLOCK = 0.4  # inches of a side of a block
MOST_BINS = 160  # rows of a block; a small block has fewer pixels in print
CMAP = "viridis_r"  # its palest color differs from white, which stands for zero
AXES = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit"}
BETWEEN, SLICE, UNIT = "Mean affinity of slices", "Within a slice", "Within a unit"


@dataclass(frozen=True, eq=False)
class Block:
    """Mean affinities of bins of an axis, with the labels of the axis."""

    title: str
    values: np.ndarray  # (n, n); NaN where a bin has no node of the graph
    axis: str
    labels: np.ndarray
    width: float  # of a bin, in labels

    @property
    def has_blanks(self) -> bool:
        return bool(np.isnan(self.values).any())

    @property
    def end(self) -> float:
        """Where the last bin ends, which may be beyond the labels."""
        return len(self.values) * self.width - 0.5

    @property
    def limits(self) -> tuple[float, float]:
        return -0.5, len(self.labels) - 0.5


@plain_style()
def affinity_blocks(
    operator_or_estimator: Any,
    layout: SliceLayout | None = None,
    *,
    epoch: int = -1,
    timestep: int = -1,
    unit: int = 0,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the blocks of the affinity K (step 6 of docs/method.md): of all slices, of a slice, and of a unit.

    The large block has the mean affinity of the nodes of any two slices, in the order of the nodes. The two small
    blocks show both kinds of links in full: between the units of a slice (intraslice), and between the slices of a
    unit (interslice). Long axes are cut into at most 160 bins of consecutive slices or units, and a cell is the mean
    over the pairs of nodes of its two bins. The scale of the colors is logarithmic, and white is zero. Bins without a
    node of the graph are gray and hatched.

    Parameters
    ----------
    operator_or_estimator : AffinityOperator (N, N), or a fitted MMPHATE
        Every form of the affinity gives the same picture.
    layout : SliceLayout, optional
        The layout of an operator, with N nodes. An estimator has its layout.
    epoch, timestep, unit : int
        Indices of the slice and of the unit of the small blocks; negative ones count from the end.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Cells are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None is 6.4 wide, with a square for the large block. A width of 3.35 is a column of a paper, with the
        small blocks below.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "slices", "slice", "unit" and "key".

    Raises
    ------
    InputError, InputTypeError
        Something other than an operator or an estimator, an operator without its layout, an index out of range, or a
        bad ``path`` or ``figsize``.
    NotFittedError
        The estimator is not fitted.

    Notes
    -----
    Time and memory are those of one ``aggregate`` of the operator into at most 500 groups.
    """
    path = check_path(path)
    operator, layout, nodes = _source(operator_or_estimator, layout)
    chosen = [_index(name, value, layout) for name, value in zip(AXES, (epoch, timestep, unit), strict=True)]
    blocks = _blocks(operator, layout, nodes, chosen)
    figure, places = _page(blocks, figsize)
    norm = _norm(blocks)
    for (name, block), place in zip(blocks.items(), places, strict=False):
        _draw_block(figure, place, name, block, norm)
    _draw_key(figure, places[-1], norm, blank=any(block.has_blanks for block in blocks.values()))
    _write_notes(figure, layout, chosen)
    save_figure(figure, path)
    return figure


# ---------------------------------------------------------------- what is drawn


def _source(source: Any, layout: Any) -> tuple[AffinityOperator, SliceLayout, np.ndarray]:
    """The operator, its layout, and the nodes of its rows."""
    if isinstance(source, AffinityOperator):
        return _checked(source, layout)
    from ..estimator import MMPHATE  # it loads scikit-learn, which no other picture needs

    if isinstance(source, MMPHATE):
        nodes = to_numpy("graph_nodes_", source.graph_nodes_)
        if layout is not None:
            raise InputError("layout is passed with an estimator, which has its layout; accepted: None")
        return source.affinity_, source.result_.layout, nodes
    accepted = "an AffinityOperator or a fitted MMPHATE"
    raise InputTypeError(f"operator_or_estimator is a {type(source).__name__}; accepted: {accepted}")


def _checked(source: AffinityOperator, layout: Any) -> tuple[AffinityOperator, SliceLayout, np.ndarray]:
    if not isinstance(layout, SliceLayout):
        raise InputTypeError(f"layout is a {type(layout).__name__}; accepted: the SliceLayout of the operator")
    if layout.n_nodes != source.shape[0]:
        raise InputError(f"layout has {layout.n_nodes:,} nodes; accepted: {source.shape[0]:,}, those of the operator")
    return source, layout, np.arange(layout.n_nodes)


def _index(name: str, value: Any, layout: SliceLayout) -> int:
    n = len(getattr(layout, name))
    return int(check_number(name, value, low=-n, high=n - 1, integer=True)) % n


def _blocks(operator: AffinityOperator, layout: SliceLayout, nodes: np.ndarray, chosen: list[int]) -> dict[str, Block]:
    """The three blocks, from the sums of the affinity between groups of nodes.

    The groups are so fine that every bin of every block is a union of them: the bins of slices, split into the chosen
    unit and all others, and the bins of units of the chosen slice, which the chosen unit leaves.
    """
    n_epochs, n_timesteps, n_units = layout.shape
    epoch, timestep, unit = chosen
    slice_, per_slice, per_unit = epoch * n_timesteps + timestep, _bin_size(n_epochs, n_timesteps), _bin_size(n_units)
    slice_bin, unit_bin = np.arange(n_epochs * n_timesteps) // per_slice, np.arange(n_units) // per_unit
    n, m = slice_bin[-1] + 1, unit_bin[-1] + 1
    group = np.repeat(slice_bin[:, None], n_units, axis=1)  # (S, M)
    group[:, unit] += n
    group[slice_] = 2 * n + unit_bin
    group[slice_, unit] = 2 * n + m
    none, bins, here = np.full(n, -1), np.arange(n), slice_bin[slice_]
    sums = _group_sums(operator, group.ravel()[nodes], 2 * n + m + 1)
    axis = "timestep" if n_epochs == 1 else "epoch"
    along = axis, getattr(layout, axis), per_slice / (1 if n_epochs == 1 else n_timesteps)
    of_slices = _means(*sums, np.concatenate([bins, bins, np.full(m + 1, here)]))
    of_slice = _means(*sums, np.concatenate([none, none, np.arange(m), [unit_bin[unit]]]))
    of_unit = _means(*sums, np.concatenate([none, bins, np.full(m, -1), [here]]))
    return {
        "slices": Block(BETWEEN, of_slices, *along),
        "slice": Block(SLICE, of_slice, "unit", layout.unit, per_unit),
        "unit": Block(UNIT, of_unit, *along),
    }


def _bin_size(n_outer: int, n_inner: int = 1) -> int:
    """The slices of a bin: no more bins than `MOST_BINS`, and if it can be, whole epochs or equal parts of an epoch."""
    least = -(-n_outer * n_inner // MOST_BINS)
    parts = [size for size in range(least, n_inner + 1) if n_inner % size == 0]
    aligned = parts[0] if parts else -(-least // n_inner) * n_inner
    return aligned if aligned <= 4 * least else least


def _group_sums(operator: AffinityOperator, group: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the affinity between groups (n, n), and the number of nodes of each (n,)."""
    from scipy.sparse import csr_matrix

    csr = operator.aggregate(torch.from_numpy(group).to(operator.device), n)
    entries = (part.cpu().numpy() for part in (csr.values, csr.indices, csr.indptr))
    columns = csr_matrix(tuple(entries), shape=csr.shape)
    rows = csr_matrix((np.ones(len(group)), group, np.arange(len(group) + 1)), shape=csr.shape)
    return (rows.T @ columns).toarray(), np.bincount(group, minlength=n).astype(float)


def _means(sums: np.ndarray, counts: np.ndarray, bin_of_group: np.ndarray) -> np.ndarray:
    """The mean affinity between bins, which are unions of groups; -1 leaves a group out."""
    member = (bin_of_group[:, None] == np.arange(bin_of_group.max() + 1)).astype(float)
    n_nodes = member.T @ counts
    n_pairs = np.outer(n_nodes, n_nodes)
    return np.divide(member.T @ sums @ member, n_pairs, out=np.full(n_pairs.shape, np.nan), where=n_pairs > 0)


# ---------------------------------------------------------------- where it is drawn


def _page(blocks: dict[str, Block], figsize: Any) -> tuple[Figure, list[Place]]:
    """A figure, and the places of the three blocks and of the key."""
    size = None if figsize is None else check_figsize(figsize, (2.5, 2.5))
    figure = new_figure((WIDTH, WIDTH) if size is None else size)
    key = 0.2 + BAR + max(widest(figure, _bar_ticks(_norm(blocks))[1], TICK_SIZE), 0.5)
    place = _beside if figure.get_figwidth() >= BESIDE else _below
    if size is None:
        figure.set_size_inches(WIDTH, place((WIDTH, WIDTH), _left(figure, blocks, WIDTH), key)[0][2] + AROUND)
    width, height = figure.get_size_inches()
    inches = place((width, height), _left(figure, blocks, place((width, height), 0, key)[0][3]), key)
    if min(side for block in inches[:-1] for side in block[2:]) < LEAST_BLOCK:
        raise InputError(f"figsize={figsize!r} has no room for the blocks; accepted: a larger width or height")
    total = np.array([*figure.get_size_inches()] * 2)
    return figure, [tuple(np.array(part) / total) for part in inches]


def _left(figure: Figure, blocks: dict[str, Block], height: float) -> float:
    """Inches on the left of the large block, of this height. The small blocks name their columns only."""
    return 0.32 + widest(figure, _rows(blocks["slices"], height).names, TICK_SIZE)


def _beside(size: tuple[float, float], left: float, key: float) -> list[Place]:
    """Inches of the large block, of the small blocks on its right, and of the key on the right of all."""
    inside = size[0] - left - SMALL_LEFT - GAP - key
    height = (size[1] - NOTES - 2 * (TOP + BOTTOM)) / 2
    start, width = left + SHARE * inside + GAP + SMALL_LEFT, (1 - SHARE) * inside
    large = left, NOTES + BOTTOM, SHARE * inside, size[1] - NOTES - TOP - BOTTOM
    upper = start, NOTES + BOTTOM + height + TOP + BOTTOM, width, height
    bar = start + width + 0.12, large[1], BAR, large[3]
    return [large, upper, (start, NOTES + BOTTOM, width, height), bar]


def _below(size: tuple[float, float], left: float, key: float) -> list[Place]:
    """Inches of the large block with the key on its right, and of the small blocks beside one another below."""
    inside = size[1] - NOTES - 2 * (TOP + BOTTOM)
    level = NOTES + BOTTOM + (1 - SHARE) * inside + TOP + BOTTOM
    large = left, level, size[0] - left - key, SHARE * inside
    width = (size[0] - 2 * SMALL_LEFT - 2 * GAP) / 2
    first = SMALL_LEFT, NOTES + BOTTOM, width, (1 - SHARE) * inside
    second = 2 * SMALL_LEFT + width + GAP, *first[1:]
    return [large, first, second, (large[0] + large[2] + 0.12, level, BAR, SHARE * inside)]


# ---------------------------------------------------------------- drawing


def _norm(blocks: dict[str, Block]) -> Normalize:
    from matplotlib.colors import LogNorm

    positive = _positive(blocks)
    low, high = float(positive.min()), float(positive.max())
    return LogNorm(low, high) if high > 1.01 * low else LogNorm(low / 10, high)


def _positive(blocks: dict[str, Block]) -> np.ndarray:
    return np.concatenate([block.values[block.values > 0] for block in blocks.values()])


def _bar_ticks(norm: Normalize, most: int = 7) -> tuple[np.ndarray, list[str]]:
    """At most ``most`` powers of ten, or the ends of the bar if it has fewer than two of them."""
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    powers = np.arange(np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9) + 1)
    powers = powers[:: -(-len(powers) // most) or 1]
    ticks = 10.0**powers if len(powers) > 1 else np.array([low, high])
    return ticks, [f"{tick:.3g}" for tick in ticks]


def _rows(block: Block, inches: float) -> Ticks:
    return by_rank(block.labels, block.limits, upward(inches, block.limits), max(2, int(inches / LINE)))


def _draw_block(figure: Figure, place: Place, name: str, block: Block, norm: Normalize) -> None:
    from matplotlib import colormaps

    axes = figure.add_axes(place, label=name)
    open_frame(axes)
    if block.has_blanks:
        show_missing(axes)
    # A logarithm has no place for zero, so zero takes the color below the scale.
    values = np.where(block.values == 0, 0.1 * float(norm.vmin or 0), block.values)
    axes.imshow(
        values, cmap=colormaps[CMAP].with_extremes(under="white"), norm=norm, extent=2 * (-0.5, block.end),
        origin="lower", aspect="auto", interpolation="nearest", rasterized=True, label="cells",
    )  # fmt: skip
    width, height = place[2] * figure.get_figwidth(), place[3] * figure.get_figheight()
    columns = by_rank(block.labels, block.limits, across(figure, width, block.limits, GAP), MOST)
    set_across(axes, columns, AXES[block.axis])
    rows = _rows(block, height)
    set_upward(axes, rows if name == "slices" else replace(rows, names=[""] * len(rows.names)), AXES[block.axis])
    title_above(figure, place, block.title, 0.06)


def _draw_key(figure: Figure, place: Place, norm: Normalize, *, blank: bool) -> None:
    """Draw the bar of colors, with white for zero and the ground of bins without nodes below it."""
    from matplotlib.patches import Patch

    line = LINE / figure.get_figheight()
    left, bottom, width, height = place
    entries = [(Patch(facecolor="white", edgecolor=INK, linewidth=0.5), "0")]
    entries += [(missing_patch(), "no node")] * blank
    lower = bottom + 1.3 * line * len(entries)
    bar = draw_bar(figure, (left, lower, width, bottom + height - lower), norm, CMAP)
    ticks, names = _bar_ticks(norm)
    bar.set_ticks(ticks, labels=names)
    for index, (patch, text) in enumerate(entries):
        level = lower - 1.3 * line * (index + 1)
        patch_place = left, level, width, 0.8 * line
        _draw_patch(figure, patch_place, patch)
        shift = 0.06 / figure.get_figwidth()
        figure.text(left + width + shift, level, text, fontsize=TICK_SIZE, color=INK, va="bottom")


def _draw_patch(figure: Figure, place: Place, patch: Any) -> None:
    from matplotlib.patches import Rectangle

    shape = Rectangle(place[:2], *place[2:], transform=figure.transFigure)
    shape.update_from(patch)
    shape.set_transform(figure.transFigure)
    figure.add_artist(shape)


def _write_notes(figure: Figure, layout: SliceLayout, chosen: list[int]) -> None:
    """Say at the bottom which slice and which unit the small blocks show."""
    names = [texts(getattr(layout, name))[index] for name, index in zip(AXES, chosen, strict=True)]
    lines = [f"Slice: epoch {names[0]}, time step {names[1]}", f"Unit: {names[2]}"]
    for index, line in enumerate(lines):
        level = (0.04 + LINE * (1.5 - index)) / figure.get_figheight()
        figure.text(0.08 / figure.get_figwidth(), level, line, fontsize=TICK_SIZE - 1, color=INK, va="center")
