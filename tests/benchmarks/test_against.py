"""The peers: that the work is the same, that it is judged rightly, and that what stops one is told."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import run as harness
from benchmarks.measure import tasks
from benchmarks.measure.rows import NOT_INSTALLED, OURS, Row
from benchmarks.peers import POINTS_ONLY, Found, Peer, peers
from benchmarks.peers import comparisons as given
from benchmarks.suites import against as bench_against
from mmphate_gpu import reference
from mmphate_gpu.trace import normalize

ROOT = Path(__file__).resolve().parents[2]

CPU = torch.device("cpu")
# The affinity is kept in float32: that is what a product made anew from the points may be off by, and one of float32
# columns (measured: 7e-8 and 8e-7).
SINGLE = 5e-6
FORBIDDEN = ("phate", "graphtools", "m_phate", "scprep")


# ---------------------------------------------------------------- the list of peers


def test_every_peer_does_what_is_compared():
    for name, peer in peers().items():
        assert name == peer.name and peer.does and peer.does.keys() <= given.COMPARISONS.keys()
        assert all(callable(do) for ways in peer.does.values() for do in ways.values())
        assert all("" not in ways or len(ways) == 1 for ways in peer.does.values())
        assert not {*peer.packages, *peer.versions} & {*FORBIDDEN}
    assert bench_against.PLANS.keys() == given.COMPARISONS.keys()
    for comparison, plan in bench_against.PLANS.items():
        assert all(comparison in peers()[name].does for name in plan.quick_peers)
        assert OURS in plan.quick_peers


def test_asking_the_peers_loads_none_of_them():
    code = "import sys; from benchmarks.peers import peers; [p.why_not('cpu') for p in peers().values()]; "
    code += "print(sorted({'torch', 'sklearn', 'scipy', 'umap', 'torchdr', 'faiss', 'numba'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_missing_is_named():
    peer = Peer("some", {"product": {"": lambda product: Found(0)}}, packages=("json", "no_such_package"))
    assert peer.why_not("cpu") == f"{NOT_INSTALLED}: no_such_package"
    assert replace(peer, packages=("json",)).why_not("cpu") is None
    modules = ("json.decoder", "no_such_package.some", "no_such_package.other")  # the parent of none is imported
    assert replace(peer, packages=modules).why_not("cpu") == f"{NOT_INSTALLED}: no_such_package"
    assert replace(peer, packages=("json.decoder",)).load() >= 0
    assert replace(peer, devices=("cuda",)).why_not("cpu") == "does not run on cpu"
    assert replace(peer, packages=(), lacks=lambda: "a compiler").why_not("cpu") == f"{NOT_INSTALLED}: a compiler"


def test_larger_sizes_wait_for_smaller_ones():
    found = bench_against.tasks("cpu", False, ["picture"], ["openTSNE"])
    assert [task.key for task in found[:2]] == ["picture-1008-opentsne", "picture-2016-opentsne"]
    assert [task.after for task in found] == [None, *[task.key for task in found[:-1]]]
    assert {task.suite for task in found} == {"against"} and harness.suite_module("against") is bench_against
    quick = bench_against.tasks("cpu", True)
    assert all(task.key.startswith(tasks.QUICK) and "--quick" in task.command and not task.after for task in quick)
    assert bench_against.tasks("cuda:0", True, ["product"], ["cupy"])
    assert not bench_against.tasks("cpu", True, by=["cupy"])
    assert len({task.key for task in bench_against.tasks("cpu", False)}) == len(bench_against.tasks("cpu", False))


def test_the_reference_is_tried_at_every_size():
    found = bench_against.tasks("cpu", False, ["picture"], ["reference"])
    assert [task.about["n_nodes"] for task in found] == list(bench_against.DOUBLED)
    assert not any(task.after for task in found)


def test_estimates_grow_to_what_a_peer_may_take(monkeypatch):
    monkeypatch.setattr(bench_against, "memory_limit", lambda: 12e9)
    found = bench_against.tasks("cpu", False)
    assert all(0 <= task.estimate < task.timeout for task in found)
    dense = [task.estimate for task in found if task.about["by"] == "reference"]
    assert dense[:5] == sorted(dense[:5]) and 300 < dense[4] < 330
    assert max(dense[5:]) < 100  # three arrays of 8 GB do not fit
    phate = [task.estimate for task in found if task.about["by"] == "torchdr-phate"]
    assert 0 < phate[0] < phate[1] < phate[2] and phate[-1] == 0  # the one before it takes too long


def test_a_task_says_of_what_it_gave_nothing():
    (task,) = bench_against.tasks("cpu", True, ["product"], ["scipy"])
    assert task.about == {"case": "product", "by": "scipy", "n_nodes": 4032}
    (task,) = bench_against.tasks("cpu", True, ["mds"], ["scikit-learn"])
    assert task.about == {"case": "mds", "by": "scikit-learn", "n_landmark": 400}
    assert Row(suite="against", **task.about).n_landmark == 400


def test_on_a_gpu_one_task_says_who_runs_on_the_cpu_only(tmp_path, monkeypatch):
    *_, task = bench_against.tasks("cuda:0", False)
    assert [one.key for one in bench_against.tasks("cuda:0", False) if "cpu-only" in one.key] == ["cpu-only"]
    (task,) = bench_against.tasks("cuda:0", True, ["picture"], ["reference", "umap-learn"])
    assert task.key == "quick-cpu-only"
    command = tuple("--device=cpu" if part.startswith("--device") else part for part in task.command)  # none is there
    (row,) = tasks.run_task(replace(task, command=command), tmp_path)
    assert (row.case, row.by, row.skipped) == ("picture", "reference, umap-learn", bench_against.CPU_ONLY)
    assert bench_against.table([row], "picture")[1][0][-1] == bench_against.CPU_ONLY


# ---------------------------------------------------------------- what is given, and how it is judged


@pytest.mark.parametrize("n_nodes", [1008, 2016, 4032, 64512])
def test_sizes_are_numbers_of_nodes(n_nodes, monkeypatch):
    monkeypatch.setattr(given.datasets, "bifurcation", lambda scenario, *shape: shape)
    epochs, timesteps = given.suite_of(n_nodes)
    assert 6 * epochs * timesteps == n_nodes


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match="1009"):
        given.suite_of(1009)


@pytest.fixture(scope="module")
def graph():
    return given.Graph(1008, CPU)


@pytest.fixture(scope="module")
def product():
    return given.Product(1008, CPU)


@pytest.fixture(scope="module")
def neighbors():
    return given.Neighbors(1008, CPU)


def test_points_are_nodes_in_order(graph):
    stack = normalize(graph.trace)
    node = 5 * graph.trace.n_units + 3
    assert graph.points.shape == (1008, 10)
    np.testing.assert_allclose(graph.points[node], stack[5, 3].numpy(), rtol=1e-6)  # float32


def test_the_graph_is_the_affinity_without_its_diagonal(graph):
    expected = reference.multislice_affinity(graph.trace.data.numpy())
    np.fill_diagonal(expected, 0)
    assert abs(graph.graph - expected).max() < SINGLE
    assert graph.graph.diagonal().max() == 0 and abs(graph.graph - graph.graph.T).max() == 0
    assert np.abs(graph.start.mean(0)).max() < 1e-4  # float32 sums of a thousand numbers


def test_a_picture_is_judged_by_what_it_keeps(graph):
    judged = graph.judge(Found(graph.points))  # the points themselves keep everything
    assert all(share == 1 for share in judged["preservation"].values())
    assert judged["preservation_within"] == {"2": 1} and judged["trustworthiness"] == 1
    noise = graph.judge(Found(np.random.default_rng(0).normal(size=(1008, 2))))
    assert noise["preservation"]["10"] < 0.2 and noise["trustworthiness"] < 0.6


def test_products_are_judged_by_their_largest_error(product):
    assert product.judge(Found(product.expected)) == {"error": 0}
    assert product.judge(Found(2 * product.expected)) == {"error": 1}
    assert product.fields()["work"] == 2 * product.sparse.nnz * given.COLUMNS


def test_neighbors_are_judged_by_the_bandwidth(neighbors):
    far = neighbors.expected
    assert neighbors.judge(Found(far)) == {"error": 0}
    assert neighbors.judge(Found(np.median(far, axis=1))) == {"error": 0}
    assert neighbors.judge(Found(1.5 * far))["error"] == pytest.approx(0.5)
    dense = np.linalg.norm(neighbors.sets[:, :, None] - neighbors.sets[:, None], axis=-1)
    order = np.argsort(dense, axis=2)[..., 1:]  # the point itself comes first
    assert neighbors.judge(Found(order[..., : given.KNN])) == {"recall": 1, "error": pytest.approx(0, abs=1e-12)}
    wrong = neighbors.judge(Found(order[..., 5 : 5 + given.KNN]))
    assert wrong["recall"] == pytest.approx(20 / 25) and wrong["error"] > 0.01


# ---------------------------------------------------------------- the work of those that are always there


def did(peer: str, comparison: str, what: Any) -> dict[str, dict[str, Any]]:
    """What is judged of every way of a peer."""
    return {way: what.judge(ready(what)()) for way, ready in peers()[peer].does[comparison].items()}


@pytest.mark.parametrize("peer", [OURS, f"{OURS}, portable", "scipy", "torch"])
def test_products_are_the_same(peer, product):
    for way, judged in did(peer, "product", product).items():
        assert judged["error"] < (SINGLE if "float32" in way else 1e-12)


@pytest.mark.parametrize("peer", [OURS, f"{OURS}, portable", "scikit-learn"])
def test_exact_searches_are_exact(peer, neighbors):
    for judged in did(peer, "neighbors", neighbors).values():
        assert judged["error"] < 1e-12 and judged.get("recall", 1) == 1


def test_a_point_is_none_of_its_neighbors(neighbors):
    found = np.array(
        [
            [0, *range(2, 27)],
            [
                *range(26),
            ],
            [*range(3, 29)],
        ]
    )  # 0 first, 1 second, 2 crowded out
    others = neighbors.others(found)
    assert others.tolist() == [[*range(2, 27)], [0, *range(2, 26)], [*range(3, 28)]]


# Each is the library's own, where it is installed: what it gives has to be judged, in finite numbers.
ELSEWHERE = [
    ("faiss", "neighbors"),
    *(
        pytest.param(*one, marks=pytest.mark.slow)
        for one in (  # numba and g++ compile, layouts take hundreds of steps
            ("pynndescent", "neighbors"),
            ("pykeops", "product"),
            ("pykeops", "neighbors"),
            ("openTSNE", "picture"),
            ("openTSNE", "graph"),
            ("umap-learn", "picture"),
            ("umap-learn", "graph"),
            ("torchdr-phate", "picture"),
            ("torchdr-umap", "picture"),
        )
    ),
]


@pytest.mark.parametrize(("name", "comparison"), ELSEWHERE)
def test_other_libraries_do_the_work(name, comparison, request):
    if reason := peers()[name].why_not("cpu"):
        pytest.skip(reason)
    what = request.getfixturevalue({"picture": "graph"}.get(comparison, comparison))  # a graph is a picture too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        (judged,) = did(name, comparison, what).values()
    numbers = [x for value in judged.values() for x in (value.values() if isinstance(value, dict) else [value])]
    assert numbers and all(math.isfinite(number) for number in numbers)
    if comparison == "neighbors":
        assert judged["recall"] > 0.95 and judged["error"] < 0.05
    elif comparison == "product":
        assert judged["error"] < SINGLE
    else:
        assert judged["trustworthiness"] > 0.8 and judged["preservation"]["10"] > 0.2


def test_smacof_goes_to_the_same_stress():
    scaling = given.Scaling(60, CPU)
    assert scaling.trace.n_nodes == 1008 and scaling.distances.shape == (60, 60)
    ours, theirs = did(OURS, "mds", scaling)[""]["stress"], did("scikit-learn", "mds", scaling)[""]["stress"]
    assert ours == pytest.approx(scaling.target, rel=1e-9)
    assert theirs <= 1.001 * ours + 1e-9 < scaling.judge(Found(scaling.start))["stress"]


def test_a_picture_of_our_graph_is_that_of_the_trace(graph):
    from benchmarks.peers import ours

    whole, part = ours.picture(graph)(), ours.picture_of_graph(graph)()
    assert (whole.fields["t"], whole.fields["stress"]) == (part.fields["t"], pytest.approx(part.fields["stress"]))


# ---------------------------------------------------------------- rows


def peer_of(ready: Any, **changes: Any) -> Peer:
    return Peer("some", {"product": {"fast": ready}}, settings=POINTS_ONLY, **changes)


def test_a_row_has_times_memory_settings_and_the_judgement():
    calls = []

    def ready(product: Any) -> Any:
        def run() -> Found:
            calls.append(1)
            return Found(product.expected, {"settings": {"sweeps": 3}})

        return run

    row = bench_against.work("product", 1008, peer_of(ready), "fast", "cpu", quick=False)
    assert len(calls) == 4 and (row.repeats, row.warmup) == (3, 1)
    assert (row.suite, row.case, row.by, row.n_nodes, row.error) == ("against", "product", "some", 1008, 0)
    assert row.settings == {"way": "fast", "sweeps": 3}
    assert row.peak_bytes > 1e8 and row.held_bytes > 1e8 and row.rate == pytest.approx(row.work / row.seconds)
    head, lines = bench_against.table([row], "product")
    assert lines[0][:3] == ("product", "1,008 nodes", "some (fast)") and lines[0][-1] == "error 0.0e+00"
    assert len(head) == len(lines[0]) and bench_against.table([row], "mds")[1] == []


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset")
def test_a_run_adds_what_it_takes_and_not_what_was_made_before_or_after():
    size = 100_000_000

    def ready(product: Any) -> Any:
        before = np.ones(2 * size, np.uint8)
        later = iter([size, 4 * size, 4 * size, 4 * size])  # what warm runs take does not count

        def run() -> Found:
            values = np.ones(next(later), np.uint8)
            return Found(np.zeros((1008, given.COLUMNS)) if len(values) + len(before) else None)

        return run

    row = bench_against.work("product", 1008, peer_of(ready), "fast", "cpu", quick=False)
    # Pages of code that are read first then add to it; Linux counts pages in lots, which left 0.2 MB
    # out.
    assert 0.98 * size < row.added_bytes < 1.1 * size
    assert row.peak_bytes - row.held_bytes == pytest.approx(row.added_bytes, abs=1e7)


def test_what_a_peer_does_not_take_is_not_made_before_its_run():
    made = given.Product(1008, CPU)
    peers()["scipy"].does["product"]["float64"](made)
    assert not {"lazy", "block32", "expected"} & vars(made).keys()
    made = given.Neighbors(1008, CPU)
    peers()[OURS].does["neighbors"]["k-th distances"](made)
    assert not {"sets", "sets32", "expected"} & vars(made).keys()
    made = given.Graph(1008, CPU)
    peers()[OURS].does["picture"][""](made)
    assert not {"points", "operator", "graph"} & vars(made).keys()


def test_a_picture_of_points_says_what_it_saw():
    peer = Peer("some", {"picture": {"": lambda picture: lambda: Found(picture.points)}}, settings=POINTS_ONLY)
    row = bench_against.work("picture", 1008, peer, "", "cpu", quick=True)
    assert row.settings == POINTS_ONLY and row.trustworthiness == 1 and row.preservation["10"] == 1


def test_what_takes_long_is_not_run_again(monkeypatch):
    told: list[str] = []

    def repeats(least: int) -> int:
        found, times = bench_against._runs(lambda: "x", CPU, least, False, told.append)
        assert found == "x" and (times["repeats"] or times["seconds"] == times["cold_seconds"])
        return times["repeats"]

    monkeypatch.setattr(bench_against, "LONG", 0.0)
    assert (repeats(0), repeats(1)) == (0, 1)
    monkeypatch.undo()
    monkeypatch.setattr(bench_against, "ENOUGH", 1e-12)
    assert repeats(0) == 1 and told == [bench_against.COLD] * 3


def ended(monkeypatch, code: int, told: str = "") -> None:
    done = SimpleNamespace(returncode=code, stderr=told, stdout="")
    monkeypatch.setattr(bench_against, "_ended", lambda command, env: done)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return bench_against._ended([sys.executable, "-c", code, *arguments], tasks.environment())


def test_a_run_that_takes_too_long_is_ended_with_its_children_and_no_judgement(tmp_path):
    child = "import sys, time; time.sleep(1.5); open(sys.argv[1], 'w')"
    code = (
        "import subprocess, sys, time; from benchmarks.suites.against import at_most\n"
        "with at_most(0.5): pass\n"
        "time.sleep(0.8)  # the clock has stopped\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "print('in it', flush=True)\n"
        "with at_most(0.5): sum(range(10**12))  # in C: no handler of Python's would run\n"
    )
    started = time.monotonic()
    done = python(code, child, str(tmp_path / "late"))
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, "in it\n")
    assert time.monotonic() - started < 60
    time.sleep(2)
    assert not (tmp_path / "late").exists()
    done = python("import sys; print(3); print(4, file=sys.stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "4\n")


def test_a_run_that_is_stopped_takes_its_peer_with_it(tmp_path):
    note = tmp_path / "pid"
    peer = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(300)"
    code = (
        "import sys; from benchmarks.suites import against as b; from benchmarks.measure.tasks import environment\n"
        f"b.rows_of = lambda *a: b._ended([sys.executable, '-c', {peer!r}], environment())\n"
        "b.main(['--rows', '--size=1008', '--only=product', '--peer=scipy'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=tasks.environment(), start_new_session=True)
    try:
        while not (note.exists() and note.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 1
    finally:
        tasks.end(process)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_what_stops_a_peer_stands_in_its_row(monkeypatch):
    dense, other = peers()["reference"], peers()["torchdr-phate"]
    monkeypatch.setattr(bench_against.records, "about", lambda device, packages: {"device": device})
    monkeypatch.setattr(bench_against, "memory_limit", lambda: 2_000_000_000)
    monkeypatch.setattr(Peer, "why_not", lambda self, device: None)

    def row_of(peer: Peer, code: int, told: str = "") -> Row:
        ended(monkeypatch, code, told)
        (row,) = bench_against.rows_of("picture", 2016, peer, "cpu", True)
        assert (row.by, row.n_nodes, row.seconds) == (peer.name, 2016, None)
        return row

    row = row_of(dense, bench_against.OUT_OF_MEMORY, "...\nno more")
    assert row.skipped == "ran out of memory: no more (2.00 GB allowed)"
    assert row_of(dense, -signal.SIGKILL).skipped == "ran out of memory: ended by the system (2.00 GB allowed)"
    assert row_of(dense, -signal.SIGALRM).skipped == "took more than 300 s"
    assert row_of(other, -signal.SIGALRM).skipped == "took more than 120 s"
    assert row_of(other, -signal.SIGSEGV).skipped == "ended by SIGSEGV (2.00 GB allowed)"
    assert row.failed is None
    for peer, code in ((dense, -signal.SIGSEGV), (other, -signal.SIGTERM), (other, 1)):
        row = row_of(peer, code, "ValueError: a fault")
        assert row.failed and row.skipped == "ValueError: a fault"


def test_every_way_has_a_process_and_a_row(monkeypatch):
    commands = []

    def ended(command: list[str], env: dict[str, str]) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=-signal.SIGALRM, stderr="", stdout="")

    monkeypatch.setattr(bench_against, "_ended", ended)
    rows = bench_against.rows_of("product", 4032, peers()[OURS], "cpu", True)
    ways = [*peers()[OURS].does["product"]]
    assert [row.settings["way"] for row in rows] == ways
    assert all(f"--way={way}" in command for way, command in zip(ways, commands, strict=True))
    cells = bench_against.table(rows, "product")[1]
    assert [line[2] for line in cells] == [f"{OURS} ({way})" for way in ways]


def test_what_is_not_there_or_was_refused():
    (row,) = bench_against.rows_of("mds", 400, peer_of(None, packages=("no_such",)), "cpu", True)
    assert row.skipped.startswith(NOT_INSTALLED) and row.n_landmark == 400
    assert bench_against.table([row], "")[1][0][-1] == row.skipped
    assert bench_against.table([replace(row, skipped="refused: the one before it gave nothing")], "")[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_process_that_takes_too_much_ends_by_itself():
    code = (
        "import sys; from benchmarks.suites import against as b\n"
        "def work(*arguments): import torch; return torch.ones(2**33, dtype=torch.uint8)\n"
        "b.work = work\n"
        "sys.exit(b.main(['--work', '--bytes=4000000000', '--only=product', '--peer=scipy', '--way=float64']))"
    )
    done = python(code)
    assert done.returncode == bench_against.OUT_OF_MEMORY and "allocate memory" in done.stderr


@pytest.mark.slow
def test_a_task_prints_its_rows(tmp_path):
    (task,) = bench_against.tasks("cpu", True, ["product"], ["scipy"])
    command = tuple("--size=1008" if part.startswith("--size") else part for part in task.command)
    found = tasks.run_task(replace(task, command=command), tmp_path)
    assert [row.settings["way"] for row in found] == ["float64", "float32"] and found[0].error == 0
    assert {row.task for row in found} == {"quick-product-4032-scipy"} and all(row.import_seconds for row in found)


def test_pictures_are_drawn_by_peer(tmp_path):
    made = [
        Row(suite="against", case="picture", by=by, n_nodes=n, seconds=n / 1e3, peak_bytes=n, machine="some")
        for by in ("a", "b")
        for n in (1008, 2016)
    ]
    path = bench_against.draw([*made, replace(made[0], seconds=None, skipped="died")], tmp_path)
    assert path.name == "against-some.png" and path.stat().st_size > 10_000
