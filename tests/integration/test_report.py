"""report_device: what became of a board, from the report to list, show, export and audit, and to who may replace it."""

import json
import sqlite3
import time

from desk import check_books, device, edit, events, new_key, nothing_done, post, profile
from signet_site import BOARDS, ORPHAN, Key, Operator, at_once, wait_for
from test_desk_refusals import serial_from, server_csr
from test_desk_rules import issue, renew, report, revoke, states
from test_nothing_lost import under_way


def board_of(site, op, serial):
    return post(site, op, {"operation": "get_cert", "serial": serial}).json.get("board")


def listed(site, op, **fields):
    """([serials], next) of one page."""
    answer = post(site, op, {"operation": "list_certs", **fields}).json
    assert answer["status"] == "OK", answer
    return [row["serial"] for row in answer["certificates"]], answer.get("next")


def reports(site, serial):
    return [e for e in events(site) if e.split(" ")[0] in BOARDS[1:] and f"serial={serial} " in e]


def test_steps(site):
    """Each state × each report: it rises, or stays without an event, and is on the disk when it is answered."""
    site.start()
    op = site.operator(roles="provisioner")
    for before in range(3):
        for to in (1, 2):
            key = new_key()
            serial = serial_from(issue(site, op, key)[1])
            assert board_of(site, op, serial) == "issued"
            if before:
                assert report(site, op, serial, BOARDS[before]) == (200, BOARDS[before])
            told, stands = reports(site, serial), max(before, to)
            for _ in range(2):  # the same again is the same answer
                assert report(site, op, serial, BOARDS[to]) == (200, BOARDS[stands])
            more = [f"{BOARDS[to]} serial={serial} name={key.name} operator=op"] if to > before else []
            assert reports(site, serial) == told + more
            assert board_of(site, op, serial) == BOARDS[stands]
    books = check_books(site)
    rows = site.query("SELECT serial, board FROM certificate ORDER BY id")
    site.kill()  # answered is durable: nothing of it was waiting to be written
    site.start()
    assert site.query("SELECT serial, board FROM certificate ORDER BY id") == rows and check_books(site) == books


def test_many_at_once(site):
    """Of fifty reports that come together one makes the event."""
    site.start()
    op = site.operator()
    serial = serial_from(issue(site, op)[1])
    answers = at_once(50, lambda i: report(site, op, serial, BOARDS[1 + i % 2]))
    assert set(answers) <= {(200, "flashed"), (200, "verified")} and (200, "verified") in answers
    kinds = [e.split(" ")[0] for e in reports(site, serial)]
    assert kinds in (["verified"], ["flashed", "verified"])
    assert report(site, op, serial, "flashed") == (200, "verified")


def test_who_and_what(site):
    """By who had it issued alone; of a device's certificate alone, and only while it is in force."""
    edit(site, profile("server", more="allowed_names = .example.com"))
    edit(site, profile("device", "+3s", called="brief"))
    site.start()
    op, other = site.operator("op", "provisioner,admin,revoker"), site.operator("other", "provisioner,revoker,admin")
    brief = serial_from(issue(site, op, profile="brief")[1])
    serial, held, dead = (serial_from(issue(site, op)[1]) for _ in range(3))
    body = {"operation": "req_server_cert", "csr": server_csr(site, "mqtt.example.com"), "request_id": "s"}
    server = post(site, op, body, op).json["serial"]
    own = [serial for (serial,) in site.query("SELECT lower(hex(serial)) FROM certificate WHERE operator IS NULL")]
    assert len(own) == 3  # of both operators, and the listener's
    revoke(site, op, serial=held, reason="certificateHold")
    revoke(site, op, serial=dead)
    assert report(site, op, brief, "flashed")[0] == 200
    with nothing_done(site):
        for state in BOARDS[1:]:
            assert report(site, other, serial, state) == (403, "role_refused")
            assert report(site, op, server, state) == (422, "name_not_allowed")
            for nobodys in own:
                assert report(site, op, nobodys, state) == (403, "role_refused")
            for gone in (held, dead):
                assert report(site, op, gone, state) == (409, "result_dead")
        ((end,),) = site.query("SELECT not_after FROM certificate WHERE lower(hex(serial)) = ?", brief)
        wait_for(lambda: time.time() > end + 1, "it expires")
        assert report(site, op, brief, "flashed") == (409, "result_dead")  # also what was reported before
    assert {board_of(site, op, s) for s in (server, *own)} == {None}
    assert listed(site, op, board="issued") == ([serial, held, dead], None)
    revoke(site, op, serial=held, reason="removeFromCRL")
    assert report(site, op, held, "verified") == (200, "verified")
    site.ctl("operator", "issue", "--csr", site.dir / "op.csr", "--role", "revoker", "--name", "op", "--out",
             site.dir / "less.crt")
    assert report(site, op, serial, "flashed") == (403, "role_refused")  # the role was taken away meanwhile
    check_books(site)


