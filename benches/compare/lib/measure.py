"""One run of one command: wall time, CPU seconds and peak memory of its process tree, CPU seconds of the server."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

from . import data

TOUCHED = 1_300_000_000
TICKS = os.sysconf("SC_CLK_TCK")


class Place:
    """A directory for outputs, the servers, and the variables that the tools need."""

    def __init__(self, found):
        self.found = found
        self.directory = Path(tempfile.mkdtemp(dir=data.DATA))
        self.number = 0
        self.s3 = os.environ["VDSTREAM_TEST_GARAGE"]
        self.azure = os.environ["VDSTREAM_TEST_AZURITE"]
        env = dict(os.environ)
        # What each tool reads; the keys are the servers' constants.
        env["S3_ENDPOINT_URL"] = self.s3
        env["RESTIC_PASSWORD"] = "compare"
        env["RESTIC_CACHE_DIR"] = str(self.directory / "restic-cache")
        env.update(RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_AZ_TYPE="azureblob",
                   RCLONE_CONFIG_AZ_ACCOUNT=env["AZURE_STORAGE_ACCOUNT_NAME"],
                   RCLONE_CONFIG_AZ_KEY=env["AZURE_STORAGE_ACCOUNT_KEY"], RCLONE_CONFIG_AZ_ENDPOINT=self.azure)
        env.update(RCLONE_CONFIG_S3_TYPE="s3", RCLONE_CONFIG_S3_PROVIDER="Other", RCLONE_CONFIG_S3_ENV_AUTH="true",
                   RCLONE_CONFIG_S3_ENDPOINT=self.s3, RCLONE_CONFIG_S3_REGION=env["AWS_REGION"])
        for program in ["zstd", "restic", "rclone", "s5cmd", "aws", "vdstream", "by-hand"]:
            env[program.replace("-", "_").upper()] = found[program]
        self.env = env
        self.server_pids = {"s3": listener(self.s3), "azure": listener(self.azure)}

    def fresh(self):
        """A name that no run had before."""
        self.number += 1
        return f"{os.getpid()}-{self.number}"

    def bash(self, script, variables, check=True):
        env = {**self.env, **variables}
        done = subprocess.run(["bash", "-o", "pipefail", "-euc", script], env=env, cwd=self.directory,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode != 0:
            sys.stderr.buffer.write(done.stdout)
            sys.exit(f"failed: {script}")
        return done.stdout.decode(errors="replace")

    def settle(self):
        """Everything is on disk, and the memory that the next run's files need is at hand.

        On a virtual machine whose host takes free memory back, the first use of a page costs several times what a copy does, and
        whoever runs after a short pause would pay for it. So pages are touched and freed before each run.
        """
        self.bash("sync", {})
        subprocess.run([sys.executable, "-c", f"b'1' * {TOUCHED}"], check=True)

    def forget_blocks(self):
        """Garage keeps a block once, by its hash, and for some minutes after its last object is gone: whoever stores what was stored
        before would write nothing. So the blocks go with the objects, and each run writes all of its own."""
        arguments = Path(f"/proc/{self.server_pids['s3']}/cmdline").read_text().split("\0")
        config = tomllib.loads(Path(arguments[arguments.index("-c") + 1]).read_text())
        self.bash(f'find "{config["data_dir"]}" -type f -size +0 -delete', {}, check=False)

    def measure(self, script, variables, store):
        """Runs `script`; the numbers of its whole process tree, and of the server of `store`."""
        server = self.server_pids.get(store)
        before = server and cpu_of(server)
        idle, stolen = unused()
        stderr = tempfile.TemporaryFile()
        start = time.monotonic()
        process = subprocess.Popen(["bash", "-o", "pipefail", "-euc", script], env={**self.env, **variables},
                                   cwd=self.directory, stdout=stderr, stderr=stderr)
        peak = Peak(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        peak.stop()
        idle_end, stolen_end = unused()
        if process.returncode != 0:
            stderr.seek(0)
            sys.stderr.buffer.write(stderr.read())
            sys.exit(f"failed: {script}")
        return {
            "wall": wall,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss": peak.bytes,
            # Of the largest process alone, exact: the kernel's own number, which is never less than what this program had.
            "rss_one": usage.ru_maxrss << 10,
            "server_cpu": cpu_of(server) - before if server else 0.0,
            # Of all cores, within the time of the run.
            "idle": idle_end - idle,
            "stolen": stolen_end - stolen,
        }

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class Peak:
    """The peak memory of a process tree: the sum over its processes of the most that each one had."""

    def __init__(self, root):
        self.root, self.most, self.done = root, {}, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.done.wait(0.02):
            for pid in tree(self.root):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.most[pid] = max(self.most.get(pid, 0), int(line.split()[1]) << 10)

    def stop(self):
        self.done.set()
        self.thread.join()

    @property
    def bytes(self):
        # The shell that runs the script is no part of the tool.
        return sum(size for pid, size in self.most.items() if pid != self.root) or sum(self.most.values())


def tree(root):
    found, open_ = [], [root]
    while open_:
        pid = open_.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                open_ += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def unused():
    """Seconds that the cores had nothing to do, and that the host of a virtual machine gave to others, so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (fields[3] + fields[4]) / TICKS, fields[7] / TICKS


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def listener(endpoint):
    """The process that listens on the port of `endpoint`."""
    port = int(endpoint.split(":")[2].split("/")[0])
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    return int(pid)
        except OSError:
            continue
    sys.exit(f"nobody listens at {endpoint}")
