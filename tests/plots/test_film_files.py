"""An .mp4 has all frames, or there is no file; what ffmpeg says is in the error."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mmphate_gpu.errors import InputError
from mmphate_gpu.plots import animate
from mmphate_gpu.plots.film_scenes import Travel

from .test_films import SMALL, film, walk

HAS_SCRIPTS = pytest.mark.skipif(sys.platform == "win32", reason="a script with #! does not run on Windows")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a program named ffmpeg first on the PATH that runs a script of Python; return a folder for films."""

    def made(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "ffmpeg"
        program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        films = tmp_path / "films"
        films.mkdir()
        return films

    return made


@HAS_SCRIPTS
def test_ffmpeg_gets_all_frames_and_its_file_appears(stand_in):
    films = stand_in(
        "open(sys.argv[-1], 'wb').write(' '.join(sys.argv[1:-1]).encode() + b'|' + sys.stdin.buffer.read())"
    )
    path = animate(walk(), "epochs", films / "a b%03d.MP4", **SMALL)
    command, _, raw = path.read_bytes().partition(b"|")
    assert b"-s 404x316 -r 10 " in command and b"-pix_fmt yuv420p" in command and b"+faststart" in command
    shown = film(walk())
    expected = np.stack(list(shown.frames(shown.numbers())))
    assert len(expected) == 7 + 10  # two for each of three ways, the last epoch, and a second more of it
    np.testing.assert_array_equal(np.frombuffer(raw, np.uint8).reshape(expected.shape), expected)
    assert [file.name for file in films.iterdir()] == ["a b%03d.MP4"]


@HAS_SCRIPTS
@pytest.mark.parametrize(
    "script, message",
    [
        (
            "sys.exit('Unknown encoder libx264')",
            "ended with code 1 and said: Unknown encoder libx264; accepted",
        ),
        ("sys.stdin.buffer.read(); sys.exit(3)", "ended with code 3 and said: nothing; accepted: a .gif"),
        ("sys.stdin.buffer.read(); print('x' * 9999, file=sys.stderr); sys.exit(4)", "said: x{500}; accepted"),
        ("sys.stdin.buffer.read()", "cannot be written"),
    ],
)
def test_what_ffmpeg_says_is_in_the_error_and_no_file_is_left(stand_in, script, message):
    films = stand_in(script)
    (films / "f.mp4").write_bytes(b"old")
    with pytest.raises(InputError, match=message):
        animate(walk(), "epochs", films / "f.mp4", **SMALL | {"seconds": 3})
    assert [file.name for file in films.iterdir()] == ["f.mp4"] and (films / "f.mp4").read_bytes() == b"old"


@HAS_SCRIPTS
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_a_frame_ends_ffmpeg(stand_in, monkeypatch, error):
    films = stand_in("sys.stdin.buffer.read(); import time; time.sleep(600)")
    started, whole = [], subprocess.Popen

    def noted(*arguments, **options):
        started.append(whole(*arguments, **options))
        return started[-1]

    def failing(self, number):
        raise error

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(Travel, "__call__", failing)
    with pytest.raises(error):
        animate(walk(), "epochs", films / "f.mp4", **SMALL)
    assert len(started) == 1 and started[0].returncode is not None and not list(films.iterdir())


def test_without_ffmpeg_an_mp4_is_refused_and_a_gif_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs the program ffmpeg, which is not on the PATH; accepted: a .gif"):
        animate(walk(), "epochs", tmp_path / "f.mp4", **SMALL)
    assert animate(walk(), "epochs", tmp_path / "f.gif", **SMALL).is_file()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_the_frames_of_an_mp4_are_those_drawn(tmp_path):
    path = animate(walk(), "epochs", tmp_path / "f.mp4", **SMALL)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # a browser can start before it has the whole file
    decode = ["ffmpeg", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(decode, capture_output=True, check=True)
    assert b"h264" in done.stderr and b"yuv420p(tv, bt709" in done.stderr and b"10 fps" in done.stderr
    shown = film(walk())
    expected = np.stack(list(shown.frames(shown.numbers()))).astype(int)
    drawn = np.frombuffer(done.stdout, np.uint8).reshape(expected.shape).astype(int)
    # Colors have a quarter of the pixels, so edges differ.
    assert np.abs(drawn - expected).mean() < 1.5
    assert (np.abs(drawn[:, 0, 0] - 255) <= 2).all()
