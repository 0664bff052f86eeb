"""Wrong usage and output folders that may not be replaced get one clear sentence, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp

PACKAGE = str(Path(mp.__file__).parent.parent)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["COMMAND", "--help"]),
        (["draw"], ["'draw'", "embed"]),
        (["embed"], ["TRACE, --out"]),
        (["embed", "trace.npy"], ["--out"]),
        (["embed", "trace.npy", "--out", "new", "--components", "3"], ["'--components'", "embed --help"]),
        (["embed", "trace.npy", "--out", "new", "--n-comp", "3"], ["'--n-comp'"]),
        (["embed", "trace.npy", "--out", "new", "--n-components", "2.5"], ["--n-components", "'2.5'", "whole number"]),
        (["embed", "trace.npy", "--out", "new", "--n-landmark", "all"], ["--n-landmark", "'all'", "or none"]),
        (["embed", "trace.npy", "--out", "new", "--t", "soon"], ["--t", "'soon'", "auto or eigenvalues"]),
        (["embed", "trace.npy", "--out", "new", "--gamma", "x"], ["--gamma", "'x'", "a number"]),
        (["embed", "trace.npy", "--out", "new", "--seed", "-1"], ["--seed=-1", "integer >= 0"]),
        (["embed", "trace.npy", "--out", "no/new"], ["--out no/new", "no does not exist"]),
        (["embed", "trace.npy", "--out", "."], ["--out .", "accepted: the path of a new folder"]),
        (["embed", "trace.npy", "--out", "a" * 300], ["--out aaa", "too long"]),
        (["embed", "trace.npy", "--out", "trace.npy"], ["--out trace.npy", "--force"]),
        (["embed", "trace.npy", "--out", "trace.npy", "--force"], ["--out trace.npy holds the input"]),
        (["plan"], ["TRACE", "--shape"]),
        (["plan", "trace.npy", "--shape", "3,4,5"], ["--shape", "not allowed with"]),
        (["plan", "--shape", "3,x"], ["--shape '3,x'", "127,128,30,6"]),
        (["plan", "--shape", "3,4"], ["2 sizes", "accepted"]),
        (["plan", "--shape", "1,1,4,4"], ["one slice"]),
        (["plan", "--shape", "3,4,5", "--storage", "x"], ["storage='x'"]),
        (["plan", "--shape", "3,4,5", "--device", "cuda:99"], ["device='cuda:99'"]),
        (["plan", "--shape", "3,4,5", "--n-landmark", "1"], ["n_landmark=1"]),
        (["plot", "no"], ["no is no folder", "accepted"]),
        (["demo", "--epochs", "0", "--out", "new"], ["epochs=0", ">= 1"]),
        (["demo", "--epochs", "x", "--out", "new"], ["--epochs", "'x'"]),
        (["demo", "--seed", "-3", "--out", "new"], ["--seed=-3"]),
        (["demo", "--device", "cuda:99", "--out", "new"], ["device='cuda:99'"]),
        (["demo", "--out", "trace.npy"], ["--out trace.npy exists"]),
        (["demo", "--out", "no/new"], ["no does not exist"]),
        (["config", "--verbose"], ["'--verbose'"]),
    ],
)
def test_usage(argv, words, rejects):
    rejects(*argv, words=words)


# ---------------------------------------------------------------- output folders


def test_an_output_folder_that_exists(here, rejects):
    np.save("bad.npy", np.zeros(3))
    (here / "old").mkdir()
    (here / "old" / "notes.txt").write_text("mine")
    # The folder is checked before the trace is read, which is bad here, too.
    rejects("embed", "bad.npy", "--out", "old", words=["--out old exists", "--force"])
    rejects("embed", "bad.npy", "--out", "old", "--force", words=["old holds notes.txt", "did not write"])
    rejects("demo", "--out", "old", words=["--out old exists", "--force"])
    rejects("demo", "--out", "old", "--force", words=["old holds notes.txt", "did not write"])


def test_force_never_deletes_what_is_not_ours(here, rejects):
    (here / "data").mkdir()
    np.savez(here / "data" / "trace.npz", data=np.load("trace.npy"))
    rejects("embed", "data/trace.npz", "--out", "data", "--force", words=["data holds the input data/trace.npz"])
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data has no report.json of mmphate-gpu"])
    (here / "data" / "report.json").write_text('{"program": "another"}')
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data has no report.json of mmphate-gpu"])
    (here / "data" / "report.json").write_text('{"program": "mmphate-gpu"}')
    (here / "data" / "panels.png").mkdir()
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data holds panels.png"])
    (here / "link").symlink_to(here / "data")
    rejects("embed", "trace.npy", "--out", "link", "--force", words=["link is no folder"])


# ---------------------------------------------------------------- a process


def test_the_command_itself(here):
    """The same through a process: exit code 2, one line on stderr, nothing on stdout."""
    command = [sys.executable, "-m", "mmphate_gpu", "embed", "trace.npy", "--out", "new", "--storage", "dense"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    line = "mmphate-gpu: error: storage='dense' is unknown; accepted: 'auto', 'sparse', 'tiles', 'lazy'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert [path.name for path in here.iterdir()] == ["trace.npy"]
