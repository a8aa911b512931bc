#!/usr/bin/env python3
"""What grows with the number of certificates, and what does not: stores seeded to each size, all by one CA key.

    tests/bench/run.sh growth [--sizes 1000,1000000] [--key p256] [--rounds 3] [--work DIR] [--json FILE]

In turns, for each size: the time of a start (until /readyz says yes) and its peak memory, PSS of all processes, and the
rate at 32 connections with its CPU. Then once: the sizes on disk, pages of list_certs, signet list as a whole, a CRL
(one certificate in a hundred is revoked), and signetctl audit: at some thousand certificates a second, so not beyond
1,000,000 of them.

Seeded certificates have no file in certs/ (one in ext4 takes 4 KiB and an inode) and a signature of another one; audit
looks for the one and verifies the other as it does for any, and finds both wrong."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import machine  # noqa: E402
from bench import FULL, prepare  # noqa: E402
from crl import measure_builds  # noqa: E402
from processes import Peak, heed_signals, settled_cpu, tree_of  # noqa: E402
from signet_site import BIN, BUILD, tool_environment  # noqa: E402

SEEDED_BYTES = 3000  # of disk for each, index sorting included
WARM, COUNT, SECONDS = 500, 6000, 10  # of one issuing
PAGES = 100
AUDIT_MOST = 1000000  # certificates


# ---- in turns ----

def start(site):
    """(seconds until it is ready, the peak of its largest process in MiB)"""
    begun = time.monotonic()
    site.start(ready=False)
    with Peak(lambda: tree_of(site.process.pid)) as peak:
        site.wait_ready()
        took = time.monotonic() - begun
    return took, peak.mib


def one_round(site, pool, number):
    took, peak = start(site)
    settled_cpu(site.process.pid)  # what the start sets off: a CRL
    pss = site.pss() / 1024
    found = site.issue(pool, 1 + number * (WARM + COUNT), COUNT, 32, WARM, seconds=SECONDS)
    site.stop()
    return {"start_s": took, "start_peak_mib": peak, "pss_mib": pss, "rate": found["rate"], "cpu_us": found["cpu_us"],
            "p99_us": found["p99_us"]}


# ---- once ----

def timed(*command, cwd, codes=(0,)):
    """(seconds, of these CPU, peak in MiB); what it prints goes nowhere."""
    begun = time.monotonic()
    process = subprocess.Popen([str(c) for c in command], cwd=cwd, env=tool_environment(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    with Peak(lambda: [process.pid]) as peak:
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in codes, f"{command}: {process.returncode}"
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, peak.mib


def audit(site):
    """Exit code 6: it has findings, as it must."""
    command = BIN / "signetctl", "--config", site.conf, "audit"
    return dict(zip(("audit_s", "audit_cpu_s", "audit_peak_mib"), timed(*command, cwd=site.dir, codes=(0, 6))))


def pages(site):
    """Milliseconds of a page of 100, the median of some: the first, one near the end, by MAC, revoked ones."""
    (last, name), = site.query("SELECT id, name FROM certificate WHERE name GLOB '70:*' ORDER BY id DESC LIMIT 1")
    wanted = {"first": {}, "late": {"after": str(max(last - 200, 1))}, "mac": {"mac": name}, "revoked": {"state": "revoked"}}
    found = {}
    with site.connect(site.admin) as c:
        for what, fields in wanted.items():
            times = []
            for _ in range(PAGES):
                begun = time.monotonic()
                status, answer = c.ask("list_certs", **fields)
                times.append((time.monotonic() - begun) * 1000)
                assert status == 200 and answer["certificates"], answer
            found[f"page_{what}_ms"] = statistics.median(times)
    return found


def list_all(site):
    command = BIN / "signet", "list", "--json", "--server", f"https://127.0.0.1:{site.port}", "--ca", site.root, \
        "--cert", site.admin.cert, "--key", site.admin.key
    return dict(zip(("list_s", "list_cpu_s", "list_peak_mib"), timed(*command, cwd=site.dir)))


def crl(site):
    entries, seconds, peak = measure_builds(site, 3)
    return {"crl_entries": entries, "crl_bytes": (site.state / "crl.der").stat().st_size, "crl_s": seconds,
            "crl_peak_mib": peak}


def sizes(site):
    """As seeded, with signetd stopped: so the write-ahead log is in the store."""
    files = {"store_mib": "signet.db", "journal_mib": "journal.log"}
    return {name: (site.state / file).stat().st_size / 2**20 for name, file in files.items()}


def once(site, size):
    found = {}
    site.start()
    settled_cpu(site.process.pid)
    for measure in (pages, crl, list_all) + ((audit,) if size <= AUDIT_MOST else ()):
        found.update(measure(site))
    site.stop()
    return found


# ---- the whole ----

def options():
    parser = argparse.ArgumentParser(prog="run.sh growth", description="What grows with the number of certificates.")
    parser.add_argument("--sizes", default="1000,1000000", help="default: %(default)s")
    parser.add_argument("--key", choices=("rsa", "p256"), default="p256", help="the CA's; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the states are made; default: the build folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all numbers go; default: growth-KEY.json there")
    o = parser.parse_args()
    o.sizes = [int(size) for size in o.sizes.split(",")]
    return o


def check_room(where, wanted):
    need, free = sum(wanted) * SEEDED_BYTES, shutil.disk_usage(where).free
    if need > free * 0.9:
        sys.exit(f"{where}: {need / 1e9:.0f} GB are needed for so many certificates, and {free / 1e9:.0f} GB are free")


def measure(o, bench):
    sites, found = {}, {}
    for size in o.sizes:
        begun = time.monotonic()
        sites[size] = bench.seeded(o.key, f"{size}", size)
        found[size] = {"seed_s": time.monotonic() - begun, **sizes(sites[size]), "rounds": []}
        print(f"{size} seeded in {found[size]['seed_s']:.0f} s", file=sys.stderr, flush=True)
    for number in range(o.rounds):
        for size in o.sizes[::-1] if number % 2 else o.sizes:
            found[size]["rounds"].append(one_round(sites[size], bench.pool, number))
    fewest = found[o.sizes[0]]["rounds"]
    for size in o.sizes:
        rounds = found[size]["rounds"]
        found[size].update({name: statistics.median(r[name] for r in rounds) for name in rounds[0]})
        found[size]["rate_ratio"] = statistics.median(r["rate"] / f["rate"] for r, f in zip(rounds, fewest))
        found[size].update(once(sites[size], size))
    return found


def show(found):
    print(f"{'':<16}" + "".join(f"{size:>14,}" for size in found))
    for name in found[min(found)]:
        if name != "rounds":
            values = [of_size.get(name, float("nan")) for of_size in found.values()]
            print(f"{name:<16}" + "".join(f"{v:>14,.{1 if v < 1000 else 0}f}" for v in values))


def main():
    o = options()
    heed_signals()
    work = Path(tempfile.mkdtemp(prefix="growth-", dir=o.work or BUILD))
    about, bench = machine.describe(work), None
    try:
        check_room(work, o.sizes)
        bench = prepare(work, FULL)
        found = measure(o, bench)
        show(found)
        (o.json or BUILD / f"growth-{o.key}.json").write_text(
            json.dumps({"machine": about, "key": o.key, "sizes": found}, indent=1) + "\n")
    finally:
        if bench:
            bench.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
