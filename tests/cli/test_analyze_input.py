"""`analyze`: wrong input and usage are refused in one sentence, and nothing is left of a process that is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main

ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and pipes")


@pytest.fixture
def embedded(here):
    """The folder "in", which embed wrote of the trace of 6 x 5 x 3 nodes and 4 samples."""
    assert main(["embed", "trace.npy", "--out", "in", "--no-plots", "--device", "cpu"]) == 0
    return here


@pytest.fixture
def refuses(embedded, rejects, capsys):
    """`rejects` for analyze with a new folder."""
    capsys.readouterr()
    return lambda *argv, words: rejects("analyze", *argv, "--out", "new", words=words)


def test_a_wrong_input(refuses, capsys):
    refuses("missing.npy", words=["missing.npy does not exist"])
    Path("empty").mkdir()
    refuses("empty", words=["empty has an unknown ending", "a recorder's folder"])
    assert main(["analyze", "in", "--out", "analyzed", "--only", "spread", "--no-plots"]) == 0
    capsys.readouterr()
    refuses("analyzed", words=["analyzed has no embedding.npz; accepted: a folder of embed or demo"])
    Path("half").mkdir()
    Path("half", "embedding.npz").write_bytes(Path("in", "embedding.npz").read_bytes()[:200])
    refuses("half", words=["half/embedding.npz"])
    Path("in", "report.json").write_text('{"program": "mmphate-gpu", "parameters": {"gamma": "soft", "other": 1}}')
    refuses("in", words=["in/report.json: gamma='soft' must be a number"])


def test_a_wrong_trace(refuses):
    refuses("trace.npy", "--trace", "trace.npy", words=["--trace trace.npy is for a folder with embedding.npz"])
    refuses("in", "--trace", "other.npy", words=["other.npy does not exist"])
    np.save("other.npy", np.zeros((6, 5, 4, 4)))
    refuses("in", "--trace", "other.npy", words=["other.npy has other units than in", "the trace of this embedding"])
    mp.save_trace("late.npz", mp.as_trace(np.load("trace.npy"), epoch=np.arange(1, 7)))
    refuses("in", "--trace", "late.npz", words=["late.npz has other epochs than in"])


def test_wrong_labels(refuses):
    def labels(name, *words, source=("trace.npy",)):
        refuses(*source, "--labels", name, words=[f"--labels {name}", *words])

    labels("missing.npy", "is no file; accepted: a .npy, a .npz with the entry label or labels, or a .csv or .txt")
    labels("in", "is no file")
    np.save("short.npy", np.arange(3))
    labels("short.npy", "has shape (3,); accepted: (4,), a label for each sample")
    np.save("flat.npy", np.zeros((4, 1)))
    labels("flat.npy", "has shape (4, 1)")
    Path("short.csv").write_text("1\n2\n3\n\n")
    labels("short.csv", "has shape (3,)")
    Path("headed.csv").write_text("label\n1\n2\n1\n2\n")
    labels("headed.csv", "has shape (5,); accepted: (4,), a label for each sample, without a header")
    Path("binary.csv").write_bytes(b"\xff\xfe\x00")
    refuses("trace.npy", "--labels", "binary.csv", words=["binary.csv cannot be read: UnicodeDecodeError"])
    Path("labels.pkl").write_bytes(b"")
    labels("labels.pkl", "has an unknown ending")
    np.savez("classes.npz", classes=np.arange(4))
    labels("classes.npz", "has no entry label or labels")
    np.save("right.npy", np.arange(4))
    labels("right.npy", "needs the trace of in; accepted: --trace TRACE", source=("in",))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 0, np.nan], "labels has NaN or infinity"),
        ([0, 1, 0, 1j], "labels has dtype complex128"),
        ([b"a", b"b", b"a", b"b"], "labels has dtype |S1"),
        ([3, 3, 3, 3], "labels has the one class 3; accepted: at least two classes"),
        ([3, 3, 3, 4], "labels has one sample of class 4"),
    ],
)
def test_labels_that_no_analysis_can_use_are_refused_before_the_embedding(refuses, values, words):
    np.save("labels.npy", np.array(values))
    refuses("trace.npy", "--labels", "labels.npy", "--only", "spread", words=[f"labels.npy: {words}"])


def test_damaged_and_hostile_labels(refuses):
    np.save("objects.npy", np.array([{}, 1, 2, 3], dtype=object), allow_pickle=True)
    refuses("trace.npy", "--labels", "objects.npy", words=["objects.npy", "never loaded"])
    np.save("right.npy", np.arange(4))
    Path("cut.npy").write_bytes(Path("right.npy").read_bytes()[:-8])
    refuses("trace.npy", "--labels", "cut.npy", words=["cut.npy"])
    Path("broken.npz").write_bytes(b"PK")
    refuses("trace.npy", "--labels", "broken.npz", words=["broken.npz is truncated or not a .npz file"])


@posix
def test_labels_in_a_pipe_are_not_waited_for(embedded, capsys):
    os.mkfifo("pipe.csv")
    assert main(["analyze", "trace.npy", "--labels", "pipe.csv", "--out", "new"]) == 2
    assert "pipe.csv is no file" in capsys.readouterr().err and not Path("new").exists()


def test_wrong_options(refuses, rejects):
    refuses("trace.npy", "--only", "entropie", words=["--only 'entropie' is no analysis", "'entropy'"])
    refuses("trace.npy", "--skip", "", words=["--skip '' is no analysis"])
    refuses("trace.npy", "--seed", "-1", words=["--seed=-1"])
    refuses("trace.npy", "--n-landmark", "1", words=["n_landmark=1"])
    refuses("in", "--device", "cuda:99", words=["device='cuda:99'"])
    refuses("in", "--n-landmark", "50", words=["--n-landmark 50 is for a trace, and in holds an embedding"])
    rejects("analyze", "trace.npy", words=["--out"])
    rejects("analyze", "--out", "new", words=["DIR|TRACE"])


def test_a_folder_that_exists(embedded, rejects, capsys):
    capsys.readouterr()
    rejects("analyze", "in", "--out", "in", words=["--out in exists", "--force"])
    rejects("analyze", "in", "--out", "in", "--force", words=["--out in holds", "another folder"])
    Path("in", "right.npy").write_bytes(b"")
    rejects("analyze", "trace.npy", "--labels", "in/right.npy", "--out", "in", "--force", words=["--out in holds"])
    rejects("analyze", "in", "--out", "no/new", words=["no does not exist"])


def test_a_folder_without_a_report_has_the_default_settings(embedded):
    Path("in", "report.json").unlink()
    assert main(["analyze", "in", "--out", "new", "--only", "spread", "--no-plots", "--seed", "4"]) == 0
    parameters = json.loads(Path("new/analysis.json").read_text())["settings"]["parameters"]
    assert parameters["n_landmark"] == 4000 and parameters["random_state"] == 4


def test_a_missing_package_leaves_an_analysis_out_and_does_not_end_the_others(embedded, monkeypatch):
    from mmphate_gpu import analysis

    def lacking(*args, **options):
        raise mp.InputError("spread needs a package; run: pip install package")

    monkeypatch.setattr(analysis, "spread", lacking)
    assert main(["analyze", "in", "--out", "new", "--only", "spread,displacement", "--no-plots"]) == 0
    content = json.loads(Path("new/analysis.json").read_text())
    assert set(content["analyses"]) == {"displacement"}
    assert content["left_out"]["spread"] == "spread needs a package; run: pip install package"


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_nothing(embedded, number):
    script = """
import sys, time
from mmphate_gpu import analysis
analysis.displacement = lambda *args: (print("analyzing", flush=True), time.sleep(60))
from mmphate_gpu.cli import main
sys.exit(main(["analyze", "in", "--out", "new", "--only", "spread,displacement"]))
"""
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV, preexec_fn=heard
    )
    assert process.stdout.readline() == b"analyzing\n"
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], text
    assert not Path("new").exists() and b"Traceback" not in text
    assert main(["analyze", "in", "--out", "new", "--only", "spread", "--no-plots"]) == 0  # and sweeps what was killed
    deadline = time.monotonic() + 10
    while {item.name for item in embedded.iterdir()} != {"trace.npy", "in", "new"} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {item.name for item in embedded.iterdir()} == {"trace.npy", "in", "new"}
