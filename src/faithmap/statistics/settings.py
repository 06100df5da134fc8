"""The same question under several settings: ranks, how far settings agree, and which disagree with the rest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM
from faithmap.statistics.measured import ATTAINABLE, Measured, family_of, plain_table
from faithmap.statistics.resampling import aligned, by_group, correlation_interval, counts_of, weighted_means
from faithmap.text import display_name, number

RESAMPLES = 999
_CLEARLY_BELOW = 0.1  # Kendall's τ by which a setting agrees less with the rest than the rest agrees


@dataclass(frozen=True)
class Settings:
    """How far the rankings of several settings agree.

    Attributes:
        ranks: methods × settings, 1 is best, ties share their mean rank, NaN where a method has no value there;
            best mean rank on top.
        methods: those that all settings have; what follows rests on them.
        left_out: methods that some setting lacks.
        w, w_low, w_high: Kendall's coefficient of concordance, with its interval.
        tau, tau_low, tau_high: mean of Kendall's τ over the pairs of settings, with its interval; pairs in which one
            setting ties all methods have none and are left out.
        pairs: settings × settings, Kendall's τ.
        with_rest: per setting: tau (mean with all others), rest (mean among the others), below (rest − tau),
            below_low (its lower end), disagrees.
        groups: that the intervals rest on.
        confidence: of the intervals.
    """

    ranks: pd.DataFrame
    methods: list[str]
    left_out: list[str]
    w: float
    w_low: float
    w_high: float
    tau: float
    tau_low: float
    tau_high: float
    pairs: pd.DataFrame
    with_rest: pd.DataFrame
    groups: int
    confidence: float

    @property
    def smallest(self) -> tuple[str, str, float]:
        """The pair of settings that agrees least, and its τ."""
        values = self.pairs.to_numpy(copy=True)
        values[np.tril_indices(len(values))] = np.inf
        first, second = divmod(int(np.nanargmin(values)), len(values))
        names = self.pairs.index.tolist()
        return names[first], names[second], float(values[first, second])

    @property
    def disagreeing(self) -> list[str]:
        """Settings that agree clearly less with the rest than the rest agrees among itself."""
        return [str(name) for name in self.with_rest.index[self.with_rest["disagrees"]]]

    def places(self) -> pd.DataFrame:
        """Per method: in how many settings it is first and last, its best, mean and worst rank, and of how many."""
        best, worst = self.ranks.min(), self.ranks.max()
        return pd.DataFrame(
            {
                "first": self.ranks.eq(best).sum(axis=1),
                "last": self.ranks.eq(worst).sum(axis=1),
                "settings": self.ranks.notna().sum(axis=1),
                "best": self.ranks.min(axis=1),
                "mean": self.ranks.mean(axis=1),
                "worst": self.ranks.max(axis=1),
            }
        )

    def sentences(self) -> list[str]:
        """In words: who is first and how often, how far settings agree, and which do not."""
        places, count = self.places(), self.ranks.shape[1]
        said = []
        firsts = places[(places["first"] > 0)].sort_values("first", ascending=False, kind="stable")
        if len(firsts):
            listed = [f"{display_name(str(name))} in {times}" for name, times in firsts["first"].items()]
            said.append(f"First in {count} settings: {', '.join(listed)}.")
        if RANDOM in places.index:
            last = int(places["last"].to_numpy()[places.index.get_loc(RANDOM)])
            said.append(f"Random orders are last in {last} of {count} settings.")
        if np.isfinite(self.tau):
            first, second, least = self.smallest
            low, high = number(self.tau_low, 2), number(self.tau_high, 2)
            alike = f" {first} and {second} are the least alike, {number(least, 2)};" if least < 1 else ""
            said.append(
                f"Rankings of {len(self.methods)} methods agree with a mean Kendall τ of {number(self.tau, 2)} "
                f"({100 * self.confidence:g} % interval {low} to {high});{alike} Kendall's W is {self.w:.2f}."
            )
        if self.disagreeing:
            said.append(f"Agreeing clearly less with the rest: {', '.join(self.disagreeing)}.")
        if self.left_out:
            names = ", ".join(display_name(name) for name in self.left_out)
            said.append(f"Not in every setting, and left out of the agreement: {names}.")
        return said


@checked(CurveError)
def rank_table(by_setting: Mapping[str, Measured]) -> pd.DataFrame:
    """The rank of every method in every setting.

    Args:
        by_setting: setting → a measure of its run, from `measured` or `measured_from`.
    Returns:
        Methods × settings; 1 is best, ties share their mean rank, NaN where a method has no value in a setting. Best
        mean rank on top. References of what is attainable and known answers are left out.
    """
    columns = {
        name: (one.candidates().sign * by_group(one.candidates()).mean()).rank(ascending=False)
        for name, one in by_setting.items()
    }
    table = pd.DataFrame(columns).rename_axis("method")
    order = table.mean(axis=1).sort_values(kind="stable").index
    return table.loc[order]


@checked(CurveError)
def agreement_of_settings(
    by_setting: Mapping[str, Measured], confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Settings:
    """How far the rankings of several settings agree.

    Args:
        by_setting: setting → a measure of its run.
        confidence, seed, resamples: of the intervals, which resample the groups, the same in every setting.
    Raises:
        CurveError: fewer than two settings.
    Source:
        Kendall and Babington Smith 1939 for W; Kendall 1945 for τ with ties.
    """
    if len(by_setting) < 2:
        raise CurveError(f"agreement is between settings, received {len(by_setting)}: give at least two.")
    tables = {name: one.candidates().sign * by_group(one.candidates()) for name, one in by_setting.items()}
    groups, methods, values = aligned(tables)
    everywhere = np.isfinite(values).any(1).all(0)
    common = values[:, :, everywhere]
    means = np.stack([weighted_means(np.ones((1, len(groups))), table)[0] for table in common])
    tau, w = taus(means[None])[0], float(_kendalls_w(means[None])[0])  # NaN where no method is in all settings
    resampled_tau, resampled_w = _resampled(common, seed, resamples)
    off = np.triu_indices(len(tables), 1)
    mean_tau = float(_mean_of_those(tau[off]))
    tau_low, tau_high = correlation_interval(mean_tau, _mean_of_those(resampled_tau[:, off[0], off[1]]), confidence)
    w_low, w_high = correlation_interval(w, resampled_w, confidence)
    names = list(tables)
    return Settings(
        ranks=rank_table(by_setting),
        methods=[name for name, kept in zip(methods, everywhere, strict=True) if kept],
        left_out=[name for name, kept in zip(methods, everywhere, strict=True) if not kept],
        w=w,
        w_low=w_low,
        w_high=w_high,
        tau=mean_tau,
        tau_low=tau_low,
        tau_high=tau_high,
        pairs=pd.DataFrame(tau, index=names, columns=names),
        with_rest=_with_rest(tau, resampled_tau, names, confidence),
        groups=len(groups),
        confidence=confidence,
    )


def kendalls_w(scores: Float[np.ndarray, "settings methods"]) -> float:
    """Kendall's coefficient of concordance of several rankings, corrected for ties.

    Args:
        scores: finite, an array, nested lists or a DataFrame; only their order within a row counts. Ranks do as well.
    Returns:
        0…1: 1 where all rankings are the same; NaN for fewer than two methods, or where no row tells any apart.
    Raises:
        CurveError: no table, fewer than two settings, or a method that a setting lacks.
    Source:
        Kendall and Babington Smith 1939; ties as in Kendall 1962, Rank Correlation Methods, section 6.
    Example:
        >>> kendalls_w(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        1.0
    """
    return float(_kendalls_w(_complete(scores)[None])[0])


def distinct_rankings(scores: Float[np.ndarray, "settings methods"]) -> int:
    """How many different rankings several settings give; two that differ in a tie are different.

    Args:
        scores: as in `kendalls_w`.
    Raises:
        CurveError: as `kendalls_w`.
    Example:
        >>> distinct_rankings([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [3.0, 2.0, 1.0]])
        2
    """
    return len({tuple(row) for row in stats.rankdata(_complete(scores), axis=1).tolist()})


def _settings_table(scores: Any) -> Float[np.ndarray, "settings methods"]:
    table = plain_table(scores, "scores", ("settings", "methods"))
    if len(table) < 2:
        raise CurveError(f"agreement is between settings, received {len(table)}: give at least two rows.")
    return table


def _complete(scores: Any) -> Float[np.ndarray, "settings methods"]:
    table = _settings_table(scores)
    if lacking := np.flatnonzero(np.isnan(table).any(0)).tolist():
        raise CurveError(
            f"scores of the columns {', '.join(map(str, lacking))} (from 0) are missing in some settings: leave these "
            "methods out, or take mean_tau, which compares what both settings have."
        )
    return table


def _kendalls_w(scores: Float[np.ndarray, "rows settings methods"]) -> Float[np.ndarray, "rows"]:
    _, m, n = scores.shape
    ranks = stats.rankdata(scores, axis=-1)
    total = ranks.sum(1)
    squares = ((total - m * (n + 1) / 2) ** 2).sum(-1)  # the mean of all totals, whatever the ties
    # Σ over ties of t³ − t is n³ − n minus 12 times the sum of squares of the ranks around their mean.
    ties = (n**3 - n) - 12 * ((ranks - (n + 1) / 2) ** 2).sum(-1)
    largest = m**2 * (n**3 - n) - m * ties.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        w: np.ndarray = np.where(largest > 0, 12 * squares / largest, np.nan)
    return w


def mean_tau(scores: Float[np.ndarray, "settings methods"]) -> float:
    """Mean of Kendall's τ-b over all pairs of settings.

    Args:
        scores: only their order within a row counts; NaN where a method is missing: each pair of settings then rests
            on the methods that both have.
    Returns:
        NaN where no pair of settings tells two common methods apart. Pairs in which one setting ties all methods have
        no τ and are left out.
    Raises:
        CurveError: no table, or fewer than two settings.
    Example:
        >>> mean_tau(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [6.0, 5.0, 4.0]])).round(3)
        -0.333
    """
    scores = _settings_table(scores)
    found = []
    for first, second in itertools.combinations(scores, 2):
        both = np.isfinite(first) & np.isfinite(second)
        found.append(taus(np.stack([first[both], second[both]])[None])[0, 0, 1])
    finite = np.array(found)[np.isfinite(found)]
    return float(finite.mean()) if finite.size else np.nan


def taus(scores: Float[np.ndarray, "rows settings methods"]) -> Float[np.ndarray, "rows settings settings"]:
    """Kendall's τ-b between all pairs of settings; NaN where a setting tells no methods apart."""
    first, second = np.triu_indices(scores.shape[-1], 1)
    sign = np.sign(scores[..., first] - scores[..., second])
    agreeing = np.einsum("rsp,rtp->rst", sign, sign)
    size = np.sqrt(np.einsum("rss->rs", agreeing))
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: np.ndarray = np.clip(agreeing / (size[:, :, None] * size[:, None, :]), -1, 1)
    return tau


