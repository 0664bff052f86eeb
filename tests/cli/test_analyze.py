"""`analyze`: what it computes, writes and prints, and what it leaves out. Bad input is in test_analyze_input."""

import json
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import analysis
from mmphate_gpu.analysis.result import Result
from mmphate_gpu.cli import analyses, analyze, main, result_folder
from mmphate_gpu.cli.analyses import ANALYSES, Analysis

LABELS = np.arange(12) % 2
OF_EMBED = {"embedding.npz", "report.json", "panels.png", "entropy.png"}


def strict(path):
    """The content of a JSON file that has no NaN."""

    def refuse(word):
        raise AssertionError(f"{path} holds {word}")

    return json.loads(Path(path).read_text(), parse_constant=refuse)


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


def run(*argv):
    return main(["analyze", *map(str, argv), "--device", "cpu"])


@pytest.fixture
def recorded(here):
    """A trace with labels, which its states hold from the third epoch on, and with a metric."""
    states = np.random.default_rng(0).normal(size=(16, 3, 4, 12))
    states[2:] += 3 * LABELS
    mp.save_trace("recorded.npz", mp.as_trace(states, label=LABELS, metrics={"loss": np.linspace(2, 1, 16)}))
    return here


class Answer(Result):
    """A result without a computation."""

    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return self.values

    def _columns(self):
        return {name: np.array([value]) for name, value in self.values.items()}

    def _summary(self):
        return ", ".join(self.values)


@pytest.fixture
def table(monkeypatch):
    """A function that replaces the table of analyses."""

    def replace(**entries):
        monkeypatch.setattr(analyses, "ANALYSES", entries)
        monkeypatch.setattr(analyze, "ANALYSES", entries)

    return replace


def answer(**values):
    return lambda functions, data, done: Answer(**values)


def refuse(functions, data, done):
    raise mp.InputError("epochs: 2; accepted: at least 3")


# ---------------------------------------------------------------- what is computed


def test_a_trace_is_embedded_and_analyzed(recorded, capsys):
    assert run("recorded.npz", "--out", "out", "--seed", 3) == 0
    text = capsys.readouterr()
    content = strict("out/analysis.json")
    long = {"null_models", "subsample_study", "baselines"}
    assert set(content["analyses"]) | set(content["left_out"]) == set(ANALYSES)
    assert set(content["left_out"]) == long | {"ablate_timesteps", "ablate_units"}, content["left_out"]
    assert set(content["seconds"]) == set(content["analyses"])
    assert content["program"] == "mmphate-gpu" and content["version"] == mp.__version__
    assert content["input"] == "recorded.npz" and content["seed"] == 3
    assert content["settings"]["parameters"]["random_state"] == 3
    drawn = {file for name in content["analyses"] for file in ANALYSES[name].pictures}
    assert set(content["files"]) == {"analysis.json", *drawn}
    assert names("out") == OF_EMBED | {*content["files"]} == {*strict("out/report.json")["files"]}
    lines = text.out.splitlines()
    results = [f"{name}: {line}" for name, line in content["summary"].items()]
    assert lines[: len(results)] == results
    reason = "left out (it runs the network; use mmphate_gpu.analysis in Python)"
    assert lines[len(results) : -1] == [f"ablate_timesteps: {reason}", f"ablate_units: {reason}"]
    assert content["analyses"]["follows"]["loss"]["metric"] == "loss"
    assert "follows loss" in content["summary"] and lines[-1].startswith("out: analysis.json, ")
    assert "have fewer than 10 points" in content["warnings"]["entropy"][0]
    assert "mmphate-gpu: warning: entropy: " in text.err and "interpolate" in text.err


