"""The interactive picture, the panels and the entropy curve of the page."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...embedding import Embedding
from ...plots.canvas import DPI
from ..pictures import reason
from ..result_folder import ENTROPY, PICTURES
from .colorings import Columns, colorings
from .html import Html, join, paragraph, tag
from .run import Run, picture
from .summary import stress_words
from .values import numbers

# Pictures have as many dots an inch as `plots` draws, and a page has as many pixels an inch as CSS says.
CSS_DPI = 96


def image(content: bytes | str, alt: str, caption: str | None = None) -> Html:
    """A PNG within the page, or the sentence that says why there is none."""
    if isinstance(content, str):
        return paragraph(f"A picture is left out: {content}.", class_="missing")
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    width, height = (str(max(1, size * CSS_DPI // DPI)) for size in struct.unpack(">II", content[16:24]))
    drawn = tag("img", src=source, alt=alt, width=width, height=height)
    return tag("figure", drawn, None if caption is None else tag("figcaption", caption))


# ---------------------------------------------------------------- the interactive picture


def interactive_section(run: Run) -> Html:
    """The embedding with most components in a frame, with buttons for the others."""
    columns = columns_of(run)
    pages = {each.n_components: interactive_page(each, columns) for each in run.embeddings.values()}
    if not pages:
        return paragraph("This folder holds no embedding. A report of the folder of the embedding shows it.")
    order = sorted(pages, reverse=True)
    frames = [_frame(pages[size], size, shown=size == order[0]) for size in order]
    buttons = [_button(size, pressed=size == order[0]) for size in order]
    switch = tag("div", *buttons, class_="switch", role="group", aria_label="Embedding") if len(order) > 1 else None
    printed = paragraph("The interactive picture needs a screen. The panels below show the same nodes.", class_="paper")
    return join([switch, *frames, printed])


def columns_of(run: Run) -> Columns:
    """What the picture can be colored by besides the axes: metrics, layers, and the communities of the units."""
    if run.embedding is None:
        return {}
    columns = colorings(run.values, run.embedding)
    communities = numbers(run.result("unit_communities").get("community"))
    if len(communities) == run.embedding.layout.n_units:
        columns["community"] = "unit", [f"{community:g}" for community in communities]
    return columns


def interactive_page(embedding: Embedding, columns: Mapping[str, Any]) -> Html | str:
    """The text of the interactive page; the reason as `Html` if it cannot be written."""
    from ... import interactive

    try:
        return interactive.page(
            embedding.coordinates, embedding.layout, most_active=embedding.most_active, columns=columns
        )
    except Exception as error:  # matplotlib's errors have no base class, and none of them may cost the page
        return paragraph(f"The interactive picture is left out ({reason(error)}).", class_="missing")


def _frame(page: Html | str, size: int, *, shown: bool) -> Html:
    """A frame. That of a hidden one is loaded when its button is pressed first."""
    if isinstance(page, Html):
        return tag("div", page, data_size=str(size), hidden=None if shown else "")
    source = {"srcdoc": page} if shown else {"data_srcdoc": page}
    return tag(
        "iframe",
        title=f"Interactive picture of the embedding in {_components(size)}",
        sandbox="allow-scripts allow-downloads",
        data_size=str(size),
        hidden=None if shown else "",
        **source,
    )


def _button(size: int, *, pressed: bool) -> Html:
    state = "true" if pressed else "false"
    return tag("button", _components(size), type="button", data_shows=str(size), aria_pressed=state)


def _components(size: int) -> str:
    return f"{size} component{'s' * (size != 1)}"


# ---------------------------------------------------------------- pictures of matplotlib


def panels_section(run: Run, scratch: Path) -> Html:
    """The panels of each embedding."""
    shown = []
    for name, embedding in run.embeddings.items():
        content = picture(run.folder / PICTURES[name], _panels(embedding), scratch)
        alt = f"The embedding in {_components(embedding.n_components)}, a panel for each coloring"
        colorings = "epoch, time step" + (
            " and unit" if embedding.most_active is None else ", unit and most active class"
        )
        caption = f"{_components(embedding.n_components)}, colored by {colorings}"
        shown.append(image(content, alt, caption))
    return join(shown) if shown else paragraph("This folder holds no embedding, so there are no panels.")


def _panels(embedding: Embedding) -> Callable[[Path], object]:
    def draw(path: Path) -> None:
        from ... import plots

        plots.panels(embedding, path=path)

    return draw


def entropy_section(run: Run, scratch: Path) -> Html:
    """The entropy curve with t, and the stress in words."""
    embedding = run.embedding
    if embedding is None:
        return paragraph("This folder holds no embedding, so there is no entropy curve.")
    if embedding.entropy is None:
        drawn = paragraph("The embedding has no entropy curve.")
    else:
        alt = "Von Neumann entropy of the landmark operator against the diffusion time, with the chosen time"
        drawn = image(picture(run.folder / ENTROPY, _entropy(embedding), scratch), alt)
    return join([drawn, *_of_time(run, embedding), *_of_stress(run, embedding)])


def _entropy(embedding: Embedding) -> Callable[[Path], object]:
    def draw(path: Path) -> None:
        from ... import plots

        plots.entropy(embedding, path=path)

    return draw


def _of_time(run: Run, embedding: Embedding) -> list[Html]:
    if embedding.t is None:
        return []
    automatic = run.params is not None and run.params.chooses_t
    chosen = "This t is the knee of the entropy curve." if automatic else ""
    if embedding.t_range is not None:
        chosen += f" Other landmarks of the same nodes could give {embedding.t_range[0]:,} to {embedding.t_range[1]:,}."
    sentence = f"The diffusion takes t = {embedding.t:,} steps; more steps smooth away larger structures. {chosen}"
    return [paragraph(sentence.strip())]


def _of_stress(run: Run, embedding: Embedding) -> list[Html]:
    if embedding.stress is None:
        return []
    sentence = (
        f"The stress of {embedding.stress:.3f} says how much the distances between landmarks in the picture differ "
        f"from their distances after the diffusion: 0 is perfect. This stress is {stress_words(embedding.stress)} by "
        "Kruskal's rule of thumb."
    )
    stress_3d = run.values.get("stress_3d")
    more = f" In three components it is {stress_3d:.3f}." if isinstance(stress_3d, float) else ""
    return [paragraph(sentence + more)]
