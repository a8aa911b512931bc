"""The outside checker: it keeps every byte that clients received, and afterwards compares store, journal, files, CRLs
and the token's own account of its signatures with it."""

import base64
import bisect
import calendar
import hashlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter, defaultdict

from cryptography import x509

from desk import REASONS, check_books
from ocsp_client import Ocsp, has_ocsp, one_of_each_front, word_of
from signet_site import HELD, ISSUED, ORPHAN, REVOKED, anchor_of, serial_of, wait_for

ISSUING = ("req_client_cert", "req_server_cert", "renew_client_cert")
LOST = (OSError, http.client.HTTPException)
LIVE = (ISSUED, HELD)


class Asked:
    """One request, and what came of it each time that it was sent: [(began, ended, status, answer)]; status 0: lost."""

    def __init__(self, operation, fields):
        self.operation, self.fields, self.attempts = operation, fields, []

    @property
    def answers(self):
        return [answer for _, _, status, answer in self.attempts if status == 200]

    @property
    def is_open(self):
        """Nobody knows what came of it: lost, or to be asked again."""
        return self.attempts[-1][2] in (0, 429, 503)

    def csr(self):
        return x509.load_pem_x509_csr(base64.b64decode(self.fields["csr"]))

    def csr_name(self):
        return name_of(self.csr())

    def pem(self):
        return base64.b64decode(self.answers[0]["certificate"])


def name_of(subject):
    return subject.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