@checked(CurveError, one=Measured)
def attainable_fraction(
    one: Measured, reference: str | None = None, confidence: float = 0.95, seed: int = 0, resamples: int = 4999
) -> pd.DataFrame:
    """How much of what is attainable each method reaches: (method − random) / (attainable − random).

    Args:
        one: with random and a method of the family `shapley`; see `measured`.
        reference: the method that shows what is attainable; by default the last `shapley…` by name.
        confidence, seed, resamples: of the percentile interval over groups.
    Returns:
        Columns method, fraction, low, high, groups; best on top. NaN where attainable is not above random: the noise of
        the reference would decide. Only images that count for all three.
    Raises:
        CurveError: no reference.
    """
    known = [name for name in one.methods if family_of(name) == ATTAINABLE]
    if reference is None and not known:
        raise CurveError(f"{one.label} holds no '{ATTAINABLE}' method: measure one, such as 'shapley:permutations=32'.")
    top = one.sign * (one.column(known[-1] if reference is None else reference) - one.column(RANDOM))
    rows = []
    for name in one.candidates().methods:
        if name == RANDOM:
            continue
        gain = one.sign * (one.column(name) - one.column(RANDOM))
        both = np.where(np.isfinite(gain + top)[:, None], np.stack([gain, top], 1), np.nan)
        per_group = by_group(Measured("", True, one.images, one.groups, ["gain", "top"], both)).dropna().to_numpy()
        rows.append((name, *_ratio(per_group, confidence, seed, resamples), len(per_group)))
    table = pd.DataFrame(rows, columns=["method", "fraction", "low", "high", "groups"])
    return table.sort_values("fraction", ascending=False, kind="stable", ignore_index=True)


