# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page: nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmp_ros.image_files import shown_name
from bmp_ros.machine import machine_line
from bmp_ros.reporting import figures
from bmp_ros.reporting.people_log import NUMBERS, PeopleLog

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1100px;
  padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 6px; }
p { margin: 4px 0 10px; color: #555; } table { border-collapse: collapse; margin: 8px 0; }
td, th { padding: 3px 14px 3px 0; text-align: left; border-bottom: 1px solid #e4e4e4; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr));
  gap: 14px; } figure { margin: 0; } figure img { width: 100%; border-radius: 4px; }
figcaption { font-size: 13px; color: #555; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Section:
    """title and text: plain. body: HTML."""

    title: str
    text: str
    body: str


def write_page(
    path: Path, title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Write the page; it appears when it is whole. facts: the table at its top."""
    figures.import_plotly()
    from plotly.offline import get_plotlyjs

    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>',
        f"<style>{_STYLE}</style>",
        f"<script>{get_plotlyjs()}</script></head><body>",
        f"<h1>{_text(title)}</h1>",
        f"<p>{time.strftime('%Y-%m-%d %H:%M')}; {_text(machine_line())}</p>",
        table(None, facts),
    ]
    for section in sections:
        parts.append(f"<h2>{_text(section.title)}</h2>")
        parts.append(f"<p>{_text(section.text)}</p>" if section.text else "")
        parts.append(section.body)
    parts.append("</body></html>\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")
    part.replace(path)


def people_sections(log: PeopleLog) -> list[Section]:
    """What is said of `bmp infer` and `bmp bag`: people, tracks, scores, times, pictures."""
    sections = [
        Section(
            "People in each image" if log.axis == NUMBERS else "People over time",
            f"{len(log)} images; {log.counts.mean():.2f} people in an image, at most "
            f"{log.counts.max()}" if len(log) else "no image was processed",
            figure(figures.people_over_time(log)) if len(log) else "",
        )
    ]  # fmt: skip
    tracks = log.tracks()
    if tracks:
        shown = min(len(tracks), figures.MOST_TRACKS)
        of = "" if shown == len(tracks) else f", the {shown} that were seen most are shown"
        sections.append(
            Section(
                "Tracks",
                f"{len(tracks)} ids{of}. A gap: the id was not seen.",
                figure(figures.gantt(tracks, log.axis)),
            )
        )
    if log.counts.sum():
        sections.append(
            Section("Scores", "Of everyone in every image.", figure(figures.score_histogram(log)))
        )
    sections += time_section(log.times_ms())
    doubtful = log.doubtful()
    if doubtful:
        sections.append(
            Section(
                "Most doubtful images",
                "Those with the least certain person: score of the detector times that of the "
                "pose. Nothing is known of people who were not found.",
                pictures(
                    [(f"{each.label}: {each.certainty:.2f}", each.jpeg) for each in doubtful]
                ),
            )
        )
    return sections


def time_section(times_ms: Any) -> list[Section]:
    """Latency percentiles by stage, as figure and table; nothing where nothing was timed."""
    rows = figures.stage_percentiles(times_ms)
    if not rows:
        return []
    header = ("stage, ms", *(f"p{each}" for each in figures.PERCENTILES))
    cells = [(name, *(f"{value:.2f}" for value in values)) for name, values in rows]
    return [
        Section(
            "Latency",
            "Of the loop's stages, per image; reading and writing files is not in it.",
            figure(figures.latency(times_ms)) + table(header, cells),
        )
    ]


def figure(drawn: Any) -> str:
    """A plotly figure as HTML; the library itself is in the page once."""
    return str(
        drawn.to_html(include_plotlyjs=False, full_html=False, config={"displaylogo": False})
    )


def table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts; with a header, all but the first column are numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = ["", *("" if header is None else ' class="number"' for _ in row[1:])]
        return "".join(
            f"<{tag}{kind}>{_text(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True)
        )

    lines = [] if header is None else [f"<tr>{cells('th', header)}</tr>"]
    lines += [f"<tr>{cells('td', row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def pictures(entries: Sequence[tuple[str, bytes]]) -> str:
    """JPEGs with captions, within the page."""
    parts = [
        f'<figure><img alt="{_text(caption)}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(jpeg).decode("ascii")}"><figcaption>{_text(caption)}</figcaption>'
        "</figure>"
        for caption, jpeg in entries
    ]
    return f'<div class="pictures">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return html.escape(shown_name(text))
