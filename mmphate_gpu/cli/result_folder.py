"""The folder of results that the commands `embed` and `demo` write, whole or not at all."""

from __future__ import annotations

import json
import math
import numbers
import os
import platform
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError
from ..runtime.atomic import (
    PathExistsError,
    is_scratch,
    listing,
    names_to_keep,
    short,
    whole_file,
    whole_folder,
)
from ..runtime.paths import writable
from ..runtime.signals import Stopped, stoppable
from ..runtime.streams import encodable
from .analyses import PICTURES as ANALYSIS_PICTURES
from .arguments import PROGRAM

if TYPE_CHECKING:
    from ..embedding import Embedding
    from ..estimator import MMPHATE
    from ..trace import Trace

EMBEDDING, EMBEDDING_3D, TRACE = "embedding.npz", "embedding3d.npz", "trace.npz"
PANELS, PANELS_3D, ENTROPY, REPORT = "panels.png", "panels3d.png", "entropy.png", "report.json"
ANALYSIS = "analysis.json"
OF_DEMO = frozenset({EMBEDDING, EMBEDDING_3D, TRACE, PANELS, PANELS_3D, ENTROPY, REPORT})
PAGE, INTERACTIVE = "report.html", "picture.html"  # of the commands report and view
FILES = OF_DEMO | {ANALYSIS, PAGE, INTERACTIVE} | ANALYSIS_PICTURES
PICTURES = {EMBEDDING: PANELS, EMBEDDING_3D: PANELS_3D}
MAX_REPORT = 1 << 24  # bytes; a real report has some thousands
MAX_DEPTH = 50  # objects and lists within each other in a .json; this program writes at most six


@contextmanager
def result_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give an empty folder beside ``path``, and move it to ``path`` when the block succeeds.

    After an error, Ctrl-C or a request to stop (SIGTERM, SIGHUP) that folder is deleted, and ``path`` is unchanged. If
    the process is stopped while it deletes the folder, the next run to ``path`` deletes it.

    Raises
    ------
    InputError
        See `check_folder`.
    """
    check_folder(path, force=force)
    inode = None
    try:
        with stoppable(), whole_folder(path, overwrite=force, others=others) as new:
            with writable(path):
                new.mkdir()
            yield new
            with writable(path):
                inode = new.stat().st_ino
            check_folder(path, force=force)  # another run may have taken the name meanwhile
    except PathExistsError as error:
        raise InputError(_exists(path)) from error
    except (KeyboardInterrupt, Stopped) as stop:
        if inode is not None and path.exists() and path.stat().st_ino == inode:
            stop.args = (f"{path} holds the results, without pictures",)
        raise


@dataclass(frozen=True)
class Results:
    """The results of a run.

    Attributes
    ----------
    report : the content of report.json.
    embeddings : {name of the file: embedding}.
    trace : the trace that the run itself recorded (`demo`), or None.
    write_more : writes further files into a folder.
    """

    report: dict[str, Any]
    embeddings: Mapping[str, Embedding]
    trace: Trace | None = None
    write_more: Callable[[Path], Any] = lambda folder: None

    def write(self, folder: Path) -> None:
        """Write everything into ``folder``, the report last."""
        from ..trace import save_trace

        if self.trace is not None:
            save_trace(folder / TRACE, self.trace)
        for name, embedding in self.embeddings.items():
            embedding.save(folder / name)
        self.write_more(folder)
        write_report(folder, self.report)


def saved(path: Path, compute: Callable[[], Results], *, force: bool = False) -> Results:
    """Compute results and save them in a new folder at ``path``.

    If the results cannot be saved there once they are computed, they are saved beside ``path``, or else in the system's
    folder for temporary files. The error says where they are.

    Raises
    ------
    InputError
        `check_folder` refuses ``path``, before anything is computed; ``compute`` raises it; ``path`` cannot be written.
    """
    results = None
    try:
        with result_folder(path, force=force) as folder:
            results = compute()
            results.write(folder)
    except (InputError, OSError, MemoryError, RuntimeError) as error:  # torch's own RuntimeError: no memory
        if results is None:
            raise
        reason = f"{path} cannot be written ({type(error).__name__}: {error})"
        raise InputError(f"{error if isinstance(error, InputError) else reason}; {_kept(path, results)}") from error
    return results


def _kept(path: Path, results: Results) -> str:
    """Save ``results`` in another folder, and return the end of a message that says where."""
    name = f"{short(path.name)}.{secrets.token_hex(4)}.kept"
    for parent in (lambda: path.parent, lambda: Path(tempfile.gettempdir())):
        # `gettempdir` raises if there is no folder for temporary files.
        with suppress(InputError, OSError, MemoryError, RuntimeError):
            kept = parent() / name
            with result_folder(kept) as folder:
                folder.chmod(0o700)  # other users may read the folder for temporary files
                results.write(folder)
            return f"the results are kept in {kept}"
    return "they could not be kept elsewhere"


def check_folder(path: Path, *, force: bool = False) -> None:
    """Raise `InputError` unless a folder may be written at ``path``; ``force`` allows a folder of results there."""
    try:
        _check_folder(path, force)
    except FileNotFoundError:  # nothing is there, or another run has just moved it
        pass
    except OSError as error:  # a name too long, a folder that may not be read
        raise InputError(
            f"--out {path} cannot be used ({error.strerror}); accepted: the path of a new folder"
        ) from error


def _check_folder(path: Path, force: bool) -> None:
    if not path.name or path.name == "..":
        raise InputError(f"--out {path} has no name of a folder at its end; accepted: the path of a new folder")
    if not path.parent.is_dir():
        raise InputError(
            f"--out {path}: the folder {path.parent} does not exist; accepted: a new folder in an existing one"
        )
    path.lstat()
    if not force:
        raise InputError(_exists(path))
    only = "--force replaces a folder of results only"
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"--out {path} is no folder; {only}")
    if os.path.ismount(path):
        raise InputError(f"--out {path} is a mount point, which cannot be renamed; accepted: a new folder in it")
    names = names_to_keep(path, others)
    if names and FILES.issuperset(names) and read_report(path) is None:
        raise InputError(f"--out {path} has no {REPORT} of {PROGRAM}; {only}")
    if names:
        raise InputError(f"--out {path} holds {listing(names)}, which {PROGRAM} did not write; {only}")


def _exists(path: Path) -> str:
    return f"--out {path} exists; accepted: a new name, or --force to replace the results in it"


def others(folder: Path) -> list[str]:
    """The names in a folder of results that its report does not list. Scratch folders do not count.

    For a folder without a report these are all of its names, and for a path that is no folder it is its name.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder.name]
    items = sorted(folder.iterdir())
    written = written_by(read_report(folder))  # read after the names, because a file is listed before it is written
    unknown = [item for item in items if not (item.name in written and _is_plain(item)) and not _is_scratch(item)]
    return [item.name for item in unknown if os.path.lexists(item)]  # scratch may have been deleted meanwhile


