"""Fronts in other hands: what speaks the messages with malice in a front's place is ended or refused, and nobody else
is the worse for it. The same for the publisher. (What they may ask of the kernel is in tests/unit/test_sandbox.c.)"""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import ssl
import struct
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from desk import PROFILES, edit, events, new_key, signature
from front_harness import MESSAGES
from hijack import Hijack, seen, text
from signet_site import ISSUED, REVOKED, Key, Site, is_alive, mac, wait_for
from test_ctl import audit_passes

FRONTS, CREDITS, CAP = 17, 8, 6
FOREIGN = os.urandom(32)
FROM_OTHERS = (
    "ready peer_end token_state listener answer_certificate signer_hello signed crl_digest crl_signature "
    "admin_operator_issue admin_import admin_pin_retry publisher_wanted").split()
FROM_OTHERS_WITH_FD = ["peer", "reload", "document", "crl_done"]


def spki_of(private):
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def seen_of(operator):
    return seen(ssl.PEM_cert_to_DER_cert(operator.cert.read_text()))


def request(caller, key=None):
    """A request for a certificate as a front sends it."""
    key = key or new_key()
    csr = x509.load_pem_x509_csr(base64.b64decode(key.csr))
    return {"operation": "req_client_cert", "profile": "device", "body_digest": os.urandom(32), "name": key.name,
            "csr_digest": hashlib.sha256(csr.public_bytes(Encoding.DER)).digest(), "spki": spki_of(key.private),
            **caller}


class Client(threading.Thread):
    """Well-behaved, through the front that is nobody else's: all that it asks is answered, all the time."""

    def __init__(self, site, operator):
        super().__init__(daemon=True)
        self.site, self.operator, self.count, self.failed, self.over = site, operator, 0, None, threading.Event()
        self.start()

    def run(self):
        try:
            with self.site.connect(self.operator) as c:
                while not self.over.wait(0.05):
                    status, said = c.issue(new_key())
                    assert status == 200, said
                    assert self.site.get("/crl")[0] == 200
                    self.count += 1
        except Exception as e:
            self.failed = e

    def goes_on(self):
        before = self.count
        wait_for(lambda: self.failed or self.count > before, "a client of another front is served")
        assert self.failed is None, self.failed


class Scene:
    def __init__(self, site, hijack):
        self.site, self.hijack = site, hijack
        edit(site, "[profile kept]\nrenew_key = same\n" + PROFILES["device"] % "+3650d")
        site.set("caps_operator_certificates_hour", 100000)
        site.start()
        self.op, self.thief = site.operator(), site.operator("thief", "provisioner")
        self.auditor = site.operator("auditor", "auditor")
        self.seen = {o.name: seen_of(o) for o in (self.op, self.thief, self.auditor)}
        wait_for(lambda: site.get("/crl")[0] == 200, "a CRL")
        self.client = Client(site, self.op)
        self.authority = site.roles()["authority"]

    def issue(self, who="thief", key=None, **other):
        return {**request(self.seen[who], key), **other}

    def memory(self):
        """KiB of the authority that are its own."""
        with open(f"/proc/{self.authority[0]}/status") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def all_is_well(self):
        self.client.goes_on()
        assert self.site.roles()["authority"] == self.authority, "the authority ended"

    def ended(self, taken, why=None):
        """The authority hangs up, the supervisor ends it, the log tells, others go on."""
        assert taken.is_cut_off()
        wait_for(lambda: not is_alive(taken.pid), "it is ended")
        said = rf"front {taken.number} is ended: {re.escape(why) if why else ''}"
        wait_for(lambda: re.search(said, self.site.log()), f"the log says: {said}")
        taken.close()


@pytest.fixture(scope="module")
def scene(kit, tmp_path_factory):
    where = tmp_path_factory.mktemp("hijack") / "site"
    with Site(kit, where, ocsp=True, server_fronts=FRONTS, server_credits=CREDITS, ca_ocsp_budget=1) as site:
        with contextlib.closing(Hijack(site)) as hijack:
            s = Scene(site, hijack)
            yield s
            s.client.over.set()
            s.client.join(60)