def test_the_numbers_are_those_of_python(recorded):
    assert run("recorded.npz", "--out", "out", "--only", "linear_probe,spread", "--seed", 3, "--no-plots") == 0
    assert names("out") == {"analysis.json", "embedding.npz", "report.json"}
    trace, content = mp.load_trace("recorded.npz"), strict("out/analysis.json")
    embedding = mp.MMPHATE(random_state=3, device="cpu").fit(trace).result_
    np.testing.assert_array_equal(mp.Embedding.load("out/embedding.npz").coordinates, embedding.coordinates)
    probe = analysis.linear_probe(trace, random_state=3)
    assert content["analyses"]["linear_probe"]["score"] == probe.score.tolist()
    assert content["analyses"]["spread"]["total"] == analysis.spread(embedding).total
    assert content["left_out"]["entropy"] == "--only does not name it"


def test_a_folder_of_embed_needs_its_trace(recorded):
    assert main(["embed", "recorded.npz", "--out", "in", "--n-landmark=20", "--no-plots", "--device=cpu"]) == 0
    wanted = {"spread", "trust", "linear_probe"}
    assert run("in", "--out", "without", "--only", ",".join(wanted)) == 0
    content = strict("without/analysis.json")
    assert set(content["analyses"]) == {"spread"}
    assert content["left_out"]["trust"] == "the trace is missing; --trace TRACE names it"
    assert names("without") == {"analysis.json", "report.json"}
    assert run("in", "--trace", "recorded.npz", "--out", "out", "--only", ",".join(wanted)) == 0
    content = strict("out/analysis.json")
    assert set(content["analyses"]) == wanted and "linear_probe.png" in names("out")
    assert content["settings"]["parameters"]["n_landmark"] == 20  # refits have the settings of the fit
    Path("in", "trace.npz").write_bytes(Path("recorded.npz").read_bytes())  # as demo writes it
    assert run("in", "--out", "found", "--only", "trust") == 0
    assert set(strict("found/analysis.json")["analyses"]) == {"trust"}


@pytest.mark.parametrize("file", ["labels.npy", "labels.npz", "labels.csv", "words.txt", "row.csv"])
def test_labels_from_a_file(recorded, file):
    np.save("labels.npy", LABELS)
    np.savez("labels.npz", labels=LABELS, other=np.zeros(3))
    Path("labels.csv").write_text("\ufeff" + "\r\n".join(map(str, LABELS)) + "\r\n")
    Path("words.txt").write_text("\n".join(np.array(["cat", "dog"])[LABELS]))
    Path("row.csv").write_text(", ".join(map(str, LABELS)))
    np.save("unlabeled.npy", mp.load_trace("recorded.npz").data.numpy())
    for trace, *options in (["recorded.npz"], ["unlabeled.npy", "--labels", file]):
        assert run(trace, *options, "--out", f"of_{trace}", "--only", "linear_probe", "--no-plots") == 0
    first, second = (strict(f"of_{trace}/analysis.json")["analyses"] for trace in ("recorded.npz", "unlabeled.npy"))
    assert first["linear_probe"]["score"] == second["linear_probe"]["score"]


# ---------------------------------------------------------------- what is left out


def test_every_reason_is_said(here, table, capsys):
    table(
        refused=Analysis(refuse),
        after=Analysis(answer(a=1), needs=("refused",)),
        labeled=Analysis(answer(a=1), needs=("trace", "labels")),
        measured=Analysis(answer(a=1), needs=("metrics",)),
        long=Analysis(answer(a=1), option="null_models"),
        skipped=Analysis(answer(a=1)),
        whole=Analysis(answer(a=float("nan"), b=[float("inf"), 1])),
    )
    assert run("trace.npy", "--out", "out", "--skip", "skipped") == 0
    content = strict("out/analysis.json")
    assert content["analyses"] == {"whole": {"a": None, "b": [None, 1]}}
    assert content["left_out"] == {
        "refused": "epochs: 2; accepted: at least 3",
        "after": "it needs refused, which is left out",
        "labeled": "the samples have no labels; --labels FILE names them",
        "measured": "the trace has no metrics; recorder.snapshot(epoch, loss=...) records them",
        "long": "it takes long; --null-models asks for it",
        "skipped": "--skip names it",
    }
    lines = capsys.readouterr().out.splitlines()[1:-1]  # reasons that the user did not give
    assert lines == [f"{name}: left out ({content['left_out'][name]})" for name in list(content["left_out"])[2:]]


