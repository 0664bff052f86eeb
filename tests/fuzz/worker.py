"""A process that loads mutated files and reports how each load ended; ``pool.py`` starts it.

As a program, ``python tests/fuzz/worker.py FORMAT NUMBER [--stream] [--keep DIR]`` loads one file by itself, and
writes it into DIR. Numbers below 0 are the honest files.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from documents import CANARY
from mutations import Mutated, Special, mutated, n_seeds

GROWTH_LIMIT = 200e6
LONGEST_MESSAGE = 600  # characters without the path of the file
# The name, without its ending, of every mutated file: a message must hold it.
STEM = "mutated-trace"


# ---------------------------------------------------------------- files


def write(case: Mutated, folder: Path) -> Path:
    """The mutated file or folder in ``folder``; `Special.LINK_OUT` leads to a copy of the honest file beside it."""
    path = folder / f"{STEM}{case.ending}"
    for name, entry in case.tree.items():
        place = path / name if name else path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, bytes):
            place.write_bytes(entry)
        else:
            _write_special(entry, place, folder / "outside", case.honest.get(name, b""))
    return path


def _write_special(entry: Special, place: Path, outside: Path, honest: bytes) -> None:
    if entry is Special.FIFO and hasattr(os, "mkfifo"):
        os.mkfifo(place)
    elif entry in (Special.FOLDER, Special.FIFO):
        place.mkdir()
    else:
        outside.write_bytes(honest)
        targets = {Special.LINK_OUT: outside, Special.LINK_TO_ITSELF: place, Special.LINK_TO_NOTHING: place / "nothing"}
        with contextlib.suppress(OSError):  # Windows asks for a right to make links; without it the file is missing
            place.symlink_to(targets[entry])


# ---------------------------------------------------------------- readers


def read_in_memory(path: Path) -> Any:
    """The trace, whose shape must be that of its heading."""
    from mmphate_gpu import load_trace
    from mmphate_gpu.errors import InputError
    from mmphate_gpu.trace.files import heading

    try:
        header, refused = heading(path), ""
    except InputError as error:
        header, refused = None, str(error)
    trace = load_trace(path, stream=False)
    if refused:
        raise AssertionError(f"the heading is refused, the trace is not: {refused}")
    shape = trace.shape if len(trace.axes) == 4 else trace.shape[:1] + trace.shape[2:]
    if header is not None and tuple(header.shape) != shape:
        raise AssertionError(f"the heading says {header.shape}, the trace has the shape {shape}")
    return trace


def read_by_parts(path: Path) -> Any:
    """The trace, opened and then read."""
    from mmphate_gpu import load_trace

    return load_trace(path, stream=True).load()


def read_embedding(path: Path) -> Any:
    """The embedding."""
    from mmphate_gpu.embedding import Embedding

    return Embedding.load(path)


def _never_ends(path: Path) -> Any:
    while True:
        pass


def _takes_memory(path: Path) -> Any:
    return len(bytearray(b"x") * 400_000_000)


def _raises(path: Path) -> Any:
    raise KeyError(str(path))


def _runs_pickles(path: Path) -> Any:
    Path(CANARY).touch()


def _says_too_much(path: Path) -> Any:
    from mmphate_gpu.errors import InputError

    raise InputError(f"{path} is broken\n" * 100)


FORMAT_READERS: dict[str, Callable[[Path], Any]] = {
    "memory": read_in_memory,
    "parts": read_by_parts,
    "embedding": read_embedding,
}
# Among them are faulty readers, which test the fuzzer itself.
READERS = FORMAT_READERS | {
    "faulty: hang": _never_ends,
    "faulty: blocked": lambda path: threading.Event().wait(),
    "faulty: memory": _takes_memory,
    "faulty: wrong exception": _raises,
    "faulty: death": lambda path: os._exit(3),
    "faulty: code run": _runs_pickles,
    "faulty: message": _says_too_much,
}


def _digest(result: Any) -> str:
    """A hash of what was read; masked values do not count, and present ones must be finite."""
    import numpy as np
    import torch

    if not hasattr(result, "mask"):  # an embedding
        arrays = [result.coordinates]
    else:
        values = result.data if result.mask is None else torch.where(result.mask, result.data, 0)
        arrays = [values.numpy(), *(getattr(result, name) for name in ("epoch", "timestep", "unit", "sample"))]
        arrays += [] if result.label is None else [result.label]
        if result.mask is not None and not bool(result.mask.all()):
            arrays.append(result.mask.to(torch.uint8).numpy())  # 1 for any byte that is not 0
    if not np.isfinite(arrays[0]).all():
        raise AssertionError("values are not finite")
    digest = hashlib.sha256(repr([(array.dtype.str, array.shape) for array in arrays]).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- one load


def load(path: Path, reader: str, n_bytes: int) -> dict[str, Any]:
    """{"outcome", "detail", "digest", "growth"} of one load of a file of ``n_bytes``.

    An outcome other than "ok" and "refused" is a fault. Values that are read may take their own size several times.
    """
    from mmphate_gpu.errors import InputError

    before, report = _reset_peak(), {"outcome": "ok", "detail": "", "digest": ""}
    growth = 0
    try:
        result = READERS[reader](path)
        growth = 0 if before is None else _peak() - before
        if reader in FORMAT_READERS:
            n_bytes += 4 * getattr(result, "nbytes", 0)  # of a trace
            report["digest"] = _digest(result)
    except InputError as error:
        report = _refusal(str(error), str(path))
    except AssertionError as error:
        report = {"outcome": "wrong result", "detail": f"{error} @ {_place(error)}"}
    except BaseException as error:  # any exception is a result of the test
        report = {"outcome": "wrong exception", "detail": f"{type(error).__name__}: {error} @ {_place(error)}"}
    if report["outcome"] != "ok":
        growth = 0 if before is None else _peak() - before
    if growth > GROWTH_LIMIT + n_bytes:
        detail = (
            f"{growth / 1e6:.0f} MB more where {n_bytes} bytes are honest, then: {report['outcome']} {report['detail']}"
        )
        report |= {"outcome": "memory", "detail": detail}
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        report |= {"outcome": "code run", "detail": "a pickle was loaded"}
    return report | {"growth": growth}


def _refusal(message: str, path: str) -> dict[str, Any]:
    if STEM not in message or "\n" in message or len(message) > LONGEST_MESSAGE + len(path):
        return {"outcome": "message", "detail": f"{len(message)} characters: {message[:200]!r}"}
    return {"outcome": "refused", "detail": message}


def _place(error: BaseException) -> str:
    """The innermost line of the package in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "mmphate_gpu" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "outside"


