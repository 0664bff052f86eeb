"""A KeOps that does not work is refused in one sentence where the caller names it; "auto" takes torch instead."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu import neighbors
from mmphate_gpu.neighbors import kneighbors
from mmphate_gpu.runtime import keops
from mmphate_gpu.runtime.checksums import checksum_path, differs_from_checksum, write_checksum

ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
pytestmark = pytest.mark.skipif(not keops.available("pykeops") or sys.platform == "win32", reason="needs KeOps")


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    """Forget between tests what the package remembers about KeOps."""
    monkeypatch.setattr(keops, "_failures", [])
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    keops._why_compiler_fails.cache_clear()
    yield
    keops._why_compiler_fails.cache_clear()


def compiler(folder, text):
    folder.mkdir()
    path = folder / "c++17"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def points():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9, 3)))


# ---------------------------------------------------------------- reasons, without an import of KeOps


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 1", r"does not work \(exit code 1\)"),
        ("exit 0", r"does not work \(exit code 0\)"),  # but no library
        ("printf 'internal \\377 error' >&2; exit 4", r"does not work \(exit code 4\)"),
        ("kill -9 $$", r"does not work \(exit code -9\)"),
        ("exec sleep 60", "does not finish within 1 s"),
    ],
)
def test_a_compiler_that_does_not_compile(tmp_path, monkeypatch, text, reason):
    monkeypatch.setenv("CXX", compiler(tmp_path / "bin", text))
    monkeypatch.setattr(keops, "PROBE_SECONDS", 1)
    with pytest.raises(
        mp.InputError, match=rf'knn_backend="keops" cannot be used: the C\+\+ compiler .*c\+\+17 {reason}'
    ):
        kneighbors(points(), 2, backend="keops")
    assert "cannot be used" not in keops.why_no_keops()


def test_no_compiler_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert keops.why_no_keops().startswith("there is no C++ compiler (")


@pytest.mark.parametrize("place", ["a file", "below a file", "below /dev/null"])
def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    folders = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "a" / "b",
        "below /dev/null": "/dev/null/x",
    }
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(folders[place]))
    with pytest.raises(mp.InputError, match="cannot be made; set KEOPS_CACHE_FOLDER to a folder that can be written"):
        kneighbors(points(), 2, backend="keops")
    assert str(folders[place]) in keops.why_no_keops()


def test_a_home_that_is_no_folder(monkeypatch):
    monkeypatch.delenv("KEOPS_CACHE_FOLDER")
    monkeypatch.setenv("HOME", "/dev/null")
    assert keops.why_no_keops().startswith("its cache /dev/null/.cache/keops")


@pytest.fixture
def library(tmp_path):
    """A copy of the compiled C++ ops, in place of a library of KeOps."""
    from mmphate_gpu.ops.launch import native

    source = native._library_path()
    if source is None or not source.read_bytes().startswith(keops.ELF):
        pytest.skip("needs a library for Linux")
    copy = tmp_path / "cache" / "Linux_p3" / "pykeops_cpp_0123456789.so"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(source.read_bytes())
    return copy


def cut_off(library):
    os.truncate(library, library.stat().st_size // 2)


def empty(library):
    library.write_bytes(b"")


def as_text(library):
    library.write_text("version https://git-lfs.github.com/spec/v1\n" * 9)


def changed_in_the_middle(library):
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 0x10
    library.write_bytes(content)


@pytest.mark.parametrize("with_checksum", [True, False])
@pytest.mark.parametrize("damage", [cut_off, empty, as_text])
def test_a_damaged_library_is_not_loaded(library, damage, with_checksum):
    assert keops.why_no_keops() is None
    if with_checksum:
        write_checksum(library)
    assert keops.why_no_keops() is None
    damage(library)
    reason = f"the library {library} in its cache is damaged; delete it"
    assert keops.why_no_keops() == reason
    library.unlink()
    assert keops.why_no_keops() is None


def test_one_bit_is_seen_by_its_checksum(library):
    write_checksum(library)
    assert not differs_from_checksum(library)
    changed_in_the_middle(library)
    assert differs_from_checksum(library) and "is damaged" in keops.why_no_keops()
    checksum_path(library).write_bytes(b"")  # which another process is about to write
    os.utime(library)  # results are cached by the time of the last change
    assert keops.why_no_keops() is None


# ---------------------------------------------------------------- "auto" takes the others


def test_auto_takes_torch_and_warns_once(monkeypatch, recwarn):
    monkeypatch.setattr(neighbors, "resolve_knn_backend", lambda *any: "torch" if keops._failures else "keops")
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "/dev/null/x")
    distances, indices = kneighbors(points(), 2)
    (warning,) = recwarn
    assert str(warning.message).startswith("the torch versions are used instead of KeOps: its cache /dev/null/x")
    wanted = torch.cdist(points(), points()).sort(-1)
    torch.testing.assert_close(distances, wanted.values[..., 1:3])
    assert torch.equal(indices, wanted.indices[..., 1:3])
    assert keops.why_no_keops().startswith("its cache /dev/null/x")
    kneighbors(points(), 2)
    assert len(recwarn) == 1


def test_auto_on_cuda_warns_once_where_keops_is_installed_and_broken(monkeypatch, recwarn):
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "/dev/null/x")
    for _ in range(2):
        assert neighbors.resolve_knn_backend("auto", torch.device("cuda")) == "torch"
    (warning,) = recwarn
    assert "instead of KeOps: its cache /dev/null/x cannot be made" in str(warning.message)


def test_auto_says_nothing_of_a_keops_that_is_not_installed(monkeypatch, recwarn):
    monkeypatch.setattr(keops, "available", lambda name: False)
    assert neighbors.resolve_knn_backend("auto", torch.device("cuda")) == "torch" and not recwarn


@pytest.mark.parametrize(
    "error",
    [
        ImportError("file too short"),
        EOFError("Ran out of input"),
        KeyError("a"),
        pickle.UnpicklingError("cut off\nat 3"),
    ],
)
def test_every_fault_of_a_call_is_one_sentence(monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(keops, "require", fail)
    with pytest.raises(
        mp.InputError, match=r"cannot be used: KeOps fails \(\w+: .*\); if its C\+\+ compiler works"
    ) as caught:
        kneighbors(points(), 2, backend="keops")
    assert "\n" not in str(caught.value) and str(keops._cache_folder()) in str(caught.value)


def test_memory_that_runs_out_is_no_fault_of_keops(monkeypatch):
    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(keops, "require", fail)
    with pytest.raises(torch.OutOfMemoryError):
        kneighbors(points(), 2, backend="keops")


def test_a_product_falls_back(monkeypatch, recwarn, get_case):
    from mmphate_gpu.affinities import Interslice, intraslice_affinity
    from mmphate_gpu.operators import LazyAffinity
    from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
    from mmphate_gpu.slices import unit_major

    points = get_case("walk")[0].points()
    bandwidth = torch.tensor(1.0, dtype=torch.float64)
    parts = (intraslice_affinity(points), Interslice(unit_major(points), bandwidth, 1e-4))
    operator, expected = LazyKeopsAffinity(*parts), LazyAffinity(*parts)
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "/dev/null/x")
    block = torch.ones(operator.shape[0], 2, dtype=torch.float64)
    assert torch.equal(operator @ block, expected @ block) and operator.engine == "torch"
    (warning,) = recwarn
    assert "the torch versions are used instead of KeOps" in str(warning.message)


# ---------------------------------------------------------------- the command line


SCRIPT = """
import sys, torch
from mmphate_gpu.neighbors import kneighbors
try:
    kneighbors(torch.randn(2, 20, 3, dtype=torch.float64), 4, backend="keops")
