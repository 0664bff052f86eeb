"""`LiveEmbedding`: the embedding of a training run, drawn during the training."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.linalg import orthogonal_procrustes

from .embedding import AXES, Embedding
from .errors import PictureWarning, check_number, warn_caller
from .estimator import MMPHATE
from .params import recipe_parameters
from .plots.canvas import plain_style
from .plots.scatter import panels
from .runtime.atomic import whole_file
from .runtime.paths import expanded, writable
from .slices import SliceLayout
from .trace import Trace
from .trace.activity import most_active_class
from .trace.points import least_samples

PICTURE, COORDINATES, STATUS, PAGE = "picture.png", "embedding.npz", "status.json", "index.html"
DPI = 100
RELOAD = 5  # seconds after which the page reloads
# A refit thins the time steps first, so that at least this many epochs fit into ``max_nodes``.
LEAST_EPOCHS = 20
# The training keeps the GPU, a refit takes about a second, and pictures of equal data are equal.
DEFAULTS: dict[str, Any] = {"device": "cpu", "n_landmark": 500, "random_state": 0}
Listener = Callable[[Any, float], Any]


class Source(Protocol):
    """What `LiveEmbedding` needs of a `Recorder`, or of a callback that has one."""

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener(recorder, epoch)`` after each snapshot."""

    def trace(self) -> Trace:
        """The snapshots so far."""


