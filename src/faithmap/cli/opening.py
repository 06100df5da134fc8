"""What a folder on the command line holds: a run, a study, or the studies of several networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from faithmap.cli.console import one_line
from faithmap.errors import StoreError

if TYPE_CHECKING:
    from faithmap.run import Run
    from faithmap.studies.study import Study


def study_of(folder: Path | str) -> Study | None:
    """The study that a folder holds; None where it holds something else."""
    from faithmap.studies.study import Study, is_study

    return Study(folder) if is_study(folder) else None


def studies_of(folder: Path | str) -> dict[str, Study]:
    """Network → study, of a folder of several; empty where it holds something else."""
    from faithmap.studies.pages import studies_in

    return studies_in(folder) if isinstance(folder, Path) else {}


def run_of(folder: Path | str, command: str) -> Run:
    """The run that a folder holds.

    Args:
        folder: as it was given.
        command: that takes a run.
    Raises:
        StoreError: no run; where it is a study, the message names a run of it.
    """
    from faithmap.run import Run

    study = study_of(folder)
    found = {one_line(str(folder)): study} if study is not None else studies_of(folder)
    if not found:
        return Run(folder)
    inside = next(iter(found.values()))
    setting = f"{inside.url}/{next(iter(inside.settings.values()))}"
    what = f"a study of {len(inside.settings)} settings" if study is not None else f"studies of {len(found)} networks"
    raise StoreError(
        f"{folder} holds {what}, but `faithmap {command}` takes one run: give a setting's folder, such as {setting}, "
        f"or show them all with `faithmap report {folder}`."
    )
