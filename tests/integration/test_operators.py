"""signetctl: what an administrator is told is what was done."""

import json
import os
import stat
import subprocess

from cryptography import x509
from cryptography.x509.oid import NameOID

from signet_site import BIN, Key, mac


def cn_of(pem):
    return x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def operators(site):
    lines = site.ctl("--json", "operator", "list").stdout.splitlines()
    return {row["operator"]: row for row in map(json.loads, lines)}


def refused(done):
    return json.loads(done.stdout)["error"]["code"]


def test_same_request_again(site):
    """The same file, name and roles: the same certificate. Another name or other roles are another request."""
    site.start()
    op = site.operator("op", "provisioner")
    csr, pem = site.dir / "op.csr", op.cert.read_text()
    issue = ("operator", "issue", "--csr", csr, "--role")
    assert site.ctl(*issue, "provisioner").stdout == pem

    raised = site.ctl(*issue, "provisioner,admin").stdout
    assert raised != pem and cn_of(raised) == "op"
    assert operators(site)["op"]["roles"] == "provisioner,admin"

    assert refused(site.ctl("--json", *issue, "provisioner", "--name", "bob", code=4)) == "key_of_other_subject"
    assert list(operators(site)) == ["op"]
    site.check_books()


def test_output_file_is_not_overwritten(site):
    site.start()
    op = site.operator()
    before = op.cert.read_bytes()
    done = site.ctl("operator", "issue", "--csr", site.dir / "op.csr", "--role", "provisioner,revoker",
                    "--out", op.cert, code=5)
    assert "exists already" in done.stderr and op.cert.read_bytes() == before


def test_list_and_revoke(site):
    site.start()
    names = [f"op-{n:03d}" for n in range(3)]
    for name in names:
        site.operator(name)
    assert list(operators(site)) == names
    assert site.ctl("operator", "revoke", "--name", "op-001").stdout == \
        "operator op-001 is revoked, with 1 certificate\n"
    assert [row["state"] for row in operators(site).values()] == ["in force", "revoked", "in force"]
    assert json.loads(site.ctl("--json", "operator", "revoke", "--name", "op-001").stdout) == \
        {"status": "OK", "operator": "op-001", "certificates_revoked": 0}
    assert refused(site.ctl("--json", "operator", "revoke", "--name", "nobody", code=4)) == "operator_unknown"
    site.ctl("operator", "revoke", "--name", "op-002", "--reason", "certificateHold", code=2)
    site.check_books()


def test_status_tells_not_ready(site):
    site.ctl("status", code=3)
    site.start()
    told = json.loads(site.ctl("--json", "status").stdout)
    assert told["ready"] and told["signers_ready"] == told["signers_wanted"] and told["problem"] == ""
    assert site.issue(site.operator(), Key(mac(1)))[0] == 200
    told = json.loads(site.ctl("--json", "status").stdout)
    assert told["issued"] >= 2 and told["pending"] == told["orphans"] == 0


def test_nobody_else_comes_in(site):
    """Not root, not signetd's user, not of admin_group: the socket's mode keeps them out."""
    site.start()
    mode = stat.S_IMODE(os.stat(site.state / "admin.sock").st_mode)
    assert mode & 0o007 == 0
    if os.getuid() != 0:
        return
    for folder in [site.dir, *site.dir.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    site.state.chmod(0o755)
    (site.state / "admin.sock").chmod(0o666)  # and should it not: who asks is looked up
    site.conf.chmod(0o644)
    done = subprocess.run([BIN / "signetctl", "--config", site.conf, "status"], capture_output=True, text=True,
                          user=65534, group=65534, extra_groups=[])
    assert done.returncode == 3 and "root or in admin_group" in done.stderr
    assert "user 65534" in site.log()
