"""What a recorder does about an error that must not end a training: it is told once, and counted from then on."""

from __future__ import annotations

import warnings

import torch

# Errors that no snapshot may hide.
FATAL = (torch.OutOfMemoryError, MemoryError)


class Failures:
    """Errors of one sort: the first becomes a warning at once, and the number of the others one at the end."""

    def __init__(self, what: str) -> None:
        self._what, self._epochs = what, list[float]()

    def tell(self, epoch: float, error: Exception) -> None:
        """Warn of the first error; count the others."""
        self._epochs.append(epoch)
        if len(self._epochs) == 1:
            message = (
                f"{self._what} at epoch {epoch}: {type(error).__name__}: {error}. The training goes on; "
                "on_error='raise' would end it"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def tell_the_number(self) -> None:
        """Warn of those errors that were only counted, and begin anew."""
        others, self._epochs = self._epochs[1:], []
        if others:
            message = f"{self._what} {len(others)} more time(s), the last at epoch {others[-1]}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether a file could not be written: an OSError is the error or one of its causes."""
    return error is not None and (isinstance(error, OSError) or is_of_the_disk(error.__cause__))
