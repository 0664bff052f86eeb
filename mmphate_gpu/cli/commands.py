"""What the commands do. They import heavy modules only when they run, so that --help is fast."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, check_number
from ..params import Params
from ..runtime.signals import Stopped
from ..runtime.streams import fill_closed_descriptors, lenient
from . import result_folder
from .arguments import FIT, PROGRAM, RUN, named_recipe, parser
from .pictures import NoPicture, draw_results, redraw

if TYPE_CHECKING:
    import torch

DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
# Errors of the file system, not of the program: a full or read-only disk, a quota, permissions, limits of files.
_NAMES = "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EBUSY EIO EMFILE ENFILE ENAMETOOLONG"
REFUSALS = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    ========  ======================================================================================================
    0         The command is done. If only a picture cannot be drawn, it warns: the results are saved.
    1         The program has a fault, and prints a traceback; or stdout cannot be written.
    2         Input or usage is wrong, the file system refuses a read or a write, the memory runs out, or `plot`,
              `report` or `view` cannot draw. One sentence on stderr says why.
    130       Ctrl-C has interrupted the command.
    129, 143  SIGHUP, SIGTERM while results are written.
    ========  ======================================================================================================

    Results appear complete or not at all. Closed streams change nothing. A character that the stream cannot encode is
    printed as an escape.
    """
    fill_closed_descriptors()
    out, err = lenient(sys.stdout), lenient(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        warnings.simplefilter("always", NoPicture)  # even with -W ignore: nothing else reports it
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
    except (InputError, NoPicture) as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped) as stop:
        _say(f"interrupted; {stop.args[0] if stop.args else 'nothing was written'}")
        return stop.code if isinstance(stop, Stopped) else INTERRUPTED
    except Exception as error:  # the outermost frame: an unforeseen error is reported, and the exit code is 1
        if isinstance(error, OSError) and error.errno in REFUSALS:
            name = "a file" if error.filename is None else error.filename
            _say(f"error: {name} cannot be read or written ({error.strerror}); no result was written")
            return BAD_INPUT
        from ..planning.fit import ran_out

        if reason := ran_out(error):
            _say(f"error: the memory ran out ({reason}); no result was written; '{PROGRAM} plan' says what a run takes")
            return BAD_INPUT
        traceback.print_exc()
        _say(f"error: this is a fault of {PROGRAM}; please report it with the lines above and '{PROGRAM} config'")
        return FAULT


def _run(argv: Sequence[str]) -> int:
    try:
        args, rest = parser(named_recipe(argv)).parse_known_args(argv)
    except SystemExit as stop:  # argparse has printed the help or the version
        return int(stop.code or 0)
    if rest and args.command != "bench":
        raise InputError(f"{rest[0]!r} is not an argument of {args.command}; see {PROGRAM} {args.command} --help")
    args.rest = rest
    return COMMANDS[args.command](args)


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

    out = _lasting(args.out)
    options = {"epochs": args.epochs, "recipe": args.recipe, "seed": _seed(args), "device": args.device}
    report = demo(out, **options, force=args.force)
    print(f"after {args.epochs} epochs {report['test_accuracy'][-1]:.1%} of the held-out digits are read right")
    content = json.loads((out / result_folder.ANALYSIS).read_text(encoding="utf-8"))
    print("\n".join([*(f"{name}: {line}" for name, line in content["summary"].items()), f"{out}: {_files(out)}"]))
    return DONE


