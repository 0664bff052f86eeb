"""Films of an embedding: its nodes travel through epochs or time steps, or the cloud turns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number
from ..slices import whole_slices
from .canvas import plain_style
from .colors import Coloring
from .film_files import film_path, write_film
from .film_frames import BOTTOM, LEFT, NOTE, RIGHT, TOP, Film, Scene, Stage, add_key, new_stage, write_notes
from .film_scenes import Journey, Travel, Turn
from .layout import check_figsize
from .nodes import TITLES, node_colorings

AXES = {"epochs": "epoch", "timesteps": "timestep"}
SHOWS = ("epochs", "rotation", "timesteps")
COLOR_BY = {"epochs": "most_active", "rotation": "epoch", "timesteps": "epoch"}
PANEL = 3.9, 3.4  # inches
LEAST = 1.2  # inches of a side of the panel
SECONDS = 8.0  # of a turn
SECONDS_OF_SNAPSHOT, SHORTEST, LONGEST = 0.4, 4.0, 12.0


@dataclass(frozen=True)
class Options:
    """The options of a film, checked."""

    show: str
    color_by: str | None
    fps: float
    seconds: float | None
    trail: float | None
    figsize: tuple[float, float] | None
    max_nodes: int


@plain_style()
def animate(
    embedding: Embedding,
    show: str = "epochs",
    path: str | os.PathLike[str] = "film.gif",
    *,
    color_by: str | None = None,
    fps: float = 20,
    seconds: float | None = None,
    trail: float | None = None,
    figsize: tuple[float, float] | None = None,
    max_nodes: int = 100_000,
    verbose: int | bool = False,
) -> Path:
    """Write a film of the embedding: through the epochs, through the time steps, or once around it.

    "epochs" shows the nodes of one epoch, all of its time steps and units, which move on straight lines to their places
    at the next epoch. "timesteps" shows the nodes of one time step, at all epochs, which move to their places at the
    next time step. Both show the first two components. "rotation" turns the first three components once, and its end
    meets its beginning.

    Each way from an epoch to the next takes the same time, also if the epochs are not evenly spaced; otherwise most of
    such a film could be the way to its last epoch. The title names the nearest epoch or time step, and the line below
    it grows with the film. Trails show where the nodes come from, and fade. Pale dots are the places of all nodes at
    all times. Scales and colors are the same in all frames. Nodes without a place (a row of NaN) are not drawn, and a
    note counts them.

    Parameters
    ----------
    embedding : Embedding
        The nodes to show.
    show : "epochs", "rotation" or "timesteps"
        What moves.
    path : str or path
        A .gif file, or an .mp4 file, which needs the program ffmpeg. An existing file is replaced. The file appears
        whole or not at all. A .gif repeats without end, and its bytes are reproducible.
    color_by : "epoch", "timestep", "unit" or "most_active", optional
        None is the most active class, or the unit if no class is known, for "epochs", and the epoch for the others.
    fps : float
        Frames per second, 1 to 50.
    seconds : float, optional
        How long the movement takes. None is 0.4 for each epoch or time step, at least 4 and at most 12, and 8 for a
        turn. Every epoch or time step has at least one frame, so a film of many of them is longer than this.
        The last frame of "epochs" and "timesteps" is shown for another second.
    trail : float, optional
        How many epochs or time steps the trails reach back; 0 draws none. None is an eighth of all, between 2 and 8.
    figsize : (width, height), optional
        In inches of 144 pixels; None is about 5.3 x 4.2.
    max_nodes : int
        Of an embedding with more nodes, whole epochs and time steps are left out, evenly, and a note says so.
    verbose : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError, InputTypeError
        No `Embedding`; fewer than two epochs, time steps or components, or three components for "rotation"; an .mp4
        without ffmpeg, or an error of ffmpeg; a .gif whose frames do not fit in memory; or another bad argument.

    Notes
    -----
    A frame of 160 nodes with trails takes about 25 ms on one core, a frame of 10,000 nodes with 30,000 lines of trails
    0.5 s, and a turn of 100,000 nodes 0.6 s for each frame. For 8,160 nodes in 51 epochs of 8 time steps, a .gif of the
    default size has 3.2 MB (time steps) to 6.3 MB (epochs); fewer ``fps`` and a smaller ``figsize`` make it smaller. A
    .gif takes a byte of memory for each pixel of all frames,
    and 16 for each pixel of the six frames from which its palette is made. The memory for an .mp4 does not grow with
    the number of frames.
    """
    path = film_path(path)
    film = film_of(embedding, _options(show, color_by, fps, seconds, trail, figsize, max_nodes))
    write_film(film, path, fps, bool(verbose))
    return path


def _options(show: Any, color_by: Any, fps: Any, seconds: Any, trail: Any, figsize: Any, max_nodes: Any) -> Options:
    return Options(
        check_choice("show", show, SHOWS),
        color_by,
        check_number("fps", fps, low=1, high=50),  # browsers slow a .gif of more down to 10 frames a second
        None if seconds is None else check_number("seconds", seconds, low=0, open_low=True),
        None if trail is None else check_number("trail", trail, low=0),
        figsize,
        int(check_number("max_nodes", max_nodes, low=1, integer=True)),
    )


def film_of(embedding: Embedding, options: Options) -> Film:
    """The film of ``embedding``, before it is drawn."""
    _check_embedding(embedding, options.show)
    epochs, timesteps = _slices(embedding, options)
    shown = embedding.at(epochs, timesteps)
    notes = _notes(embedding, shown)
    nodes = np.arange(embedding.n_nodes).reshape(embedding.layout.shape)[np.ix_(epochs, timesteps)].ravel()
    name, coloring = _coloring(embedding, nodes, options)
    stage = new_stage(_figsize(options.figsize, len(notes)), len(notes))
    add_key(stage, coloring, TITLES[name])
    write_notes(stage, notes)
    colors = coloring.cmap(coloring.norm(coloring.values))
    return (_turn if options.show == "rotation" else _travel)(stage, shown, colors, options)


def _check_embedding(embedding: Any, show: str) -> None:
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    least = 3 if show == "rotation" else 2
    if embedding.n_components < least:
        raise InputError(
            f"show={show!r} and embedding has components: {embedding.n_components}; accepted: {least} or more"
        )
    if np.isnan(embedding.coordinates[:, 0]).all():
        raise InputError("embedding has NaN in every row; accepted: at least one node with a place")


def _slices(embedding: Embedding, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the epochs and of the time steps that are shown."""
    layout = embedding.layout
    epochs, timesteps = whole_slices(layout, options.max_nodes)
    n = {"epochs": len(epochs), "timesteps": len(timesteps), "rotation": 2}[options.show]
    if n < 2:
        total = layout.n_epochs if options.show == "epochs" else layout.n_timesteps
        limit = f", of which max_nodes={options.max_nodes:,} leaves 1" if total > 1 else ""
        raise InputError(f"show={options.show!r} and embedding has {options.show}: {total}{limit}; accepted: 2 or more")
    return epochs, timesteps


