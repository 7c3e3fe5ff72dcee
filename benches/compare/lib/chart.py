"""Bars of wall time as one SVG, without a library."""

from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, GAP, TITLE = 900, 230, 16, 6, 30
OURS, THEIRS = "#2563a8", "#b4bcc6"


def draw(groups):
    body, y = [], 10
    body.append(text(10, y + 14, "Wall time, seconds, median (shorter is better)", "bold"))
    y += 30
    for name, tools in groups.items():
        longest = max((of["wall"] for of in tools.values()), default=1)
        scale = (WIDTH - LABEL - 80) / longest
        body.append(text(10, y + 16, name, "bold"))
        y += TITLE
        for tool, of in sorted(tools.items(), key=lambda item: item[1]["wall"]):
            width = of["wall"] * scale
            fill = OURS if tool.startswith("vdstream") else THEIRS
            body.append(text(LABEL - 8, y + BAR - 4, tool, anchor="end"))
            body.append(f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{fill}"/>')
            body.append(text(LABEL + width + 6, y + BAR - 4, f"{of['wall']:.2f}"))
            y += BAR + GAP
        y += 10
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
            'font-family="sans-serif" font-size="12">')
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *body, "</svg>", ""])


def text(x, y, words, weight="normal", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
