"""Limits of control groups decide how much memory is free."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

import mmphate_gpu as mm
from mmphate_gpu import InputError, plan
from mmphate_gpu.config import show_config
from mmphate_gpu.planning.plan import Plan
from mmphate_gpu.runtime import memory, memory_limits
from mmphate_gpu.runtime.memory_limits import Limit, cgroup_limits

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")

CPU = torch.device("cpu")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Gives a function that writes files of /proc and /sys into a folder, from which the limits are then read."""
    monkeypatch.setattr(memory_limits, "ROOT", tmp_path)

    def write(files: dict[str, object]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())

    return write


def least() -> Limit:
    return min(cgroup_limits())


def mounted(place: str, root: str, filesystem: str, options: str = "rw") -> str:
    return f"35 25 0:30 {root} {place} rw,nosuid shared:9 - {filesystem} {filesystem} {options}"


V2 = {"proc/self/cgroup": "0::/user.slice/job", "proc/self/mountinfo": mounted("/sys/fs/cgroup", "/", "cgroup2")}
GROUP = "sys/fs/cgroup/user.slice/job"


def test_what_a_group_takes_is_not_free(tree):
    tree(V2 | {f"{GROUP}/memory.max": 500 * MIB, f"{GROUP}/memory.current": 190 * MIB})
    assert least() == (310 * MIB, "memory.max of the cgroup /user.slice/job", 500 * MIB)


def test_file_pages_that_the_kernel_gives_back_are_free(tree):
    statistics = f"anon {9 * MIB}\nfile {150 * MIB}\ninactive_file {120 * MIB}\nactive_file {30 * MIB}"
    tree(
        V2
        | {f"{GROUP}/memory.max": 500 * MIB, f"{GROUP}/memory.current": 190 * MIB, f"{GROUP}/memory.stat": statistics}
    )
    assert least().free_bytes == 430 * MIB


def test_the_ancestor_with_the_least_memory_left_decides(tree):
    """As in batch systems: the group of the job has a limit, and the group of a step in it has none."""
    tree({"proc/self/cgroup": "0::/slurm/job_7/step_0/task_1", "proc/self/mountinfo": V2["proc/self/mountinfo"]})
    job = "sys/fs/cgroup/slurm/job_7"
    tree(
        {
            f"{job}/step_0/task_1/memory.max": "max",
            f"{job}/step_0/memory.max": 700 * MIB,
            f"{job}/memory.max": 400 * MIB,
        }
    )
    tree({f"{job}/step_0/memory.current": 100 * MIB, f"{job}/memory.current": 250 * MIB})
    assert least() == (150 * MIB, "memory.max of the cgroup /slurm/job_7", 400 * MIB)


def test_memory_high_is_a_limit(tree):
    tree(
        V2 | {f"{GROUP}/memory.max": 500 * MIB, f"{GROUP}/memory.high": 300 * MIB, f"{GROUP}/memory.current": 100 * MIB}
    )
    assert least() == (200 * MIB, "memory.high of the cgroup /user.slice/job", 300 * MIB)


V1 = {
    "proc/self/cgroup": "9:cpu,cpuacct:/elsewhere\n4:memory:/batch/77\n1:name=systemd:/x:y",
    "proc/self/mountinfo": mounted("/cgroups/cpu", "/", "cgroup", "rw,cpu,cpuacct")
    + "\n"
    + mounted("/cgroups/memory", "/", "cgroup", "rw,memory"),
}


def test_version_1(tree):
    tree(V1 | {"cgroups/memory/batch/77/memory.limit_in_bytes": 600 * MIB})
    tree({"cgroups/memory/batch/77/memory.usage_in_bytes": 500 * MIB, "cgroups/cpu/memory.limit_in_bytes": 5})
    tree({"cgroups/memory/batch/77/memory.stat": f"inactive_file 7\ntotal_inactive_file {150 * MIB}"})
    assert least() == (250 * MIB, "memory.limit_in_bytes of the cgroup /batch/77", 600 * MIB)


def test_version_1_without_a_limit(tree):
    tree(V1 | {"cgroups/memory/batch/77/memory.limit_in_bytes": 9223372036854771712})
    assert least().free_bytes > 2**60


def test_the_limit_of_an_ancestor_that_is_not_mounted(tree):
    """A container sees its own group only; memory.stat of that group has the least limit of its ancestors."""
    tree(
        {
            "proc/self/cgroup": "4:memory:/docker/ab",
            "proc/self/mountinfo": mounted("/m", "/docker/ab", "cgroup", "memory"),
        }
    )
    tree({"m/memory.limit_in_bytes": 9223372036854771712, "m/memory.usage_in_bytes": 50 * MIB})
    tree({"m/memory.stat": f"hierarchical_memory_limit {250 * MIB}"})
    assert least() == (200 * MIB, "hierarchical_memory_limit of the cgroup /", 250 * MIB)


def test_both_versions_at_once(tree):
    lines = V1["proc/self/mountinfo"] + "\n" + mounted("/cgroups/unified", "/", "cgroup2")
    tree({"proc/self/cgroup": V1["proc/self/cgroup"] + "\n0::/session", "proc/self/mountinfo": lines})
    tree({"cgroups/memory/batch/memory.limit_in_bytes": 80 * MIB, "cgroups/memory/batch/memory.usage_in_bytes": 0})
    assert least() == (80 * MIB, "memory.limit_in_bytes of the cgroup /batch", 80 * MIB)
    tree({"cgroups/unified/session/memory.max": 60 * MIB, "cgroups/unified/session/memory.current": 0})
    assert least() == (60 * MIB, "memory.max of the cgroup /session", 60 * MIB)


