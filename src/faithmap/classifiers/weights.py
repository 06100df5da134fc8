"""Weights files: fetched once, checked by hash, never unpickled freely."""

from __future__ import annotations

import hashlib
import http.client
import pickle
from pathlib import Path
from typing import Any

import torch

from faithmap.errors import DownloadError


def weights_path(url: str) -> Path:
    """Where torch keeps the weights of a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def check_weights(path: Path) -> None:
    """Compare a weights file with the hash in its name (``alexnet-owt-7be5be79.pth``).

    Raises:
        DownloadError: the hash is wrong.
    """
    found = torch.hub.HASH_REGEX.search(path.name)
    if found is None:
        return
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found.group(1)):
        raise DownloadError(
            f"{path} has sha256 {digest[:16]}…, expected it to begin with {found.group(1)}: the file is damaged or "
            "another; delete it and run again."
        )


def fetch_weights(url: str) -> dict[str, Any]:
    """The weights of a URL: downloaded once, checked by the hash in their name, found again on the next call.

    Raises:
        DownloadError: no network, a full disk, a wrong hash, or a file that holds no weights.
    """
    path = weights_path(url)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Downloads to a temporary name, shows a progress bar, and renames only after the hash was right.
            match = torch.hub.HASH_REGEX.search(path.name)
            torch.hub.download_url_to_file(url, str(path), match.group(1) if match else None, progress=True)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(
                f"the weights {url} could not be downloaded ({error}): check the network and the disk and run "
                f"again, or put the file at {path} yourself."
            ) from error
        except RuntimeError as error:
            raise DownloadError(f"the download of {url} is damaged ({error}): run again.") from error
    check_weights(path)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DownloadError(f"{path} is not a file of weights: delete it and run again.") from error
    return state


def check_sha256(data: bytes, expected: str, name: str, remedy: str) -> None:
    """Compare a file that a package ships with what it held when it was tried.

    Raises:
        DownloadError: the hash is wrong.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise DownloadError(f"{name} has sha256 {digest[:16]}…, expected {expected[:16]}…: run `{remedy}`.")
