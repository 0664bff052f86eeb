"""`analyze`: the analyses that the data allow, as analysis.json and pictures in a folder of results."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, listed
from . import result_folder
from .analyses import ANALYSES, NEEDS, Analysis, Data
from .arguments import FIT, LONG, PROGRAM
from .pictures import NoPicture, reason

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import Embedding
    from ..estimator import MMPHATE
    from ..trace import Trace


@dataclass(frozen=True, eq=False)
class Analyzed:
    """The results of the analyses of ``data``.

    Attributes
    ----------
    results : {name of the analysis: result, or a mapping from names to results}.
    seconds : {name of the analysis: seconds}.
    left_out : {name of the analysis: reason}.
    warnings : {name of the analysis: messages}.
    header : the input of the command, its seed and its settings.
    refused : the names in ``left_out`` that the options did not leave out.
    pictures : whether to draw.
    """

    data: Data
    results: Mapping[str, Any]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]
    warnings: Mapping[str, list[str]]
    header: Mapping[str, Any]
    refused: Collection[str] = ()
    pictures: bool = True

    def lines(self) -> list[tuple[str, str]]:
        """The name and the line of each result."""
        return [(name, repr(result)) for name, result in _flat(self.results)]

    def reasons(self) -> list[tuple[str, str]]:
        """The name and the line of each analysis that was asked for and that the data do not allow."""
        return [(name, f"left out ({self.left_out[name]})") for name in self.refused]

    def write(self, folder: Path) -> None:
        """Draw the pictures and write analysis.json. A picture that cannot be drawn is left out with a warning."""
        pictures = {
            file: self._draw(name, draw, folder / file)
            for name in self.results
            for file, draw in ANALYSES[name].pictures.items()
            if self.pictures
        }
        values = {
            "program": PROGRAM,
            "version": __version__,
            **self.header,
            "seconds": self.seconds,
            "summary": dict(self.lines()),
            "analyses": {name: _plain(result) for name, result in self.results.items()},
            "left_out": self.left_out,
            "warnings": self.warnings,
            "files": [result_folder.ANALYSIS, *(file for file, drawn in pictures.items() if drawn)],
        }
        text = json.dumps(result_folder.jsonable(values), allow_nan=False)
        (folder / result_folder.ANALYSIS).write_text(text + "\n", encoding="utf-8")

    def _draw(self, name: str, draw: Any, path: Path) -> bool:
        try:
            from .. import plots

            draw(plots, self.results[name], self.data, self.results, path)
        except Exception as error:  # matplotlib's errors have no base class, and none of them may hide the results
            message = f"{path.name} is left out ({reason(error)})"
            warnings.warn(message, NoPicture, stacklevel=2)
        return path.is_file()


def _flat(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Pairs of names and results; a result of several has the name of its analysis before its own."""
    pairs = []
    for name, result in results.items():
        parts = result.items() if isinstance(result, Mapping) else [("", result)]
        pairs += [(f"{name} {part}".strip(), value) for part, value in parts]
    return pairs


def _plain(result: Any) -> Any:
    if isinstance(result, Mapping):
        return {name: value.to_dict() for name, value in result.items()}
    return result.to_dict()


def chosen(only: str | None, skip: str | None, asked: Collection[str]) -> dict[str, str]:
    """The analyses that the options leave out, with the reason. What a name in ``only`` needs is not left out.

    ``only`` and ``skip`` are names separated by commas, and ``asked`` are options of analyses that take long.
    """
    named = None if only is None else _with_needs(_names("--only", only))
    skipped = set() if skip is None else _names("--skip", skip)
    reasons = {}
    for name, analysis in ANALYSES.items():
        if name in skipped:
            reasons[name] = "--skip names it"
        elif named is not None and name not in named:
            reasons[name] = "--only does not name it"
        elif named is None and analysis.option and analysis.option not in asked:
            reasons[name] = f"it takes long; --{analysis.option.replace('_', '-')} asks for it"
    return reasons


def _names(option: str, text: str) -> set[str]:
    names = {name.strip() for name in text.split(",")}
    unknown = sorted(names - set(ANALYSES))
    if unknown:
        raise InputError(f"{option} {unknown[0]!r} is no analysis; accepted: {listed(ANALYSES)}, separated by commas")
    return names


def _with_needs(names: set[str]) -> set[str]:
    for name in reversed(ANALYSES):  # an analysis needs only those above it
        if name in names:
            names |= set(ANALYSES[name].needs) & set(ANALYSES)
    return names


def analyze(
    data: Data, left_out: Mapping[str, str], *, source: str, asked: Mapping[str, Any], pictures: bool = True
) -> Analyzed:
    """Run the analyses of the table that ``data`` allow, apart from those of ``left_out``.

    ``source`` and ``asked`` are the input and the options of the command, for the file.
    """
    from .. import analysis as functions

    results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    reasons: dict[str, str] = dict(left_out)
    warned: dict[str, list[str]] = {}
    for name, analysis in ANALYSES.items():
        if name in reasons:
            continue
        if (reason := _missing(analysis, data, results)) is not None:
            reasons[name] = reason
            continue
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                results[name] = analysis.compute(functions, data, results)
                seconds[name] = time.perf_counter() - started
            except InputError as error:  # such as too few epochs
                reasons[name] = str(error)
        if messages := _messages(caught):
            warned[name] = messages
    settings = {**asked, "parameters": result_folder.parameters(data.estimator)}
    header = {"input": source, "seed": data.seed, "settings": settings}
    refused = [name for name in reasons if name not in left_out]
    return Analyzed(data, results, seconds, reasons, warned, header, refused, pictures)


