#!/usr/bin/env python3
"""CRLs of many entries: what one costs, what it costs others, and how quick a revocation is beside it.

    tests/bench/run.sh crl [--sizes 10000,100000,1000000] [--rounds 5] [--count 3000]

Seeds a store of each size (all of it revoked), then, one run: seconds and peak memory (VmHWM) of the publisher;
certificates a second alone and while one CRL is made after the other, in turns; at last the time to answer a
revocation at 1,000 revoked and at the largest size, both servers running, one request to each in turn."""

import argparse
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

from bench_site import BenchSite  # noqa: E402
from processes import Peak, heed_signals  # noqa: E402
from programs import make_pool  # noqa: E402
from signet_site import Kit  # noqa: E402

CAPS = {f"caps_{name}": 0 for name in ("operator_revocations_hour", "operator_revocations_day", "revocations_hour",
                                       "revocations_day")}
SPARE = 20000  # that can still be revoked


class Busy:
    """One CRL after the other."""

    def __init__(self, site):
        self.site, self.made, self.over = site, 0, False
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.over:
            self.site.ctl("crl", "rebuild")
            self.made += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


def builds(site, since=0):
    """(entries, seconds) of each full CRL in the log."""
    told = re.findall(r": CRL \d+: (\d+) entries, \d+ bytes, (\d+) ms", site.log())
    return [(int(n), int(ms) / 1000) for n, ms in told[since:]]


def measure_builds(site, rounds):
    first = len(builds(site))
    with Peak(lambda: site.roles().get("publisher", ())) as peak:
        for _ in range(rounds):
            site.ctl("crl", "rebuild")
    found = builds(site, first)
    return found[-1][0], statistics.median(s for _, s in found), peak.mib


def measure_issuance(site, pool, o, first):
    """[(alone, beside)] certificates a second, in turns"""
    found = []
    for _ in range(o.rounds):
        alone = site.issue(pool, first, o.count, 32, cpu=False)
        with Busy(site) as busy:
            time.sleep(0.2)
            beside = site.issue(pool, first + o.count, o.count, 32, cpu=False)
        found.append((o.count / alone["seconds"], o.count / beside["seconds"], busy.made))
        first += 2 * o.count
    return found


def unrevoked(site, count):
    return [s for s, in site.query("SELECT lower(hex(serial)) FROM certificate WHERE state = 1 AND name GLOB '70:*' "
                                   "LIMIT ?", count)]


def measure_revocations(sites, count):
    """Milliseconds of each, in turns."""
    work = [(site.connect(site.operator("revoker", "revoker")), iter(unrevoked(site, count + 5))) for site in sites]
    times = [[] for _ in sites]
    for _ in range(count):
        for (connection, serials), mine in zip(work, times):
            serial = next(serials)
            begun = time.monotonic()
            status, answer = connection.ask("revoke_cert", serial=serial, reason="superseded")
            mine.append((time.monotonic() - begun) * 1000)
            assert status == 200, answer
            time.sleep(0.02)
    return times


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--revocations", type=int, default=300)
    parser.add_argument("--shards", type=int, default=1)
    return parser.parse_args()


def table(o, kit, where):
    pool = make_pool(where / "pool", 2 * o.count * o.rounds + 10)
    print(f"{'entries':>10} {'seconds':>9} {'entries/s':>11} {'peak MiB':>9} {'alone/s':>9} {'beside/s':>9} "
          f"{'ratio':>6} {'CRLs made':>10} {'start s':>8}", flush=True)
    rows = []
    for size in map(int, o.sizes.split(",")):
        with BenchSite(kit, where / f"site{size}", **CAPS) as site:
            site.seed(pool, size, size)
            begun = time.monotonic()
            site.begin()
            start = time.monotonic() - begun
            site.ctl("crl", "rebuild")
            entries, seconds, peak = measure_builds(site, o.rounds)
            issued = measure_issuance(site, pool, o, 10)
            alone, beside = (statistics.median(i[n] for i in issued) for n in (0, 1))
            made = sum(i[2] for i in issued)
            rows.append({"entries": entries, "seconds": seconds, "peak_mib": peak, "alone": alone, "beside": beside})
            print(f"{entries:10} {seconds:9.2f} {entries / seconds:11.0f} {peak:9.1f} {alone:9.0f} {beside:9.0f} "
                  f"{beside / alone:6.2f} {made:10} {start:8.1f}", flush=True)
            site.stop()
    return rows


def revocations(o, kit, where):
    most = max(map(int, o.sizes.split(",")))
    pool = make_pool(where / "pool2", 10)
    sites = []
    for revoked in (1000, most):
        site = BenchSite(kit, where / f"revoking{revoked}", **CAPS)
        sites.append(site.seed(pool, most + SPARE, revoked))
    try:
        for site in sites:
            site.begin()
            site.ctl("crl", "rebuild")
        few, many = measure_revocations(sites, o.revocations)
    finally:
        for site in sites:
            site.close()
    p = [[statistics.quantiles(t, n=100)[q - 1] for q in (50, 90, 99)] for t in (few, many)]
    print(f"revocation answered, p50 / p90 / p99 ms: at 1000 revoked {p[0][0]:.2f} / {p[0][1]:.2f} / {p[0][2]:.2f}, at "
          f"{most} {p[1][0]:.2f} / {p[1][1]:.2f} / {p[1][2]:.2f}; p50 ratio {p[1][0] / p[0][0]:.2f}")
    return p


def main():
    o = options()
    heed_signals()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as where:
        where = Path(where)
        kit = Kit(where / "kit")
        table(o, kit, where)
        revocations(o, kit, where)


if __name__ == "__main__":
    main()
