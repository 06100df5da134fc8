"""Every combination has its sentence, and no sentence contradicts the table that stands beside it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faithmap import statistics
from faithmap.statistics.comparing import comparison
from faithmap.text import display_name
from tests.frames import frame_from, frame_of, grouped_frame

pytestmark = pytest.mark.filterwarnings("error")
NUMBER = r"−?\d+(?:\.\d+)?(?:e[+−]?\d+)?"


def noise(seed: int, n: int = 40, size: float = 0.01) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0, size, n)
    return x - x.mean()


def contradictions(said: str, table: pd.DataFrame, pairs: pd.DataFrame, high: bool = True) -> list[str]:
    """What sentences claim and the table denies; written from the words alone."""
    wrong = []
    rows = table[(table["method"] != "random") & (table["n"] > 0)].set_index("method")
    names = {display_name(method): method for method in rows.index}

    def claim(true: object, what: str) -> None:
        if not bool(true):
            wrong.append(f"{what}: {said}")

    def listed(text: str) -> tuple[list[str], int]:
        others = re.search(r"(\d+) others", text)
        return [m for n, m in names.items() if n in re.split(r", | and ", text)], int(others[1]) if others else 0

    def differs(a: str, b: str) -> bool:
        both = pairs[((pairs["a"] == a) & (pairs["b"] == b)) | ((pairs["a"] == b) & (pairs["b"] == a))]
        return bool(both.iloc[0]["significant"])

    def better(a: str, b: str) -> bool:
        ahead = pairs[(pairs["a"] == (a if high else b)) & (pairs["b"] == (b if high else a))]
        return bool(len(ahead) and ahead.iloc[0]["significant"])

    claim(not re.search(r"\([^)]*\(", said), "brackets in brackets")
    claim(said.endswith(".") and ".." not in said and "nan" not in said, "no sentence")
    if said.startswith(("No heatmap method was measured", "No heatmap method has a value")):
        claim(rows.empty, "there are methods")
        return wrong
    best = rows.index[0]
    first = re.match(r"(.+?) has the (highest|lowest) |No method.*? The best is (.+?): ", said)
    claim(first and names.get(first[1] or first[3]) == best, "the best is another")
    claim(not first[2] or (first[2] == "highest") == high, "the wrong end")
    row = rows.loc[best]
    interval = re.search(rf"95 % interval ({NUMBER}) to ({NUMBER})", said)
    claim(bool(interval) == bool(np.isfinite(row["low"])), "an interval")
    if interval:
        mean = float(re.search(rf"(?:: |logit |probability )({NUMBER})", said)[1].replace("−", "-"))
        low, top = (float(x.replace("−", "-")) for x in interval.groups())
        tolerance = 0.06 * (row["high"] - row["low"] or abs(row["mean"])) + 1e-9  # no width: two digits of the mean
        claim(abs(low - row["low"]) <= tolerance and abs(top - row["high"]) <= tolerance, "another interval")
        claim(np.sign(low) == np.sign(row["low"]) and np.sign(top) == np.sign(row["high"]), "an end changed its sign")
        claim(low <= mean <= top and abs(mean - row["mean"]) <= tolerance, "the mean is outside")
    claim(("above random" in said) <= (row["mean"] > 0), "above random")
    units = f"from {row['groups']} group" if row["groups"] != row["n"] else f"from {row['n']} image"
    claim(units in said, "another n")
    claim((f"{row['left_out']} image" in said and "left out" in said) == (row["left_out"] > 0), "left out")
    reference = (table["method"] == "random").any() and table.loc[table["method"] == "random", "n"].iloc[0] > 0
    if "No method is significantly better" in said:
        claim(not (rows["vs_random"] == "better").any(), "one is better than random")
    if "No method is better than random" in said:
        claim((row["mean"] if high else -row["mean"]) <= 0, "the best is better than random")
    if not reference:
        claim("random" not in said, "no reference")
    elif "This interval excludes 0" in said:
        claim(row["low"] * row["high"] > 0 and row["vs_random"] == "", "interval and test")
    elif "It is not distinguishable from random" in said or "No method is significantly better" in said:
        claim(not better(best, "random"), "different from random")
        claim(row["low"] <= 0 <= row["high"] or (rows["vs_random"] == "better").any(), "the interval excludes 0")
    elif "It is significantly worse than random orders" in said:
        claim(row["vs_random"] == "worse", "it is not worse")
    elif interval and "random orders can" not in said:
        claim(row["vs_random"] == "better" and (row["low"] > 0 if high else row["high"] < 0), "not better than random")
    needed = re.search(r"With (\d+) [^.]*?comparisons?\b.*?at least (\d+) are needed", said)
    if needed:
        tests = int((pairs["family"] == "random").sum() - pairs.loc[pairs["family"] == "random", "p"].isna().sum())
        claim(int(needed[1]) == row["groups"] < int(needed[2]), "enough groups")
        claim(tests * 4 / 2 ** int(needed[2]) >= 0.05 > tests * 2 / 2 ** int(needed[2]), "another number")
        claim("its comparison" in said or not (table["vs_random"] != "").any(), "something was significant")
    others = list(rows.index[1:])
    ahead = re.search(r"It is significantly better than (?!random)(.+?)(?:\. |\.$)", said)
    if ahead:
        claim(others and all(better(best, name) for name in others), "one is alike")
        claim(ahead[1] == "every other method" or listed(ahead[1]) == (others, 0), "better than whom")
        share = set(rows["letters"].iloc[0])
        claim(not any(share & set(letters) for letters in rows["letters"].iloc[1:]), "they share a letter")
    behind = re.search(r"It is significantly worse than (?!random)(.+?) on the images", said)
    if behind:
        claim(all(better(name, best) for name in listed(behind[1])[0]), "not worse")
    alike = re.search(r"It is not distinguishable from (?!random orders)(.+?)(?:\. |\.$)", said)
    if alike:
        shown, more = listed(alike[1])
        claim(shown and all(not differs(best, name) for name in shown), "one differs")
        claim(len(shown) + more == sum(not differs(best, name) for name in others), "others are missing")
    if "It is the only method" in said:
        claim(not others, "there are others")
    if "pairs of methods can be" in said or "two methods cannot be" in said:
        claim(not pairs.loc[pairs["family"] == "pairs", "significant"].any(), "a pair differs")
    told = set(rows.index[rows["vs_random"] == "worse"])
    shown, more = [], 0
    for found in re.findall(r"\. ([^.]+?(?:\(0\.\d+\)[^.]*?)*) (?:is|are) significantly worse than random", said):
        these, rest = ([best], 0) if found == "It" else listed(found)
        shown, more = shown + these, more + rest
    claim(set(shown) <= told and (not interval or len(shown) + more == len(told)), "worse than random")
    return wrong


def opinions_clash(first: pd.DataFrame, other: pd.DataFrame, pairs: pd.DataFrame, said: str) -> list[str]:
    """What a second opinion claims and the two tables deny."""
    one, two = (table[(table["method"] != "random") & (table["n"] > 0)] for table in (first, other))
    if one.empty or two.empty:
        return []
    wrong = []
    tests = [dict(zip(table["method"], table["vs_random"], strict=True)) for table in (one, two)]
    best, again = one["method"].iloc[0], two["method"].iloc[0]
    if f"{display_name(again)} is first" not in said:
        wrong.append("another is first")
    if ("answer is the same" in said) and (best != again or tests[0] != tests[1]):
        wrong.append("not the same answer")
    if ("The scores differ" in said) != (best != again):
        wrong.append("differ")
    if ("differ in the tests" in said) and tests[0].get(best) == tests[1].get(best):
        wrong.append("the same tests")
    words = {"better": "significantly better than random", "worse": "significantly worse than random"}
    for word, text in words.items():
        if text in said and tests[1][again] != word:
            wrong.append(text)
    few = {}
    for family in ("random", "pairs"):
        of = pairs[pairs["family"] == family]
        few[family] = bool(len(of)) and bool(2 * of["p"].notna().sum() >= 0.05 * 2.0 ** of["groups"].max())
    if few["random"] and "not distinguishable from random" in said:
        wrong.append("too few to say so")
    if few["pairs"] and "not distinguishable from" in said.replace("not distinguishable from random", ""):
        wrong.append("too few to say so of two methods")
    own = pairs[((pairs["a"] == again) | (pairs["b"] == again)) & (pairs["family"] == "pairs")]
    if "every other method" in said and not own["significant"].all():
        wrong.append("not better than all")
    return [f"{what}: {said}" for what in wrong]


def check(frame: pd.DataFrame, **how: object) -> str:
    high = how.get("direction", "remove") == "remove"
    by_score = {}
    for score in (how.pop("score", "logit"), "probability"):
        said = statistics.headline(frame, score, **how)
        table, pairs = statistics.ranking(frame, score, **how), statistics.compare(frame, score, **how)
        assert not contradictions(said, table, pairs, high), contradictions(said, table, pairs, high)
        by_score.setdefault(score, (said, table, pairs))
    verdict = statistics.verdict(frame, next(iter(by_score)), **how)
    assert verdict[0] == next(iter(by_score.values()))[0]
    if len(by_score) > 1:
        (_, first, _), (_, other, pairs) = by_score.values()
        assert not opinions_clash(first, other, pairs, verdict[1])
        assert not re.search(r"\([^)]*\(", verdict[1])
    return by_score[next(iter(by_score))][0]


def test_the_best_alone() -> None:
    frame = frame_from({"lrp-epsilon:0.01": 0.083 + noise(0), "random": np.zeros(40)})
    best = statistics.aopc_table(frame, steps=[1]).iloc[0]
    assert check(frame, score="probability") == (
        f"LRP-ε (0.01) has the highest AOPC by probability: 0.0830 above random, 95 % interval {best['low']:.4f} to "
        f"{best['high']:.4f}, from 40 images. It is the only method."
    )


@pytest.mark.parametrize(
    ("made", "starts", "ends"),
    [
        pytest.param({}, "No heatmap method was measured, only random orders.", "", id="no method"),
        pytest.param(
            {"lrp-epsilon:0.01": 0.083 + noise(1), "lrp-epsilon:0": 0.0831 + noise(2), "edge": 0.02 + noise(3)},
            "LRP-ε (0) has the highest AOPC by logit: 0.0831 above random",
            "It is not distinguishable from LRP-ε (0.01).",
            id="twins",
        ),
        pytest.param(
            {"lrp-epsilon:0": 0.083 + noise(1), "edge": 0.02 + noise(3)},
            "LRP-ε (0) has the highest AOPC",
            "It is significantly better than edge.",
            id="a clear first",
        ),
        pytest.param(
            {"a": 0.0001 + noise(1), "b": noise(2) - 0.001},
            "No method is significantly better than random orders. The best is a: AOPC by logit 0.0001 above random",
            ", from 40 images.",
            id="none better than random",
        ),
        pytest.param(
            {"a": -0.0001 + noise(1), "b": noise(2) - 0.05},
            "No method is better than random orders. The best is a: AOPC by logit −0.0001 relative to random",
            "It is not distinguishable from random orders. b is significantly worse than random orders.",
            id="random first",
        ),
        pytest.param(
            {"a": -0.05 + noise(1), "b": noise(2) - 0.06},
            "No method is better than random orders. The best is a: AOPC by logit −0.05",
            "It is significantly worse than random orders. b is significantly worse than random orders.",
            id="all worse than random",
        ),
        pytest.param(
            {"a": 0.05 + noise(1), "b": noise(2) - 0.06, "c": noise(2) - 0.07},
            "a has the highest AOPC",
            "It is significantly better than every other method. b and c are significantly worse than random orders.",
            id="some worse than random",
        ),
        pytest.param(
            {"wild": 0.05 + 100 * noise(1), "steady": 0.04 + noise(2)},
            "wild has the highest AOPC by logit: ",
            "It is not distinguishable from random orders, while steady is significantly better. It is not "
            "distinguishable from steady.",
            id="the first is not better than random, the second is",
        ),
    ],
)
def test_sentences(made: dict[str, np.ndarray], starts: str, ends: str) -> None:
    said = check(frame_from({**made, "random": np.zeros(40)}))
    assert said.startswith(starts)
    assert said.endswith(ends)


def test_an_interval_that_excludes_zero_beside_a_test_that_does_not() -> None:
    a = 0.75 + noise(5, 12, 1) / noise(5, 12, 1).std()
    made = {"a": a, **{f"b{i}": noise(i, 12) for i in range(4)}}
    said = check(frame_from({**made, "random": np.zeros(12)}))
    assert said.startswith("No method is significantly better than random orders. The best is a: AOPC by logit 0.75")
    assert said.endswith("This interval excludes 0, but the tests, corrected for 5 methods, do not confirm it.")
    few_large = np.r_[-0.01 - np.arange(22) / 1e4, 1.0 + np.arange(12) / 10]
    said = check(frame_from({"a": few_large, "random": np.zeros(len(few_large))}))
    assert said.endswith("This interval excludes 0, but the signed ranks do not confirm it.")


@pytest.mark.parametrize(("groups", "images"), [(5, 6), (8, 6), (8, 1)])
def test_too_few_groups_for_any_significance(groups: int, images: int) -> None:
    effects = {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0, "e": 5.0, "f": 4.0, "g": 3.0, "random": 0.0}
    said = check(grouped_frame(effects, groups, images))
    unit = "groups" if images > 1 else "images"
    assert f"With {groups} {unit} none of 7 comparisons with random orders can be significant" in said
    assert "at least 9 are needed" in said
    nine = check(grouped_frame(effects, 9, images))
    assert f"With 9 {unit} none of 21 pairs of methods can be significantly different; at least 10 are needed" in nine
    for count, standing in ((groups, ""), (9, ", significantly better than random orders")):
        frame = grouped_frame(effects, count, images).assign(probability=lambda one: one["logit"])
        again = statistics.verdict(frame)[1]
        assert again == f"By probability the answer is the same: a is first{standing}."


def test_two_methods_that_nothing_shows_to_be_better_than_random_are_not_tested_either() -> None:
    """Six groups are enough for one pair, and too few for two comparisons with random orders."""
    found = comparison(statistics.measured(grouped_frame({"a": 9.0, "b": 4.0, "random": 0.0}, 6)))
    assert (found.fewest("random"), found.fewest("pairs")) == (7, 7)
    assert found.too_few("pairs")
    assert not found.pairs["significant"].any()
    alone = comparison(statistics.measured(grouped_frame({"a": 9.0, "b": 4.0}, 6)))
    assert alone.fewest("pairs") == 6
    assert alone.pairs["significant"].all()


def test_one_image() -> None:
    said = check(frame_from({"a": [1.0], "random": [0.0]}))
    assert said == (
        "a has the highest AOPC by logit: 1 above random, from 1 image. One image gives no interval and no test."
    )
    said = check(grouped_frame({"a": 2.0, "random": 0.0}, 1, 3))
    assert said.endswith(", from 1 group (3 images). One group gives no interval and no test.")


def test_a_half_finished_run_says_what_is_left_out() -> None:
    frame = frame_from({"a": 1 + noise(1), "b": 0.5 + noise(2), "random": np.zeros(40)})
    frame = frame[~((frame["method"] == "a") & (frame["image"] > "035.png"))]
    assert "95 % interval 0.997" in check(frame)
    assert ", from 36 images, 4 images left out. " in check(frame)
    nothing = frame_from({"a": [np.nan] * 3, "random": [0.0] * 3})
    assert check(nothing) == "No heatmap method has a value of AOPC yet."


def test_better_on_other_images_is_not_better() -> None:
    """The first by mean was measured on the easy images only, and is worse there than the second."""
    easy, hard = np.full(20, 5.0) + noise(1, 20), np.zeros(20) + noise(2, 20)
    made = {"a": np.r_[easy - 1, np.full(20, np.nan)], "b": np.r_[easy, hard], "random": np.zeros(40)}
    said = statistics.headline(frame_from(made))
    assert said.startswith("a has the highest AOPC by logit: 4.0")
    assert "It is significantly worse than b on the images that both have" in said


def test_without_random_orders_the_values_themselves_are_compared() -> None:
    frame = grouped_frame({"a": 5.0, "b": 1.0}, 20)
    said = check(frame)
    assert "random" not in said
    assert said.endswith("It is significantly better than b.")


def two_scores(logit: dict[str, np.ndarray], probability: dict[str, np.ndarray]) -> pd.DataFrame:
    frame = frame_from(logit)
    return frame.assign(probability=frame_from(probability)["logit"])


def test_both_scores_have_their_verdict() -> None:
    zero = np.zeros(40)
    one = {"a": 1 + noise(1), "b": 0.5 + noise(2), "random": zero}
    other = {"a": 0.5 + noise(1), "b": 1 + noise(2), "random": zero}
    weak = {"a": -1 + noise(1), "b": -2 + noise(2), "random": zero}
    assert statistics.verdict(two_scores(one, one))[1:] == [
        "By probability the answer is the same: a is first, significantly better than random orders."
    ]
    assert statistics.verdict(two_scores(one, other))[1:] == [
        "The scores differ: by probability b is first, significantly better than random orders and significantly "
        "better than a."
    ]
    assert statistics.verdict(two_scores(one, weak))[1:] == [
        "The scores agree on the first and differ in the tests: by probability a is first, significantly worse than "
        "random orders."
    ]
    first, second = statistics.verdict(two_scores(one, other), "probability")
    assert first == statistics.headline(two_scores(one, other), "probability")
    assert second.startswith("The scores differ: by logit a is first")
    assert statistics.verdict(two_scores({"random": zero}, {"random": zero}))[1].startswith(
        "By probability: No heatmap"
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_second_opinion_is_that_of_the_other_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [{name: 0.02 * rng.normal() + noise(seed + i, 30) for i, name in enumerate("abcd")} for _ in range(2)]
    frame = two_scores(*({**one, "random": np.zeros(30)} for one in made))
    said = statistics.verdict(frame)[1]
    tables = [statistics.ranking(frame, score) for score in ("logit", "probability")]
    first, other = (table[table["method"] != "random"].iloc[0] for table in tables)
    standing = {
        "better": "significantly better than",
        "worse": "significantly worse than",
        "": "not distinguishable from",
    }
    assert f"{other['method']} is first, {standing[other['vs_random']]} random orders" in said
    same = (first["method"], first["vs_random"]) == (other["method"], other["vs_random"])
    differ = "The scores agree on the first" if first["method"] == other["method"] else "The scores differ: by"
    assert said.startswith("By probability" if same else differ)
    pairs = statistics.compare(frame, "probability")
    of_first = pairs[(pairs["a"] == other["method"]) & (pairs["family"] == "pairs")]
    if "than every other method" in said:
        assert of_first["significant"].all()
    for name in re.findall(r"[a-d](?=,| and|\.)", said.partition("orders and not distinguishable from")[2]):
        assert not of_first.set_index("b").loc[name, "significant"]


@settings(max_examples=40, deadline=None)
@given(
    effects=st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.05, 0.5, 3.0]), min_size=0, max_size=5),
    groups=st.integers(1, 16),
    images=st.integers(1, 3),
    missing=st.sampled_from([0.0, 0.0, 0.2]),
    direction=st.sampled_from(["remove", "restore"]),
    with_random=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_no_sentence_contradicts_its_table(
    effects: list[float], groups: int, images: int, missing: float, direction: str, with_random: bool, seed: int
) -> None:
    made = {f"m{i}": effect for i, effect in enumerate(effects)}
    if with_random or not made:
        made["random"] = 0.0
    frame = grouped_frame(made, groups, images, 0.5, seed)
    keys = frame["image"] + frame["method"]
    gone = np.random.default_rng(seed).random(len(frame)) < missing
    frame = frame[~keys.isin(keys[gone])]
    if len(frame) and frame["step"].max() == 1:
        frame = frame.assign(probability=frame["logit"] + np.random.default_rng(seed + 1).normal(size=len(frame)))
        check(frame, direction=direction)


def test_headlines_of_curves() -> None:
    frame = frame_of(orders=("morf", "lerf"))
    for measure in ("aopc", "srg", "morf", "abpc"):
        check(frame, measure=measure)
        check(frame.assign(group=frame["image"].str[:3]), measure=measure)
