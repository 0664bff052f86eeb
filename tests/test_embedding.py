"""Embedding: checks, labels, its file, and exports."""

import sys
import zipfile

import numpy as np
import pytest

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.runtime.atomic import whole_file
from mmphate_gpu.slices import SliceLayout

LAYOUT = SliceLayout(np.array([1, 10, 100]), np.array([0.5, 1.0]), np.array(["a", "b", "c", "d"]))


def make(n_components=3, **extra):
    coordinates = np.random.default_rng(0).normal(size=(24, n_components))
    return Embedding(coordinates, LAYOUT, **extra)


def full():
    return make(most_active=np.arange(24) % 5, entropy=np.linspace(4, 1, 100), t=21, stress=0.125)


def test_labels_follow_the_node_order():
    embedding = make()
    node = LAYOUT.node(2, 1, 3)
    assert [embedding.by(axis)[node] for axis in ("epoch", "timestep", "unit")] == [100, 1.0, "d"]
    with pytest.raises(InputError, match="axis='time'"):
        embedding.by("time")


def test_repr_is_one_short_line():
    assert repr(make()) == "Embedding(24 nodes x 3 components; 3 epochs, 2 timesteps, 4 units)"


@pytest.mark.parametrize(
    "coordinates, message",
    [
        (np.zeros(24), r"coordinates has shape \(24,\)"),
        (np.zeros((23, 2)), "coordinates has 23 rows; accepted: 24, a row for each node"),
        (np.zeros((24, 0)), "no columns"),
        (np.zeros((24, 2), dtype=complex), "dtype complex128"),
        ([[0.0, 0.0]] * 24, "coordinates is a list"),
    ],
)
def test_bad_coordinates_are_refused(coordinates, message):
    with pytest.raises(InputError, match=message):
        Embedding(coordinates, LAYOUT)


def test_the_error_names_the_place_of_the_first_value_that_is_not_finite():
    coordinates = np.zeros((24, 2))
    coordinates[[5, 7], 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"coordinates holds nan at \(5, 1\)"):
        Embedding(coordinates, LAYOUT)


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"most_active": np.zeros(23)}, "most_active has 23 rows"),
        ({"most_active": [0] * 24}, "most_active is a list"),
        ({"entropy": np.array([1.0, np.inf])}, r"entropy holds inf at \(1,\)"),
        ({"entropy": np.zeros((2, 2))}, "entropy has shape"),
        ({"t": 0}, "t=0"),
        ({"t": 2.5}, "t=2.5"),
        ({"stress": -0.1}, "stress=-0.1"),
        ({"t_range": (2, 4)}, r"t_range=\(2, 4\) with t=None; accepted: a pair of times with t between them"),
        ({"t": 5, "t_range": (2, 4)}, r"t_range=\(2, 4\) with t=5; accepted: a pair"),
        ({"t": 5, "t_range": [2, 9]}, "t_range=.*accepted: a pair"),
        ({"t": 5, "t_range": (2, 5, 9)}, "t_range=.*accepted: a pair"),
        ({"t": 5, "t_range": (0, 9)}, "t_range=0"),
        ({"t": 5, "t_range": (2.5, 9)}, "t_range=2.5"),
    ],
)
def test_extras_that_do_not_fit_are_refused(extra, message):
    with pytest.raises(InputError, match=message):
        make(**extra)


def test_a_layout_of_another_type_is_refused():
    with pytest.raises(InputTypeError, match="layout is a tuple"):
        Embedding(np.zeros((24, 2)), (3, 2, 4))


@pytest.mark.parametrize(
    "embedding",
    [make(), full(), make(1, t=np.int64(3)), make(t=3, t_range=(2, 5)), make(most_active=np.array(["x", "y"] * 12))],
    ids=["bare", "full", "t", "t_range", "names"],
)
def test_a_loaded_embedding_is_the_saved_one(tmp_path, embedding):
    embedding.save(tmp_path / "embedding.npz")
    again = Embedding.load(tmp_path / "embedding.npz")
    for name in ("coordinates", "most_active", "entropy"):
        np.testing.assert_array_equal(getattr(again, name), getattr(embedding, name))
    for axis in ("epoch", "timestep", "unit"):
        np.testing.assert_array_equal(getattr(again.layout, axis), getattr(LAYOUT, axis))
    assert (again.t, again.t_range, again.stress) == (embedding.t, embedding.t_range, embedding.stress)
    assert [path.name for path in tmp_path.iterdir()] == ["embedding.npz"]


