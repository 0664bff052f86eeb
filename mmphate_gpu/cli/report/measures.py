"""The analyses on the page: the line of each, its pictures, and what it means."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ..analyses import ANALYSES
from ..arguments import PROGRAM
from ..result_folder import ANALYSIS
from .figures import image
from .html import Html, join, name, paragraph, table, tag
from .provenance import operand
from .run import Run, picture
from .values import mapping, text, texts


@dataclass(frozen=True)
class Meaning:
    """What an analysis says.

    Attributes
    ----------
    title : its heading.
    sentence : what its result means.
    page : the page of the user guide that describes it.
    """

    title: str
    sentence: str
    page: str


ENTROPY = "Measure entropy, and find phases"
LABELS = "Labels, and units that matter"
TRUST = "Trust the picture"

MEANINGS = {
    "entropy": Meaning(
        "Entropy within time steps",
        "It says over how many places of the picture the units of a time step spread: few if alike, many if different.",
        ENTROPY,
    ),
    "unit_entropy": Meaning(
        "Entropy of units",
        "It says over how many places of the picture a unit moves within a sequence: few if still, many if busy.",
        ENTROPY,
    ),
    "trace_entropy": Meaning(
        "Entropy of the states themselves",
        "It measures the states without the picture; what both curves show does not come from the embedding.",
        ENTROPY,
    ),
    "phases": Meaning(
        "Phases of training",
        "The course of the entropy over the epochs is cut where its slope changes.",
        ENTROPY,
    ),
    "follows": Meaning(
        "Does the entropy follow performance?",
        "It tests whether the entropy changes with a metric, before it (negative lag) or after it (positive lag).",
        ENTROPY,
    ),
    "linear_probe": Meaning(
        "Classes in the states",
        "A linear classifier reads the class from the states of a time step; compare it with permuted labels.",
        LABELS,
    ),
    "label_information": Meaning(
        "Information about the class",
        "It says how many bits of information about the class the states hold: all units together, and each alone.",
        LABELS,
    ),
    "compression_kind": Meaning(
        "Kinds of compression",
        "A phase of compression either keeps the classes apart or loses them.",
        ENTROPY,
    ),
    "ablate_timesteps": Meaning(
        "Time steps that the network needs",
        "The states of a time step are replaced; the more the loss grows, the more the network needs them.",
        LABELS,
    ),
    "ablate_units": Meaning(
        "Units that the network needs",
        "The states of a unit are replaced; the more the loss grows, the more the network needs it.",
        LABELS,
    ),
    "unit_importance": Meaning(
        "Which units matter",
        "It ranks the units by several measures; where the rankings agree, the answer does not depend on the measure.",
        LABELS,
    ),
    "unit_communities": Meaning(
        "Communities in the picture",
        "Units of a community have similar paths in the picture; with a small p, shuffled units form weaker groups.",
        LABELS,
    ),
    "trace_communities": Meaning(
        "Communities in the states",
        "It groups the units by the states themselves, without the picture.",
        LABELS,
    ),
    "epoch_communities": Meaning(
        "Communities at each epoch",
        "It says when communities form, and which units change their community.",
        LABELS,
    ),
    "spread": Meaning(
        "Spread",
        "It is the variance of the nodes of each epoch in the picture; where it grows, the nodes move apart.",
        LABELS,
    ),
    "displacement": Meaning(
        "Displacement",
        "It says how far each unit moves in the picture from epoch to epoch.",
        LABELS,
    ),
    "trust": Meaning(
        "What the picture keeps",
        "It says how many neighbors in the states are neighbors in the picture, beside what a random picture keeps. "
        "Its stress compares the picture with the states, and not with the diffusion.",
        TRUST,
    ),
    "null_models": Meaning(
        "Against shuffled traces",
        "A value that shuffled traces reach too says nothing about the network.",
        TRUST,
    ),
    "subsample_study": Meaning(
        "With parts of the trace",
        "It says whether a smaller recording would have shown the same.",
        TRUST,
    ),
    "baselines": Meaning(
        "Against other methods",
        "Structure that several methods show is less likely to be an artifact of one of them.",
        TRUST,
    ),
}


def analyses_section(run: Run) -> Html:
    """Every analysis of analysis.json, and the reasons for those that were left out."""
    if run.analysis_folder is None:
        source = text(run.values.get("input"))
        named = [] if source is None else [f"--trace={source}"]
        hint = shlex.join([PROGRAM, "analyze", operand(run.folder), "--out", "ANALYSIS", *named])
        sentence = (
            "There are no analyses. This command makes them, and then --analysis ANALYSIS adds them to this page: "
        )
        return paragraph(sentence, tag("code", hint))
    summary = {key: line for key, value in mapping(run.analysis.get("summary")).items() if (line := text(value))}
    shown = [html for key in ANALYSES if (html := _analysis(run, key, summary)) is not None]
    return join([*(shown or [paragraph(f"{ANALYSIS} has no result.")]), *_left_out(run)])


def _analysis(run: Run, key: str, summary: dict[str, str]) -> Html | None:
    """An analysis with its lines; their labels are its key, or for several results the key and the name of each."""
    lines = {label: line for label, line in summary.items() if label == key or label.startswith(f"{key} ")}
    if not lines or run.analysis_folder is None:
        return None
    meaning = MEANINGS[key]
    return join(
        [
            tag("h3", meaning.title, id=f"analysis-{key}"),
            paragraph(meaning.sentence),
            *(tag("p", name(_content(line)), class_="line") for line in lines.values()),
            *_pictures(run, key),
            paragraph(
                f"More: page “{meaning.page}” of the user guide; ", tag("code", f"analysis.{key}"), ".", class_="more"
            ),
        ]
    )


def _content(line: str) -> str:
    """The text between the brackets of a result's line.

    Examples
    --------
    >>> _content("Spread(total variance 3 over 2 epochs)"), _content("no result")
    ('total variance 3 over 2 epochs', 'no result')
    """
    match = re.fullmatch(r"[A-Za-z]+\((.*)\)", line, re.DOTALL)
    return line if match is None else match[1]


def _pictures(run: Run, key: str) -> list[Html]:
    """The pictures of an analysis that analysis.json lists."""
    drawn = set(texts(run.analysis.get("files")))
    title = MEANINGS[key].title
    files = ANALYSES[key].pictures
    if run.analysis_folder is None or not files:
        return []
    if not drawn & set(files):
        return [paragraph("It has no picture. The command analyze draws one without --no-plots.", class_="missing")]
    return [image(picture(run.analysis_folder / file), f"{title}: {file}") for file in files if file in drawn]


def _left_out(run: Run) -> list[Html]:
    reasons = {key: why for key, value in mapping(run.analysis.get("left_out")).items() if (why := text(value))}
    rows = [(tag("code", key), name(reasons[key])) for key in ANALYSES if key in reasons]
    if not rows:
        return []
    return [tag("h3", "Not made"), table(("analysis", "reason"), rows, "Analyses that were left out")]
