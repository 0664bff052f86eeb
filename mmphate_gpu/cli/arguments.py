"""The arguments of the commands: names, types, defaults and help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import InputError
from ..params import ISLANDS, KNN_BACKENDS, LANDMARKS, MDS_SOLVERS, RECIPES, STORAGES, TIMES, recipe_parameters

PROGRAM = "mmphate-gpu"  # also in report.json: --force replaces only folders with such a report

# Options of both embed and plan: they decide whether a run fits, and errors about memory name them.
RUN = ("n_components", "landmarks", "n_landmark", "n_svd", "storage", "t", "mds_solver", "n_init", "refine_knn")
# Options of a fit: those, and what a plan does not need.
FIT = (*RUN, "islands", "device", "gamma", "interslice_knn", "t_max", "knn_backend")


def _type(convert: Callable[[str], Any], accepted: str, **words: Any) -> Callable[[str], Any]:
    """A type for argparse: one of ``words``, else what ``convert`` makes of the text."""

    def parse(text: str) -> Any:
        if text in words:
            return words[text]
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {accepted}") from None

    return parse


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _option(purpose: str, default: Any, parse: Callable[[str], Any] = str, metavar: str = "NAME") -> dict[str, Any]:
    return {"default": default, "type": parse, "metavar": metavar, "help": f"{purpose} (default %(default)s)"}


def _number(purpose: str, default: int) -> dict[str, Any]:
    return _option(purpose, default, _type(int, "a whole number"), "N")


def _choice(purpose: str, names: tuple[str, ...], default: str) -> dict[str, Any]:
    return _option(f"{purpose}: {', '.join(names)}", default)  # `Params` refuses other names


def _recipes() -> str:
    """The recipes, each with what it sets."""
    values = {name: ", ".join(f"{key} {value}" for key, value in recipe.items()) for name, recipe in RECIPES.items()}
    return ", ".join(name + (f" ({text})" if text else "") for name, text in values.items())


COUNT_OR_NONE = _type(int, "a whole number or none", none=None)
STEPS_OR_NAME = _type(int, "a whole number, auto or eigenvalues", **{name: name for name in TIMES})
OPTIONS: dict[str, dict[str, Any]] = {
    "recipe": {
        "metavar": "NAME",
        "default": "default",
        "help": f"defaults of the other options: {_recipes()}; an option beside it wins",
    },
    "follow_links": {"action": "store_true", "help": "also read files to which links in the trace lead"},
    "n_components": _number("dimensions of the embedding", 2),
    "landmarks": _choice("how nodes are grouped into landmarks", LANDMARKS, "spectral"),
    "n_landmark": _option("number of landmarks, or none to diffuse over all nodes", 4000, COUNT_OR_NONE, "N"),
    "n_svd": _number("singular vectors for spectral landmarks", 100),
    "storage": _choice("how the affinity is stored", STORAGES, "auto"),
    "t": _option("steps of diffusion, or auto or eigenvalues for the knee of an entropy", "auto", STEPS_OR_NAME, "T"),
    "mds_solver": _choice("how the landmarks are placed", MDS_SOLVERS, "smacof"),
    "n_init": _number("starts of smacof, of which the best counts", 2),
    "islands": _choice("what the distance between islands of the graph is", ISLANDS, "potential"),
    "device": _option("where to compute: auto, cpu, cuda, cuda:1, ...", "auto"),
    "gamma": _option("shape of the diffusion potential, from -1 to 1", 0.0, _type(float, "a number"), "G"),
    "interslice_knn": _number("neighbors that set the bandwidth between slices", 25),
    "t_max": _number("length of the entropy curve, in which auto and eigenvalues look for t", 100),
    "refine_knn": _number("nearest slices to which every node moves at the end, or 0", 0),
    "knn_backend": _choice("search for nearest neighbors", KNN_BACKENDS, "auto"),
    "epochs": _number("epochs of training", 50),
    "seed": _number("equal seeds give equal results", 0),
    "no_plots": {"action": "store_true", "help": "draw no pictures"},
    "force": {"action": "store_true", "help": f"replace the folder, if {PROGRAM} wrote it"},
    "only": {"metavar": "NAMES", "help": "analyses to run, such as entropy,trust; those that they need run too"},
    "skip": {"metavar": "NAMES", "help": "analyses to leave out, separated by commas"},
}
# Options of analyze for the analyses that embed many times.
LONG = {
    "null_models": "compare with shuffled traces",
    "subsampling": "compare with parts of the trace",
    "baselines": "compare with other methods",
}
FORMATS = ".npy, .npz (key data or trace), .zarr, .h5, or a recorder's folder"
TRACE: dict[str, Any] = {"metavar": "TRACE", "type": _path, "help": FORMATS}
SHAPE = "instead of a trace its epochs, time steps, units and samples, such as 127,128,30,6"
CARD = "auto, cpu, cuda, cuda:1, ..., or a card by its memory, such as '24 GB card' (default %(default)s)"
RESULTS: dict[str, Any] = {"metavar": "DIR", "type": _path, "help": "a folder that embed or demo wrote"}
OUT: dict[str, Any] = {"metavar": "DIR", "type": _path, "help": "a new folder for the results"}


class Parser(argparse.ArgumentParser):
    """Reports wrong usage as any other wrong input: `InputError`, with one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")

    def add_options(self, *names: str) -> None:
        for name in names:
            self.add_argument(f"--{name.replace('_', '-')}", **OPTIONS[name])


