"""From the collected measurements to `results/table.md` and `results/chart.svg`."""

import datetime
import json
import platform
from pathlib import Path
from statistics import median

from . import cases, chart, data

MIB = 1 << 20

# What must hold: the work, groups, our tool is measured against this one, at most so many times of it.
WALL, CPU = "wall", "cpu"
# Which of ours: one that waits for the disk beside those that do, one that does not beside those that do not.
OURS, NO_SYNC = "vdstream", "vdstream --no-sync"
MUST = [
    ("backup to `file://`", "backup-file", OURS, "zstd -T0 > file", WALL, 1.00),
    ("backup to `file://`", "backup-file", OURS, "zstd -T0 > file", CPU, 1.15),
    ("backup to `file://`", "backup-file", OURS, "zstd -T0 | rclone rcat", WALL, 0.85),
    ("backup to S3", "backup-s3", OURS, "zstd -T0 | s5cmd pipe", WALL, 0.80),
    ("backup to S3", "backup-s3", OURS, "zstd -T0 | aws s3 cp -", WALL, 0.67),
    ("backup to `file://`", "backup-file", OURS, "restic", WALL, 0.40),
    ("backup to S3", "backup-s3", OURS, "restic", WALL, 0.40),
    ("backup to `file://`", "backup-file", OURS, "by hand", WALL, 0.60),
    ("backup to S3", "backup-s3", OURS, "by hand", WALL, 0.60),
    ("restore from `file://` into a file", "restore-file", OURS, "zstd -d, sync", WALL, 0.80),
    ("restore from `file://` into a file", "restore-file", NO_SYNC, "zstd -d", WALL, 0.80),
    ("restore from S3 into a file", "restore-s3", OURS, "s5cmd cat | zstd -d, sync", WALL, 0.75),
    ("restore from S3 into a file", "restore-s3", NO_SYNC, "s5cmd cat | zstd -d", WALL, 0.75),
    ("incompressible data to `file://`", "backup-file-random", OURS, "cat > file", WALL, 1.50),
]


def write(results):
    groups = {}
    for group in cases.GROUPS:
        path = results / f"{group.name}.jsonl"
        if path.exists():
            groups[group.name] = summarise(group, [json.loads(line) for line in path.read_text().splitlines()])
    text = [HEAD.format(machine=machine(), day=datetime.date.today().isoformat(), data=described())]
    text += must(groups)
    text += memory(results / "memory.jsonl")
    for name, tools in groups.items():
        text += group_table(name, tools)
    (results / "table.md").write_text("\n".join(text) + "\n")
    (results / "chart.svg").write_text(chart.draw(groups))
    print("\n".join(text))


def summarise(group, lines):
    tools = {}
    for tool in group.tools:
        mine = [line for line in lines if line["tool"] == tool.name]
        if mine:
            middle = {key: median(line[key] for line in mine) for key in ["wall", "cpu", "rss", "server_cpu"]}
            walls = [line["wall"] for line in mine]
            stored = mine[-1].get("stored")
            tools[tool.name] = {**middle, "least": min(walls), "most": max(walls), "runs": len(mine), "stored": stored}
    return tools


def must(groups):
    lines = ["## What must hold", "", "The last column is what zstd takes alone, without anything to read from or write to, in the same measure.", "",
             "| work | data | ours | against | of | measured | at most | holds | zstd alone |",
             "|---|---|---|---|---|---|---|---|---|"]
    for work, prefix, ours, against, what, limit in MUST:
        for name, tools in groups.items():
            # Incompressible data has a row of its own.
            if not name.startswith(prefix) or (name.endswith("random") and not prefix.endswith("random")):
                continue
            if ours in tools and against in tools:
                ratio = tools[ours][what] / tools[against][what]
                lines.append(f"| {work} | {name.rsplit('-')[-1]} | `{ours}` | `{against.replace('|', chr(92) + '|')}` | {what} "
                             f"| {ratio:.2f} × | {limit:.2f} × | {'yes' if ratio <= limit else '**no**'} | {alone(tools, against, what)} |")
    return [*lines, ""]


def alone(tools, against, what):
    of = tools.get(cases.ALONE.name) or tools.get(cases.ALONE_BACK.name)
    return f"{of[what] / tools[against][what]:.2f} ×" if of and "cat" not in against.split()[0] else ""


def memory(path):
    if not path.exists():
        return []
    peaks = {}
    for line in map(json.loads, path.read_text().splitlines()):
        peaks[(line["work"], line["data"], line["store"], line["limit_mib"], line["gib"])] = line["rss"]
    sizes = sorted({key[4] for key in peaks})
    lines = ["## Peak memory by the length of the stream", "", "One stripe; the limit is `--memory`, the peak is the kernel's.", "",
             "| work | data | store | limit, MiB | " + " | ".join(f"{size} GiB, MiB" for size in sizes) + " | longest ÷ shortest |",
             "|---|---|---|---|" + "---|" * (len(sizes) + 1)]
    for work, source, store, limit in sorted({key[:4] for key in peaks}):
        of = [peaks.get((work, source, store, limit, size)) for size in sizes]
        if all(of):
            cells = " | ".join(f"{peak / MIB:.1f}" for peak in of)
            lines.append(f"| {work} | {source} | {store} | {limit} | {cells} | {of[-1] / of[0]:.3f} |")
    return [*lines, ""]


def group_table(name, tools):
    ours = tools.get("vdstream", {}).get("wall")
    lines = [f"## {name}", "", "| tool | wall, s | fastest – slowest | ours ÷ it | CPU, s | peak memory, MiB | stored, MB | server CPU, s | runs |",
             "|---|---|---|---|---|---|---|---|---|"]
    for tool, of in tools.items():
        ratio = f"{ours / of['wall']:.2f}" if ours else ""
        stored = f"{of['stored'] / 1e6:.1f}" if of["stored"] else ""
        server = f"{of['server_cpu']:.2f}" if of["server_cpu"] else ""
        lines.append(f"| {tool.replace('|', chr(92) + '|')} | {of['wall']:.2f} | {of['least']:.2f} – {of['most']:.2f} | {ratio} | {of['cpu']:.2f} "
                     f"| {of['rss'] / MIB:.0f} | {stored} | {server} | {of['runs']} |")
    return [*lines, ""]


def machine():
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{len(cpus)} × {cpus[0].split(': ')[1]}, {memory_kib >> 20} GiB, Linux {platform.release()}, one virtual disk"


def described():
    return ", ".join(f"{name} {data.SIZES[name] / 1e6:.0f} MB" for name in data.SIZES)


HEAD = """# Measured beside other tools

{day}, on {machine}. Data: {data}; all of it in the page cache. Medians of alternating runs on an otherwise idle machine; zstd level 3
everywhere. CPU is user and system time of the tool's whole process tree; memory is the sum over its processes. The tools that do not sync
what they write are followed by `sync FILE` inside the measured time, unless the row says otherwise. Servers run on the same two cores.
How to repeat it is in [the README](../README.md); the raw numbers are beside this file.
"""
