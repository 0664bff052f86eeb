"""METHOD step 9: the diffusion time is that of the float64 singular values, always."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.diffusion import diffuse, entropy_with_error, knee, optimal_t, von_neumann_entropy
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.diffusion.knee import knee_errors
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.landmarks import landmark_diffusion
from mmphate_gpu.linalg import singular_value_sample
from mmphate_gpu.linalg.components import components
from mmphate_gpu.operators import SparseAffinity
from mmphate_gpu.ops.csr import of_dense_rows

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))


# ---------------------------------------------------------------- landmark operators of many spectra


def markov(affinity: np.ndarray) -> np.ndarray:
    return affinity / affinity.sum(1, keepdims=True)


def gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    """Diffusion among scattered points: from well mixed to nearly disconnected."""
    points = rng.normal(size=(n, 3)) * rng.uniform(0.2, 4)
    return markov(np.exp(-((points[:, None] - points) ** 2).sum(-1)))


def uneven(rng: np.random.Generator, n: int) -> np.ndarray:
    """Not symmetric at all: eigenvalues would give another time."""
    return markov(rng.random((n, n)) ** rng.integers(1, 30))


def lazy_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    """Slow mixing: a heavy diagonal."""
    return markov(rng.uniform(1, 50) * np.eye(n) + rng.random((n, n)) / n)


def hubs(rng: np.random.Generator, n: int) -> np.ndarray:
    """Very uneven degrees; the largest singular value is far above 1."""
    return markov(rng.gamma(0.05, size=(n, n)) + 1e-3 * np.eye(n))


def blocks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Groups with weak ties: a plateau in the entropy."""
    group = rng.integers(0, 6, n)
    return markov((group[:, None] == group) * rng.random((n, n)) + 10 ** rng.uniform(-6, -2) * rng.random((n, n)))


def landmarks_of_walks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Real landmark operators, those of small random walks."""
    trace = np.cumsum(rng.normal(size=(int(rng.integers(26, 40)), 5, 6)), axis=0)
    affinity = reference.multislice_affinity(trace)
    return reference.landmark_diffusion(affinity, clusters=rng.integers(0, n, len(affinity)))[0]


def walk_in_the_plane(rng: np.random.Generator, n: int) -> np.ndarray:
    """Points along a walk, reached within its longest steps: like the landmarks of one unit."""
    points = np.cumsum(rng.normal(size=(n, 2)), axis=0)
    return markov(np.exp(-((points[:, None] - points) ** 2).sum(-1) / 8))


KINDS = (gaussian, uneven, lazy_walk, hubs, blocks, landmarks_of_walks)


def operators() -> Iterator[tuple[str, np.ndarray]]:
    """48 of them, 12 to 140 landmarks."""
    for form in KINDS:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            yield f"{form.__name__} {seed}", form(rng, int(rng.integers(12, 140)))


OPERATORS = dict(operators())


@pytest.fixture(params=OPERATORS)
def landmark_op(request: pytest.FixtureRequest) -> np.ndarray:
    return OPERATORS[request.param]


# ---------------------------------------------------------------- t


def test_entropy_and_t_match_reference(landmark_op, device):
    wanted = reference.von_neumann_entropy(landmark_op)
    result = von_neumann_entropy(torch.from_numpy(landmark_op).to(device)).cpu().numpy()
    # Measured: 5.3e-14, of entropies up to 4.9 (hundred powers, by products here, by powers there).
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-12)
    assert optimal_t(torch.from_numpy(landmark_op).to(device)) == reference.knee(wanted)


def test_t_by_the_gram_path(landmark_op, device, monkeypatch):
    """The way of more than 1000 landmarks, with its fallback, on small ones."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    assert optimal_t(torch.from_numpy(landmark_op).to(device)) == reference.optimal_t(landmark_op)


