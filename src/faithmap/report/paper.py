"""A run for a paper: a LaTeX table, a paragraph on how it was made, and BibTeX of what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from faithmap._version import __version__
from faithmap.errors import StoreError
from faithmap.files import as_folder
from faithmap.protocol import RANDOM, Direction, Placement
from faithmap.report.citing import STATISTICS, bibliography, cited, cited_by
from faithmap.report.page import write_text
from faithmap.statistics import SCORE_MEASURES, Measured
from faithmap.store.reading import StoredRun
from faithmap.text import counted, decimals, display_name, number, of_set, tex, words

_INTERVALS = {
    "student": "Student's t",
    "studentised": "studentised bootstrap, widened half-way to Student's t where that reaches further",
    "bca": "bias-corrected and accelerated bootstrap",
    "percentile": "percentile bootstrap",
}


@dataclass(frozen=True)
class Paper:
    """What a paper needs of a run; see `Run.paper`.

    Attributes:
        table: the ranking as a LaTeX table; needs the package booktabs.
        methods: a paragraph of LaTeX with every parameter.
        bibtex: entries of all that table and paragraph cite.
        without_entry: methods, fills and measures for which no entry is known: cite them yourself.
    """

    table: str
    methods: str
    bibtex: str
    without_entry: tuple[str, ...] = ()

    @property
    def document(self) -> str:
        """A document that inputs the three files of `write`."""
        return "\n".join(
            [
                r"\documentclass{article}",
                r"\usepackage[utf8]{inputenc}",
                r"\usepackage[T1]{fontenc}",
                r"\usepackage{textcomp,booktabs}",
                r"\begin{document}",
                r"\sloppy",
                r"\input{methods}",
                r"\input{table}",
                r"\bibliographystyle{plain}",
                r"\bibliography{references}",
                r"\end{document}",
                "",
            ]
        )

    def write(self, folder: str | Path) -> Path:
        """Write ``table.tex``, ``methods.tex``, ``references.bib``, and ``example.tex``, which shows them together.

        Raises:
            StoreError: a folder that cannot be written.
        """
        place = as_folder(folder, "the folder")
        parts = {"table.tex": self.table, "methods.tex": self.methods, "references.bib": self.bibtex}
        for name, text in {**parts, "example.tex": self.document}.items():
            write_text(place / name, text)
        return place


def paper_of(
    run: StoredRun, ranking: pd.DataFrame, measured: Measured, measure: str, score: str, confidence: float = 0.95
) -> Paper:
    """See `Run.paper`.

    Args:
        run: a run folder.
        ranking: from `Run.ranking`.
        measured: what it was made from.
        measure: its name.
        score: ``"logit"`` or ``"probability"``.
        confidence: of intervals and tests.
    Raises:
        StoreError: nothing was measured yet.
    """
    if ranking.empty or not ranking["mean"].notna().any():
        raise StoreError(f"{run.store.url} holds no value of {measured.label}: finish the run first.")
    manifest = run.manifest
    facts = manifest.measures.get(measure, {})
    keys = {
        **{("method", name): cited("method", name, spec) for name, spec in manifest.methods.items()},
        **{("measure", name): cited("measure", name, one.get("spec")) for name, one in manifest.measures.items()},
        ("fill", run.protocol.fill): cited("fill", run.protocol.fill),
    }
    of_measure = keys.setdefault(("measure", measure), cited("measure", measure, facts.get("spec")))
    used = {key for some in keys.values() for key in some} | {*STATISTICS, *cited_by(run.protocol)}
    paragraph = [
        _compared(run, {name: some for (kind, name), some in keys.items() if kind == "method"}),
        _inputs(run, measured),
        _perturbed(run, score),
        _measure(measured, _line(measure, facts), of_measure, run.score_name or score),
        _statistics(ranking, confidence),
        *_others(run, keys, measure),
        *_left(run),
        _computed(run),
        _in_full(run),
    ]
    return Paper(
        table=_table(run, ranking, measured, keys, confidence),
        methods="\n".join(paragraph) + "\n",
        bibtex=bibliography(used),
        without_entry=tuple(name for (_, name), some in keys.items() if not some),
    )


def cite(keys: Iterable[str]) -> str:
    r"""``~\cite{a,b}``, or nothing."""
    some = ",".join(keys)
    return f"~\\cite{{{some}}}" if some else ""


def _table(
    run: StoredRun,
    ranking: pd.DataFrame,
    measured: Measured,
    keys: Mapping[tuple[str, str], tuple[str, ...]],
    confidence: float,
) -> str:
    digits = decimals([*ranking["mean"], *ranking["low"], *ranking["high"]])
    relative = ", minus that of random orders on the same image" if measured.has_random else ""
    unit = f" ({tex(measured.unit)})" if measured.unit else ""
    images = counted(int(ranking["groups"].max()), int(ranking["n"].max()), ranking.attrs.get("group", "group"))
    good = "higher" if measured.higher_is_better else "lower"
    rows: list[Any] = list(ranking.itertuples())
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(measured.label)}{unit} of {tex(run.manifest.classifier.name)} on {tex(images)}{relative}"
            rf": mean and {100 * confidence:g}\,\% interval; {good} is better. Methods that share a letter are not "
            r"distinguishable.}",
            r"\begin{tabular}{@{}rlrrl@{}}",
            r"\toprule",
            rf"& Method & {tex(measured.label)} & {100 * confidence:g}\,\% interval & \\",
            r"\midrule",
            *(
                f"{row.rank} & {tex(display_name(row.method))}{cite(keys.get(('method', row.method), ()))} & "
                f"{tex(number(row.mean, digits))} & "
                f"{'' if row.method == RANDOM else _span(row.low, row.high, digits)} & {tex(row.letters)} \\\\"
                for row in rows
            ),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _span(low: float, high: float, digits: int) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{tex(number(low, digits))}, {tex(number(high, digits))}]"


def _line(measure: str, facts: Mapping[str, Any]) -> str:
    line = str(facts["line"]) if facts else SCORE_MEASURES[measure].line
    return line.rstrip(".")


def _with_parameters(name: str, spec: Mapping[str, Any]) -> str:
    parameters = spec.get("parameters")
    said = ", ".join(f"{key}={words(value)}" for key, value in parameters.items()) if parameters else ""
    return tex(f"{display_name(name.partition(':')[0])} ({said})" if said else display_name(name))


def _compared(run: StoredRun, keys: Mapping[str, tuple[str, ...]]) -> str:
    specs = {name: spec for name, spec in run.manifest.methods.items() if name != RANDOM}
    named = [_with_parameters(name, spec) + cite(keys.get(name, ())) for name, spec in specs.items()]
    against = f", and random orders{cite(keys[RANDOM])} as reference" if RANDOM in keys else ""
    version = run.manifest.versions.get("faithmap", __version__)
    return f"With faithmap {tex(version)} we compared heatmaps by {'; '.join(named)}{against}."


def _inputs(run: StoredRun, measured: Measured) -> str:
    manifest = run.manifest
    classifier, name = manifest.classifier, manifest.image_set
    images = counted(len(set(measured.groups)), len(measured.images), measured.noun)
    prepared = "; ".join(f"{key}: {words(value)}" for key, value in classifier.preprocessing.items())
    return (
        f"The network is {tex(classifier.name)} (fingerprint \\texttt{{{tex(classifier.fingerprint)}}}; images "
        f"prepared with {tex(prepared)}). It was run on {tex(images)}{tex(of_set(name, manifest.group_noun))}"
        f"{_staged(run)}."
    )


def _staged(run: StoredRun) -> str:
    stages = run.manifest.stages
    if stages is None:
        return ""
    looks = ", ".join(map(str, stages.looks))
    return (
        f", added in stages (looked at after {looks} groups, at most {stages.at_most}) until the question was decided"
    )


def _perturbed(run: StoredRun, score: str) -> str:
    protocol = run.protocol
    size = protocol.region_size
    region = {
        Placement.PIXEL: f"{size} single pixels",
        Placement.SEGMENT: f"one segment ({protocol.segments})",
        Placement.CENTRE: f"a window of {size}×{size} pixels centred on the most relevant pixel that is left",
    }.get(protocol.placement, f"one cell of a grid of {size}×{size} pixels")
    restore = protocol.direction is Direction.RESTORE
    verb = "brings back" if restore else "replaces"
    orders = " and ".join({"morf": "most relevant first", "lerf": "least relevant first"}[o] for o in protocol.orders)
    steps = run.protocol.to_dict()["steps"]
    some = protocol.points <= protocol.steps
    scored = f"{protocol.points} of them, dense at both ends, are scored" if some else "every step is scored"
    shared = "shared by all methods" if protocol.paired_fill else "drawn anew for every method"
    drawn = protocol.draws_of(RANDOM)
    return (
        f"Following the protocol {tex(protocol.name)}{cite(cited_by(protocol))}, each of {steps} steps {verb} "
        f"{tex(region)}, {orders}; {scored}. The fill is {tex(protocol.fill)}{cite(cited('fill', protocol.fill))}, "
        f"{shared}, with {protocol.draws} draw{'s' * (protocol.draws != 1)} per image ({drawn} for random orders) and "
        f"seed {protocol.seed}. The score is {_scored(run, score)}."
    )


def _scored(run: StoredRun, score: str) -> str:
    name = run.score_name
    if name is None:
        return f"the {score} of the {run.protocol.target} class"
    function = name.removeprefix("score").strip()
    if not function:
        return f"the output of the network itself, at the {run.protocol.target} target"
    return f"the value of the function \\texttt{{{tex(function)}}} of the network's output"


def _measure(measured: Measured, line: str, keys: tuple[str, ...], score: str) -> str:
    of = f" of the {tex(score)}" if measured.unit == score else ""
    relative = " and taken minus the same for random orders on that image" if measured.has_random else ""
    good = "high" if measured.higher_is_better else "low"
    return (
        f"Methods are ranked by {tex(measured.label)}{of}{cite(keys)} ({tex(line)}; {good} is good), averaged over the "
        f"draws of an image{relative}."
    )


def _statistics(ranking: pd.DataFrame, confidence: float) -> str:
    kinds = [
        _INTERVALS.get(kind, kind) for kind in dict.fromkeys(ranking["interval"].astype(str)) if kind in _INTERVALS
    ]
    how = f" ({'; '.join(kinds)})" if kinds else ""
    level = f"{1 - confidence:.2g}"
    return (
        f"Means are over independent groups of images, with {100 * confidence:g}\\,\\% intervals{how}"
        "~\\cite{efron1993}. Two methods differ when a two-sided Wilcoxon signed-rank test~\\cite{wilcoxon1945} and a "
        f"bootstrap test of the mean difference, both Holm-corrected~\\cite{{holm1979}}, are below {level} and point "
        "the same way, and the interval of the difference excludes zero; two heatmap methods only if some method "
        "differs from random orders~\\cite{westfall2001}. The others share a letter~\\cite{piepho2004}."
    )


def _others(run: StoredRun, keys: Mapping[tuple[str, str], tuple[str, ...]], measure: str) -> list[str]:
    others = [
        _with_parameters(name, one.get("spec", {})) + cite(keys[("measure", name)])
        for name, one in run.manifest.measures.items()
        if name != measure
    ]
    return [f"Also measured: {'; '.join(others)}."] if others else []


def _left(run: StoredRun) -> list[str]:
    images = {one.image for one in run.skipped if one.method is None}
    pairs = [one for one in run.skipped if one.method is not None]
    said = [f"{len(images)} images"] * bool(images) + [f"{len(pairs)} heatmaps"] * bool(pairs)
    return [f"Left out, because they could not be measured: {' and '.join(said)}."] if said else []


def _computed(run: StoredRun) -> str:
    manifest = run.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items() if name != "faithmap")
    on = f" on {manifest.device}" if manifest.device else ""
    return f"Scores are computed in {tex(manifest.precision)}{tex(on)} ({tex(versions)})."


def _in_full(run: StoredRun) -> str:
    parts = "; ".join(f"{name}={words(value)}" for name, value in run.protocol.to_dict().items())
    return f"All parameters of the protocol (fingerprint \\texttt{{{run.manifest.fingerprint}}}): {tex(parts)}."
