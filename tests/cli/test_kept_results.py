"""A finished run is kept, even if its pictures cannot be drawn or its text cannot be printed."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main, pictures, result_folder
from mmphate_gpu.cli.analyses import ANALYSES
from mmphate_gpu.runtime.streams import LenientStream, encodable, lenient
from mmphate_gpu.stages import progress_bar

RESULTS = {"embedding.npz", "report.json"}
PICTURES = {"panels.png", "entropy.png"}
linux = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


def embed(*argv, out="out"):
    return main(["embed", "trace.npy", "--out", out, "--device", "cpu", *argv])


def strict(text):
    """``text`` read as strict JSON, which has no NaN and only text that UTF-8 can encode."""

    def refuse(constant):
        raise ValueError(constant)

    report = json.loads(text.decode("utf-8"), parse_constant=refuse)
    json.dumps(report, ensure_ascii=False).encode("utf-8")
    return report


# ---------------------------------------------------------------- pictures


@pytest.fixture
def quick_pictures(monkeypatch):
    """Replace each plot by a function that only writes a file."""

    def draw(embedding, path):
        path.write_bytes(b"picture")

    for name in ("panels", "entropy"):
        monkeypatch.setattr(f"mmphate_gpu.plots.{name}", draw)


@pytest.fixture
def undrawable(quick_pictures, monkeypatch):
    """Make the second picture raise an error."""

    def set_error(error):
        def stop(*args, **kwargs):
            raise error

        monkeypatch.setattr("mmphate_gpu.plots.entropy", stop)

    return set_error


def test_ctrl_c_in_a_picture_leaves_the_results(here, undrawable, capsys):
    undrawable(KeyboardInterrupt())
    assert embed() == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("interrupted; out holds the results, without pictures")
    assert names("out") == RESULTS


def test_plot_says_why_in_one_sentence_and_leaves_the_old_pictures(here, undrawable, capsys):
    assert embed() == 0
    before = {name: (here / "out" / name).read_bytes() for name in PICTURES}
    capsys.readouterr()
    undrawable(RuntimeError("latex was not found"))
    assert main(["plot", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "mmphate-gpu: error: out: no picture could be drawn (RuntimeError: latex was not found)"
    assert {name: (here / "out" / name).read_bytes() for name in PICTURES} == before
    assert names("out") == RESULTS | PICTURES


def test_the_demo_keeps_its_results_too(here, undrawable, monkeypatch):
    from mmphate_gpu.cli import demo

    states = np.load("trace.npy")
    metrics = {"train_accuracy": np.full(len(states), 0.1), "test_accuracy": np.full(len(states), 0.5)}
    trained = demo.Training(mp.as_trace(states, metrics=metrics), demo.DigitReader(), {})
    monkeypatch.setattr(demo, "_trained", lambda *args: trained)
    monkeypatch.setattr(demo, "chosen", lambda *args: dict.fromkeys(ANALYSES, "this test needs none"))
    undrawable(ValueError("no font"))
    with pytest.warns(pictures.NoPicture, match="no font"):
        summary = demo.demo(Path("demo"), epochs=3, seed=np.int64(3), verbose=False)
    assert names("demo") == {"trace.npz", "embedding.npz", "embedding3d.npz", "analysis.json", "report.json"}
    report = strict(Path("demo/report.json").read_bytes())
    assert report["seed"] == summary["seed"] == 3 and report["test_accuracy"] == [0.5] * len(states)


# ---------------------------------------------------------------- streams and paths


@pytest.mark.parametrize(
    "encoding, out", [("ascii", "µ-Läufe"), ("cp1252", "прогон"), ("shift_jis", "ñandú"), ("utf-16", "é")]
)
def test_a_character_that_stdout_lacks_is_escaped(here, monkeypatch, encoding, out):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert embed("--no-plots", out=out) == 0
    line = stream.buffer.getvalue().decode(encoding)
    assert line.startswith(encodable(out, encoding) + ": 90 nodes embedded") and names(out) == RESULTS
    assert sys.stdout is stream


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems whose names are Unicode")
def test_a_path_that_is_not_utf_8(here, capsys):
    trace, out = os.fsdecode(b"tr\xffce.npy"), os.fsdecode(b"o\xfft")
    os.rename("trace.npy", trace)
    assert main(["embed", trace, "--out", out, "--no-plots"]) == 0
    assert capsys.readouterr().out.startswith("o\\udcfft: 90 nodes")
    assert strict((Path(out) / "report.json").read_bytes())["input"] == "tr\\udcffce.npy"
    assert main(["plot", out]) == 0 and names(out) == RESULTS | PICTURES


posix = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows refuses")


@pytest.mark.parametrize(
    "out",
    [
        "with space",
        "-dash",
        "$HOME",
        "{0}%s",
        "a'b",
        pytest.param("line\nbreak", marks=posix),
        pytest.param('a"b', marks=posix),
    ],
)
def test_names_of_folders(here, out):
    assert main(["embed", "trace.npy", f"--out={out}", "--no-plots"]) == 0
    assert names(out) == RESULTS


def test_a_home_folder_and_a_leading_dash(here, quick_pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    assert main(["embed", "~/trace.npy", "--out", "~/new", "--no-plots"]) == 0
    assert names(here) == {"trace.npy", "new"}
    assert main(["plot", "~/new"]) == 0
    os.rename("trace.npy", "-trace.npy")
    assert main(["embed", "--no-plots", "--out=b", "--", "-trace.npy"]) == 0


def test_no_streams_at_all(here, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert embed("--no-plots") == 0
    assert main(["embed"]) == 2 and main(["--help"]) == 0
    assert names("out") == RESULTS


@linux
def test_a_full_disk_behind_stdout_is_reported_and_the_result_kept(here, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert embed("--no-plots") == 1
    captured = capsys.readouterr().err.splitlines()[-1]
    assert "stdout could not be written" in captured and "No space left" in captured and names("out") == RESULTS


@linux
def test_stderr_that_cannot_be_written_changes_nothing(here, monkeypatch, capsys):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert embed("--no-plots") == 0  # the bar is drawn on stderr
        op = mp.MMPHATE(verbose=1, device="cpu").fit(np.load("trace.npy"))
    assert names("out") == RESULTS and op.embedding_.shape == (90, 2)
    assert "90 nodes" in capsys.readouterr().out


FULL_STDERR = """
import os, sys
import numpy as np
import mmphate_gpu as mp

