"""The limits on the memory of this process: those of its control groups and of its resource limits, on Linux.

Elsewhere nothing is read: Windows has neither, and macOS does not enforce RLIMIT_AS.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

ROOT = Path("/")  # where /proc and /sys are read; the tests put trees of their own here
MIB = 2**20


class Limit(NamedTuple):
    """A limit on memory, and how much of it is left."""

    free_bytes: int
    name: str  # "" for the memory of the machine itself
    limit_bytes: int


class Hierarchy(NamedTuple):
    """The files in which a version of control groups says what a group may take and takes."""

    filesystem: str
    place: str  # where it is mounted by convention
    limits: tuple[str, ...]
    usage: str
    reclaimable: str  # of memory.stat: file pages that the kernel gives back before it kills
    of_ancestors: str  # of memory.stat: the least limit of the group and its ancestors


# memory.high counts as a limit although the kernel kills nobody for it: a process above it is put to sleep at every
# allocation, and without swap it does not go on.
VERSIONS = (
    Hierarchy("cgroup2", "sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "inactive_file", ""),
    Hierarchy(
        "cgroup",
        "sys/fs/cgroup/memory",
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        "total_inactive_file",
        "hierarchical_memory_limit",
    ),
)


def process_limits() -> list[Limit]:
    """Every limit on the memory of this process, without what the machine has."""
    if sys.platform != "linux":
        return []
    return [*cgroup_limits(), *resource_limits()]


# ---------------------------------------------------------------- control groups


def cgroup_limits() -> Iterator[Limit]:
    """The limits of the control groups of this process and of all their ancestors that can be seen.

    Files that are missing, unreadable or no number are no limit. Swap does not count: a run that swaps does not end.
    """
    for version in VERSIONS:
        group = _group(version)
        for mount_point, mount_root in _mounts(version).items():
            names = _below(group, mount_root)
            for depth in range(len(names), -1, -1):
                shown = "/" + "/".join(names[:depth])
                yield from _limits_of(version, mount_point.joinpath(*names[:depth]), shown)


def _group(version: Hierarchy) -> str:
    """The group of this process, "/" if nothing says so."""
    for line in _text("proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        unified = controllers == ""
        if unified == (version.filesystem == "cgroup2") and (unified or "memory" in controllers.split(",")):
            return path or "/"
    return "/"


def _mounts(version: Hierarchy) -> dict[Path, str]:
    """{where the hierarchy is mounted: the group that is its root there}; the place by convention is tried as well.

    Another mount may lie over the one that the kernel lists.
    """
    mounts = {}
    for line in _text("proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        places, kind = fields.split(), [*rest.split(), "", "", ""]
        of_memory = version.filesystem == "cgroup2" or "memory" in kind[2].split(",")
        if len(places) > 4 and kind[0] == version.filesystem and of_memory:
            mounts[ROOT / _unescaped(places[4]).lstrip("/")] = _unescaped(places[3])
    mounts.setdefault(ROOT / version.place, "/")
    return mounts


def _unescaped(field: str) -> str:
    """A path as mountinfo has it: spaces, tabs, line ends and backslashes are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _below(group: str, mount_root: str) -> tuple[str, ...]:
    """The names that lead from the root of a mount to ``group``; none where the mount does not show the group.

    In a namespace the kernel writes ".." for groups above its root. The root of the mount is then all that can be read.
    """
    names, root_names = (PurePosixPath(path).parts[1:] for path in (group, mount_root))
    below = names[len(root_names) :]
    return below if names[: len(root_names)] == root_names and ".." not in names else ()


def _limits_of(version: Hierarchy, folder: Path, shown: str) -> Iterator[Limit]:
    """The limits of one group."""
    limits = {name: _number(_text(folder / name)) for name in version.limits}
    statistics = dict(re.findall(r"^(\w+) (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
    limits[version.of_ancestors] = _number(statistics.get(version.of_ancestors, ""))
    usage = _number(_text(folder / version.usage))
    if usage is None:
        usage = _memory_of_process().get("VmRSS", 0)  # the group holds this process at least
    usage -= min(usage, _number(statistics.get(version.reclaimable, "")) or 0)
    for name, limit in limits.items():
        if limit is not None:
            yield Limit(max(0, limit - usage), f"{name} of the cgroup {shown}", limit)


# ---------------------------------------------------------------- resource limits

# RLIMIT_AS and RLIMIT_DATA count address space, a plan counts pages in use. Every OpenMP thread that a run starts takes
# its stack, and its first allocation reserves an arena of glibc. Nothing tells whether the threads run already, so they
# are always set aside: libgomp ends the process where it cannot start one.
ARENA = 64 * MIB
STACK = 8 * MIB  # where the limit on stacks is none
# What a run reserves beside that and does not use: libraries that it loads, the ends of heaps. With it, 24 runs (six
# kinds, one thread and two, both limits) that were left 1.02 times the peak of their plan ended well.
RESERVED = 64 * MIB


def resource_limits() -> Iterator[Limit]:
    """RLIMIT_AS and RLIMIT_DATA of this process, less what it takes and what its threads will reserve.

    Linux does not enforce RLIMIT_RSS.
    """
    import resource  # not there on Windows

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = STACK if stack == resource.RLIM_INFINITY else stack
    threads = torch.get_num_threads() - 1
    taken = _memory_of_process()
    for name, option, which, field, reserved in (
        ("RLIMIT_AS", "ulimit -v", resource.RLIMIT_AS, "VmSize", RESERVED + threads * (stack + ARENA)),
        ("RLIMIT_DATA", "ulimit -d", resource.RLIMIT_DATA, "VmData", RESERVED + threads * stack),
    ):
        limit = resource.getrlimit(which)[0]
        if limit != resource.RLIM_INFINITY:
            yield Limit(max(0, limit - taken.get(field, 0) - reserved), f"{name} ({option})", limit)


def _memory_of_process() -> dict[str, int]:
    """What /proc/self/status says of the memory of this process, in bytes."""
    lines = re.findall(r"^(Vm\w+):\s+(\d+) kB$", _text("proc/self/status"), re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in lines}


# ---------------------------------------------------------------- files


def _text(path: str | os.PathLike[str]) -> str:
    """The text of a file under `ROOT`; "" where it cannot be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A number of bytes; None for "max" and whatever else is no number."""
    text = text.strip()
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else None