@pytest.fixture
def front(scene):
    """A front that was taken over."""
    taken = scene.hijack.next()
    yield taken
    taken.close()
    scene.all_is_well()


# ---- frames ----

def frame(version=MESSAGES.version, kind=MESSAGES.number["status"], zero=0, length=None, body=None):
    body = MESSAGES.encode("status", 1)[16:] if body is None else body
    return struct.pack(">BBHIQ", version, kind, zero, len(body) if length is None else length, 1) + body


def list_of(name):
    """A question with a text in the middle."""
    whole = MESSAGES.encode("list", 1, limit=1)[16:]
    return frame(kind=MESSAGES.number["list"], body=whole[:17] + name + whole[22:])


MALFORMED = "a malformed message, or one it may not send"
FIELDS = "a message with bad fields"
FRAMES = {
    "half a header": (frame()[:9], MALFORMED),
    "another version": (frame(version=MESSAGES.version + 1), MALFORMED),
    "zero is not zero": (frame(zero=1), MALFORMED),
    "a length too short": (frame(length=3), MALFORMED),
    "a length too long": (frame(length=1 << 31), MALFORMED),
    "no such type": (frame(kind=0), MALFORMED),
    "no such type either": (frame(kind=255), MALFORMED),
    "longer than allowed": (frame(body=b"x" * (128 * 1024)), "a truncated record, or a broken socket"),
    "a field is missing": (frame(body=frame()[16:-5]), FIELDS),
    "half a field": (frame(body=frame()[16:-1]), FIELDS),
    "a byte behind": (frame(body=frame()[16:] + b"\0"), FIELDS),
    "a field beyond the end": (frame(body=b"\xff\xff\xff\xff" + frame()[20:]), FIELDS),
    "a field beyond its maximum": (frame(body=struct.pack(">I", 33) + bytes(33) + frame()[20:]), FIELDS),
    "a text without its NUL": (list_of(struct.pack(">I", 1) + b"x"), FIELDS),
    "a NUL in a text": (list_of(text(b"a\0b")), FIELDS),
    "a text too long": (list_of(text(b"a" * 65)), FIELDS),
}


@pytest.mark.parametrize("which", FRAMES)
def test_a_wrong_frame(scene, front, which):
    record, why = FRAMES[which]
    front.send(record)
    scene.ended(front, why)


def test_one_that_hangs_up_with_a_record_of_nothing(scene, front):
    front.send(b"")
    assert front.is_cut_off()
    wait_for(lambda: not is_alive(front.pid), "it is ended")


@pytest.mark.parametrize("how", ["one", "two", "many", "with nothing"])
def test_descriptors_where_none_belong(scene, front, how):
    before = len(os.listdir(f"/proc/{scene.authority[0]}/fd")) if os.geteuid() == 0 else None
    with open("/dev/null") as null:
        front.send(b"" if how == "with nothing" else frame(), [null.fileno()] * {"two": 2, "many": 100}.get(how, 1))
        scene.ended(front)
    if before:  # sockets of fronts that come meanwhile are not meant
        wait_for(lambda: len(os.listdir(f"/proc/{scene.authority[0]}/fd")) <= before + FRONTS, "none is kept")


def test_what_only_others_may_send(scene):
    """Each ends its front."""
    with open("/dev/null") as null:
        for name in FROM_OTHERS + FROM_OTHERS_WITH_FD:
            front = scene.hijack.next()
            with_fd = [null.fileno()] if name in FROM_OTHERS_WITH_FD else []
            front.send(MESSAGES.encode(name, 1), with_fd)
            scene.ended(front, MALFORMED)
    scene.all_is_well()


