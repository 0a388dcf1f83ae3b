"""Draws target/bench.json: docs/images/performance.svg, and the table in docs/performance.md.

    python3 bench/chart.py [bench.json]

One panel for each workload that Kobza shares with others or with a floor: medians on a logarithmic
scale, each with how many times Kobza's best it is.
"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from pathlib import Path

from report import PLACE, ROOT, better_is_more, groups, number, ours, table

CHART = ROOT / "docs/images/performance.svg"
PAGE = ROOT / "docs/performance.md"
#: What is between these lines of the page is made here.
BEGIN, END = "<!-- from target/bench.json -->", "<!-- end -->"
WIDTH, NAME, BAR, ROW, HEAD = 860, 210, 420, 17, 30
COLOURS = {"ours": "#2563eb", "peer": "#9ca3af", "floor": "#d6b25e"}


def panel(title: str, unit: str, rows: list[dict], top: int) -> tuple[list[str], int]:
    more = better_is_more(unit)
    own = [row["median"] for row in rows if ours(row["system"])]
    best = max(own) if more else min(own)
    values = [row["median"] for row in rows if row["median"] > 0]
    low, high = math.log10(min(values)) - 0.3, math.log10(max(values))
    hint = "more is better" if more else "less is better"
    parts = [f'<text x="0" y="{top + 14}" class="title">{escape(title)} '
             f'<tspan class="unit">{escape(unit)}, {hint}</tspan></text>']
    at = top + HEAD - 8
    for row in rows:
        kind = "floor" if row.get("floor") else "ours" if ours(row["system"]) else "peer"
        value = max(row["median"], min(values))
        length = max(2.0, BAR * (math.log10(value) - low) / (high - low or 1))
        times = best / value if more else value / best
        note = number(row["median"]) + ("" if kind == "ours" and times == 1 else f"  ({ratio(times)})")
        parts.append(f'<text x="{NAME - 8}" y="{at + 12}" text-anchor="end">{escape(row["system"])}</text>'
                     f'<rect x="{NAME}" y="{at + 2}" width="{length:.1f}" height="{ROW - 5}" rx="2" '
                     f'fill="{COLOURS[kind]}"/><text x="{NAME + length + 6:.1f}" y="{at + 12}" class="unit">{note}</text>')
        at += ROW
    return parts, at + 14


def ratio(times: float) -> str:
    return f"{times:,.0f}x" if times >= 10 else f"{times:.2g}x"


def draw(rows: list[dict]) -> str:
    parts: list[str] = []
    at = 26
    for (title, unit), of in groups(rows).items():
        if len(of) > 1 and any(ours(row["system"]) and row["median"] > 0 for row in of):
            drawn, at = panel(title, unit, of, at)
            parts += drawn
    legend = "".join(
        f'<rect x="{x}" y="4" width="10" height="10" rx="2" fill="{COLOURS[kind]}"/><text x="{x + 15}" y="13">{text}</text>'
        for x, kind, text in ((0, "ours", "Kobza"), (80, "peer", "another system"), (210, "floor", "the machine's own floor")))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -4 {WIDTH} {at + 4}" width="{WIDTH}" '
            f'font-family="system-ui, sans-serif" font-size="11" fill="#1f2937"><style>.title{{font-size:13px;'
            f'font-weight:600}}.unit{{fill:#6b7280;font-weight:400;font-size:11px}}</style>'
            f'<rect x="-10" y="-4" width="{WIDTH}" height="{at + 4}" fill="#ffffff"/>{legend}'
            + "\n".join(parts) + "</svg>\n")


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else PLACE).read_text())
    CHART.write_text(draw(found))
    machines = dict.fromkeys(row["machine"] for row in found if "machine" in row)
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END, 1)[1]
    picture = "![Medians of each workload, beside peers and floors](images/performance.svg)"
    text = "\n".join([picture, "", *(f"Taken on {machine}." for machine in machines), "", *table(found)])
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
