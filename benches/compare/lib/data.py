"""What is backed up: made once, kept under ${VDSTREAM_COMPARE_DATA:-~/.cache/vdstream/compare}."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import tools

DATA = Path(os.environ.get("VDSTREAM_COMPARE_DATA") or Path.home() / ".cache/vdstream/compare")
MB = 1_000_000
SIZES = {"postgres": 1000 * MB, "toolchain": 620 * MB, "random": 500 * MB}


def path(name):
    return DATA / f"{name}.bin"


def make():
    DATA.mkdir(parents=True, exist_ok=True)
    for name, maker in [("postgres", postgres), ("toolchain", toolchain), ("random", random)]:
        if not path(name).exists():
            partial = path(name).with_suffix(".partial")
            maker(partial)
            if partial.stat().st_size != SIZES[name]:
                sys.exit(f"{partial} has {partial.stat().st_size} bytes, {SIZES[name]} were wanted")
            partial.rename(path(name))


def postgres(target):
    """A base backup of a database that pgbench filled and ran on, cut to a round size."""
    bin_dir = Path(shutil.which("/usr/lib/postgresql/15/bin/initdb")).parent
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        # PostgreSQL refuses to run as root.
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        if user:
            os.chmod(DATA, 0o755)
            for parent in DATA.parents:
                if not parent.stat().st_mode & 0o001:
                    sys.exit(f"{parent} must be passable for the user that runs PostgreSQL: set VDSTREAM_COMPARE_DATA")
            shutil.chown(directory, 65534, 65534)
        run = lambda *command: tools.quietly(*user, "env", f"HOME={directory}", *command)
        cluster, socket = f"{directory}/cluster", f"{directory}"
        run(bin_dir / "initdb", "--no-sync", "-U", "bench", "-D", cluster)
        options = f"-k {socket} -c listen_addresses= -c fsync=off -c max_wal_size=4GB"
        run(bin_dir / "pg_ctl", "-w", "-D", cluster, "-l", f"{directory}/log", "-o", options, "start")
        try:
            connect = ["-h", socket, "-U", "bench"]
            run(bin_dir / "pgbench", *connect, "-q", "-i", "-s", "66", "postgres")
            run(bin_dir / "pgbench", *connect, "-c", "4", "-t", "5000", "postgres")
            backup = [bin_dir / "pg_basebackup", *connect, "-D", "-", "-Ft", "-X", "none", "-c", "fast"]
            cut(" ".join(map(str, [*user, *backup])), target, SIZES["postgres"])
        finally:
            run(bin_dir / "pg_ctl", "-w", "-D", cluster, "-m", "immediate", "stop")


def toolchain(target):
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    cut(f"tar -c --sort=name --mtime=@0 --owner=0 --group=0 -C '{sysroot}' lib bin", target, SIZES["toolchain"])


def random(target):
    cut("cat /dev/urandom", target, SIZES["random"])


def cut(command, target, size):
    # The producer may die of a closed pipe; the size is checked.
    subprocess.run(["bash", "-c", f"{command} 2>/dev/null | head -c {size} > '{target}'"])
