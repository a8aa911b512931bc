"""A signetd to be measured: no caps, an operator, and the load program against it."""

import os
import subprocess
from pathlib import Path

from hsm_harness import find_softhsm
from processes import pss_kb, settled_cpu, tree_of
from programs import TOOLS, Load
from signet_site import REPO, Site, run

CAPS = ("operator_certificates_hour", "operator_certificates_day", "certificates_hour", "certificates_day")


def build_sync_shim(where):
    made = Path(where) / "sync_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O2", "-o", made,
                    REPO / "tests/integration/sync_shim.c", "-ldl"], check=True, timeout=60)
    return made


class BenchSite(Site):
    """slow_sync: the preload, and by how many microseconds each sync is slower. slow_token: the shim, and by how many
    milliseconds each signature is."""

    def __init__(self, kit, where, ocsp=False, slow_sync=None, slow_token=None, **settings):
        super().__init__(kit, where, ocsp, **{f"caps_{name}": 0 for name in CAPS}, **settings)
        self.admin = None
        if slow_sync:
            self.env.update(LD_PRELOAD=str(slow_sync[0]), SIGNET_TEST_SYNC_DELAY=str(slow_sync[1]))
        if slow_token:
            control = self.dir / "shim-control"
            control.write_text(f"C_Sign delay {slow_token[1]}\n")
            self.set("token_module", slow_token[0])
            self.set("token_env.SHIM_MODULE", find_softhsm())
            self.set("token_env.SHIM_CONTROL", control)

    def begin(self):
        self.start()
        self.admin = self.admin or self.operator(roles="provisioner")
        return self

    def make_folders(self):
        """All that certificates' files can go to, as a server has them that has issued for a while: making one costs as
        much as a file in it does."""
        certs = self.state / "certs"
        owner = certs.stat()
        for first in range(256):
            for second in range(256):
                for path in (certs / f"{first:02x}", certs / f"{first:02x}" / f"{second:02x}"):
                    if not path.exists():
                        path.mkdir()
                        os.chown(path, owner.st_uid, owner.st_gid)
        os.sync()
        return self

    def seed(self, pool, count, revoked):
        """Stores count certificates, of which so many are revoked, as if they had been issued; then it is stopped."""
        self.begin().issue(pool, 0, 1, 1, cpu=False)
        self.stop()
        run(TOOLS / "seed-store", "--revoked", revoked, self.state, count, timeout=900 + count // 1000)
        return self

    def tls(self, operator=True):
        """What the load program needs for TLS."""
        who = ("--cert", self.admin.cert, "--key", self.admin.key) if operator else ()
        return ("--server", f"127.0.0.1:{self.port}", "--ca", self.root, *who)

    def plain(self):
        return ("--plain", "--server", f"127.0.0.1:{self.http_port}")

    def processes(self):
        return tree_of(self.process.pid)

    def pss(self):
        return pss_kb(self.processes())

    def issue(self, pool, first, count, connections, warm=0, cpu=True, seconds=0):
        """Certificates; with what the server's processes used for each, files and syncs afterwards included. seconds:
        fewer than count, when these are over."""
        with Load("issue", *self.tls(), "--issuer", self.state / "intermediate.pem", "--pool", pool, "--first", first,
                  "--count", count, "--warm", warm, "--connections", connections, "--seconds", seconds) as program:
            program.ready()
            before = settled_cpu(self.process.pid) if cpu else {}
            program.go().stopped()
            after = settled_cpu(self.process.pid) if cpu else {}
            found = program.result()
        assert found["count"] == count or seconds, found
        if not cpu:
            return found
        by_role = {role: (used - before.get(role, 0.0)) / found["count"] * 1e6 for role, used in after.items()}
        return {**found, "cpu_us": sum(by_role.values()), "cpu_us_by_role": by_role}
