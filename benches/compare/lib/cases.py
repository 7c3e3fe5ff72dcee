"""What is compared: groups of tools that do the same work on the same data."""

import datetime
import itertools
import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from . import data, tools

ZSTD = '"$ZSTD" -q -T0 -3 -c < "$IN"'


@dataclass(frozen=True)
class Tool:
    """Shell scripts. $IN is the data, $OUT a directory, $NAME a name in the bucket that no other run has."""

    name: str
    run: str
    # Before the clock starts; for a restore once, in $OUT and under $NAME that all rounds share.
    prepare: str = ""
    # Prints the bytes that are stored.
    stored: str = ""
    clean: str = ""
    # Of a restore: the file that it writes.
    output: str = ""


@dataclass(frozen=True)
class Group:
    name: str
    data: str
    store: str
    tools: tuple

    @property
    def is_restore(self):
        return self.name.startswith("restore")

    def without(self, texts):
        """The same with fewer tools."""
        return replace(self, tools=tuple(tool for tool in self.tools if not any(text in tool.name for text in texts)))


FILE_STORED = 'find "$OUT" -type f -printf "%s\\n" | awk \'{ s += $1 } END { print s }\''
S3_STORED = '"$S5CMD" du "s3://vdstream/$NAME*" | awk \'{ print $1 }\''
S3_CLEAN = '"$S5CMD" rm "s3://vdstream/$NAME*" > /dev/null'
AZURE_STORED = '"$RCLONE" size --json "AZ:vdstream/$NAME" | python3 -c \'import json, sys; print(json.load(sys.stdin)["bytes"])\''
AZURE_CLEAN = '"$RCLONE" purge "AZ:vdstream/$NAME"'


def to_file(name, run, prepare=""):
    return Tool(name, run, prepare, FILE_STORED)


def to_s3(name, run, prepare=""):
    return Tool(name, run, prepare, S3_STORED, S3_CLEAN)


def of(tools, name):
    return next(tool for tool in tools if tool.name == name)


def to_azure(name, run):
    return Tool(name, run, "", AZURE_STORED, AZURE_CLEAN)


# The same compressor with nothing to do but that: what a pipeline around it can hardly be faster than.
ALONE = Tool("zstd -T0 alone", f"{ZSTD} > /dev/null")
FASTER = '"$VDSTREAM" backup --quiet --level 1'

# Every tool syncs what it wrote to a disk: vdstream and restic by themselves, the others by `sync` of the file.
FILE_BACKUPS = (
    to_file("vdstream", '"$VDSTREAM" backup --quiet "file://$OUT/store" - < "$IN"'),
    to_file("vdstream --level 1", f'{FASTER} "file://$OUT/store" - < "$IN"'),
    ALONE,
    to_file("zstd -T0 > file", f'{ZSTD} > "$OUT/z"; sync "$OUT/z"'),
    to_file("zstd -T0 | rclone rcat", f'{ZSTD} | "$RCLONE" rcat "$OUT/z"; sync "$OUT/z"'),
    to_file("by hand", '"$BY_HAND" backup "file://$OUT/z" < "$IN"; sync "$OUT/z"'),
    to_file("restic", '"$RESTIC" -q -r "$OUT/r" backup --stdin < "$IN"',
            '"$RESTIC" -q -r "$OUT/r" init --repository-version 2'),
)
CAT = to_file("cat > file", 'cat < "$IN" > "$OUT/c"; sync "$OUT/c"')
S3_BACKUPS = (
    to_s3("vdstream", '"$VDSTREAM" backup --quiet "s3://vdstream/$NAME" - < "$IN"'),
    to_s3("vdstream --level 1", f'{FASTER} "s3://vdstream/$NAME" - < "$IN"'),
    ALONE,
    to_s3("zstd -T0 | s5cmd pipe", f'{ZSTD} | "$S5CMD" pipe "s3://vdstream/$NAME"'),
    to_s3("zstd -T0 | rclone rcat", f'{ZSTD} | "$RCLONE" rcat "S3:vdstream/$NAME"'),
    to_s3("zstd -T0 | aws s3 cp -", f'{ZSTD} | "$AWS" s3 cp --quiet - "s3://vdstream/$NAME"'),
    to_s3("by hand", '"$BY_HAND" backup "s3://vdstream/$NAME" < "$IN"'),
    to_s3("restic", '"$RESTIC" -q -r "s3:$S3_ENDPOINT_URL/vdstream/$NAME" backup --stdin < "$IN"',
          '"$RESTIC" -q -r "s3:$S3_ENDPOINT_URL/vdstream/$NAME" init --repository-version 2'),
)
AZURE_BACKUPS = (
    to_azure("vdstream", '"$VDSTREAM" backup --quiet "az://vdstream/$NAME" - < "$IN"'),
    to_azure("zstd -T0 | rclone rcat", f'{ZSTD} | "$RCLONE" rcat "AZ:vdstream/$NAME/z"'),
    to_azure("by hand", '"$BY_HAND" backup "az://vdstream/$NAME/z" < "$IN"'),
)