def wrong_fields(scene):
    return {"issue": [scene.issue(body_digest=b"x"), scene.issue(csr_digest=b""),
                      scene.issue(operation="req_server_cert"), scene.issue(operation="")],
            "renew": [{**scene.seen["op"], "body_digest": bytes(31), "csr_digest": bytes(32)}],
            "revoke": [{**scene.seen["op"], "body_digest": bytes(32)},
                       {**scene.seen["op"], "body_digest": bytes(32), "name": mac(1), "serial": b"x"},
                       {**scene.seen["op"], "serial": b"x"}],
            "report": [{**scene.seen["op"], "board": 1}, {**scene.seen["op"], "serial": b"x", "board": 3}],
            "enrol": [{"body_digest": bytes(32), "csr_digest": bytes(32), "password_sha256": bytes(31)}],
            "ocsp": [{"certids": b""}, {"certids": b"\xff" * 40}, {"certids": os.urandom(1024)}]}


def test_fields_that_no_front_sends(scene):
    with nothing_but_the_client(scene):
        for name, many in wrong_fields(scene).items():
            for values in many:
                front = scene.hijack.next()
                front.say(name, 1, **values)
                scene.ended(front, FIELDS)
    scene.all_is_well()


@contextlib.contextmanager
def nothing_but_the_client(scene):
    """No certificate comes of it beside those of the client who goes on."""
    def issued():
        return scene.site.query("SELECT count(*) FROM certificate c LEFT JOIN operator o ON o.id = c.operator "
                                "WHERE o.name IS NOT 'op' AND c.profile NOT IN ('server', 'ocsp')")
    before = issued()
    yield
    assert issued() == before


# ---- another's identity, foreign keys ----

def test_an_identity_that_it_never_saw(scene, front):
    """Serial and issuer are on every certificate; the bytes are not."""
    op = scene.seen["op"]
    with nothing_but_the_client(scene):
        for caller, code in (({}, "certificate_required"),
                             ({**op, "caller_digest": FOREIGN}, "certificate_unknown"),
                             ({**op, "caller_digest": op["caller_digest"][:31]}, "certificate_unknown"),
                             ({**op, "caller_serial": op["caller_serial"][:-1] + b"\0"}, "certificate_unknown"),
                             ({**op, "caller_issuer": FOREIGN}, "certificate_unknown")):
            values = {k: v for k, v in scene.issue().items() if not k.startswith("caller_")}
            assert front.ask("issue", **values, **caller) == ("error", code)
            assert front.ask("list", limit=1, **caller) == ("error", code)
            assert front.ask("renew", body_digest=bytes(32), csr_digest=bytes(32), **caller) == ("error", code)
            assert front.ask("signed_request", body=b"{}", signature=b"x", **caller) == ("error", code)
            name, status = front.ask("status", **caller)
            assert name == "answer_status" and not status["detailed"]


def test_an_identity_beyond_its_role(scene, front):
    name, answer = front.ask("issue", **scene.issue("op"))
    assert name == "answer_certificate"
    device = seen(answer["der"])
    with nothing_but_the_client(scene):
        assert front.ask("issue", **scene.issue("auditor")) == ("error", "role_refused")
        assert front.ask("issue", **{**scene.issue(), **device}) == ("error", "role_refused")
        assert front.ask("get", serial=answer["serial"], **device) == ("error", "role_refused")
        assert front.ask("report", serial=answer["serial"], board=2, **scene.seen["thief"]) == ("error", "role_refused")
        assert front.ask("revoke", serial=answer["serial"], body_digest=bytes(32), reason=1, **scene.seen["thief"]) == \
            ("error", "role_refused")
        # an operator's is not renewed: with a key of its own the front could sign what must be signed
        assert renew(front, ssl.PEM_cert_to_DER_cert(scene.op.cert.read_text()), Key("op")) == \
            ("error", "profile_refused")
        # nor is it shown, nor the server's own
        for serial in (scene.seen["thief"]["caller_serial"],
                       *(s for (s,) in scene.site.query("SELECT serial FROM certificate WHERE profile = 'server'"))):
            name, row = front.ask("get", serial=serial, **scene.seen["op"])
            assert (name, row["der"]) == ("answer_row", b"")


