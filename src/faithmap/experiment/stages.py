"""Stop when decided: images are added in stages until a question is answered, corrected for looking often."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from faithmap.checks import as_integer
from faithmap.errors import ProtocolError, shown
from faithmap.images import Images
from faithmap.run import Run
from faithmap.statistics.significance import fewest_units
from faithmap.store.manifest import Stages

LOOKS = 5
"""Stages of a run that stops when it is decided, evenly spaced."""


def stages_of(images: Images, at_most: int | None, seed: int, pairs: int) -> list[tuple[int, Images]]:
    """How many groups each stage has, and its images; a stage holds all images of the one before.

    Args:
        at_most: groups of the last stage; None: all that there are.
        seed: with a group's name, what decides when it comes: a random order that does not depend on the others.
        pairs: tests of the largest family; a stage with too few groups for any significance is left out.
    Raises:
        ProtocolError: fewer than one group.
    """
    group_of = {image.id: image.group or image.id for image in images}
    groups = sorted(set(group_of.values()), key=lambda name: hashlib.sha256(repr((seed, name)).encode()).digest())
    if at_most is not None:
        at_most = as_integer(at_most, "at_most", 1, 2**31 - 1, ProtocolError)
    last = min(at_most or len(groups), len(groups))
    least = min(fewest_units(max(pairs, 1), 0.05), last)
    counts = sorted({max(least, round(last * look / LOOKS)) for look in range(1, LOOKS + 1)})
    stages = []
    for count in counts:
        chosen = set(groups[:count])
        stages.append((count, images.with_items([image for image in images if group_of[image.id] in chosen])))
    return stages


def in_stages(
    images: Images,
    measure: Callable[[Images, Stages, Images], Run],
    *,
    until: str | tuple[str, str],
    at_most: int | None,
    seed: int,
    methods: int,
) -> Run:
    """Measure stage after stage until the question is decided or all groups are there.

    Args:
        measure: measures some of the images in the run's folder, and keeps the stages in its record. The third argument
            is all that there may ever be: fills that depend on the image set would change with every stage.
        until: ``"decided"``: the best method is significantly ahead of all others and of random orders; ``"random"``:
            the best is significantly better than random orders; or two methods whose difference is asked for.
        at_most, seed: as in `stages_of`.
        methods: how many there are, random orders included.
    Raises:
        ProtocolError: an unknown question.
    """
    contrast = contrast_of(until)
    planned = stages_of(images, at_most, seed, methods * (methods - 1) // 2)
    at_most, image_set = planned[-1][0], planned[-1][1].pinned()
    looks: list[int] = []
    run = None
    for count, some in planned:
        looks.append(count)
        ids = [image.id for image in some]
        run = measure(some, Stages(looks=list(looks), at_most=at_most, contrast=contrast, images=ids), image_set)
        decision = run.decision()
        if decision is not None and decision.decided:
            break
    assert run is not None
    return run


def contrast_of(until: Any) -> str | tuple[str, str]:
    """The question as the statistics take it."""
    if isinstance(until, str) and until == "decided":
        return "leader"
    if isinstance(until, str) and until == "random":
        return "random"
    if isinstance(until, tuple | list) and len(until) == 2 and all(isinstance(one, str) for one in until):
        return (until[0], until[1])
    raise ProtocolError(f"until is {shown(until)}: give 'decided', 'random', or two methods.")