@pytest.mark.parametrize(
    ("group", "root"),
    [("/", "/"), ("/", "/../.."), ("/../other", "/"), ("/docker/ab", "/docker/ab"), ("/docker/ab", "/d")],
)
def test_a_container_whose_root_is_the_group(tree, group, root):
    tree({"proc/self/cgroup": f"0::{group}", "proc/self/mountinfo": mounted("/sys/fs/cgroup", root, "cgroup2")})
    tree({"sys/fs/cgroup/memory.max": 90 * MIB, "sys/fs/cgroup/memory.current": 40 * MIB})
    assert least() == (50 * MIB, "memory.max of the cgroup /", 90 * MIB)


def test_a_group_below_the_root_of_a_container(tree):
    tree({"proc/self/cgroup": "0::/docker/ab/own", "proc/self/mountinfo": mounted("/c", "/docker/ab", "cgroup2")})
    tree({"c/own/memory.max": 70 * MIB, "c/own/memory.current": MIB, "c/memory.max": "max"})
    assert least() == (69 * MIB, "memory.max of the cgroup /own", 70 * MIB)


def test_a_mount_over_the_one_that_the_kernel_lists(tree):
    tree({"proc/self/cgroup": "0::/", "proc/self/mountinfo": mounted("/sys/fs/cgroup/unified", "/", "cgroup2")})
    tree({"sys/fs/cgroup/memory.max": 30 * MIB, "sys/fs/cgroup/memory.current": 10 * MIB})
    assert least().free_bytes == 20 * MIB


def test_a_path_with_spaces(tree):
    tree({"proc/self/cgroup": "0::/a b", "proc/self/mountinfo": mounted("/c\\040g", "/", "cgroup2")})
    tree({"c g/a b/memory.max": 30 * MIB, "c g/a b/memory.current": 10 * MIB})
    assert least() == (20 * MIB, "memory.max of the cgroup /a b", 30 * MIB)


@pytest.mark.parametrize("usage", [600 * MIB, 2**62])
def test_a_group_over_its_limit_has_nothing_left(tree, usage):
    tree(V2 | {f"{GROUP}/memory.max": 500 * MIB, f"{GROUP}/memory.current": usage})
    assert least().free_bytes == 0


def test_a_usage_that_cannot_be_read_is_at_least_that_of_the_process(tree):
    tree(V2 | {f"{GROUP}/memory.max": 500 * MIB, "proc/self/status": "VmSize:\t 9 kB\nVmRSS:\t  102400 kB"})
    assert least().free_bytes == 400 * MIB


@pytest.mark.parametrize("text", [b"", b"max\n", b"\xff\xfe", b"-1", b"1e9", b"12 34", b"9" * 5000, "٣".encode()])
def test_what_is_no_number_is_no_limit(tree, text):
    tree(V2 | {f"{GROUP}/memory.max": text})
    assert list(cgroup_limits()) == []


@pytest.mark.parametrize(
    "text", [b"", b"\0\xff", b"0", b"0::", b"::::\n:\n", b"a - b\n1 2 3 4 5 - cgroup2", b"- - -\n - "]
)
def test_garbage_in_the_files_of_the_kernel(tree, text):
    tree({"proc/self/cgroup": text, "proc/self/mountinfo": text})
    assert list(cgroup_limits()) == []


def test_files_that_are_folders_or_missing(tree, tmp_path):
    assert list(cgroup_limits()) == []
    (tmp_path / GROUP / "memory.max").mkdir(parents=True)
    tree(V2)
    assert list(cgroup_limits()) == []


# ---------------------------------------------------------------- what the messages say


@linux
def test_the_limit_is_named(tree, monkeypatch):
    monkeypatch.delenv(memory.MEMORY_LIMIT_VARIABLE, raising=False)
    tree(V2 | {f"{GROUP}/memory.max": 9 * MIB, f"{GROUP}/memory.current": 4 * MIB})
    named = r"5\.0 MiB available \(memory\.max of the cgroup /user\.slice/job is 9\.0 MiB\)"
    assert memory.free_memory(CPU).free_bytes == memory.available_bytes(CPU) == 5 * MIB
    with pytest.raises(InputError, match=f"it needs 6.0 MiB but cpu has {named}; less helps"):
        memory.check_fits("it", 6 * MIB, CPU, remedy="less helps")
    planned = plan((50, 1, 8, 5), device="cpu")
    with pytest.raises(InputError, match=f"in stage .* but cpu has {named}; "):
        planned.check()
    assert re.search(named, str(planned))
    with pytest.raises(InputError, match=named):
        mm.MMPHATE(device="cpu").fit(np.random.default_rng(0).normal(size=(50, 8, 5)))
    assert "5.0 MiB available (memory.max of the cgroup /user.slice/job is 9.0 MiB)" in show_config()


@linux
def test_the_variable_is_a_limit_among_others(tree, monkeypatch):
    tree(V2 | {f"{GROUP}/memory.max": 9 * MIB, f"{GROUP}/memory.current": 4 * MIB})
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(6 * MIB))
    assert memory.free_memory(CPU).name == "memory.max of the cgroup /user.slice/job"
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(3 * MIB))
    assert memory.free_memory(CPU) == (3 * MIB, memory.MEMORY_LIMIT_VARIABLE, 3 * MIB)


def test_a_card_is_not_limited_by_the_memory_of_the_host(tree):
    tree(V2 | {f"{GROUP}/memory.max": 9 * MIB})
    card = plan((50, 1, 8, 5), device="12 GB card")
    assert card.available_bytes == 12 * 10**9 and isinstance(card, Plan) and card.limit == ""