def certified_gram_entropy(landmark_op: torch.Tensor) -> torch.Tensor | None:
    """The entropy by way of the Gram matrix, or None where it may not decide; `SVD_UP_TO` has been lowered."""
    low, high = entropy_module._singular_value_bounds(landmark_op, components(landmark_op))
    assert not torch.equal(low, high)  # the Gram matrix gave them
    entropy = entropy_module.entropy_of_singular_values((low + high) / 2)
    return entropy if entropy_module._certain(entropy, low, high) else None


def test_gram_path_is_taken_and_near(monkeypatch):
    """It decides in nearly all cases, or this would prove nothing; its entropies are near the exact ones."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    taken, errors = 0, []
    for landmark_op in OPERATORS.values():
        entropy = certified_gram_entropy(torch.from_numpy(landmark_op))
        if entropy is not None:
            taken += 1
            errors.append(np.abs(entropy.numpy() - reference.von_neumann_entropy(landmark_op)).max())
    assert taken >= 40  # measured: 48 of 48
    # Small singular values s come with an error of up to 1e-7 instead of 1e-16. Measured: 4e-6, median 6e-15.
    assert max(errors) < 1e-3 and np.median(errors) < 1e-12


def test_gram_error_is_within_its_bound():
    """The certificate rests on it: eigenvalues of the Gram matrix against squared singular values, where it matters.

    That is below, where a square root magnifies the error: measured 5e-17 of the largest here, 2.4e-16 over 600
    more of up to 1000 landmarks; the bound is 1e-14. Near the largest (9e-15 here, up to 1.3e-14) it moves the entropy
    by no more than itself.
    """
    for name, landmark_op in OPERATORS.items():
        values = torch.from_numpy(landmark_op)
        singular = np.linalg.svd(landmark_op, compute_uv=False)
        error = np.abs(torch.linalg.eigvalsh(values.T @ values).flip(0).numpy() - singular**2) / singular[0] ** 2
        small = singular < 1e-3 * singular[0]
        assert error[small].max(initial=0) < entropy_module.GRAM_ERROR / 10, name
        assert error.max() < 10 * entropy_module.GRAM_ERROR, name


@cache
def near_tie() -> np.ndarray:
    """An operator whose two best breaks are nearly equal, by bisection on a mix of two with other times."""
    first, second = OPERATORS["gaussian 0"], OPERATORS["lazy_walk 0"]
    n = min(len(first), len(second))
    first, second = markov(first[:n, :n]), markov(second[:n, :n])

    def mixed(share: float) -> np.ndarray:
        return (1 - share) * first + share * second

    def best(share: float) -> int:  # without the rule for ties, whose edge the bisection would find
        return int(errors_of(mixed(share)).argmin())

    low, high = 0.0, 1.0
    assert best(low) != best(high)
    while high - low > 1e-15:
        middle = (low + high) / 2
        if best(middle) == best(low):
            low = middle
        else:
            high = middle
    return mixed((low + high) / 2)


def errors_of(landmark_op: np.ndarray) -> torch.Tensor:
    return knee_errors(torch.from_numpy(reference.von_neumann_entropy(landmark_op)))


def gap_of(landmark_op: np.ndarray) -> float:
    best, second = torch.topk(errors_of(landmark_op), 2, largest=False).values
    return float(second - best)


@pytest.mark.parametrize("distance", [0.0, 1e-13, 1e-11, 1e-9, 1e-7, 1e-5])
def test_near_tie_is_left_to_the_svd(distance, monkeypatch):
    """Two breaks within the error of the Gram path: it must not decide. Further off it may, and is right."""
    tied = near_tie()
    landmark_op = (1 - distance) * tied + distance * OPERATORS["lazy_walk 0"][: len(tied), : len(tied)]
    gap = gap_of(landmark_op)
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    entropy = certified_gram_entropy(torch.from_numpy(landmark_op))
    if gap < 1e-13:
        assert entropy is None
    if gap > 1e-11:  # nearer than that "the same" has no meaning: rounding decides, in the reference too
        assert optimal_t(torch.from_numpy(landmark_op)) == reference.optimal_t(landmark_op)


def test_near_tie_is_one():
    """Bisection got as near as float64 goes, so the tests above are tests."""
    assert gap_of(near_tie()) < 1e-12


def test_fallback_is_the_svd(monkeypatch):
    """Where the certificate fails, the entropy is the SVD's to the last bit."""
    tied = torch.from_numpy(near_tie())
    by_svd = von_neumann_entropy(tied)
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    assert torch.equal(von_neumann_entropy(tied), by_svd)


