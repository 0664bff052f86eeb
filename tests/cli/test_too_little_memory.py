"""Runs that do not fit in memory are refused with one sentence, before anything is read or computed."""

import numpy as np

import mmphate_gpu as mp
from mmphate_gpu.cli import main


def walk(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


def fit(trace, **parameters):
    return mp.MMPHATE(**{"n_landmark": 40, "random_state": 0, "device": "cpu"} | parameters).fit(trace)


def test_a_run_that_does_not_fit(refused, rejects, monkeypatch):
    def computes(*args, **kwargs):
        raise AssertionError("the run has started")

    monkeypatch.setattr("mmphate_gpu.planning.fit.mmphate", computes)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e5")
    words = [
        "shape (200, 1, 5, 4) needs",
        "MiB in stage",
        "has 488.3 KiB available",
        "fits if thinned to every 16th epoch",
    ]
    trace = walk(200, 5, 4)
    refused(lambda: fit(trace, n_landmark=500), *words)
    np.save("big.npy", trace)
    rejects("embed", "big.npy", "--out", "new", "--n-landmark=500", "--device=cpu", words=words)


def test_a_file_whose_run_does_not_fit_is_not_read(rejects, capsys, monkeypatch):
    def reads(*args):
        raise AssertionError("the file is being read")

    np.savez("big.npz", data=walk(200, 5, 4))
    np.save("big.npy", walk(200, 5, 4))
    monkeypatch.setattr("mmphate_gpu.trace.contents.Contents.read", reads)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e5")
    for file in ("big.npz", "big.npy"):
        rejects("embed", file, "--out", "new", "--n-landmark=500", words=["shape (200, 1, 5, 4) needs", "MiB in stage"])
        assert main(["plan", file, "--n-landmark=500"]) == 0
        assert capsys.readouterr().out.endswith("does NOT fit\n")
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e9")
    for argv in (["embed", "big.npz", "--out", "new"], ["plan", "big.npz"]):  # it fits now
        assert main(argv) == 2
        assert "the file is being read" in capsys.readouterr().err


def test_an_affinity_that_does_not_fit(refused, monkeypatch):
    from mmphate_gpu.affinities import Interslice

    def allocates(*args):
        raise AssertionError("the entries are being stored")

    trace = walk(400, 4, 3).astype(np.float32)
    needed = mp.to_scipy(mp.multislice_affinity(trace, device="cpu", storage="lazy")).nnz * 8
    monkeypatch.setattr(Interslice, "fill", allocates)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(needed // 2))
    words = ["the affinity with", "entries needs", "KiB available", 'storage="lazy"']
    refused(lambda: mp.multislice_affinity(trace, device="cpu", storage="sparse"), *words)


def test_a_memory_limit_that_is_no_number(refused, rejects, monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "much")
    refused(lambda: fit(walk(30, 3, 4)), "MMPHATE_GPU_MEMORY_LIMIT='much'", "number of bytes")
    rejects("embed", "trace.npy", "--out", "new", words=["MMPHATE_GPU_MEMORY_LIMIT='much'"])