def test_keys_and_names_that_are_refused(scene, front):
    taken = new_key()
    assert front.ask("issue", **scene.issue(key=taken))[0] == "answer_certificate"
    weak = spki_of(rsa.generate_private_key(65537, 1024))
    curve = spki_of(ec.generate_private_key(ec.SECP256K1()))
    off = bytearray(spki_of(taken.private))
    off[-1] ^= 1
    with nothing_but_the_client(scene):
        for spki in (b"", b"0", os.urandom(1024), weak, curve, bytes(off), spki_of(taken.private) + b"\0"):
            name, code = front.ask("issue", **scene.issue(spki=spki))
            assert name == "error" and code.startswith("key_"), code
        assert front.ask("issue", **scene.issue(spki=spki_of(taken.private))) == ("error", "key_of_other_subject")
        for name in ("", "not-a-mac", "24:0A:C4:00:00:01", "ff:ff:ff:ff:ff:ff", mac(1) + " serial=00", "%n%s%x",
                     mac(1) + "\n9 2026-01-01T00:00:00Z revoked"):
            assert front.ask("issue", **scene.issue(name=name))[0] == "error"
        for profile in ("nothing", "operator", "ocsp", "server", "device serial=00", "../device", "a" * 64):
            assert front.ask("issue", **scene.issue(profile=profile))[0] == "error"
    scene.site.check_journal()


def test_passwords_that_nobody_made(scene, front):
    asked = {k: v for k, v in scene.issue().items() if not k.startswith("caller_") and k != "operation"}
    for user in ("", "nobody", "' OR 1=1 --", "a" * 64):
        assert front.ask("enrol", **asked, user=user, password_sha256=bytes(32)) == ("error", "enrolment_refused")


# ---- an operator's own words ----

def test_signed_requests_are_not_changed_nor_made(scene, front):
    key = new_key()
    _, made = front.ask("issue", **scene.issue(key=key))
    serial = made["serial"].hex()
    body = json.dumps({"operation": "revoke_cert", "serials": [serial], "reason": "superseded",
                       "request_id": os.urandom(8).hex()}).encode()
    good = base64.b64decode(signature(scene.op, body))
    other = base64.b64decode(signature(scene.thief, body))
    attached = base64.b64decode(signature(scene.op, body, "-nocerts", "-nodetach"))
    op = scene.seen["op"]

    def ask(body=body, signed=good, **caller):
        return front.ask("signed_request", body=body, signature=signed, **{**op, **caller})

    def state():
        return scene.site.query("SELECT state FROM certificate WHERE serial = ?", made["serial"])

    no_signer = bytes.fromhex("302306092a864886f70d010702a016301402010131" "00300b06092a864886f70d0107013100")
    for wrong in (dict(body=body.replace(b"superseded", b"keyCompromise")), dict(body=body + b"\n"), dict(signed=other),
                  dict(signed=good[:-1]), dict(signed=good + b"\0"), dict(signed=attached), dict(signed=no_signer),
                  dict(signed=good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]), dict(signed=os.urandom(16384))):
        assert ask(**wrong) == ("error", "signature_invalid"), wrong
    assert ask(**scene.seen["thief"]) == ("error", "signature_invalid")  # the signer's words, another's name
    assert ask(signed=b"") == ("error", "signature_required")
    assert state() == [(ISSUED,)]
    first = ask()
    assert first[0] == "answer_revoked" and state() == [(REVOKED,)]
    revocations = len(events(scene.site, "revoked"))
    assert [ask() for _ in range(5)] == [first] * 5  # replayed, it does nothing new
    assert len(events(scene.site, "revoked")) == revocations


