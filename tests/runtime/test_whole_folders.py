"""Files and folders that are written whole while the working folder changes, or while the process is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmphate_gpu as mp
from mmphate_gpu.runtime.atomic import whole_file, whole_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder="."):
    return {item.name for item in Path(folder).iterdir()}


@posix
@pytest.mark.parametrize("name", ["a.npz", "a.zarr"])
def test_the_working_folder_changes_while_a_file_is_written(here, monkeypatch, name):
    if name.endswith(".zarr"):
        pytest.importorskip("zarr")
    Path("elsewhere").mkdir()
    write = whole_folder if name.endswith(".zarr") else whole_file
    with write(Path(name), overwrite=True) as new:
        new.mkdir() if name.endswith(".zarr") else new.write_text("")
        monkeypatch.chdir("elsewhere")
    assert names(here) == {name, "elsewhere"} and names(here / "elsewhere") == set()


@posix
def test_a_message_has_the_path_as_the_user_wrote_it(here, monkeypatch):
    Path("sub").mkdir()
    Path("a").mkdir()
    Path("a/mine").write_text("")
    monkeypatch.chdir("sub")
    sentence = r"^\.\./a holds mine, which would be deleted"
    with (
        pytest.raises(mp.InputError, match=sentence),
        whole_folder(Path("../a"), overwrite=True, others=lambda path: [*names(path)]) as new,
    ):
        new.mkdir()


@posix
def test_a_kill_between_the_two_steps_of_a_move_keeps_the_new_results():
    """Where a folder cannot be renamed without replacing, an empty folder takes the name first."""
    for force in (True, False):
        script = """
import os, sys
from pathlib import Path
from mmphate_gpu.runtime.atomic import rename, whole
rename._system_call = lambda how: None
plain = os.rename
os.rename = lambda source, target: os._exit(9) if Path(target).name == "a" else plain(source, target)
with whole.whole_folder(Path("a"), overwrite=sys.argv[1] == "True") as new:
    new.mkdir()
    (new / "text").write_text("new")
"""
        done = subprocess.run([sys.executable, "-c", script, str(force)], env=ENV)
        assert done.returncode == 9 and names("a") == set()
        with pytest.raises(RuntimeError, match="stop"), whole_folder(Path("a"), overwrite=True):
            raise RuntimeError("stop")
        assert names() == {"a"} and Path("a/text").read_text() == "new"
        shutil.rmtree("a")