# A restore of vdstream ends with a sync of the file unless it is told not to; `zstd -d` runs with one and without, too.
WARM = 'find "$OUT" -type f -exec cat {} + > /dev/null'
COMPRESSED = f'{ZSTD} > "$OUT/z"; {WARM}'
ALONE_BACK = Tool("zstd -d alone", '"$ZSTD" -q -d -c < "$OUT/z" > /dev/null', COMPRESSED)
# The disk alone, for what ends with a sync.
COPY = Tool("cat > file, sync", 'cat < "$IN" > "$OUT/out"; sync "$OUT/out"', output="out")
FILE_RESTORES = (
    Tool("vdstream", '"$VDSTREAM" restore --quiet "file://$OUT/store" latest --output "$OUT/out"',
         f'{FILE_BACKUPS[0].run}; {WARM}', output="out"),
    Tool("vdstream --no-sync", '"$VDSTREAM" restore --quiet --no-sync "file://$OUT/store" latest --output "$OUT/out"',
         f'{FILE_BACKUPS[0].run}; {WARM}', output="out"),
    ALONE_BACK,
    Tool("zstd -d", '"$ZSTD" -q -d -c < "$OUT/z" > "$OUT/out"', COMPRESSED, output="out"),
    Tool("zstd -d, sync", '"$ZSTD" -q -d -c < "$OUT/z" > "$OUT/out"; sync "$OUT/out"', COMPRESSED, output="out"),
    Tool("by hand, sync", '"$BY_HAND" restore "file://$OUT/z" > "$OUT/out"; sync "$OUT/out"',
         f'{of(FILE_BACKUPS, "by hand").run}; {WARM}', output="out"),
    Tool("restic, sync", '"$RESTIC" -q -r "$OUT/r" dump latest stdin > "$OUT/out"; sync "$OUT/out"',
         f'{of(FILE_BACKUPS, "restic").prepare}; {of(FILE_BACKUPS, "restic").run}; {WARM}', output="out"),
)
S3_RESTORES = (
    Tool("vdstream", '"$VDSTREAM" restore --quiet "s3://vdstream/$NAME" latest --output "$OUT/out"',
         S3_BACKUPS[0].run, clean=S3_CLEAN, output="out"),
    Tool("vdstream --no-sync", '"$VDSTREAM" restore --quiet --no-sync "s3://vdstream/$NAME" latest --output "$OUT/out"',
         S3_BACKUPS[0].run, clean=S3_CLEAN, output="out"),
    ALONE_BACK,
    Tool("s5cmd cat | zstd -d", '"$S5CMD" cat "s3://vdstream/$NAME" | "$ZSTD" -q -d -c > "$OUT/out"',
         of(S3_BACKUPS, "zstd -T0 | s5cmd pipe").run, clean=S3_CLEAN, output="out"),
    Tool("s5cmd cat | zstd -d, sync",
         '"$S5CMD" cat "s3://vdstream/$NAME" | "$ZSTD" -q -d -c > "$OUT/out"; sync "$OUT/out"',
         of(S3_BACKUPS, "zstd -T0 | s5cmd pipe").run, clean=S3_CLEAN, output="out"),
    Tool("aws s3 cp | zstd -d, sync",
         '"$AWS" s3 cp --quiet "s3://vdstream/$NAME" - | "$ZSTD" -q -d -c > "$OUT/out"; sync "$OUT/out"',
         of(S3_BACKUPS, "zstd -T0 | aws s3 cp -").run, clean=S3_CLEAN, output="out"),
    Tool("by hand, sync", '"$BY_HAND" restore "s3://vdstream/$NAME" > "$OUT/out"; sync "$OUT/out"',
         of(S3_BACKUPS, "by hand").run, clean=S3_CLEAN, output="out"),
    Tool("restic, sync",
         '"$RESTIC" -q -r "s3:$S3_ENDPOINT_URL/vdstream/$NAME" dump latest stdin > "$OUT/out"; sync "$OUT/out"',
         f'{of(S3_BACKUPS, "restic").prepare}; {of(S3_BACKUPS, "restic").run}', clean=S3_CLEAN, output="out"),
)
AZURE_RESTORES = (
    Tool("vdstream", '"$VDSTREAM" restore --quiet "az://vdstream/$NAME" latest --output "$OUT/out"',
         AZURE_BACKUPS[0].run, clean=AZURE_CLEAN, output="out"),
    Tool("rclone cat | zstd -d, sync",
         '"$RCLONE" cat "AZ:vdstream/$NAME/z" | "$ZSTD" -q -d -c > "$OUT/out"; sync "$OUT/out"',
         AZURE_BACKUPS[1].run, clean=AZURE_CLEAN, output="out"),
    Tool("by hand, sync", '"$BY_HAND" restore "az://vdstream/$NAME/z" > "$OUT/out"; sync "$OUT/out"',
         AZURE_BACKUPS[2].run, clean=AZURE_CLEAN, output="out"),
)

