"""The commands: what they write, print and return; what fails leaves nothing. Bad input is in test_bad_input."""

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
from mmphate_gpu.cli import main, result_folder
from mmphate_gpu.runtime.atomic import rename, whole
from mmphate_gpu.slices import SliceLayout

ROOT = Path(__file__).resolve().parents[2]
ENV = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(mp.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
}
WRITTEN = {"embedding.npz", "report.json", "panels.png", "entropy.png"}
PNG = b"\x89PNG"


def walk(*shape):
    return np.random.default_rng(0).normal(size=shape).cumsum(axis=0)


def run(*argv, **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "mmphate_gpu", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENV, **options)


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


def embed(*argv):
    return main(["embed", "trace.npy", "--out", "out", "--device", "cpu", *argv])


# ---------------------------------------------------------------- embed


def test_embed(here, capsys):
    assert embed() == 0
    captured = capsys.readouterr()
    assert names(here) == {"trace.npy", "out"} and names("out") == WRITTEN
    assert captured.out.startswith("out: 90 nodes embedded in ") and captured.out.count("\n") == 1
    assert "100%" in captured.err and "interpolate" in captured.err
    assert "<" in captured.err  # the bar shows the time left
    for picture in ("panels.png", "entropy.png"):
        assert (here / "out" / picture).read_bytes()[:4] == PNG


def test_embedding_is_that_of_python(here):
    options = ("--n-components=3", "--n-landmark=40", "--n-svd=20", "--t=5", "--gamma=1", "--seed=7", "--storage=lazy")
    assert embed(*options) == 0
    embedding = mp.Embedding.load("out/embedding.npz")
    same = {"n_landmark": 40, "n_svd": 20, "t": 5, "gamma": 1, "random_state": 7, "storage": "lazy"}
    op = mp.MMPHATE(3, **same, device="cpu").fit(np.load("trace.npy"))
    np.testing.assert_array_equal(embedding.coordinates, op.embedding_)
    assert embedding.t == 5 and embedding.stress == op.stress_
    with np.load("out/embedding.npz") as stored:
        np.testing.assert_array_equal(stored["epoch"], np.repeat(np.arange(6), 15))
        np.testing.assert_array_equal(stored["timestep"], np.tile(np.repeat(np.arange(5), 3), 6))
        np.testing.assert_array_equal(stored["unit"], np.tile(np.arange(3), 30))


def test_report(here):
    options = ("--n-landmark=40", "--landmarks=stratified", "--mds-solver=classic", "--knn-backend=torch")
    assert embed(*options, "--no-plots") == 0
    assert names("out") == {"embedding.npz", "report.json"}
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["program"] == "mmphate-gpu" and report["input"] == "trace.npy"
    sizes = {"epoch": 6, "timestep": 5, "unit": 3, "sample": 4}
    assert report["trace"] == sizes | {"dtype": "float64", "masked": False}
    assert report["seed"] == 0 and report["device"] == "cpu" and report["n_landmark"] <= 40
    parameters = {"n_landmark": 40, "landmarks": "stratified", "mds_solver": "classic", "knn_backend": "torch"}
    parameters |= {"interslice_knn": 25, "t": "auto"}
    assert parameters.items() <= report["parameters"].items() and "verbose" not in report["parameters"]
    assert report["t"] >= 1 and report["stress"] > 0 and report["bandwidth"] > 0
    assert [stage["stage"] for stage in report["stages"]][:3] == ["normalize", "reduce", "affinity"]
    assert all({"seconds", "bytes", "peak_bytes", "form"} <= stage.keys() for stage in report["stages"])
    assert report["seconds"] >= sum(stage["seconds"] for stage in report["stages"])
    assert report["peak_bytes"] == max(stage["peak_bytes"] for stage in report["stages"])
    assert {"python", "torch", "numpy", "mmphate-gpu"} <= report["versions"].keys()


@pytest.mark.parametrize("t", ["auto", "eigenvalues", "7"])
def test_the_time_has_its_range(here, capsys, t):
    assert embed("--n-landmark=40", f"--t={t}", "--no-plots") == 0
    report, embedding = json.loads((here / "out" / "report.json").read_text()), mp.Embedding.load("out/embedding.npz")
    if t == "7":
        assert report["t_range"] is None is embedding.t_range
        assert "t = 7, stress" in capsys.readouterr().out
    else:
        low, high = report["t_range"]
        assert low <= report["t"] <= high and embedding.t_range == (low, high)
        assert f"t = {report['t']} ({low} to {high}), stress" in capsys.readouterr().out


def test_one_seed_one_embedding(here):
    np.save("trace.npy", walk(40, 5, 4))
    for out in ("first", "second"):
        assert main(["embed", "trace.npy", "--out", out, "--n-landmark=50", "--seed=3", "--no-plots"]) == 0
    first, second = (mp.Embedding.load(f"{out}/embedding.npz").coordinates for out in ("first", "second"))
    np.testing.assert_array_equal(first, second)


