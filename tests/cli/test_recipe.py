"""`--recipe`: other defaults of the options, which report.json and the shown commands keep."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import arguments, demo, main
from mmphate_gpu.cli.report.provenance import reproduce_section
from mmphate_gpu.cli.report.run import Run
from mmphate_gpu.params import RECIPES

STABLE = RECIPES["stable"]
FITTED = STABLE | {"n_landmark": 40}  # the parameters of the recipe and of the options below
SMALL = ("--n-landmark=40", "--device=cpu", "--no-plots")


def parameters(folder: str) -> dict:
    return json.loads(Path(folder, "report.json").read_text())["parameters"]


def coordinates(folder: str) -> np.ndarray:
    return mp.Embedding.load(Path(folder, "embedding.npz")).coordinates


def test_embed_takes_the_parameters_of_the_recipe(here):
    assert main(["embed", "trace.npy", "--out", "out", "--recipe", "stable", *SMALL]) == 0
    op = mp.MMPHATE.stable(n_landmark=40, random_state=0, device="cpu").fit(np.load("trace.npy"))
    np.testing.assert_array_equal(coordinates("out"), op.embedding_)
    assert FITTED.items() <= parameters("out").items()
    assert json.loads(Path("out", "report.json").read_text())["recipe"] == "stable"


@pytest.mark.parametrize("order", [1, -1], ids=["before", "after"])
def test_options_win_over_the_recipe(here, order):
    """Also an option whose value is the usual default, which argparse does not tell from none."""
    typed = [["--recipe=stable"], ["--landmarks=spectral"]][::order]
    assert main(["embed", "trace.npy", "--out", "out", *sum(typed, []), *SMALL]) == 0
    wanted = FITTED | {"landmarks": "spectral"}
    assert wanted.items() <= parameters("out").items()


def test_without_the_option_the_defaults_are_the_usual(here):
    assert main(["embed", "trace.npy", "--out", "out", *SMALL]) == 0
    defaults = {name: getattr(mp.Params, name) for name in STABLE} | {"n_landmark": 40}
    assert defaults.items() <= parameters("out").items()
    assert json.loads(Path("out", "report.json").read_text())["recipe"] == "default"


def test_analyze_embeds_by_the_recipe(here):
    assert main(["analyze", "trace.npy", "--out", "out", "--recipe=stable", "--only=spread", *SMALL]) == 0
    assert FITTED.items() <= parameters("out").items()


def test_analyze_refuses_a_recipe_for_a_folder(run_folders, capsys, monkeypatch):
    monkeypatch.chdir(run_folders)
    assert main(["analyze", "run", "--out", "new", "--recipe=stable", "--only=spread"]) == 2
    assert "--recipe stable is for a trace, and run holds an embedding" in capsys.readouterr().err


class _NoAnalyses:
    """Analyses take most of the time of a small demo."""

    def write(self, folder: Path) -> None:
        pass


@pytest.fixture
def small_demo(here, monkeypatch):
    monkeypatch.setattr("mmphate_gpu.cli.demo.N_LANDMARK", 60)
    monkeypatch.setattr("mmphate_gpu.cli.demo._analyzed", lambda *_: _NoAnalyses())
    monkeypatch.setattr("mmphate_gpu.cli.demo.draw_results", lambda *_: None)
    demo.demo(Path("demo"), epochs=3, recipe="stable", device="cpu", verbose=False)


def test_demo_takes_the_recipe(small_demo):
    assert (STABLE | {"n_landmark": 60}).items() <= parameters("demo").items()
    with pytest.raises(mp.InputError, match="recipe='steady' is unknown"):
        demo.demo(Path("other"), recipe="steady")
    assert not Path("other").exists()


def typed(name: str) -> str:
    """The option of the command line for the parameter ``name`` of the recipe."""
    return f"--{name.replace('_', '-')}={STABLE[name]}"


def test_plan_is_that_of_the_parameters(capsys):
    shape = ["plan", "--shape", "100,20,10,6", "--device=24 GB card"]
    for options in ([], ["--recipe=stable"], [typed(name) for name in arguments.RUN if name in STABLE]):
        assert main([*shape, *options]) == 0
    usual, stable, wanted = capsys.readouterr().out.split("100 epochs")[1:]
    assert stable == wanted != usual


OPTIONS = {"embed": arguments.FIT, "analyze": arguments.FIT, "plan": arguments.RUN, "demo": ()}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_help_tells_what_a_recipe_sets(command, capsys):
    def help_text(*words: str) -> str:
        assert main([command, *words, "--help"]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert all(f"{name} {value}" in help_text() for name, value in STABLE.items())
    named = [f"(default {value})" for name, value in STABLE.items() if name in OPTIONS[command]]
    assert all(default in help_text("--recipe=stable") for default in named)


@pytest.mark.parametrize("command", ["embed trace.npy --out new", "plan --shape 3,4,5", "demo --out new", "plot new"])
def test_an_unknown_recipe_is_refused(command, rejects):
    rejects(*command.split(), "--recipe", "steady", words=["recipe='steady' is unknown; accepted: 'default', 'stable'"])


def test_a_recipe_without_a_name_is_refused(rejects):
    rejects("embed", "trace.npy", "--out", "new", "--recipe", words=["--recipe", "expected one argument"])


def test_a_command_without_a_fit_has_no_recipe(rejects):
    rejects("plot", "new", "--recipe", "stable", words=["'--recipe' is not an argument of plot"])


def test_the_benchmarks_get_their_own_options():
    args, rest = arguments.parser().parse_known_args(["bench", "recipes", "--recipes", "stable"])
    assert arguments.named_recipe(["bench", "--recipes", "stable"]) == "default"
    assert args.command == "bench" and rest == ["recipes", "--recipes", "stable"]


def command_of(folder: str) -> list[str]:
    """The first shown command, as the words of a shell."""
    section = str(reproduce_section(Run.read(Path(folder), None)))
    return shlex.split(html.unescape(re.search(r"mmphate-gpu [^\n<]*", section)[0]))


def test_the_shown_command_gives_the_same_bits_without_the_recipe(here):
    """The parameters are shown one by one, so a later version with another recipe repeats the picture."""
    assert main(["embed", "trace.npy", "--out", "out", "--recipe=stable", *SMALL]) == 0
    before, (program, *words) = coordinates("out"), command_of("out")
    assert program == "mmphate-gpu" and not [word for word in words if "--recipe" in word]
    assert main([*words, "--force", "--no-plots"]) == 0
    np.testing.assert_array_equal(coordinates("out"), before)


def test_the_shown_command_of_a_demo_names_the_recipe(small_demo):
    words = command_of("demo")
    assert words[:3] == ["mmphate-gpu", "demo", "--out"] and "--recipe=stable" in words
