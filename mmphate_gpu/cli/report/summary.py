"""The beginning of the page: the numbers that matter, and what makes the picture untrustworthy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..analyses import ANALYSES
from .colorings import metrics_of
from .html import Html, bullets, join, name, paragraph, tag
from .run import Run
from .values import count, mapping, number, numbers, seconds_text, texts

# Kruskal, Multidimensional scaling by optimizing goodness of fit to a nonmetric hypothesis (Psychometrika, 1964), calls
# a stress of 0.2 poor, 0.1 fair, 0.05 good, 0.025 excellent.
STRESSES = ((0.025, "excellent"), (0.05, "good"), (0.1, "fair"), (0.2, "poor"))
POOR = 0.2
# The disparity is the share of the variance of a picture that the other picture does not have. A tenth can be seen.
SEEDS_DIFFER = 0.1


def headline(run: Run) -> Html:
    """The sentence with the numbers that matter."""
    return tag("p", *_numbers(run), class_="lead")


def _numbers(run: Run) -> Iterator[str]:
    embedding = run.embedding
    if embedding is None:
        yield "This folder holds analyses without an embedding."
        return
    epochs, timesteps, units = embedding.layout.shape
    yield from (
        tag("b", f"{embedding.n_nodes:,} nodes"),
        f" ({epochs:,} epochs × {timesteps:,} time steps × {units:,} units)",
    )
    if embedding.t is not None:
        yield from (", diffused for ", tag("b", f"t = {embedding.t_text}"), " steps")
    if embedding.stress is not None:
        yield from (", drawn with a stress of ", tag("b", f"{embedding.stress:.3f}"))
    yield "."
    if (seconds := number(run.values.get("seconds"))) is not None:
        yield from (" The run took ", tag("b", seconds_text(seconds)), ".")
    for metric, value in _accuracies(run):
        yield from (" ", tag("code", metric), " ends at ", tag("b", f"{value:.1%}"), ".")


def _accuracies(run: Run) -> list[tuple[str, float]]:
    """The last value of each metric whose name ends in "accuracy"."""
    values = {name: series for name, series in metrics_of(run.values).items() if name.endswith("accuracy")}
    return [(name, series[-1]) for name, series in values.items() if series and 0 <= series[-1] <= 1]


def stress_words(stress: float) -> str:
    """How Kruskal's rule of thumb calls a stress.

    Examples
    --------
    >>> stress_words(0.16), stress_words(0.3)
    ('between fair and poor', 'worse than poor')
    """
    better = [word for bound, word in STRESSES if stress >= bound]
    worse = [word for bound, word in STRESSES if stress < bound]
    if not worse:
        return f"worse than {better[-1]}" if stress > STRESSES[-1][0] else better[-1]
    return f"between {better[-1]} and {worse[0]}" if better else f"better than {worse[0]}"


def trust_section(run: Run) -> Html:
    """What makes the picture untrustworthy, and what the analyses warn of."""
    warnings, remarks = [*_fit_warnings(run), *_more_warnings(run)], _remarks(run)
    if warnings:
        head = paragraph(tag("strong", "This picture may mislead."), " Read it with these limits in mind:")
        main = tag("div", head, bullets(warnings), class_="warning", role="note")
    elif run.diagnosis is not None:
        main = tag("div", paragraph("The checks of the fit show no sign that this picture misleads."), class_="fine")
    else:
        main = tag("div", paragraph("The report does not say what the checks of the fit were."), class_="warning")
    return join([main, bullets(remarks) if remarks else None, *_analysis_warnings(run)])


def _fit_warnings(run: Run) -> list[str]:
    t = run.embedding.t if run.embedding is not None else None
    if run.diagnosis is None or run.params is None or t is None:
        return []
    signs = [f"{sign[0].upper()}{sign[1:]}." for sign in run.diagnosis.signs(run.params, t)]
    remedies = " or ".join(run.diagnosis.remedies(run.params, t))
    return [*signs, *[f"Another fit may help, with {remedies}."] * bool(signs)]


def _more_warnings(run: Run) -> Iterator[str]:
    embedding = run.embedding
    if embedding is None:
        return
    if (missing := int(np.isnan(embedding.coordinates).any(1).sum())) > 0:
        share = missing / embedding.n_nodes
        yield f"{missing:,} nodes ({share:.1%}) have no place, because too few of their samples were recorded."
    if embedding.stress is not None and embedding.stress > POOR:
        yield (
            f"The stress of {embedding.stress:.3f} is {stress_words(embedding.stress)} by Kruskal's rule of thumb (0.1 "
            "is fair, 0.2 is poor). Distances in the picture differ much from the distances after the diffusion."
        )
    if (seeds := _seeds(run)) and max(seeds) > SEEDS_DIFFER:
        yield f"Refits with other seeds give other pictures: {_disparities(seeds)}"


def _remarks(run: Run) -> list[str]:
    remarks = []
    if (seeds := _seeds(run)) and max(seeds) <= SEEDS_DIFFER:
        remarks.append(f"Refits with other seeds give nearly the same picture: {_disparities(seeds)}")
    elif not seeds:
        remarks.append("What another seed would change was not measured; analysis.trust(..., seeds=3) measures it.")
    if (islands := count(run.result("trust").get("islands"))) is not None:
        remarks.append(f"The diffusion graph has {islands:,} island{'s' * (islands != 1)}.")
    return remarks


def _seeds(run: Run) -> list[float]:
    return numbers(run.result("trust").get("seed_procrustes"))


def _disparities(seeds: list[float]) -> str:
    return f"their Procrustes disparity is at most {max(seeds):.2g} (0 is equal, 1 is unrelated)."


def _analysis_warnings(run: Run) -> list[Html]:
    messages = {key: texts(value) for key, value in mapping(run.analysis.get("warnings")).items() if key in ANALYSES}
    items = [join([tag("code", key), ": ", name("; ".join(said))]) for key, said in messages.items() if said]
    return [paragraph("The analyses warn:"), bullets(items)] if items else []
