"""OCSP in the front alone: what it asks, keeps, gives again and forgets. The authority is made up
(ocsp_responder.py), so that it can be slow, away, over its budget, or of another mind in between."""

import base64
import os
import signal
import threading
import time

import pytest
from front_harness import ERRORS, Front, Pki, read_answer, wait_until
from ocsp_responder import (MALFORMED, NONCE, TRY_LATER, TYPE, UNAUTHORIZED, Responder, ask_openssl, get_bytes, integer,
                            make_request, oid, post_bytes, seq, tlv, unpack)

FIRST = 0x4F00112233445566778899AABBCCDD00


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def front(pki):
    f = Front(pki)
    f.responder = f.answer = Responder(pki)
    f.responder.states = {FIRST + i: "V" for i in range(16)}
    yield f
    f.stop()


@pytest.fixture(scope="module")
def one(pki):
    """A request for the first serial."""
    return make_request(pki, FIRST)


def post(front, der, **how):
    return front.exchange(post_bytes(der, **how), tls=False)


def get(front, der, **how):
    return front.exchange(get_bytes(der, **how), tls=False)


def asked(front):
    return [v for name, v in front.asked if name == "ocsp"]


def forget(front, *serials):
    raw = [s.to_bytes(16, "big") for s in serials]
    front.tell()
    front.send("ocsp_forget", serials=b"".join(bytes([len(r)]) + r for r in raw))


def with_nonce(der, nonce):
    value = tlv(4, nonce)
    (body,) = [der[2:] if der[1] < 128 else der[3:]]
    return seq(seq(body[2:] if body[1] < 128 else body[3:], tlv(0xA2, seq(seq(oid(NONCE), tlv(4, value))))))


# ---- kept and given again ----


def test_signed_once_for_all(front, pki, one):
    url = f"http://127.0.0.1:{front.http_port}/ocsp"
    first = post(front, one)
    assert (first.status, first.headers["content-type"]) == (200, TYPE)
    again = [post(front, one), get(front, one), get(front, one, quote=False),
             front.exchange(post_bytes(one)), front.exchange(get_bytes(one), client=False)]
    assert all(a.body == first.body and a.headers["etag"] == first.headers["etag"] for a in again)
    assert ask_openssl(pki, url, hex(FIRST))[0] == ["good"]
    assert front.responder.signed == 1
    assert ask_openssl(pki, url, hex(FIRST), args=("-no_nonce", "-sha256"))[0] == ["good"]  # another CertID
    assert ask_openssl(pki, url, hex(FIRST), args=("-no_nonce", "-sha256"))[0] == ["good"]
    assert front.responder.signed == 2


def test_headers(front, one):
    answer = get(front, one)
    made = front.responder.sign(unpack(asked(front)[0]["certids"]))  # for its times alone
    cache = answer.headers["cache-control"].split(", ")
    assert set(cache[1:]) == {"public", "no-transform", "must-revalidate"}
    assert cache[0].startswith("max-age=") and 1700 < int(cache[0][8:]) <= 1801  # half of its life
    stamp = lambda name: time.mktime(time.strptime(answer.headers[name], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert stamp("expires") - stamp("last-modified") == 3600
    assert 0 <= made["this_update"] - stamp("last-modified") < 60
    assert answer.headers["etag"].strip('"') and "no-store" not in cache


def test_conditional(front, one):
    etag = get(front, one).headers["etag"]
    answer = get(front, one, headers=[f"If-None-Match: {etag}"])
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert "max-age" in answer.headers["cache-control"]
    assert get(front, one, headers=['If-None-Match: "other"']).status == 200
    assert post(front, one, headers=[f"If-None-Match: {etag}"]).status == 200  # not for POST
    assert front.responder.signed == 1
    # two answers of one second differ: who has the first is not told that it is the second
    modified = get(front, one).headers["last-modified"]
    assert get(front, one, headers=[f"If-Modified-Since: {modified}"]).status == 200


def test_head(front, one):
    whole = get(front, one)
    with front.plain() as s:
        s.sendall(get_bytes(one, method="HEAD"))
        head = read_answer(s, head_only=True)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body)) and head.headers["etag"] == whole.headers["etag"]
        s.sendall(post_bytes(one))  # nothing of a body was left in between
        assert read_answer(s).body == whole.body


