"""`study`: the same question under several settings, heatmaps computed once."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from faithmap.checks import check_callable, check_flag
from faithmap.classifiers import Classifier, check_classifier
from faithmap.errors import FaithmapError, MethodWarning, ProtocolError, shown
from faithmap.experiment.evaluate import evaluate
from faithmap.experiment.planning import aligned, input_size
from faithmap.experiment.progress import Progress
from faithmap.grouping import Groups
from faithmap.images import Images, load_images
from faithmap.modes import in_own_modes
from faithmap.protocol import Protocol
from faithmap.store.folder import Store
from faithmap.store.storage import LocalStorage, open_storage
from faithmap.studies.settings import resolve_settings
from faithmap.studies.study import Study, write_settings


@in_own_modes
def study(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any = "families",
    settings: Any = "consistency",
    out: str | Path | None = None,
    *,
    groups: Groups = None,
    heatmaps_from: str | Path | None = None,
    progress: Callable[[str], Callable[[Progress], None]] | bool = False,
    save_heatmaps: bool = False,
    seed: int | None = None,
    score: str | None = None,
    points: int | str | None = None,
    **how: Any,
) -> Study:
    """Measure the same classifier, images and heatmap methods under several settings.

    Each setting is an ordinary run in a folder of the study, with the numbers of a run of its own. What is there
    already is not computed again; more images, methods or settings extend the folder. Heatmaps are computed for the
    first setting, stored there for all images, and used by the others.

    Args:
        classifier, images, methods: as in `evaluate`; by default one method of each family.
        settings: ``"consistency"`` (four fills × three region sizes, both orders), ``"quick"`` (two × two), a list of
            protocols, or a mapping name → protocol.
        out: the study folder; None takes a temporary one.
        groups: which images belong together and are not independent; see `load_images`.
        heatmaps_from: a run folder whose stored heatmaps are used where they are the same.
        progress: True shows a bar for each setting; a function receives the setting's name and returns what is called
            with how far its run is.
        save_heatmaps: store the heatmaps of all images in every setting, not in the first alone.
        seed, score, points: of every setting's protocol; None leaves them as they are.
        how: passed on to `evaluate`: engine, batch_size, precision, executor, measures, masks, command, and so on.
    Returns:
        The study.
    Raises:
        FaithmapError: as `evaluate`; also settings that cannot be.
    """
    classifier, images = check_classifier(classifier), load_images(images, groups=groups)
    if not isinstance(progress, bool):
        check_callable(progress, "progress", FaithmapError)
    check_flag(save_heatmaps, "save_heatmaps", FaithmapError)
    if how.get("until") is not None:
        raise ProtocolError(
            f"until is {shown(how['until'])}, and a study has the same images in every setting: stop one run when it "
            "is decided, and give its images to the study."
        )
    size = input_size(images, classifier)
    asked = distinct(resolve_settings(settings, size, seed=seed, score=score, points=points), classifier, size)
    storage = open_storage(out if out is not None else tempfile.mkdtemp(prefix="faithmap-"))
    if isinstance(storage, LocalStorage):
        images.check_apart(storage.folder)
    url = storage.url
    write_settings(url, {name: name for name in asked})
    first: str | None = None
    try:
        for name, protocol in asked.items():
            source = heatmaps_from if first is None else first
            evaluate(
                classifier,
                images,
                methods,
                protocol,
                f"{url}/{name}",
                save_heatmaps=save_heatmaps or first is None,
                heatmaps_from=source,
                progress=progress if isinstance(progress, bool) else progress(name),
                **how,
            )
            first = first or f"{url}/{name}"
    except BaseException:
        if out is None and not any(Store(f"{url}/{name}").parts() for name in asked):
            shutil.rmtree(url, ignore_errors=True)  # nobody knows where it is, and it holds nothing
        raise
    return Study(url)


def distinct(settings: Mapping[str, Protocol], classifier: Classifier, size: tuple[int, int]) -> dict[str, Protocol]:
    """The settings without those that measure the same as one before them: each would count as agreeing with itself.

    A network's patches decide regions of the usual size, so that settings may be alike on one network alone.

    Raises:
        ProtocolError: fewer than two are left.
    """
    kept: dict[str, Protocol] = {}
    measured: dict[str, Protocol] = {}
    for name, protocol in settings.items():
        own = aligned(protocol, classifier, size).override(name="setting")
        twin = next((one for one, other in measured.items() if other == own), None)
        if twin is None:
            kept[name], measured[name] = protocol, own
        else:
            said = f"setting '{name}' measures the same as '{twin}' on {classifier.name}, and is left out."
            warnings.warn(said, MethodWarning, stacklevel=4)
    if len(kept) < 2:
        raise ProtocolError(
            f"the settings {', '.join(settings)} measure the same on {classifier.name}: give at least two that differ."
        )
    return kept