# ---- what is bounded ----

def test_caps_hold(kit, tmp_path):
    """With an operator's bytes it has what that operator may have, and no other has less."""
    caps = {"caps_operator_certificates_day": CAP, "caps_operator_revocations_day": 2,
            "caps_certificates_day": 2 * CAP + 2}
    with Site(kit, tmp_path / "site", server_fronts=2, **caps) as site, contextlib.closing(Hijack(site)) as hijack:
        site.start()
        by_name = {name: site.operator(name) for name in ("thief", "op", "third")}
        front = hijack.next()

        def issue(who, key=None):
            return front.ask("issue", **request(seen_of(by_name[who]), key))

        got = [issue("thief") for _ in range(CAP + 3)]
        assert [name for name, _ in got] == ["answer_certificate"] * CAP + ["error"] * 3 and got[-1][1] == "too_many"
        thief = seen_of(by_name["thief"])
        revoked = [front.ask("revoke", serial=made["serial"], reason=4, body_digest=bytes(32), **thief)
                   for _, made in got[:3]]
        assert [name for name, _ in revoked] == ["answer_revoked"] * 2 + ["error"]
        assert revoked[-1] == ("error", "too_many")
        assert site.issue(by_name["op"], new_key())[0] == 200
        # renewals are of no operator: what is left of everybody's is theirs
        board = got[5][1]["der"]
        used = [renew(front, board, Key(name_in(board))) for _ in range(7)]
        assert [name for name, _ in used] == ["answer_certificate"] * 7
        assert issue("op") == ("error", "too_many") and issue("third") == ("error", "too_many")
        assert len(site.query("SELECT 1 FROM certificate WHERE profile = 'device'")) == 2 * CAP + 2
        site.check_journal()


def test_an_id_that_is_in_flight_is_used_again(scene, front):
    """Each question is answered, under the id that it came with; whose they are is the front's own affair."""
    keys = [new_key() for _ in range(4)]
    for key in keys:
        front.say("issue", 7, **scene.issue(key=key))
    answers = [front.hear() for _ in keys]
    assert [(name, ident) for name, ident, _ in answers] == [("answer_certificate", 7)] * 4
    assert {x509.load_der_x509_certificate(a["der"]).subject.rfc4514_string() for _, _, a in answers} == \
        {"CN=" + key.name for key in keys}


def test_a_flood_of_requests(scene, front):
    """More at once than it was told that it may have."""
    for record in [MESSAGES.encode("issue", 1, **scene.issue()) for _ in range(100)]:
        front.send(record)
    scene.ended(front, "it asks beyond its credits")
    left = "SELECT 1 FROM certificate c JOIN operator o ON o.id = c.operator WHERE c.state = 0 AND o.name = 'thief'"
    wait_for(lambda: not scene.site.query(left), "no intent is left open")


def test_one_that_never_reads(scene, front):
    """What is kept for it is bounded, and then it is ended."""
    before = scene.memory()
    record = MESSAGES.encode("get", 1, serial=front_serial(scene), **scene.seen["op"])
    front.authority.settimeout(0.5)
    with contextlib.suppress(OSError):
        for _ in range(60000):
            front.authority.send(record)
    wait_for(lambda: not is_alive(front.pid), "it is ended")
    assert f"front {front.number} is ended: it does not take its messages" in scene.site.log()
    if "ASAN_OPTIONS" not in os.environ:  # it keeps what is freed
        assert scene.memory() - before < 24 * 1024
    front.close()


def front_serial(scene):
    return scene.site.query("SELECT serial FROM certificate WHERE profile = 'device' ORDER BY id LIMIT 1")[0][0]