class LiveEmbedding:
    """Embeds a recording during the training, so that a browser tab or a notebook can show it.

    Every ``refit_every`` snapshots the recording is embedded again (a refit). Snapshots in between are placed into the
    last embedding by `MMPHATE.transform`. A new embedding is turned, reflected and moved onto the picture before it,
    over the nodes that both have (orthogonal Procrustes), so that a picture continues the last one. All work is done
    within `Recorder.snapshot`, and the training gets the same bits as without it.

    Parameters
    ----------
    recorder : Recorder, LightningRecorder or KerasRecorder
        The recording that is embedded. Its `add_listener` gets this object.
    refit_every : int
        Number of snapshots from one refit to the next.
    out : path or None
        Folder, made if it is missing, for ``index.html``, a page that shows the latest picture and reloads itself;
        ``picture.png``; ``embedding.npz``, which `Embedding.load` reads; and ``status.json``, with the epoch, the time
        and counts. Each file is replaced as a whole. None writes nothing.
    max_overhead : float or None
        Largest share of the time since the start that the work may take. A refit or a placement is postponed
        until the time that it probably takes fits in; one placement then places all waiting snapshots. The first
        picture, after the second snapshot, is not postponed. With None nothing is postponed, and the pictures do not
        depend on the clock.
    max_nodes : int
        Largest number of nodes in a refit. Of a longer recording a refit takes every 2nd, 4th, 8th ... epoch and, if an
        epoch has more than a 20th of it, every k-th time step. `close` takes everything.
    recipe : {"default", "stable"}
        Defaults of the options, but for the three below: "stable" has those of `MMPHATE.stable`.
    **options
        Parameters of `MMPHATE`. The defaults differ in ``device="cpu"``, ``n_landmark=500`` and ``random_state=0``.

    Attributes
    ----------
    embedding : Embedding or None
        The nodes of the latest picture.
    seconds : float
        The time that the work has taken so far.

    Raises
    ------
    InputError, InputTypeError
        A parameter out of range, or an ``out`` that cannot be a folder. Errors in the work are those of a listener:
        `Recorder` warns about them, or raises them with ``on_error="raise"``.

    Notes
    -----
    Making the object embeds and draws a few random nodes, which loads the libraries before the training starts. In a
    notebook, a cell that ends with the object shows the latest picture.

    Examples
    --------
    >>> from mmphate_gpu import Recorder
    >>> import torch
    >>> with Recorder(torch.nn.GRU(2, 3), "", torch.randn(5, 4, 2)) as recorder:
    ...     with LiveEmbedding(recorder, out=None) as live:
    ...         taken = [recorder.snapshot(epoch) for epoch in range(3)]  # after an epoch of training each
    >>> live.embedding
    Embedding(45 nodes x 2 components; 3 epochs, 5 timesteps, 3 units)
    """

    def __init__(
        self,
        recorder: Source,
        refit_every: int = 10,
        out: str | os.PathLike[str] | None = "live/",
        *,
        max_overhead: float | None = 0.1,
        max_nodes: int = 10_000,
        recipe: str = "default",
        **options: Any,
    ) -> None:
        self._refit_every = int(check_number("refit_every", refit_every, low=1, integer=True))
        self._max_nodes = int(check_number("max_nodes", max_nodes, low=2, integer=True))
        if max_overhead is not None:
            check_number("max_overhead", max_overhead, low=0, open_low=True)
        self._options = recipe_parameters(recipe) | DEFAULTS | options
        self._out = None if out is None else _made_folder(out)
        _warm_up(self._options)
        self._fit: Fit | None = None
        self._embedding: Embedding | None = None
        self._picture: bytes | None = None
        self._seen = np.empty(0)  # the epochs that the recording had for the latest picture
        self._n_snapshots, self._is_closed = 0, False
        self._source, self._budget = recorder, Budget(max_overhead)
        recorder.add_listener(self)

    def __call__(self, recorder: Any, epoch: float) -> None:
        """Refit, place or wait, after a snapshot."""
        self._n_snapshots = len(recorder.epochs)
        if not self._is_closed and self._n_snapshots >= 2:
            self._update(self._n_snapshots)

    def __enter__(self) -> LiveEmbedding:
        return self

    def __exit__(self, error: Any, *_: object) -> None:
        if error is None:
            self.close()
        self._is_closed = True

    def close(self) -> None:
        """Embed everything that was recorded, regardless of ``max_nodes`` and ``max_overhead``, and write it.

        The page then states that the run has ended, and does not reload. Later snapshots change nothing.
        """
        if not self._is_closed:
            self._is_closed = True
            if self._n_snapshots >= 2:
                self._refit(max_nodes=None)

    @property
    def embedding(self) -> Embedding | None:
        return self._embedding

    @property
    def seconds(self) -> float:
        return self._budget.spent

    def _repr_png_(self) -> bytes | None:
        return self._picture

    def _update(self, n_snapshots: int) -> None:
        if self._fit is None or self._embedding is None:
            self._refit(self._max_nodes)
        elif n_snapshots - self._fit.n_snapshots >= self._refit_every:
            # A postponed refit comes before placements, which would use up the time that it waits for.
            if self._budget.allows(self._fit.seconds_later(n_snapshots, self._max_nodes), "show"):
                self._refit(self._max_nodes)
        elif self._budget.allows(0, "place", "show"):
            self._place(self._fit, self._embedding)

    def _refit(self, max_nodes: int | None) -> None:
        with self._budget.timed("refit"):
            trace = self._source.trace()
            part = trace if max_nodes is None else thinned(trace, max_nodes)
            if n_graph_nodes(part, self._options.get("normalize", True)) <= self._options.get("n_components", 2):
                return  # too few points to embed; the next snapshot may be enough
            knn = min(self._options.get("interslice_knn", 25), n_slices(part) - 1)
            with warnings.catch_warnings():
                if max_nodes is not None:  # only the last refit warns
                    warnings.simplefilter("ignore", PictureWarning)
                op = MMPHATE(**self._options | {"interslice_knn": knn}).fit(part)
            move = Motion.onto(op.result_, self._embedding)
        self._fit = Fit(op, move, part.timestep, trace.n_epochs, self._budget.seconds["refit"])
        self._show(self._fit, replace(op.result_, coordinates=move(op.result_.coordinates)), trace.epoch)

    def _place(self, fit: Fit, embedding: Embedding) -> None:
        with self._budget.timed("place"):
            trace = self._source.trace()
            new, timesteps = ~np.isin(trace.epoch, self._seen), np.isin(trace.timestep, fit.timestep)
            part = trace.subsample(epochs=new, timesteps=timesteps)
            longer = followed(embedding, part, fit.move(fit.op.transform(part).cpu().numpy()))
        self._show(fit, longer, trace.epoch)

    def _show(self, fit: Fit, embedding: Embedding, epochs: np.ndarray) -> None:
        with self._budget.timed("show"):
            picture = self._drawn(embedding)
            if self._out is not None:
                write(self._out, embedding, picture, self._status(fit, embedding, epochs))
        self._embedding, self._picture, self._seen = embedding, picture, epochs

    def _drawn(self, embedding: Embedding) -> bytes | None:
        """The picture; the one before it, with a warning, if the new one cannot be drawn."""
        try:
            return drawn(embedding)
        except Exception as error:  # matplotlib's errors have no base class, and none of them may cost the embedding
            warn_caller(f"the picture could not be drawn ({type(error).__name__}: {error}); the embedding is kept")
            return self._picture

    def _status(self, fit: Fit, embedding: Embedding, epochs: np.ndarray) -> dict[str, Any]:
        sizes = zip(("epochs", "timesteps", "units"), embedding.layout.shape, strict=True)
        return {
            "epoch": epochs[-1].item(),
            "snapshots": len(epochs),
            "snapshots_at_refit": fit.n_snapshots,
            "shown": dict(sizes),
            "t": fit.op.t_,
            "t_range": fit.op.t_range_,
            "stress": fit.op.stress_,
            "seconds": round(self.seconds, 3),
            "ended": self._is_closed,
        }