def _embed(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    options = _options(args)
    params, out = Params(**options), _checked_out(args, args.trace)

    from ..estimator import MMPHATE
    from ..runtime.devices import resolve_device
    from ..trace import as_trace, load_trace

    _check_fits(args, args.trace, params, resolve_device(args.device))

    def compute() -> result_folder.Results:
        trace = as_trace(load_trace(args.trace, follow_links=args.follow_links))
        op = MMPHATE(**options, verbose=1).fit(trace)
        seconds = time.perf_counter() - started
        report = result_folder.report(op, trace, seconds=seconds, input=str(args.trace), recipe=args.recipe)
        return result_folder.Results(report, {result_folder.EMBEDDING: op.result_})

    results = result_folder.saved(out, compute, force=args.force)
    embedding = results.embeddings[result_folder.EMBEDDING]
    if not args.no_plots:
        draw_results(out, results)
    size, seconds = f"{embedding.n_nodes:,} nodes", f"{results.report['seconds']:.1f} s"
    print(f"{out}: {size} embedded in {seconds}, t = {embedding.t_text}, stress = {embedding.stress:.4f}")
    return DONE


def _analyze(args: argparse.Namespace) -> int:
    options = _options(args)
    params, out = Params(**options), _checked_out(args, args.input, args.trace, args.labels)

    from ..estimator import MMPHATE
    from ..runtime.devices import resolve_device
    from .analyze import results_of

    device, op = resolve_device(args.device), MMPHATE(**options, verbose=1)
    if not (args.input / result_folder.EMBEDDING).is_file():
        if result_folder.read_report(args.input) is not None:
            raise InputError(f"{args.input} has no {result_folder.EMBEDDING}; accepted: a folder of embed or demo")
        _check_fits(args, args.input, params, device)
    summary: list[tuple[str, str]] = []

    def compute() -> result_folder.Results:
        results, analyzed = results_of(args, op)
        summary.extend([*analyzed.lines(), *analyzed.reasons()])
        for name, messages in analyzed.warnings.items():
            _say(f"warning: {name}: {'; '.join(messages)}")
        return results

    results = result_folder.saved(out, compute, force=args.force)
    if results.embeddings and not args.no_plots:
        draw_results(out, results)
    print("\n".join([*(f"{name}: {line}" for name, line in summary), f"{out}: {_files(out)}"]))
    return DONE


def _files(out: Path) -> str:
    return ", ".join(sorted(name for name in result_folder.FILES if (out / name).is_file()))


def _lasting(path: Path) -> Path:
    """``path``, made absolute if --force would replace the working folder. Relative paths would then lead elsewhere."""
    with suppress(OSError):  # the working folder may be deleted
        target = Path(os.path.realpath(path.parent), path.name)
        if path.name and target in (Path.cwd(), *Path.cwd().parents):
            return target
    return path


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of the embedding."""
    return {name: getattr(args, name) for name in FIT} | {"random_state": _seed(args)}


def _checked_out(args: argparse.Namespace, *inputs: Path | None) -> Path:
    """The folder to write, which may be written and holds none of ``inputs``."""
    out = _lasting(args.out)
    for path in inputs if args.force else ():
        if path is not None:
            result_folder.check_outside(path, out)
    result_folder.check_folder(out, force=args.force)
    return out


def _check_fits(args: argparse.Namespace, trace: Path, params: Params, device: torch.device) -> None:
    """Refuse a run that cannot fit, before its trace is read."""
    from ..planning.plan import check_least
    from ..runtime.memory import available_bytes
    from ..trace.files import heading

    header = heading(trace, follow_links=args.follow_links)
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
    if args.trace is not None and (run_plan is None or run_plan.fits):  # else the trace may not fit in memory
        run_plan = plan(as_trace(load_trace(args.trace, **links)), **options)
    print(run_plan)
    return DONE


def _plot(args: argparse.Namespace) -> int:
    print(f"{args.folder}: {', '.join(redraw(args.folder))} drawn")
    return DONE


def _report(args: argparse.Namespace) -> int:
    from ..runtime.memory import format_bytes
    from .report import write_page

    path = write_page(args.folder, analysis_folder=args.analysis, out=args.out, force=args.force)
    print(f"{path}: {format_bytes(path.stat().st_size)}")
    return DONE


def _view(args: argparse.Namespace) -> int:
    from .view import show, write_picture

    path = write_picture(args.folder)
    print(path)
    if not args.no_open and (message := show(path)) is not None:
        _say(message)
    return DONE


def _export(args: argparse.Namespace) -> int:
    from .export import export

    paths = export(args.folder, args.format, stem=args.out, force=args.force)
    print("\n".join(map(str, paths)))
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
    # The benchmarks of the checkout are no part of the package, so their module is imported by its name.
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("benchmarks.run").main(args.rest)
    finally:
        sys.path.remove(str(checkout))


def _seed(args: argparse.Namespace) -> int:
    return int(check_number("--seed", args.seed, low=0, high=2**63 - 1, integer=True))


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        accepted = "whole numbers with commas between them, such as 127,128,30,6"
        raise InputError(f"--shape {text!r} cannot be read; accepted: {accepted}") from None


COMMANDS = {
    "demo": _demo,
    "embed": _embed,
    "analyze": _analyze,
    "plan": _plan,
    "plot": _plot,
    "report": _report,
    "view": _view,
    "export": _export,
    "config": _config,
    "bench": _bench,
}
