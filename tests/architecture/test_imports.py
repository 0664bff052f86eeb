"""``import mmphate_gpu`` loads no slow package and few modules, and the public names exist."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mmphate_gpu

HEAVY = (
    "cupy",
    "triton",
    "pykeops",
    "keopscore",
    "pynndescent",
    "numba",
    "llvmlite",
    "matplotlib",
    "sklearn",
    "scipy",
    "xarray",
    "pandas",
    "anndata",
    "plotly",
    "h5py",
    "zarr",
    "tqdm",
)


# A fresh interpreter runs these steps in order, and prints after each step which modules are loaded.
STEPS = {
    "base": "import numpy, torch",
    "package": "import mmphate_gpu",
    "stages": """
from mmphate_gpu import Trace, as_trace, load_trace, save_trace, Recorder, Embedding, multislice_affinity
from mmphate_gpu import landmark_diffusion, to_torch_csr, to_scipy, as_linear_operator, optimal_t, diffusion_potential
from mmphate_gpu import metric_mds, stress, potential_distances, plan, Params, datasets, plots
from mmphate_gpu import neighborhood_preservation
import mmphate_gpu.pipeline, mmphate_gpu.cli, mmphate_gpu.operators, mmphate_gpu.neighbors
""",
    "run": """
operator = multislice_affinity(numpy.random.default_rng(0).normal(size=(30, 4, 5)), device="cpu")
landmark_op = landmark_diffusion(operator, n_landmark=20, random_state=0).landmark_op
potential = diffusion_potential(landmark_op, optimal_t(landmark_op))
metric_mds(potential_distances(potential), random_state=0)
""",
    "scikit-learn": "import sklearn.base, sklearn.exceptions",
    "estimator": "from mmphate_gpu import MMPHATE, M_PHATE",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The modules that each step loaded."""
    script = "import sys, json, warnings\nwarnings.simplefilter('ignore')\nseen = []\n"
    script += "".join(f"{step}\nseen.append(sorted(sys.modules))\n" for step in STEPS.values())
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(json.dumps(seen))"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = [set(), *map(set, json.loads(done.stdout.splitlines()[-1]))]
    return {step: after - before for step, before, after in zip(STEPS, seen, seen[1:], strict=False)}


def top_level(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_the_package_alone_loads_nothing_heavy(loaded):
    new = loaded["package"]
    assert "mmphate_gpu" in new and not top_level(new) & set(HEAVY)
    # Other packages and many modules of the package would also take time. Measured: only the package file is loaded.
    assert top_level(new) - set(sys.stdlib_module_names) == {"mmphate_gpu"}
    assert len({module for module in new if module.startswith("mmphate_gpu")}) <= 5
    assert len(new) <= 20


def test_the_stages_load_nothing_heavy(loaded):
    """psutil is small. Only the estimator needs scikit-learn."""
    assert "mmphate_gpu.pipeline" in loaded["stages"]
    assert top_level(loaded["stages"]) - set(sys.stdlib_module_names) <= {"mmphate_gpu", "psutil"}


def test_a_run_on_the_cpu_loads_no_optional_package(loaded):
    """From a trace to coordinates, stage by stage."""
    assert not top_level(loaded["run"]) & (set(HEAVY) - {"scipy"})


def test_the_estimator_adds_only_scikit_learn(loaded):
    assert "mmphate_gpu.estimator" in loaded["estimator"]
    assert not top_level(loaded["estimator"]) & (set(HEAVY) - {"sklearn", "scipy"})


def test_import_has_no_side_effects():
    """It changes no random state, number of threads or default dtype, prints nothing, and gives no warning."""
    script = """
import numpy, torch, random
def state():
    return torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(), random.getstate(), repr(
        numpy.random.get_state()), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
before = state()
import mmphate_gpu, mmphate_gpu.pipeline, mmphate_gpu.operators, mmphate_gpu.record
assert state() == before
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- the public names


def test_every_public_name_exists():
    for name in mmphate_gpu.__all__:
        assert getattr(mmphate_gpu, name) is not None, name
    assert set(mmphate_gpu.__all__) <= set(dir(mmphate_gpu))


def test_names_that_users_rely_on_are_public():
    relied_on = (
        "MMPHATE M_PHATE multislice_affinity to_scipy to_torch_csr to_cupy as_linear_operator landmark_diffusion"
        " von_neumann_entropy optimal_t diffusion_potential potential_distances metric_mds plan Trace Recorder"
        " load_trace save_trace neighborhood_preservation datasets reference show_config"
    )
    assert set(relied_on.split()) <= set(mmphate_gpu.__all__)


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'mmphate_gpu' has no attribute 'PHATE'"):
        mmphate_gpu.PHATE  # noqa: B018


def test_a_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from mmphate_gpu import *", names)
    assert set(mmphate_gpu.__all__) <= set(names)