class Budget:
    """The seconds that the work has taken, and the share of the time since the start that it may take."""

    def __init__(self, share: float | None) -> None:
        self._share, self._start = share, time.perf_counter()
        self.spent = 0.0
        self.seconds: dict[str, float] = {}  # of the last work of each name

    def allows(self, seconds: float, *names: str) -> bool:
        """Whether ``seconds``, and what work of these names took last, fit into the share now."""
        expected = self.spent + seconds + sum(self.seconds.get(name, 0) for name in names)
        return self._share is None or expected <= self._share * (time.perf_counter() - self._start)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of the block, also if it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - started
            self.spent += self.seconds[name]


@dataclass(frozen=True)
class Motion:
    """A rotation, with or without a reflection, and a translation."""

    rotation: np.ndarray  # (C, C) orthogonal
    offset: np.ndarray  # (C,)

    def __call__(self, coordinates: np.ndarray) -> np.ndarray:  # (N, C)
        return (coordinates @ self.rotation + self.offset).astype(coordinates.dtype)

    @classmethod
    def onto(cls, new: Embedding, old: Embedding | None) -> Motion:
        """The motion of ``new`` with the least squares to ``old``, over the nodes that both have (Procrustes)."""
        moving, still = (np.empty((0, new.n_components)),) * 2 if old is None else common_nodes(new, old)
        if not len(moving):
            return cls(np.eye(new.n_components), np.zeros(new.n_components))
        centers = moving.mean(0), still.mean(0)
        rotation, _ = orthogonal_procrustes(moving - centers[0], still - centers[1])
        return cls(rotation, centers[1] - centers[0] @ rotation)


@dataclass(frozen=True)
class Fit:
    """An embedding that snapshots are placed into."""

    op: MMPHATE
    move: Motion
    timestep: np.ndarray
    n_snapshots: int  # that the recording had
    seconds: float

    def seconds_later(self, n_snapshots: int, max_nodes: int) -> float:
        """How long a refit of ``n_snapshots`` probably takes: for a node as long as this one took."""
        layout = self.op.result_.layout
        n_nodes = min(max_nodes, n_snapshots * layout.n_timesteps * layout.n_units)
        return self.seconds * n_nodes / self.op.result_.n_nodes


def n_slices(trace: Trace) -> int:
    return trace.n_epochs * trace.n_timesteps


def n_graph_nodes(trace: Trace, normalize: bool) -> int:
    """How many nodes have enough present samples."""
    if trace.mask is None:
        return trace.n_nodes
    return int((np.asarray(trace.mask).sum(-1) >= least_samples(normalize, trace.n_samples)).sum())


