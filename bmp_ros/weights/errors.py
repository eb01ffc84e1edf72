# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N818  (WeightsMissing says it; WeightsMissingError says it twice)
"""Errors about weights files, one class each; every message says what to do next."""

from __future__ import annotations

from pathlib import Path


class WeightsError(RuntimeError):
    """Base class of all errors about weights files."""


class InvalidZoo(WeightsError):
    """The catalogue (zoo.yaml) is invalid; names file, key and allowed values."""


class UnknownWeights(WeightsError):
    """A name that is neither in the catalogue nor a file; names similar ones."""


class WeightsMissing(WeightsError):
    """The weights are not on this machine; names the command that fetches them."""


class LicenceNotAccepted(WeightsMissing):
    """The weights are not on this machine, and their licence has not been accepted."""


class DownloadFailed(WeightsError):
    """Server, network or permission; says whether a partial file was kept for the next try."""


class DownloadCancelled(WeightsError):
    """The caller's ``cancelled`` returned True; the next download resumes the partial file."""


class DiskFull(DownloadFailed):
    """Not enough space for the file; no partial file is left behind."""


class WrongHash(WeightsError):
    """The bytes are not those that were published or pinned; they were not installed."""


class BadCheckpoint(WeightsError):
    """Not a checkpoint, cut short, or without a state dict."""


class UnsafeCheckpoint(WeightsError):
    """The pickle requests types that could run code; names them. Nothing of it was run."""


def in_place_of_weights(path: Path) -> str:
    """What a file is that is often found where weights should be, as the end of a sentence with a
    remedy; empty where it is none of these."""
    try:
        with path.open("rb") as file:
            start = file.read(256).lstrip().lower()
    except OSError:
        return ""
    if not start:
        return "; the file is empty: its download was cut short, repeat it"
    if start.startswith(b"version https://git-lfs"):
        return "; it is a pointer of Git LFS in place of the file: `git lfs pull` brings it"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "; it is a web page, as servers send in place of a file: download the file itself"
    return ""