def test_while_it_is_issued(site):
    """An intent is in nobody's hands, and an orphan never was."""
    site.start()
    op, key = site.operator(), new_key()
    with under_way(site, lambda: issue(site, op, key)) as answer:
        ((serial, _, _),) = states(site, key.name)
        assert report(site, op, serial, "flashed") == (404, "serial_unknown")
        site.ctl("operator", "revoke", "--name", "op")
    assert answer == [(401, "certificate_revoked")]
    wait_for(lambda: states(site, key.name)[0][1] == ORPHAN, "the orphan's row")
    assert report(site, op, serial, "flashed") == (401, "certificate_revoked")


def test_replace(site):
    """The whole way: one's own may be replaced until it is reported verified, also by less reported after that."""
    site.start()
    op, boss, other = site.operator("op", "provisioner"), site.operator("boss"), site.operator("other", "provisioner")
    key = new_key()
    first = serial_from(issue(site, op, key)[1])
    assert issue(site, other, Key(key.name), replace=True) == (403, "role_refused")
    assert report(site, op, first, "flashed")[0] == 200
    assert issue(site, other, Key(key.name), replace=True) == (403, "role_refused")
    status, pem = issue(site, op, Key(key.name), replace=True)
    second = serial_from(pem)
    assert status == 200 and board_of(site, op, second) == "issued" and board_of(site, op, first) == "flashed"
    assert report(site, op, first, "verified") == (409, "result_dead")
    for state in ("verified", "flashed"):
        assert report(site, op, second, state) == (200, "verified")
        with nothing_done(site):
            assert issue(site, op, Key(key.name), replace=True) == (403, "role_refused")
    assert issue(site, boss, Key(key.name), replace=True)[0] == 200
    assert [state for _, state, _ in states(site, key.name)] == [2, 2, 1]
    check_books(site)


def test_renewal(site):
    """The renewed one begins as issued, is its operator's to report, and the older one keeps what was said of it."""
    site.start()
    op = site.operator("op", "provisioner")
    key = new_key()
    pem = issue(site, op, key)[1]
    first = serial_from(pem)
    assert report(site, op, first, "verified")[0] == 200
    second = serial_from(renew(site, device(site, "board", pem, key), key)[1])
    assert (board_of(site, op, first), board_of(site, op, second)) == ("verified", "issued")
    assert issue(site, op, Key(key.name), replace=True) == (403, "role_refused")
    assert report(site, op, second, "flashed") == (200, "flashed")
    check_books(site)