def thinned(trace: Trace, max_nodes: int) -> Trace:
    """Every k-th time step, with the last, and every 2nd, 4th, 8th ... epoch, for at most ``max_nodes`` nodes.

    Epochs that a longer recording keeps are among those that a shorter one keeps, so pictures have nodes in common. At
    least a time step and two epochs are kept.
    """
    step = max(1, -(-trace.n_timesteps * trace.n_units * LEAST_EPOCHS // max_nodes))
    timesteps = np.arange(trace.n_timesteps)[::-step][::-1]
    stride = 1
    while trace.n_epochs > 2 * stride and -(-trace.n_epochs // stride) * len(timesteps) * trace.n_units > max_nodes:
        stride *= 2
    return trace.subsample(epochs=slice(None, None, stride), timesteps=timesteps)


def common_nodes(new: Embedding, old: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of the nodes that both embeddings have, (n, C) each, without those that are NaN."""
    axes = [(getattr(new.layout, axis), getattr(old.layout, axis)) for axis in AXES]
    places = [np.intersect1d(*pair, return_indices=True)[1:] for pair in axes]
    rows = [
        part.coordinates.reshape(*part.layout.shape, -1)[np.ix_(*index)].reshape(-1, new.n_components)
        for part, index in zip((new, old), zip(*places, strict=True), strict=True)
    ]
    present = np.isfinite(rows[0]).all(1) & np.isfinite(rows[1]).all(1)
    return rows[0][present], rows[1][present]


def followed(embedding: Embedding, trace: Trace, coordinates: np.ndarray) -> Embedding:
    """``embedding`` with the later epochs of ``trace``, whose nodes have the ``coordinates``."""
    layout, later = embedding.layout, most_active_class(trace)
    active = None if embedding.most_active is None else np.concatenate([embedding.most_active, np.asarray(later)])
    return replace(
        embedding,
        coordinates=np.concatenate([embedding.coordinates, coordinates]),
        layout=SliceLayout(np.concatenate([layout.epoch, trace.epoch]), layout.timestep, layout.unit),
        most_active=active,
    )


def drawn(embedding: Embedding) -> bytes:
    """A panel of epochs and another of classes, or of units, as a .png for a screen. More panels take longer."""
    color_by = ("epoch", "unit" if embedding.most_active is None else "most_active")
    with plain_style(), io.BytesIO() as file:
        panels(embedding, color_by=color_by).savefig(file, format="png", dpi=DPI)
        return file.getvalue()


def write(out: Path, embedding: Embedding, picture: bytes | None, status: dict[str, Any]) -> None:
    """Replace the files in ``out``, each as a whole; the page is the last."""
    status |= {"written": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    embedding.save(out / COORDINATES, overwrite=True)
    texts = {STATUS: json.dumps(status, indent=1), PAGE: page(status)}
    files = ({} if picture is None else {PICTURE: picture}) | {name: text.encode() for name, text in texts.items()}
    for name, content in files.items():
        with whole_file(out / name, overwrite=True) as new:
            new.write_bytes(content)


def page(status: dict[str, Any]) -> str:
    """A page with the picture, which reloads until the run has ended. It needs no server."""
    reload = "" if status["ended"] else f'<meta http-equiv="refresh" content="{RELOAD}">'
    state = "The run has ended." if status["ended"] else f"This page reloads every {RELOAD} seconds."
    shown = ", ".join(f"{number:,} {axis}" for axis, number in status["shown"].items())
    where = f"Epoch {status['epoch']:g}"
    # A browser keeps a picture that it has, so each picture has another query.
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{reload}<title>{where}</title>
<style>body {{ font: 15px sans-serif; margin: 1.5em; color: #262626 }} img {{ max-width: 100% }}</style></head>
<body><img src="{PICTURE}?{status["snapshots"]}" alt="The embedding at {where.lower()}">
<p>{where}, {status["snapshots"]:,} snapshots. Shown are {shown}. Written {status["written"]}. {state}</p>
</body></html>
"""


def _made_folder(out: str | os.PathLike[str]) -> Path:
    path = expanded(out).absolute()  # a later change of the working folder does not move it
    with writable(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _warm_up(options: dict[str, Any]) -> None:
    """Embed and draw a few nodes, which imports the libraries, and on a GPU compiles the kernels."""
    small = np.random.default_rng(0).normal(size=(4, 4, 5)).astype(np.float32)  # (slice, unit, sample)
    drawn(MMPHATE(**options | {"interslice_knn": 3}).fit(small).result_)
