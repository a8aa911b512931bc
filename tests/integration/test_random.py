"""A random generator that fails or repeats itself, and a certificate that breaks the rules: nothing is signed, and who
runs the CA is told. The numbers of signet-authority are the test's own (random_shim.c)."""

import os
import re

import pytest

from hsm_harness import use_shim
from signet_site import BIN, REPO, Key, Site, mac, run, wait_for

GOOD = "."
BROKEN = {"f": "the random generator fails", "0": "the random generator gives one byte again and again",
          "1": "the random generator gives one byte again and again", "s": "the random generator repeats itself",
          "F": "the kernel's random generator fails",
          "Z": "the kernel's random generator gives one byte again and again",
          "S": "the kernel's random generator repeats itself"}


class RandomSite(Site):
    def __init__(self, kit, where, **settings):
        super().__init__(kit, where, **settings)
        self.shim = use_shim(self)
        library, self.mode_file = self.dir / "random_shim.so", self.dir / "random"
        run("cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O1", "-o", library, REPO / "tests/integration/random_shim.c")
        runtime = re.findall(r"=> (\S*lib(?:clang_rt\.)?asan\S*)", run("ldd", BIN / "signetd").stdout)
        self.mode_file.write_text(GOOD)
        self.env.update(LD_PRELOAD=":".join([*runtime, str(library)]), SIGNET_TEST_RANDOM=str(self.mode_file))

    def random(self, mode):
        with open(self.mode_file, "r+b", buffering=0) as f:
            os.pwrite(f.fileno(), mode.encode(), 0)

    def signed(self):
        """How often the token signed, the first CRL too; and what the store has of certificates."""
        wait_for(lambda: self.get("/crl")[0] == 200, "the first CRL")
        return len(self.shim.calls("C_Sign")), self.query("SELECT count(*) FROM certificate")


@pytest.fixture
def random_site(kit, tmp_path):
    with RandomSite(kit, tmp_path / "site") as s:
        yield s


def check_told(site, why):
    site.wait_ready(503)
    status = site.ctl("status", code=4).stdout
    assert status.startswith(f"NOT READY: {why}"), status
    assert "docs/recovery.md" in status.splitlines()[1], status


def test_broken_while_it_runs(random_site):
    """Each way to break, one after the other; after each it comes back by itself."""
    site = random_site.start()
    op = site.operator()
    number = 0
    with site.connect(op) as c:
        assert c.issue(Key(mac(0)))[0] == 200
        for mode, why in BROKEN.items():
            site.random(mode)
            check_told(site, why)
            before = site.signed()
            for _ in range(2):  # the second has nothing new to be told
                number += 1
                status, body = c.ask("req_client_cert", csr=Key(mac(number)).csr)
                assert (status, body["error"]["code"]) == (503, "random_broken"), body
                assert why in body["error"]["message"] and c.headers["Retry-After"], body
            assert site.signed() == before
            site.random(GOOD)
            site.wait_ready()
            assert c.issue(Key(mac(number)))[0] == 200
        assert f"error: no certificate for {mac(1)}: {BROKEN['f']}" in site.log()
    assert site.ctl("status").stdout.startswith("READY")
    site.check_books()


def test_broken_from_the_start(random_site):
    """Not even the listener's certificate."""
    site = random_site
    site.random("0")
    site.start(ready=False)
    wait_for(lambda: "the random generator gives one byte again and again" in site.log(), "the log tells it")
    told = f"NOT READY: {BROKEN['0']}"
    wait_for(lambda: site.ctl("status", code=None).stdout.startswith(told), "the status tells it")
    assert site.query("SELECT count(*) FROM certificate") == [(0,)]
    site.random(GOOD)
    site.wait_ready()


def issue_until_refused(site, op, numbers):
    """Of two serials there are, at the most; (those that were issued, the refusal)"""
    serials = []
    for number in numbers:
        status, body = site.ask(op, "req_client_cert", csr=Key(mac(number)).csr)
        if status != 200:
            return serials, body["error"]
        serials.append(body["serial"])
    raise AssertionError(f"the generator has two serials, and these were issued: {serials}")


def test_serials_come_back(random_site):
    """By turns, which a look at the last one does not show: the store knows its serials, also after a restart."""
    site = random_site.start()
    op = site.operator()
    site.random("t")
    first, _ = issue_until_refused(site, op, range(3))
    site.stop()
    site.start()
    more, error = issue_until_refused(site, op, range(4, 7))
    assert len({*first, *more}) == len(first + more) and 1 <= len(first + more) <= 2
    assert error["code"] == "random_broken" and "repeats itself: serial" in error["message"]
    assert error["message"] in site.ctl("status").stdout
    site.random(GOOD)
    assert site.issue(op, Key(mac(9)))[0] == 200
    assert "repeats itself" not in site.ctl("status").stdout
    site.check_books()


def test_lint_refuses(random_site):
    """Serials that no look at the generator finds bad, but the lint does: what it refuses is never signed, nothing of it
    is left in the store, and journal, log, status and answer name the rule."""
    site = random_site.start()
    op = site.operator()
    site.random("w")
    requests = site.query("SELECT count(*) FROM request")
    before, rule = site.signed(), "rfc5280-4.1.2.2: the serial is not 128 random bits"
    with site.connect(op) as c:
        for number in (1, 2):
            status, body = c.ask("req_client_cert", csr=Key(mac(number)).csr, request_id=f"r{number}")
            assert (status, body["error"]["code"]) == (500, "lint_refused") and rule in body["error"]["message"], body
    assert site.signed() == before
    assert f"error: no certificate for {mac(1)}: {rule}" in site.log()
    status = site.ctl("status").stdout  # the next one may be well: it is ready
    assert status.startswith("READY") and rule in status
    told = [text for text in site.check_journal() if text.startswith("refused ")]
    assert told == [f"refused profile=device name={mac(1)} rule=rfc5280-4.1.2.2"], "once, not with each request"
    assert site.query("SELECT count(*) FROM request") == requests
    site.random(GOOD)
    assert site.ask(op, "req_client_cert", csr=Key(mac(1)).csr, request_id="r1")[0] == 200
    assert rule not in site.ctl("status").stdout
    assert site.ctl("audit").returncode == 0
    site.check_books()