def test_file_is_readable_without_the_package(tmp_path):
    full().save(tmp_path / "embedding.npz")
    with np.load(tmp_path / "embedding.npz") as file:
        assert file["embedding"].shape == (24, 3)
        assert file["shape"].tolist() == [3, 2, 4]
        for axis in ("epoch", "timestep", "unit"):
            np.testing.assert_array_equal(file[axis], full().by(axis))
        assert int(file["t"]) == 21 and float(file["stress"]) == 0.125


def test_optional_entries_are_left_out(tmp_path):
    make().save(tmp_path / "embedding.npz")
    with np.load(tmp_path / "embedding.npz") as file:
        assert not {"t", "t_range", "stress", "entropy", "most_active"} & set(file.files)


def test_save_replaces_a_file_only_with_overwrite(tmp_path):
    path = tmp_path / "embedding.npz"
    make().save(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists"):
        full().save(path)
    assert path.read_bytes() == before
    full().save(path, overwrite=True)
    assert Embedding.load(path).t == 21


@pytest.mark.parametrize("name", ["embedding.npy", "embedding", "embedding.npz.gz"])
def test_save_refuses_another_suffix(tmp_path, name):
    with pytest.raises(InputError, match=r"accepted: '\.npz'"):
        make().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_refuses_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="folder that does not exist"):
        make().save(tmp_path / "no" / "embedding.npz")
    assert not list(tmp_path.iterdir())


def test_text_labels_kept_as_objects_are_stored_as_text(tmp_path):
    layout = SliceLayout(np.arange(2), np.arange(1), np.array(["in", "out"], dtype=object))
    Embedding(np.zeros((4, 2)), layout).save(tmp_path / "e.npz")
    assert Embedding.load(tmp_path / "e.npz").by("unit").tolist() == ["in", "out"] * 2


def test_labels_that_would_need_pickling_are_refused():
    with pytest.raises(InputTypeError, match="unit holds Python objects"):
        SliceLayout(np.arange(2), np.arange(1), np.array([("a", 1), None], dtype=object))
    with pytest.raises(InputTypeError, match="most_active holds Python objects"):
        Embedding(np.zeros((4, 2)), SliceLayout.of_shape(2, 1, 2), most_active=np.array([0, 1, "a", None], object))


def test_masked_entries_are_refused():
    layout = SliceLayout.of_shape(2, 1, 2)
    hidden = np.ma.masked_array(np.zeros((4, 2)), np.arange(8).reshape(4, 2) == 3)
    for field, values in {"coordinates": hidden, "entropy": hidden[:, 1], "most_active": hidden[:, 1]}.items():
        with pytest.raises(InputError, match=f"{field} is masked, 1 of"):
            Embedding(**{"coordinates": np.zeros((4, 2)), "layout": layout} | {field: values})
    shown = Embedding(np.ma.masked_array(np.ones((4, 2))), layout)
    assert type(shown.coordinates) is np.ndarray


def test_nodes_without_a_place_are_rows_of_nan(tmp_path):
    coordinates = np.arange(8.0).reshape(4, 2)
    coordinates[1] = np.nan
    embedding = Embedding(coordinates, SliceLayout.of_shape(2, 1, 2), stress=0.1)
    embedding.save(tmp_path / "e.npz")
    again = Embedding.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(again.coordinates, coordinates)
    assert again.by("unit")[np.isnan(again.coordinates[:, 0])].tolist() == [1]
    assert np.isnan(embedding.to_xarray().sel(epoch=0, unit=1)).all()
    for value in (np.inf, np.nan):
        coordinates[2, 1] = value
        with pytest.raises(
            InputError, match=rf"coordinates holds {value} at \(2, 1\); accepted: finite numbers, or NaN"
        ):
            Embedding(coordinates, SliceLayout.of_shape(2, 1, 2))
    anndata = pytest.importorskip("anndata")
    assert isinstance(embedding.to_anndata(), anndata.AnnData)
    np.testing.assert_array_equal(embedding.to_anndata().obsm["X_mmphate"], embedding.coordinates)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    make().save("~/e.npz")
    assert (tmp_path / "e.npz").is_file() and Embedding.load("~/e.npz").n_nodes == make().n_nodes
    with pytest.raises(InputError, match="~no_such_user/e.npz names the home of an unknown user"):
        Embedding.load("~no_such_user/e.npz")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "e.npz"
    target.write_bytes(b"before")
    with pytest.raises(InputError, match="disk full"), whole_file(target, overwrite=True) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]
    assert target.read_bytes() == b"before"


def write_text(path):
    path.write_text("epoch,unit\n0,1\n")


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 2)))


def write_pickled(path):
    values = {f"{axis}_values": np.arange(2) for axis in ("epoch", "timestep", "unit")}
    np.savez(path, embedding=np.array([{"a": 1}], dtype=object), shape=np.zeros(3), **values)