def written_by(report: Mapping[str, Any] | None) -> frozenset[str]:
    """The files that ``report`` lists, without names that this program never writes."""
    if report is None:
        return frozenset()
    if "files" not in report:  # a report of an earlier version
        return OF_DEMO if "train_accuracy" in report else OF_DEMO - {TRACE, EMBEDDING_3D, PANELS_3D}
    listed = report["files"] if isinstance(report["files"], list) else []
    return FILES & {REPORT, *(name for name in listed if isinstance(name, str))}


def _is_scratch(item: Path) -> bool:
    """Whether ``item`` is a scratch folder of this program in a folder of results; a killed process leaves one."""
    return any(is_scratch(item, name) for name in FILES)


def check_outside(source: Path, out: Path) -> None:
    """Raise `InputError` if replacing the folder ``out`` would delete the input ``source``."""
    if out.resolve() in [source.resolve(), *source.resolve().parents]:
        raise InputError(f"--out {out} holds the input {source}; accepted: another folder")


def check_beside(path: Path, folder: Path) -> None:
    """Raise `InputError` if the new file ``path`` would lie in ``folder``, whose report does not list it."""
    if folder.resolve() in path.parent.resolve().joinpath(path.name).parents:
        raise InputError(f"--out {path} is in the folder of results {folder}; accepted: a path outside it")


def _is_plain(item: Path) -> bool:
    return item.is_file() and not item.is_symlink()


def read_report(folder: Path) -> dict[str, Any] | None:
    """The content of the report in ``folder``; None if this program wrote no report there."""
    try:
        report = read_json(folder / REPORT, MAX_REPORT)
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("program") == PROGRAM else None


