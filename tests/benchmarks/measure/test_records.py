"""Files of rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from benchmarks.measure import records, tasks

from ..made import row


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "pipeline-box.jsonl"
    written = [
        row(),
        row(stage="mds", form="MDSResult"),
        row(t=0, preservation={"10": 0.2}, settings={"axis": "units"}),
    ]
    records.replace(path, written)
    assert records.read(path) == written
    assert path.read_text().count("\n") == 3
    assert json.loads(path.read_text().splitlines()[0])["versions"] == {"torch": "2"}  # a line says everything itself
    assert "stress" not in path.read_text()  # and nothing that it does not know
    records.replace(path, written[:1])
    assert records.read(path) == written[:1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_torn_line_is_no_row(tmp_path):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row(), row(case="other")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(records.BadRows, match="line 2, holds no benchmark rows"):
        records.read(path)
    assert records.read(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("line", ["[1]", "{", '{"unknown": 1}', '{"suite": "x"}'])
def test_lines_that_are_no_rows_are_refused(tmp_path, line):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row()])
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match="line 2, holds no benchmark rows"):
        records.read(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row()])
    with pytest.raises(ValueError, match="JSON"):
        records.replace(path, [row(seconds=float("nan"))])

    def ended(*arguments):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(records.os, name, ended)
            records.replace(path, [row(), row(case="other")])
    assert records.read(path) == [row()]
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from benchmarks.measure import records
path, name = Path(sys.argv[1]), sys.argv[2]
setattr(records.os, name, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
records.replace(path, records.read(path) * 2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_killed_while_it_writes_leaves_the_file_whole(tmp_path):
    path = records.result_path(tmp_path, "pipeline", "box")
    records.replace(path, [row(stage="mds"), row()])
    command = [sys.executable, "-c", WRITES_AND_DIES, str(path), "replace"]
    assert subprocess.run(command, env=tasks.environment()).returncode == -signal.SIGKILL
    assert records.read(path) == [row(stage="mds"), row()]
    assert list(tmp_path.glob("pipeline-*.jsonl")) == [path]  # what it had begun is taken for no result


@pytest.mark.skipif(records.fcntl is None, reason="the system has no locks")
def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    folder = tmp_path / "new"
    with records.locked(folder):
        with pytest.raises(records.Busy, match="--out"), records.locked(folder):
            pass
        with records.locked(tmp_path / "other"):
            pass
    with records.locked(folder):
        assert (folder / records.LOCK).exists()
    assert list(folder.iterdir()) == []
    (folder / records.LOCK).touch()  # of a run that was killed
    with records.locked(folder):
        pass
