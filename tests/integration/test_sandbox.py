"""The sandboxes of the real processes. What each refuses is in tests/unit/test_sandbox.c."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from signet_site import BIN, REPO, Key, Site, is_alive, mac, run, wait_for

ROLES = {"front", "authority", "signer"}


def status_of(pid):
    return dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M))


def limit_of(pid, name):
    (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith(name)]
    return line.split()[-3:-1] if line.split()[-1].isalpha() else line.split()[-2:]


def everyone(site):
    """(role, pid) of all, the supervisor too."""
    roles = site.roles()
    assert set(roles) >= ROLES
    return [("supervisor", site.process.pid)] + [(role, pid) for role in ROLES for pid in roles[role]]


def all_are_in(site):
    """A front more or less may still begin when the site is ready."""
    with contextlib.suppress(FileNotFoundError):
        return all(status_of(pid).get("Seccomp_filters", "2") == "2" for role, pid in everyone(site) if role in ROLES)


def test_every_process_is_in_its_sandbox(site):
    site.start()
    wait_for(lambda: all_are_in(site), "each has its filter beside the supervisor's")
    op = site.operator()
    assert site.ask(op, "req_client_cert", csr=Key(mac(1)).csr)[0] == 200
    landlock = "Landlock" in site.log() and "no Landlock" not in site.log()
    for role, pid in everyone(site):
        status = status_of(pid)
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", (role, status)
        # its own beside the one that it has from the supervisor
        assert int(status.get("Seccomp_filters", 2)) == (1 if role == "supervisor" else 2), role
        assert limit_of(pid, "Max core file size") == ["0", "0"], role
        if role in ("front", "authority"):
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0, status
            assert int(limit_of(pid, "Max open files")[1]) <= 4096, role
        if role == "front":
            assert limit_of(pid, "Max processes") == ["0", "0"]
        if role in ("front", "supervisor"):  # the keys of TLS; the PIN
            assert int(status["VmLck"].split()[0]) >= (2048 if role == "front" else 4), status["VmLck"]
    assert landlock == (subprocess.run(["/usr/bin/python3", "-c", "import ctypes, sys; "
                                        "sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 1)"]).returncode == 0)


def test_each_shuts_itself_in_first(site):
    """Also the publisher, which does not live long; and a front before it lets anybody in."""
    trace = site.dir / "strace"
    site.prefix = ["strace", "-D", "-f", "-qq", "-o", str(trace), "-e", "trace=execve,seccomp,accept4,landlock_restrict_self"]
    site.start()
    site.operator()
    wait_for(lambda: site.get("/crl")[0] == 200 and all_are_in(site), "a publisher was there, and all others are")
    site.stop()
    calls, seen = {}, set()
    for pid, call in re.findall(r"^(\d+) +(execve\(.*|seccomp\(SECCOMP_SET_MODE_FILTER, 0, \{.*|landlock_restrict_self\(.*|accept4\(.*)$",
                                trace.read_text(), re.M):
        calls.setdefault(pid, []).append(call)
    for made in calls.values():
        program = re.search(r"/(signet[\w-]*)\"", made[0]).group(1)
        names = [re.match(r"\w+", call).group(0) for call in made]
        locked = ["landlock_restrict_self"] if "no Landlock" not in site.log() else []
        expected = ["execve", *locked, "seccomp"]
        if program == "signetd":  # whose children begin as copies of it
            assert "seccomp" in names, made
        elif "--check" not in made[0]:
            assert names[:len(expected)] == expected, (program, made)
        seen.add(program)
    assert seen == {"signetd", "signet-front", "signet-authority", "signet-signer", "signet-publisher"}


# ---- taken over ----

@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    out = tmp_path_factory.mktemp("shim") / "call.so"
    run("cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", out, Path(__file__).parent / "call_shim.c")
    return out


def say(site, pid, number):
    """Has it try the call of that signal; what came of it."""
    before = len(site.log())
    os.kill(pid, signal.SIGRTMIN + number)
    said = re.compile(rf"taken over, {pid}: \w+: (\w+)")
    return wait_for(lambda: "dies" if not is_alive(pid) else (said.search(site.log()[before:]) or [None, False])[1], "an outcome")


@pytest.mark.parametrize("role, opens", [("front", "EPERM"), ("authority", "EACCES"), ("signer", None)])
def test_one_that_is_taken_over_dies_and_is_replaced(site, shim, role, opens):
    site.env = {"LD_PRELOAD": str(shim)}
    site.start()
    op = site.operator()
    if role == "authority" and "no Landlock" in site.log():
        opens = "done"
    if opens:
        assert say(site, site.roles()[role][0], 2) == opens
        assert say(site, site.roles()[role][0], 3) == "dies"
        site.wait_ready()
        wait_for(lambda: len(site.roles().get(role, [])) == (1 if role == "authority" else 2), "another")
    assert say(site, site.roles()[role][0], 1) == "dies"
    site.wait_ready()
    wait_for(lambda: site.ask(op, "req_client_cert", csr=Key(mac(1)).csr)[0] == 200, "service goes on")
    assert ("was ended by its sandbox" if role != "signer" else "the sandbox of signers forbids") in site.log()
    assert "exec" not in site.log()


def test_files_that_are_elsewhere(site):
    """The chain, and the certificates' files by a link, are within the authority's reach; what comes later is not."""
    elsewhere, disk = site.dir / "elsewhere", site.dir / "disk"
    elsewhere.mkdir()
    shutil.copy(site.state / "ca-chain.pem", elsewhere / "chain.pem")
    site.start()
    site.stop()
    (site.state / "certs").rename(disk)
    (site.state / "certs").symlink_to(disk)
    site.set("ca_chain", elsewhere / "chain.pem")
    site.start()
    op = site.operator()
    site.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the new configuration is in force" in site.log(), "it is read again")
    assert site.ask(op, "req_client_cert", csr=Key(mac(1)).csr)[0] == 200
    wait_for(lambda: len(list(disk.rglob("*.pem"))) == len(site.query("SELECT 1 FROM certificate")), "each has its file")
    shutil.copy(elsewhere / "chain.pem", elsewhere / "other.pem")
    site.set("ca_chain", elsewhere / "other.pem")
    site.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "certificate or chain is another file; that takes a restart" in site.log(), "it is refused")
    site.stop()
    site.start()


def test_a_signer_whose_module_may_start_programs(site, shim):
    site.env = {"LD_PRELOAD": str(shim)}
    site.set("token_sandbox", "off")
    site.start()
    assert "[token] sandbox = off" in site.log()
    pid = site.roles()["signer"][0]
    assert status_of(pid).get("Seccomp_filters", "1") == "1"  # the supervisor's stays
    os.kill(pid, signal.SIGRTMIN + 1)
    wait_for(lambda: not is_alive(pid), "it became another program, and ended")
    assert "sandbox of signers" not in site.log()
    site.set("token_sandbox", "perhaps")
    site.stop()
    code, said = site.run_to_end()
    assert code == 1 and re.search(r"signet\.conf:\d+: \[token\] sandbox: it is on or off", said), said


def test_the_systemd_unit():
    """Its exposure by systemd's own count, from 0 to 100; what systemd does not know it would leave out silently."""
    unit = REPO / "docs/signetd.service"
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
    said = run("systemd-analyze", "verify", unit, code=None)
    assert not re.search(r"(?i)unknown|ignoring|invalid", said.stdout + said.stderr), said.stderr