FLAT = {
    "identity": np.eye(50),
    "rank one": np.full((50, 50), 1 / 50),
    "blocks": np.kron(np.eye(4), np.full((3, 3), 1 / 3)),
    "one landmark": np.ones((1, 1)),
    "two states": np.array([[0.0, 1.0], [1.0, 0.0]]),
}


@pytest.mark.parametrize("threshold", [0, 1000])
@pytest.mark.parametrize("name", FLAT)
def test_flat_entropy_gives_one(name, threshold, monkeypatch, device):
    """Converged training: H does not change with time; all breaks are equal, and the first is meant, not rounding's."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), threshold))
    assert optimal_t(torch.from_numpy(FLAT[name]).to(device)) == 1


def test_t_of_more_than_a_thousand_landmarks():
    """The path as it is taken, nothing patched."""
    rng = np.random.default_rng(0)
    for form in (gaussian, uneven):
        landmark_op = form(rng, 1100)
        assert optimal_t(torch.from_numpy(landmark_op)) == reference.optimal_t(landmark_op)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_published_entropy_and_t(path):
    golden = np.load(path)
    # Measured: 1.2e-14 and 9e-15.
    np.testing.assert_allclose(von_neumann_entropy(golden["landmark_op"]), golden["entropy"], rtol=0, atol=1e-12)
    assert optimal_t(golden["landmark_op"]) == int(golden["t"])


# ---------------------------------------------------------------- sampled singular values


@pytest.fixture
def sampling(monkeypatch):
    """Small operators the way of those above 8000 landmarks: few leading singular values, no exact way out."""
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", dict.fromkeys(("cpu", "cuda"), 40))
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: False)
    monkeypatch.setattr(singular_value_sample, "N_LEADING", 20)
    monkeypatch.setattr(singular_value_sample, "BLOCK", 15)


@pytest.mark.parametrize("family", [family.__name__ for family in KINDS])
def test_sampled_entropy_is_within_its_error(family, sampling, device):
    """And the time is among those left open, which is one in most cases: over all 48 operators in 42."""
    for name in (f"{family} 0", f"{family} 1"):
        wanted = reference.von_neumann_entropy(OPERATORS[name])
        result = entropy_with_error(torch.from_numpy(OPERATORS[name]).to(device))
        off = (result.entropy.cpu() - torch.from_numpy(wanted)).abs()
        # Measured over all 48: at most 0.89 of the bound, which is at most 0.04.
        assert bool((off <= result.error.cpu()).all()) and float(result.error.max()) < 0.05, name
        assert result.t_low <= reference.knee(wanted) <= result.t_high, name
        assert result.t_low == result.t_high or family == "gaussian", name


def test_exact_entropy_has_no_error(landmark_op):
    result = entropy_with_error(torch.from_numpy(landmark_op))
    assert torch.equal(result.entropy, von_neumann_entropy(torch.from_numpy(landmark_op)))
    assert not bool(result.error.any())
    assert result.t_low == result.t_high == optimal_t(torch.from_numpy(landmark_op))


OPEN = "gaussian 1"  # its time is 25; the sample leaves 19 to 30


def test_open_time_is_left_to_the_exact_way(sampling, monkeypatch):
    exact = von_neumann_entropy.__wrapped__
    landmark_op = torch.from_numpy(OPERATORS[OPEN])
    with monkeypatch.context() as lifted:
        lifted.setattr(entropy_module, "SAMPLE_ABOVE", {"cpu": 8000, "cuda": 8000})
        wanted = exact(landmark_op)
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: True)
    assert torch.equal(exact(landmark_op), wanted)
    certain = torch.from_numpy(OPERATORS["lazy_walk 0"])  # while this one is not computed exactly
    assert float(entropy_with_error(certain).error.max()) > 0


def test_open_time_that_stays_open_is_told(sampling):
    landmark_op = torch.from_numpy(OPERATORS[OPEN])
    result = entropy_with_error(landmark_op)
    assert result.t_low < reference.optimal_t(OPERATORS[OPEN]) < result.t_high
    words = (
        f"diffusion time of 72 landmarks is only known to lie between {result.t_low} and {result.t_high}.*n_landmark"
    )
    with pytest.warns(RuntimeWarning, match=words) as caught:
        entropy = von_neumann_entropy(landmark_op)
    assert torch.equal(entropy, result.entropy) and caught[0].filename == __file__


def test_exact_way_asks_for_memory(monkeypatch):
    groups = [torch.arange(100)[None], torch.arange(20)[:, None]]
    monkeypatch.setattr(entropy_module, "available_bytes", lambda device: 3 * 8 * 100**2)
    assert entropy_module._exact_fits(groups, torch.device("cpu"))
    monkeypatch.setattr(entropy_module, "available_bytes", lambda device: 3 * 8 * 100**2 - 1)
    assert not entropy_module._exact_fits(groups, torch.device("cpu"))


def test_more_probes_narrow_what_is_open(sampling, monkeypatch):
    spans = {}
    for rounds in ((32,), (32, 64)):
        monkeypatch.setattr(entropy_module, "PROBES", rounds)
        result = entropy_with_error(OPERATORS[OPEN])
        spans[sum(rounds)] = result.t_high - result.t_low
    assert spans[32] > spans[96]  # measured: 16 and 11 (and 6 with 256 probes)


@pytest.mark.parametrize("name", FLAT)
def test_sampled_flat_entropy(name, monkeypatch):
    """No spread, so no error but rounding's, that of singular values which are 0 included."""
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", dict.fromkeys(("cpu", "cuda"), 0))
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: False)
    result = entropy_with_error(FLAT[name])
    assert result.t_low == 1
    off = np.abs(result.entropy - reference.von_neumann_entropy(FLAT[name]))
    # Beside the error of the sample the sums of the reference are rounded. Measured: 8e-7, with 49 values that are 0.
    assert (off <= result.error + 1e-14).all() and off.max() < 1e-5