@checked(CurveError, one=Measured)
def attainable_sentence(one: Measured, confidence: float = 0.95, seed: int = 0) -> str:
    """How near the best method comes to what is attainable; empty where the run has no reference for that.

    Args:
        one: a measure; see `measured`.
        confidence, seed: of the interval.
    """
    if not any(family_of(name) == ATTAINABLE for name in one.methods) or not one.has_random:
        return ""
    table = attainable_fraction(one, confidence=confidence, seed=seed).dropna(subset=["fraction"])
    if table.empty:
        return "The attainable (Shapley values of the regions) is not above random orders here: take more permutations."
    best = table.iloc[0]
    interval = (
        f", {100 * confidence:g} % interval {number(best['low'], 2)} to {number(best['high'], 2)}"
        if np.isfinite(best["low"])
        else ""
    )
    return (
        f"{display_name(best['method'])} reaches {number(best['fraction'], 2)} of the attainable, the order of the "
        f"regions' Shapley values (random orders: 0){interval}."
    )


def _ratio(values: np.ndarray, confidence: float, seed: int, resamples: int) -> tuple[float, float, float]:
    if not len(values) or values[:, 1].mean() <= 0:
        return np.nan, np.nan, np.nan
    fraction = float(values[:, 0].mean() / values[:, 1].mean())
    if len(values) < 2:
        return fraction, np.nan, np.nan
    drawn = np.concatenate([weighted_means(counts, values) for counts in counts_of(len(values), resamples, seed)])
    if (drawn[:, 1] <= 0).mean() > (1 - confidence) / 2:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return fraction, float(low), float(high)


