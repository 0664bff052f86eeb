"""An optional package that is installed and does not load is refused in one sentence."""

import sys

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.neighbors import kneighbors
from mmphate_gpu.runtime.optional import require


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a module with this text before the installed one on the path."""

    def install(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)

    return install


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "raise RuntimeError('cannot cache function rdist: no locator available\\nfor x.py')",
            "RuntimeError: cannot cache",
        ),
        ("raise OSError(30, 'Read-only file system')", "OSError: .*Read-only"),
        ("raise ValueError('numpy.dtype size changed')", "ValueError: numpy.dtype"),
        ("import numpy; numpy.no_such_name", "AttributeError: module 'numpy'"),
        ("def f(:", "SyntaxError"),
        ("raise SystemError('built for another Python')", "SystemError"),
    ],
)
def test_a_package_that_does_not_load(package, text, reason):
    package("pynndescent", text)
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 300, 3)))
    expected = rf"cannot be used: the package 'pynndescent' does not load \({reason}"
    with pytest.raises(mp.InputError, match=f'knn_backend="pynndescent" {expected}') as caught:
        kneighbors(points, 2, backend="pynndescent")
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_has_its_command():
    with pytest.raises(mp.InputError, match='pip install "mmphate-gpu\\[none\\]"'):
        require("no_such_package", extra="none", purpose="this")
