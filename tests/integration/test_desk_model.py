"""Random issue, report, replace, renew, hold, unhold and revoke, against a model of what must come of each. After every step the
store, the journal, the files, the list and OCSP agree with it; the CRL every ten steps, as it takes a moment.

SIGNET_FULL=1: 1,000 steps instead of 200. SIGNET_SEED=N: those of an earlier run."""

import base64
import calendar
import collections
import json
import os
import random
import time

import pytest

from desk import check_books, check_crl, device, signature
from ocsp_client import Ocsp, answers_begin, by_openssl, one_of_each_front, word_of
from signet_site import BOARDS, HELD, ISSUED, REVOKED, Key, Site, mac, serial_of, x509

STEPS = 1000 if os.environ.get("SIGNET_FULL") else 200
REASONS = {"unspecified": 0, "keyCompromise": 1, "CACompromise": 2, "affiliationChanged": 3, "superseded": 4,
           "cessationOfOperation": 5, "privilegeWithdrawn": 9}
HOLD, LIFT = "certificateHold", "removeFromCRL"
NUMBER = {**REASONS, HOLD: 6, LIFT: 8}
STATE_NAMES = {ISSUED: "issued", HELD: "held", REVOKED: "revoked"}


def seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


class Refused(Exception):
    pass


class Certificate:
    def __init__(self, serial, name, operator, key, pem):
        self.serial, self.name, self.operator, self.key, self.pem = serial, name, operator, key, pem
        self.state, self.reason, self.at, self.kinds, self.board = ISSUED, None, None, ["intent", "issued"], 0

    def change(self, reason, undo):
        """What a revocation does to it; undo gets what takes it back."""
        before = (self.state, self.reason, self.at, list(self.kinds))
        undo.append(lambda: self.__dict__.update(zip(("state", "reason", "at", "kinds"), before)))
        if self.state == REVOKED or (self.state == HELD and reason == HOLD):
            if self.reason != NUMBER[reason]:
                raise Refused("already_revoked")
            return False
        if reason == LIFT and self.state != HELD:
            raise Refused("not_on_hold")
        self.state = ISSUED if reason == LIFT else HELD if reason == HOLD else REVOKED
        self.reason, self.at = (None, None) if reason == LIFT else (NUMBER[reason], "now")
        self.kinds.append({ISSUED: "unheld", HELD: "held", REVOKED: "revoked"}[self.state])
        return True


class Model:
    def __init__(self):
        self.all = []  # in the order of their issue

    def live(self, name):
        return [c for c in self.all if c.name == name and c.state != REVOKED]

    def revoke(self, certificates, reason, skip_held=False):
        """How many changed; a refusal of one takes all back."""
        undo, changed = [], 0
        try:
            for c in certificates:
                if not (skip_held and reason == HOLD and c.state == HELD):
                    changed += c.change(reason, undo)
        except Refused:
            for back in reversed(undo):
                back()
            raise
        return changed


