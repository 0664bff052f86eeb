"""If a picture cannot be drawn, the results stay, one sentence says why, and no partial file appears."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.plots import entropy, panels
from mmphate_gpu.slices import SliceLayout

ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
RESULTS = {"embedding.npz", "report.json"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")


def sample(unit=("a", "b"), **options):
    layout = SliceLayout(np.arange(2), np.arange(3), np.asarray(unit))
    return Embedding(np.random.default_rng(0).normal(size=(layout.n_nodes, 2)), layout, **options)


def contents(folder):
    return {item.name: item.read_bytes() for item in Path(folder).iterdir()}


class MathTextError(Exception):
    """Like pyparsing's exception for mathematics that it cannot parse, whose base class no other library has."""


# ---------------------------------------------------------------- errors of a library


@pytest.mark.parametrize(
    "error",
    [
        MathTextError("Expected end of text, found '$x_{'\n$x_{\n^"),
        ZeroDivisionError(),
        OSError(28, "No space left"),
        ImportError("no backend"),
        MemoryError(),
    ],
)
def test_every_error_of_a_picture_is_a_warning_of_one_line(here, monkeypatch, capsys, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("mmphate_gpu.plots.panels", fail)
    assert main(["embed", "trace.npy", "--out", "out", "--device", "cpu"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "warning" in line]
    assert f"({type(error).__name__}" in line and "'mmphate-gpu plot out' draws them" in line and ": )" not in line
    assert not any("Traceback" in line or "a fault of" in line for line in lines)
    assert set(contents("out")) == RESULTS and Embedding.load("out/embedding.npz").n_nodes == 90
    assert main(["plot", "out"]) == 2
    assert capsys.readouterr().err.startswith("mmphate-gpu: error: out: no picture could be drawn (")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("suffix", ["png", "pdf"])  # test_plot_texts has .svg
def test_any_name_is_drawn_as_text(tmp_path, suffix):
    names = ["\ufeff", "a\ufeffb", "${x}_{", "\\sqrt[", "\u202edlrow", "\u200d", "{" * 10_000, "\\" * 9_999]
    embedding = sample(unit=names, most_active=np.resize(np.array(names), 48))
    panels(embedding, path=tmp_path / f"p.{suffix}")
    assert set(contents(tmp_path)) == {f"p.{suffix}"}


def test_an_entropy_without_values_is_refused(tmp_path):
    with pytest.raises(mp.InputError, match=r"entropy has shape \(0,\)"):
        entropy(sample(entropy=np.zeros(0)), path=tmp_path / "e.png")
    assert not contents(tmp_path)


# ---------------------------------------------------------------- files


@posix
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture_file_is_whole_or_as_it_was(tmp_path, suffix):
    """A limit of 4096 bytes a file stands for a disk that becomes full while a picture is written."""
    resource = pytest.importorskip("resource")
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(b"the old picture")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(mp.InputError, match=r"p\.\w+ cannot be written \(File too large\)"):
            panels(sample(), path=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == {path.name: b"the old picture"}


def test_an_error_while_drawing_leaves_the_old_file(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half(self, target, **options):
        target.write(b"half a picture")
        raise KeyError("glyph")

    monkeypatch.setattr(Figure, "savefig", half)
    path = tmp_path / "p.png"
    path.write_bytes(b"the old picture")
    with pytest.raises(KeyError):
        panels(sample(), path=path)
    assert contents(tmp_path) == {"p.png": b"the old picture"}


# ---------------------------------------------------------------- settings of matplotlib, in processes of their own


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "out"
    trace = folder.parent / "trace.npy"
    np.save(trace, np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    assert main(["embed", str(trace), "--out", str(folder), "--device", "cpu"]) == 0
    return folder


def plot(folder, **environment):
    command = [sys.executable, "-m", "mmphate_gpu", "plot", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=ENV | environment)


@pytest.mark.slow
@posix
@pytest.mark.parametrize("variable", ["MPLCONFIGDIR", "HOME", "XDG_CACHE_HOME", "TMPDIR"])
def test_a_cache_that_cannot_be_written_costs_no_picture(drawn, variable):
    before = contents(drawn)
    done = plot(drawn, **{variable: "/dev/null/no-folder"})
    assert done.returncode == 0 and "panels.png, entropy.png drawn" in done.stdout, done.stderr
    assert contents(drawn) == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["backend", "settings", "import"])
def test_a_matplotlib_that_does_not_load_is_one_sentence(drawn, tmp_path, how):
    before = contents(drawn)
    (tmp_path / "rc").write_bytes(b"text.usetex: maybe\naxes.grid\n\xff\xfe\n")
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise SystemError('built for another Python')\n")
    path = os.pathsep.join([str(tmp_path), ENV["PYTHONPATH"]])
    environments = {
        "backend": {"MPLBACKEND": "nonsense"},
        "settings": {"MATPLOTLIBRC": str(tmp_path / "rc")},
        "import": {"PYTHONPATH": path},
    }
    done = plot(drawn, **environments[how])
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"mmphate-gpu: error: {drawn}: no picture could be drawn (")
    assert contents(drawn) == before


@pytest.mark.slow
@posix
def test_a_process_that_is_stopped_while_it_draws_keeps_the_results(here):
    script = f"""
import os, signal, sys
import mmphate_gpu.plots as plots
def wait(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
plots.entropy = wait
from mmphate_gpu.cli import main
sys.exit(main(["embed", {str(here / "trace.npy")!r}, "--out", "out", "--device", "cpu"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENV, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr
    assert set(contents("out")) == RESULTS
