"""From the collected measurements to `results/table.md` and `results/chart.svg`."""

import itertools
import json
import platform
from pathlib import Path
from statistics import median

from . import cases, chart, data

MIB = 1 << 20

# What must hold: the work, groups, our tool is measured against this one, at most so many times of it.
WALL, CPU = "wall", "cpu"
LEAST_RUNS = 5
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
    groups, stamps = {}, {}
    for group in cases.GROUPS:
        of_group = lines(results / f"{group.name}.jsonl")
        if of_group:
            groups[group.name] = summarise(group, of_group)
            stamps[group.name] = stamp(of_group)
    versions = results / "versions.json"
    found = json.loads(versions.read_text()).values() if versions.exists() else ["not known"]
    text = [HEAD.format(machine=machine(), data=described(), tools=", ".join(found))]
    text += must(groups)
    text += device(lines(results / "device.jsonl"))
    text += latency(lines(results / "latency.jsonl"))
    text += memory(lines(results / "memory.jsonl"))
    for name, tools in groups.items():
        text += group_table(name, tools, stamps[name])
    (results / "table.md").write_text("\n".join(text) + "\n")
    (results / "chart.svg").write_text(chart.draw(groups))
    print("\n".join(text))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest(of):
    """Those of the last commit that was measured: numbers of two programs make no median."""
    return [line for line in of if line["commit"] == of[-1]["commit"]]


def stamp(of):
    """Which programs were measured, and when."""
    return "Measured at " + ", ".join(dict.fromkeys(f"`{line['commit']}` on {line['day']}" for line in of)) + "."


def summarise(group, of):
    tools = {}
    for tool in group.tools:
        mine = [line for line in of if line["tool"] == tool.name]
        if mine:
            mine = newest(mine)
            # Lines of old do not have the last two.
            middle = {key: median(line[key] for line in mine) if all(key in line for line in mine) else None
                      for key in ["wall", "cpu", "rss", "server_cpu", "idle", "stolen"]}
            walls = [line["wall"] for line in mine]
            stored = mine[-1].get("stored")
            tools[tool.name] = {**middle, "least": min(walls), "most": max(walls), "runs": len(mine), "stored": stored,
                                "commit": mine[-1]["commit"]}
    return tools


