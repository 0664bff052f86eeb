"""With closed or full streams, or a disk that refuses, the result is whole, and one sentence says what failed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main

ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell, POSIX limits")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    return tmp_path


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


def shell(command, **environment):
    script = f'set -o pipefail; program="\'{sys.executable}\' -X dev -m mmphate_gpu"; eval "$program {command}"'
    return subprocess.run(["bash", "-c", script], capture_output=True, env=ENV | environment)


# ---------------------------------------------------------------- an error of the disk


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EBUSY", "EIO", "EMFILE"])
def test_what_the_file_system_refuses_is_one_sentence(here, monkeypatch, capsys, name):
    code = getattr(errno, name)

    def fail(*args):
        raise OSError(code, os.strerror(code), "some/file")

    monkeypatch.setattr("mmphate_gpu.planning.plan", lambda *args, **options: fail())
    assert main(["plan", "--shape", "6,5,3,4"]) == 2
    sentence = f"some/file cannot be read or written ({os.strerror(code)}); no result was written"
    assert capsys.readouterr().err == f"mmphate-gpu: error: {sentence}\n"
    assert names(here) == {"trace.npy"}


def test_an_oserror_without_a_file_name(here, monkeypatch, capsys):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmphate_gpu.planning.plan", fail)
    assert main(["plan", "--shape", "6,5,3,4"]) == 2
    assert "error: a file cannot be read or written (No space left on device)" in capsys.readouterr().err


def test_an_oserror_that_the_disk_does_not_explain_is_a_fault(here, monkeypatch, capsys):
    def fail(*args, **options):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("mmphate_gpu.planning.plan", fail)
    assert main(["plan", "--shape", "6,5,3,4"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_files_that_may_not_grow_leave_no_half_result(here, capsys):
    """Files may have at most 4096 bytes, and the embedding needs more."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert main(["embed", "trace.npy", "--out", "out", "--device", "cpu"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "File too large" in last and "Traceback" not in last and names(here) == {"trace.npy"}


# ---------------------------------------------------------------- streams of a process


CLOSED = """
import os, sys
import numpy as np
for descriptor in {closed}:
    os.close(descriptor)
import mmphate_gpu.cli as cli
save = np.savez
def savez(*args, **arrays):
    for descriptor in {closed}:
        os.write(descriptor, b"text of a library")
    save(*args, **arrays)
    for descriptor in {closed}:
        os.write(descriptor, b"text of a library")
np.savez = savez
sys.exit(cli.main(["embed", "trace.npy", "--out", "out", "--device", "cpu", "--no-plots"]))
"""


@pytest.mark.parametrize("closed", [(0, 1, 2), pytest.param((1,), marks=pytest.mark.slow)])
def test_what_a_library_prints_goes_into_no_file(here, closed):
    """An opened file gets the number of a closed descriptor, unless the package has filled that before."""
    done = subprocess.run([sys.executable, "-c", CLOSED.format(closed=closed)], env=ENV, cwd=here)
    assert done.returncode == 0 and names("out") == {"embedding.npz", "report.json"}
    assert mp.Embedding.load("out/embedding.npz").n_nodes == 90
    assert b"text of a library" not in Path("out/embedding.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams, code",
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        ("2>/dev/full", 0),
        (">/dev/full 2>&-", 1),
        (">/dev/full 2>/dev/full", 1),
    ],
)
def test_a_run_ends_well_whatever_its_streams(here, streams, code):
    if "/dev/full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("/dev/full")
    done = shell(f"embed trace.npy --out out --device cpu --no-plots {streams}")
    assert done.returncode == code and b"Traceback" not in done.stderr
    assert names("out") == {"embedding.npz", "report.json"} and mp.Embedding.load("out/embedding.npz").n_nodes == 90
    assert (b"stdout could not be written" in done.stderr) == (streams == ">/dev/full")


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "2>/dev/full", "2>&1 | head -c0"])
def test_exit_code_of_an_error_that_cannot_be_printed(here, streams):
    if "/dev/full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("/dev/full")
    done = shell(f"embed no-such-trace.npy --out out {streams}")
    assert done.returncode == 2 and names(here) == {"trace.npy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["--help", "--version", "config", "plan --shape 9,9,5,3", "plot out", "demo --epochs 1 --out demo"]
)
def test_every_command_without_streams(here, command):
    if command == "plot out":
        assert main(["embed", "trace.npy", "--out", "out", "--device", "cpu", "--no-plots"]) == 0
    done = shell(f"{command} <&- >&- 2>&-")
    assert done.returncode == 0 and done.stdout == done.stderr == b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="file systems whose names are Unicode")
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
@pytest.mark.parametrize("name", [b"tr\xc3\xa4ce", b"tr\xffce", "層".encode()])
def test_names_that_a_terminal_cannot_show(here, environment, name):
    trace, out = os.fsdecode(name + b".npy"), os.fsdecode(name)
    os.rename("trace.npy", trace)
    command = [sys.executable, "-X", "dev", "-m", "mmphate_gpu", "embed", trace, "--out", out, "--no-plots"]
    done = subprocess.run(command, capture_output=True, env=ENV | environment)
    assert done.returncode == 0 and b"90 nodes embedded" in done.stdout and b"Traceback" not in done.stderr
    assert names(out) == {"embedding.npz", "report.json"}
    again = subprocess.run(command, capture_output=True, env=ENV | environment)
    assert again.returncode == 2 and b"exists; accepted: a new name" in again.stderr and again.stdout == b""