def _resampled(values: np.ndarray, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """τ between settings and Kendall's W in every resample of the groups."""
    tau, w = [], []
    for counts in counts_of(values.shape[1], resamples, seed, block=100):
        means = np.stack([weighted_means(counts, table) for table in values], 1)
        means = means[np.isfinite(means).all((1, 2))]  # a method with few images may be in none of those drawn
        tau.append(taus(means))
        w.append(_kendalls_w(means))
    return np.concatenate(tau), np.concatenate(w)


def _mean_of_those(taus: np.ndarray) -> np.ndarray:
    """The mean over the last axis of those that there are: a setting that ties all methods has no τ with any."""
    finite = np.isfinite(taus)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(finite, taus, 0.0).sum(-1) / finite.sum(-1)
    return mean


def _with_rest(tau: np.ndarray, resampled: np.ndarray, names: list[str], confidence: float) -> pd.DataFrame:
    def split(of: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
        others = [i for i in range(len(names)) if i != at]
        first, second = np.triu_indices(len(others), 1)
        rest = (
            _mean_of_those(of[:, np.array(others)[first], np.array(others)[second]])
            if len(others) > 1
            else of[:, 0, 0] * np.nan
        )
        return _mean_of_those(of[:, at, others]), rest

    rows = []
    for at, name in enumerate(names):
        own, rest = split(tau[None], at)
        own_again, rest_again = split(resampled, at)
        below = float((rest - own)[0])
        spread = float(np.nanstd(rest_again - own_again, ddof=1)) if np.isfinite(below) else np.nan
        low = below - float(stats.norm.ppf((1 + confidence) / 2)) * spread
        rows.append((name, float(own[0]), float(rest[0]), below, low, bool(below > _CLEARLY_BELOW and low > 0)))
    columns = ["setting", "tau", "rest", "below", "below_low", "disagrees"]
    return pd.DataFrame(rows, columns=columns).set_index("setting")