BACKUPS = {"file": FILE_BACKUPS, "s3": S3_BACKUPS, "azure": AZURE_BACKUPS}
RESTORES = {"file": (*FILE_RESTORES, COPY), "s3": (*S3_RESTORES, COPY), "azure": AZURE_RESTORES}
GROUPS = [
    Group(f"{work}-{store}-{source}", source, store,
          (*tools[store], CAT) if (work, store, source) == ("backup", "file", "random") else tools[store])
    for work, tools in [("backup", BACKUPS), ("restore", RESTORES)]
    for store in tools
    for source in ["postgres", "toolchain", "random"]
]


def stamp():
    """What was measured, and when: a part of each line of the results."""
    return {"commit": tools.commit(), "day": datetime.date.today().isoformat()}


def append(target, line):
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a") as lines:
        print(json.dumps({**line, **stamp()}), file=lines)


def forget(target, is_old):
    """Removes the lines of the results that are measured again."""
    if target.exists():
        lines = [line for line in target.read_text().splitlines() if not is_old(json.loads(line))]
        target.write_text("".join(line + "\n" for line in lines))


def run(group, place, rounds, results, fresh):
    """Runs every tool of `group` once per round, each round in another order; appends to the results."""
    target = results / f"{group.name}.jsonl"
    if fresh:
        names = {tool.name for tool in group.tools}
        forget(target, lambda line: line["tool"] in names)
    source = data.path(group.data)
    # Both kinds of input are in memory from here on: what is compared are tools, not the first read of a disk.
    place.bash('cat "$IN" > /dev/null', {"IN": str(source)})
    shared = {}
    if group.is_restore:
        for tool in group.tools:
            shared[tool.name] = variables(place, source)
            place.bash(tool.prepare, shared[tool.name])
    for round_ in range(rounds):
        # Mixed, so that nobody always runs after the same neighbour; the same in every run of this script.
        for tool in random.Random(f"{group.name} {round_}").sample(group.tools, len(group.tools)):
            settings = shared.get(tool.name) or variables(place, source)
            if not group.is_restore:
                place.bash(tool.prepare or "true", settings)
            place.settle()
            numbers = place.measure(tool.run, settings, group.store)
            if tool.stored:
                numbers["stored"] = int(place.bash(tool.stored, settings))
            if tool.output:
                # Slow beside the runs themselves, so only the first result is compared.
                if round_ == 0:
                    place.bash(f'cmp "$OUT/{tool.output}" "$IN"', settings)
                place.bash(f'rm "$OUT/{tool.output}"', settings)
            append(target, {"tool": tool.name, "round": round_, **numbers})
            print(f"{group.name:24} {tool.name:26} {numbers['wall']:6.2f} s  {numbers['cpu']:6.2f} CPU s  "
                  f"{numbers['rss'] >> 20:5} MiB", file=sys.stderr, flush=True)
            if not group.is_restore:
                remove(place, tool, settings)
    for tool in group.tools:
        if tool.name in shared:
            remove(place, tool, shared[tool.name])


def variables(place, source):
    name = place.fresh()
    out = place.directory / name
    out.mkdir()
    return {"IN": str(source), "OUT": str(out), "NAME": name}


def remove(place, tool, settings):
    if tool.clean:
        place.bash(tool.clean, settings, check=False)
        place.forget_blocks()
    shutil.rmtree(settings["OUT"])