except ValueError as error:
    print(f"refused: {error}")
print("done")
"""


def python(script, cache):
    env = ENV | {"KEOPS_CACHE_FOLDER": str(cache)}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)


@pytest.mark.slow
def test_a_cache_that_is_damaged_between_two_processes(tmp_path, keops):
    cache = tmp_path / "cache"
    done = python(SCRIPT, cache)
    assert (done.returncode, done.stdout) == (0, "done\n") and "[pyKeOps] Compiling" in done.stderr
    (library,) = cache.glob("*/pykeops_cpp_*.so")
    assert not differs_from_checksum(library) and checksum_path(library).exists()
    changed_in_the_middle(library)
    done = python(SCRIPT, cache)
    assert done.returncode == 0 and done.stdout == (
        f'refused: knn_backend="keops" cannot be used: the library {library} in its cache is damaged; delete it\ndone\n'
    )
    library.unlink()
    assert python(SCRIPT, cache).stdout == "done\n" and not differs_from_checksum(library)
    for index in cache.glob("*/*.pkl"):
        index.write_bytes(b"\x80\x04K")
    done = python(SCRIPT, cache)
    assert done.returncode == 0 and "cannot be used: KeOps fails (" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_line_says_why(tmp_path):
    np.save(tmp_path / "trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)))
    for command, code in ((["config"], 0), (["embed", "trace.npy", "--out", "out", "--knn-backend", "keops"], 2)):
        env = ENV | {"KEOPS_CACHE_FOLDER": "/dev/null/x"}
        argv = [sys.executable, "-m", "mmphate_gpu", *command]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == code and "Traceback" not in done.stderr
        assert "its cache /dev/null/x cannot be made; set KEOPS_CACHE_FOLDER" in (done.stderr if code else done.stdout)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x"])
def test_a_home_in_which_no_folder_can_be_made_names_the_variable(monkeypatch, place):
    """The superuser may write to any folder by its permissions, yet /proc takes no folder."""
    if not os.path.isdir("/proc"):
        pytest.skip("Linux")
    monkeypatch.delenv("KEOPS_CACHE_FOLDER")
    monkeypatch.setenv("HOME", place)

    def fail(*args, **options):
        os.makedirs(keops._cache_folder())

    monkeypatch.setattr(keops, "require", fail)
    with pytest.raises(mp.InputError, match="set KEOPS_CACHE_FOLDER to a folder that can be written$"):
        kneighbors(points(), 2, backend="keops")
