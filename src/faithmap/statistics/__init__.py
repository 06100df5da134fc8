"""From the tidy frame of a run to answers: means with intervals, paired comparisons, a ranking with groups."""

from faithmap.statistics.curves import abpc, aopc, relative_to_random
from faithmap.statistics.headline import headline
from faithmap.statistics.subsets import subsets
from faithmap.statistics.tables import (
    abpc_table,
    agreement,
    aopc_table,
    chosen_images,
    compare,
    curve_table,
    per_image_aopc,
    per_image_curves,
    ranking,
)

__all__ = [
    "abpc",
    "abpc_table",
    "agreement",
    "aopc",
    "aopc_table",
    "chosen_images",
    "compare",
    "curve_table",
    "headline",
    "per_image_aopc",
    "per_image_curves",
    "ranking",
    "relative_to_random",
    "subsets",
]
