# SPDX-License-Identifier: Apache-2.0
"""The sam2 package (facebookresearch/sam2), imported without its side effect on Hydra."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The same line as in requirements/sam2.txt; README.md names the same version (a test compares).
SAM2_REQUIREMENT = (
    "sam2==1.1.0 --hash=sha256:7e0ea252d43c10d853e3acfce0b5770ac683c30481bd6de311300e9d44f45b74"
)
INSTALL_SAM2 = (
    "SAM 2.1 needs the package sam2 and what it imports. Install them with\n"
    "  pip install hydra-core iopath tqdm pillow\n"
    f"  echo '{SAM2_REQUIREMENT}' > sam2.txt\n"
    "  SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation -r sam2.txt"
)


@contextmanager
def importing_sam2() -> Iterator[None]:
    """Import modules of sam2 in a ``with`` block that leaves the global Hydra as it was.

    Importing sam2 points Hydra's process-wide configuration at sam2's own files, so that a program
    that uses Hydra for itself can no longer initialise it. Here networks are built from plain
    numbers and need no Hydra. When this block is the first to import sam2, Hydra is cleared again
    and the (otherwise empty) top package forgotten: a program that later imports sam2 for itself
    runs that package's start-up and finds Hydra as sam2's documentation promises.

    Raises ModuleNotFoundError with the command to run when sam2 or one of its requirements is not
    installed.
    """
    try:
        from hydra.core.global_hydra import GlobalHydra

        initialized_before = GlobalHydra.instance().is_initialized()
        imported_before = "sam2" in sys.modules
        try:
            yield
        finally:
            if not initialized_before and not imported_before:
                GlobalHydra.instance().clear()
                sys.modules.pop("sam2", None)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}. {INSTALL_SAM2}", name=error.name) from error
