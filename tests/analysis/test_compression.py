"""Useful compression, loss, and what the data do not decide."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmphate_gpu.analysis import CompressionKinds, compression_kind, phases
from mmphate_gpu.errors import InputError

E = 60
# Growth to epoch 19, compression to 49, a plateau.
ENTROPY = np.concatenate([np.linspace(1, 3, 20), np.linspace(3, 2, 30), np.full(10, 1.8)])
RISING, LEVEL = np.linspace(0.2, 0.9, E), np.full(E, 0.8)
WAVE = 0.3 * (-1.0) ** np.arange(E)
FALLING = np.concatenate([np.full(20, 0.9), np.linspace(0.9, 0.5, 30), np.full(10, 0.5)])


def noise(deviation, seed=0):
    return deviation * np.random.default_rng(seed).normal(size=E)


def judged(information, **options):
    return compression_kind(ENTROPY, information, random_state=0, **options)


@pytest.mark.parametrize(
    ("information", "verdict", "change"),
    [(RISING, "useful", 29 * 0.7 / 59), (LEVEL, "useful", 0), (FALLING, "loss", -0.4)],
    ids=["rises", "kept", "falls"],
)
@pytest.mark.parametrize("deviation", [0, 0.02])
def test_the_verdict_and_its_number(information, verdict, change, deviation):
    result = judged(information + noise(deviation))
    assert (result.start.tolist(), result.stop.tolist()) == ([20], [49]) and result.verdict.tolist() == [verdict]
    # The standard error of a line of 30 points at its ends is 0.02 sqrt(12 / 30).
    assert result.change == pytest.approx(change, abs=1e-9 + 3 * deviation * 0.65)
    assert result.low <= result.change <= result.high


def test_noise_leaves_it_undecided():
    result = judged(LEVEL + WAVE)
    assert result.verdict.tolist() == ["undecided"] and result.low < -0.05 < 0 < result.high


@pytest.mark.parametrize(("rho", "most"), [(0.0, 8), (0.5, 10), (0.9, 24)])
def test_noise_is_seldom_a_loss(rho, most):
    """Of 100 phases of noise; 3, 4 and 14 of 100 were measured with 200, and ``most`` is 3 deviations above."""
    cut, drawn, verdicts = phases(ENTROPY, random_state=0), np.random.default_rng(0), []
    for _ in range(100):
        values = drawn.normal(size=3 * E)
        for i in range(1, 3 * E):
            values[i] += rho * values[i - 1]
        information = 0.1 * (1 - rho**2) ** 0.5 * values[-E:]
        verdicts += compression_kind(cut, information, n_bootstrap=300, random_state=0).verdict.tolist()
    assert len(verdicts) == 100 and verdicts.count("loss") <= most


def test_a_fall_within_the_margin_counts_as_kept():
    slight = LEVEL - 0.001 * np.arange(E)  # 0.029 over the phase
    assert judged(slight).verdict.tolist() == ["useful"]
    assert judged(slight, margin=0.01).verdict.tolist() == ["loss"]
    assert judged(slight, margin=0.01).change == pytest.approx(-0.029)


def test_other_phases_are_not_judged():
    assert len(compression_kind(ENTROPY[:20], RISING[:20]).verdict) == 0
    assert repr(compression_kind(ENTROPY[:20], RISING[:20])) == "CompressionKinds(no phase of compression)"
    twice = np.concatenate([ENTROPY[20:50], ENTROPY[:50]])
    information = np.concatenate([np.linspace(0.9, 0.2, 30), np.full(50, 0.5)])
    result = compression_kind(twice, information, random_state=0)
    assert result.verdict.tolist() == ["loss", "useful"] and result.start.tolist() == [0, 50]


def test_phases_that_were_cut_before_are_taken():
    cut = phases(ENTROPY, epoch=np.arange(E) * 5, random_state=0)
    result = compression_kind(cut, RISING, random_state=0)
    assert result.start.tolist() == [100] and result.stop.tolist() == [245]


def probe():
    """What `compression_kind` reads of a `LinearProbe`: two time steps whose mean is `FALLING`."""
    score = np.stack([FALLING - 0.1, FALLING + 0.1], axis=1)
    return SimpleNamespace(epoch=np.arange(E), score=score)


def test_time_steps_of_a_probe_are_averaged():
    result = compression_kind(ENTROPY, probe(), random_state=0)
    assert result.measure == "score" and result.verdict.tolist() == ["loss"]
    assert result.change == pytest.approx(-0.4)


def test_the_fields_of_label_information():
    information = SimpleNamespace(
        epoch=np.arange(E), bound=RISING[:, None], mean=FALLING[:, None], dsmi=(LEVEL + WAVE)[:, None]
    )
    verdicts = {name: compression_kind(ENTROPY, information, measure=name, random_state=0) for name in ("mean", "dsmi")}
    assert {name: result.verdict.item() for name, result in verdicts.items()} == {"mean": "loss", "dsmi": "undecided"}
    first = compression_kind(ENTROPY, information, random_state=0)
    assert first.measure == "bound" and first.verdict.tolist() == ["useful"]
    with pytest.raises(InputError, match="measure='score' is unknown; accepted: 'bound', 'mean', 'dsmi'"):
        compression_kind(ENTROPY, information, measure="score")


def test_missing_epochs_of_the_information_are_left_out():
    information = RISING.copy()
    information[25:30] = np.nan
    assert judged(information).change == pytest.approx(29 * 0.7 / 59)


def test_a_phase_without_information_is_undecided():
    sparse = np.where(np.isin(np.arange(E), [3, 22, 30]), RISING, np.nan)
    result = judged(sparse)
    assert result.verdict.tolist() == ["undecided"] and np.isnan([result.change, result.low, result.high]).all()


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="information has 59 epochs; accepted: 60, as the entropy"):
        judged(RISING[1:])
    with pytest.raises(InputError, match="margin=-1"):
        judged(RISING, margin=-1)
    with pytest.raises(InputError, match="measure='bound' is unknown, since information has no fields; accepted: None"):
        judged(RISING, measure="bound")
    with pytest.raises(InputError, match="measure='bound' is unknown; accepted: 'score'"):
        compression_kind(ENTROPY, probe(), measure="bound")
    with pytest.raises(InputError, match="information has other epochs than the entropy"):
        compression_kind(phases(ENTROPY, epoch=np.arange(E) + 1), probe())
    named = SimpleNamespace(values=RISING, dims=("epoch",), coords={"epoch": np.arange(E) + 1})
    with pytest.raises(InputError, match="information has other epochs than the entropy"):
        judged(named)


def test_the_result_can_be_read():
    result = judged(FALLING + 0.0)
    assert isinstance(result, CompressionKinds)
    assert repr(result) == "CompressionKinds(loss 20 to 49: array -0.4 [-0.4, -0.4])"
    assert result.to_frame().columns.tolist() == ["start", "stop", "change", "low", "high", "verdict"]
    assert result.to_dict()["verdict"] == ["loss"]
