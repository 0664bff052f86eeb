"""What the results of all analyses have in common: plain values that JSON can hold."""

import dataclasses
import datetime
import json

import numpy as np
import pytest

from mmphate_gpu.analysis.result import Result, long_columns
from mmphate_gpu.slices import SliceLayout


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Holder(Result):
    value: object

    def _columns(self):
        return {"value": np.atleast_1d(self.value)}

    def _summary(self):
        return "a value"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array([True, False]), [True, False]),
        (np.array(["a"]), ["a"]),
        (np.array(["2024-05-01"], "datetime64[D]"), ["2024-05-01"]),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 12), "2024-05-01T12:00:00"),
        ((np.int64(1), [np.int64(2), None]), [1, [2, None]]),
        ({3: {"a": np.int64(1)}}, {"3": {"a": 1}}),
        (SliceLayout.of_shape(1, 2, 1), {"epoch": [0], "timestep": [0, 1], "unit": [0]}),
        (Holder(np.arange(2)), {"value": [0, 1]}),
    ],
)
def test_every_field_is_plain(value, plain):
    result = Holder(value).to_dict()
    assert result == {"value": plain}
    assert json.loads(json.dumps(result)) == result


def test_a_row_for_every_cell_with_the_labels_of_its_place():
    """Also where all axes are equally long."""
    columns = long_columns({"epoch": np.array([5, 6]), "unit": np.array(["u", "v"])}, x=np.array([[1, 2], [3, 4]]))
    rows = list(zip(columns["epoch"].tolist(), columns["unit"].tolist(), columns["x"].tolist(), strict=True))
    assert rows == [(5, "u", 1), (5, "v", 2), (6, "u", 3), (6, "v", 4)]
