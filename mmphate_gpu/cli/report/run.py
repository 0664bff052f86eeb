"""What a folder of results holds, read once for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..arguments import PROGRAM
from ..pictures import reason
from ..result_folder import ANALYSIS, EMBEDDING, checked_report, read_embeddings
from .values import mapping, number, read_analysis

if TYPE_CHECKING:
    from ...diagnosis import Diagnosis
    from ...embedding import Embedding
    from ...params import Params

MAX_PICTURE = 1 << 25  # bytes of a picture that is copied into the page
PNG = b"\x89PNG\r\n\x1a\n"
SAME = 1e-6  # the relative difference of two sums of the same numbers in different orders is less


@dataclass(frozen=True, eq=False)
class Run:
    """The results in a folder of `embed`, `demo` or `analyze`.

    Attributes
    ----------
    folder : the folder, as the user wrote it.
    report : the content of report.json, or None without that file.
    embeddings : {name of the file: embedding}; empty for a folder of `analyze`.
    analysis_folder : the folder of analysis.json, or None without analyses.
    analysis : the content of analysis.json; empty without analyses.
    """

    folder: Path
    report: dict[str, Any] | None
    embeddings: Mapping[str, Embedding]
    analysis_folder: Path | None
    analysis: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, analysis_folder: Path | None) -> Run:
        """The results in ``folder``, and the analyses in ``analysis_folder`` or else in ``folder``.

        Raises
        ------
        InputError
            A folder is missing or holds no results, a file is damaged, or the analyses are of other results.
        """
        report = checked_report(folder)
        embeddings = read_embeddings(folder, needed=False)
        place = _place_of_analyses(folder, analysis_folder)
        if not embeddings and place is None:
            raise InputError(f"{folder} has neither {EMBEDDING} nor {ANALYSIS}; accepted: a folder of results")
        run = cls(folder, report, embeddings, place, {} if place is None else read_analysis(place / ANALYSIS))
        if analysis_folder is not None:
            run._check_same(analysis_folder)
        return run

    @property
    def values(self) -> Mapping[str, Any]:
        """The content of report.json, empty without that file."""
        return self.report or {}

    @property
    def embedding(self) -> Embedding | None:
        return next(iter(self.embeddings.values()), None)

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        stages = self.values.get("stages")
        return [mapping(stage) for stage in stages] if isinstance(stages, list) else []

    @cached_property
    def params(self) -> Params | None:
        """The parameters in the report; None if they are missing, or no parameters of this version."""
        from ...params import Params

        stored = mapping(self.values.get("parameters"))
        known = {name: value for name, value in stored.items() if name in Params.__dataclass_fields__}
        try:
            return Params(**known) if known else None
        except InputError:
            return None

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """The signs of a misleading picture that the fit looked for; None if the report lacks them."""
        from ...diagnosis import Diagnosis

        return Diagnosis.of_stages(self.stages)

    def result(self, name: str) -> Mapping[str, Any]:
        """The fields of the analysis ``name``; empty if it was not made."""
        return mapping(mapping(self.analysis.get("analyses")).get(name))

    def _check_same(self, folder: Path) -> None:
        """Raise `InputError` if the analyses and the embedding have different spreads. One may lack it."""
        from ...analysis import spread

        stated = number(self.result("spread").get("total"))
        if self.embedding is None or stated is None:
            return
        total = spread(self.embedding).total
        if not math.isclose(stated, total, rel_tol=SAME):
            raise InputError(
                f"--analysis {folder} is of other results: their spread is {stated:.6g}, and that of {self.folder} is "
                f"{total:.6g}; accepted: a folder that '{PROGRAM} analyze {self.folder}' wrote"
            )


def _place_of_analyses(folder: Path, analysis_folder: Path | None) -> Path | None:
    if analysis_folder is None:
        return folder if (folder / ANALYSIS).exists() else None
    if not (analysis_folder / ANALYSIS).exists():
        raise InputError(f"--analysis {analysis_folder} has no {ANALYSIS}; accepted: a folder that analyze wrote")
    return analysis_folder


def picture(path: Path, draw: Callable[[Path], object] | None = None, scratch: Path | None = None) -> bytes | str:
    """The PNG at ``path``, or else that which ``draw`` draws in ``scratch``; the reason if there is neither."""
    try:
        stored = path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_PICTURE
        content = path.read_bytes() if stored else b""
        if content.startswith(PNG) and len(content) > len(PNG) + 16:  # with its width and height
            return content
        if draw is None or scratch is None:
            return f"{path.name} is missing, or no picture"
        draw(scratch / path.name)
        return (scratch / path.name).read_bytes()
    except Exception as error:  # matplotlib's errors have no base class, and none of them may cost the page
        return f"{path.name} cannot be drawn ({reason(error)})"