def memory(place, gibibytes, wanted, results, fresh):
    """Peak memory of vdstream alone: backup and restore, disk and S3, at two limits, by the length of the stream."""
    target = results / "memory.jsonl"
    # The same data again and again; the shell's own memory is far below ours, so the tree's largest process is ours.
    endless = 'while cat "$IN"; do :; done | head -c "$BYTES"'
    for source, store, limit in itertools.product(["postgres", "random", "toolchain"], ["file", "s3"], [64, 256]):
        if wanted and not any(text in f"{store}-{source}" for text in wanted):
            continue
        if fresh:
            forget(target, lambda line: (line["data"], line["store"], line["limit_mib"]) == (source, store, limit))
        for size in gibibytes:
            settings = {**variables(place, data.path(source)), "BYTES": str(size << 30)}
            url = {"file": f"file://{settings['OUT']}/store", "s3": f"s3://vdstream/{settings['NAME']}"}[store]
            tail = f'--quiet --memory {limit}MiB "{url}"'
            works = {
                "backup": f'set +o pipefail; {endless} | "$VDSTREAM" backup {tail} -',
                "restore": f'"$VDSTREAM" restore {tail} latest --output "$OUT/out"',
            }
            for work, script in works.items():
                peak = place.measure(script, settings, store)["rss_one"]
                line = {"work": work, "data": source, "store": store, "limit_mib": limit, "gib": size, "rss": peak}
                append(target, line)
                print(line, file=sys.stderr, flush=True)
            restored = (Path(settings["OUT"]) / "out").stat().st_size
            if restored != size << 30:
                sys.exit(f"{restored} bytes were restored, {size << 30} were wanted")
            if store == "s3":
                place.bash(S3_CLEAN, settings, check=False)
                place.forget_blocks()
            shutil.rmtree(settings["OUT"])


def device(rounds, results, fresh):
    """The bench of devices, several times: what it measures of both sides in one run belongs together."""
    target = results / "device.jsonl"
    if fresh:
        forget(target, lambda _: True)
    metadata = subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=tools.REPOSITORY)
    found = Path(json.loads(metadata)["target_directory"]) / "criterion"
    for round_ in range(rounds):
        subprocess.check_call(["cargo", "bench", "--quiet", "--bench", "device", "--", "--quiet", "--noplot"], cwd=tools.REPOSITORY)
        line = {"round": round_}
        for estimates in found.glob("*/*/new/estimates.json"):
            group, name = json.loads((estimates.parent / "benchmark.json").read_text())["full_id"].split("/")
            short = {"round trip of an empty command": "round trip", "1 MiB transfers": "1 MiB"}.get(group)
            if short:
                line[f"{short}/{name}"] = json.loads(estimates.read_text())["median"]["point_estimate"] / 1e9
        append(target, line)
        print(line, file=sys.stderr, flush=True)


def latency(place, rounds, results, fresh):
    """What is quick: a backup of 1 KiB, its restore, and the first byte of a long restore, on disk and S3."""
    target = results / "latency.jsonl"
    if fresh:
        forget(target, lambda _: True)
    for store in ["file", "s3"]:
        small, long_ = (variables(place, data.path("postgres")) for _ in range(2))
        url = {name: {"file": f"file://{of['OUT']}/store", "s3": f"s3://vdstream/{of['NAME']}"}[store]
               for name, of in [("small", small), ("long", long_)]}
        times = 'date +%s%N >> "$OUT/times"'
        # Both times are taken inside, since the end of the process comes later than the first byte.
        works = {
            "backup of 1 KiB": f'{times}; head -c 1024 "$IN" | "$VDSTREAM" backup --quiet "{url["small"]}" -; {times}',
            "restore of 1 KiB": f'{times}; "$VDSTREAM" restore --quiet "{url["small"]}" latest --output - | wc -c | grep -qx 1024; {times}',
            "first byte of a restore of 1 GB": f'{times}; {{ "$VDSTREAM" restore --quiet "{url["long"]}" latest --output - || true; }} '
                                               f'| {{ head -c 1 | wc -c | grep -qx 1; {times}; }}',
        }
        place.bash(f'"$VDSTREAM" backup --quiet "{url["long"]}" - < "$IN"', long_)
        for round_ in range(rounds):
            place.settle()
            for work, script in works.items():
                place.measure(script, small, store)
                times_file = Path(small["OUT"]) / "times"
                start, end = map(int, times_file.read_text().split())
                times_file.unlink()
                line = {"work": work, "store": store, "round": round_, "wall": (end - start) / 1e9}
                append(target, line)
                print(line, file=sys.stderr, flush=True)
        for of in [small, long_]:
            if store == "s3":
                place.bash(S3_CLEAN, of, check=False)
            shutil.rmtree(of["OUT"])