def read_json(path: Path, max_bytes: int) -> Any:
    """The content of a .json that anybody may have edited; raises OSError, or ValueError if it is not acceptable."""
    if not _is_plain(path) or path.stat().st_size > max_bytes:  # reading a FIFO would not end
        raise ValueError("it is too large, or no regular file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [item for each in level for item in _items(each)]
    if level:
        raise ValueError("its values are nested too deeply")
    return content


def _items(value: Any) -> Iterable[Any]:
    """What is in a JSON object or list."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def checked_report(folder: Path) -> dict[str, Any] | None:
    """The content of report.json in ``folder``, None without it; raises `InputError` if it is not of this program."""
    report = read_report(folder)
    if report is None and (folder / REPORT).exists():
        raise InputError(f"{folder / REPORT} is damaged, or {PROGRAM} did not write it; accepted: the file of a run")
    return report


def check_listed(path: Path, report: Mapping[str, Any] | None, *, force: bool = False) -> None:
    """Raise `InputError` if ``path`` is a file in a folder of results that its ``report`` does not list."""
    if path.exists() and not force and path.name not in written_by(report):
        raise InputError(f"{path} exists, and {REPORT} does not list it; accepted: a folder without that file")


def read_embeddings(folder: Path, *, needed: bool = True) -> dict[str, Embedding]:
    """The embeddings in ``folder`` by the names of their files.

    Raises
    ------
    InputError
        It is no folder, a file is damaged, or there is no embedding although one is ``needed``.
    """
    from ..embedding import Embedding

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; accepted: a folder that {PROGRAM} embed, demo or analyze wrote")
    names = [name for name in (EMBEDDING, EMBEDDING_3D) if (folder / name).exists()]
    if needed and not names:
        raise InputError(f"{folder} has no {EMBEDDING}; accepted: a folder that {PROGRAM} embed or demo wrote")
    return {name: Embedding.load(folder / name) for name in names}


def holds(folder: Path, report: dict[str, Any] | None) -> bool:
    """Whether the report in ``folder`` equals ``report``, apart from the list of files."""
    reports = (read_report(folder), report)
    contents = [None if values is None else {**json.loads(_text(values)), "files": None} for values in reports]
    return contents[0] == contents[1]


def report(op: MMPHATE, trace: Trace, *, seconds: float, **more: Any) -> dict[str, Any]:
    """The content of report.json: the settings of the run, its time and memory, and ``more``."""
    from ..config import LIBRARIES, version_of

    stages = [{**stage, "peak_bytes": int(stage["peak_bytes"])} for stage in op.report_]
    return {
        "program": PROGRAM,
        "version": __version__,
        "trace": {
            "epoch": trace.n_epochs,
            "timestep": trace.n_timesteps,
            "unit": trace.n_units,
            "sample": trace.n_samples,
            "dtype": str(trace.data.dtype).removeprefix("torch."),
            "masked": trace.mask is not None,
        },
        "parameters": parameters(op),
        "seed": op.random_state,
        "device": str(op.affinity_.device),
        "n_landmark": op.n_landmark_,
        "t": op.t_,
        "t_range": op.t_range_,
        "stress": op.stress_,
        "bandwidth": op.bandwidth_,
        "seconds": seconds,
        "peak_bytes": max(stage["peak_bytes"] for stage in stages),
        "stages": stages,
        "versions": {"python": platform.python_version(), "mmphate-gpu": __version__}
        | {package: version_of(package) for package in LIBRARIES},
        **_recorded(trace),
        **more,
    }


def _recorded(trace: Trace) -> dict[str, Any]:
    """What the trace says of its epochs and units, by which pages color the picture."""
    metrics = {"metrics": {name: values.tolist() for name, values in trace.metrics.items()}}
    layers = {} if trace.unit_layer is None else {"unit_layer": [str(layer) for layer in trace.unit_layer]}
    return (metrics if trace.metrics else {}) | layers


def parameters(op: MMPHATE) -> dict[str, Any]:
    """The parameters of ``op`` that decide its result."""
    hidden = {"verbose", "callback"}
    return {name: value for name, value in op.get_params().items() if name not in hidden} | {"device": str(op.device)}


def write_report(folder: Path, values: dict[str, Any]) -> None:
    """Write report.json with ``values`` and the list of the files in ``folder``, which --force may replace."""
    write_listed_report(folder, values | {"files": sorted({REPORT, *(item.name for item in folder.iterdir())})})


def write_listed_report(folder: Path, values: dict[str, Any]) -> None:
    """Write report.json with ``values``, which have the list of the files."""
    with whole_file(folder / REPORT, overwrite=True) as new:
        new.write_text(_text(values) + "\n", encoding="utf-8")


def _text(values: dict[str, Any]) -> str:
    return json.dumps(jsonable(values), indent=2, allow_nan=False)


def jsonable(value: Any) -> Any:
    """``value`` in types of JSON: None for NaN and infinities, escapes for characters that UTF-8 cannot encode."""
    if isinstance(value, dict):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return None if value is None else encodable(str(value))
