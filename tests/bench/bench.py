#!/usr/bin/env python3
"""Runs the benchmark of Signet; run.sh builds what it needs and says how it is called."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

import figures  # noqa: E402
import machine  # noqa: E402
from bench_site import build_sync_shim  # noqa: E402
from hsm_harness import build_shim  # noqa: E402
from processes import heed_signals  # noqa: E402
from programs import make_pool  # noqa: E402
from signet_site import BUILD, Kit  # noqa: E402
from steps import KEYS, Bench, all_steps  # noqa: E402


@dataclass
class Sizes:
    """How much of everything: enough for medians, or just enough to see that it works."""
    pool: int
    seed: int  # certificates in the large store
    million: int
    issue: dict
    raw: dict
    bare: int
    single: int  # certificates by one connection
    warm: int
    sync: int
    slow: int
    seconds: float
    idle: int
    batch: int
    folders: bool  # for certificates' files, made beforehand


FULL = Sizes(pool=40000, seed=1000000, million=6000, issue={"rsa": 8000, "p256": 16000}, raw={"rsa": 2000, "p256": 20000}, bare=2000, single=1500,
             warm=500, sync=8000, slow=6400, seconds=3, idle=1000, batch=300, folders=True)
QUICK = Sizes(pool=2000, seed=20000, million=400, issue={"rsa": 600, "p256": 1000}, raw={"rsa": 300, "p256": 1000}, bare=300, single=150,
              warm=100, sync=600, slow=480, seconds=0.5, idle=200, batch=12, folders=False)


def options():
    parser = argparse.ArgumentParser(prog="run.sh", description="Measures Signet against what its token, its disk and "
                                     "its libraries can do alone.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, measures nothing")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--only", action="append", metavar="STEP", help=f"of {', '.join(all_steps())}; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go (default: bench.json beside "
                        "the build's programs)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where tokens and states are made; on the disk that is "
                        "to be measured (default: the build folder)")
    parser.add_argument("--keep", action="store_true", help="leave what was made there")
    return parser.parse_args()


def prepare(work, sizes):
    kits = {name: Kit(work / f"kit-{name}", key_type=key) for name, key in KEYS.items()}
    pool = (BUILD if sizes is FULL else work) / f"pool-{sizes.pool}"
    if not pool.exists():
        make_pool(f"{pool}.new", sizes.pool)
        Path(f"{pool}.new").rename(pool)
    shims = {"sync": build_sync_shim(work), "token": build_shim(work)}
    return Bench(work, sizes, kits, pool, shims)


def one_round(bench, number, only):
    """All steps; every other round in the reverse order."""
    found, names = {}, [name for name in all_steps() if not only or name in only]
    for name in names[::-1] if number % 2 else names:
        begun = time.monotonic()
        found[name] = {**all_steps()[name](bench, number), "load_average": os.getloadavg()[0]}
        print(f"round {number + 1}, {name}: {time.monotonic() - begun:.0f} s; load {os.getloadavg()[0]:.1f}",
              file=sys.stderr, flush=True)
    return found


def save(o, about, rounds, where):
    """All numbers, after each round; the figures of the table."""
    table = [f for f in (figure.of(rounds) for figure in figures.FIGURES) if f]
    where.write_text(json.dumps({"quick": o.quick, "machine": about, "figures": table,
                                 "medians": figures.details(rounds), "rounds": rounds}, indent=1) + "\n")
    return table


def report(o, about, rounds, where):
    table = save(o, about, rounds, where)
    print(figures.HEAD)
    for f in table:
        print(figures.line(f))
    print(f"{len(rounds)} round(s) on {about['cores']} × {about['cpu']}, Linux {about['kernel']}, {about['openssl']}; "
          f"medians; all numbers in {where}")
    busiest = max(step["load_average"] for r in rounds for step in r.values())
    if about["load_at_start"] > 0.5:
        print(f"The machine was at work already (load {about['load_at_start']:.1f} at the start, up to {busiest:.1f}): "
              "only ratios say something, and not much")
    if o.quick:
        print("--quick: far too short to measure anything")


def measure(o, bench, about, where):
    """All rounds; stopped by a signal, those that are complete."""
    rounds = []
    try:
        for i in range(o.rounds or (1 if o.quick else 5)):
            rounds.append(one_round(bench, i, o.only))
            save(o, about, rounds, where)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    if rounds:
        report(o, about, rounds, where)


def main():
    o = options()
    heed_signals()
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=o.work or BUILD))
    about, bench = machine.describe(work), None
    try:
        bench = prepare(work, QUICK if o.quick else FULL)
        measure(o, bench, about, o.json or BUILD / "bench.json")
    finally:
        if bench:
            bench.close()
        if not o.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
