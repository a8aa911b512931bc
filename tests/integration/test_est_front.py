"""EST on a front with a made-up authority: what it asks, what it lets nobody ask, and what its answers look like on the
wire to the clients that are particular."""

import base64
import hashlib
import re
import socket
import threading

import pytest

from est_client import STATUS_OF, basic, certificates, http, refused
from front_harness import ERRORS, LABELS, REPO, Front, Pki, read_answer, run, wait_until

USER, PASSWORD = "line-7", "correct horse: battery"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    made = Pki(tmp_path_factory.mktemp("pki"))
    der = run("openssl", "req", "-outform", "DER", input=made.csr()).stdout
    made.request = base64.b64encode(der)
    return made


@pytest.fixture(scope="module")
def front(pki):
    f = Front(pki)
    yield f
    f.stop()


@pytest.fixture(autouse=True)
def fresh(front):
    front.answer = front.default_answer
    del front.asked[:]


def pem_of(path):
    text = path.read_bytes()
    return text[text.index(b"-----BEGIN"):]


def login(user=USER, password=PASSWORD, scheme="Basic"):
    return basic(user, password, scheme)


# ---- what the authority is asked ----


@pytest.mark.parametrize("label, profile", [("", "device"), ("device/", "device"), ("sensor/", "sensor")])
def test_enrolment_by_certificate(front, pki, label, profile):
    body = pki.request + b"\n"
    answer = front.exchange(http(path=label + "simpleenroll", body=body))
    assert certificates(answer) == [pem_of(pki.client)]
    ((name, asked),) = front.asked
    assert name == "issue" and asked["operation"] == "req_client_cert" and asked["profile"] == profile
    assert asked["name"] == "24:0a:c4:12:34:56" and asked["request_id"] == "" and asked["replace"] == 0
    assert asked["body_digest"] == hashlib.sha256(body).digest()
    assert asked["csr_digest"] == hashlib.sha256(base64.b64decode(pki.request)).digest()
    assert asked["caller_digest"] == hashlib.sha256(pki.der(pki.client.read_bytes())).digest()


@pytest.mark.parametrize("label, profile", [("", ""), ("sensor/", "sensor")])
@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC "])
def test_enrolment_by_password(front, pki, client, label, profile, scheme):
    """The password counts, also on a connection that has a certificate; it is not sent on, but its SHA-256."""
    answer = front.exchange(http(path=label + "simpleenroll", body=pki.request, headers=[login(scheme=scheme)]),
                            client=client)
    assert certificates(answer)
    ((name, asked),) = front.asked
    assert name == "enrol" and asked["user"] == USER and asked["profile"] == profile
    assert asked["password_sha256"] == hashlib.sha256(PASSWORD.encode()).digest()
    assert asked["name"] == "24:0a:c4:12:34:56"
    assert asked["csr_digest"] == hashlib.sha256(base64.b64decode(pki.request)).digest()


@pytest.mark.parametrize("headers", [[], [login()], ["Authorization: Bearer x"]])
def test_renewal_is_by_certificate_alone(front, pki, headers):
    assert certificates(front.exchange(http(path="simplereenroll", body=pki.request, headers=headers)))
    ((name, asked),) = front.asked
    assert name == "renew" and asked["name"] == "24:0a:c4:12:34:56" and asked["caller_digest"]
    answer = front.exchange(http(path="simplereenroll", body=pki.request, headers=headers), client=False)
    assert refused(answer) == (401, "certificate_required") and len(front.asked) == 1
    assert b"to be renewed" in answer.body


