"""The inputs of the comparisons, their judges, and the peers that are always installed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.measure.rows import OURS
from benchmarks.peers import Result, comparisons, peers
from mmphate_gpu import reference
from mmphate_gpu.trace import normalize

CPU = torch.device("cpu")


# The affinity is kept in float32: that is what a product made anew from the points may be off by, and one of float32
# columns (measured: 7e-8 and 8e-7).
SINGLE = 5e-6


@pytest.fixture(scope="module")
def graph():
    return comparisons.Graph(1008, CPU)


@pytest.fixture(scope="module")
def product():
    return comparisons.Product(1008, CPU)


@pytest.fixture(scope="module")
def neighbors():
    return comparisons.Neighbors(1008, CPU)


@pytest.mark.parametrize("n_nodes", [1008, 2016, 4032, 64512])
def test_sizes_are_numbers_of_nodes(n_nodes, monkeypatch):
    monkeypatch.setattr(comparisons.datasets, "bifurcation", lambda scenario, *shape: shape)
    epochs, timesteps = comparisons.suite_of(n_nodes)
    assert 6 * epochs * timesteps == n_nodes


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match="1009"):
        comparisons.suite_of(1009)


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
    judged = graph.judge(Result(graph.points))  # the points themselves keep everything
    assert all(share == 1 for share in judged["preservation"].values())
    assert judged["preservation_within"] == {"2": 1} and judged["trustworthiness"] == 1
    noise = graph.judge(Result(np.random.default_rng(0).normal(size=(1008, 2))))
    assert noise["preservation"]["10"] < 0.2 and noise["trustworthiness"] < 0.6


def test_products_are_judged_by_their_largest_error(product):
    assert product.judge(Result(product.expected)) == {"error": 0}
    assert product.judge(Result(2 * product.expected)) == {"error": 1}
    assert product.fields()["work"] == 2 * product.sparse.nnz * comparisons.COLUMNS


def test_neighbors_are_judged_by_the_bandwidth(neighbors):
    far = neighbors.expected
    assert neighbors.judge(Result(far)) == {"error": 0}
    assert neighbors.judge(Result(np.median(far, axis=1))) == {"error": 0}
    assert neighbors.judge(Result(1.5 * far))["error"] == pytest.approx(0.5)
    dense = np.linalg.norm(neighbors.sets[:, :, None] - neighbors.sets[:, None], axis=-1)
    order = np.argsort(dense, axis=2)[..., 1:]  # the point itself comes first
    assert neighbors.judge(Result(order[..., : comparisons.KNN])) == {"recall": 1, "error": pytest.approx(0, abs=1e-12)}
    wrong = neighbors.judge(Result(order[..., 5 : 5 + comparisons.KNN]))
    assert wrong["recall"] == pytest.approx(20 / 25) and wrong["error"] > 0.01


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
    places = np.array([[0, *range(2, 27)], [*range(26)], [*range(3, 29)]])  # 0 first, 1 second, 2 crowded out
    others = neighbors.others(places)
    assert others.tolist() == [[*range(2, 27)], [0, *range(2, 26)], [*range(3, 28)]]


# Each is the library's own, where it is installed: what it gives has to be judged, in finite numbers.
ELSEWHERE = [
    ("faiss", "neighbors"),
    *(
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in (  # numba and g++ compile, layouts take hundreds of steps
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
    scaling = comparisons.Scaling(60, CPU)
    assert scaling.trace.n_nodes == 1008 and scaling.distances.shape == (60, 60)
    ours, theirs = did(OURS, "mds", scaling)[""]["stress"], did("scikit-learn", "mds", scaling)[""]["stress"]
    assert ours == pytest.approx(scaling.target, rel=1e-9)
    assert theirs <= 1.001 * ours + 1e-9 < scaling.judge(Result(scaling.start))["stress"]


@pytest.mark.filterwarnings("ignore::mmphate_gpu.PictureWarning")  # the graph has two islands
def test_a_picture_of_our_graph_is_that_of_the_trace(graph):
    from benchmarks.peers import ours

    whole, part = ours.picture(graph)(), ours.picture_of_graph(graph)()
    assert (whole.fields["t"], whole.fields["stress"]) == (part.fields["t"], pytest.approx(part.fields["stress"]))


def test_what_a_peer_does_not_take_is_not_made_before_its_run():
    made = comparisons.Product(1008, CPU)
    peers()["scipy"].does["product"]["float64"](made)
    assert not {"lazy", "block32", "expected"} & vars(made).keys()
    made = comparisons.Neighbors(1008, CPU)
    peers()[OURS].does["neighbors"]["k-th distances"](made)
    assert not {"sets", "sets32", "expected"} & vars(made).keys()
    made = comparisons.Graph(1008, CPU)
    peers()[OURS].does["picture"][""](made)
    assert not {"points", "operator", "graph"} & vars(made).keys()
