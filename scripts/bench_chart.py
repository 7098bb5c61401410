"""The chart of scripts/bench: horizontal bars on a logarithmic scale, with a whisker from the fastest run to the slowest."""

import math
from xml.sax.saxutils import escape

LEFT, WIDTH, ROW, TOP = 330, 560, 22, 56
COLOURS = (("floors", "#707070"), ("ptrace", "#b0b0b0"))


def colour(name):
    for start, value in COLOURS:
        if name.startswith(start):
            return value
    return "#3070b0" if "ddbg" in name else "#d09040"


def shown(value):
    for limit, divisor, suffix in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if value < limit:
            return f"{value / divisor:.3g} {suffix}"
    return f"{value / 1e9:.3g} s"


def svg(machine, results):
    rows = [r for r in results if "median" in r]
    smallest = min((max(r["least"], 0.1) for r in rows), default=1.0)
    largest = max((r["most"] for r in rows), default=10.0)
    low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
    high = max(high, low + 1)

    def x(value):
        return LEFT + WIDTH * (math.log10(max(value, 0.1)) - low) / (high - low)

    bottom = TOP + ROW * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 90} {bottom + 30}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="20" font-size="14">Time per event, logarithmic; shorter is better</text>',
           f'<text x="10" y="38" fill="#666">{escape(machine["cpu"])}, Linux {escape(machine["kernel"].split()[0])}, '
           f'mitigations {machine["mitigations"]}, load {machine["load"]}</text>']
    for decade in range(low, high + 1):
        at = x(10.0**decade)
        out.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{bottom}" stroke="#ddd"/>')
        out.append(f'<text x="{at:.1f}" y="{bottom + 16}" fill="#666" text-anchor="middle">{shown(10.0**decade)}</text>')
    for number, r in enumerate(rows):
        y = TOP + ROW * number
        end = x(r["median"])
        out.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(r["title"])}</text>')
        out.append(f'<rect x="{LEFT}" y="{y + 3}" width="{max(end - LEFT, 1):.1f}" height="{ROW - 8}" '
                   f'fill="{colour(r["name"])}"/>')
        out.append(f'<line x1="{x(r["least"]):.1f}" y1="{y + 10}" x2="{x(r["most"]):.1f}" y2="{y + 10}" stroke="black"/>')
        out.append(f'<text x="{max(end, x(r["most"])) + 6:.1f}" y="{y + 14}">{shown(r["median"])}</text>')
    return "\n".join([*out, "</svg>", ""])
