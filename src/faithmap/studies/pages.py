"""Pages over several networks or runs: studies of several networks, runs beside each other."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from faithmap.protocol import RANDOM
from faithmap.report import BETWEEN, Several, ranks_part, values_part, write_several
from faithmap.run import Run
from faithmap.studies.beside import beside, named_score
from faithmap.studies.study import STUDY, Study
from faithmap.text import display_name


def studies_in(folder: str | Path) -> dict[str, Study]:
    """Network → its study, of a folder that a study of several networks made; empty for any other folder."""
    place = Path(folder)
    found = [Study(file.parent) for file in sorted(place.glob(f"*/{STUDY}"))] if place.is_dir() else []
    return {study.network: study for study in found}


def networks_page(studies: Mapping[str, Study], path: Path, measure: str = "srg") -> Path:
    """Write the studies of several networks as one page; a column for each network and setting.

    Args:
        studies: network → its study.
        path: of the page.
        measure: what methods are ranked by.
    """
    runs = {
        f"{network}{BETWEEN}{setting}": run
        for network, study in studies.items()
        for setting, run in study.runs().items()
    }
    pages = {name: _link(run.folder / "report.html", path) for name, run in runs.items()}
    pages |= {
        f"{network}{BETWEEN}{setting}": _link(page, path)
        for network, study in studies.items()
        for setting in study.runs()
        if (page := study.folder / "report-settings" / f"{setting}.html").is_file()
    }
    parts = []
    for score in scores_of(studies):
        frames = []
        graded: list[dict[str, Any]] = []
        for network, study in studies.items():
            own = study.own_score(score)
            frame = study.ranks(measure, own)
            frames.append(frame.assign(setting=f"{network}{BETWEEN}" + frame["setting"].astype(str), score=score))
            graded += [{**one, "group": network} for one in study.graded(measure, own)]
        ranks = pd.concat(frames, ignore_index=True)
        verdict, named = networks_verdict(studies, measure, score), named_by(studies, score)
        parts.append(ranks_part(score, ranks, verdict, graded, named))
    title = f"{len(studies)} networks, {len(runs)} settings"
    return write_several(Several(title, "network and setting", runs, parts, pages), path)


def scores_of(studies: Mapping[str, Study]) -> list[str]:
    """The scores that some network has, that of the first one's protocol first."""
    return list(dict.fromkeys(score for study in studies.values() for score in study.scores))


def named_by(studies: Mapping[str, Study], score: str) -> str:
    """What a score is called on several networks: one name, or each with the networks that have it."""
    return named_score({network: next(iter(study.runs().values())) for network, study in studies.items()}, score)


def networks_verdict(studies: Mapping[str, Study], measure: str, score: str) -> list[str]:
    """Which method is first most often on every network, and what holds on each."""
    own = {network: study.own_score(score) for network, study in studies.items()}
    firsts = {
        network: study.winner(measure, own[network]).method if len(study.runs()) > 1 else None
        for network, study in studies.items()
    }
    by = named_by(studies, score)
    both = "both networks" if len(studies) == 2 else f"all {len(studies)} networks"
    if len(found := set(firsts.values())) == 1 and None not in found:
        name = "Random orders are" if RANDOM in found else f"{display_name(str(next(iter(found))))} is"
        said = f"{name} first most often on {both} by {by}."
    else:
        said = f"No method is first most often on every network by {by}."
    return [said, *(f"{network}: {study.answer(measure, own[network])}" for network, study in studies.items())]


def beside_page(runs: Sequence[Run], path: Path, measure: str | None = None, score: str | None = None) -> Path:
    """Write runs beside each other as one page: their rankings, and the answer and figure of a chosen one.

    Args:
        runs, measure, score: as in `beside`.
        path: of the page.
    """
    shown = beside(runs, measure, score)
    both = [shown.score]
    if all(run.score_name is None for run in runs):
        both.append("probability" if shown.score == "logit" else "logit")
    found = {one: beside(runs, shown.measure, one) for one in both}
    parts = []
    for one, table in found.items():
        values = table.table.copy()
        if table.relative:  # 0 by definition
            values.loc[values["method"] == RANDOM, ["low", "high"]] = math.nan
        parts.append(values_part(one, values, table.methods(), [table.sentence()], table.line(), table.named))
    named = dict(zip(shown.titles, runs, strict=True))
    pages = {title: _link(run.folder / "report.html", path) for title, run in named.items()}
    return write_several(Several(f"{len(runs)} runs", "run", named, parts, pages), path)


def _link(page: Path, path: Path) -> str:
    """From a page to another, where there is one."""
    if not page.is_file():
        return ""
    return quote(Path(os.path.relpath(page.absolute(), path.absolute().parent)).as_posix())
