"""--follow-links of the commands goes to whatever looks at the file of a trace."""

import numpy as np
import pytest

from mmphate_gpu.cli import main


@pytest.mark.parametrize(("flag", "expected"), [([], False), (["--follow-links"], True)])
@pytest.mark.parametrize("command", [["plan", "t.zarr"], ["embed", "t.zarr", "--out", "out", "--no-plots"]])
def test_the_flag_reaches_every_reader(tmp_path, monkeypatch, command, flag, expected):
    monkeypatch.chdir(tmp_path)
    calls = []

    def heading(path, *, follow_links):
        calls.append(("heading", follow_links))

    def load_trace(path, *, follow_links):
        calls.append(("load_trace", follow_links))
        return np.random.default_rng(0).normal(size=(6, 5, 3, 4))

    monkeypatch.setattr("mmphate_gpu.trace.files.heading", heading)
    monkeypatch.setattr("mmphate_gpu.trace.load_trace", load_trace)
    assert main([*command, *flag, "--device", "cpu"]) == 0
    assert calls == [("heading", expected), ("load_trace", expected)]
