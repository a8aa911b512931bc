"""What is durable before what: the authority's system calls, as strace sees them. A kill shows nothing of it, because
what a dead process has written is still in the kernel's cache."""

import re
import shutil
import subprocess

import pytest
from cryptography import x509

from front_harness import MESSAGES
from signet_site import Key, mac, serial_of, wait_for


class Trace:
    """[(what, which)] of one process: ("sync" or "write", file name), ("send" or "receive", message)."""

    def __init__(self, pid, where):
        if not shutil.which("strace"):
            pytest.skip("strace is not installed")
        self.file = where / "strace"
        self.process = subprocess.Popen(
            ["strace", "-y", "-xx", "-s", "4", "-o", self.file, "-e",
             "trace=fdatasync,fsync,pwrite64,sendmsg,recvmsg", "-p", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        first = self.process.stderr.readline()
        if "attached" not in first:
            self.process.wait(30)
            pytest.skip("strace may not attach: " + first)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()
        return [event for line in self.file.read_text().splitlines() if (event := self.read(line))]

    def read(self, line):
        done = re.search(r"= (-?\d+)[^=]*$", line)
        if not done or int(done.group(1)) < 0:
            return None
        call = re.match(r"(\w+)\(\d+<(.*?)>", line)
        if not call:
            return None
        name, target = call.groups()
        target = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), target).rsplit("/", 1)[-1]
        if name in ("fdatasync", "fsync"):
            return "sync", target
        if name == "pwrite64":
            return "write", target
        record = re.search(rf'iov_base="\\x{MESSAGES.version:02x}\\x([0-9a-f]{{2}})\\x00\\x00', line)
        if record:
            return "send" if name == "sendmsg" else "receive", MESSAGES.name.get(int(record.group(1), 16))
        return None


def between(events, begin, end):
    """What lies between each `begin` and the `end` after it."""
    found, inside = [], None
    for event in events:
        if event == begin:
            inside = []
        elif event == end and inside is not None:
            found.append(inside)
            inside = None
        elif inside is not None:
            inside.append(event)
    return found


def is_durable(events):
    """Something was written to the store's log, and synced after its last write."""
    of_log = [what for what, which in events if which == "signet.db-wal"]
    return "write" in of_log and of_log[-1] == "sync"


def test_durable_before_the_token_and_before_the_answer(site):
    site.start()
    op = site.operator()
    wait_for(lambda: site.crl(), "the first CRL")
    trace = Trace(site.roles()["authority"][0], site.dir)
    with site.connect(op) as c:
        for i in range(20):
            status, pem = c.issue(Key(mac(i)))
            assert status == 200
        serial = serial_of(x509.load_pem_x509_certificate(pem))
        assert c.ask("revoke_cert", serial=serial)[0] == 200
    events = trace.stop()
    intents = between(events, ("receive", "issue"), ("send", "sign"))
    answers = between(events, ("receive", "signed"), ("send", "answer_certificate"))
    revocations = between(events, ("receive", "revoke"), ("send", "answer_revoked"))
    assert (len(intents), len(answers), len(revocations)) == (20, 20, 1), events
    for section in intents + answers + revocations:
        assert is_durable(section), section
