"""Resource limits, and runs under a limit: each is refused or succeeds."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mm
from mmphate_gpu import InputError
from mmphate_gpu.cli import main
from mmphate_gpu.planning.fit import ran_out

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")

PACKAGES = str(Path(mm.__file__).resolve().parents[1])


# ---------------------------------------------------------------- resource limits


LEFT = """
import resource, torch, mmphate_gpu
from mmphate_gpu.runtime import memory, memory_limits
torch.set_num_threads(1)
for name, field, left in (("RLIMIT_DATA", "VmData", 500), ("RLIMIT_AS", "VmSize", 400)):
    before = memory_limits.memory_of_process()[field]
    resource.setrlimit(getattr(resource, name), (before + left * 2**20,) * 2)
    limit = memory.free_memory(torch.device("cpu"))
    print(left * 2**20 - memory_limits.RESERVED - limit.free_bytes, limit.limit_bytes - before, limit.name)
"""


def child(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=300)


@linux
def test_resource_limits_on_address_space():
    lines = child("-c", LEFT).stdout.splitlines()
    for line, left, name in zip(lines, (500, 400), ("RLIMIT_DATA (ulimit -d)", "RLIMIT_AS (ulimit -v)"), strict=True):
        taken_since, above, shown = line.split(maxsplit=2)
        assert int(above) == left * MIB and shown == name
        assert 0 <= int(taken_since) < 4 * MIB  # the process takes a few pages between the two readings


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_words_for_memory_that_ran_out(error):
    assert ran_out(error)


def test_arrays_that_are_too_large():
    with pytest.raises(MemoryError) as raised:
        np.empty(2**50)
    assert "Unable to allocate" in ran_out(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("std::bad_alloc"), OSError(12, "Cannot allocate memory")])
def test_memory_that_runs_out_in_a_run_is_one_sentence(error, monkeypatch):
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("mmphate_gpu.pipeline.trace_points", fails)
    with pytest.raises(InputError, match="ran out of memory in stage 'normalize'"):
        mm.MMPHATE(device="cpu").fit(np.random.default_rng(0).normal(size=(50, 8, 5)))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("std::bad_alloc"), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_memory_that_runs_out_outside_of_a_run_is_one_sentence(error, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)))

    def fail(*args, **options):
        raise error

    monkeypatch.setattr("mmphate_gpu.trace.load_trace", fail)
    assert main(["embed", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--device=cpu"]) == 2
    assert capsys.readouterr().err.startswith("mmphate-gpu: error: the memory ran out (")
    assert not (tmp_path / "out").exists()


def test_plan_on_the_command_line_takes_what_decides_memory(capsys):
    def planned(*options):
        assert main(["plan", "--shape", "50,20,30,10", "--n-landmark=2000", "--device=cpu", *options]) == 0
        return capsys.readouterr().out

    plain = planned()
    for options in (["--mds-solver=nonmetric"], ["--n-components=50"], ["--landmarks=stratified"], ["--t=5"]):
        assert planned(*options) != plain, options


def test_other_errors_of_files_are_not_memory(monkeypatch):
    def fails(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("mmphate_gpu.pipeline.trace_points", fails)
    with pytest.raises(FileNotFoundError):
        mm.MMPHATE(device="cpu").fit(np.random.default_rng(0).normal(size=(50, 8, 5)))


# ---------------------------------------------------------------- runs under a limit


# Sets a limit that leaves so many megabytes beyond what the imports take, and runs the command.
COMMAND = """
import resource, sys
import mmphate_gpu.estimator, mmphate_gpu.cli
from mmphate_gpu.runtime import memory_limits
name, left, *command = sys.argv[1:]
field = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}[name]
limit = memory_limits.memory_of_process()[field] + int(left) * 10**6
resource.setrlimit(getattr(resource, name), (limit, limit))
sys.exit(mmphate_gpu.cli.main(command))
"""


SMALL, LARGE = (100, 1, 10, 20), (400, 10, 20, 20)


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    for name, shape in (("small", SMALL), ("large", LARGE)):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32).cumsum(0))
    return folder


@linux
@pytest.mark.slow
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("left", [200, 500, 1000])
def test_a_run_under_a_resource_limit_is_refused_or_done(limit, left, traces, tmp_path):
    def embed(trace: str, *options: str) -> subprocess.CompletedProcess:
        command = ("embed", str(traces / f"{trace}.npy"), "--out", str(tmp_path / trace), "--no-plots", *options)
        return child("-c", COMMAND, limit, str(left), *command)

    done = embed("small", "--n-landmark", "200")
    assert done.returncode == 0 and (tmp_path / "small").is_dir(), done.stderr
    refused = embed("large", "--n-landmark", "12000")
    assert refused.returncode == 2 and not (tmp_path / "large").exists(), refused.stderr
    assert re.fullmatch(
        rf"mmphate-gpu: error: .* needs .* available \({limit} \(ulimit -[vd]\) is .*\n", refused.stderr
    )


# Mounts a tree of files over the control groups of the machine, in a mount namespace of its own.
GROUPED = """
mount -t tmpfs none /sys/fs/cgroup && echo "$1" > /sys/fs/cgroup/memory.max && echo 0 > /sys/fs/cgroup/memory.current
shift && exec "$@"
"""


FITTED = """
import sys, numpy as np, mmphate_gpu as mm
from pathlib import Path
from mmphate_gpu.runtime.memory import available_bytes
from mmphate_gpu.runtime.memory_use import held_bytes, peak_bytes
import torch
cpu = torch.device("cpu")
trace, op = np.load(sys.argv[1]), mm.MMPHATE(device=cpu, n_landmark=int(sys.argv[2]), random_state=0)
Path("/proc/self/clear_refs").write_text("5")
held = held_bytes(cpu)
try:
    op.fit(trace)
    print("done", peak_bytes(cpu) - held, available_bytes(cpu))
except mm.InputError as error:
    print(error)
"""


@linux
@pytest.mark.slow
def test_a_run_in_a_control_group_is_refused_or_done_within_it(traces):
    def fit(trace: str, n_landmark: int) -> str:
        command = ["unshare", "--mount", "sh", "-c", GROUPED, "sh", str(500 * 10**6), sys.executable, "-c", FITTED]
        out = subprocess.run(
            [*command, str(traces / f"{trace}.npy"), str(n_landmark)],
            env=os.environ | {"PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if "mount" in out.stderr or "unshare" in out.stderr:
            pytest.skip(f"no private mount here: {out.stderr.strip()}")
        assert out.returncode == 0, out.stderr
        return out.stdout

    word, taken, free = fit("small", 200).split()
    assert word == "done" and int(taken) < int(free) == 500 * 10**6
    assert "available (memory.max of the cgroup / is 476.8 MiB)" in fit("large", 12_000)
