"""What the results of all analyses have in common: a table, plain values for JSON, and one readable line."""

from __future__ import annotations

import dataclasses
import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import pandas


class Result(ABC):
    """The base of the frozen dataclasses that analyses return.

    A subclass defines `_columns` (the table) and `_summary` (what its line says).
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"

    def to_frame(self) -> pandas.DataFrame:
        """The result as a tidy pandas table; raises `InputError` without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_frame() needs pandas; run: pip install pandas") from error
        return pandas.DataFrame(self._columns())

    def to_dict(self) -> dict[str, Any]:
        """All fields as dicts, lists, numbers and texts. NaN and infinities stay, and dates become ISO text."""
        return _fields(self)

    @abstractmethod
    def _columns(self) -> dict[str, np.ndarray]:
        """Columns of equal length, by name."""

    @abstractmethod
    def _summary(self) -> str:
        """What the line says between the brackets."""


def long_columns(axes: Mapping[str, np.ndarray], **values: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of a table with a row for every cell of arrays whose axes are ``axes``, in the same order.

    Examples
    --------
    >>> columns = long_columns({"epoch": np.array([3, 4]), "timestep": np.array([0, 1])}, bits=np.eye(2))
    >>> columns["epoch"].tolist(), columns["bits"].tolist()
    ([3, 3, 4, 4], [1.0, 0.0, 0.0, 1.0])
    """
    grids = np.meshgrid(*axes.values(), indexing="ij")
    labels = {name: grid.ravel() for name, grid in zip(axes, grids, strict=True)}
    return labels | {name: np.asarray(array).ravel() for name, array in values.items()}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return (value.astype(str) if value.dtype.kind in "mM" else value).tolist()
    if isinstance(value, datetime.date):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
