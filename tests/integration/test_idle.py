"""With nothing to do signetd does nothing: counted in wakeups."""

import time
from pathlib import Path

from signet_site import Key, Site, mac, wait_for

SECONDS = 8
# At the most: a calm machine counts 1 to 3 a second, a busy one with sanitizers 9 (waiting for memory counts too), and
# a process that looks every 20 ms has 50.
EACH_SECOND, ONCE = 20, 40


def wakeups(pid):
    """How often it gave up the processor to wait."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches:"))


def processes(site):
    return {(role, pid) for role, pids in site.roles().items() for pid in pids} | {("supervisor", site.process.pid)}


def settled(site):
    """All that a start or a certificate leads to is done: CRL, responder, journal, files."""
    rows = site.query("SELECT (SELECT max(seq) FROM journal), (SELECT value FROM meta WHERE name = 'projected'), "
                      "(SELECT count(*) FROM crl WHERE sha256 IS NOT NULL), "
                      "(SELECT count(*) FROM certificate WHERE profile = 'ocsp' AND state = 1)")
    return rows if rows[0][0] == rows[0][1] and rows[0][2] and rows[0][3] and "publisher" not in site.roles() else None


def test_wakeups(kit, tmp_path):
    with Site(kit, tmp_path / "site", ocsp=True) as site:
        site.start()
        assert site.issue(site.operator(), Key(mac(1)))[0] == 200
        before = wait_for(lambda: settled(site), "nothing is left to do")
        time.sleep(2)
        first = {who: wakeups(who[1]) for who in processes(site)}
        begun = time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - begun
        counts = {who: wakeups(who[1]) - n for who, n in first.items()}
        assert set(first) == processes(site) and settled(site) == before
        assert {role for role, _ in counts} == {"supervisor", "authority", "front", "signer"}
        most = EACH_SECOND * took + ONCE
        assert all(count <= most for count in counts.values()), f"in {took:.1f} s: {counts}"