def test_sampled_components_beside_exact_ones(sampling):
    """Two that are sampled, two of one size and one alone that are not."""
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(uneven(rng, n)) for n in (60, 12, 12, 1, 80)]
    whole = torch.block_diag(*parts)
    result = entropy_with_error(whole)
    wanted = reference.von_neumann_entropy(whole.numpy())
    assert bool(((result.entropy - torch.from_numpy(wanted)).abs() <= result.error).all())  # measured: 0.67
    assert result.t_low == result.t_high == reference.knee(wanted)
    assert torch.equal(result.entropy, entropy_with_error(whole).entropy)


@pytest.mark.slow
def test_nine_thousand_landmarks():
    """Nothing patched: a product of two walks, whose singular values are the products of theirs."""
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(walk_in_the_plane(rng, n)) for n in (90, 100))
    values = torch.outer(torch.linalg.svdvals(left), torch.linalg.svdvals(right)).flatten()
    wanted = entropy_module.entropy_of_singular_values(values)
    result = entropy_with_error(torch.kron(left, right))
    assert bool((result.error > 0).all()) and bool(((result.entropy - wanted).abs() <= result.error).all())
    assert result.t_low == result.t_high == knee(wanted)


# ---------------------------------------------------------------- closed forms


def test_entropy_of_known_singular_values():
    """diag(1, 1/2, 1/4): w_i = s^(i+1) / sum."""
    singular = np.array([1, 0.5, 0.25])
    result = von_neumann_entropy(np.diag(singular), t_max=5)
    for i in range(5):
        weights = singular ** (i + 1) / (singular ** (i + 1)).sum()
        assert result[i] == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-13)