def test_unknown_is_asked_each_time(front, pki):
    der = make_request(pki, 0x4FFFFF)
    answers = [post(front, der) for _ in range(2)]
    assert [a.headers["cache-control"] for a in answers] == ["no-store"] * 2
    assert len(asked(front)) == 2
    url = f"http://127.0.0.1:{front.http_port}/ocsp"
    assert ask_openssl(pki, url, "0x4fffff")[0] == ["unknown"]


def test_every_form_of_base64(front, pki):
    der = make_request(pki, 0x4FFBFFFBEFBEFFFFFBEFBEFBEFFFFFFB)  # with / and +, wherever it begins
    text = base64.b64encode(der).decode()
    assert "/" in text and "+" in text
    front.responder.states[0x4FFBFFFBEFBEFFFFFBEFBEFBEFFFFFFB] = "V"
    expected = post(front, der).body
    forms = [text, text.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"), text.replace("/", "%2f"),
             "".join(f"%{ord(c):02x}" for c in text)]
    for form in forms:
        answer = front.exchange(f"GET /ocsp/{form} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), tls=False)
        assert answer.body == expected, form
    bad = [text[:-2] + " ", text.replace("+", "%20"), text + "%00", text[1:], text + "=", "", "%", "%zz", "/" + text]
    for form in bad:
        answer = front.exchange(f"GET /ocsp/{form.replace(' ', '%0A')} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), tls=False)
        assert (answer.status, answer.body) == (200, MALFORMED), form
    assert front.responder.signed == 1


# ---- until half of its life ----


def test_past_half_of_its_life(front, one):
    front.responder.age = 2000  # of 3600 seconds
    old = post(front, one)
    assert old.headers["cache-control"].startswith("max-age=1,")
    front.responder.age = 0
    new = post(front, one)
    assert front.responder.signed == 2 and new.headers["etag"] != old.headers["etag"]
    assert post(front, one).body == new.body and front.responder.signed == 2


@pytest.mark.parametrize("code", ["token_unavailable", "clock_suspect", "busy", "draining", "internal"])
def test_kept_while_none_can_be_made(front, one, pki, code):
    front.responder.age = 2000
    old = post(front, one)
    front.responder.refuse = code
    answer = post(front, one)
    assert answer.body == old.body
    questions = len(asked(front))
    assert all(post(front, one).body == old.body for _ in range(5))
    assert len(asked(front)) == questions  # not in vain each time
    other = post(front, make_request(pki, FIRST + 1))
    assert other.status == 200 and other.headers["cache-control"] == "no-store"
    assert other.body == (bytes([0x30, 3, 0x0A, 1, 2]) if code == "internal" else TRY_LATER)
    forget(front, FIRST)
    assert post(front, one).body != old.body  # forgotten is forgotten


def test_over_is_over(front, one):
    front.responder.age = 3597
    old = post(front, one)
    front.responder.refuse = "token_unavailable"
    assert post(front, one).body == old.body
    time.sleep(4)
    assert post(front, one).body == TRY_LATER


def test_a_slow_token_does_not_keep_clients_waiting(front, one):
    front.responder.age = 2000
    old = post(front, one)
    front.responder.hold = threading.Event()
    front.responder.age = 0
    assert post(front, one).body == old.body  # after the front's patience
    front.responder.hold.set()
    wait_until(lambda: front.responder.signed == 2)
    wait_until(lambda: post(front, one).body != old.body)
    assert front.responder.signed == 2  # and the answer that came late is what is given


# ---- forgotten ----


def test_forgotten(front, pki, one):
    sha256 = make_request(pki, FIRST, args=("-sha256", "-no_nonce"))
    other = make_request(pki, FIRST + 1)
    for der in (one, sha256, other):
        post(front, der)
    assert front.responder.signed == 3
    front.responder.states[FIRST] = "R"
    forget(front, FIRST + 5, FIRST)
    url = f"http://127.0.0.1:{front.http_port}/ocsp"
    for args in (("-no_nonce",), ("-no_nonce", "-sha256")):
        assert ask_openssl(pki, url, hex(FIRST), args=args)[0] == ["revoked"]
    assert front.responder.signed == 5
    post(front, other)
    assert front.responder.signed == 5  # another's stays
    forget(front)
    for der in (one, sha256, other):
        post(front, der)
    assert front.responder.signed == 8


def test_what_was_told_before_is_known(front, one):
    """However much else is in the channel. The front is stopped meanwhile, so that all of it is there
    when it looks."""
    old = post(front, one)
    with front.plain() as s:
        s.sendall(post_bytes(one))
        assert read_answer(s).body == old.body
        front.process.send_signal(signal.SIGSTOP)
        for i in range(100):
            forget(front, FIRST + 1 + i)
        forget(front, FIRST)
        s.sendall(post_bytes(one))
        front.process.send_signal(signal.SIGCONT)
        assert read_answer(s).body != old.body
    assert front.responder.signed == 2


def test_behind(front, one):
    """An ocsp_forget that the socket had no room for: what is kept does not count, nor does the answer to a
    question that was asked before. (The count says so; the message comes later.)"""
    old = post(front, one)
    front.tell()
    assert post(front, one).body != old.body and front.responder.signed == 2
    front.answer = lambda name, values: None
    with front.plain() as a, front.plain() as b:
        a.sendall(post_bytes(one))
        wait_until(lambda: len(asked(front)) == 3)
        b.sendall(post_bytes(one))
        wait_until(lambda: len(asked(front)) == 4)
    front.answer = front.responder
    front.send("ocsp_forget", serials=b"\x01\x00")
    kept = post(front, one)
    assert post(front, one).body == kept.body


@pytest.mark.parametrize("last", ["answer", "forget"])
def test_the_order_of_messages_is_that_of_truth(front, one, last):
    """An answer that comes behind an ocsp_forget was looked at once more: it is kept. One that came before
    is not."""
    seen = []
    front.answer = lambda name, values: seen.append(values) and None
    with front.plain() as s:
        s.sendall(post_bytes(one))
        wait_until(lambda: seen)
        made = front.responder.sign(unpack(seen[0]["certids"]))
        if last == "answer":
            forget(front, FIRST)
        front.send("answer_ocsp", 1, **made)
        if last == "forget":
            forget(front, FIRST)
        assert read_answer(s).body == made["response"]
    front.answer = front.responder
    again = post(front, one)
    assert (again.body == made["response"]) == (last == "answer")


@pytest.mark.parametrize("serials", [b"\0", b"\x05abc", b"\x03abc\x02a", b"\x10"])
def test_a_malformed_forget_ends_the_front(pki, serials):
    front = Front(pki)
    front.send("ocsp_forget", serials=serials)
    wait_until(lambda: not front.alive())
    front.stop(expect=1)


# ---- nonces, and the budget for them ----


def test_nonce(front, pki, one):
    url = f"http://127.0.0.1:{front.http_port}/ocsp"
    for _ in range(2):
        states, text = ask_openssl(pki, url, hex(FIRST), args=("-nonce",))
        assert states == ["good"] and "no nonce" not in text
    assert front.responder.signed == 2
    answer = post(front, with_nonce(one, b"n" * 32))
    assert answer.headers["cache-control"] == "no-store" and b"n" * 32 in answer.body
    assert asked(front)[-1]["nonce"] == tlv(4, b"n" * 32)
    assert b"n" * 32 not in post(front, one).body


def test_what_has_a_nonce_is_never_kept(front, one):
    """Not even when the authority says that it may be."""
    def careless(name, values):
        made = front.responder.sign(unpack(values["certids"]), values["nonce"])
        return "answer_ocsp", {**made, "next_update": made["this_update"] + 3600}
    front.answer = careless
    assert b"n" * 32 in post(front, with_nonce(one, b"n" * 32)).body
    assert b"n" * 32 not in post(front, one).body


@pytest.mark.parametrize("code", ["busy", "too_many"])
def test_beyond_the_budget(front, one, code):
    front.responder.refuse_nonces = code
    first = post(front, with_nonce(one, b"n" * 32))  # nothing was kept: asked again without
    assert [bool(v["nonce"]) for v in asked(front)] == [True, False]
    assert first.body == post(front, one).body and "max-age" in first.headers["cache-control"]
    assert post(front, with_nonce(one, b"m" * 32)).body == first.body  # kept
    assert front.responder.signed == 1
    front.responder.refuse = code
    forget(front, FIRST)
    assert post(front, with_nonce(one, b"m" * 32)).body == TRY_LATER


def test_several_at_once(front, pki):
    url = f"http://127.0.0.1:{front.http_port}/ocsp"
    serials = [hex(FIRST), "0x4fffff", hex(FIRST + 1)]
    front.responder.states[FIRST + 1] = "R"
    assert ask_openssl(pki, url, *serials)[0] == ["good", "unknown", "revoked"]
    der = make_request(pki, *serials)
    assert post(front, der).headers["cache-control"] == "no-store"
    front.responder.refuse = "too_many"
    assert post(front, der).body == TRY_LATER


# ---- many clients ----


def test_the_same_is_asked_once(front, one):
    front.responder.hold = threading.Event()
    connections = [front.plain() for _ in range(10)]
    for s in connections:
        s.sendall(post_bytes(one))
    wait_until(lambda: asked(front))
    connections.pop().close()  # it does not wait
    time.sleep(0.2)
    front.responder.hold.set()
    bodies = {read_answer(s).body for s in connections}
    assert len(bodies) == 1 and front.responder.signed == 1 and len(asked(front)) == 1
    for s in connections:
        s.close()


def test_nobody_waits_any_more(front, one):
    front.responder.hold = threading.Event()
    with front.plain() as s:
        s.sendall(post_bytes(one))
        wait_until(lambda: asked(front))
    time.sleep(0.2)
    front.responder.hold.set()
    wait_until(lambda: front.responder.signed == 1)
    assert post(front, one).status == 200 and front.responder.signed == 1  # the answer was kept


def test_strangers_leave_credits(front, pki, one):
    kept = post(front, one)
    front.responder.hold = threading.Event()
    waiting = [front.plain() for _ in range(4)]  # half of the 8 credits
    for i, s in enumerate(waiting):
        s.sendall(post_bytes(make_request(pki, FIRST + 1 + i)))
    wait_until(lambda: len(asked(front)) >= 2)
    time.sleep(0.2)
    refused = [post(front, make_request(pki, FIRST + 6)).body, post(front, with_nonce(one, b"n" * 16)).body]
    assert refused == [TRY_LATER, kept.body]
    front.responder.hold.set()
    assert all(read_answer(s).status == 200 for s in waiting)
    for s in waiting:
        s.close()


# ---- what is refused ----


def test_what_the_cache_finds_by_is_no_request(front, one):
    """A kept answer's serial, and its CertID as front and authority write it, are no DER."""
    post(front, one)
    for body in (FIRST.to_bytes(16, "big"), asked(front)[0]["certids"]):
        assert post(front, body).body == get(front, body).body == MALFORMED


def test_no_responder(front, one):
    """By the authority's answer; by what it said before, without being asked."""
    front.responder.refuse = "not_found"
    for answer in (post(front, one), get(front, one)):
        assert (answer.status, answer.code) == (404, "not_found")
    ca = front.pki.ca.read_bytes()
    front.send("chain", issuer_der=front.pki.der(ca), chain_pem=ca, ocsp=0)
    questions = len(asked(front))
    for answer in (post(front, one), post(front, b"x"), post(front, one, type="text/plain"), get(front, one)):
        assert (answer.status, answer.code) == (404, "not_found")
    assert len(asked(front)) == questions


def test_what_the_authority_says_is_given(front, one):
    front.answer = lambda name, values: ("answer_ocsp", {"response": UNAUTHORIZED})
    answer = post(front, one)
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, UNAUTHORIZED, "no-store")


@pytest.mark.parametrize("body", [b"", b"x", b"\x30\x00", b"0" * 4096, seq(seq(seq(integer(1))))])
def test_malformed(front, body):
    for tls in (False, True):
        answer = front.exchange(post_bytes(body), tls=tls)
        assert (answer.status, answer.body) == (200, MALFORMED)
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == (TYPE, "no-store")
    assert not asked(front)


@pytest.mark.parametrize("tls", [False, True])
def test_refused_by_http(front, one, tls):
    def code(data):
        answer = front.exchange(data, tls=tls)
        return answer.status, answer.code, answer.headers.get("allow")
    assert code(post_bytes(one, type=None)) == (415, "content_type", None)
    assert code(post_bytes(one, type="application/json")) == (415, "content_type", None)
    assert code(post_bytes(one, headers=["Content-Encoding: gzip"])) == (415, "content_type", None)
    assert code(post_bytes(one, method="GET")) == (405, "method_not_allowed", "POST")
    assert code(post_bytes(one, method="PUT")) == (405, "method_not_allowed", "POST")
    assert code(get_bytes(one, method="POST")) == (405, "method_not_allowed", "GET, HEAD")
    assert code(post_bytes(one, path="/ocsp?x")) == (404, "not_found", None)
    assert code(post_bytes(one, path="/ocspx")) == (404, "not_found", None)
    assert code(post_bytes(b"0" * 4097)) == (413, "body_too_large", None)
    assert code(post_bytes(b"0" * 66000)) == (413, "body_too_large", None)
    assert post(front, one, type="Application/OCSP-Request; x=y").status == 200