LOGINS = {
    "no scheme's value": ("Basic", "credentials_required"),
    "empty": ("Basic ", "credentials_required"),
    "another scheme": ("Bearer abcd", "credentials_required"),
    "digest": ('Digest username="x"', "credentials_required"),
    "not base64": ("Basic !!!!", "http_malformed"),
    "not padded": ("Basic bGluZTE6cA", "http_malformed"),
    "more behind": ("Basic bGluZTpw, Basic bGluZTpw", "http_malformed"),
    "no colon": ("Basic " + base64.b64encode(b"user").decode(), "http_malformed"),
    "no user": ("Basic " + base64.b64encode(b":password").decode(), "http_malformed"),
    "long user": ("Basic " + base64.b64encode(b"u" * 65 + b":p").decode(), "http_malformed"),
    "NUL in the user": ("Basic " + base64.b64encode(b"us\0er:p").decode(), "http_malformed"),
    "newline in the user": ("Basic " + base64.b64encode(b"us\ner:p").decode(), "http_malformed"),
    "user not ASCII": ("Basic " + base64.b64encode("üser:p".encode()).decode(), "http_malformed"),
}


@pytest.mark.parametrize("name", LOGINS)
@pytest.mark.parametrize("client", [True, False])
def test_malformed_login(front, pki, name, client):
    """Not even with a good certificate: who sends a login means it."""
    value, code = LOGINS[name]
    answer = front.exchange(http(headers=[f"Authorization: {value}"], body=pki.request), client=client)
    assert refused(answer) in [(int(STATUS_OF[c]), c) for c in {code} | ({"http_malformed"} if name == "empty" else set())]
    assert front.asked == []


def test_two_logins(front, pki):
    assert refused(front.exchange(http(headers=[login(), login()], body=pki.request))) == (400, "http_malformed")
    assert front.asked == []


def test_longest_user_and_odd_passwords(front, pki):
    for user, password in (("u" * 64, "p" * 1000), ("a b~!", ""), ("u", ":::"), ("u", "pä\0ß\n")):
        assert front.exchange(http(headers=[login(user, password)], body=pki.request)).status == 200
        name, asked = front.asked[-1]
        assert (name, asked["user"]) == ("enrol", user)
        assert asked["password_sha256"] == hashlib.sha256(password.encode()).digest()


@pytest.mark.parametrize("client, code", [(False, "credentials_required"), (True, None)])
def test_no_login(front, pki, client, code):
    answer = front.exchange(http(body=pki.request), client=client)
    assert (refused(answer) == (401, code) and front.asked == []) if code else answer.status == 200


def test_a_certificate_that_is_nobodys(front, pki):
    """Of a serial that no CA may issue: it is refused here; a password works beside it."""
    key, cert = pki.leaf("negative", "/CN=n", "", serial="-5")
    context = front.context(client=False)
    context.load_cert_chain(cert, key)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", front.port), timeout=20),
                             server_hostname="127.0.0.1") as s:
        for path in ("simpleenroll", "simplereenroll"):
            s.sendall(http(path=path, body=pki.request))
            assert refused(read_answer(s)) == (401, "certificate_unknown") and front.asked == []
        s.sendall(http(body=pki.request, headers=[login()]))
        assert certificates(read_answer(s)) and front.asked[0][0] == "enrol"


# ---- bodies ----


