"""What was run and how, how to run it again, and the checksums of the files."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...params import RECIPES, Params
from ..arguments import FIT, LONG, PROGRAM
from ..result_folder import ANALYSIS, FILES, PAGE, REPORT, TRACE
from .html import Html, code, join, name, paragraph, table, tag
from .run import Run
from .values import bytes_text, count, mapping, number, number_text, seconds_text, text, texts

BLOCK = 1 << 20  # bytes that are read at once


# ---------------------------------------------------------------- what was run


def run_section(run: Run) -> Html:
    """The input, the settings, the stages and the versions."""
    if run.report is None:
        return paragraph(f"{REPORT} is missing, so the settings and the seconds of this run are not known.")
    beside = tag("div", tag("div", _facts(run), *_versions(run)), *_settings(run), class_="beside")
    return join([beside, *_stages(run)])


def _facts(run: Run) -> Html:
    rows = [(what, name(value)) for what, value in _fact_texts(run.values) if value]
    return table(("what", "value"), rows, "The run")


def _fact_texts(report: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    trace = mapping(report.get("trace"))
    sizes = [count(trace.get(axis)) for axis in ("epoch", "timestep", "unit", "sample")]
    yield "input", text(report.get("input")) or ("recorded by demo" if _is_demo(report) else None)
    if None not in sizes:
        masked = ", with a mask" if trace.get("masked") is True else ""
        epochs, timesteps, units, samples = (f"{size:,}" for size in sizes)
        shape = f"{epochs} epochs × {timesteps} time steps × {units} units × {samples} samples"
        yield "trace", f"{shape}, {text(trace.get('dtype')) or 'unknown type'}{masked}"
    yield "recipe", text(report.get("recipe"))
    yield "device", text(report.get("device"))
    for key, what in (("n_landmark", "landmarks"), ("t", "t"), ("stress", "stress"), ("bandwidth", "bandwidth")):
        if number(report.get(key)) is not None:
            yield what, number_text(report[key])
    if (seconds := number(report.get("seconds"))) is not None:
        yield "time of the run", seconds_text(seconds)
    yield "peak memory", bytes_text(number(report.get("peak_bytes")))


def _settings(run: Run) -> list[Html]:
    if run.params is None:
        return [paragraph("The report has no settings that this version can read.", class_="missing")]
    stored = mapping(run.values.get("parameters"))
    rows = [
        _setting(key, getattr(run.params, key), getattr(Params, key)) for key in sorted(stored) if hasattr(Params, key)
    ]
    caption = "Settings; a mark shows what differs from the default"
    return [table(("setting", "value", "default"), rows, caption)]


def _setting(key: str, value: object, default: object) -> tuple[Html, Html, Html]:
    shown = name(repr(value) if isinstance(value, str) else value)
    marked = tag("mark", shown) if value != default and key != "random_state" else shown
    return tag("code", key), marked, name(repr(default) if isinstance(default, str) else default)


def _stages(run: Run) -> list[Html]:
    rows = [stage for stage in run.stages if text(stage.get("stage"))]
    if not rows:
        return [paragraph("The report has no stages.", class_="missing")]
    seconds, sizes = ([number(stage.get(key)) or 0.0 for stage in rows] for key in ("seconds", "bytes"))
    cells = [
        (name(stage["stage"]), _bar(time, max(seconds), seconds_text(time)), _bar(size, max(sizes), bytes_text(size)))
        for stage, time, size in zip(rows, seconds, sizes, strict=True)
    ]
    forms = [name(text(stage.get("form")) or "") for stage in rows]
    return [
        table(
            ("stage", "seconds", "bytes of the result", "form"),
            [(*cell, form) for cell, form in zip(cells, forms, strict=True)],
            "Seconds and bytes of each stage",
            class_="stages",
        )
    ]


def _bar(value: float, largest: float, label: str) -> Html:
    share = 100 * max(value, 0.0) / largest if largest > 0 else 0.0
    return join([tag("span", class_="bar", style=f"width:{share * 0.8:.1f}px"), tag("span", label)])


def _versions(run: Run) -> list[Html]:
    versions = {key: value for key, value in mapping(run.values.get("versions")).items() if text(value)}
    if not versions:
        return []
    return [table(("package", "version"), [(name(key), name(value)) for key, value in versions.items()], "Versions")]


# ---------------------------------------------------------------- how to run it again


def reproduce_section(run: Run) -> Html:
    """The commands and the lines of Python that compute the same, and the versions and the seed."""
    commands = [shlex.join(words) for words in (_command(run), _analyze_command(run), _report_command(run)) if words]
    sentence = "The same seed, device, number of threads and versions give the same bits."
    parts = [paragraph(sentence), tag("h3", "On the command line"), code("\n".join(commands))]
    if (lines := snippet(run)) is not None:
        parts += [tag("h3", "In Python"), code(lines)]
    return join([*parts, paragraph(_seed(run))])


def _seed(run: Run) -> str:
    seed = count(run.values.get("seed"))
    version = text(run.values.get("version"))
    known = [f"The seed is {seed}." if seed is not None else "The seed is not known."]
    return " ".join([*known, *[f"The version of mmphate_gpu was {version}."] * (version is not None)])


def _is_demo(report: Mapping[str, Any]) -> bool:
    return "train_accuracy" in report


def _changed(run: Run) -> dict[str, Any]:
    """The settings of the run that differ from the defaults, with the seed. {} if they are not known."""
    if run.params is None:
        return {}
    values = {key: getattr(run.params, key) for key in Params.__dataclass_fields__}
    return {key: value for key, value in values.items() if value != getattr(Params, key)}


def _command(run: Run) -> list[str]:
    """The command that made the embedding; [] if the report does not say enough."""
    source = text(run.values.get("input"))
    if _is_demo(run.values):
        epochs = count(mapping(run.values.get("trace")).get("epoch")) or 1
        words = [PROGRAM, "demo", "--out", operand(run.folder), "--epochs", str(epochs - 1)]
        changed = {key: value for key, value in _changed(run).items() if key in ("random_state", "device")}
        recipe = text(run.values.get("recipe"))
        return [*words, *[f"--recipe={recipe}"] * (recipe in RECIPES and recipe != "default"), *_options(changed)]
    with_analyses = run.analysis_folder == run.folder
    if source is None or (run.params is None and not with_analyses):
        return []
    words = [PROGRAM, "analyze" if with_analyses else "embed", operand(source), "--out", operand(run.folder)]
    return [*words, *(_analysis_options(run) if with_analyses else []), *_options(_changed(run))]


def operand(path: Path | str) -> str:
    """``path`` as an argument that no program takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _options(settings: Mapping[str, Any]) -> list[str]:
    """The options of the command line for ``settings``."""
    names = {key: key.replace("_", "-") for key in FIT} | {"random_state": "seed"}
    values = {names[key]: value for key, value in settings.items() if key in names}
    return [f"--{option}={'none' if value is None else value}" for option, value in values.items()]