# ---- a user of its own ----

@contextlib.contextmanager
def site_for(kit, uid):
    """Its state and token are that user's; configuration and PIN are root's."""
    with tempfile.TemporaryDirectory(prefix="signet-test-") as where:
        os.chmod(where, 0o755)
        programs = Path(where) / "bin"
        shutil.copytree(BIN, programs)
        site = Site(kit, Path(where) / "site")
        site.bin = programs
        os.chmod(site.dir, 0o755)
        for folder in (site.state, site.dir / "hsm"):
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, uid, uid)
        with site:
            yield site


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_started_as_root_it_becomes_its_user(kit):
    nobody = pwd.getpwnam("nobody")
    with site_for(kit, nobody.pw_uid) as site:
        site.set("server_user", "nobody")
        site.pin_file.chmod(0o600)
        site.start()
        op = site.operator()
        assert site.ask(op, "req_client_cert", csr=Key(mac(1)).csr)[0] == 200
        for role, pid in everyone(site):
            status = status_of(pid)
            assert status["Uid"].split() == [str(nobody.pw_uid)] * 4, (role, status["Uid"])
            assert status["Gid"].split() == [str(nobody.pw_gid)] * 4, (role, status["Gid"])
            assert "0" not in status["Groups"].split(), (role, status["Groups"])
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, (role, status["CapEff"])
            # of a process that can be dumped or traced by its own user, they are that user's
            assert os.stat(f"/proc/{pid}/environ").st_uid == 0, role
        assert site.pin_file.stat().st_uid == 0
        foreign = [p for p in site.state.rglob("*") if p.lstat().st_uid != nobody.pw_uid]
        assert foreign == []
        site.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "new fronts take over" in site.log(), "the configuration is read as that user")
        wait_for(lambda: site.ask(op, "get_status")[0] == 200, "it goes on")
        site.stop()
        # a state that is not that user's
        os.chown(site.state / "journal.log", 0, 0)
        code, said = site.run_to_end()
        assert code == 1 and "belongs to user 0, but signetd runs as user 65534" in said, said
        os.chown(site.state / "journal.log", nobody.pw_uid, nobody.pw_gid)
        site.set("server_user", "no-such-user")
        code, said = site.run_to_end()
        assert code == 1 and '[server] user: there is no user "no-such-user"' in said, said
        site.set("server_user", "root")
        site.as_user = nobody.pw_uid
        site.pin_file.chmod(0o644)
        code, said = site.run_to_end()
        assert code == 1 and "start it as root, or as root" in said, said
