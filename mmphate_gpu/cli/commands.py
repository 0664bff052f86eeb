"""The command line: demo, embed, plan, plot, config, bench. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from ..errors import InputError, check_number
from ..params import KNN_BACKENDS, LANDMARKS, MDS_SOLVERS, STORAGES, Params
from ..runtime.signals import Stopped
from ..runtime.streams import fill_closed_descriptors, lenient
from . import result_folder
from .result_folder import PROGRAM

if TYPE_CHECKING:
    import torch

DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
TRACE_HELP = ".npy, .npz (key data or trace), .zarr, .h5, or a recorder's folder"
# Options of both embed and plan: they decide whether a run fits, and errors about memory name them.
RUN = ("n_landmark", "n_svd", "storage", "n_components", "landmarks", "t", "mds_solver")
# Errors that the file system causes, not the program: a full or read-only disk, a quota, permissions, limits of files.
REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EBUSY", "EIO", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Exit code 0: the command is done. 2: input or usage is wrong, the file system refuses a read or a write, the memory
    runs out, or `plot` cannot draw; one sentence on stderr says why. 130: Ctrl-C has interrupted the command. 143,
    129: SIGTERM, SIGHUP while results are written. 1: the program has a fault, and prints a traceback; or stdout cannot
    be written, and one sentence says so. Results appear complete or not at all. Pictures are drawn after them: if
    `embed` or `demo` cannot draw a picture, it only warns. Closed streams change nothing. A character that the stream
    cannot encode is printed as an escape.
    """
    fill_closed_descriptors()
    out, err = lenient(sys.stdout), lenient(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        warnings.simplefilter("always", result_folder.NoPicture)  # even with -W ignore: nothing else reports it
        code = _guarded(sys.argv[1:] if argv is None else argv)
        out.flush()
        # A broken pipe is no fault: its reader (head, for one) has read what it needed.
        if code == DONE and out.error is not None and not isinstance(out.error, BrokenPipeError):
            _say(f"error: stdout could not be written ({out.error}); files are not affected")
            code = FAULT
        err.flush()
    out.discard()
    err.discard()
    return code


def _guarded(argv: Sequence[str]) -> int:
    try:
        return _run(argv)
    except (InputError, result_folder.NoPicture) as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped) as stop:
        _say(f"interrupted; {stop.args[0] if stop.args else 'nothing was written'}")
        return stop.code if isinstance(stop, Stopped) else INTERRUPTED
    except Exception as error:  # the outermost frame: whatever was not foreseen is reported, and exits with 1
        if isinstance(error, OSError) and error.errno in REFUSALS:
            name = "a file" if error.filename is None else error.filename
            _say(f"error: {name} cannot be read or written ({error.strerror}); no result was written")
            return BAD_INPUT
        if reason := _memory_that_ran_out(error):
            _say(f"error: the memory ran out ({reason}); no result was written; '{PROGRAM} plan' says what a run takes")
            return BAD_INPUT
        traceback.print_exc()
        _say(f"error: this is a fault of {PROGRAM}; please report it with the lines above and '{PROGRAM} config'")
        return FAULT


def _memory_that_ran_out(error: Exception) -> str | None:
    from ..planning.fit import ran_out

    return ran_out(error)


def _run(argv: Sequence[str]) -> int:
    try:
        args, rest = _parser().parse_known_args(argv)
    except SystemExit as stop:  # argparse has printed the help or the version
        return int(stop.code or 0)
    if rest and args.command != "bench":
        raise InputError(f"{rest[0]!r} is not an argument of {args.command}; see {PROGRAM} {args.command} --help")
    args.rest = rest
    return args.run(args)


def _say(message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr)


def _show_warning(message: Warning | str, *details: Any) -> None:
    if "tqdm" not in sys.modules:
        return _say(f"warning: {message}")
    from tqdm import tqdm

    tqdm.write(f"{PROGRAM}: warning: {message}", file=sys.stderr)  # above a bar that is being drawn
    return None


# ---------------------------------------------------------------- commands


