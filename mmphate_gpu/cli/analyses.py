"""The analyses that `analyze` runs: what each needs, how it is computed, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import Embedding
    from ..estimator import MMPHATE
    from ..trace import Trace


@dataclass(frozen=True, eq=False)
class Data:
    """What analyses read.

    Attributes
    ----------
    embedding : the picture.
    estimator : its settings; fitted if this command made the picture.
    trace : the trace of the picture, or None.
    labels : (P,) the class or the number that each sample stands for, or None.
    seed, verbose : of every analysis.
    """

    embedding: Embedding
    estimator: MMPHATE
    trace: Trace | None = None
    labels: np.ndarray | None = None
    seed: int = 0
    verbose: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options of every analysis that takes long."""
        return {"random_state": self.seed, "verbose": self.verbose}

    @property
    def metrics(self) -> Mapping[str, np.ndarray]:
        return {} if self.trace is None else self.trace.metrics


Done = Mapping[str, Any]  # the results so far, by the names of the analyses
Draw = Callable[[Any, Done, Data, Path], Any]


@dataclass(frozen=True)
class Analysis:
    """An analysis of the table.

    Attributes
    ----------
    compute : the result, or a mapping from names to results.
    needs : keys of `NEEDS`, and names of analyses of the table above this one.
    option : the option that asks for an analysis that takes long.
    pictures : {name of the file: function that draws it}.
    """

    compute: Callable[[Data, Done], Any]
    needs: tuple[str, ...] = ()
    option: str | None = None
    pictures: Mapping[str, Draw] = field(default_factory=dict)


# What data may lack: whether they have it, and the reason that the file says otherwise.
NEEDS: dict[str, tuple[Callable[[Data], bool], str]] = {
    "trace": (lambda data: data.trace is not None, "the trace is missing: pass it as --trace TRACE"),
    "labels": (
        lambda data: data.labels is not None,
        "the samples have no labels: pass --labels FILE, or record with Recorder(labels=...)",
    ),
    "metrics": (
        lambda data: bool(data.metrics),
        "the trace has no metrics: record them with recorder.snapshot(epoch, loss=...)",
    ),
}


def _measure(name: str, **options: Any) -> Callable[[Data, Done], Any]:
    """`analysis.<name>` of the embedding."""

    def compute(data: Data, done: Done) -> Any:
        from .. import analysis

        return getattr(analysis, name)(data.embedding, **options)

    return compute
