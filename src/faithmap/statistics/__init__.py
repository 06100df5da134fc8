"""From the tidy frame of a run to answers: means with intervals, paired comparisons, rankings, sentences."""

from faithmap.statistics.comparing import compare, ranking
from faithmap.statistics.curves import abpc, aopc, mean_over_fraction, relative_to_random, srg
from faithmap.statistics.grade import Grade, grade
from faithmap.statistics.headline import headline, verdict
from faithmap.statistics.measured import (
    SCORE_MEASURES,
    Measured,
    measured,
    measured_from,
    measured_of,
    r_oms,
    shown_measure,
)
from faithmap.statistics.reliability import SplitHalf, Value, between_draws, per_image_agreement, split_half
from faithmap.statistics.sequential import Decision, boundary, decided
from faithmap.statistics.settings import (
    Settings,
    agreement_of_settings,
    attainable_fraction,
    attainable_sentence,
    distinct_rankings,
    kendalls_w,
    mean_tau,
    rank_table,
)
from faithmap.statistics.subsets import subsets
from faithmap.statistics.tables import (
    abpc_table,
    agreement,
    aopc_table,
    chosen_images,
    curve_table,
    gap_table,
    measure_table,
    per_image_aopc,
    per_image_curves,
    r_oms_table,
)

__all__ = [
    "SCORE_MEASURES",
    "Decision",
    "Grade",
    "Measured",
    "Settings",
    "SplitHalf",
    "Value",
    "abpc",
    "abpc_table",
    "agreement",
    "agreement_of_settings",
    "aopc",
    "aopc_table",
    "attainable_fraction",
    "attainable_sentence",
    "between_draws",
    "boundary",
    "chosen_images",
    "compare",
    "curve_table",
    "decided",
    "distinct_rankings",
    "gap_table",
    "grade",
    "headline",
    "kendalls_w",
    "mean_over_fraction",
    "mean_tau",
    "measure_table",
    "measured",
    "measured_from",
    "measured_of",
    "per_image_agreement",
    "per_image_aopc",
    "per_image_curves",
    "r_oms",
    "r_oms_table",
    "rank_table",
    "ranking",
    "relative_to_random",
    "shown_measure",
    "split_half",
    "srg",
    "subsets",
    "verdict",
]