def _demo(args: argparse.Namespace) -> int:
    from .demo import demo

    out = _address(args.out)
    report = demo(out, epochs=args.epochs, seed=_seed(args), device=args.device, force=args.force)
    print(f"after {args.epochs} epochs {report['test_accuracy'][-1]:.1%} of the held-out digits are read right")
    print(f"{out}: {', '.join(sorted(name for name in result_folder.FILES if (out / name).is_file()))}")
    return DONE


def _embed(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    names = (*RUN, "device", "gamma", "knn_backend")
    options = {name: getattr(args, name) for name in names} | {"random_state": _seed(args)}
    params = Params(**options)
    out = _address(args.out)
    if args.force:
        result_folder.check_outside(args.trace, out)
    result_folder.check_folder(out, force=args.force)

    from ..estimator import MMPHATE
    from ..runtime.devices import resolve_device
    from ..trace import as_trace, load_trace

    _check_fits(args, params, resolve_device(args.device))

    def compute() -> result_folder.Results:
        trace = as_trace(load_trace(args.trace, follow_links=args.follow_links))
        op = MMPHATE(**options, verbose=1).fit(trace)
        seconds = time.perf_counter() - started
        report = result_folder.report(op, trace, seconds=seconds, input=str(args.trace))
        return result_folder.Results(report, {result_folder.EMBEDDING: op.result_})

    results = result_folder.saved(out, compute, force=args.force)
    embedding = results.embeddings[result_folder.EMBEDDING]
    if not args.no_plots:
        result_folder.draw_results(out, {result_folder.PANELS: embedding}, results.report)
    size, seconds = f"{embedding.n_nodes:,} nodes", f"{results.report['seconds']:.1f} s"
    print(f"{out}: {size} embedded in {seconds}, t = {embedding.t}, stress = {embedding.stress:.4f}")
    return DONE


def _address(path: Path) -> Path:
    """``path``, but absolute if --force would replace the working folder: relative paths lead elsewhere afterwards."""
    with suppress(OSError):  # the working folder is deleted
        target = Path(os.path.realpath(path.parent), path.name)
        if path.name and target in (Path.cwd(), *Path.cwd().parents):
            return target
    return path


def _check_fits(args: argparse.Namespace, params: Params, device: torch.device) -> None:
    """Refuse a run that will not fit before its trace is read, where the file tells its shape."""
    from ..planning.plan import check_least
    from ..runtime.memory import available_bytes
    from ..trace.files import heading

    header = heading(args.trace, follow_links=args.follow_links)
    if header is not None:
        check_least(header, params, device, available_bytes(device))


def _plan(args: argparse.Namespace) -> int:
    from ..planning import plan
    from ..trace import as_trace, load_trace
    from ..trace.files import heading

    options = {name: getattr(args, name) for name in (*RUN, "device")}
    links = {"follow_links": args.follow_links}
    shape = _shape(args.shape) if args.trace is None else heading(args.trace, **links)
    run_plan = None if shape is None else plan(shape, **options)
    if args.trace is not None and (run_plan is None or run_plan.fits):  # else there may be no room to read it
        run_plan = plan(as_trace(load_trace(args.trace, **links)), **options)
    print(run_plan)
    return DONE


def _plot(args: argparse.Namespace) -> int:
    print(f"{args.folder}: {', '.join(result_folder.redraw(args.folder))} drawn")
    return DONE


def _config(args: argparse.Namespace) -> int:
    from ..config import show_config

    print(show_config())
    return DONE


def _bench(args: argparse.Namespace) -> int:
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "benchmarks" / "run.py").is_file():
        raise InputError(
            f"bench needs a source checkout: an installed {PROGRAM} holds no benchmarks (none in {checkout}); "
            "in a checkout, run python benchmarks/run.py"
        )
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("benchmarks.run").main(args.rest)
    finally:
        sys.path.remove(str(checkout))


