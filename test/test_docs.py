# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, commands are accepted, files are named, code decodes."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bmp_ros.cli.main import _build_parser
from bmp_ros.loop.masks import encode_runs

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    CHECKOUT / "QUALITY_DECLARATION.md",
    *sorted((CHECKOUT / "bmp_msgs").glob("*.md")),
    CHECKOUT / "examples" / "README.md",
    *sorted((CHECKOUT / "models").glob("*/README.md")),
    *sorted(DOCS.glob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"\b(?:bmp|python -m bmp_ros) ([a-z].*)")


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


def test_no_page_was_left_half_merged() -> None:
    mark = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.M)
    assert [page.name for page in PAGES if mark.search(page.read_text(encoding="utf-8"))] == []


def test_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("[a-z]*.md") if f"]({page.name})" not in index]
    assert not missing


def lines_of_code(page: Path) -> list[str]:
    """Lines of the blocks, continued ones joined, and what stands in backticks in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.sub(r"\\\n", " ", "".join(CODE.findall(text))).splitlines()
    return blocks + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> list[str]:
    """What the page says about ``bmp VERB …``, without what is only sketched."""
    found = (COMMAND.match(line) or COMMAND.search(line) for line in lines_of_code(page))
    written = [match[1].partition("#")[0].strip() for match in found if match]
    verbs = ("infer", "models", "export", "bench", "evaluate", "demo")
    return [
        line
        for line in written
        if line.split()[0] in verbs
        and line.split()[1:] not in ([], ["download"])
        and not re.search(r"…|\.\.\.", line)
    ]


def accepted_by_the_parser(command: str) -> bool:
    words = shlex.split(command)
    parser, _ = _build_parser(words[0])
    try:
        parser.parse_args(words)
    except SystemExit as end:  # --help ends with 0
        return end.code == 0
    return True


def test_commands_of_the_documents_are_accepted() -> None:
    written = {command for page in PAGES for command in commands(page)}
    assert len(written) > 20
    assert not [command for command in written if not accepted_by_the_parser(command)]
    assert not accepted_by_the_parser("infer --source a --output b --colour")


def launch_arguments(name: str) -> set[str]:
    """Arguments that a launch file declares; read, because launch itself may be missing."""
    from bmp_ros.ros.launch_arguments import NODE_ARGUMENTS, parameter_arguments

    text = (CHECKOUT / "launch" / name).read_text(encoding="utf-8")
    derived = [*NODE_ARGUMENTS] if "NODE_ARGUMENTS" in text else []
    derived += parameter_arguments() if "parameter_arguments()" in text else []
    return {each.name for each in derived} | {
        node.args[0].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("DeclareLaunchArgument", "Argument")
        and isinstance(node.args[0], ast.Constant)
    }


def test_launch_arguments_of_the_documents_exist() -> None:
    """ros2 launch takes any name without a word, so a wrong one would never be noticed."""
    arguments = {name: launch_arguments(name) for name in ("bmp.launch.py", "demo.launch.py")}
    seen = 0
    for line in (line for page in PAGES for line in lines_of_code(page)):
        launched = re.search(r"ros2 launch bmp_ros (\w+\.launch\.py)", line)
        if launched or re.match(r"\w+:=", line):
            known = arguments[launched[1] if launched else "bmp.launch.py"]
            given = set(re.findall(r"(?<![\w.])(\w+):=", line.partition("#")[0]))
            seen += len(given)
            assert given <= known, line
    assert seen > 10


@pytest.mark.parametrize("folder", ["config/presets", "launch", "examples"])
def test_readmes_name_every_file_of(folder: str) -> None:
    pages = (CHECKOUT / "README.md", CHECKOUT / "examples" / "README.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    files = [path for path in (CHECKOUT / folder).iterdir() if path.suffix in (".py", ".yaml")]
    assert files
    assert not [path.name for path in files if path.stem not in text]


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
