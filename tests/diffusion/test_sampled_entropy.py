"""With sampled singular values the entropy is within its error, and the knee is certain or a range is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.diffusion import entropy_with_error, knee, optimal_t, von_neumann_entropy
from mmphate_gpu.linalg import singular_value_sample

from .operator_cases import FAMILIES, FLAT, OPERATORS, uneven, walk_in_the_plane


@pytest.fixture
def sampling(monkeypatch):
    """Small operators are sampled like those of more than 8000 landmarks, and without the exact computation."""
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", dict.fromkeys(("cpu", "cuda"), 40))
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: False)
    monkeypatch.setattr(singular_value_sample, "N_LEADING", 20)
    monkeypatch.setattr(singular_value_sample, "BLOCK", 15)


@pytest.mark.parametrize("family", [family.__name__ for family in FAMILIES])
def test_sampled_entropy_is_within_its_error(family, sampling, device):
    """The time is in the range that is reported. For 42 of all 48 operators this range is one time."""
    for name in (f"{family} 0", f"{family} 1"):
        wanted = reference.von_neumann_entropy(OPERATORS[name])
        result = entropy_with_error(torch.from_numpy(OPERATORS[name]).to(device))
        off = (result.entropy.cpu() - torch.from_numpy(wanted)).abs()
        # Measured over all 48: at most 0.89 of the bound, which is at most 0.04.
        assert bool((off <= result.error.cpu()).all()) and float(result.error.max()) < 0.05, name
        assert result.possible[0] <= reference.knee(wanted) <= result.possible[1], name
        assert result.is_certain or family == "gaussian", name


def test_exact_entropy_has_no_error(landmark_op):
    result = entropy_with_error(torch.from_numpy(landmark_op))
    assert torch.equal(result.entropy, von_neumann_entropy(torch.from_numpy(landmark_op)))
    assert not bool(result.error.any())
    t = optimal_t(torch.from_numpy(landmark_op))
    assert result.is_certain and result.possible == (t, t) and result.t == t


OPEN = "gaussian 1"  # its time is 25; the sample leaves 19 to 30


def test_an_open_time_is_decided_by_the_exact_computation(sampling, monkeypatch):
    exact = von_neumann_entropy.__wrapped__
    landmark_op = torch.from_numpy(OPERATORS[OPEN])
    with monkeypatch.context() as lifted:
        lifted.setattr(entropy_module, "SAMPLE_ABOVE", {"cpu": 8000, "cuda": 8000})
        wanted = exact(landmark_op)
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: True)
    assert torch.equal(exact(landmark_op), wanted)
    certain = torch.from_numpy(OPERATORS["lazy_walk 0"])  # the sample decides, so this operator keeps its error
    assert float(entropy_with_error(certain).error.max()) > 0


def test_a_time_that_stays_open_gives_a_warning(sampling):
    landmark_op = torch.from_numpy(OPERATORS[OPEN])
    result = entropy_with_error(landmark_op)
    low, high = result.possible
    assert low < reference.optimal_t(OPERATORS[OPEN]) < high
    words = f"diffusion time of 72 landmarks is only known to lie between {low} and {high}.*n_landmark"
    with pytest.warns(RuntimeWarning, match=words) as caught:
        entropy = von_neumann_entropy(landmark_op)
    assert torch.equal(entropy, result.entropy) and caught[0].filename == __file__


def test_the_exact_computation_needs_its_memory(monkeypatch):
    groups = [torch.arange(100)[None], torch.arange(20)[:, None]]
    monkeypatch.setattr(entropy_module, "available_bytes", lambda device: 3 * 8 * 100**2)
    assert entropy_module._exact_fits(groups, torch.device("cpu"))
    monkeypatch.setattr(entropy_module, "available_bytes", lambda device: 3 * 8 * 100**2 - 1)
    assert not entropy_module._exact_fits(groups, torch.device("cpu"))


def test_more_probes_narrow_the_range(sampling, monkeypatch):
    spans = {}
    for rounds in ((32,), (32, 64)):
        monkeypatch.setattr(entropy_module, "PROBES", rounds)
        result = entropy_with_error(OPERATORS[OPEN])
        spans[sum(rounds)] = result.possible[1] - result.possible[0]
    assert spans[32] > spans[96]  # measured: 16 and 11 (and 6 with 256 probes)


@pytest.mark.parametrize("name", FLAT)
def test_a_sampled_flat_entropy_has_only_the_error_of_rounding(name, monkeypatch):
    """Rounding includes that of singular values which should be 0."""
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", dict.fromkeys(("cpu", "cuda"), 0))
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: False)
    result = entropy_with_error(FLAT[name])
    assert result.possible[0] == result.t_low == 1
    off = np.abs(result.entropy - reference.von_neumann_entropy(FLAT[name]))
    # 1e-14 for the rounding of the sums in the reference. Measured: 8e-7, with 49 values that should be 0.
    assert (off <= result.error + 1e-14).all() and off.max() < 1e-5


def test_components_may_be_sampled_or_exact(sampling):
    """Two components are sampled; two of equal size and a single landmark are exact."""
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(uneven(rng, n)) for n in (60, 12, 12, 1, 80)]
    whole = torch.block_diag(*parts)
    result = entropy_with_error(whole)
    wanted = reference.von_neumann_entropy(whole.numpy())
    assert bool(((result.entropy - torch.from_numpy(wanted)).abs() <= result.error).all())  # measured: 0.67
    assert result.is_certain and result.t == reference.knee(wanted)
    assert torch.equal(result.entropy, entropy_with_error(whole).entropy)


@pytest.mark.slow
def test_nine_thousand_landmarks_are_sampled_within_the_error():
    """Without patches. The operator is a Kronecker product, so its singular values are known."""
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(walk_in_the_plane(rng, n)) for n in (90, 100))
    values = torch.outer(torch.linalg.svdvals(left), torch.linalg.svdvals(right)).flatten()
    wanted = entropy_module.entropy_of_singular_values(values)
    result = entropy_with_error(torch.kron(left, right))
    assert bool((result.error > 0).all()) and bool(((result.entropy - wanted).abs() <= result.error).all())
    assert result.is_certain and result.t == knee(wanted)