# ---------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """Says what is wrong the way bad input is told: one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    about = "MM-PHATE: draws what happens inside a recurrent network while it learns."
    parser = _Parser(prog=PROGRAM, description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, **options: Any
    ) -> argparse.ArgumentParser:
        # argparse formats the help with %, and prints the one-line help and the description apart.
        about = f"{text[0].upper()}{text[1:]}."
        added = commands.add_parser(name, help=text, description=about, allow_abbrev=False, **options)
        added.set_defaults(run=run)
        return added

    _demo_arguments(command("demo", _demo, "train a small network on digits, record it, embed it, draw it"))
    _embed_arguments(command("embed", _embed, "embed a recorded trace into a new folder"))
    _plan_arguments(command("plan", _plan, "say what a run will take, before it starts"))
    plot = command("plot", _plot, "draw again the embedding in a folder")
    plot.add_argument("folder", metavar="DIR", type=_path, help="a folder that embed or demo wrote")
    command("config", _config, "show versions, devices and backends")
    # Its options are those of the checkout, --help among them.
    command("bench", _bench, "run the benchmarks of a source checkout: --quick, --full, --help, ...", add_help=False)
    return parser


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", type=_path, default=Path("mmphate-demo"), help="default: %(default)s")
    parser.add_argument("--epochs", type=_whole, default=50, metavar="N", help="epochs of training (%(default)s)")
    _seed_argument(parser)
    _device_argument(parser)
    _force_argument(parser)


def _embed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", type=_path, help=TRACE_HELP)
    _links_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=_path, required=True, help="a new folder for the results")
    _run_arguments(parser)
    _device_argument(parser)
    parser.add_argument("--gamma", type=_real, default=0.0, metavar="G", help="-1 to 1, of the potential (%(default)s)")
    parser.add_argument("--knn-backend", default="auto", metavar="NAME", help=_choices(KNN_BACKENDS))
    _seed_argument(parser)
    parser.add_argument("--no-plots", action="store_true", help="write no pictures")
    _force_argument(parser)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("trace", metavar="TRACE", nargs="?", type=_path, help=TRACE_HELP)
    what.add_argument("--shape", metavar="E,T,M,S", help="epochs, time steps, units, samples; such as 127,128,30,6")
    _links_argument(parser)
    _run_arguments(parser)
    _device_argument(parser, others=", or a card by its memory, such as '24 GB card'")


def _links_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--follow-links", action="store_true", help="read files outside a folder or a .h5 to which links in it lead"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-components", type=_whole, default=2, metavar="N", help="dimensions (%(default)s)")
    parser.add_argument("--landmarks", default="spectral", metavar="NAME", help=_choices(LANDMARKS))
    parser.add_argument("--n-landmark", type=_landmarks, default=4000, metavar="N", help="or none (%(default)s)")
    parser.add_argument("--n-svd", type=_whole, default=100, metavar="N", help="vectors of the landmarks (%(default)s)")
    parser.add_argument("--storage", default="auto", metavar="NAME", help=_choices(STORAGES))
    parser.add_argument("--t", type=_time, default="auto", metavar="T", help="diffusion time, or auto (%(default)s)")
    parser.add_argument("--mds-solver", default="smacof", metavar="NAME", help=_choices(MDS_SOLVERS))


def _device_argument(parser: argparse.ArgumentParser, others: str = "") -> None:
    names = "auto, cpu, cuda, cuda:1, ..."
    parser.add_argument("--device", default="auto", metavar="NAME", help=f"{names}{others} (%(default)s)")


def _seed_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_whole, default=0, metavar="N", help="one seed, one result (%(default)s)")


def _force_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace a folder that embed or demo wrote")


def _choices(names: Sequence[str]) -> str:
    return f"{', '.join(names)} (%(default)s)"


def _seed(args: argparse.Namespace) -> int:
    return int(check_number("--seed", args.seed, low=0, high=2**63 - 1, integer=True))


def _parsed(text: str, kind: Callable[[str], Any], wanted: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _whole(text: str) -> int:
    return _parsed(text, int, "a whole number")


def _real(text: str) -> float:
    return _parsed(text, float, "a number")


def _time(text: str) -> int | str:
    return text if text == "auto" else _parsed(text, int, "a whole number or auto")


def _landmarks(text: str) -> int | None:
    return None if text == "none" else _parsed(text, int, "a whole number or none")


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        wanted = "whole numbers with commas between them, such as 127,128,30,6"
        raise InputError(f"--shape {text!r} cannot be read; accepted: {wanted}") from None


if __name__ == "__main__":
    sys.exit(main())