def _messages(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """The different messages to users. Others, such as those of deprecations, are for programmers."""
    texts = [str(item.message) for item in caught if issubclass(item.category, (UserWarning, RuntimeWarning))]
    return list(dict.fromkeys(texts))


def _missing(analysis: Analysis, data: Data, done: Collection[str]) -> str | None:
    """What ``analysis`` lacks, or None."""
    for need in analysis.needs:
        if need in NEEDS:
            has, reason = NEEDS[need]
            if not has(data):
                return reason
        elif need not in done:
            return f"it needs {need}, which is left out"
    return None


# ---------------------------------------------------------------- the command


def results_of(args: argparse.Namespace, op: MMPHATE) -> tuple[result_folder.Results, Analyzed]:
    """Embed the trace of the command, or read its folder of results, and run the analyses.

    ``op`` has the settings of the embedding, for a trace.
    """
    started = time.perf_counter()
    left_out = chosen(args.only, args.skip, [name for name in LONG if getattr(args, name)])
    if (args.input / result_folder.EMBEDDING).is_file():
        data = _of_folder(args)
        report: dict[str, Any] = {"program": PROGRAM, "version": __version__}
    else:
        data, report = _of_trace(args, op)
    asked = {name: getattr(args, name) for name in ("trace", "labels", "only", "skip", *LONG)}
    analyzed = analyze(data, left_out, source=str(args.input), asked=asked, pictures=not args.no_plots)
    report |= {"input": str(args.input), "seed": data.seed, "seconds": time.perf_counter() - started}
    embeddings = {result_folder.EMBEDDING: op.result_} if data.estimator is op else {}
    return result_folder.Results(report, embeddings, write_more=analyzed.write), analyzed


def _of_trace(args: argparse.Namespace, op: MMPHATE) -> tuple[Data, dict[str, Any]]:
    if args.trace is not None:
        raise InputError(f"--trace {args.trace} is for a folder with {result_folder.EMBEDDING}; {args.input} has none")
    trace, labels = _trace_and_labels(args, args.input)
    op.fit(trace)
    report = result_folder.report(op, trace, seconds=0, recipe=args.recipe)
    return Data(op.result_, op, trace, labels, seed=args.seed, verbose=True), report


def _of_folder(args: argparse.Namespace) -> Data:
    from ..embedding import Embedding

    _refuse_fit_options(args)
    embedding = Embedding.load(args.input / result_folder.EMBEDDING)
    trace, labels = None, None
    path = args.trace if args.trace is not None else args.input / result_folder.TRACE
    if args.trace is not None or path.is_file():
        trace, labels = _trace_and_labels(args, path)
        _check_same(path, trace, args.input, embedding)
    elif args.labels is not None:
        raise InputError(f"--labels {args.labels} needs the trace of {args.input}; accepted: --trace TRACE beside it")
    return Data(embedding, _estimator(args), trace, labels, seed=args.seed, verbose=True)


def _refuse_fit_options(args: argparse.Namespace) -> None:
    """Refuse settings of an embedding for a folder that has one. Its device is that of further fits."""
    from ..params import Params

    for name in ("recipe", *FIT):
        if name != "device" and getattr(args, name) != getattr(Params, name, "default"):
            option = f"--{name.replace('_', '-')} {getattr(args, name)}"
            accepted = f"accepted: the settings in its {result_folder.REPORT}, or a trace in place of the folder"
            raise InputError(f"{option} is for a trace, and {args.input} holds an embedding; {accepted}")


def _trace_and_labels(args: argparse.Namespace, path: Path) -> tuple[Trace, np.ndarray | None]:
    from ..analysis.sample_labels import sample_labels
    from ..trace import as_trace, load_trace
    from ..trace.formats.arrays import naming
    from .labels import read_labels

    trace = as_trace(load_trace(path, follow_links=args.follow_links))
    if args.labels is None:
        return trace, trace.label
    labels = read_labels(args.labels, trace.n_samples)
    with naming(args.labels):
        sample_labels(trace, labels)  # refuses labels that no analysis can use, before the embedding
    return trace, labels


def _check_same(path: Path, trace: Trace, folder: Path, embedding: Embedding) -> None:
    """Raise `InputError` unless the nodes of ``embedding`` are those of ``trace``."""
    from ..embedding import AXES

    for axis in AXES:
        labels, wanted = getattr(trace, axis), getattr(embedding.layout, axis)
        if labels.shape != wanted.shape or (labels != wanted).any():
            raise InputError(f"the trace {path} has other {axis}s than {folder}; accepted: the trace of this embedding")


def _estimator(args: argparse.Namespace) -> MMPHATE:
    """An estimator with the parameters in the report of the folder; the defaults without a report."""
    from ..estimator import MMPHATE
    from ..params import Params

    stored = (result_folder.read_report(args.input) or {}).get("parameters")
    stored = stored if isinstance(stored, dict) else {}
    known = {name: value for name, value in stored.items() if name in Params.__dataclass_fields__}
    options = known | {"random_state": args.seed, "device": args.device}
    from ..trace.formats.arrays import naming

    with naming(args.input / result_folder.REPORT):
        Params(**options)
    return MMPHATE(**options)
