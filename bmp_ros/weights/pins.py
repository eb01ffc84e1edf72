# SPDX-License-Identifier: Apache-2.0
"""Pins: the SHA-256 of every installed weights file, remembered beside the files.

The first download of a file is trusted as far as its server says what its hash is; from then on
the bytes are pinned: ``verify`` notices damage, and a download of other bytes is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bmp_ros.weights.errors import DownloadCancelled, WeightsError, WrongHash
from bmp_ros.weights.zoo import Zoo, load_zoo, locate, models_dir

PINS_FILE = "pinned.json"
_BLOCK = 4 << 20


@dataclass(frozen=True)
class Pin:
    """One installed file. source: URL it came from, a hub URL with the commit in it."""

    file: str
    size: int
    sha256: str
    source: str


@dataclass(frozen=True)
class Verified:
    """A file whose bytes were read. against: who vouches for the hash, None when nobody does."""

    path: Path
    sha256: str
    against: str | None


def sha256_of(path: Path, *, cancelled: Callable[[], bool] | None = None) -> str:
    """Return the SHA-256 of a file as 64 hex digits (about a second per gigabyte)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if cancelled is not None and cancelled():
                raise DownloadCancelled(f"checking of {path} was cancelled; the file is kept")
            digest.update(block)
    return digest.hexdigest()


def read_pins(directory: Path) -> dict[str, Pin]:
    """Read name -> pin of a models folder; empty where nothing has been pinned yet."""
    path = directory / PINS_FILE
    try:
        return {name: Pin(**pin) for name, pin in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged ({error}); delete it, then `bmp models download` pins afresh"
        ) from error


def write_pin(directory: Path, name: str, pin: Pin) -> None:
    """Add or replace one pin; the file is replaced in one step, never half-written."""
    pins = {**read_pins(directory), name: pin}
    text = json.dumps({name: asdict(pins[name]) for name in sorted(pins)}, indent=2) + "\n"
    temporary = directory / (PINS_FILE + ".new")
    temporary.write_text(text)
    os.replace(temporary, directory / PINS_FILE)


def verify(name: str, zoo: Zoo | None = None) -> Verified:
    """Read the installed file and compare its SHA-256 with everything that is known about it.

    Raises WeightsMissing when it is not here, WrongHash when the bytes are others.
    """
    zoo = load_zoo() if zoo is None else zoo
    weights = zoo[name]
    path = locate(name, zoo)
    if path.name != weights.file_name:
        return Verified(path, sha256_of(path), None)  # converted here: no publisher vouches
    actual = sha256_of(path)
    pin = read_pins(models_dir()).get(name)
    known = {"the pin": pin.sha256 if pin else None, "the catalogue": weights.sha256_prefix}
    against = [who for who, sha256 in known.items() if sha256]
    for who in against:
        expected = known[who] or ""
        if not actual.startswith(expected):
            raise WrongHash(
                f"{path} is not what it should be: its SHA-256 is {actual}, {who} says "
                f"{expected}; `bmp models download {name}` replaces it"
            )
    return Verified(path, actual, " and ".join(against) or None)