def fit(descriptor, target):
    user = os.dup(2)
    os.dup2(descriptor, 2)
    mp.MMPHATE(verbose=1, device="cpu").fit(np.load("trace.npy"))
    assert os.readlink("/proc/self/fd/2").startswith(target)
    os.dup2(user, 2)

fit(os.open("/dev/full", os.O_WRONLY), "/dev/full")
reading, writing = os.pipe()
os.set_blocking(writing, False)
try:
    while True:
        os.write(writing, b"x" * 4096)
except BlockingIOError:
    pass
fit(writing, "pipe:")
sys.stderr.write("the user's line\\n")
"""


@linux
def test_a_bar_that_cannot_be_drawn_leaves_stderr_to_the_user(here):
    """The descriptor 2 belongs to the user: a full disk, or a pipe that is full for a moment, may be writable later."""
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", FULL_STDERR], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr == "the user's line\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_closed_and_broken_streams_of_a_process(here):
    python = f"'{sys.executable}' -m mmphate_gpu embed trace.npy --no-plots"
    # The bar goes into a pipe whose reader has left; stdout is closed.
    script = f"{python} --out out 2>&1 >&- | true; echo ${{PIPESTATUS[0]}}"
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env)
    assert done.stdout == "0\n" and done.stderr == "" and names("out") == RESULTS


def test_a_bar_draws_on_any_stream(monkeypatch):
    closed, lenient_stream = io.StringIO(), LenientStream(io.StringIO())
    closed.close()
    for stream in (None, closed, lenient_stream):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(3, desc="steps") as bar:
            bar.update(3)
    # tqdm clears a bar before a warning on the same stream, so a stream that is lenient already is taken as it is.
    assert lenient(lenient_stream) is lenient_stream and "3/3" in lenient_stream.getvalue()


def test_report_is_strict_json(tmp_path):
    values = {
        "nan": float("nan"), "inf": np.float32(np.inf), "small": np.float32(0.5), "whole": np.int64(7), "yes": True,
        "none": None, "list": (1, np.float64(np.nan)), "path": Path(os.fsdecode(b"\xff")), "text": "\ud800é",
    }  # fmt: skip
    result_folder.write_report(tmp_path, values)
    assert strict((tmp_path / "report.json").read_bytes()) == {
        "nan": None, "inf": None, "small": 0.5, "whole": 7, "yes": True,
        "none": None, "list": [1, None], "path": "\\udcff", "text": "\\ud800é", "files": ["report.json"],
    }  # fmt: skip


# ---------------------------------------------------------------- the user's own callback


def test_what_was_computed_before_a_callback_raised_serves_the_next_fit():
    def stop(stage, done, total):
        if stage == "landmarks":
            raise LookupError("mine")

    trace = np.random.default_rng(1).normal(size=(30, 4, 6)).cumsum(0)
    op = mp.MMPHATE(n_landmark=40, random_state=0, device="cpu", callback=stop)
    with pytest.raises(LookupError, match="mine"):
        op.fit(trace)
    assert not hasattr(op, "embedding_")
    op.set_params(callback=None).fit(trace)
    reused = [report["stage"] for report in op.report_ if report["reused"]]
    assert reused == ["normalize", "reduce", "affinity", "landmarks"]
    fresh = mp.MMPHATE(n_landmark=40, random_state=0, device="cpu").fit_transform(trace)
    np.testing.assert_array_equal(op.embedding_, fresh)