def named_recipe(argv: Sequence[str]) -> str:
    """The recipe that ``argv`` names; raises `InputError` for an unknown one."""
    first = Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    first.add_options("recipe")
    name: str = first.parse_known_args(argv)[0].recipe
    recipe_parameters(name)
    return name


def parser(recipe: str = "default") -> Parser:
    """The parser of the whole command line; ``command`` in its result is the name of the command.

    The values of ``recipe`` are the defaults of the options, so that the options in a command win over them.
    """
    top = Parser(
        prog=PROGRAM,
        description="MM-PHATE: draw what happens inside a recurrent network while it learns.",
        epilog=f"{PROGRAM} COMMAND --help describes a command and its options.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, purpose: str, add_help: bool = True) -> Parser:
        text: dict[str, Any] = {"help": purpose, "description": f"{purpose[0].upper()}{purpose[1:]}."}
        return commands.add_parser(name, **text, allow_abbrev=False, add_help=add_help)

    demo = command("demo", "train a small network on digits, record it, embed it and draw it")
    demo.add_argument("--out", default=Path("mmphate-demo"), **OUT | {"help": f"{OUT['help']} (default %(default)s)"})
    demo.add_options("epochs", "recipe", "seed", "device", "force")
    embed = command("embed", "embed a recorded trace and draw it, in a new folder")
    embed.add_argument("trace", **TRACE)
    embed.add_argument("--out", required=True, **OUT)
    embed.add_options("follow_links", "recipe", *FIT, "seed", "no_plots", "force")
    analyze = command("analyze", "measure what a picture and its trace show, in a new folder")
    analyze.add_argument(
        "input",
        **TRACE
        | {"metavar": "DIR|TRACE", "help": f"a folder of embed or demo, which keeps its settings, or {FORMATS}"},
    )
    analyze.add_argument("--out", required=True, **OUT)
    analyze.add_argument("--trace", **TRACE | {"default": None, "help": "the trace that embed turned into DIR"})
    analyze.add_argument(
        "--labels", **TRACE | {"metavar": "FILE", "help": "a label for each sample: .npy, .npz or text"}
    )
    analyze.add_options("only", "skip")
    for name, purpose in LONG.items():
        analyze.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=f"{purpose}, which takes long")
    analyze.add_options("follow_links", "recipe", *FIT, "seed", "no_plots", "force")
    plan = command("plan", "say how much memory and work a run will take")
    subject = plan.add_mutually_exclusive_group(required=True)
    subject.add_argument("trace", nargs="?", **TRACE)
    subject.add_argument("--shape", metavar="E,T,M,P", help=SHAPE)
    plan.add_options("follow_links", "recipe", *RUN)
    plan.add_argument("--device", **OPTIONS["device"] | {"help": CARD})
    plot = command("plot", "draw the pictures of a folder of results again")
    plot.add_argument("folder", **RESULTS)
    _add_commands_of_results(command)
    command("config", "show versions, devices and backends, for bug reports")
    # benchmarks/run.py parses the options of bench, --help among them.
    command("bench", "run the benchmarks of a source checkout: --quick, --full, --help, ...", add_help=False)
    for made in commands.choices.values():
        made.set_defaults(**recipe_parameters(recipe))
    return top


def _add_commands_of_results(command: Callable[..., Parser]) -> None:
    """The commands that show or export the results of a folder."""
    report = command("report", "write one HTML page that tells a whole run")
    report.add_argument("folder", **RESULTS | {"help": "a folder that embed, demo or analyze wrote"})
    report.add_argument("--analysis", metavar="DIR", type=_path, help="a folder that analyze wrote from that folder")
    report.add_argument(
        "--out", metavar="FILE", type=_path, help="a new .html file outside DIR (default DIR/report.html)"
    )
    report.add_argument("--force", action="store_true", help="replace the file")
    view = command("view", "open the interactive picture of a run in the browser")
    view.add_argument("folder", **RESULTS)
    view.add_argument("--no-open", action="store_true", help="write picture.html in the folder, and do not open it")
    export = command("export", "write the embedding for other programs, beside its folder")
    export.add_argument("folder", **RESULTS)
    export.add_argument("--format", required=True, metavar="NAMES", help="csv, h5ad or zarr, or a list with commas")
    export.add_argument("--out", metavar="STEM", type=_path, help="the path without the endings (default DIR)")
    export.add_argument("--force", action="store_true", help="replace the files, and a .zarr that export wrote")
