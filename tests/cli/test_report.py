"""`report`: what the page says, that it says it of this run, and that it needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu import Embedding, interactive
from mmphate_gpu.cli import main
from mmphate_gpu.cli.analyses import ANALYSES
from mmphate_gpu.cli.report.measures import MEANINGS
from mmphate_gpu.cli.report.summary import STRESSES, stress_words

from .pages import Page
from .reports import TRACE, edit, report

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "user_guide"
HEADINGS = [
    "Can the picture be trusted?",
    "The picture",
    "Panels",
    "Entropy, t and stress",
    "Analyses",
    "What was run, and how",
    "Run it again",
    "Files",
]


def of_stage(folder: str, stage: str, **values: object) -> None:
    """Replace entries of a stage in report.json."""
    stages = json.loads(Path(folder, "report.json").read_text())["stages"]
    edit(f"{folder}/report.json", stages=[row | values if row["stage"] == stage else row for row in stages])


# ---------------------------------------------------------------- the page as a whole


def test_the_sections_are_in_order_and_the_contents_lead_to_them(results, capsys):
    page = report("run", "--analysis", "measured")
    assert re.fullmatch(r"run/report\.html: [\d.]+ [KM]iB\n", capsys.readouterr().out)
    assert [text for text in page.inside("h2")] == HEADINGS
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    targets = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(targets)) == len(targets)
    assert [link["href"] for link in page.all("a")] == [f"#{section['id']}" for section in page.all("section")]
    assert all(picture["alt"] for picture in page.all("img")) and page.count("img") > 2
    assert all(frame["title"] for frame in page.all("iframe")) and page.all("html")[0]["lang"] == "en"


def test_the_first_sentence_has_the_numbers_that_matter(results):
    embedding = Embedding.load("run/embedding.npz")
    text = report("run").text
    assert "160 nodes (8 epochs × 4 time steps × 5 units)" in text
    assert f"t = {embedding.t}" in text and f"a stress of {embedding.stress:.3f}" in text
    edit("run/report.json", metrics={"test_accuracy": [0.1, 0.9183]}, seconds=41.83)
    text = report("run").text
    assert "The run took 41.8 s." in text and "test_accuracy ends at 91.8%." in text


def test_the_page_loads_nothing(results):
    report("run", "--analysis", "measured")
    text = Path("run/report.html").read_text().replace("http://www.w3.org/2000/svg", "")  # a name, which nobody loads
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in page.all("img"))
    assert page.count("link") == 0 and [set(script) for script in page.all("script")] == [set()]
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; ") and "img-src data: blob:;" in policy


def test_the_frame_holds_the_interactive_page_of_this_embedding(results):
    embedding = Embedding.load("run/embedding.npz")
    wanted = interactive.page(embedding.coordinates, embedding.layout, most_active=embedding.most_active)
    assert [frame["srcdoc"] for frame in report("run").all("iframe")] == [wanted]


def test_the_picture_is_colored_by_metrics_layers_and_communities(results):
    embedding = Embedding.load("run/embedding.npz")
    loss = np.linspace(2, 1, 8).tolist()
    layers = ["first", "first", "second", "second", "second"]
    metrics = {"train_loss": loss, "late": [None, *loss[1:]], "short": loss[:3], "other": ["a"] * 8}
    edit("run/report.json", metrics=metrics, unit_layer=layers)
    content = json.loads(Path("measured/analysis.json").read_text())
    content["analyses"]["unit_communities"] = {"community": [[0, 1, 0, 1, 2]]}
    edit("measured/analysis.json", **content)
    columns = {
        "train_loss": ("epoch", loss), "late": ("epoch", [np.nan, *loss[1:]]), "layer": ("unit", layers),
        "community": ("unit", ["0", "1", "0", "1", "2"]),
    }  # fmt: skip
    (frame,) = report("run", "--analysis", "measured").all("iframe")
    assert frame["srcdoc"] == interactive.page(
        embedding.coordinates, embedding.layout, most_active=embedding.most_active, columns=columns
    )


def test_a_folder_with_three_components_has_a_switch(results):
    flat = Embedding.load("run/embedding.npz")
    space = Embedding(np.c_[flat.coordinates, flat.coordinates[:, :1]], flat.layout)
    space.save("run/embedding3d.npz")
    page = report("run")
    first, second = page.all("iframe")
    assert first["srcdoc"] == interactive.page(space.coordinates, space.layout) and "hidden" not in first
    assert second["data-srcdoc"] == interactive.page(flat.coordinates, flat.layout, most_active=flat.most_active)
    assert "hidden" in second and "srcdoc" not in second
    assert [(button["data-shows"], button["aria-pressed"]) for button in page.all("button")] == [
        ("3", "true"),
        ("2", "false"),
    ]
    assert page.count("img") == 3  # two pictures of panels, one of the entropy


def test_a_time_that_was_chosen_has_its_range(results):
    embedding = Embedding.load("run/embedding.npz")
    low, high = embedding.t_range
    text = report("run").text
    assert f"diffused for t = {embedding.t} ({low} to {high}) steps" in text
    assert f"Other landmarks of the same nodes could give {low} to {high}." in text


# ---------------------------------------------------------------- warnings


def test_a_run_without_signs_says_so(results):
    for stage, values in {"landmarks": {"share_outside_largest_island": 0.0}, "entropy": {"t_at_end": False}}.items():
        of_stage("run", stage, **values)
    of_stage("run", "affinity", share_without_interslice_neighbor=0.0)
    assert "The checks of the fit show no sign that this picture misleads." in report("run").text


def test_what_makes_the_picture_untrustworthy_comes_first(results):
    of_stage("run", "landmarks", islands=2008, share_outside_largest_island=0.289)
    of_stage("run", "affinity", share_without_interslice_neighbor=0.294)
    of_stage("run", "entropy", t_at_end=True)
    page = report("run")
    assert "This picture may mislead." in page.text
    assert "has 2,008 islands" in page.text and "28.9% of the nodes are outside the largest" in page.text
    assert "29.4% of the nodes have no interslice neighbor" in page.text and "is the end of its range" in page.text
    remedies = "with an interslice_knn above 25 or landmarks='stratified' or islands='states' or a t_max above 100."
    assert remedies in page.text
    tags = [tag for tag, _ in page.elements]
    assert tags.index("iframe") > next(i for i, (_, at) in enumerate(page.elements) if at.get("class") == "warning")


def test_poor_stress_and_missing_places_are_warnings(results):
    embedding = Embedding.load("run/embedding.npz")
    coordinates = embedding.coordinates.copy()
    coordinates[:16] = np.nan
    Embedding(coordinates, embedding.layout, t=3, stress=0.25).save("run/embedding.npz", overwrite=True)
    text = report("run").text
    assert "16 nodes (10.0%) have no place" in text
    assert "The stress of 0.250 is worse than poor by Kruskal's rule of thumb" in text


@pytest.mark.parametrize(("disparities", "words"), [([0.02, 0.3], "give other pictures"), ([0.02], "nearly the same")])
def test_seeds_that_differ_are_a_warning(results, disparities, words):
    content = json.loads(Path("measured/analysis.json").read_text())
    content["analyses"]["trust"]["seed_procrustes"] = disparities
    edit("measured/analysis.json", **content)
    text = report("run", "--analysis", "measured").text
    assert words in text and f"at most {max(disparities):.2g}" in text


def test_warnings_of_analyses_are_on_the_page(results):
    edit("measured/analysis.json", warnings={"entropy": ["few points"], "trust": 3, "unheard": ["of"]})
    text = report("run", "--analysis", "measured").text
    assert "entropy: few points" in text and "unheard" not in text
    edit("measured/analysis.json", warnings={"unheard": ["of"]})
    assert "The analyses warn" not in report("run", "--analysis", "measured").text


def test_stress_is_put_into_words():
    assert [stress_words(bound) for bound, _ in STRESSES] == [
        "between excellent and good",
        "between good and fair",
        "between fair and poor",
        "poor",
    ]
    assert stress_words(0.0) == "better than excellent" and stress_words(0.21) == "worse than poor"


# ---------------------------------------------------------------- analyses and pictures


def test_every_analysis_has_its_line_its_picture_and_a_page_of_the_guide(results):
    content = json.loads(Path("measured/analysis.json").read_text())
    page = report("run", "--analysis", "measured")
    for line in content["summary"].values():
        assert line.partition("(")[2].removesuffix(")") in page.text
    for name in ("entropy", "phases", "spread", "trust"):
        assert MEANINGS[name].title in page.inside("h3") and MEANINGS[name].sentence in page.text
    shown = [picture["src"].partition(",")[2] for picture in page.all("img")]
    for path in ("run/panels.png", "run/entropy.png", "measured/entropy_curves.png"):
        assert base64.b64encode(Path(path).read_bytes()).decode() in shown
    assert len(shown) == 3
    assert "--only does not name it" in page.text


def test_every_analysis_has_a_meaning_and_its_page_exists():
    assert set(MEANINGS) == set(ANALYSES)
    titles = {path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for path in GUIDE.glob("*.md")}
    assert {meaning.page for meaning in MEANINGS.values()} <= titles


def test_a_folder_of_a_trace_that_was_analyzed(results):
    page = report("both")
    assert page.count("iframe") == 1 and "Entropy of units" in page.inside("h3")
    assert f"mmphate-gpu analyze {shlex.quote(TRACE)} --out both --only=unit_entropy" in page.text


def test_a_folder_of_analyses_alone(results):
    page = report("measured")
    assert page.count("iframe") == 0 and "This folder holds analyses without an embedding." in page.text
    assert MEANINGS["entropy"].title in page.inside("h3")


def test_missing_pictures_are_drawn(results):
    wanted = {path: Path(path).read_bytes() for path in ("run/panels.png", "run/entropy.png")}
    Path("run/panels.png").unlink()
    Path("run/entropy.png").write_text("no picture")
    shown = [base64.b64decode(picture["src"].partition(",")[2]) for picture in report("run").all("img")]
    assert shown == list(wanted.values()) and not Path("run/panels.png").exists()


def test_what_cannot_be_drawn_is_a_sentence(results, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no font\nat all")

    Path("run/panels.png").unlink()
    Path("measured/entropy_curves.png").unlink()
    monkeypatch.setattr("mmphate_gpu.plots.panels", fail)
    monkeypatch.setattr("mmphate_gpu.interactive.page", fail)
    page = report("run", "--analysis", "measured")
    assert "A picture is left out: panels.png cannot be drawn (RuntimeError: no font)." in page.text
    assert "The interactive picture is left out (RuntimeError: no font)." in page.text
    assert "A picture is left out: entropy_curves.png is missing, or no picture." in page.text
    assert page.count("img") == 1 and page.count("iframe") == 0


# ---------------------------------------------------------------- how it was made


def test_settings_that_differ_are_marked(results):
    assert report("run").count("mark") == 2  # n_landmark and device; a seed is no deviation
    rows = report("run").text
    assert "n_landmark" in rows and "60" in rows


def test_the_bars_of_the_stages_have_the_lengths_of_the_seconds(results):
    for stage, seconds in (("landmarks", 8.0), ("affinity", 4.0)):
        of_stage("run", stage, seconds=seconds)
    page = report("run")
    widths = [float(at["style"][6:-2]) for at in page.all("span") if at.get("class") == "bar"]
    stages = [row["stage"] for row in json.loads(Path("run/report.json").read_text())["stages"]]
    assert len(widths) == 2 * len(stages)
    assert widths[2 * stages.index("landmarks")] == 2 * widths[2 * stages.index("affinity")] == max(widths)


def test_the_command_on_the_page_gives_the_same_bits(results, capsys):
    lines = report("run", "--analysis", "measured").inside("code")
    commands = next(text for text in lines if text.startswith("mmphate-gpu embed")).splitlines()
    assert len(commands) == 3
    before = Embedding.load("run/embedding.npz").coordinates
    analyzed = json.loads(Path("measured/analysis.json").read_text())["analyses"]
    for command in commands:
        assert main([*shlex.split(command)[1:], "--force"]) == 0
    assert Embedding.load("run/embedding.npz").coordinates.tobytes() == before.tobytes()
    assert json.loads(Path("measured/analysis.json").read_text())["analyses"]["spread"] == analyzed["spread"]


def test_the_largest_seed_is_on_the_page(results):
    seed = 2**63 - 1
    edit("run/report.json", seed=seed)
    edit("measured/analysis.json", seed=seed)
    text = report("run", "--analysis", "measured").text
    assert f"The seed is {seed}." in text and f"--seed={seed}\n" in text


def test_the_python_on_the_page_gives_the_same_bits(results):
    lines = next(text for text in report("run").inside("code") if text.startswith("from mmphate_gpu"))
    exec(compile(lines, "page", "exec"), {})
    again = Embedding.load("again.npz").coordinates
    assert again.tobytes() == Embedding.load("run/embedding.npz").coordinates.tobytes()


def test_the_checksums_are_those_of_the_files(results):
    for _ in range(2):  # the first page makes report.json longer
        page = report("run", "--analysis", "measured")
        for path in [*Path("run").iterdir(), Path("measured/analysis.json"), Path("measured/entropy_curves.png")]:
            if path.name != "report.html":
                assert hashlib.sha256(path.read_bytes()).hexdigest() in page.text, path