def _analyze_command(run: Run) -> list[str]:
    """The command that made the analyses of an embedding; [] without them."""
    if run.analysis_folder in (None, run.folder) or not run.embeddings:
        return []
    seed = count(run.analysis.get("seed"))
    words = [PROGRAM, "analyze", operand(run.folder), "--out", operand(run.analysis_folder)]
    return [*words, *_analysis_options(run), *[f"--seed={seed}"] * bool(seed)]


def _analysis_options(run: Run) -> list[str]:
    """The options of `analyze` that choose what it reads and does."""
    settings = mapping(run.analysis.get("settings"))
    named = [f"--{key}={value}" for key in ("trace", "labels", "only", "skip") if (value := text(settings.get(key)))]
    return [*named, *(f"--{key.replace('_', '-')}" for key in LONG if settings.get(key) is True)]


def _report_command(run: Run) -> list[str]:
    words = [PROGRAM, "report", operand(run.folder)]
    if run.analysis_folder not in (None, run.folder):
        words += ["--analysis", operand(run.analysis_folder)]
    return words


def snippet(run: Run) -> str | None:
    """Lines of Python that compute the embeddings; None if the report does not say enough."""
    source = text(run.values.get("input"))
    if run.params is None or (source is None and not _is_demo(run.values)):
        return None
    path = source if source is not None else str(run.folder / TRACE)
    settings = ", ".join(f"{key}={value!r}" for key, value in _changed(run).items())
    return "\n".join(
        [
            "from mmphate_gpu import MMPHATE, load_trace",
            "",
            f"trace = load_trace({path!r})",
            f"result = MMPHATE({settings}).fit(trace).result_",
            'result.save("again.npz")',
        ]
    )


# ---------------------------------------------------------------- files


def files_section(run: Run, report: Path) -> Html:
    """The files with their sizes and SHA-256. ``report`` is the report.json that the folder will have."""
    paths = {file: run.folder / file for file in sorted(FILES - {PAGE})} | {REPORT: report}
    if run.analysis_folder not in (None, run.folder):
        listed = sorted({ANALYSIS, *texts(run.analysis.get("files"))} & FILES)
        place = run.analysis_folder.resolve().name
        paths |= {f"{place}/{file}": run.analysis_folder / file for file in listed}
    rows = [(name(label), *_checksum(path)) for label, path in paths.items() if path.is_file()]
    sentence = "A file with another checksum is not the file that this page was made from."
    return join([paragraph(sentence), table(("file", "bytes", "SHA-256"), rows, "Files", class_="files")])


def _checksum(path: Path) -> tuple[str, Html]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return f"{size:,}", tag("code", digest.hexdigest())