def test_one_that_asks_without_end(scene, front):
    """It reads what it gets, and is served; so is everybody else."""
    over = threading.Event()

    def ask():
        with contextlib.suppress(OSError, TypeError):
            while not over.is_set():
                for i in range(10):
                    front.say("list", i, limit=500, **scene.seen["op"])
                for i in range(10):
                    while front.hear()[0] != "answer_page":
                        pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    for _ in range(10):
        scene.client.goes_on()
    over.set()
    thread.join(60)
    assert is_alive(front.pid)


def test_half_a_request_and_silence_and_an_end_in_the_middle(scene):
    """A front that is gone leaves no question open."""
    silent = scene.hijack.next()  # says nothing, ever
    for _ in range(3):
        front = scene.hijack.next()
        keys = [new_key() for _ in range(4)]
        for key in keys:
            front.say("issue", 1, **scene.issue(key=key))
        front.close()
        wait_for(lambda: not is_alive(front.pid), "it is ended")
        for key in keys:
            def settled():
                return scene.site.query("SELECT state FROM certificate WHERE name = ?", key.name) in ([(ISSUED,)], [])
            wait_for(settled, "an intent comes to its end")
    assert is_alive(silent.pid)
    scene.all_is_well()


def test_what_it_says_to_the_supervisor(scene):
    for wrong in (frame(), MESSAGES.encode("peer_end", 0, role=2), MESSAGES.encode("pin_retry", 0),
                  MESSAGES.encode("signer_hello", 0), MESSAGES.encode("ready", 0, detail="") * 2):
        front = scene.hijack.next()
        front.supervisor.send(wrong)
        wait_for(lambda: not is_alive(front.pid), "it is ended")
        front.close()
    front = scene.hijack.next()
    for _ in range(2):
        front.supervisor.send(MESSAGES.encode("ready", 0, detail="x"))
    wait_for(lambda: not is_alive(front.pid), "it is ready once")
    front.close()
    front = scene.hijack.next()
    for fault in range(20):  # nobody but a signer has a PIN refused
        detail = "[token] pin_file: \x1b[31mrefused\nsignetd[1]: x"
        front.supervisor.send(MESSAGES.encode("failed", 0, fault=fault, detail=detail))
    front.close()
    os.kill(front.pid, 9)
    wait_for(lambda: not is_alive(front.pid), "it is gone")
    assert not (scene.site.state / "pin-refused").exists()
    assert "\nsignetd[1]" not in scene.site.log() and "\x1b" not in scene.site.log()
    scene.all_is_well()


def test_ocsp_for_itself_alone(scene, front):
    """Answers that nobody else can use have a budget, whoever asks."""
    ca = x509.load_pem_x509_certificate((scene.site.state / "intermediate.pem").read_bytes())
    serial = front_serial(scene)
    spki = ca.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    hashes = b"".join(hashlib.sha1(data).digest() for data in (ca.subject.public_bytes(), spki))
    packed = bytes([20, len(serial)]) + hashes + serial
    for i in range(6):
        front.say("ocsp", i, certids=packed, nonce=os.urandom(16))
    answers = [front.hear()[0] for _ in range(6)]
    assert "answer_error" in answers, answers
    wait_for(lambda: front.ask("ocsp", certids=packed, nonce=bytes(16))[0] == "answer_ocsp", "later there is one")


# ---- a device's certificate ----

def name_in(der):
    return x509.load_der_x509_certificate(der).subject.rfc4514_string().removeprefix("CN=")


def renew(front, device, key):
    asked = {k: v for k, v in request(seen(device), key).items() if k not in ("operation", "profile")}
    return front.ask("renew", **asked)


def test_a_devices_bytes(scene, front):
    """Who has seen them renews them: for this board alone, so often and no more, and the journal says from what."""
    board = new_key()
    _, made = front.ask("issue", **scene.issue(key=board))
    own = Key(board.name)
    name, got = renew(front, made["der"], own)
    assert name == "answer_certificate"
    told = f" name={board.name} operator=- renews={made['serial'].hex()} "
    assert any(told in event for event in events(scene.site, "intent"))
    assert renew(front, made["der"], new_key()) == ("error", "name_not_allowed")
    for _ in range(6):
        assert renew(front, made["der"], Key(board.name))[0] == "answer_certificate"
    assert renew(front, made["der"], Key(board.name)) == ("error", "too_many")


