"""The wheel: what is in it, and that it is made and runs where there is no compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # builds the C++ library: about a minute

RUN = """
import numpy as np
from mmphate_gpu import MMPHATE
from mmphate_gpu.ops.launch import native
trace = np.random.default_rng(0).standard_normal((40, 8, 6)).cumsum(0)
run = MMPHATE(random_state=0).fit(trace)
print(native.why_no_native(), run.t_, f"{run.stress_:.6f}")
"""


def built(folder: Path, *options: str, path: str | None = None) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT), *options]
    env = dict(os.environ)
    if path is not None:
        env = {name: value for name, value in env.items() if name not in ("CC", "CXX")} | {"PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


# What the front end and cmake may call while they build; none of them compiles.
TOOLS = (
    "sh", "env", "uname", "cat", "ls", "dirname", "basename", "sed", "grep", "mkdir", "rm", "cp", "mv", "ln", "chmod",
    "tr", "cut", "expr", "test", "true", "false", "sort", "head", "tail", "touch", "pwd", "id",
)  # fmt: skip


def without_compiler(folder: Path) -> Path:
    """A folder for PATH with everyday tools and without a compiler."""
    folder.mkdir()
    for tool in TOOLS:
        if path := shutil.which(tool):
            (folder / tool).symlink_to(path)
    return folder


def run_from(wheel: Path, folder: Path) -> str:
    """Unpack the wheel and run it outside the source tree, without a compiler on the path."""
    zipfile.ZipFile(wheel).extractall(folder)
    empty = folder / "empty"
    empty.mkdir()
    env = os.environ | {"PATH": str(empty), "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=empty, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel_with_and_without_the_native_part(tmp_path):
    wheel = built(tmp_path / "native")
    assert wheel.name.split("-")[2:4] == ["py3", "none"]  # one for every Python
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "mmphate_gpu/_native/libmmphate_cpu.so" in names
    sources = {file.relative_to(ROOT) for folder in ("common", "cuda") for file in (ROOT / "csrc" / folder).iterdir()}
    assert {f"mmphate_gpu/_native/{source}" for source in sources} <= names
    assert not any(name.startswith(("tests/", "csrc/")) for name in names)
    native = run_from(wheel, tmp_path / "installed")
    assert native.startswith("None ")
    # The checksum is that of the file as it was packed, after symbols were stripped.
    library = tmp_path / "installed" / "mmphate_gpu" / "_native" / "libmmphate_cpu.so"
    checksum = library.with_name("libmmphate_cpu.so.sha256").read_text()
    assert checksum == hashlib.sha256(library.read_bytes()).hexdigest() + "\n"

    plain = built(tmp_path / "plain", "-C", "wheel.cmake=false")
    assert plain.name.endswith("py3-none-any.whl")
    assert not any("_native/" in name for name in zipfile.ZipFile(plain).namelist())
    portable = run_from(plain, tmp_path / "portable")
    assert "was not built" in portable
    assert portable.split()[-2:] == native.split()[-2:]  # the same t and stress


def test_wheel_made_without_a_compiler(tmp_path):
    """The wheel has the CUDA sources but no C++ twins, and the portable versions run."""
    wheel = built(tmp_path / "made", path=str(without_compiler(tmp_path / "tools")))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "mmphate_gpu/_native/libmmphate_cpu.so" not in names
    sources = {file.relative_to(ROOT) for folder in ("common", "cuda") for file in (ROOT / "csrc" / folder).iterdir()}
    assert {f"mmphate_gpu/_native/{source}" for source in sources} <= names
    assert "was not built" in run_from(wheel, tmp_path / "installed")
