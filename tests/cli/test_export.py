"""`export`: the files hold what the folder holds, and replace nothing of the user."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import xarray

from mmphate_gpu import Embedding
from mmphate_gpu.cli import export as command
from mmphate_gpu.cli import main
from mmphate_gpu.slices import SliceLayout

ALL = "csv,h5ad,zarr"
# Commas, quotes, line ends, NUL, half of a surrogate pair, right to left, a formula, spaces at both ends, nothing.
NAMES = ["a,b", 'say "x"', "two\nlines", "old\rline", "nul\0end", "half\ud800", "אבג", "=1+1", "  x ", ""]
SHOWN = ["a,b", 'say "x"', "two\nlines", "old\rline", "nul\\x00end", "half\\ud800", "אבג", "=1+1", "  x ", ""]


def saved(
    folder: str = "run",
    *,
    epoch: np.ndarray | None = None,
    timestep: np.ndarray | None = None,
    unit: np.ndarray | None = None,
    n_components: int = 2,
    dtype: str = "float32",
    name: str = "embedding.npz",
    **more: object,
) -> Embedding:
    """An embedding of random coordinates, saved in ``folder``."""
    axes = zip((epoch, timestep, unit), (2, 3, 2), strict=True)
    layout = SliceLayout(*(np.arange(size) if labels is None else labels for labels, size in axes))
    coordinates = np.random.default_rng(n_components).normal(size=(layout.n_nodes, n_components)).astype(dtype)
    embedding = Embedding(coordinates, layout, **more)
    Path(folder).mkdir(exist_ok=True)
    embedding.save(Path(folder) / name, overwrite=True)
    return embedding


def of_csv(path: str = "run.csv") -> dict[str, list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return {name: list(column) for name, column in zip(head, zip(*rows, strict=True), strict=True)}


def export(*argv: str) -> int:
    return main(["export", "run", "--format", *argv])


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- what the files hold


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_csv_has_the_labels_and_the_bits_of_every_node(capsys, dtype):
    embedding = saved(dtype=dtype, most_active=np.arange(12) % 5)
    assert export("csv") == 0 and capsys.readouterr().out == "run.csv\n"
    columns = of_csv()
    assert list(columns) == ["epoch", "timestep", "unit", "most_active", "mmphate_1", "mmphate_2"]
    for axis in ("epoch", "timestep", "unit"):
        assert list(map(int, columns[axis])) == embedding.by(axis).tolist()
    assert list(map(int, columns["most_active"])) == embedding.most_active.tolist()
    read = np.array([columns["mmphate_1"], columns["mmphate_2"]]).T.astype(dtype)
    assert read.tobytes() == embedding.coordinates.tobytes()


def test_numbers_of_every_size_are_read_back_to_the_same_bits():
    values = np.array([5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 2**53 + 2, 1e22])
    layout = SliceLayout(np.array([0.1, 1e300]), np.arange(3), np.array([2**64 - 1], dtype=np.uint64))
    Path("run").mkdir()
    Embedding(values[:, None], layout).save("run/embedding.npz")
    assert export("csv") == 0
    columns = of_csv()
    assert np.array(columns["mmphate_1"], dtype=np.float64).tobytes() == values.tobytes()
    assert [float(text) for text in columns["epoch"]] == [0.1] * 3 + [1e300] * 3
    assert set(columns["unit"]) == {"18446744073709551615"}


def test_rows_are_written_in_blocks(monkeypatch):
    embedding = saved(most_active=np.arange(12))
    monkeypatch.setattr(command, "BLOCK", 5)
    assert export("csv") == 0
    assert np.array_equal(np.array(of_csv()["mmphate_2"], dtype=np.float32), embedding.coordinates[:, 1])
    assert of_csv()["most_active"] == [str(node) for node in range(12)]


def test_a_h5ad_and_a_zarr_hold_the_same():
    embedding = saved(most_active=np.arange(12) % 5, entropy=np.linspace(3, 1, 6), t=4, stress=0.25)
    assert export("h5ad,zarr") == 0
    data = anndata.read_h5ad("run.h5ad")
    assert np.array_equal(data.obsm["X_mmphate"], embedding.coordinates)
    assert data.uns["mmphate"]["t"] == 4 and data.uns["mmphate"]["stress"] == 0.25
    assert np.array_equal(data.uns["mmphate"]["entropy"], embedding.entropy)
    for name in ("epoch", "timestep", "unit"):
        assert data.obs[name].tolist() == embedding.by(name).tolist()
    with xarray.open_zarr("run.zarr") as stored:
        assert stored.mmphate.dims == ("epoch", "timestep", "unit", "component")
        assert np.array_equal(stored.mmphate.values.reshape(12, 2), embedding.coordinates)
        assert np.array_equal(stored.most_active.values.ravel(), embedding.most_active)
        assert np.array_equal(stored.entropy.values, embedding.entropy)
        assert stored.diffusion_time.values.tolist() == [0, 1, 2, 3, 4, 5]
        assert stored.attrs == {"t": 4, "stress": 0.25, "program": "mmphate-gpu"}


def test_a_folder_of_demo_has_both_embeddings():
    flat, space = saved(), saved(n_components=3, name="embedding3d.npz")
    assert export(ALL) == 0
    columns = of_csv()
    assert list(columns)[3:] == ["mmphate_1", "mmphate_2", "mmphate3d_1", "mmphate3d_2", "mmphate3d_3"]
    assert np.array_equal(np.array(columns["mmphate3d_3"], dtype=np.float32), space.coordinates[:, 2])
    data = anndata.read_h5ad("run.h5ad")
    assert np.array_equal(data.obsm["X_mmphate3d"], space.coordinates)
    with xarray.open_zarr("run.zarr") as stored:
        assert np.array_equal(stored.mmphate.values.reshape(12, 2), flat.coordinates)
        assert np.array_equal(stored.mmphate3d.values.reshape(12, 3), space.coordinates)


def test_any_name_is_read_back():
    embedding = saved(unit=np.array(NAMES), most_active=np.array(NAMES * 6))
    assert export(ALL) == 0
    shown = SHOWN * 6
    assert of_csv()["unit"] == of_csv()["most_active"] == shown
    data = anndata.read_h5ad("run.h5ad")
    assert data.obs["unit"].tolist() == data.obs["most_active"].tolist() == shown
    with xarray.open_zarr("run.zarr") as stored:
        assert stored.unit.values.tolist() == SHOWN
        assert stored.most_active.values.ravel().tolist() == shown
        assert np.array_equal(stored.mmphate.values.reshape(-1, 2), embedding.coordinates)


def test_dates_are_iso_text_and_dates_again():
    epoch = np.array(["2024-01-31T12:00:00.5", "NaT"], dtype="M8[ms]")
    saved(epoch=epoch, timestep=np.array([1, 2, 3], dtype="m8[s]"))
    assert export(ALL) == 0
    assert of_csv()["epoch"][:1] + of_csv()["epoch"][-1:] == ["2024-01-31T12:00:00.500", ""]
    assert of_csv()["timestep"][0] == "1 seconds"
    assert anndata.read_h5ad("run.h5ad").obs["epoch"].tolist()[0] == "2024-01-31T12:00:00.500"
    with xarray.open_zarr("run.zarr", decode_timedelta=True) as stored:
        assert np.array_equal(stored.epoch.values.astype("M8[ms]"), epoch, equal_nan=True)
        assert stored.timestep.values.astype("m8[s]").tolist() == np.array([1, 2, 3], dtype="m8[s]").tolist()


def test_a_node_without_a_place_is_empty_or_nan():
    embedding = saved(unit=np.array(["only"]))
    coordinates = embedding.coordinates.copy()
    coordinates[1] = np.nan
    Embedding(coordinates, embedding.layout).save("run/embedding.npz", overwrite=True)
    assert export(ALL) == 0
    assert of_csv()["mmphate_1"][1] == of_csv()["mmphate_2"][1] == "" and of_csv()["mmphate_1"][0]
    assert np.array_equal(anndata.read_h5ad("run.h5ad").obsm["X_mmphate"], coordinates, equal_nan=True)
    with xarray.open_zarr("run.zarr") as stored:
        assert np.array_equal(stored.mmphate.values.reshape(-1, 2), coordinates, equal_nan=True)


# ---------------------------------------------------------------- where the files are


def test_the_files_are_beside_the_folder(monkeypatch):
    saved()
    assert main(["export", "run/", "--format", "csv"]) == 0 and Path("run.csv").is_file()
    monkeypatch.chdir("run")
    assert main(["export", ".", "--format", "csv", "--force"]) == 0
    assert [item.name for item in Path().iterdir()] == ["embedding.npz"]
    assert main(["export", ".", "--format", "csv,zarr", "--out", "../other.csv"]) == 0
    assert Path("../other.csv").is_file() and Path("../other.csv.zarr").is_dir()


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The sentence that refuses a command, which changes nothing."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert export(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return captured.err


def test_a_path_in_the_folder_is_refused(capsys):
    saved()
    assert "is in the folder of results run" in refused(capsys, "csv", "--out", "run/x")
    Path("link").symlink_to("run")
    assert "is in the folder of results run" in refused(capsys, "csv", "--out", "link/sub/x")


def test_existing_files_are_replaced_with_force_only(capsys):
    saved()
    assert export(ALL) == 0
    capsys.readouterr()
    for name in ALL.split(","):
        assert f"run.{name} exists" in refused(capsys, name)
    embedding = saved(n_components=1)
    assert export(ALL, "--force") == 0
    assert list(of_csv())[3:] == ["mmphate_1"]
    with xarray.open_zarr("run.zarr") as stored:
        assert np.array_equal(stored.mmphate.values.reshape(-1, 1), embedding.coordinates)


def test_force_replaces_no_zarr_of_the_user(capsys):
    saved()
    Path("run.zarr").mkdir()
    Path("run.zarr/notes.txt").write_text("mine")
    assert "holds 'notes.txt', which export did not write" in refused(capsys, "zarr", "--force")
    shutil.rmtree("run.zarr")
    assert export("zarr") == 0
    capsys.readouterr()
    Path("run.zarr/notes.txt").write_text("mine")
    assert "holds 'notes.txt', which export did not write" in refused(capsys, "zarr", "--force")
    shutil.rmtree("run.zarr")
    Path("run.zarr").write_text("mine")
    assert "run.zarr is no folder" in refused(capsys, "csv,zarr", "--force")
    Path("run.csv").mkdir()
    assert "run.csv is a folder" in refused(capsys, "csv", "--force")


# ---------------------------------------------------------------- what is refused


def test_wrong_formats_and_folders(capsys):
    saved()
    assert "--format 'xlsx' is unknown; accepted: 'csv', 'h5ad', 'zarr'" in refused(capsys, "csv,xlsx")
    assert "--format '' is unknown" in refused(capsys, "")
    shutil.rmtree("run")
    assert "run is no folder" in refused(capsys, "csv")
    Path("run").mkdir()
    assert "run has no embedding.npz" in refused(capsys, "csv")
    Path("run/embedding.npz").write_bytes(b"damaged")
    assert "run/embedding.npz" in refused(capsys, "csv")
    saved()
    saved(n_components=3, name="embedding3d.npz", unit=np.array(["a", "b"]))
    assert "have different nodes" in refused(capsys, "csv")


@pytest.mark.parametrize(("name", "package"), [("h5ad", "anndata"), ("zarr", "xarray"), ("zarr", "zarr")])
def test_a_missing_package_is_named_before_anything_is_written(capsys, monkeypatch, name, package):
    saved()
    monkeypatch.setitem(sys.modules, package, None)
    assert f'pip install "mmphate-gpu[{package}]"' in refused(capsys, f"csv,{name}")


def test_a_csv_needs_no_package(monkeypatch):
    saved()
    for package in ("anndata", "pandas", "xarray", "zarr"):
        monkeypatch.setitem(sys.modules, package, None)
    assert export("csv") == 0


def test_a_write_that_fails_leaves_the_old_file(capsys, monkeypatch):
    saved()
    assert export("csv") == 0
    old = Path("run.csv").read_bytes()

    def fail(values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "cells", fail)
    assert export("csv", "--force") == 2
    assert re.search(r"run\.csv cannot be written \(No space left on device\)", capsys.readouterr().err)
    assert Path("run.csv").read_bytes() == old and sorted(item.name for item in Path().iterdir()) == ["run", "run.csv"]