def must(groups):
    lines = ["## What must hold", "", "The last two columns say what bounds it, in the same measure: our CPU time and the server's if both cores were busy with it from",
             "beginning to end, and what zstd takes alone, with nothing to write to.", "",
             "| work | data | ours | against | of | measured | at most | holds | no core idle | zstd alone |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    beside = []
    for work, prefix, ours, against, what, limit in MUST:
        for group in cases.GROUPS:
            if not group.name.startswith(prefix):
                continue
            tools = groups.get(group.name, {})
            row = f"| {work} | {group.data} | `{ours}` | `{against.replace('|', chr(92) + '|')}` | {what} "
            # Incompressible data has a row of its own.
            is_beside = group.data == "random" and not prefix.endswith("random")
            if not are_comparable(tools, ours, against):
                row += f"| not measured | {limit:.2f} × | | | |"
            else:
                ratio = tools[ours][what] / tools[against][what]
                holds = "" if is_beside else verdict(ratio <= limit)
                row += f"| {ratio:.2f} × | {limit:.2f} × | {holds} | {no_idle(tools, ours, against, what)} | {alone(tools, against, what)} |"
            (beside if is_beside else lines).append(row)
    return [*lines, "", "The same of random bytes, which zstd does not shrink: these limits are about data that it does, and the last row above is about this.", "",
            *lines[5:7], *beside, ""]


def are_comparable(tools, *names):
    """Whether they ran in turn, often enough."""
    found = [tools[name] for name in names if name in tools]
    return len(found) == len(names) and len({of["commit"] for of in found}) == 1 and all(of["runs"] >= LEAST_RUNS for of in found)


def no_idle(tools, ours, against, what):
    of = tools[ours]
    return f"{(of['cpu'] + of['server_cpu']) / cores() / tools[against][what]:.2f} ×" if what == WALL else ""


def verdict(holds):
    return "yes" if holds else "**no**"


def device(runs):
    """Medians of the runs of `cargo bench --bench device`, each beside its own measure of what the machine can do."""
    if not runs:
        return ["## Devices in process", "", "Not measured.", ""]
    runs = newest(runs)
    lines = ["## Devices in process", "", stamp(runs), "",
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
            f"| {must} | {verdict(holds)} | {len(runs)} |")


def alone(tools, against, what):
    of = tools.get(cases.ALONE.name) or tools.get(cases.ALONE_BACK.name)
    return f"{of[what] / tools[against][what]:.2f} ×" if of and not against.startswith("cat ") else ""


def latency(of):
    if not of:
        return ["## How soon", "", "Not measured.", ""]
    of, walls = newest(of), {}
    for line in of:
        walls.setdefault((line["work"], line["store"]), []).append(line["wall"])
    lines = ["## How soon", "", stamp(of), "", "From the start of the process to its end, or to the first byte of its output.", "", "| work | store | ms | fastest – slowest | runs |", "|---|---|---|---|---|"]
    for (work, store), each in walls.items():
        lines.append(f"| {work} | {store} | {median(each) * 1e3:.0f} | {min(each) * 1e3:.0f} – {max(each) * 1e3:.0f} | {len(each)} |")
    return [*lines, ""]


def memory(of):
    if not of:
        return ["## Peak memory by the length of the stream", "", "Not measured.", ""]
    peaks, sizes = {}, sorted({line["gib"] for line in of})
    for line in of:
        kind = (line["work"], line["data"], line["store"], line["limit_mib"])
        # Of one program: what an older one took says nothing of how memory grows.
        peaks.setdefault((kind, line["commit"]), {})[line["gib"]] = line["rss"]
    newest_of = {kind: found for (kind, _), found in peaks.items()}
    lines = ["## Peak memory by the length of the stream", "", stamp(of), "",
             "One run each, of one stripe; the limit is `--memory`, the peak is the kernel's. At most 32 MiB more than the limit, and within 5 %.", "",
             "| work | data | store | limit, MiB | " + " | ".join(f"{size} GiB, MiB" for size in sizes) + " | longest ÷ shortest | holds |",
             "|---|---|---|---|" + "---|" * (len(sizes) + 2)]
    # Also what was not measured.
    for work, source, store, limit in itertools.product(["backup", "restore"], data.SIZES, ["file", "s3"], [64, 256]):
        found = [newest_of.get((work, source, store, limit), {}).get(size) for size in sizes]
        row = f"| {work} | {source} | {store} | {limit} | " + " | ".join(f"{peak / MIB:.1f}" if peak else "not measured" for peak in found)
        if all(found) and len(sizes) > 1:
            holds = max(found) <= (limit + 32) * MIB and 0.95 <= found[-1] / found[0] <= 1.05
            lines.append(f"{row} | {found[-1] / found[0]:.3f} | {verdict(holds)} |")
        else:
            lines.append(f"{row} | | |")
    return [*lines, ""]


def group_table(name, tools, measured):
    ours = tools.get("vdstream", {}).get("wall")
    lines = [f"## {name}", "", measured, "", "| tool | wall, s | fastest – slowest | ours ÷ it | CPU, s | peak memory, MiB | stored, MB | server CPU, s | idle, s | stolen, s | runs |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for tool, of in tools.items():
        ratio = f"{ours / of['wall']:.2f}" if ours else ""
        stored = f"{of['stored'] / 1e6:.1f}" if of["stored"] else ""
        server = f"{of['server_cpu']:.2f}" if of["server_cpu"] else ""
        lines.append(f"| {tool.replace('|', chr(92) + '|')} | {of['wall']:.2f} | {of['least']:.2f} – {of['most']:.2f} | {ratio} | {of['cpu']:.2f} "
                     f"| {of['rss'] / MIB:.0f} | {stored} | {server} | {seconds(of['idle'])} | {seconds(of['stolen'])} | {of['runs']} |")
    return [*lines, ""]


def seconds(of):
    return "" if of is None else f"{of:.2f}"


def cores():
    return len(models())


def models():
    return [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]


def machine():
    cpus = models()
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{len(cpus)} × {cpus[0].split(': ')[1]}, {memory_kib >> 20} GiB, Linux {platform.release()}, one virtual disk"


def described():
    return ", ".join(f"{name} {data.SIZES[name] / 1e6:.0f} MB" for name in data.SIZES)


HEAD = """# Measured beside other tools

On {machine}. Data: {data}; all of it in the page cache. Medians of alternating runs on an otherwise idle machine;
zstd level 3 but where another is named, and restic's own default. CPU is user and system time of the tool's whole process tree; memory is the sum over
its processes. Idle is what the cores had nothing to do within the run, stolen what the host of this virtual machine gave to others; both are of all
cores. The tools that do not sync what they write are followed by `sync FILE` inside the measured time, unless the row says otherwise. Servers run
on the same two cores. How to repeat it is in [the README](../README.md); the raw numbers are beside this file.

Tools: {tools}.
"""