LAYOUTS = {
    "one line": lambda b: b,
    "newline": lambda b: b + b"\n",
    "curl's -d @file": lambda b: b,
    "64 columns": lambda b: b"\n".join(re.findall(b".{1,64}", b)) + b"\n",
    "76 columns, CRLF": lambda b: b"\r\n".join(re.findall(b".{1,76}", b)) + b"\r\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("headers", [[], ["Content-Transfer-Encoding: base64"], ["Content-Transfer-Encoding: binary"]])
def test_layouts(front, pki, layout, headers):
    answer = front.exchange(http(body=LAYOUTS[layout](pki.request), headers=headers))
    assert certificates(answer)
    assert front.asked[0][1]["csr_digest"] == hashlib.sha256(base64.b64decode(pki.request)).digest()


@pytest.mark.parametrize("path", sorted((REPO / "tests/corpus/est").iterdir()), ids=lambda p: p.name)
def test_corpus(front, path):
    code = path.name.split("--")[0]
    answer = front.exchange(http(body=path.read_bytes()))
    if code == "ok":
        assert answer.status == 200
    else:
        assert refused(answer) == (int(STATUS_OF[code]), code) and front.asked == []


@pytest.mark.parametrize("path", ["simpleenroll", "simplereenroll", "sensor/simpleenroll"])
@pytest.mark.parametrize("kind, code", [("application/pkcs10", None), ("application/pkcs10; charset=x", None),
                                        ("Application/PKCS10", None), ("application/pkcs10x", "content_type"),
                                        ("application/json", "content_type"), ("application/pkcs7-mime", "content_type"),
                                        ("application/x-www-form-urlencoded", "content_type"), (None, "content_type")])
def test_content_types(front, pki, path, kind, code):
    answer = front.exchange(http(path=path, kind=kind, body=pki.request))
    assert answer.status == 200 if code is None else refused(answer) == (415, code)
    assert "application/pkcs10" in (answer.body.decode() if code else "application/pkcs10")


@pytest.mark.parametrize("headers, code", [(["Origin: https://evil.example"], "origin_refused"),
                                           (["Content-Encoding: gzip"], "content_type")])
def test_headers_that_have_no_business_here(front, pki, headers, code):
    assert refused(front.exchange(http(body=pki.request, headers=headers)))[1] == code
    assert front.asked == []


def test_sizes(front):
    big = b"A" * (64 * 1024)
    assert refused(front.exchange(http(body=big))) == (400, "csr_malformed")
    answer = front.exchange(http(body=big + b"A"))  # refused before there is a path: in JSON, as everywhere
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert front.asked == []


@pytest.mark.parametrize("cn, code", [("aa", "csr_cn_not_mac"), ("ff:ff:ff:ff:ff:ff", "mac_not_unicast")])
def test_the_csr_is_checked(front, pki, cn, code):
    der = run("openssl", "req", "-outform", "DER", input=pki.csr(cn)).stdout
    assert refused(front.exchange(http(body=base64.b64encode(der)))) == (422, code)
    assert refused(front.exchange(http(body=base64.b64encode(der[:-1] + bytes([der[-1] ^ 1])))))[1] != ""
    assert front.asked == []


def test_possession_is_proven(front, pki):
    for name in ("csr_signature_invalid--last-bit", "csr_signature_invalid--other-key", "key_weak--key-rsa-roca"):
        der = (REPO / f"tests/corpus/csr/{name}.der").read_bytes()
        for headers in ([], [login()]):
            answer = front.exchange(http(body=base64.b64encode(der), headers=headers))
            assert refused(answer) == (422, name.split("--")[0])
    assert front.asked == []


# ---- answers ----


def test_cacerts_and_csrattrs(front, pki):
    for client in (True, False):
        for label in ("", "device/", "sensor/"):
            assert certificates(front.exchange(http("GET", label + "cacerts"), client=client)) == \
                [pem_of(pki.ca)]
            answer = front.exchange(http("GET", label + "csrattrs"), client=client)
            assert answer.headers["content-type"] == "application/csrattrs"
            assert base64.b64decode(answer.body) == LABELS[label[:-1] or "device"]
    assert front.asked == []


AGENTS = {"libest client 1.0": True, "libest 3.2.0": True, "Cisco EST client 2.0 with BRSKI": True, None: False,
          "curl/7.88.1": False, "Mozilla/5.0 libest": False, "LIBEST 9": True, "lib": False, "": False}


@pytest.mark.parametrize("agent", AGENTS)
def test_lines_for_those_that_need_them(front, agent):
    """strongSwan, which sends no User-Agent, decodes groups of four: a newline at the end is the most it bears."""
    answer = front.exchange(http("GET", "cacerts", headers=[] if agent is None else [f"User-Agent: {agent}"]))
    lines = answer.body.split(b"\n")
    assert lines.pop() == b"" and answer.status == 200
    assert all(len(line) == 64 for line in lines[:-1]) and 0 < len(lines[-1]) <= 64 if AGENTS[agent] else len(lines) == 1
    assert base64.b64decode(answer.body)


def test_libest_decodes_its_lines(pki):
    """What libest does with an answer: OpenSSL's base64 filter, as the openssl command has it without -A. A line that is
    longer than its buffer, of 1,024, it does not decode."""
    f, ca = Front(pki), pki.ca.read_bytes()
    try:
        f.send("chain", issuer_der=pki.der(ca), chain_pem=ca * 4)
        for agent, decodes in (("libest 3.2.0", True), ("curl", False)):
            answer = f.exchange(http("GET", "cacerts", headers=[f"User-Agent: {agent}"]))
            assert len(certificates(answer)) == 4
            assert (run("openssl", "base64", "-d", input=answer.body).stdout == base64.b64decode(answer.body)) == decodes
    finally:
        f.stop()


def test_header_comes_first_and_short(front, pki):
    """HTTP/1.1, Content-Length, and all of the header in the first 1,024 bytes: of every answer, every error."""
    answers = {"issue": None}
    front.answer = lambda name, values: answers[name] or front.default_answer(name, values)

    def check(data, client=True):
        with front.connect(client) as s:
            s.sendall(data)
            first = s.recv(1024)  # one read, as strongSwan does it
        head, end, _ = first.partition(b"\r\n\r\n")
        assert end, first
        assert head.startswith(b"HTTP/1.1 ") and b"\r\nContent-Length: " in head and b"chunked" not in head, head
        return len(head) + len(end)
    agent = "User-Agent: " + "x" * 4000
    longest = max(check(http("GET", "cacerts", headers=[agent])), check(http("GET", "csrattrs")),
                  check(http("GET", "nothing")), check(http("PUT", "cacerts")),
                  check(http(body=pki.request), client=False), check(http(body=pki.request)))
    for code, name in enumerate(ERRORS):
        if code:
            answers["issue"] = ("answer_error", {"code": code, "retry_after": 4294967295, "detail": name * 20})
            longest = max(longest, check(http(body=pki.request)))
    assert longest < 512, longest


@pytest.mark.parametrize("code", ERRORS[1:])
def test_refusals_of_the_authority(front, pki, code):
    front.answer = lambda name, values: ("answer_error", {"code": ERRORS.index(code), "detail": "because of this"})
    for data in (http(body=pki.request), http(body=pki.request, headers=[login()]),
                 http(path="simplereenroll", body=pki.request)):
        answer = front.exchange(data)
        assert refused(answer) == (int(STATUS_OF[code]), code)
        assert answer.body == f"{code}: because of this\n".encode()
    assert [name for name, _ in front.asked] == ["issue", "enrol", "renew"]


def test_no_answer_is_kept(front, pki):
    for data in (http(body=pki.request), http("GET", "nothing"), http("GET", "cacerts")):
        assert front.exchange(data).headers["cache-control"] == "no-store"


# ---- paths ----


PATHS = {"cacerts": "GET, HEAD", "csrattrs": "GET, HEAD", "simpleenroll": "POST", "simplereenroll": "POST",
         "": None, "fullcmc": None, "serverkeygen": None, "cacert": None, "cacerts/": None, "CACERTS": None,
         "sensor": None, "sensor/": None, "sensor/x": None, "nobody/cacerts": None, "Sensor/cacerts": None,
         "/cacerts": None, "sensor//cacerts": None, "sensor/device/cacerts": None, "..%2fcacerts": None,
         "sensor%2fcacerts": None, "x" * 65 + "/cacerts": None, "l" * 65 + "/cacerts": None, "x" * 5000: None, "cacerts?": None, "cacerts?a=b": None}


def test_the_table_of_paths_is_whole():
    source = (REPO / "src/server/front/est.c").read_text()
    assert dict(re.findall(r'^\s+\{"(\w+)", "([^"]+)", EVHTTP', source, re.M)) == {k: v for k, v in PATHS.items() if v}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p[:30])
