#!/usr/bin/env python3
"""What a batch takes beside the making of its keys: signet batch against as many keys made by the same function
with the same library on the same cores (make-keys), in turns, in one run.

    tests/bench/run.sh batch [--keys 500] [--jobs 2] [--rounds 3] [--key-type rsa:2048]

The server and its SoftHSM run on the same cores and count in the batch's time. On a busy machine wall times say
nothing; then the CPU times do: client and server together, against the keys'. How long an RSA key takes is luck (it
varies by more than half from key to key), so sums of fewer than some hundreds say little: two runs of make-keys with
500 differ by 3 % or so on a quiet machine."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

from processes import heed_signals  # noqa: E402
from signet_site import BIN, BUILD, Kit, Site, children_of, mac, tool_environment  # noqa: E402
from turns import swapped  # noqa: E402


def server_time(site):
    """The CPU seconds of signetd, of its processes, and of those that have ended."""
    ticks = 0
    for pid in (site.process.pid, *children_of(site.process.pid)):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(f) for f in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def timed(command, cwd):
    """(wall, user + system of it and its children)"""
    begun = time.monotonic()
    pid = os.posix_spawn(str(command[0]), [str(c) for c in command], {**tool_environment(), "PWD": str(cwd)},
                         file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                                       (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, f"{command[0]}: status {status}"
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--key-type", default="rsa:2048")
    o = parser.parse_args()
    heed_signals()
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as where:
        where = Path(where)
        with Site(Kit(where / "kit"), where / "site") as site:
            site.start()
            site.client()
            rows = [one_round(o, site, number) for number in range(o.rounds)]
            count = site.query("SELECT count(*) FROM certificate WHERE profile = 'device' AND state = 1")[0][0]
            assert count == o.keys * o.rounds, count
    wall, cpu = (statistics.median(batch[i] / keys[i] for batch, keys in rows) for i in (0, 1))
    print(f"median of {o.rounds}: the batch takes {wall:.3f} of the keys' wall time; with the server {cpu:.3f} of "
          "their CPU time")


def one_round(o, site, number):
    """(wall, CPU) of a batch with its server, and of as many keys alone; which goes first changes with the number."""
    (site.dir / f"{number}.csv").write_text("mac\n" + "".join(f"{mac(number * o.keys + i)}\n" for i in range(o.keys)))

    def alone():
        return timed([BUILD / "tests/make-keys", o.keys, o.jobs, o.key_type], site.dir)

    def whole():
        before = server_time(site)
        wall, cpu = timed([BIN / "signet", "batch", site.dir / f"{number}.csv", "--jobs", o.jobs, "--key-type", o.key_type,
                           "--out", site.dir / "devices", "--config", site.dir / "client/signet.conf"], site.dir)
        return wall, cpu, server_time(site) - before
    keys, batch = swapped(number, alone, whole)
    print(f"{o.keys} {o.key_type}, {o.jobs} at once: keys alone {keys[0]:.1f} s (CPU {keys[1]:.1f}), batch "
          f"{batch[0]:.1f} s (CPU {batch[1]:.1f} and the server's {batch[2]:.1f}): {batch[0] / keys[0]:.3f}; "
          f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return (batch[0], batch[1] + batch[2]), keys


if __name__ == "__main__":
    main()