def test_what_takes_long_is_asked_for(here, table):
    table(
        first=Analysis(answer(a=1)),
        second=Analysis(answer(a=1), needs=("first",), option="baselines"),
        third=Analysis(answer(a=1), option="subsampling"),
    )
    for number, (options, wanted) in enumerate(
        [
            ([], {"first"}),
            (["--baselines"], {"first", "second"}),
            (["--baselines", "--subsampling"], {"first", "second", "third"}),
            (["--only", "second"], {"first", "second"}),  # with what it needs
            (["--only", "second, third", "--skip", "first"], {"third"}),
        ]
    ):
        assert run("trace.npy", "--out", f"out{number}", "--no-plots", *options) == 0
        assert set(strict(f"out{number}/analysis.json")["analyses"]) == wanted


def test_the_table_is_in_order_and_every_name_is_known():
    above: set[str] = set()
    for name, entry in ANALYSES.items():
        assert set(entry.needs) <= {*analyses.NEEDS, *above}, name
        above.add(name)
    drawn = [file for entry in ANALYSES.values() for file in entry.pictures]
    assert len(set(drawn)) == len(drawn) and not set(drawn) & result_folder.OF_DEMO


# ---------------------------------------------------------------- what goes wrong on the way


def broken(plots, result, data, done, path):
    raise ValueError("no font\nof many lines")


def test_a_picture_that_fails_costs_no_result(here, table, capsys):
    table(
        bad=Analysis(answer(a=1), pictures={"linear_probe.png": broken}),
        good=Analysis(answer(a=1), pictures={"null_models.png": lambda plots, *rest: rest[-1].write_bytes(b"")}),
    )
    assert run("trace.npy", "--out", "out") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.endswith("warning: linear_probe.png is left out (ValueError: no font)")
    assert strict("out/analysis.json")["files"] == ["analysis.json", "null_models.png"]
    assert names("out") == OF_EMBED | {"analysis.json", "null_models.png"}


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("unforeseen"), 1), (KeyboardInterrupt(), 130)])
def test_an_error_leaves_nothing(here, table, capsys, error, code):
    def fail(functions, data, done):
        raise error

    table(first=Analysis(answer(a=1)), second=Analysis(fail))
    assert run("trace.npy", "--out", "out") == code
    assert names(here) == {"trace.npy"}
    assert ("unforeseen" in capsys.readouterr().err) == (code == 1)


def test_force_replaces_what_analyze_wrote(here, table):
    table(first=Analysis(answer(a=1), pictures={"null_models.png": lambda plots, *rest: rest[-1].write_bytes(b"")}))
    assert run("trace.npy", "--out", "out", "--no-plots") == 0
    assert run("trace.npy", "--out", "out") == 2
    assert run("trace.npy", "--out", "out", "--force") == 0
    assert names("out") == OF_EMBED | {"analysis.json", "null_models.png"}
    assert run("out", "--out", "second") == 0
    Path("second", "notes.txt").write_text("mine")
    assert run("out", "--out", "second", "--force") == 2
    assert Path("second", "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_what_takes_long_runs_and_is_drawn(recorded, capsys):
    options = ("--null-models", "--subsampling", "--baselines", "--skip", "linear_probe", "--n-landmark", 60)
    assert run("recorded.npz", "--out", "out", *options) == 0
    content, text = strict("out/analysis.json"), capsys.readouterr().err
    assert {"null_models", "subsample_study", "baselines"} <= set(content["analyses"]), content["left_out"]
    assert {"null_models.png", "subsampling.png", "baselines.png"} <= names("out"), text
    assert set(content["files"]) <= names("out")
