"""Bars of wall time, CPU, memory and stored bytes as one SVG, without a library."""

from xml.sax.saxutils import escape

LABEL, PANEL, BAR, GAP, TITLE = 190, 230, 14, 6, 26
MIB = 1 << 20
# What is drawn: the words, the key, how to write a number, and what is drawn behind it in a lighter colour.
PANELS = [
    ("wall time, s", "wall", lambda value: f"{value:.2f}"),
    ("CPU, s (lighter: the server's)", "cpu", lambda value: f"{value:.2f}"),
    ("peak memory, MiB", "rss", lambda value: f"{value / MIB:.0f}"),
    ("stored, MB", "stored", lambda value: f"{value / 1e6:.1f}"),
]
# Ours, ours in another way, other tools, and what is no backup tool but a bound for all.
OURS, VARIANT, THEIRS, BOUND = "#2563a8", "#86aedb", "#9aa5b1", "#dfe3e8"
SERVER, SPREAD = "#e7c58f", "#222222"
WIDTH = LABEL + PANEL * len(PANELS) + 20


def draw(groups):
    body, y = [text(10, 24, "Medians; shorter is better. The line on a bar of wall time: fastest to slowest run.", "bold")], 44
    for x, (words, colour) in zip(range(10, WIDTH, 190), [("vdstream", OURS), ("vdstream, other options", VARIANT), ("other tools", THEIRS),
                                                          ("bounds: part of the work", BOUND), ("CPU of the server", SERVER)]):
        body.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        body.append(text(x + 18, y, words))
    y += 18
    for name, tools in groups.items():
        body.append(text(10, y + 16, name, "bold"))
        panels = [panel for panel in PANELS if any(of[panel[1]] for of in tools.values())]
        for nth, (words, _, _) in enumerate(panels):
            body.append(text(LABEL + nth * PANEL, y + 16, words))
        y += TITLE
        for tool, of in sorted(tools.items(), key=lambda item: item[1]["wall"]):
            body.append(text(LABEL - 8, y + BAR - 3, tool, anchor="end"))
            for nth, (_, key, write) in enumerate(panels):
                body += bar(LABEL + nth * PANEL, y, tool, of, key, write, tools)
            y += BAR + GAP
        y += 12
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
            'font-family="sans-serif" font-size="12">')
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *body, "</svg>", ""])


def bar(x, y, tool, of, key, write, tools):
    value = of[key]
    if not value:
        return []
    server = of["server_cpu"] if key == "cpu" else 0
    most = max(total(other, key) for other in tools.values())
    scale = (PANEL - (100 if key == "cpu" else 62)) / most
    parts = [rect(x, y, value * scale, colour(tool)), rect(x + value * scale, y, server * scale, SERVER)]
    end = max(value + server, of["most"] if key == "wall" else 0) * scale
    if key == "wall":
        middle = y + BAR / 2
        parts.append(f'<path d="M{x + of["least"] * scale:.1f} {middle} H{x + of["most"] * scale:.1f}" stroke="{SPREAD}"/>')
    words = write(value) + (f" + {write(server)}" if server else "")
    return [*parts, text(x + end + 5, y + BAR - 3, words)]


def total(of, key):
    """The longest thing that is drawn for it."""
    if key == "wall":
        return of["most"]
    return (of[key] or 0) + (of["server_cpu"] if key == "cpu" else 0)


def colour(tool):
    if tool == "vdstream":
        return OURS
    if tool.startswith("vdstream"):
        return VARIANT
    return BOUND if "alone" in tool or tool.startswith("cat") else THEIRS


def rect(x, y, width, fill):
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{fill}"/>' if width else ""


def text(x, y, words, weight="normal", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
