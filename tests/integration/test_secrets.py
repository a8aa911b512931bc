"""A canary PIN is where its file is, and nowhere else."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from signet_site import BIN, PIN, PIN_FILES, SO_PIN, Key, Kit, Site, is_alive, mac, run, wait_for

CANARIES = [PIN.encode(), SO_PIN.encode()]


class Watcher(threading.Thread):
    """Looks at command lines and environments of all processes, again and again, but not at its own."""

    def __init__(self):
        super().__init__(daemon=True)
        self.end, self.seen, self.found = False, set(), []

    def look(self, pid):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/{name}").read_bytes()
                if any(canary in text for canary in CANARIES):
                    self.found.append((pid, name, text))
                if name == "cmdline" and text:
                    self.seen.add(text.split(b"\0")[0].rsplit(b"/", 1)[-1].decode(errors="replace"))

    def run(self):
        while not self.end:
            for entry in os.listdir("/proc"):
                if entry.isdigit() and int(entry) != os.getpid():
                    self.look(entry)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end = True
        self.join()


def files_with_canary(folder):
    """But for the PIN files themselves."""
    found = []
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.name not in PIN_FILES:
            text = path.read_bytes()
            found += [str(path) for canary in CANARIES if canary in text]
    return found


def test_canary(tmp_path):
    """Setup, service, refusal, retry and stop, all watched."""
    with Watcher() as watcher:
        kit = Kit(tmp_path / "kit")
        with Site(kit, tmp_path / "site") as site:
            site.start()
            site.client()
            site.signet("provision", "--mac", mac(1), "--key-type", "ec:p256", "--out", site.dir / "devices")
            site.ctl("status")
            for pids in site.roles().values():
                for pid in pids:
                    watcher.look(pid)
            watcher.look(site.process.pid)
            os.kill(site.roles()["signer"][0], signal.SIGKILL)
            site.stop()
            right = site.pin_file.read_text()
            site.pin_file.write_text(PIN + "-but-wrong\n")
            code, said = site.run_to_end()
            assert code == 1 and "CKR_PIN_INCORRECT" in said
            site.pin_file.write_text(right)
            site.ctl("pin", "retry")
            site.start()
            site.crl()
            site.stop()
            assert not any(canary.decode() in site.log() for canary in CANARIES)
    assert watcher.found == []
    # the watcher has seen what it is there for
    assert {"signetd", "signet-signer", "signet-authority", "signet-front"} <= watcher.seen, watcher.seen
    assert files_with_canary(tmp_path) == []
    # and would have seen, and found, what it must not
    with Watcher() as watcher, subprocess.Popen(["sleep", "60"], env={"X": PIN}) as control:
        try:
            wait_for(lambda: watcher.found != [], "the canary is found")
        finally:
            control.kill()
    (tmp_path / "control").write_bytes(b"x" + CANARIES[0])
    assert files_with_canary(tmp_path) == [str(tmp_path / "control")]


def test_a_pin_file_that_others_can_read_is_refused(site):
    site.pin_file.chmod(0o644)
    code, said = site.run_to_end()
    assert code == 1 and str(site.pin_file) in said and "600" in said, said


def test_no_core(site):
    """Neither by its limit nor, where that can be raised, by its dumpable flag."""
    site.start()
    everyone = [site.process.pid] + [pid for pids in site.roles().values() for pid in pids]
    for pid in everyone:
        (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
                   if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"], line
        with contextlib.suppress(PermissionError):
            resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    before = set(site.dir.iterdir())
    for role in ("signer", "authority"):
        pid = site.roles()[role][0]
        os.kill(pid, signal.SIGQUIT)  # its default is a core; a real crash would fail this test's last look at the log
        wait_for(lambda: not is_alive(pid), f"{role} is ended")
    site.wait_ready()
    made = {path.name for path in set(site.dir.iterdir()) - before}
    assert not any("core" in name for name in made), made
    site.stop()


def can_enter(path):
    """Whether nobody, uid 65534, can run what is there."""
    return subprocess.run([path, "--version"], user=65534, group=65534, extra_groups=[], capture_output=True).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_as_an_ordinary_user(kit, tmp_path_factory):
    """signetd needs no root; and then others of its own user cannot look into it."""
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-test-"))
        os.chmod(where, 0o755)
        site = Site(kit, Path(where) / "site")
        try:
            runs = can_enter(BIN / "signetd")
        except OSError:
            runs = False
        if not runs:
            pytest.skip(f"uid 65534 cannot run {BIN}/signetd")
        for path in [site.dir, *site.dir.rglob("*")]:
            os.chown(path, 65534, 65534)
        stack.enter_context(site)
        site.as_user = 65534
        site.start()
        op = site.operator()
        status, pem = site.issue(op, Key(mac(1)))
        assert status == 200
        site.check_books([pem])
        everyone = [site.process.pid] + [pid for pids in site.roles().values() for pid in pids]
        script = ("import sys\nfor pid in sys.argv[1:]:\n for name in ('mem', 'environ', 'maps'):\n"
                  "  try: open(f'/proc/{pid}/{name}', 'rb').read(1)\n"
                  "  except PermissionError: continue\n"
                  "  sys.exit(f'{pid} {name} can be read')")
        run(sys.executable, "-c", script, *everyone, user=65534, group=65534, extra_groups=[])
        control = subprocess.Popen(["sleep", "60"], user=65534, group=65534, extra_groups=[])
        try:  # the look itself works
            run(sys.executable, "-c", script, control.pid, code=1, user=65534, group=65534, extra_groups=[])
        finally:
            control.kill()
            control.wait()
        site.stop()
