"""Frames in a file: .gif by Pillow, .mp4 by the program ffmpeg."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..runtime.atomic import whole_file
from ..runtime.memory import check_fits
from ..stages import progress_bar
from .canvas import check_file
from .film_frames import Film

SUFFIXES = (".gif", ".mp4")
NO_FFMPEG = "needs the program ffmpeg, which is not on the PATH; accepted: a .gif, or a machine with ffmpeg"
SAMPLES = 6  # frames whose colors make the palette
BYTES_OF_SAMPLE = 16  # a pixel: its number, sorted, with its place
COLORS = 255  # of a .gif; the last of 256 marks pixels that do not change
CODE = np.array([65536, 256, 1], dtype=np.int32)  # red, green and blue in one number, which sorts sooner than three
CELL = np.array([4096, 64, 1])  # their upper six bits in one number
EXACT = 24  # the most frequent colors, such as those of the ground and the texts, are in the palette as they are


def write_film(film: Film, path: Path, fps: float, verbose: bool) -> None:
    """Write ``film`` to ``path``. An existing file is replaced. The file appears whole or not at all."""
    write = {".gif": _write_gif, ".mp4": _write_mp4}[path.suffix.lower()]
    numbers = film.numbers()
    with (
        whole_file(path, overwrite=True) as new,
        progress_bar(len(numbers), desc="film", unit="frame", disable=not verbose) as bar,
    ):

        def frames() -> Iterator[np.ndarray]:
            for frame in film.frames(numbers):
                yield frame
                bar.update()

        write(film, frames(), new, fps)


def film_path(path: str | os.PathLike[str]) -> Path:
    """``path`` with ~ expanded; raises `InputError` for other suffixes, and for an .mp4 without ffmpeg."""
    checked = check_file(path, SUFFIXES)
    if checked.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError(f"path={str(checked)!r} {NO_FFMPEG}")
    return checked


# ---------------------------------------------------------------- .gif


def durations(n: int, fps: float) -> list[int]:  # milliseconds
    """How long each of ``n`` frames is shown. A .gif counts in 10 ms, so the durations differ where they have to."""
    ends = np.round(np.arange(n + 1) * 100 / fps).astype(int)
    return (10 * np.diff(ends)).tolist()


def _write_gif(film: Film, frames: Iterator[np.ndarray], path: Path, fps: float) -> None:
    width, height = film.size
    check_fits(
        "the film", width * height * (film.n_frames + SAMPLES * BYTES_OF_SAMPLE), torch.device("cpu"),
        remedy="accepted: fewer seconds, a smaller figsize, or an .mp4, which is written frame by frame",
    )  # fmt: skip
    palette = Palette.of(film)
    images = map(palette.image, frames)
    shown = durations(film.n_frames + film.hold, fps)
    table = palette.colors.ravel().tolist()
    with path.open("wb") as file:  # after an error, Pillow would leave it open
        next(images).save(file, "GIF", save_all=True, append_images=images, duration=shown, loop=0, palette=table)


@dataclass(frozen=True, eq=False)
class Palette:
    """The colors of all frames. With a palette for each frame, colors would flicker."""

    colors: np.ndarray  # (n, 3) uint8
    nearest: np.ndarray  # (64^3,) the color for the upper six bits of red, green and blue

    @classmethod
    def of(cls, film: Film) -> Palette:
        """The palette for some frames of ``film``, evenly spaced."""
        codes = np.concatenate([frame.reshape(-1, 3) @ CODE for frame in film.samples(SAMPLES)])
        values, counts = np.unique(codes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return cls.reduced((values[order, None] // CODE % 256).astype(np.uint8), counts[order])

    @classmethod
    def reduced(cls, colors: np.ndarray, counts: np.ndarray) -> Palette:  # (n, 3), (n,)
        """The palette for ``colors`` with falling ``counts``; the first `EXACT` of them are in it as they are."""
        from scipy.spatial import KDTree

        few = np.unique(np.concatenate([colors[:EXACT], _mixed(colors[EXACT:], counts[EXACT:])]), axis=0)
        tree = KDTree(few)
        nearest = tree.query(np.indices((64, 64, 64)).reshape(3, -1).T * 4 + 1.5)[1]
        exact = colors[:EXACT][::-1]  # of two in a cell, the more frequent wins
        nearest[exact // 4 @ CELL] = tree.query(exact)[1]
        return cls(few, nearest.astype(np.uint8))

    def image(self, frame: np.ndarray) -> Any:  # (height, width, 3)
        """``frame`` as an image of Pillow with this palette."""
        from PIL import Image

        image = Image.fromarray(self.nearest[frame // 4 @ CELL])
        image.putpalette(self.colors.tobytes())
        return image


def _mixed(colors: np.ndarray, counts: np.ndarray) -> np.ndarray:  # (n, 3), (n,) -> (m, 3)
    """At most ``COLORS - EXACT`` colors near to all ``colors``."""
    from PIL import Image

    if not len(colors):
        return colors
    # By the roots of their counts, the rare colors of small dots have their share.
    pixels = np.repeat(colors, np.ceil(np.sqrt(counts)).astype(int), axis=0)
    reduced = Image.fromarray(pixels[None]).quantize(COLORS - EXACT, method=Image.Quantize.FASTOCTREE)
    return np.array(reduced.getpalette(), dtype=np.uint8).reshape(-1, 3)[: COLORS - EXACT]


# ---------------------------------------------------------------- .mp4


def _write_mp4(film: Film, frames: Iterator[np.ndarray], path: Path, fps: float) -> None:
    with tempfile.TemporaryFile() as messages:
        process: Any = subprocess.Popen(_command(film.size, path, fps), stdin=subprocess.PIPE, stderr=messages)
        try:
            complete = _fed(process, frames)
            complete = process.wait() == 0 and complete
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if not complete:
            messages.seek(0)
            said = " ".join(messages.read().decode(errors="replace").split())[-500:] or "nothing"
            raise InputError(f"ffmpeg ended with code {process.returncode} and said: {said}; accepted: a .gif")


def _fed(process: Any, frames: Iterator[np.ndarray]) -> bool:
    """Whether ``process`` has read all ``frames``."""
    try:
        for frame in frames:
            process.stdin.write(frame.tobytes())
        process.stdin.close()
    except BrokenPipeError:
        return False
    return True


# Players take the colors of unnamed matrices in different ways.
COLORS_OF_VIDEO = (
    "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709"
)
CODING = "-an -c:v libx264 -pix_fmt yuv420p -crf 18 -movflags +faststart -f mp4"


def _command(size: tuple[int, int], path: Path, fps: float) -> list[str]:
    raw = f"-f rawvideo -pix_fmt rgb24 -s {size[0]}x{size[1]} -r {fps:g} -i -"
    return ["ffmpeg", "-y", "-loglevel", "error", *f"{raw} {COLORS_OF_VIDEO} {CODING}".split(), str(path)]