class Witness:
    def __init__(self):
        self.lock, self.asked, self.crls = threading.Lock(), {}, []

    # ---- what clients see ----

    def ask(self, connection, operation, **fields):
        """Connection.ask(), with what came of it written down; a lost connection too, which is raised on."""
        with self.lock:
            asked = self.asked.setdefault(operation + json.dumps(fields, sort_keys=True), Asked(operation, fields))
        began, status, answer = time.monotonic(), 0, None
        try:
            status, answer = connection.ask(operation, **fields)
            return status, answer
        except LOST as e:
            answer = type(e).__name__
            raise
        finally:
            with self.lock:
                asked.attempts.append((began, time.monotonic(), status, answer))

    def crl(self, site):
        """Fetches the CRL of the plain port: (HTTP status, DER)"""
        began = time.monotonic()
        status, der = site.get("/crl")
        if status == 200:
            with self.lock:
                self.crls.append((began, time.monotonic(), der))
        return status, der

    def all(self, *operations):
        with self.lock:
            return [a for a in self.asked.values() if a.operation in operations and a.attempts]

    def received(self):
        """{serial: the request} of each certificate that came to a client."""
        return {a.answers[0]["serial"]: a for a in self.all(*ISSUING) if a.answers}

    def first_issue_after(self, moment):
        """When the first certificate came that was received after it; None: none yet."""
        return min((ended for a in self.all(*ISSUING) for _, ended, status, _ in a.attempts
                    if status == 200 and ended > moment), default=None)

    def counts(self):
        """How much of what was seen."""
        seen = Counter(f"{status or 'lost'}" for a in self.asked.values() for _, _, status, _ in a.attempts)
        seen["issued"] = len(self.received())
        seen["crls"] = len({der for _, _, der in self.crls})
        for a in self.all("revoke_cert"):
            seen[{"certificateHold": "held", "removeFromCRL": "unheld"}.get(a.fields.get("reason"), "revoked")] += \
                bool(a.answers)
        return seen

    # ---- the comparison ----

    def check(self, site, operator=None, shim=None, saw=("issued",)):
        """Compares all, once nothing is open any more. operator: who looks certificates up. shim: one that stood there
        since the site's first start. saw: of what there must have been some. Returns the counts."""
        wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(0,)],
                 "every intent is resolved")
        received = self.received()
        books = check_books(site, [a.pem() for a in received.values()])
        self.check_answers()
        self.check_once(books, received)
        self.check_revocations(books)
        self.check_crls(site)
        seen = self.counts()
        seen["orphans"] = sum(row[0] == ORPHAN for row in books.values())
        if operator:
            self.check_lookups(site, operator, books)
        if shim:
            seen.update(self.check_signatures(site, books, shim.signatures()))
        if has_ocsp(site):
            self.check_ocsp(site, books)
        missing = [what for what in saw if not seen[what]]
        assert not missing, f"the witness saw no {missing}: {seen}"
        return seen

    def check_answers(self):
        """The same request had the same answer; the certificate is the one asked for."""
        for a in self.all(*ISSUING, "revoke_cert"):
            assert all(answer == a.answers[0] for answer in a.answers), a.attempts
            if a.operation in ISSUING and a.answers:
                csr, cert = a.csr(), x509.load_pem_x509_certificate(a.pem())
                assert (name_of(cert), cert.public_key().public_numbers()) == \
                    (name_of(csr), csr.public_key().public_numbers())
                assert serial_of(cert) == a.answers[0]["serial"]

    def by_name(self):
        found = defaultdict(list)
        for a in self.all(*ISSUING):
            found[a.csr_name()].append(a)
        return found

    def check_once(self, books, received):
        """No request led to two certificates, and none exists that nobody was told of."""
        live, untold = Counter(), Counter()
        asked = self.by_name()
        for serial, (state, _, _, name, profile, _) in books.items():
            if name in asked and state != ORPHAN:
                untold[name] += serial not in received
                live[name, profile] += state in LIVE
        for name, count in untold.items():
            waiting = [a for a in asked[name] if a.is_open and not a.answers]
            assert count <= len(waiting), f"{name}: {count} certificates that nobody was told of"
        for (name, profile), count in live.items():
            renewals = [a for a in asked[name] if a.operation == "renew_client_cert" and (a.answers or a.is_open)]
            assert count <= 1 + len(renewals), f"{name}: {count} live certificates of profile {profile}"

    def check_revocations(self, books):
        """What was acknowledged last of each certificate stands in the books; and what stands there was asked for."""
        asked = defaultdict(list)
        for a in self.all("revoke_cert"):
            asked[a.fields.get("serial")].append(a)
        replaced = {name for name, all_ in self.by_name().items() if any(a.fields.get("replace") for a in all_)}
        for serial, all_ in asked.items():
            last = max(all_, key=lambda a: a.attempts[-1][1])
            if serial and last.answers and not any(a.is_open for a in all_):
                self.check_revocation(books[serial], last, replaced)
        names = self.by_name()
        for serial, (state, reason, _, name, _, _) in books.items():
            if state in (REVOKED, HELD) and name in names and None not in asked:
                assert serial in asked or (name in replaced and REASONS[reason] == "superseded"), \
                    f"{serial} of {name}: nobody asked for its state {state}"

    @staticmethod
    def check_revocation(row, last, replaced):
        state, reason, at, name, _, _ = row
        wanted = last.fields.get("reason", "unspecified")
        if wanted in ("certificateHold", "removeFromCRL") and name in replaced and state == REVOKED:
            assert REASONS[reason] == "superseded"
            return
        assert state == {"certificateHold": HELD, "removeFromCRL": ISSUED}.get(wanted, REVOKED), (row, wanted)
        if state != ISSUED:
            assert (REASONS[reason] or "unspecified", at) == (wanted, seconds(last.answers[0]["revoked_at"])), row

    def check_crls(self, site):
        """Each CRL fetched lists what was revoked for good by its anchor; and their numbers only rise."""
        gone = {}
        for seq, text in enumerate(site.check_journal(), 1):
            kind, *fields = text.split(" ")
            if kind in ("revoked", "orphan"):
                gone[dict(f.split("=", 1) for f in fields)["serial"]] = seq
        fetched = [(began, ended, x509.load_der_x509_crl(der)) for began, ended, der in self.crls]
        for _, _, crl in fetched:
            anchor, listed = anchor_of(crl)[0], {f"{entry.serial_number:032x}" for entry in crl}
            assert {serial for serial, seq in gone.items() if seq <= anchor} <= listed
        ends = sorted((ended, number_of(crl)) for _, ended, crl in fetched)
        highest = [0, *itertools.accumulate((number for _, number in ends), max)]
        for began, _, crl in fetched:
            assert number_of(crl) >= highest[bisect.bisect(ends, (began,))], "a CRL's number fell"

    def check_lookups(self, site, operator, books, most=200):
        """get_cert says the same as the books, of some of them."""
        names, received = self.by_name(), self.received()
        serials = sorted(serial for serial, row in books.items() if row[3] in names)
        with site.connect(operator) as c:
            for serial in serials[::len(serials) // most + 1]:
                state, reason, at = books[serial][:3]
                status, said = c.ask("get_cert", serial=serial)
                assert status == 200 and said["state"] == {ISSUED: "issued", REVOKED: "revoked", HELD: "held",
                                                           ORPHAN: "orphan"}[state], said
                if state in (REVOKED, HELD):
                    assert seconds(said["revoked_at"]) == at and said["reason"] == (REASONS[reason] or "unspecified")
                if serial in received:
                    assert base64.b64decode(said["certificate"]) == received[serial].pem()

    def check_ocsp(self, site, books, most=200):
        """Every front's OCSP answers say the same as the books, of some of them."""
        askers, serials = one_of_each_front(site, lambda: Ocsp(site)), sorted(books)
        for asker in askers:
            with asker:
                for serial in serials[::len(serials) // most + 1]:
                    said = wait_for(lambda: asker.ask(serial, patient=True), "an OCSP answer")
                    assert said.words[serial] == word_of(*books[serial][:3]), (serial, books[serial], said.words)

    def check_signatures(self, site, books, signatures):
        """Each signature that the token made has its purpose on record, and each certificate its signature.
        A signer's first is its trial, of random bytes."""
        trials, made = {}, Counter()
        for pid, _, data in signatures:
            digest = data[-32:].hex()  # of RSA a DigestInfo, of P-256 the digest: SHA-256, both
            made[digest] += trials.setdefault(pid, digest) != digest
        intents = {fields["tbs"]: fields["serial"] for fields in intents_of(site)}
        assert not set(trials.values()) & set(intents), "a signer signed before it made its trial"
        orphans = sum(books[serial][0] == ORPHAN for tbs, serial in intents.items() if made[tbs])
        ders = site.query("SELECT lower(hex(serial)), der FROM certificate WHERE der IS NOT NULL")
        for serial, der in ders:
            tbs = hashlib.sha256(x509.load_der_x509_certificate(der).tbs_certificate_bytes).hexdigest()
            assert intents.get(tbs) == serial and made[tbs], f"{serial}: the token has no account of its signature"
        rest = {digest for digest in made if made[digest] and digest not in intents}
        crls = {hashlib.sha256(x509.load_der_x509_crl(der).tbs_certlist_bytes).hexdigest()
                for der in {der for _, _, der in self.crls} | {site.get("/crl")[1]}}
        numbers = site.query("SELECT count(*) FROM crl")[0][0]
        assert crls <= rest and len(rest) <= numbers, \
            f"{len(rest)} signatures are no certificate's; {numbers} CRL numbers were taken, {len(crls)} CRLs seen"
        return {"signatures": len(signatures), "trials": len(trials), "signed again": sum(made.values()) - len(+made),
                "signed orphans": orphans, "signed CRLs": len(rest)}


def intents_of(site):
    for (line,) in site.query("SELECT line FROM journal WHERE line LIKE '% intent serial=%' ORDER BY seq"):
        yield dict(field.split("=", 1) for field in line.split(" ") if "=" in field)


def number_of(crl):
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
