"""The page of the studies: its tables are those of the JSON files, and their numbers are right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.studies import keep, page


def test_the_page_has_the_numbers_of_the_files():
    assert page.main(["--check"]) == 0


def test_every_table_is_on_the_page():
    names = [match["name"] for match in page.PLACE.finditer(page.PAGE.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(page.TABLES)


def test_pictures_on_the_page_exist():
    names = [part.partition(")")[0] for part in page.PAGE.read_text(encoding="utf-8").split("](findings/")[1:]]
    assert names and all((keep.FOLDER / name).is_file() for name in names)


def curves(rise: np.ndarray) -> dict:
    """An entry whose curves all follow ``rise``, but for the entropies, which fall."""
    table = np.column_stack([rise, rise]).tolist()
    falling = {"values": np.column_stack([-rise, -rise]).tolist(), "mean": (-rise).tolist()}
    information = {"mean": table, "bound": table, "dsmi": table}
    return {
        **{name: falling for name in ("intra", "inter", "states")},
        "probe": {"score": table},
        "information": information,
        "timesteps": {"accuracy_change": (-np.array(table)).tolist()},
        "metrics": {"test_accuracy": rise.tolist()},
    }


def test_agreement_of_planted_curves():
    rise = np.linspace(0, 1, 9)
    entries = {"A-0": curves(rise), "A-1": curves(rise**2), "B-0": curves(-rise)}
    head, lines = page.agreement(entries)
    cells = {name: rest for name, *rest in lines}
    assert len(head) == 4 and cells["DSMI"][:2] == ["+1.00 (+1.00 to +1.00)", "-1.00 (-1.00 to -1.00)"]
    assert cells["DSMI"][2].startswith("+1.00") and cells["intra-step entropy of the picture"][2].startswith("-1.00")


def test_the_strongest_correlation_is_named_with_its_lag():
    result = {"lag": [-1, 0, 1], "spearman": [[0.1, -0.9, 0.3], [0.2, 0.1, None]]}
    result["spearman_q"] = [[0.5, 0.01, 0.3], [0.9, 0.8, None]]
    assert page._strongest(result) == ("-0.90", "0", "0.010", "1 of 2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.float64(1 / 3), 0.333), (float("nan"), None), (np.arange(2), [0, 1]), ({1: (True, "a")}, {"1": [True, "a"]})],
)
def test_rounding(value, expected):
    assert keep.rounded(value) == expected


def test_an_entry_keeps_its_other_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(keep, "FOLDER", tmp_path)
    keep.kept("study", "b-0", {"first": [1.0, 2.0]})
    keep.kept("study", "a-0", {"first": 1})
    keep.kept("study", "b-0", {"second": np.float64(2.5)})
    entries = json.loads((tmp_path / "study.json").read_text())
    assert list(entries) == ["a-0", "b-0"] and entries["b-0"]["first"] == [1.0, 2.0]
    assert entries["b-0"]["second"] == 2.5 and {"machine", "commit", "date", "threads"} <= set(
        entries["b-0"]["conditions"]
    )


def test_large_arrays_are_kept_by_name_only():
    large = [[0.5] * 51] * 8
    pruned = keep.pruned({"score": large, "low": large, "inner": {"p": large, "mean": large, "few": [1, 2]}, "n": 3})
    assert pruned == {"score": large, "inner": {"mean": large, "few": [1, 2]}, "n": 3}