def test_paths(front, pki, path):
    for label in ("", "sensor/") if PATHS[path] else ("",):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            body = pki.request if method == "POST" else b""
            with front.connect() as s:
                s.sendall(http(method, label + path, body=body))
                answer = read_answer(s, head_only=method == "HEAD")
            row = (method, label + path, answer)
            if not PATHS[path]:
                assert answer.status == 404, row
            elif method in PATHS[path]:
                assert answer.status == 200, row
            else:
                assert answer.status == 405 and answer.headers["allow"] == PATHS[path], row
            if answer.status != 200 and method != "HEAD" and "?" not in path:
                assert answer.text_code in ("not_found", "method_not_allowed"), row


@pytest.mark.parametrize("path", ["cacerts", "csrattrs", "simpleenroll", "simplereenroll", "sensor/cacerts", "x"])
def test_nothing_on_the_plain_port(front, pki, path):
    for method in ("GET", "POST", "PUT"):
        body = pki.request if method == "POST" else b""
        answer = front.exchange(http(method, path, headers=[login()], body=body), tls=False)
        assert answer.status == 404 and answer.code == "not_found", answer
    assert front.asked == []


# ---- the authority ----


def test_passwords_get_half_of_the_credits(pki):
    """Whoever guesses at them, also with some certificate, leaves the rest to operators; and as they wait for the token,
    they count to the three quarters of what does."""
    f = Front(pki, credits=4)
    held = {"enrol", "issue"}
    f.answer = lambda name, values: None if name in held else f.default_answer(name, values)
    guess, enrol, waiting = http(body=pki.request, headers=[login()]), http(body=pki.request), []
    try:
        for data, client in ((guess, True), (guess, False), (enrol, True)):
            if len(waiting) == 2:
                assert refused(f.exchange(guess)) == (503, "busy")
            waiting.append(f.connect(client))
            waiting[-1].sendall(data)
            wait_until(lambda: len(f.asked) == len(waiting))
        assert refused(f.exchange(enrol)) == (503, "busy")
        assert f.post({"operation": "get_status"}).status == 200
        for ident, s in enumerate(waiting, 1):
            f.send("answer_error", ident, code=ERRORS.index("credentials_required"), detail="it is not known")
            assert refused(read_answer(s)) == (401, "credentials_required")
            s.close()
    finally:
        f.stop()