def test_npz_with_labels_and_mask(here):
    mask = np.arange(5)[:, None] < np.array([5, 5, 4, 3])
    trace = mp.as_trace(walk(6, 5, 3, 4), mask=mask, label=[0, 0, 1, 1], epoch=np.arange(6) * 10)
    mp.save_trace("trace.npz", trace)
    assert main(["embed", "trace.npz", "--out", "out"]) == 0
    embedding = mp.Embedding.load("out/embedding.npz")
    assert set(embedding.most_active) <= {0, 1} and embedding.by("epoch").max() == 50
    assert json.loads(Path("out/report.json").read_text())["trace"]["masked"]


def test_a_recording(here):
    from torch import nn, rand

    with mp.Recorder(nn.GRU(2, 3), "", probe=rand(5, 4, 2), path=here / "recording") as recorder:
        for epoch in range(6):
            recorder.snapshot(epoch)
    assert main(["embed", "recording", "--out", "out", "--no-plots"]) == 0
    assert mp.Embedding.load("out/embedding.npz").n_nodes == 6 * 5 * 3


def test_force_replaces_what_embed_wrote(here):
    assert embed("--no-plots") == 0
    assert embed("--no-plots") == 2
    before = (here / "out" / "embedding.npz").read_bytes()
    assert embed("--n-components=3", "--force") == 0
    assert names(here) == {"trace.npy", "out"} and names("out") == WRITTEN
    assert (here / "out" / "embedding.npz").read_bytes() != before
    Path("empty").mkdir()
    assert main(["embed", "trace.npy", "--out", "empty", "--force", "--no-plots"]) == 0


# ---------------------------------------------------------------- what goes wrong on the way


@pytest.fixture
def fails(monkeypatch):
    """Make the run raise an error late, when most of the folder is written or most of the pictures are drawn."""

    def late(error, where="cli.result_folder.write_report"):
        def stop(*args, **kwargs):
            raise error

        monkeypatch.setattr(f"mmphate_gpu.{where}", stop)

    return late


def test_a_fault_of_ours(here, fails, capsys):
    fails(ZeroDivisionError("what nobody foresaw"))
    assert embed() == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("Traceback") for line in lines) and "ZeroDivisionError: what nobody foresaw" in lines
    assert lines[-1].startswith("mmphate-gpu: error: ") and "mmphate-gpu config" in lines[-1]
    assert names(here) == {"trace.npy"}


def test_ctrl_c(here, fails, capsys):
    fails(KeyboardInterrupt())
    assert embed() == 130
    text = capsys.readouterr().err
    assert "Traceback" not in text and text.splitlines()[-1] == "mmphate-gpu: interrupted; nothing was written"
    assert names(here) == {"trace.npy"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), SystemExit(143)])
def test_the_old_folder_outlives_a_failed_replacement(here, fails, error):
    assert embed() == 0
    before = {item.name: item.read_bytes() for item in Path("out").iterdir()}
    fails(error)
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            embed("--force")
    else:
        assert embed("--force") in (1, 130)
    assert {item.name: item.read_bytes() for item in Path("out").iterdir()} == before
    assert names(here) == {"trace.npy", "out"}


def test_the_old_folder_comes_back_if_the_new_one_cannot_move_in(here, monkeypatch):
    assert embed("--no-plots") == 0
    before = (here / "out" / "embedding.npz").read_bytes()
    move, calls = whole.move, []

    def second_fails(source, target):  # the first finds "out", the second is between the two renames
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(rename, "_system_call", lambda how: None)
    with pytest.raises(KeyboardInterrupt), result_folder.result_folder(Path("out"), force=True) as folder:
        result_folder.write_report(folder, {"program": "mmphate-gpu"})
        monkeypatch.setattr(whole, "move", second_fails)
    assert len(calls) == 3
    assert (here / "out" / "embedding.npz").read_bytes() == before and names(here) == {"trace.npy", "out"}