def test_a_devices_bytes_where_the_key_stays(scene, front):
    board = new_key()
    _, made = front.ask("issue", **scene.issue(key=board, profile="kept"))
    assert renew(front, made["der"], Key(board.name)) == ("error", "profile_refused")
    name, got = renew(front, made["der"], board)
    assert name == "answer_certificate" and got["serial"] != made["serial"]


# ---- the publisher ----

def test_a_publisher_in_other_hands(kit, tmp_path):
    """It gets one signature, and what it hands over cannot be changed."""
    with Site(kit, tmp_path / "site") as site, contextlib.closing(Hijack(site, "publisher")) as hijack:
        site.start()

        def ended(say):
            publisher = hijack.next()
            assert publisher.hear("crl_job")[0] == "crl_job"
            say(publisher)
            while publisher.hear("crl_signature") is not None:
                pass
            wait_for(lambda: not is_alive(publisher.pid), "it is ended")
            publisher.close()

        def two_signatures(publisher):
            publisher.say("crl_digest", 1, digest=bytes(32))
            assert publisher.hear("crl_signature")[0] == "crl_signature"
            publisher.say("crl_digest", 1, digest=bytes(32))
            assert publisher.hear("crl_signature") is None

        def not_sealed(publisher):
            fd = os.memfd_create("crl", os.MFD_ALLOW_SEALING)
            os.write(fd, b"0\0")
            publisher.send(MESSAGES.encode("crl_done", 1, size=2, sha256=bytes(32)), [fd])
            os.close(fd)

        ended(two_signatures)
        ended(lambda publisher: publisher.say("crl_digest", 1, digest=bytes(20)))
        ended(not_sealed)
        told = wait_for(lambda: events(site, "violation"), "the journal tells of it")
        assert told[0].startswith("violation role=publisher ")
        assert site.get("/crl")[0] == 404 and site.issue(site.operator(), new_key())[0] == 200
        assert site.query("SELECT 1 FROM journal WHERE line LIKE '% crl number=%'") == []


@pytest.mark.long
def test_one_that_does_not_retire(kit, tmp_path):
    """After SIGHUP new fronts take over. What the old ones do with their listening sockets has an end."""
    with Site(kit, tmp_path / "site", server_fronts=2) as site, contextlib.closing(Hijack(site)) as hijack:
        site.start()
        old = hijack.next()
        site.process.send_signal(signal.SIGHUP)
        new = [hijack.next(), hijack.next()]
        for front in new:
            front.supervisor.send(MESSAGES.encode("ready", 0, detail=""))
        wait_for(lambda: site.roles().get("front", []) == [], "the one that is in nobody's hands has retired")
        assert is_alive(old.pid)
        old.close()
        wait_for(lambda: not is_alive(old.pid), "it is ended")


# ---- at the end ----

def test_the_books(scene):
    """Of all that the journal has a line, and not one for each; there are fronts as before; the books are right."""
    site = scene.site
    scene.client.over.set()
    scene.client.join(60)
    assert scene.client.failed is None and scene.client.count > 20
    ends = len(re.findall(r"front \d+ is ended: ", site.log()))
    told = events(site, "violation")
    assert told[0].startswith("violation role=front number=") and "untold=0 why=" in told[0]
    assert 1 <= len(told) <= 1 + (time.monotonic() - BEGAN) / 60
    assert len(told) + sum(int(re.search(r"untold=(\d+)", t).group(1)) for t in told) <= ends and ends > 50
    scene.hijack.next()  # there is always a new one
    assert site.issue(site.operator("last"), new_key())[0] == 200
    site.check_journal()
    audit_passes(site)


BEGAN = time.monotonic()
