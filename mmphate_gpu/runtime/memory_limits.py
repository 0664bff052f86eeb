"""Limits on the memory of this process on Linux: control groups (of containers, batch systems) and resource limits.

On other systems no limit is read: Windows has neither of the two, and macOS does not enforce RLIMIT_AS.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

ROOT = Path("/")  # the folder that holds proc and sys; tests replace it
MIB = 2**20


class Limit(NamedTuple):
    """A limit on memory, and how much of it is left."""

    free_bytes: int
    name: str  # for messages; "" for the memory of the machine or of the CUDA device itself
    limit_bytes: int


class Hierarchy(NamedTuple):
    """The names of the files in which a version of control groups states the limits and the usage of a group."""

    filesystem: str
    default_mount: str  # where it is mounted by convention, relative to `ROOT`
    limits: tuple[str, ...]
    usage: str
    reclaimable: str  # field of memory.stat: cached file pages, which the kernel frees before it kills a process
    of_ancestors: str  # field of memory.stat: the least limit of the group and its ancestors; "" if it has none


# memory.high counts as a limit although the kernel kills no process for it: a process above it is put to sleep at every
# allocation, and without swap it makes no progress.
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
    """All limits on the memory of this process but the memory of the machine itself."""
    if sys.platform != "linux":
        return []
    return [*cgroup_limits(), *resource_limits()]


# ---------------------------------------------------------------- control groups


def cgroup_limits() -> Iterator[Limit]:
    """The limits of the control groups of this process, and of all their ancestors that can be seen.

    A file that is missing, unreadable or not a number is no limit. Swap does not count as memory, because a run that
    swaps takes too long to end.
    """
    for version in VERSIONS:
        group = _group(version)
        for mount_point, mount_root in _mounts(version).items():
            names = _below(group, mount_root)
            for depth in range(len(names), -1, -1):
                shown = "/" + "/".join(names[:depth])
                yield from _limits_of(version, mount_point.joinpath(*names[:depth]), shown)


def _group(version: Hierarchy) -> str:
    """The group of this process; "/" if the kernel names none."""
    for line in _text("proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        unified = controllers == ""
        if unified == (version.filesystem == "cgroup2") and (unified or "memory" in controllers.split(",")):
            return path or "/"
    return "/"


def _mounts(version: Hierarchy) -> dict[Path, str]:
    """{folder where the hierarchy is mounted: the group at the root of that mount}.

    The conventional folder is always among them, because a listed mount may be hidden by another one.
    """
    mounts = {}
    for line in _text("proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        paths, source = fields.split(), [*rest.split(), "", "", ""]  # source: file system, device, options
        of_memory = version.filesystem == "cgroup2" or "memory" in source[2].split(",")
        if len(paths) > 4 and source[0] == version.filesystem and of_memory:
            mounts[ROOT / _unescaped(paths[4]).lstrip("/")] = _unescaped(paths[3])
    mounts.setdefault(ROOT / version.default_mount, "/")
    return mounts


def _unescaped(field: str) -> str:
    """Decode a path of mountinfo, where spaces, tabs, line ends and backslashes are octal escapes such as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _below(group: str, mount_root: str) -> tuple[str, ...]:
    """The folder names from the root of a mount down to ``group``; () where the group does not lie below that root.

    In a namespace the kernel writes ".." for groups above the root of the namespace. Then only the root of the mount
    can be read.
    """
    names, root_names = (PurePosixPath(path).parts[1:] for path in (group, mount_root))
    below = names[len(root_names) :]
    return below if names[: len(root_names)] == root_names and ".." not in names else ()


def _limits_of(version: Hierarchy, folder: Path, shown: str) -> Iterator[Limit]:
    """The limits of the group in ``folder``, which messages call ``shown``."""
    limits = {name: _number(_text(folder / name)) for name in version.limits}
    statistics = dict(re.findall(r"^(\w+) (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
    limits[version.of_ancestors] = _number(statistics.get(version.of_ancestors, ""))
    usage = _number(_text(folder / version.usage))
    if usage is None:
        usage = memory_of_process().get("VmRSS", 0)  # the usage of a group includes that of this process
    usage -= min(usage, _number(statistics.get(version.reclaimable, "")) or 0)
    for name, limit in limits.items():
        if limit is not None:
            yield Limit(max(0, limit - usage), f"{name} of the cgroup {shown}", limit)


# ---------------------------------------------------------------- resource limits

# RLIMIT_AS and RLIMIT_DATA count address space, while a plan counts pages in use. Every OpenMP thread that a run starts
# reserves its stack, and its first allocation reserves an arena of glibc. Whether the threads run already cannot be
# seen, so their share is always set aside: libgomp ends the process where it cannot start a thread.
ARENA = 64 * MIB
STACK = 8 * MIB  # where RLIMIT_STACK is unlimited
# Other address space that a run reserves but does not use: libraries that it loads, the ends of heaps
# (docs/decisions.md, "Address space that a run reserves").
RESERVED = 64 * MIB


def resource_limits() -> Iterator[Limit]:
    """RLIMIT_AS and RLIMIT_DATA of this process, with what they leave after its usage and the reserves of its threads.

    RLIMIT_RSS is not read, because Linux does not enforce it.
    """
    import resource  # Windows does not have this module

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = STACK if stack == resource.RLIM_INFINITY else stack
    threads = torch.get_num_threads() - 1
    taken = memory_of_process()
    for name, option, which, field, reserved in (
        ("RLIMIT_AS", "ulimit -v", resource.RLIMIT_AS, "VmSize", RESERVED + threads * (stack + ARENA)),
        ("RLIMIT_DATA", "ulimit -d", resource.RLIMIT_DATA, "VmData", RESERVED + threads * stack),
    ):
        limit = resource.getrlimit(which)[0]
        if limit != resource.RLIM_INFINITY:
            yield Limit(max(0, limit - taken.get(field, 0) - reserved), f"{name} ({option})", limit)


def memory_of_process() -> dict[str, int]:
    """The memory of this process by the names of /proc/self/status (VmSize, VmRSS, ...), in bytes; empty without it."""
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
    """``text`` as a number of bytes; None for "max" (no limit) and any other text."""
    text = text.strip()
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else None
