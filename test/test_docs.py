# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, every page is in the index, the messages' code decodes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bmp_ros.loop.masks import encode_runs

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    CHECKOUT / "examples" / "README.md",
    *sorted(DOCS.glob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Names that headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}; there are {anchors(target)}"


def test_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("[a-z]*.md") if f"]({page.name})" not in index]
    assert not missing


def test_python_of_the_messages_page_decodes() -> None:
    text = (DOCS / "messages.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    shown: dict[str, Any] = {}
    exec(code, shown)
    rows, columns = np.mgrid[:48, :64]
    body = np.abs(np.hypot((rows - 20) / 2, columns - 58) - 5) < 3
    for mask in (body, np.zeros_like(body)):
        (x, y, width, height), counts = encode_runs(mask)
        fields = SimpleNamespace(
            x_offset=x, y_offset=y, width=width, height=height, counts=counts.tolist()
        )
        person = SimpleNamespace(mask=fields)
        message = SimpleNamespace(height=48, width=64)
        np.testing.assert_array_equal(shown["full_mask"](message, person), mask)
        assert shown["area"](person) == mask.sum()
