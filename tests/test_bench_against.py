"""The peers: that the work is the same, that it is judged rightly, and that what stops one is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import bench_against, given, harness, tasks  # noqa: E402
from benchmarks.peers import POINTS_ONLY, Found, Peer, peers  # noqa: E402
from benchmarks.rows import NOT_INSTALLED, OURS, Row  # noqa: E402
from mmphate_gpu import reference  # noqa: E402
from mmphate_gpu.trace import normalize  # noqa: E402

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
    assert replace(peer, devices=("cuda",)).why_not("cpu") == "does not run on cpu"
    assert replace(peer, packages=(), lacks=lambda: "a compiler").why_not("cpu") == f"{NOT_INSTALLED}: a compiler"


def test_larger_sizes_wait_for_smaller_ones():
    found = bench_against.tasks("cpu", False, ["picture"], ["reference"])
    assert [task.key for task in found[:2]] == ["picture-1008-reference", "picture-2016-reference"]
    assert [task.after for task in found] == [None, *[task.key for task in found[:-1]]]
    assert {task.suite for task in found} == {"against"} and harness.suite_module("against") is bench_against
    quick = bench_against.tasks("cpu", True)
    assert all(task.key.startswith(tasks.QUICK) and "--quick" in task.command and not task.after for task in quick)
    assert not bench_against.tasks("cuda:0", True, ["picture"], ["reference"])  # it is NumPy's
    assert bench_against.tasks("cuda:0", True, ["product"], ["cupy"])
    assert not bench_against.tasks("cpu", True, by=["cupy"])
    assert len({task.key for task in bench_against.tasks("cpu", False)}) == len(bench_against.tasks("cpu", False))


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
    ways = peers()[peer].does[comparison]
    return {way: what.judge(do(what)) for way, do in ways.items()}


@pytest.mark.parametrize("peer", [OURS, f"{OURS}, portable", "scipy", "torch"])
def test_products_are_the_same(peer, product):
    for way, judged in did(peer, "product", product).items():
        assert judged["error"] < (SINGLE if "float32" in way else 1e-12)


@pytest.mark.parametrize("peer", [OURS, f"{OURS}, portable", "scikit-learn"])
def test_exact_searches_are_exact(peer, neighbors):
    for judged in did(peer, "neighbors", neighbors).values():
        assert judged["error"] < 1e-12 and judged.get("recall", 1) == 1


def test_neighbors_of_keops_and_nndescent(neighbors):
    for name in ("pykeops", "pynndescent"):
        if peers()[name].why_not("cpu") is None:
            (judged,) = did(name, "neighbors", neighbors).values()
            assert judged["recall"] > 0.95 and judged["error"] < 0.05


def test_smacof_goes_to_the_same_stress():
    scaling = given.Scaling(60, CPU)
    assert scaling.trace.n_nodes == 1008 and scaling.distances.shape == (60, 60)
    ours, theirs = did(OURS, "mds", scaling)[""]["stress"], did("scikit-learn", "mds", scaling)[""]["stress"]
    assert ours == pytest.approx(scaling.target, rel=1e-9)
    assert theirs <= 1.001 * ours + 1e-9 < scaling.judge(Found(scaling.start))["stress"]


def test_a_picture_of_our_graph_is_that_of_the_trace(graph):
    from benchmarks.peers import ours

    whole, part = ours.picture(graph), ours.picture_of_graph(graph)
    assert (whole.fields["t"], whole.fields["stress"]) == (part.fields["t"], pytest.approx(part.fields["stress"]))


# ---------------------------------------------------------------- rows


def peer_of(do: Any, **changes: Any) -> Peer:
    return Peer("some", {"product": {"fast": do}}, settings=POINTS_ONLY, **changes)


def test_a_row_has_times_memory_settings_and_the_judgement():
    calls = []

    def do(product: Any) -> Found:
        calls.append(1)
        return Found(product.expected, {"settings": {"sweeps": 3}})

    (row,) = bench_against.work("product", 1008, peer_of(do), "cpu", quick=False)
    assert len(calls) == 4 and (row.repeats, row.warmup) == (3, 1)
    assert (row.suite, row.case, row.by, row.n_nodes, row.error) == ("against", "product", "some", 1008, 0)
    assert row.settings == {"way": "fast", "sweeps": 3}
    assert row.peak_bytes > 1e8 and row.held_bytes > 1e8 and row.rate == pytest.approx(row.work / row.seconds)
    head, lines = bench_against.table([row], "product")
    assert lines[0][:3] == ("product", "1,008 nodes", "some (fast)") and lines[0][-1] == "error 0.0e+00"
    assert bench_against.table([row], "mds")[1] == []


def test_a_picture_of_points_says_what_it_saw():
    peer = Peer("some", {"picture": {"": lambda picture: Found(picture.points)}}, settings=POINTS_ONLY)
    (row,) = bench_against.work("picture", 1008, peer, "cpu", quick=True)
    assert row.settings == POINTS_ONLY and row.trustworthiness == 1 and row.preservation["10"] == 1


def test_what_takes_long_is_not_run_again(monkeypatch):
    monkeypatch.setattr(bench_against, "LONG", 0.0)
    found, times = bench_against._runs(lambda: "x", CPU, 0, False)
    assert found == "x" and times["repeats"] == 0 and times["seconds"] == times["cold_seconds"]
    assert bench_against._runs(lambda: "x", CPU, 1, False)[1]["repeats"] == 1
    monkeypatch.undo()
    monkeypatch.setattr(bench_against, "ENOUGH", 1e-12)
    assert bench_against._runs(lambda: "x", CPU, 0, False)[1]["repeats"] == 1


def ended(monkeypatch, code: int, told: str = "") -> None:
    done = SimpleNamespace(returncode=code, stderr=told, stdout="")
    monkeypatch.setattr(bench_against, "_ended", lambda command, env: done)


def test_a_process_that_takes_too_long_ends_with_its_children(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_against, "MOST_SECONDS", 1.0)
    child = "import sys, time; time.sleep(2); open(sys.argv[1], 'w')"
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    started = time.monotonic()
    assert bench_against._ended([sys.executable, "-c", code, child, str(tmp_path / "late")], {**os.environ}) is None
    time.sleep(max(0.0, 3.5 - (time.monotonic() - started)))
    assert not (tmp_path / "late").exists()
    done = bench_against._ended([sys.executable, "-c", "print(3)"], {**os.environ})
    assert (done.returncode, done.stdout) == (0, "3\n")


def test_what_stops_a_peer_stands_in_its_row(monkeypatch):
    arguments = ("picture", 2016, peers()["reference"], "cpu", True)
    monkeypatch.setattr(bench_against.records, "about", lambda device, packages: {"device": device})
    ended(monkeypatch, bench_against.OUT_OF_MEMORY, "...\nno more of 2.00 GB that it may take")
    (row,) = bench_against.rows_of(*arguments)
    assert row.skipped == "ran out of memory: no more of 2.00 GB that it may take"
    assert (row.by, row.n_nodes, row.seconds, row.failed) == ("reference", 2016, None, None)
    ended(monkeypatch, -9)
    assert bench_against.rows_of(*arguments)[0].skipped == "ran out of memory: ended by the system"
    ended(monkeypatch, 1, "ValueError: a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        bench_against.rows_of(*arguments)

    monkeypatch.setattr(bench_against, "_ended", lambda command, env: None)
    assert bench_against.rows_of(*arguments)[0].skipped == "took more than 120 s"
    (row,) = bench_against.rows_of("mds", 400, peer_of(None, packages=("no_such",)), "cpu", True)
    assert row.skipped.startswith(NOT_INSTALLED) and row.n_landmark == 400
    assert bench_against.table([row], "")[1][0][-1] == row.skipped
    failed = Row(suite="against", case="mds-400-some", skipped="it broke", failed=True)  # as `run_tasks` makes it
    assert bench_against.table([failed], "")[1] == [("mds-400-some", "", OURS, "", "", "", "it broke")]
    assert bench_against.table([replace(row, skipped="refused: the one before it gave nothing")], "")[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_process_that_takes_too_much_ends_by_itself():
    code = (
        "import sys; sys.argv = ['x']; from benchmarks import bench_against as b, peers\n"
        "b.MEMORY_SHARE = 0.1\n"
        "def work(*arguments): import torch; return torch.ones(2**50, dtype=torch.uint8)\n"
        "b.work = work\n"
        "from types import SimpleNamespace as N\n"
        "sys.exit(b.main_of_work(N(device='cpu', only=['product'], size=1008, peer=['scipy'], quick=True)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == bench_against.OUT_OF_MEMORY and "that it may take" in done.stderr


def test_a_task_prints_its_rows(tmp_path):
    (task,) = bench_against.tasks("cpu", True, ["product"], ["scipy"])
    command = tuple("--size=1008" if part.startswith("--size") else part for part in task.command)
    found = tasks.run_task(replace(task, command=command), tmp_path)
    assert [row.settings["way"] for row in found] == ["float64", "float32"] and found[0].error == 0
    assert {row.task for row in found} == {"quick-product-4032-scipy"}


def test_pictures_are_drawn_by_peer(tmp_path):
    made = [
        Row(suite="against", case="picture", by=by, n_nodes=n, seconds=n / 1e3, peak_bytes=n, machine="some")
        for by in ("a", "b")
        for n in (1008, 2016)
    ]
    path = bench_against.draw([*made, replace(made[0], seconds=None, skipped="died")], tmp_path)
    assert path.name == "against-some.png" and path.stat().st_size > 10_000
