"""A damaged C++ library is not loaded: a warning names it, and the torch versions of the ops serve instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmphate_gpu as mp
from mmphate_gpu.ops.launch import native
from mmphate_gpu.runtime.checksums import checksum_path, differs_from_checksum, write_checksum

SOURCE = None if native.switched_off() or native.why_no_native() else native._library_path()
pytestmark = pytest.mark.skipif(SOURCE is None, reason="no C++ twins")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library with its checksum, which the package loads instead of the real one."""
    copy = tmp_path / native.LIBRARY
    copy.write_bytes(SOURCE.read_bytes())
    write_checksum(copy)
    monkeypatch.setenv(native.PATH_VARIABLE, str(copy))
    return copy


def one_bit(content):
    content[len(content) // 3] ^= 1


def zeros(content):
    """Zeros in a file of the right length, as a file system may leave them after a crash."""
    content[4096:8192] = bytes(4096)


def cut_off(content):
    del content[len(content) // 2 :]


def nothing(content):
    content.clear()


def text(content):
    content[:] = b"version https://git-lfs.github.com/spec/v1\n"


def another_machine(content):
    content[18:20] = (243).to_bytes(2, "little")  # RISC-V in the header of an ELF file


def one_byte_more(content):
    content.append(0)


DAMAGES = [one_bit, zeros, cut_off, nothing, text, another_machine, one_byte_more]


def damage(library, change):
    content = bytearray(library.read_bytes())
    change(content)
    library.write_bytes(content)


def test_the_installed_library_has_its_checksum():
    if not checksum_path(SOURCE).exists():
        pytest.skip("built before checksums were written")
    assert not differs_from_checksum(SOURCE)


@pytest.mark.parametrize("change", DAMAGES)
def test_a_damaged_library_is_not_loaded(library, monkeypatch, change):
    assert native._reason() is None
    damage(library, change)

    def load():
        raise AssertionError("it was loaded")

    monkeypatch.setattr(native, "_library", load)
    reason = f"{native.LIBRARY} is damaged: its hash differs from that in {native.LIBRARY}.sha256; install it again"
    assert native._reason() == reason
    with pytest.warns(RuntimeWarning, match="the portable torch versions are used: libmmphate_cpu.so is damaged"):
        assert native.why_no_native.__wrapped__() == reason


def test_a_library_without_a_checksum_is_taken(library):
    """A developer's build with sanitizers, for example, or an older build has no checksum."""
    checksum_path(library).unlink()
    assert native._reason() is None


@pytest.mark.parametrize("content", [b"", b"\n", b"0" * 64, b"\xff" * 64])
def test_a_damaged_checksum_counts_as_a_damaged_library(library, content):
    checksum_path(library).write_bytes(content)
    assert "is damaged: its hash differs" in native._reason()


FIT = """
import numpy as np
from mmphate_gpu import MMPHATE, show_config
trace = np.random.default_rng(0).standard_normal((12, 6, 5)).cumsum(0)
print(MMPHATE(random_state=0, device="cpu").fit(trace).embedding_.shape)
print(show_config())
"""


@pytest.mark.slow
@pytest.mark.parametrize("change", [cut_off, zeros])
def test_a_fit_with_a_damaged_library(library, change):
    """Loading a truncated library would kill the process."""
    damage(library, change)
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stdout.startswith("(72, 2)\n"), done.stderr
    assert "ops with twins on cpu: " in done.stdout and "is damaged: its hash differs from that in" in done.stdout
    assert done.stderr.count("the portable torch versions are used: libmmphate_cpu.so is damaged") == 1
