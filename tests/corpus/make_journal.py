#!/usr/bin/env python3
"""Makes the journals in journal/, of every kind of event, and what of them is not as it should be.

    tests/corpus/make_journal.py      writes the same files each time

Lines behind an empty one are journal.log, where it is not what the store has (tests/fuzz/fuzz_journal.c).
"""
import hashlib
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
A, B, C, D = (f"{n:032x}" for n in (0x14A7, 0x25B8, 0x36C9, 0x47DA))
MAC = "24:0a:c4:00:00:01"
SHA = "5b" * 32
EVENTS = [
    f"intent serial={A} profile=device name={MAC} operator=anna tbs={SHA}",
    f"issued serial={A} profile=device name={MAC} sha256={SHA}",
    f"crl number=1 journal=2 sha256={SHA}",
    "operator name=anna roles=provisioner,revoker",
    f"flashed serial={A} name={MAC} operator=anna",
    f"verified serial={A} name={MAC} operator=anna",
    f"intent serial={B} profile=device name={MAC} operator=anna tbs={SHA}",
    f"orphan serial={B} name={MAC}",
    f"held serial={A} name={MAC} reason=certificateHold operator=anna",
    f"unheld serial={A} name={MAC} operator=anna",
    f"revoked serial={A} name={MAC} reason=keyCompromise operator=anna",
    f"crl number=2 journal=11 sha256={SHA} shard=7",
    f"imported serial={C} profile=device name={MAC} sha256={SHA}",
    "restored from=/backup",
    f"revoked serial={D} reason=superseded at=2026-01-02T03:04:05Z",
    "token_fault none",
]


def journal(events, first=1):
    lines, head = [], bytes(32)
    for n, event in enumerate(events, first):
        line = f"{n} 2026-11-23T12:00:{n % 60:02d}Z {event}"
        head = hashlib.sha256(head + line.encode()).digest()
        lines.append(f"{line} {head.hex()}\n")
    return lines


ALL = journal(EVENTS)
CASES = {
    "all": ALL,
    "two": ALL[:2],
    "cut": [*ALL, "\n", *ALL[:5], ALL[5][:30]],
    "longer": [*ALL, "\n", *journal(EVENTS + EVENTS)],
    "changed": [*ALL[:3], ALL[3].replace("anna", "otto"), *ALL[4:]],
    "missing": [*ALL[:3], *ALL[5:]],
    "late": journal(EVENTS, 2**64 - 3),
    "no-log": [*ALL[:4], "\n"],
    "no-hash": ["1 2026-11-23T12:00:00Z intent serial=00\n"],
    "bad-fields": journal(["issued serial=zz sha256=00", "crl number= shard=65", "revoked serial=00 reason=none at=x",
                           f"issued serial={'00' * 21} sha256={SHA}", f"crl number=9 sha256={SHA} shard=64"]),
    "long-line": journal(["operator name=" + "a" * 3000]),
}

for file, lines in CASES.items():
    (HERE / "journal" / file).write_text("".join(lines))
