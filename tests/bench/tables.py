#!/usr/bin/env python3
"""What run.sh and run.sh growth have written, as the Markdown of docs/performance.md.

    tests/bench/tables.py build-bench/bench.json build-bench/growth-p256.json …"""

import json
import sys
from pathlib import Path

SHOWN = {"us": "{:,.0f} µs", "MB": "{:,.1f} MB", "KB": "{:,.1f} KB", "/s": "{:,.0f}/s"}
GROWTH = (("signet.db", "{store_mib:,.0f} MiB"), ("journal.log", "{journal_mib:,.0f} MiB"),
          ("start, until ready", "{start_s:.1f} s"), ("… largest process, peak", "{start_peak_mib:.0f} MiB"),
          ("PSS of all processes, idle", "{pss_mib:.0f} MiB"), ("certificates/s, 32 connections", "{rate:,.0f} ({rate_ratio:.2f})"),
          ("… CPU of each", "{cpu_us:,.0f} µs"), ("a page of 100: the first", "{page_first_ms:.1f} ms"),
          ("… near the end", "{page_late_ms:.1f} ms"), ("… of one MAC", "{page_mac_ms:.1f} ms"),
          ("… of revoked ones", "{page_revoked_ms:.1f} ms"),
          ("all by `signet list`", "{list_s:.1f} s ({list_cpu_s:.1f} s of CPU), peak {list_peak_mib:.0f} MiB"),
          ("a CRL", "{crl_entries:,.0f} entries in {crl_s:.2f} s, peak {crl_peak_mib:.0f} MiB"),
          ("`signetctl audit`", "{audit_s:.0f} s ({audit_cpu_s:.0f} s of CPU), peak {audit_peak_mib:,.0f} MiB"))


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def head(*cells):
    row(*cells)
    print("|" + "---|" * len(cells))


def targets(found):
    head("figure", "measured", "ceiling beside it", "ratio (lowest to highest)", "target", "")
    for f in found["figures"]:
        show, sign = SHOWN[f["unit"]].format, "≤" if f["at_most"] else "≥"
        target = f"{sign} {f['target']:.3g}" + (f", better {f['better']:g}" if f["better"] else "")
        ratio = f"{f['ratio']:.2f} ({f['lowest']:.2f} to {f['highest']:.2f})"
        if f["ceiling"] is None:
            ratio = f"({show(f['lowest'])} to {show(f['highest'])})"
        row(f["text"], show(f["value"]), show(f["ceiling"]) if f["ceiling"] is not None else "", ratio, target,
            "met" if f["met"] else "**not met**")


def growth(found):
    head(f"{found['key']} CA, certificates stored", *(f"{int(size):,}" for size in found["sizes"]))
    for name, text in GROWTH:
        row(name, *(text.format(**of_size) if not name.endswith("audit`") or "audit_s" in of_size else "not made"
                    for of_size in found["sizes"].values()))


def main():
    for path in sys.argv[1:]:
        found = json.loads(Path(path).read_text())
        m = found["machine"]
        growth(found) if "sizes" in found else targets(found)
        print(f"\n{m['cores']} × {m['cpu']}, {m['memory_mb']} MB, Linux {m['kernel']}, {m['file_system']}; "
              f"{m['openssl'].split(' (')[0]}, SoftHSM {m['softhsm']}, libp11 {m['libp11']}, SQLite {m['sqlite']}; "
              f"load {m['load_at_start']:.1f} at the start; commit {m['commit']}\n")


if __name__ == "__main__":
    main()
