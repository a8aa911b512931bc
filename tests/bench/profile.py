#!/usr/bin/env python3
"""Where a server's CPU goes while it issues: perf (Debian's linux-perf) over all its processes, 32 connections.

    tests/bench/run.sh profile [--key p256] [--count 12000] [--work DIR]

For each role: its CPU a certificate as bench.py counts it, then functions with all that they call, as their part of
that role's samples. Libraries have no debugging symbols here, so of them only what they export has a name."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from bench import FULL, prepare  # noqa: E402
from processes import heed_signals  # noqa: E402
from signet_site import BUILD, wait_for  # noqa: E402

FRAME = re.compile(r"^\s+[0-9a-f]+ (.*) \((.*)\)$")


def record(site, data, work):
    """Runs work() with perf over every process of the site."""
    pids = ",".join(str(pid) for pid in site.processes())
    perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf,8192", "-o", data,
                             "-p", pids], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(data.exists, "perf records")
    time.sleep(0.5)
    try:
        return work()
    finally:
        perf.terminate()
        perf.wait(120)


def samples(data):
    """For each sample its program, and its frames from the innermost: [(function, object)]."""
    script = subprocess.Popen(["perf", "script", "-i", data, "--no-inline", "-F", "comm,ip,sym,dso"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    program, frames = None, []
    for line in script.stdout:
        frame = FRAME.match(line)
        if frame:
            frames.append((frame[1], frame[2].rsplit("/", 1)[-1]))
        elif line.strip():
            program = line.strip()
        elif program:
            yield program, frames
            program, frames = None, []
    script.wait()


def counted(data):
    """{program: (samples, {object: own samples}, {(function, object): samples with callees})}"""
    found = {}
    for program, frames in samples(data):
        total, own, inclusive = found.setdefault(program, ([0], Counter(), Counter()))
        total[0] += 1
        own[frames[0][1] if frames else "?"] += 1
        inclusive.update(set(frames))
    return found


def show(counts, used, least):
    """used: microseconds a certificate."""
    (total,), own, inclusive = counts
    print("  itself in: " + ", ".join(f"{dso} {used * n / total:.0f} us" for dso, n in own.most_common(6)))
    for (symbol, dso), n in inclusive.most_common():
        if n * 100 >= least * total and symbol != "[unknown]":
            print(f"  {used * n / total:7.1f} us {100 * n / total:5.1f} %  {dso:<24} {symbol}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", choices=("rsa", "p256"), default="p256")
    parser.add_argument("--work", type=Path, help="where the state is made; default: the build folder")
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--least", type=float, default=1.0, help="percent of a role, below which nothing is shown")
    o = parser.parse_args()
    heed_signals()
    work = Path(tempfile.mkdtemp(prefix="profile-", dir=o.work or BUILD))
    try:
        bench = prepare(work, FULL)
        with bench.site(o.key, "profile").begin() as site:
            data = work / "perf.data"
            found = record(site, data, lambda: site.issue(bench.pool, 500, o.count, 32, 500))
        counts = counted(data)
        print(f"{found['rate']:.0f}/s, {found['cpu_us']:.0f} us of CPU a certificate (with perf)")
        for role, used in sorted(found["cpu_us_by_role"].items(), key=lambda r: -r[1]):
            name = "signetd" if role == "supervisor" else f"signet-{role}"[:15]
            print(f"\n{role}: {used:.0f} us")
            if name in counts:
                show(counts[name], used, o.least)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