def _reset_peak() -> int | None:
    """Reset the peak of the memory and return the resident bytes; None where the system counts no peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# ---------------------------------------------------------------- the process


def answer(format_name: str, number: int, readers: list[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Write the file, and load it once with each reader; ``say`` gets a report before and after each load."""
    folder = Path("case")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    case = mutated(format_name, number)
    path = write(case, folder).absolute()
    _warm_up(format_name, tuple(readers))
    n_bytes = sum(len(entry) for entry in case.tree.values() if isinstance(entry, bytes))
    for reader in readers:
        say({"begun": reader})
        report = load(path, reader, n_bytes)
        if report["outcome"] == "ok" and Special.LINK_OUT in case.tree.values():
            report |= {"outcome": "wrong result", "detail": "a link out of the folder was followed"}
        say(report)


@cache
def _warm_up(format_name: str, readers: tuple[str, ...]) -> None:
    """Read a valid file first, so that memory for imports does not count as growth of a later load."""
    folder = Path("warm")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = write(mutated(format_name, -1), folder).absolute()
    for reader in readers:
        if reader in FORMAT_READERS:
            load(path, reader, 0)


def serve() -> None:
    """Answer lines [format, number, readers] until the input ends."""
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # a signal prints where the process hangs
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with the reports
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        for line in sys.stdin:
            answer(*json.loads(line), say=lambda report: print(json.dumps(report), file=pipe))
        os.chdir("/")


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        serve()
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format")
    parser.add_argument("number", type=int)
    parser.add_argument("--stream", action="store_true", help="read block by block")
    parser.add_argument("--keep", metavar="DIR", help="write the file there")
    options = parser.parse_args()
    case = mutated(options.format, options.number)
    print(f"number {options.number} of {options.format}, seed {case.name!r} of {n_seeds(options.format)}")
    for name, entry in case.tree.items():
        if entry != case.honest.get(name):
            print(f"changed: {name or 'the file'}: {entry if isinstance(entry, Special) else entry[:1000]!r}")
    if options.keep:
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        print("written:", write(case, Path(options.keep)))
    reader = "embedding" if options.format == "embedding" else "parts" if options.stream else "memory"
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        answer(options.format, options.number, [reader], say=print)
        os.chdir("/")


if __name__ == "__main__":
    main()