def test_entropy_of_the_identity_is_log_n():
    np.testing.assert_allclose(von_neumann_entropy(np.eye(20)), math.log(20), rtol=1e-13)


def test_singular_not_eigen_values():
    """A rotation by a quarter turn scaled apart: eigenvalues +-i/sqrt(2), singular values 1 and 1/2."""
    matrix = np.array([[0.0, 1.0], [-0.5, 0.0]])
    weights = np.array([2, 1]) / 3
    assert von_neumann_entropy(matrix)[0] == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-14)


def test_float32_operator_is_worked_on_in_float64():
    landmark_op = OPERATORS["gaussian 0"].astype(np.float32)
    result = von_neumann_entropy(torch.from_numpy(landmark_op))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, reference.von_neumann_entropy(landmark_op.astype(float)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bend", [1, 2, 17, 50, 97])
def test_knee_of_two_lines(bend):
    """The knee is where two lines meet or one step later, because the right line sees a point of the left one."""
    steps = np.arange(100.0)
    curve = np.where(steps <= bend, 5 - 0.04 * steps, 5 - 0.04 * bend - 0.001 * (steps - bend))
    assert knee(curve) in (bend, bend + 1) and knee(curve) == reference.knee(curve)


def test_knee_by_hand():
    """Break 1: the left line is exact; the right one, 2.5 - x through all four, is off by 1/2 at 1, 2 and 3.

    Break 2: the left one is off by 1/6, 1/3 and 1/6; the right one, 4/3 - x/2 through 1, 2 and 3, is off by 1/3 at 2
    and by 1/6 at 3.
    """
    curve = torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(knee_errors(curve), torch.tensor([3 / 2, 7 / 6], dtype=torch.float64))
    assert knee(curve) == reference.knee(curve.numpy()) == 2


@pytest.mark.parametrize("curves, t", [("curves", "t"), ("short", "short_t")])
def test_published_knees(curves, t):
    """60 entropy curves with the t that the published implementation chose (tests/golden/README.md)."""
    golden = np.load(Path(__file__).parents[1] / "golden" / "golden_knees.npz")
    assert [knee(curve) for curve in golden[curves]] == golden[t].tolist()
    assert [reference.knee(curve) for curve in golden[curves]] == golden[t].tolist()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-3, 1e3, 1e30, 1e300])
def test_the_scale_of_an_operator_does_not_matter(scale, landmark_op):
    wanted = reference.von_neumann_entropy(landmark_op)
    # The tolerance covers the rounding of the operator itself and of its scaled entries.
    np.testing.assert_allclose(von_neumann_entropy(scale * landmark_op), wanted, rtol=0, atol=1e-12)
    assert optimal_t(scale * landmark_op) == reference.knee(wanted)


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1e8, 1e300])
def test_the_scale_of_a_curve_does_not_matter(scale):
    golden = np.load(Path(__file__).parents[1] / "golden" / "golden_knees.npz")
    assert [knee(scale * curve) for curve in golden["short"]] == golden["short_t"].tolist()


