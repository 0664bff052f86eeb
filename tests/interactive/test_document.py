"""A page is a single file that asks nobody for anything, and every name in it is text."""

import base64
import hashlib
import html
import re
import zipfile
from importlib.resources import files

import numpy as np
import pytest

from mmphate_gpu.interactive import document, page
from mmphate_gpu.interactive.document import SCRIPTS
from mmphate_gpu.slices import SliceLayout

from .pages import facts_of, fake

HOSTILE = [
    "<script>alert(1)</script>", "</script>", "<!--", "]]>", "&amp;", '"', "'", "\\", "$x^2$", "a\nb", "a\x00b",
    "\ud800", "\u2028", "\u202eright to left", "שלום", "😀", "é", "", "x" * 10_000, "{{data}}", "javascript:0",
]  # fmt: skip


def text_of(**options):
    embedding = fake()
    return page(embedding.coordinates, embedding.layout, most_active=embedding.most_active, **options)


def hostile_layout():
    return SliceLayout(np.arange(2), np.arange(2), np.array(HOSTILE))


def test_hostile_names_are_text():
    layout = hostile_layout()
    names = np.array(HOSTILE * 4)
    coordinates = np.arange(2.0 * layout.n_nodes).reshape(-1, 2)
    columns = {name: names for name in HOSTILE if name}
    text = page(coordinates, layout, most_active=names, columns=columns, title=HOSTILE[0])
    assert text.encode().decode() == text
    assert text.count("<script") == 3 and text.count("</script>") == 3 and "<!--" not in text
    facts = facts_of(text)
    written_out = {"a\nb": "a\\nb", "a\x00b": "a\\x00b", "\ud800": "\\ud800", "\u2028": "\\u2028"}
    shown = [written_out.get(name, name) for name in HOSTILE]
    assert facts["axes"]["unit"] == shown
    assert set(facts["colorings"][3]["names"]) == set(shown)
    assert [coloring["name"] for coloring in facts["colorings"][4:]] == [name for name in shown if name]
    assert facts["title"] == HOSTILE[0]
    assert re.findall("<title>(.*?)</title>", text) == [html.escape(HOSTILE[0])]


def test_the_policy_forbids_every_request():
    text = text_of()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for element, rule in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_nothing_in_the_page_is_loaded_or_run_from_text():
    text = text_of()
    assert re.findall(r"https?://[^\"' ]*", text) == ["http://www.w3.org/2000/svg"] * text.count("http://")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|@import", text)
    assert not re.search(r"\bon\w+=|\bsrc=|style=", text)
    assert re.findall(r'href="(.*?)"', text) == ["data:,"]


def test_all_files_of_the_page_are_used_and_reachable_as_resources():
    folder = files("mmphate_gpu.interactive") / "assets"
    names = {file.name for file in folder.iterdir()}
    assert names == {f"{name}.js" for name in SCRIPTS} | {"page.html", "page.css"}
    text = text_of()
    assert all((folder / name).read_text(encoding="utf-8") in text for name in names - {"page.html"})
    assert all(len((folder / name).read_text(encoding="utf-8").splitlines()) <= 400 for name in names)


def test_the_page_can_be_made_from_a_package_in_a_zip_file(tmp_path, monkeypatch):
    expected = text_of()
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as new:
        for file in (files("mmphate_gpu.interactive") / "assets").iterdir():
            new.writestr(f"assets/{file.name}", file.read_bytes())
    monkeypatch.setattr(document, "files", lambda package: zipfile.Path(archive))
    assert text_of() == expected


def test_every_name_of_the_script_has_an_element():
    folder = files("mmphate_gpu.interactive") / "assets"
    script = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    frame = (folder / "page.html").read_text(encoding="utf-8")
    used = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', script))
    assert used <= set(re.findall(r'id="([\w-]+)"', frame))
    contract = "canvas tooltip color-by epoch trail play timestep search matches legend reset export theme dimension"
    assert {*contract.split(), "notes", "status"} <= set(re.findall(r'id="([\w-]+)"', frame))


def test_every_control_has_a_name():
    frame = (files("mmphate_gpu.interactive") / "assets" / "page.html").read_text(encoding="utf-8")
    labeled = set(re.findall(r'<label for="([\w-]+)"', frame))
    controls = re.findall(r"<(?:input|select)[^>]*>", frame)
    assert controls and all(re.search(r'id="([\w-]+)"', control)[1] in labeled for control in controls)
    assert 'aria-live="polite"' in frame and "<noscript>" in frame and 'lang="en"' in frame


def test_equal_embeddings_make_equal_pages():
    assert text_of() == text_of()


@pytest.mark.parametrize("classes, color", [(3, "Most active class"), (None, "Epoch")])
def test_the_first_coloring_is_by_class_if_classes_are_known(classes, color):
    embedding = fake(classes=classes)
    facts = facts_of(page(embedding.coordinates, embedding.layout, most_active=embedding.most_active))
    assert facts["colorings"][facts["color"]]["name"] == color