def test_a_folder_that_appears_meanwhile_is_not_overwritten(here):
    with pytest.raises(mp.InputError, match="--out out exists"), result_folder.result_folder(Path("out")) as folder:
        (folder / "report.json").write_text("{}")
        Path("out").mkdir()
    assert names(here) == {"trace.npy", "out"} and names("out") == set()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_process_that_is_stopped(here, number, code):
    np.save("trace.npy", walk(60, 20, 20, 4))
    command = [sys.executable, "-m", "mmphate_gpu", "embed", "trace.npy", "--out", "out"]
    # In the background of a shell the tests, and so all their children, ignore SIGINT.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, env=ENV, cwd=here, preexec_fn=heard)
    deadline = time.monotonic() + 60
    while not list(here.glob(".*/out")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(here.glob(".*/out")) and process.poll() is None
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert names(here) == {"trace.npy"} and b"Traceback" not in text


# ---------------------------------------------------------------- the other commands


@pytest.fixture
def steady(monkeypatch):
    """What is free changes from call to call; the limit does not."""
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1e6")


def test_plan_of_a_shape_and_of_a_trace(here, capsys, steady):
    assert (
        main(["plan", "--shape", "127,128,30,6", "--device=cpu", "--storage=sparse", "--n-landmark=500", "--n-svd=50"])
        == 0
    )
    same = mp.plan((127, 128, 30, 6), device="cpu", storage="sparse", n_landmark=500, n_svd=50)
    text = capsys.readouterr().out
    assert text == f"{same}\n" and "does NOT fit" in text and "CSR" in text
    assert main(["plan", "trace.npy"]) == 0
    text = capsys.readouterr().out
    assert "6 epochs x 5 timesteps x 3 units x 4 samples = 90 nodes" in text and text.endswith(": fits\n")
    assert names(here) == {"trace.npy"}


def test_plan_for_a_card_that_is_not_there(here, capsys):
    assert main(["plan", "--shape", "127,128,30,6", "--device", "12 GB card"]) == 0
    text = capsys.readouterr().out
    assert text == f"{mp.plan((127, 128, 30, 6), device='12 GB card')}\n" and text.endswith(": fits\n")
    assert main(["plan", "trace.npy", "--device", "8 GB card"]) == 0
    assert "90 nodes on 8 GB card" in capsys.readouterr().out
    assert main(["embed", "trace.npy", "--out", "out", "--device", "24 GB card"]) == 2
    assert "device='24 GB card' is unknown" in capsys.readouterr().err and names(here) == {"trace.npy"}


def test_plot_redraws(here, capsys):
    assert embed() == 0
    before = {name: (here / "out" / name).read_bytes() for name in WRITTEN}
    for name in ("panels.png", "entropy.png"):
        (here / "out" / name).unlink()
    capsys.readouterr()
    assert main(["plot", "out"]) == 0
    assert capsys.readouterr().out == "out: panels.png, entropy.png drawn\n"
    assert {name: (here / "out" / name).read_bytes() for name in names("out")} == before


def test_a_plot_that_fails_leaves_the_pictures(here, fails):
    assert embed() == 0
    before = {name: (here / "out" / name).read_bytes() for name in WRITTEN}
    fails(KeyboardInterrupt(), where="plots.entropy")
    assert main(["plot", "out"]) == 130
    assert {name: (here / "out" / name).read_bytes() for name in names("out")} == before


def test_plot_without_an_entropy(here):
    Path("out").mkdir()
    mp.Embedding(np.random.default_rng(0).normal(size=(90, 2)), SliceLayout.of_shape(6, 5, 3)).save("out/embedding.npz")
    assert main(["plot", "out"]) == 0
    assert names("out") == {"embedding.npz", "panels.png"}


def test_config(here, capsys, steady):
    assert main(["config"]) == 0
    assert capsys.readouterr().out == f"{mp.show_config()}\n"
    assert names(here) == {"trace.npy"}


def test_bench_runs_the_benchmarks_of_the_checkout(here, capsys, monkeypatch):
    monkeypatch.setattr("mmphate_gpu.cli.commands.__file__", str(here / "mmphate_gpu" / "cli" / "commands.py"))
    assert main(["bench", "--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs a source checkout: an installed mmphate-gpu holds no benchmarks" in line and str(here) in line
    assert (ROOT / "benchmarks" / "run.py").is_file() and "python benchmarks/run.py" in line
    Path("benchmarks").mkdir()
    Path("benchmarks/__init__.py").touch()  # or the package of this checkout would go before it
    Path("benchmarks/run.py").write_text("def main(argv):\n    print(argv)\n    return 0\n")
    for module in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, module)
    path = list(sys.path)
    assert main(["bench", "--quick", "--only", "mds"]) == 0
    assert capsys.readouterr().out == "['--quick', '--only', 'mds']\n" and sys.path == path
    for module in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[module]


def test_help_is_fast_and_loads_nothing_heavy():
    code = """
import sys
from mmphate_gpu.cli import main
for argv in (["--version"], ["--help"], ["embed", "--help"]):
    assert main(argv) == 0
assert not {"torch", "numpy", "sklearn", "matplotlib", "scipy", "pykeops", "tqdm"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENV)
    assert done.returncode == 0 and done.stderr == ""
    version, usage, *_ = done.stdout.splitlines()
    assert version == f"mmphate-gpu {mp.__version__}" and usage.startswith("usage: mmphate-gpu")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_leaves_is_no_fault():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mmphate_gpu", "config"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=ENV)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_settings_that_a_warning_names_are_options(here):
    assert main(["embed", "trace.npy", "--out", "out", "--interslice-knn", "5", "--t-max", "12", "--no-plots"]) == 0
    parameters = json.loads(Path("out/report.json").read_text())["parameters"]
    assert (parameters["interslice_knn"], parameters["t_max"]) == (5, 12)
    assert len(mp.Embedding.load("out/embedding.npz").entropy) == 12
