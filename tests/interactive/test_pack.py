"""What is packed into a page comes out of it, and the first slices of the buffers are spread evenly."""

import numpy as np
import pytest

from mmphate_gpu.errors import InputError
from mmphate_gpu.interactive import page
from mmphate_gpu.interactive.pack import Block, packed, quantized, slice_stride
from mmphate_gpu.slices import SliceLayout, whole_slices

from .pages import blocks_of, facts_of, fake, points_of


@pytest.mark.parametrize("components", [2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_positions_are_within_the_stated_error(components, scale):
    embedding = fake(components=components)
    wanted = embedding.coordinates[:, :3]
    points = points_of(page(embedding.coordinates * scale, embedding.layout))
    longest = np.ptp(wanted, axis=0).max()
    middle = (wanted.max(axis=0) + wanted.min(axis=0)) / 2
    assert np.abs(points / 2 * longest + middle - wanted).max() <= longest / 65535


def test_axes_share_a_scale_and_their_middle_is_that_of_the_box():
    codes, extent = quantized(np.array([[0.0, 10.0], [4.0, 11.0], [2.0, 10.5]]))
    # The second side is a quarter of the first: 0.125 * 65534 = 8191.75 on both sides of the middle, 32767.
    assert codes.tolist() == [[0, 24575], [65534, 40959], [32767, 32767]]
    assert extent.tolist() == [1.0, 0.25]


def test_equal_points_lie_in_the_middle():
    codes, extent = quantized(np.full((3, 2), 7.5))
    assert (codes == 32767).all() and extent.tolist() == [0, 0]


def test_float32_points_far_from_zero_keep_their_differences():
    points = np.float32(1e6) + np.array([[0, 0], [0.25, 0.5], [1, 1]], dtype=np.float32)
    codes, _ = quantized(points)
    assert codes[:, 0].tolist() == [0, round(65534 / 4), 65534]


def test_nodes_without_a_place_have_a_mark_and_are_counted():
    embedding = fake()
    coordinates = embedding.coordinates.copy()
    coordinates[::5] = np.nan
    text = page(coordinates, embedding.layout)
    assert np.array_equal(np.isnan(points_of(text)[:, 0]), np.isnan(coordinates[:, 0]))
    assert facts_of(text)["notes"] == ["24 of 120 nodes have no place and are not drawn."]
    with pytest.raises(InputError, match="NaN in every drawn row; accepted: at least one node with a place"):
        page(np.full((120, 2), np.nan), embedding.layout)


@pytest.mark.parametrize("along", ["epoch", "timestep"])
def test_codes_that_move_along_an_axis_are_packed_as_differences_along_it(along):
    drift = np.arange(9)[:, None, None] * 7 if along == "epoch" else np.arange(8)[None, :, None] * 7
    other = np.array([0, 60000, 3, 65535])[None, None, :]
    jumps = np.random.default_rng(0).integers(0, 30000, (1, 8, 1) if along == "epoch" else (9, 1, 1))
    codes = ((drift + other + jumps) % 65536).astype(np.uint16)
    _, (facts,) = packed([Block(codes, smooth=True)])
    assert facts == {"bytes": 2, "delta": along}


def test_classes_take_a_byte_and_come_back():
    embedding = fake(classes=7)
    text = page(embedding.coordinates, embedding.layout, most_active=embedding.most_active * 10)
    assert facts_of(text)["blocks"][3] == {"bytes": 1, "delta": None}
    codes = blocks_of(text)[3].ravel()
    names = np.array(facts_of(text)["colorings"][3]["names"])
    assert names[codes].tolist() == [str(label) for label in embedding.most_active * 10]


def size(points, classes):
    return len(page(points, SliceLayout.of_shape(127, 128, 30), most_active=classes))


def test_half_a_million_nodes_fit_into_six_megabytes():
    """Smooth data, such as a walk, take 2.3 MB. Noise, which nothing compresses, takes 4.3 MB."""
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(127 * 128, 30, 3)).cumsum(axis=0).reshape(-1, 3)
    slow_classes = np.arange(127 * 128 * 30) // (20 * 128 * 30)
    assert size(walk, slow_classes) <= 2.6e6
    noise = rng.uniform(size=walk.shape)
    assert size(noise, rng.integers(0, 10, len(noise))) <= 4.5e6


@pytest.mark.parametrize("shape", [(127, 128), (51, 8), (200, 1), (1, 300), (100, 6), (64, 64), (7, 500)])
def test_the_first_slices_are_spread_evenly(shape):
    """Each quarter of the epochs has a quarter of the first n slices, and so has each quarter of the time steps."""
    n_epochs, n_timesteps = shape
    n_slices = n_epochs * n_timesteps
    order = np.arange(n_slices) * slice_stride(*shape) % n_slices
    assert sorted(order) == list(range(n_slices))
    for n in (n_slices // 4, n_slices // 2, 3 * n_slices // 4):
        for places, size in ((order[:n] // n_timesteps, n_epochs), (order[:n] % n_timesteps, n_timesteps)):
            quarters = np.bincount(places * 4 // size, minlength=4) / n
            expected = np.bincount(np.arange(size) * 4 // size, minlength=4) / size
            # A low discrepancy: a random order of 100 of these slices would be off by 0.04 on average.
            assert np.abs(quarters - expected).max() <= 0.04, (shape, n, quarters)


def test_whole_slices_are_left_out_and_counted():
    embedding = fake((20, 10, 4))
    text = page(embedding.coordinates, embedding.layout, most_active=embedding.most_active, max_nodes=200)
    epochs, timesteps = whole_slices(embedding.layout, 200)
    facts = facts_of(text)
    assert facts["shape"] == [len(epochs), len(timesteps), 4] and facts["all"] == [20, 10, 4]
    assert facts["epochs"] == epochs.tolist() and facts["timesteps"] == timesteps.tolist()
    assert facts["notes"] == ["200 of 800 nodes are drawn: all units at 10 of 20 epochs and 5 of 10 time steps."]
    part = embedding.at(epochs, timesteps)
    assert blocks_of(text)[3].ravel().tolist() == part.most_active.tolist()
    middle = (part.coordinates.max(axis=0) + part.coordinates.min(axis=0)) / 2
    longest = np.ptp(part.coordinates, axis=0).max()
    assert np.abs(points_of(text) / 2 * longest + middle - part.coordinates).max() <= longest / 65535
    with pytest.raises(InputError, match="max_nodes=3 is less than a slice"):
        page(embedding.coordinates, embedding.layout, max_nodes=3)


@pytest.mark.parametrize("shape, name", [((6, 5, 4), "Epoch"), ((1, 30, 4), "Time step")])
def test_a_single_component_is_drawn_against_time(shape, name):
    embedding = fake(shape, components=1)
    text = page(embedding.coordinates, embedding.layout)
    points = points_of(text)
    place = embedding.layout.indices()[0 if name == "Epoch" else 1]
    assert np.abs(points[:, 0] - (2 * place / place.max() - 1)).max() < 1e-4
    assert np.corrcoef(points[:, 1], embedding.coordinates[:, 0])[0, 1] > 1 - 1e-8
    assert facts_of(text)["names"] == [name, "MM-PHATE 1"] and facts_of(text)["components"] == 1


def test_epochs_at_growing_intervals_lie_at_their_values():
    layout = SliceLayout(np.array([0, 1, 10, 100]), np.arange(2), np.arange(3))
    points = points_of(page(np.arange(24.0)[:, None], layout))
    assert np.allclose(points[::6, 0], [-1, -0.98, -0.8, 1], atol=1e-4)
    assert facts_of(page(np.arange(24.0)[:, None], layout))["ticks"] == [[0, "0"], [0.1, "10"], [1, "100"]]
