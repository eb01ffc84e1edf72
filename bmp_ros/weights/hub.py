# SPDX-License-Identifier: Apache-2.0
"""What the Hugging Face hub knows about a file: its commit, size and SHA-256.

The only file that imports huggingface_hub. ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_HOME``
work as they do everywhere. Files that need a login are not fetched but given by their path.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bmp_ros.weights.catalogue import HubFile
from bmp_ros.weights.errors import DownloadFailed, WeightsError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubAnswer:
    """url: the file at the commit, forever the same bytes; redirects to a store when fetched.

    size: bytes. sha256: 64 hex digits, or None for a file outside of the store for large ones.
    """

    url: str
    commit: str
    size: int | None
    sha256: str | None


def is_offline() -> bool:
    """Return True where the user has forbidden the network through ``HF_HUB_OFFLINE``."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def ask_hub(file: HubFile) -> HubAnswer:
    """Ask the hub about a file; one HEAD request.

    Raises DownloadFailed: no connection, no such repository, revision or file, no permission.
    """
    hub = _huggingface_hub()
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = hub.hf_hub_url(file.repo, file.file, revision=file.revision, endpoint=endpoint)
    try:
        metadata = hub.get_hf_file_metadata(url)
    except Exception as error:
        # The hub's HTTP library has changed between its versions (requests, httpx): the errors of
        # a lost connection share no base class.
        raise DownloadFailed(_explain(file, url, error)) from error
    if metadata.commit_hash is None or metadata.etag is None:
        raise DownloadFailed(f"{url}: the answer is not one of a Hugging Face hub")
    at_commit = hub.hf_hub_url(
        file.repo, file.file, revision=metadata.commit_hash, endpoint=endpoint
    )
    # Large files carry their SHA-256 as the tag, small ones a git hash that does not help here.
    sha256 = metadata.etag if _SHA256.fullmatch(metadata.etag) else None
    return HubAnswer(at_commit, metadata.commit_hash, metadata.size, sha256)


def cached_copy(file: HubFile, commit: str | None = None) -> tuple[Path, str | None] | None:
    """Return (path, SHA-256 in its name) of a copy that another program has downloaded, or None.

    The cache of the hub (``HF_HOME``) stores a large file under the SHA-256 the hub gave for it.
    """
    found = _huggingface_hub().try_to_load_from_cache(
        file.repo, file.file, revision=commit or file.revision
    )
    if not isinstance(found, str):
        return None
    blob = Path(found).resolve()
    return blob, blob.name if _SHA256.fullmatch(blob.name) else None


def _huggingface_hub():  # type: ignore[no-untyped-def]  # a module
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            "downloading from the Hugging Face hub needs `pip install huggingface_hub`"
        ) from error
    return huggingface_hub


def _explain(file: HubFile, url: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        why = f"{file.repo} asks you to log in and accept its terms"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = f"{file.repo} has no revision {file.revision}"
    elif isinstance(error, errors.EntryNotFoundError):
        why = f"{file.repo} has no file {file.file} at {file.revision}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = f"there is no repository {file.repo} (or it is private)"
    else:
        why = f"no answer from the hub ({str(error).splitlines()[0] if str(error) else error!r})"
    return f"{url}: {why}; a file you have already can be given by its path instead of the name"
