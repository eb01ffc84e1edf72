# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N818  (WeightsMissing says it; WeightsMissingError says it twice)
"""What can go wrong with weights files, one class each; every message says what to do next."""

from __future__ import annotations


class WeightsError(RuntimeError):
    """Anything about weights files that the user has to know; catch this one to catch them all."""


class InvalidZoo(WeightsError):
    """The catalogue (zoo.yaml) is not what it should be; names file, key and allowed values."""


class UnknownWeights(WeightsError):
    """A name that is neither in the catalogue nor a file; names the nearest ones."""


class WeightsMissing(WeightsError):
    """The weights are not on this machine; names the command that brings them."""


class DownloadFailed(WeightsError):
    """Server, network or permission; says whether a part was kept for the next try."""


class DownloadCancelled(WeightsError):
    """The caller's ``cancelled`` said so; the part is kept and the next download resumes."""


class DiskFull(DownloadFailed):
    """No room for the file; nothing half-written is left behind."""


class WrongHash(WeightsError):
    """The bytes are not the ones that were published or pinned; they were not installed."""


class BadCheckpoint(WeightsError):
    """Not a checkpoint, cut short, or of a layout without a state dict."""


class UnsafeCheckpoint(WeightsError):
    """The pickle wants types that could run code; names them. Nothing of it was run."""
