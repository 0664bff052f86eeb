"""The list of peers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from benchmarks.measure.records import ROOT
from benchmarks.measure.rows import NOT_INSTALLED, OURS
from benchmarks.peers import Peer, Result, comparisons, peers
from benchmarks.suites import against

FORBIDDEN = ("phate", "graphtools", "m_phate", "scprep")


def test_every_peer_does_what_is_compared():
    for name, peer in peers().items():
        assert name == peer.name and peer.does and peer.does.keys() <= comparisons.COMPARISONS.keys()
        assert all(callable(do) for ways in peer.does.values() for do in ways.values())
        assert all("" not in ways or len(ways) == 1 for ways in peer.does.values())
        assert not {*peer.packages, *peer.versions} & {*FORBIDDEN}
    assert against.PLANS.keys() == comparisons.COMPARISONS.keys()
    for comparison, plan in against.PLANS.items():
        assert all(comparison in peers()[name].does for name in plan.quick_peers)
        assert OURS in plan.quick_peers


def test_asking_the_peers_loads_none_of_them():
    code = "import sys; from benchmarks.peers import peers; [p.why_not('cpu') for p in peers().values()]; "
    code += "print(sorted({'torch', 'sklearn', 'scipy', 'umap', 'torchdr', 'faiss', 'numba'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_missing_is_named():
    peer = Peer("some", {"product": {"": lambda product: Result(0)}}, packages=("json", "no_such_package"))
    assert peer.why_not("cpu") == f"{NOT_INSTALLED}: no_such_package"
    assert replace(peer, packages=("json",)).why_not("cpu") is None
    modules = ("json.decoder", "no_such_package.some", "no_such_package.other")  # the parent of none is imported
    assert replace(peer, packages=modules).why_not("cpu") == f"{NOT_INSTALLED}: no_such_package"
    assert replace(peer, packages=("json.decoder",)).load() >= 0
    assert replace(peer, devices=("cuda",)).why_not("cpu") == "does not run on cpu"
    assert replace(peer, packages=(), lacks=lambda: "a compiler").why_not("cpu") == f"{NOT_INSTALLED}: a compiler"
