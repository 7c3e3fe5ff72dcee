"""From the collected measurements to `results/table.md` and `results/chart.svg`."""

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
    of = json.loads((results / "made.json").read_text())
    text = [HEAD.format(machine=machine(), data=described(), **of, tools=", ".join(of["versions"].values()))]
    text += must(groups)
    text += device(results / "device.jsonl")
    text += latency(results / "latency.jsonl")
    text += memory(results / "memory.jsonl")
    for name, tools in groups.items():
        text += group_table(name, tools, commits(results / f"{name}.jsonl"))
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


def device(path):
    """Medians of the runs of `cargo bench --bench device`, each beside its own measure of what the machine can do."""
    if not path.exists():
        return []
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    lines = ["## Devices in process", "",
             "`cargo bench --bench device`, several runs; the ratio is the median of the ratios of the runs.", "",
             "| work | threads | device | against | | measured | fastest – slowest | must be | holds | runs |", "|---|---|---|---|---|---|---|---|---|---|"]
    for threads in ["one", "two"]:
        mine, other = (f"round trip/{who}, {threads} thread{'s' * (threads == 'two')}" for who in ["device", "mpsc and oneshot"])
        ratios = sorted(run[mine] / run[other] for run in runs)
        lines.append(device_row("a command of 0 bytes", threads, runs, mine, "mpsc and oneshot", other, ratios, "≤ 2.00 ×", median(ratios) <= 2))
    for threads in ["one", "two"]:
        mine = f"1 MiB/device, {threads} thread{'s' * (threads == 'two')}"
        ratios = sorted(run["1 MiB/memcpy"] / run[mine] for run in runs)
        lines.append(device_row("1 MiB", threads, runs, mine, "memcpy", "1 MiB/memcpy", ratios, "≥ 0.80 ×", median(ratios) >= 0.8))
    return [*lines, ""]


def device_row(work, threads, runs, mine, against, other, ratios, must, holds):
    micros = lambda key: f"{median(run[key] for run in runs) * 1e6:.2f} µs"
    return (f"| {work} | {threads} | {micros(mine)} | {against} | {micros(other)} | {median(ratios):.2f} × | {ratios[0]:.2f} – {ratios[-1]:.2f} "
            f"| {must} | {'yes' if holds else '**no**'} | {len(runs)} |")


def alone(tools, against, what):
    of = tools.get(cases.ALONE.name) or tools.get(cases.ALONE_BACK.name)
    return f"{of[what] / tools[against][what]:.2f} ×" if of and "cat" not in against.split()[0] else ""


def latency(path):
    if not path.exists():
        return []
    walls = {}
    for line in map(json.loads, path.read_text().splitlines()):
        walls.setdefault((line["work"], line["store"]), []).append(line["wall"])
    lines = ["## How soon", "", "The whole process, from its start.", "", "| work | store | ms | fastest – slowest | runs |", "|---|---|---|---|---|"]
    for (work, store), of in walls.items():
        lines.append(f"| {work} | {store} | {median(of) * 1e3:.0f} | {min(of) * 1e3:.0f} – {max(of) * 1e3:.0f} | {len(of)} |")
    return [*lines, ""]


def memory(path):
    if not path.exists():
        return []
    peaks = {}
    for line in map(json.loads, path.read_text().splitlines()):
        peaks[(line["work"], line["data"], line["store"], line["limit_mib"], line["gib"])] = line["rss"]
    sizes = sorted({key[4] for key in peaks})
    lines = ["## Peak memory by the length of the stream", "", 
             "One stripe; the limit is `--memory`, the peak is the kernel's. At most 32 MiB more than the limit, and within 5 %.", "",
             "| work | data | store | limit, MiB | " + " | ".join(f"{size} GiB, MiB" for size in sizes) + " | longest ÷ shortest | holds |",
             "|---|---|---|---|" + "---|" * (len(sizes) + 2)]
    for work, source, store, limit in sorted({key[:4] for key in peaks}):
        of = [peaks.get((work, source, store, limit, size)) for size in sizes]
        if all(of):
            cells = " | ".join(f"{peak / MIB:.1f}" for peak in of)
            holds = max(of) <= (limit + 32) * MIB and 0.95 <= of[-1] / of[0] <= 1.05
            lines.append(f"| {work} | {source} | {store} | {limit} | {cells} | {of[-1] / of[0]:.3f} | {'yes' if holds else '**no**'} |")
    return [*lines, ""]


def commits(path):
    found = {json.loads(line).get("commit", "an earlier one") for line in path.read_text().splitlines()}
    return ", ".join(sorted(found))


def group_table(name, tools, of_ours):
    ours = tools.get("vdstream", {}).get("wall")
    lines = [f"## {name}", "", f"Our commit: {of_ours}.", "", "| tool | wall, s | fastest – slowest | ours ÷ it | CPU, s | peak memory, MiB | stored, MB | server CPU, s | runs |",
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

{day}, on {machine}. Data: {data}; all of it in the page cache. Medians of alternating runs on an otherwise idle machine;
zstd level 3 but where another is named, and restic's own default. CPU is user and system time of the tool's whole process tree; memory is the sum over
its processes. The tools that do not sync what they write are followed by `sync FILE` inside the measured time, unless the row says otherwise. Servers run
on the same two cores. How to repeat it is in [the README](../README.md); the raw numbers are beside this file.

Tools: {tools}.
"""
