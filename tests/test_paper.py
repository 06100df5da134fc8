"""A run for a paper: the LaTeX compiles, every parameter is in it, and every source has its entry."""

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from faithmap.cli import app
from faithmap.errors import StoreError
from faithmap.report.citing import WITHOUT_ENTRY, bibliography, cited, entries, keys_of, sources
from faithmap.report.paper import tex
from faithmap.run import Run
from tests.paper_runs import small_run
from tests.report_runs import EVIL

ALL_SOURCES = sorted({source for some in sources().values() for source in some.values()})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("paper") / "run")


def braces_match(text):
    depth = 0
    for sign in re.sub(r"\\.", "", text):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    return depth == 0


def cited_in(text):
    return {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}


@pytest.mark.parametrize("source", ALL_SOURCES)
def test_every_built_in_source_has_an_entry_or_is_known_to_have_none(source):
    keys = keys_of(source)
    assert (source in WITHOUT_ENTRY) == (not keys)
    assert set(keys) <= entries().keys()
    # A year that was not read is a paper that is not cited. What stands alone here is no year of a paper.
    years = re.findall(r"\b(?:19|20)\d\d\b", source.replace("arXiv 2304.13836", ""))
    assert source in WITHOUT_ENTRY or len(years) <= len(keys)


def test_entries_are_whole_and_none_is_left_over():
    for key, entry in entries().items():
        assert entry.isascii(), key
        assert braces_match(entry), key
        assert entry.endswith("}"), key
        assert re.match(rf"@[a-z]+\{{{key},", entry)
        assert {"author", "title", "year"} <= set(re.findall(r"^  (\w+) = \{", entry, re.M)), key
        assert f"year = {{{key[-4:]}}}" in entry or key == "itu601"
    from faithmap.report import citing

    used = {key for source in ALL_SOURCES for key in keys_of(source)}
    named = {*citing.STATISTICS, *citing._PRESETS.values(), *citing._NAMED.values(), "rieger2020"}
    assert used | named == set(entries())


def test_only_what_is_ours_is_cited_as_ours():
    assert cited("method", "occlusion", {"method": "occlusion", "parameters": {}}) == ("zeiler2014",)
    assert cited("method", "occlusion", {"method": "occlusion", "package": "other"}) == ()
    assert cited("method", "occlusion", {"callable": "x"}) == ()
    assert cited("fill", "blur:sigma=5,radius=5") == ("samek2017", "petsiuk2018")
    assert cited("fill", "function:mine#0a") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a\b", r"a\textbackslash{}b"),
        ("{}%$#_&", r"\{\}\%\$\#\_\&"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        ("−1 é", "$-$1 é"),
        ("\n\u202e😀", "U+000AU+202EU+1F600"),
    ],
)
def test_special_characters_are_escaped(text, expected):
    assert tex(text) == expected


def test_the_table_is_the_ranking(run):
    table = run.paper().table
    assert braces_match(table)
    rows = [line for line in table.splitlines() if re.match(r"\d+ & ", line)]
    ranking = run.ranking()
    assert len(rows) == len(ranking)
    for line, row in zip(rows, ranking.itertuples(), strict=True):
        place, _, mean, span, letters = (part.strip() for part in line.removesuffix(r"\\").split("&"))
        assert (int(place), letters) == (row.rank, row.letters)
        shown = [float(x) for x in re.findall(r"-?[\d.]+", f"{mean} {span}".replace("$-$", "-"))]
        held = [row.mean] if row.method == "random" else [row.mean, row.low, row.high]
        assert shown == pytest.approx(held, abs=0.006)
    assert r"net\_1 \& co" in table


def test_the_paragraph_holds_every_parameter(run):
    paper = run.paper()
    text = paper.methods
    assert braces_match(text)
    for name, value in run.protocol.to_dict().items():
        assert f"{tex(name)}=" in text, name
        assert name in ("segments", "orders", "paired_fill", "method_defaults") or f"{tex(name)}={tex(value)}" in text
    for spec in run.manifest.methods.values():
        for name, value in spec.get("parameters", {}).items():
            assert f"{tex(name)}={tex(value)}" in text
    for name, version in run.manifest.versions.items():
        assert f"{name} {version}" in text
    assert run.manifest.classifier.fingerprint in text
    assert run.manifest.fingerprint in text
    assert "6 images" in text


def test_all_that_is_cited_has_its_entry_and_nothing_else(run):
    paper = run.paper()
    there = set(re.findall(r"^@\w+\{([^,]+),", paper.bibtex, re.M))
    assert cited_in(paper.table + paper.methods) == there
    assert {"simonyan2014", "blucher2024", "samek2017", "hurley2009", "judd2009"} <= there
    assert paper.without_entry == ()


def test_another_measure_is_cited(run):
    paper = run.paper("deletion", "probability")
    assert "petsiuk2018" in paper.bibtex
    assert "deletion AUC (probability)" in paper.table
    assert "lower is better" in paper.table
    assert "gini" in run.paper("gini").table


def test_methods_of_ones_own_are_named(tmp_path):
    def mine(inputs, targets):
        return inputs

    run = small_run(tmp_path / "run", methods={"it's mine_#1": mine})
    assert run.paper().without_entry == ("it's mine_#1",)
    assert r"it\textquotesingle{}s mine\_\#1" in run.paper().methods
    found = CliRunner().invoke(app, ["cite", str(tmp_path / "run")])
    assert found.exit_code == 0
    assert "no BibTeX entry for it's mine_#1" in found.output


def test_a_run_without_values_is_refused(run, monkeypatch):
    found = run.measured()
    nothing = dataclasses.replace(found, values=np.full_like(found.values, np.nan))
    monkeypatch.setattr(Run, "measured", lambda *_: nothing)
    with pytest.raises(StoreError, match="holds no value of SRG"):
        run.paper()


def test_files_are_written(run, tmp_path):
    found = CliRunner().invoke(app, ["cite", str(run.folder), "--out", str(tmp_path / "paper")], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    assert {one.name for one in (tmp_path / "paper").iterdir()} == {
        "table.tex",
        "methods.tex",
        "references.bib",
        "example.tex",
    }
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(app, ["cite", str(run.folder), "--out", str(tmp_path / "file")])
    assert refused.exit_code == 1
    assert "is no folder" in " ".join(refused.output.split())


@pytest.mark.skipif(not (shutil.which("pdflatex") and shutil.which("bibtex")), reason="no TeX here")
def test_the_latex_compiles(run, tmp_path):
    folder = run.paper().write(tmp_path)
    # Every entry, so that none of them is broken.
    (folder / "references.bib").write_text(bibliography(entries()))
    (folder / "example.tex").write_text(run.paper().document.replace(r"\input{table}", r"\input{table}\nocite{*}"))
    outside = "".join(map(chr, range(32, 127))) + "éαβγεℓ∞⁺…×≤–−\u202f\u00a0" + "".join(EVIL)
    (folder / "table.tex").write_text(run.paper().table + tex(outside), encoding="utf-8")
    tex_run = "pdflatex -interaction=nonstopmode -halt-on-error example"
    for command in (tex_run, "bibtex example", tex_run, tex_run):
        done = subprocess.run(command.split(), cwd=folder, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout[-2000:].decode("utf-8", "replace")
    log = (folder / "example.log").read_text(errors="replace")
    assert "undefined" not in log
    assert (folder / "example.pdf").stat().st_size > 10_000
