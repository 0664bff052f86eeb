"""The library imports and embeds with its required packages only, and the bits are those with all packages."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

import mmphate_gpu
from mmphate_gpu.runtime.optional import available

ROOT = Path(mmphate_gpu.__file__).parents[1]
REQUIRED = ("torch", "numpy", "scipy", "scikit-learn", "tqdm", "psutil", "matplotlib")

RUN = """
import hashlib, json, sys, warnings
warnings.simplefilter("error")
absent, folder = set(json.loads(sys.argv[1])), sys.argv[2]

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import mmphate_gpu as mm
from mmphate_gpu.cli import main
from mmphate_gpu.neighbors import resolve_knn_backend

walk = np.random.default_rng(0).normal(size=(300, 3, 12)).cumsum(0)  # enough slices for pynndescent
forms = [{"storage": storage} for storage in ("sparse", "tiles", "lazy", "auto")]
bits, refusals = {}, {}
for options in [*forms, {"landmarks": "stratified"}, {"decay": None}, {"mds_solver": "nonmetric"}]:
    op = mm.MMPHATE(n_landmark=60, random_state=0, device="cpu", **options).fit(walk)
    parts = (op.embedding_, op.landmark_op_, op.diff_potential_, op.transform(walk[:4]))
    bits[str(options)] = [op.t_, *(hashlib.sha256(np.ascontiguousarray(part)).hexdigest() for part in parts)]
if absent:
    for backend in ("keops", "pynndescent"):
        try:
            mm.MMPHATE(knn_backend=backend, device="cpu").fit(walk)
        except mm.InputError as error:
            refusals[backend] = str(error)
    np.save(f"{folder}/walk.npy", walk[:40])
    embed = ["embed", f"{folder}/walk.npy", "--out", f"{folder}/out"]
    assert [main(command) for command in (embed, ["plan", "--shape", "5,6,7,8"], ["config"])] == [0, 0, 0]
print(json.dumps([bits, refusals, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def requirements(package: str, seen: set[str]) -> Iterator[str]:
    """``package`` and all packages that it requires in this environment, without extras."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    if name in seen:
        return
    seen.add(name)
    yield name
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from requirements(requirement.name, seen)


def other_packages() -> list[str]:
    """Installed top-level modules that belong to no required package, and to no package that those require."""
    seen: set[str] = set()
    kept = {name for package in REQUIRED for name in requirements(package, seen)} | {"mmphate-gpu"}
    owners = importlib.metadata.packages_distributions().items()
    return sorted(
        module for module, names in owners if not kept & {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    )


def run(absent: list[str], folder: Path) -> list:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", RUN, json.dumps(absent), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pip_installs_only_the_required_packages():
    """A package that only some calls need belongs to an extra."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert {Requirement(line).name for line in re.findall(r'"(.*?)"', listed)} == set(REQUIRED)


def test_it_embeds_with_the_required_packages_only(tmp_path):
    absent = other_packages()
    assert not {"torch", "sklearn", "PIL", "mmphate_gpu"} & set(absent)
    # Without this a run could be compared with itself.
    assert {name for name in ("pytest", "pykeops", "pynndescent", "xarray") if available(name)} <= set(absent)
    result, refusals, loaded = run(absent, tmp_path)
    assert not set(loaded) & set(absent)
    for backend in ("keops", "pynndescent"):
        assert re.search(rf'knn_backend="{backend}" .*pip install "mmphate-gpu\[{backend}\]"', refusals[backend])
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"embedding.npz", "panels.png", "entropy.png"}
    with_all_packages, _, _ = run([], tmp_path)
    assert result == with_all_packages