def test_list(site):
    """By board, with every other filter, page by page."""
    site.start()
    op, other = site.operator("op"), site.operator("other")
    serials = {board: [] for board in BOARDS}
    for n in range(12):
        serial, board = serial_from(issue(site, op)[1]), BOARDS[n % 3]
        if n % 3:
            report(site, op, serial, board)
        serials[board].append(serial)
    theirs = serial_from(issue(site, other)[1])
    for board in BOARDS:
        assert listed(site, op, board=board, operator="op") == (serials[board], None)
        pages, after = [], {}
        while after is not None:
            page, more = listed(site, op, board=board, limit=1, **after)
            pages, after = pages + page, {"after": more} if more else None
        assert pages == serials[board] + ([theirs] if board == "issued" else [])
    revoke(site, op, serial=serials["issued"][0])
    assert listed(site, op, board="issued", state="issued", operator="op") == (serials["issued"][1:], None)
    (name,) = site.query("SELECT name FROM certificate WHERE lower(hex(serial)) = ?", theirs)[0]
    assert listed(site, op, board="issued", mac=name) == ([theirs], None)
    assert listed(site, op, board="verified", mac=name) == ([], None)
    assert all("board" not in row for row in post(site, op, {"operation": "list_certs"}).json["certificates"]
               if row["profile"] != "device")


def test_list_of_many(site):
    """What no index knows is looked for in bounded steps, none of which leaves anything out."""
    site.start()
    op = site.operator()
    near = serial_from(issue(site, op)[1])
    report(site, op, near, "verified")
    issue(site, op)
    site.stop()
    with sqlite3.connect(site.state / "signet.db") as db:  # twelve thousand like the last one, and one at the end
        columns = ", ".join(name for (_, name, *_) in db.execute("PRAGMA table_info(certificate)")
                            if name not in ("id", "serial"))
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) "
                   f"INSERT INTO certificate (serial, {columns}) SELECT randomblob(16), {columns} FROM n, certificate "
                   "WHERE id = (SELECT max(id) FROM certificate)")
        db.execute("UPDATE certificate SET board = 2 WHERE id = (SELECT max(id) FROM certificate)")
        ((far,),) = db.execute("SELECT lower(hex(serial)) FROM certificate ORDER BY id DESC LIMIT 1")
    db.close()
    site.start()
    found, after = [], {}
    while after is not None:
        page, more = listed(site, op, board="verified", **after)
        found, after = [*found, page], {"after": more} if more else None
    assert found == [[near], [], [far]]


# ---- the commands ----


def test_shown(site):
    """signet list and show, signetctl export and audit."""
    site.start()
    site.client()
    op = Operator("laptop", site.dir / "client/operator.pem", site.dir / "client/operator.key")
    serials = {board: serial_from(issue(site, op)[1]) for board in BOARDS}
    for board in BOARDS[1:]:
        report(site, op, serials[board], board)
    head, *lines = site.signet("list", "--operator", "laptop").stdout.splitlines()
    at = head.index("BOARD")
    assert head[at:].startswith("BOARD     PROFILE") and [line[at:].split()[0] for line in lines] == list(BOARDS)
    head, first, *_ = site.signet("list").stdout.splitlines()  # the server's own is no board
    assert first[head.index("BOARD"):].split()[0] == "-"
    texts = ("no flashing is reported", "its flash was not verified", "flashed, read back, compared")
    for board, words in zip(BOARDS, texts):
        (line,) = site.signet("list", "--board", board, "--json").stdout.splitlines()
        assert (json.loads(line)["serial"], json.loads(line)["board"]) == (serials[board], board)
        shown = site.signet("show", "--serial", serials[board]).stdout
        assert f"  board     {board} ({words})\n" in shown, shown
        assert json.loads(site.signet("show", "--serial", serials[board], "--json").stdout)["board"] == board
    (line,) = site.signet("list", "--state", "issued", "--board", "issued", "--json").stdout.splitlines()
    assert json.loads(line)["serial"] == serials["issued"]
    site.signet("list", "--board", "burnt", code=2)
    rows = [json.loads(line) for line in site.ctl("--json", "export").stdout.splitlines()]
    exported = {row["serial"]: row.get("board") for row in rows}
    assert {serial: exported.pop(serial) for serial in serials.values()} == {s: board for board, s in serials.items()}
    assert set(exported.values()) == {None}
    site.ctl("audit")