class Run:
    def __init__(self, site, seed):
        self.site, self.random, self.model, self.number = site, random.Random(seed), Model(), 0
        self.names = [mac(0x700000 + i) for i in range(STEPS // 8)]
        self.ops = {"issues": site.operator("issues", "provisioner"), "both": site.operator("both", "provisioner,revoker")}
        self.lines, self.askers, self.told = {}, [], {}  # told: what OCSP said when last asked
        self.seen = collections.Counter()

    # ---- asking ----

    def line(self, name, who):
        if name not in self.lines:
            self.lines[name] = self.site.connect(who)
        return self.lines[name]

    def drop_lines(self):
        for line in self.lines.values():
            line.http.close()
        self.lines = {}
        for asker in self.askers:
            asker.http.close()
        self.askers = []

    def ask(self, name, operation, signed=False, who=None, **fields):
        """(code, answer); remembered, with the seconds between which it was."""
        who = who or self.ops[name]
        body = json.dumps({"operation": operation, **fields})
        headers = {"Content-Type": "application/json"}
        if signed:
            headers["Signet-Signature"] = signature(who, body)
        self.asked = f"{name}: {body[:300]}"
        line = self.line(name, who)
        line.http.request("POST", "/v1", body, headers)
        answer = json.loads(line.http.getresponse().read())
        self.ended = int(time.time())
        code = "OK" if answer["status"] == "OK" else answer["error"]["code"]
        self.seen[operation, code] += 1
        return code, answer

    def expect(self, found, code):
        assert found == code, f"step {self.number}: {self.asked}\n{found} instead of {code}"

    def add(self, answer, name, operator, key):
        pem = base64.b64decode(answer["certificate"])
        serial = serial_of(x509.load_pem_x509_certificate(pem))
        assert serial == answer["serial"] and all(c.serial != serial for c in self.model.all)
        made = Certificate(serial, name, operator, key, pem)
        self.model.all.append(made)
        return made

    # ---- steps ----

    def issue(self):
        name, op = self.random.choice(self.names), self.random.choice(list(self.ops))
        key = Key(name)
        code, answer = self.ask(op, "req_client_cert", csr=key.csr)
        self.expect(code, "subject_has_certificate" if self.model.live(name) else "OK")
        if code == "OK":
            self.add(answer, name, op, key).first = True

    def issue_again(self):
        """The request of an earlier one, word for word."""
        earlier = [c for c in self.model.all if getattr(c, "first", False)]
        if not earlier:
            return
        c = self.random.choice(earlier)
        code, answer = self.ask(c.operator, "req_client_cert", csr=c.key.csr)
        self.expect(code, "OK" if c.state == ISSUED else "result_dead")
        assert code != "OK" or answer["serial"] == c.serial

    def replace(self):
        name, op = self.random.choice(self.names), self.random.choice(list(self.ops))
        live, key = self.model.live(name), Key(name)
        may = op == "both" or all(c.operator == op and c.board < 2 for c in live)
        code, answer = self.ask(op, "req_client_cert", csr=key.csr, replace=True)
        self.expect(code, "OK" if may else "role_refused")
        if code == "OK":
            self.model.revoke(live, "superseded")
            self.add(answer, name, op, key)

    def renew(self):
        if not self.model.all:
            return
        c = self.random.choice(self.model.all)
        key = self.random.choice((c.key, Key(c.name)))
        who = device(self.site, "model", c.pem, c.key)
        self.lines.pop("device", self.site.connect()).http.close()
        code, answer = self.ask("device", "renew_client_cert", who=who, csr=key.csr, request_id=f"r{self.number}")
        self.expect(code, "OK" if c.state == ISSUED else "certificate_revoked")
        if code == "OK":
            self.add(answer, c.name, c.operator, key)

    def report(self):
        if not self.model.all:
            return
        c, op, to = self.random.choice(self.model.all), self.random.choice(list(self.ops)), self.random.randint(1, 2)
        code, answer = self.ask(op, "report_device", serial=c.serial, state=BOARDS[to])
        self.expect(code, "role_refused" if op != c.operator else "OK" if c.state == ISSUED else "result_dead")
        if code == "OK":
            c.board = max(c.board, to)
            assert (answer["serial"], answer["state"]) == (c.serial, BOARDS[c.board]), self.asked

    def revoke(self, certificates, reason, signed=False, code=None, skip_held=False, **fields):
        if self.random.random() < 0.5 or signed:
            fields["request_id"] = f"v{self.number}"
        fields["reason"] = reason
        found, answer = self.ask("both", "revoke_cert", signed, **fields)
        try:
            if code:
                raise Refused(code)
            changed = self.model.revoke(certificates, reason, skip_held)
        except Refused as refused:
            self.expect(found, str(refused))
            return
        self.expect(found, "OK")
        assert answer["reason"] == reason
        if "count" in answer:
            assert answer["count"] == changed, self.asked
        elif reason != LIFT:
            (c,) = certificates
            assert answer["serial"] == c.serial and (c.at == "now" or seconds(answer["revoked_at"]) == c.at)
        if "request_id" in fields and self.random.random() < 0.3:
            assert self.ask("both", "revoke_cert", signed, **fields) == ("OK", answer), "the same again"

    def revoke_serial(self):
        if self.model.all:
            c = self.random.choice(self.model.all)
            self.revoke([c], self.random.choice(list(REASONS)), serial=c.serial)

    def hold(self):
        if self.model.all:
            c = self.random.choice(self.model.all)
            self.revoke([c], HOLD, serial=c.serial)

    def unhold(self):
        held = [c for c in self.model.all if c.state == HELD]
        if self.model.all:
            c = self.random.choice(held if held and self.random.random() < 0.8 else self.model.all)
            self.revoke([c], LIFT, serial=c.serial)

    def revoke_mac(self):
        several = [n for n in self.names if len(self.model.live(n)) > 1]
        name = self.random.choice(several if several and self.random.random() < 0.5 else self.names)
        signed = self.random.random() < 0.4
        live, reason = self.model.live(name), self.random.choice([*REASONS, HOLD, LIFT])
        code = "serial_unknown" if not live else None
        if len(live) > 1 and not signed:
            # the first is done before the second is seen; what it says comes first
            code = "signature_required"
            if reason == LIFT and live[0].state != HELD:
                code = "not_on_hold"
        self.revoke(live, reason, signed, code, mac=name)

    def revoke_list(self):
        if self.model.all:
            chosen = self.random.choices(self.model.all, k=self.random.randint(1, 4))
            serials, code = [c.serial for c in chosen], None
            if self.random.random() < 0.1:
                serials.append("00" * 16)
            reason = self.random.choice([*REASONS, HOLD, LIFT])
            if serials[-1] == "00" * 16:
                undo = []
                try:
                    for c in chosen:
                        c.change(reason, undo)
                    code = "serial_unknown"
                except Refused as refused:
                    code = str(refused)
                for back in reversed(undo):
                    back()
            self.revoke(chosen, reason, True, code, serials=serials)

    def revoke_issued_by(self):
        if not self.model.all:
            return
        op, start = self.random.choice(list(self.ops)), self.random.choice(self.model.all).issued_at
        end = start + self.random.randint(-1, 0)  # an operator's whole shift would leave too little
        reason = self.random.choice([*REASONS, HOLD])
        chosen = [c for c in self.model.all if c.operator == op and start <= c.issued_at <= end and c.state != REVOKED]
        stamp = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t)) for t in (start, end)]
        self.revoke(chosen, reason, True, None, True, issued_by=op, **{"from": stamp[0], "to": stamp[1]})

    # ---- what must be so after each ----

    def take_times(self, books):
        for c in self.model.all:
            state, reason, at, *_ = books[c.serial]
            if c.at == "now":
                assert self.began <= at <= self.ended, (self.asked, c.serial)
                c.at = at
        for serial, issued_at in self.site.query("SELECT lower(hex(serial)), issued_at FROM certificate"):
            for c in self.model.all[-1:]:
                if c.serial == serial and not hasattr(c, "issued_at"):
                    assert self.began <= issued_at <= self.ended
                    c.issued_at = issued_at

    def listed(self, **fields):
        found, after = [], None
        while True:
            code, answer = self.ask("both", "list_certs", limit=self.random.randint(50, 500), **fields,
                                    **({"after": after} if after else {}))
            assert code == "OK", answer
            found += answer["certificates"]
            after = answer.get("next")
            if not after:
                return found

    def check(self):
        books = check_books(self.site, with_crl=False)
        self.take_times(books)
        expected = {c.serial: (c.state, c.reason, c.at, c.name, "device", c.kinds) for c in self.model.all}
        assert {s: row for s, row in books.items() if row[4] == "device"} == expected, f"step {self.number}: {self.asked}"
        asked = self.asked
        listed = [r for r in self.listed() if r["profile"] == "device"]
        assert [r["serial"] for r in listed] == [c.serial for c in self.model.all], asked
        for r, c in zip(listed, self.model.all):
            assert (r["state"], r["board"], r["name"], r["operator"]) == \
                (STATE_NAMES[c.state], BOARDS[c.board], c.name, c.operator), asked
            assert (seconds(r["revoked_at"]) if r.get("revoked_at") else None) == c.at, (asked, r)
            assert (NUMBER[r["reason"]] if r.get("reason") else None) == c.reason, (asked, r)
        name = self.random.choice(self.names)
        assert [r["serial"] for r in self.listed(mac=name)] == [c.serial for c in self.model.all if c.name == name]
        board = self.random.randint(0, 2)
        assert [r["serial"] for r in self.listed(board=BOARDS[board])] == \
            [c.serial for c in self.model.all if c.board == board], asked
        assert [r["serial"] for r in self.listed(state="held")] == [c.serial for c in self.model.all if c.state == HELD]

    def check_ocsp(self):
        """What changed in the last steps and some more, by every front; and by `openssl ocsp`, what one of them says."""
        self.askers = self.askers or one_of_each_front(self.site, lambda: Ocsp(self.site))
        changed = [c for c in self.model.all if self.told.get(c.serial) != (c.state, c.reason, c.at)]
        self.told.update({c.serial: (c.state, c.reason, c.at) for c in changed})
        others = self.random.sample(self.model.all, min(5, len(self.model.all)))
        for c in changed + others:
            said = [asker.word(c.serial) for asker in self.askers]
            assert said == [word_of(c.state, c.reason, c.at)] * len(self.askers), (self.asked, c.serial)
        for c in (changed + others)[:1]:
            assert by_openssl(self.site, c.serial, "-no_nonce") == word_of(c.state, c.reason, c.at), (self.asked, c.serial)

    def check_crl(self):
        check_crl(self.site, {c.serial: (c.reason, c.at) for c in self.model.all if c.state != ISSUED})

    def step(self):
        self.number += 1
        steps = {self.issue: 30, self.replace: 12, self.renew: 10, self.issue_again: 5, self.report: 15, self.revoke_serial: 8, self.hold: 10,
                 self.unhold: 10, self.revoke_mac: 8, self.revoke_list: 5, self.revoke_issued_by: 2}
        # time(2) may be a tick behind what Python reads, so it may see the second before
        self.asked, self.began = "nothing", int(time.time() - 0.1)
        self.random.choices(list(steps), list(steps.values()))[0]()
        if self.asked != "nothing":
            self.check()
            self.check_ocsp()


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", ocsp=True) as s:
        yield s


def test_random_steps(site):
    seed = int(os.environ.get("SIGNET_SEED", random.randrange(1 << 32)))
    print(f"SIGNET_SEED={seed}")
    site.start()
    answers_begin(site)
    run = Run(site, seed)
    for number in range(1, STEPS + 1):
        run.step()
        if number % 10 == 0:
            run.check_crl()
        if number in (STEPS // 3, STEPS * 2 // 3):
            run.drop_lines()
            site.stop() if number < STEPS // 2 else site.kill()
            site.start()
            answers_begin(site)
            run.check()
            run.check_ocsp()
            run.check_crl()
    run.drop_lines()
    states = [c.state for c in run.model.all]
    print(f"{len(states)} certificates: {states.count(ISSUED)} in force, {states.count(HELD)} on hold, "
          f"{states.count(REVOKED)} revoked\n{dict(run.seen)}")
    assert len(states) > STEPS // 5 and {ISSUED, REVOKED} <= set(states)