def test_labels_come_and_change(pki):
    f = Front(pki)
    try:
        assert refused(f.exchange(http("GET", "new/csrattrs"))) == (404, "not_found")
        f.send("est_label", label="new", csrattrs=b"\x30\x00")
        f.send("est_label", label="sensor", csrattrs=b"\x30\x02\x05\x00")
        wait_until(lambda: f.exchange(http("GET", "new/csrattrs")).status == 200)
        assert base64.b64decode(f.exchange(http("GET", "sensor/csrattrs")).body) == b"\x30\x02\x05\x00"
        for i in range(500):
            f.send("est_label", label=f"l{i}", csrattrs=b"\x30\x00" * (i + 1))
        wait_until(lambda: f.exchange(http("GET", "l499/csrattrs")).status == 200)
        assert base64.b64decode(f.exchange(http("GET", "l42/csrattrs")).body) == b"\x30\x00" * 43
    finally:
        f.stop()


def test_without_the_profile_device(pki):
    f = Front(pki, start=False)
    f.send("listener", credits=4, certificate_pem=pki.server.read_bytes(), key_pem=pki.server_key.read_bytes())
    f.send("chain", issuer_der=pki.der(pki.ca.read_bytes()), chain_pem=pki.ca.read_bytes())
    f.wait_ready()
    threading.Thread(target=f.serve, daemon=True).start()
    try:
        assert refused(f.exchange(http("GET", "csrattrs"))) == (404, "not_found")
        assert f.exchange(http("GET", "cacerts")).status == 200
        assert f.exchange(http(body=pki.request)).status == 200  # the authority says whether
    finally:
        f.stop()


def test_the_password_is_nowhere(front, pki):
    """Neither in the log nor, in clear, in what the authority gets."""
    secret = "kAnArIe-" + USER
    front.answer = lambda name, values: ("answer_error", {"code": ERRORS.index("credentials_required"), "detail": "it is not known"})
    refused(front.exchange(http(body=pki.request, headers=[login(password=secret)])))
    refused(front.exchange(http(body=b"?", headers=[login(password=secret)])))
    said = front.log.read_text() + repr(front.asked)
    assert secret not in said and base64.b64encode(secret.encode()).decode().rstrip("=")[:12] not in said
