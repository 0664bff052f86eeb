"""Errors that must not end a training: the first one becomes a warning, and the later ones are counted."""

from __future__ import annotations

import warnings

import torch

# Errors that no snapshot may hide.
FATAL = (torch.OutOfMemoryError, MemoryError)


class Failures:
    """Errors of one sort. The first becomes a warning at once. The number of the later ones becomes one at the end."""

    def __init__(self, what: str) -> None:
        self._what, self._epochs = what, list[float]()

    def add(self, epoch: float, error: Exception) -> None:
        """Warn of the first error, and count the later ones."""
        self._epochs.append(epoch)
        if len(self._epochs) == 1:
            message = (
                f"{self._what} at epoch {epoch}: {type(error).__name__}: {error}. The training continues; "
                "on_error='raise' raises such errors"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def warn_of_count(self) -> None:
        """Warn of the errors that were only counted, and start the count again."""
        others, self._epochs = self._epochs[1:], []
        if others:
            message = f"{self._what} {len(others)} more time(s), the last at epoch {others[-1]}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether a file could not be written: an OSError is the error or one of its causes."""
    return error is not None and (isinstance(error, OSError) or is_of_the_disk(error.__cause__))
