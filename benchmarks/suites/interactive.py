"""How fast the page of `plots.interactive` opens, moves and answers, in Chromium with a software renderer.

`python -m benchmarks.suites.interactive` measures pages of 487,680 nodes in three dimensions, with classes, and writes
the rows: of a random walk in time, and of noise, which compresses worst. A new browser opens the page for each repeat.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.measure import records
from benchmarks.measure.chromium import chromium, why_no_chromium
from benchmarks.measure.conditions import conditions
from benchmarks.measure.rows import OURS, Row, timing
from benchmarks.measure.tables import bytes_text, markdown_table
from benchmarks.measure.tasks import REFUSAL, task_options
from mmphate_gpu.interactive import page
from mmphate_gpu.slices import SliceLayout

Stages = dict[str, Row]
NAME = "interactive"
SIZE, SIZE_QUICK = (127, 128, 30), (12, 10, 30)
WINDOW = (1280, 800)
FRAMES, FRAMES_QUICK = 100, 10
REPEATS, REPEATS_QUICK = 3, 1
MOST_BYTES = 6_000_000
# Frames of the browser in which a key turns the picture, or in which it plays: [seconds, mean share of dots drawn].
MOVING = """
const [turns, frames, done] = arguments;
const canvas = document.getElementById("canvas");
if (!turns) document.getElementById("play").click();
let [count, drawn, start] = [0, 0, performance.now()];
const frame = () => {
  if (turns) canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  drawn += mmphate.state().drawn / mmphate.state().total;
  if (++count < frames) return requestAnimationFrame(frame);
  if (!turns) document.getElementById("play").click();
  done([(performance.now() - start) / 1000, drawn / count]);
};
requestAnimationFrame(frame);
"""
# Seconds until the node in the middle is named: after the view has changed, and after the pointer has moved.
HOVER = """
const canvas = document.getElementById("canvas");
const pick = () => {
  const start = performance.now();
  mmphate.pick(500, 300);
  return (performance.now() - start) / 1000;
};
canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
return [pick(), pick()];
"""
# Seconds since the page was called for until the first picture, and its share of the dots.
FIRST = """
const [done] = arguments;
mmphate.ready.then(({ milliseconds, drawn }) => done([milliseconds / 1000, drawn / mmphate.state().total]));
"""
# Seconds since the page was called for until all dots are drawn: the first picture may have a part of them.
ALL_DOTS = """
const [done] = arguments;
const look = () => {
  const { drawn, total } = mmphate.state();
  if (drawn === total) done(performance.now() / 1000);
  else requestAnimationFrame(look);
};
look();
"""
RENDERER = """
const gl = document.createElement("canvas").getContext("webgl2");
return gl.getParameter(gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL);
"""


def nodes(motion: str, layout: SliceLayout) -> np.ndarray:  # (N, 3) float32
    """A random walk in time of every unit, or noise."""
    generator = np.random.default_rng(0)
    steps = generator.standard_normal((*layout.shape, 3), dtype=np.float32)
    if motion == "walk":
        steps = generator.standard_normal((layout.shape[0], 1, *steps.shape[2:]), dtype=np.float32).cumsum(0) + (
            0.3 * steps
        ).cumsum(1)
    return steps.reshape(-1, 3)


def measured(motion: str, *, quick: bool) -> list[Row]:
    """A row each for writing the page, its first picture, and for every use of it."""
    layout = SliceLayout.of_shape(*(SIZE_QUICK if quick else SIZE))
    coordinates, classes = nodes(motion, layout), np.random.default_rng(1).integers(0, 6, layout.n_nodes)
    whole = Row(
        suite=NAME,
        case="x".join(map(str, layout.shape)),
        n_nodes=layout.n_nodes,
        settings={"nodes": motion},
        **conditions("cpu"),
    )
    repeats = REPEATS_QUICK if quick else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            path.write_text(page(coordinates, layout, most_active=classes), encoding="utf-8")
            seconds.append(time.perf_counter() - started)
        written = replace(whole, stage="write", statistics={"page_bytes": path.stat().st_size}, **timing(seconds))
        uses = [opened(path, FRAMES_QUICK if quick else FRAMES) for _ in range(repeats)]
    return [written, *(_joined(whole, stage, [use[stage] for use in uses]) for stage in uses[0])]


def opened(path: Path, frames: int) -> dict[str, dict[str, Any]]:
    """What a new browser takes for the page: for each stage its seconds and further numbers."""
    with chromium(size=WINDOW, patience=600) as driver:
        driver.get(path.as_uri())
        first, share = driver.execute_async_script(FIRST)
        whole = driver.execute_async_script(ALL_DOTS)
        renderer = driver.execute_script(RENDERER)
        stages = {"first picture": {"seconds": first, "share_drawn": share, **memory(driver), "renderer": renderer}}
        stages["all dots"] = {"seconds": whole}
        stages["still"] = {"seconds": min(driver.execute_script("return mmphate.draw() / 1000") for _ in range(3))}
        for stage, turns in (("turning", True), ("playing", False)):
            before = cpu_seconds(driver)
            seconds, share = driver.execute_async_script(MOVING, turns, frames)
            spent = (cpu_seconds(driver) - before) / frames
            stages[stage] = {"seconds": seconds / frames, "cpu_seconds": spent, "share_drawn": share}
        changed, again = driver.execute_script(HOVER)
        stages["hover after a turn"] = {"seconds": changed}
        stages["hover"] = {"seconds": again, **memory(driver)}
        # Other work on the machine takes its share of every frame, and the load says how much of it ran.
        always = {"browser": f"Chromium {driver.capabilities['browserVersion']}", "load": psutil.getloadavg()[0]}
        return {stage: {**numbers, **always} for stage, numbers in stages.items()}


def processes(driver: Any) -> dict[str, list[psutil.Process]]:
    """The processes of the browser by their type."""
    by_type: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process(driver.service.process.pid).children(recursive=True):
        types = [part.partition("=")[2] for part in process.cmdline() if part.startswith("--type=")]
        by_type.setdefault(types[0] if types else "browser", []).append(process)
    return by_type


def memory(driver: Any) -> dict[str, int]:
    """Resident bytes of the largest process of a page, of the one that draws, and of all together.

    Memory that processes share is counted in each of them.
    """
    resident = {name: [process.memory_info().rss for process in of] for name, of in processes(driver).items()}
    return {
        "page_process_bytes": max(resident["renderer"]),
        "gpu_process_bytes": sum(resident["gpu-process"]),
        "all_process_bytes": sum(map(sum, resident.values())),
    }


def cpu_seconds(driver: Any) -> float:
    """Seconds of the CPU that all processes of the browser have taken."""
    times = (process.cpu_times() for of in processes(driver).values() for process in of)
    return sum(time.user + time.system for time in times)


def _joined(whole: Row, stage: str, repeats: list[dict[str, Any]]) -> Row:
    """A row of the medians."""
    texts = {name: value for name, value in repeats[0].items() if isinstance(value, str)}
    numbers = {name: float(np.median([repeat[name] for repeat in repeats])) for name in repeats[0] if name not in texts}
    times = timing([repeat["seconds"] for repeat in repeats])
    seconds = numbers.pop("seconds")
    settings = {**whole.settings, **texts, "window": "x".join(map(str, WINDOW))}
    frames = {"rate": 1 / seconds, "unit": "frames"} if stage in ("still", "turning", "playing") else {}
    return replace(whole, stage=stage, statistics=numbers, settings=settings, **frames, **times)


def table(rows: list[Row]) -> str:
    """The table of docs/decisions.md: a column for each sort of nodes."""
    columns = [{row.stage: row for row in rows if row.settings["nodes"] == nodes} for nodes in ("walk", "noise")]
    lines = [(name, *(text(column) for column in columns)) for name, text in LINES.items()]
    return markdown_table(("", "random walk in time", "noise"), lines)


def _moving(stage: str) -> Callable[[Stages], str]:
    """Frames a second with the share of the dots, and the CPU time of a frame."""
    return lambda rows: (
        f"{rows[stage].rate:.0f} ({rows[stage].statistics['share_drawn']:.1%}), "
        f"{rows[stage].statistics['cpu_seconds']:.3f} s"
    )


def _seconds(stage: str, digits: int = 1) -> Callable[[Stages], str]:
    return lambda rows: f"{rows[stage].seconds:.{digits}f}"


LINES: dict[str, Callable[[Stages], str]] = {
    "bytes of the page": lambda rows: f"{rows['write'].statistics['page_bytes']:,}",
    "seconds to write it in Python": _seconds("write"),
    "seconds to the first picture, with the share of the dots": lambda rows: (
        f"{rows['first picture'].seconds:.1f} ({rows['first picture'].statistics['share_drawn']:.1%})"
    ),
    "seconds until all dots are drawn": _seconds("all dots"),
    "seconds to draw all dots again": _seconds("still", 2),
    "frames a second while it turns, with the share of the dots, and the CPU time of a frame": _moving("turning"),
    "the same while it plays": _moving("playing"),
    "seconds until the node under the pointer is named: the first after a turn, and the next": lambda rows: (
        f"{rows['hover after a turn'].seconds:.3f}, {rows['hover'].seconds:.4f}"
    ),
    "memory of the page, and of the drawing process": lambda rows: ", ".join(
        bytes_text(int(rows["hover"].statistics[f"{name}_process_bytes"])) for name in ("page", "gpu")
    ),
    "load of the machine": lambda rows: f"{rows['hover'].statistics['load']:.1f}",
}


def main() -> int:
    options = task_options().parse_args()
    if reason := why_no_chromium():
        print(reason, file=sys.stderr)
        return REFUSAL
    rows = [row for motion in options.names or ("walk", "noise") for row in measured(motion, quick=options.quick)]
    path = records.result_path(options.folder or records.RESULTS, NAME, rows[0].machine)
    with records.locked(path.parent):
        others = [row for row in records.read(path) if row.by != OURS]  # pages drawn by other libraries, made by hand
        records.replace(path, [*others, *rows])
    for row in rows:
        rate = f", {row.rate:.1f} frames a second" if row.rate else ""
        print(f"{row.settings['nodes']}, {row.stage}: {row.seconds:.4f} s{rate}; {row.statistics}")
    if not options.quick and not options.names:
        print(table(rows))
    return int(any(row.statistics.get("page_bytes", 0) > MOST_BYTES for row in rows))


if __name__ == "__main__":
    sys.exit(main())
