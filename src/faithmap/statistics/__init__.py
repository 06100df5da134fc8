"""From the tidy frame of a run to answers: means with intervals, paired comparisons, a ranking with groups."""

from faithmap.statistics.tables import (
    abpc_table,
    agreement,
    aopc_table,
    chosen_images,
    compare,
    curve_table,
    headline,
    per_image_aopc,
    per_image_curves,
    ranking,
    subsets,
)

__all__ = [
    "abpc_table",
    "agreement",
    "aopc_table",
    "chosen_images",
    "compare",
    "curve_table",
    "headline",
    "per_image_aopc",
    "per_image_curves",
    "ranking",
    "subsets",
]