def _notes(embedding: Embedding, shown: Embedding) -> list[str]:
    thinned, n_missing = shown.n_nodes < embedding.n_nodes, int(np.isnan(shown.coordinates[:, 0]).sum())
    missing = f"{n_missing:,} of {shown.n_nodes:,} nodes have no place"
    return [_thinning(embedding, shown)] * thinned + [missing] * (n_missing > 0)


def _thinning(embedding: Embedding, shown: Embedding) -> str:
    (epochs, timesteps, _), (all_epochs, all_timesteps, _) = shown.layout.shape, embedding.layout.shape
    return f"{epochs:,} of {all_epochs:,} epochs and {timesteps:,} of {all_timesteps:,} time steps are shown"


def _coloring(embedding: Embedding, nodes: np.ndarray, options: Options) -> tuple[str, Coloring]:
    """The name of the coloring and the colors of ``nodes``, which they also have in a picture of all nodes."""
    colorings = node_colorings(embedding.layout, embedding.most_active, nodes)
    default = COLOR_BY[options.show] if COLOR_BY[options.show] in colorings else "unit"
    name = default if options.color_by is None else check_choice("color_by", options.color_by, colorings.keys())
    return name, colorings[name]


def _figsize(figsize: tuple[float, float] | None, n_notes: int) -> tuple[float, float]:
    around = LEFT + RIGHT, TOP + BOTTOM + NOTE * n_notes
    if figsize is None:
        return PANEL[0] + around[0], PANEL[1] + around[1]
    return check_figsize(figsize, (LEAST + around[0], LEAST + around[1]))


def _turn(stage: Stage, shown: Embedding, colors: np.ndarray, options: Options) -> Film:  # (N, 4)
    placed = np.isfinite(shown.coordinates[:, 0])
    n_frames = max(2, round((options.seconds or SECONDS) * options.fps))
    scene: Scene = Turn(stage, shown.coordinates[placed, :3], colors[placed], n_frames)
    return Film(stage.figure, scene, n_frames, hold=0)


def _travel(stage: Stage, shown: Embedding, colors: np.ndarray, options: Options) -> Film:  # (N, 4)
    journey = _journey(shown, colors, options.show)
    n_gaps = len(journey.places) - 1
    gap = max(1, round(_seconds(options, n_gaps) * options.fps / n_gaps))
    scene: Scene = Travel(stage, journey, gap, _trail(options, n_gaps + 1))
    return Film(stage.figure, scene, gap * n_gaps + 1, hold=round(options.fps))


def _seconds(options: Options, n_gaps: int) -> float:
    return options.seconds or min(max(SECONDS_OF_SNAPSHOT * n_gaps, SHORTEST), LONGEST)


def _trail(options: Options, n_snapshots: int) -> float:
    return min(max(2.0, n_snapshots / 8), 8.0) if options.trail is None else options.trail


def _journey(shown: Embedding, colors: np.ndarray, show: str) -> Journey:
    """The nodes at each epoch, or at each time step, in a fixed random order, so that no label hides another."""
    axis = AXES[show]
    places, shades = (_by_snapshot(values, shown, axis) for values in (shown.coordinates[:, :2], colors))
    order = np.random.default_rng(0).permutation(places.shape[1])
    return Journey(places[:, order], shades[:, order], TITLES[axis], getattr(shown.layout, axis))


def _by_snapshot(values: np.ndarray, shown: Embedding, axis: str) -> np.ndarray:  # (N, C) -> (snapshots, n, C)
    stacked = values.reshape(*shown.layout.shape, -1)  # (E, T, M, C)
    stacked = stacked if axis == "epoch" else stacked.swapaxes(0, 1)
    return stacked.reshape(len(stacked), -1, values.shape[1])