def test_a_zero_operator_has_no_entropy():
    for call in (von_neumann_entropy, optimal_t, entropy_with_error):
        with pytest.raises(InputError, match="landmark_op contains only zeros"):
            call(np.zeros((5, 5)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_curve_that_is_not_finite_has_no_knee(value):
    with pytest.raises(InputError, match="curve contains NaN or infinity"):
        knee(np.array([3.0, value, 0.0, 0.0]))


def test_a_long_curve_of_an_operator_whose_powers_overflow():
    """All rows lead to one landmark: the largest singular value is 6.4, and its power 400 is infinite."""
    landmark_op = 0.1 * np.eye(50)
    landmark_op[:, 0] += 0.9
    assert np.linalg.norm(landmark_op, 2) > 6
    entropy = von_neumann_entropy(landmark_op, t_max=3000)
    assert np.isfinite(entropy).all() and 1 <= knee(entropy) < 2999
    # Only the largest singular value is left. The others have the epsilon for their weight.
    np.testing.assert_allclose(entropy[-1], -len(landmark_op) * 2.2e-16 * math.log(2.2e-16), atol=1e-12)


@pytest.mark.parametrize("n", [4, 5, 30, 100])
def test_knee_matches_reference(n):
    for seed in range(20):
        curve = np.sort(np.random.default_rng(seed).exponential(size=n))[::-1].copy()
        assert knee(curve) == reference.knee(curve)
        assert knee(curve * 1e-8) == knee(curve * 1e8) == knee(curve)


def test_t_max():
    landmark_op = OPERATORS["gaussian 1"]
    for t_max in (4, 10, 250):
        assert len(von_neumann_entropy(landmark_op, t_max)) == t_max
        assert optimal_t(landmark_op, t_max) == reference.optimal_t(landmark_op, t_max)


# ---------------------------------------------------------------- diffusion


@pytest.mark.parametrize("t", [1, 2, 7, 50])
def test_diffuse_matches_repeated_products(landmark_op, t):
    wanted = np.linalg.matrix_power(landmark_op, t)
    # Measured: 1.8e-15.
    np.testing.assert_allclose(diffuse(landmark_op, t), wanted, rtol=0, atol=1e-13)


def landmarks_of_suite(get_case, device) -> tuple[torch.Tensor, torch.Tensor]:
    _, dense = get_case("hopf and pitchfork")
    operator = SparseAffinity(of_dense_rows([torch.from_numpy(dense.copy()).to(device)], len(dense)))
    result = landmark_diffusion(operator, clusters=torch.arange(len(dense)) % 150)
    return result.landmark_op, result.degrees


def three_walks(_, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Three walks that never meet, of 30, 30 and 50 places dealt at random, with steps of 1e-3 and rarer."""
    rng = np.random.default_rng(0)
    affinity = np.zeros((110, 110))
    for first, last in ((0, 30), (30, 60), (60, 110)):
        size = last - first
        affinity[first:last, first:last] = np.eye(size) + np.diag(10 ** rng.uniform(-5, -3, size - 1), 1)
    order = rng.permutation(110)
    affinity = torch.from_numpy((affinity + affinity.T)[np.ix_(order, order)]).to(device)
    degrees = affinity.sum(1)
    return affinity / degrees[:, None], degrees


@pytest.mark.parametrize("made", [landmarks_of_suite, three_walks])
@pytest.mark.parametrize("t", [1, 2, 7, 50])
@pytest.mark.parametrize("with_degrees", [True, False])
def test_diffuse_is_right_entry_by_entry(made, t, with_degrees, get_case, device):
    """The tiny entries too, against products with 19 digits; what is 0 stays 0. By the symmetric form or without."""
    landmark_op, degrees = made(get_case, device)
    wanted = np.linalg.matrix_power(landmark_op.cpu().numpy().astype(np.longdouble), t)
    result = diffuse(landmark_op, t, degrees if with_degrees else None).cpu().numpy()
    # Relative to every entry, down to 8e-202. Measured: 8.8e-15.
    np.testing.assert_allclose(result, wanted.astype(float), rtol=1e-13, atol=0)
    np.testing.assert_array_equal(result == 0, wanted == 0)
    np.testing.assert_allclose(result.sum(1), 1, rtol=1e-12)


def test_diffuse_goes_by_components():
    """One product of two blocks is that of the whole, and what lies between them stays 0."""
    first, second = (torch.from_numpy(OPERATORS[name]) for name in ("gaussian 0", "uneven 1"))
    result = diffuse(torch.block_diag(first, second), 5)
    torch.testing.assert_close(result, torch.block_diag(diffuse(first, 5), diffuse(second, 5)), rtol=1e-13, atol=0)


@pytest.mark.parametrize("svd_up_to", [20, 1000])
def test_singular_values_by_component(svd_up_to, monkeypatch):
    """Blocks of several sizes, some by the Gram matrix and some by the SVD: the same values, t and entropy."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), svd_up_to))
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(uneven(rng, n)) for n in (30, 12, 12, 1, 40)]
    order = torch.from_numpy(rng.permutation(95))
    whole = torch.block_diag(*parts)[order][:, order]
    low, high = entropy_module._singular_value_bounds(whole, components(whole))
    exact = torch.linalg.svdvals(whole)  # measured: 7e-16 outside the bounds, where they are of the plain SVD
    assert bool((low.sort(descending=True).values <= exact + 1e-14).all())
    assert bool((high.sort(descending=True).values >= exact - 1e-14).all())
    assert int((low == high).sum()) == (25 if svd_up_to == 20 else 95)
    # Measured: 1.3e-15.
    wanted = reference.von_neumann_entropy(whole.numpy())
    np.testing.assert_allclose(von_neumann_entropy(whole).numpy(), wanted, rtol=0, atol=1e-12)
    assert optimal_t(whole) == reference.optimal_t(whole.numpy())


def test_degrees_make_the_operator_symmetric(get_case):
    _, dense = get_case("walk")
    operator = SparseAffinity(of_dense_rows([torch.from_numpy(dense.copy())], len(dense)))
    for clusters in (None, torch.arange(len(dense)) % 20):
        result = landmark_diffusion(operator, n_landmark=None, clusters=clusters)
        flow = result.degrees[:, None] * result.landmark_op
        torch.testing.assert_close(flow, flow.T, rtol=1e-12, atol=0)


# ---------------------------------------------------------------- kinds and bad input


def test_numpy_in_numpy_out():
    landmark_op = OPERATORS["gaussian 0"]
    for result in (von_neumann_entropy(landmark_op), diffuse(landmark_op, 3)):
        assert isinstance(result, np.ndarray) and result.dtype == np.float64
    assert type(optimal_t(landmark_op)) is int and type(knee(von_neumann_entropy(landmark_op))) is int


def test_operator_is_left_alone():
    landmark_op = OPERATORS["gaussian 0"].copy()
    before = landmark_op.copy()
    von_neumann_entropy(landmark_op)
    diffuse(landmark_op, 5)
    np.testing.assert_array_equal(landmark_op, before)


@pytest.mark.parametrize("function", [von_neumann_entropy, optimal_t, lambda op: diffuse(op, 2)])
@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 2, 2), (0, 0)], ids=str)
def test_operator_that_is_not_square(function, shape):
    with pytest.raises(InputError, match="landmark_op has shape .*; accepted: a square matrix"):
        function(np.ones(shape))


@pytest.mark.parametrize("function", [von_neumann_entropy, optimal_t, lambda op: diffuse(op, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_operator_that_is_not_finite(function, value):
    landmark_op = np.eye(3)
    landmark_op[1, 2] = value
    with pytest.raises(InputError, match="landmark_op contains NaN or infinity"):
        function(landmark_op)


@pytest.mark.parametrize("t_max", [0, 3, -1, 2.5, "100", None, True])
def test_bad_t_max(t_max):
    for function in (von_neumann_entropy, optimal_t):
        with pytest.raises(InputError, match="t_max="):
            function(np.eye(3), t_max)


@pytest.mark.parametrize(
    ("t", "error"), [(0, InputError), (-1, InputError), (1.5, InputTypeError), ("auto", InputTypeError)]
)
def test_bad_t(t, error):
    with pytest.raises(error, match="t="):
        diffuse(np.eye(3), t)


@pytest.mark.parametrize("shape", [(3,), (0,), (4, 4)], ids=str)
def test_curve_without_a_knee(shape):
    with pytest.raises(InputError, match="curve has shape .*; accepted: one axis of at least 4 points"):
        knee(np.ones(shape))