def write_other_npz(path):
    np.savez(path, data=np.zeros((3, 2)))


def write_cut_short(path):
    full().save(path)
    path.write_bytes(path.read_bytes()[:-200])


def write_damaged(path):
    full().save(path)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def write_other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("embedding", "shape", "epoch_values", "timestep_values", "unit_values"):
            archive.writestr(name, b"not an array")


def write_inconsistent(path):
    values = {f"{axis}_values": np.arange(2) for axis in ("epoch", "timestep", "unit")}
    np.savez(path, embedding=np.zeros((7, 2)), shape=np.array([2, 2, 2]), **values)


def write_other_shape(path):
    values = {f"{axis}_values": np.arange(2) for axis in ("epoch", "timestep", "unit")}
    np.savez(path, embedding=np.zeros((8, 2)), shape=np.array([2, 4, 1]), **values)


def write_two_times(path):
    values = {f"{axis}_values": np.arange(2) for axis in ("epoch", "timestep", "unit")}
    np.savez(path, embedding=np.zeros((8, 2)), shape=np.array([2, 2, 2]), t=np.array([1, 2]), **values)


@pytest.mark.parametrize(
    "write, message",
    [
        (write_text, "is truncated or not a .npz"),
        (write_npy, "is truncated or not a .npz"),
        (write_pickled, "holds pickled"),
        (write_cut_short, "is truncated or not a .npz"),
        (write_damaged, "wrong.npz"),
        (write_other_npz, "lacks embedding"),
        (write_other_zip, "lacks embedding"),
        (write_inconsistent, r"embedding has shape \(7, 2\)"),
        (write_other_shape, r"shape is \[2, 4, 1\]"),
        (write_two_times, "t has shape"),
    ],
)
def test_load_refuses_wrong_files(tmp_path, write, message):
    path = tmp_path / "wrong.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        Embedding.load(path)
    assert "wrong.npz" in str(caught.value)


def test_load_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        Embedding.load(tmp_path / "none.npz")


def test_to_xarray_has_named_axes_and_labels():
    pytest.importorskip("xarray")
    embedding = full()
    array = embedding.to_xarray()
    assert array.dims == ("epoch", "timestep", "unit", "component")
    picked = array.sel(epoch=10, timestep=1.0, unit="c")
    node = LAYOUT.node(1, 1, 2)
    np.testing.assert_array_equal(picked.values, embedding.coordinates[node])
    assert int(picked.coords["most_active"]) == embedding.most_active[node]
    assert array.attrs["t"] == 21 and array.attrs["stress"] == 0.125
    assert make(t=3, t_range=(2, 5)).to_xarray().attrs["t_range"].tolist() == [2, 5]


def test_the_caption_has_the_time_with_its_range():
    assert "t = 1,234 (900 to 2,000)" in make(t=1234, t_range=(900, 2000))._caption()
    assert "t = 21, " in full()._caption()


def test_to_anndata_has_one_observation_per_node():
    pytest.importorskip("anndata")
    embedding = full()
    data = embedding.to_anndata()
    assert data.n_obs == 24
    np.testing.assert_array_equal(data.obsm["X_mmphate"], embedding.coordinates)
    for axis in ("epoch", "timestep", "unit"):
        np.testing.assert_array_equal(data.obs[axis].to_numpy(), embedding.by(axis))
    np.testing.assert_array_equal(data.obs["most_active"].to_numpy(), embedding.most_active)


@pytest.mark.parametrize("package", ["xarray", "anndata"])
def test_exports_name_the_package_that_is_missing(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        getattr(make(), f"to_{package}")()


def test_a_part_has_the_labels_and_the_rows_of_its_nodes():
    embedding = full()
    epochs, timesteps = np.arange(embedding.layout.n_epochs)[::2], np.array([embedding.layout.n_timesteps - 1])
    part = embedding.at(epochs, timesteps)
    assert part.layout.shape == (len(epochs), 1, embedding.layout.n_units)
    keep = np.isin(embedding.by("epoch"), part.layout.epoch) & np.isin(embedding.by("timestep"), part.layout.timestep)
    assert np.array_equal(part.coordinates, embedding.coordinates[keep])
    assert np.array_equal(part.most_active, embedding.most_active[keep])
    assert part.t == embedding.t and part.stress == embedding.stress


@pytest.mark.parametrize("indices", [[9999], [-1], [0.0], [True], [], 0, [[0]], "a"])
def test_a_part_needs_indices_that_are_there(indices):
    with pytest.raises(InputError, match="epochs is .*; accepted: a row of whole numbers from 0 to"):
        full().at(indices, [0])
    with pytest.raises(InputError, match="timesteps is "):
        full().at([0], indices)
