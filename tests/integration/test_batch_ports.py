"""signet batch with boards at ports: the board is board.py's, esptool a real one."""

import json
import os
import signal

import pytest
from cryptography import x509

from board import FLASH_BEGIN, FLASH_DATA, FLASH_MD5, READ_SLOW, STUB_READ
from signet_site import PATIENCE, mac, wait_for
from test_batch import FULL, Batch
from test_board import MACS, bench, check_nvs, esptool_runs, mend, plug  # two of them are fixtures

__all__ = ["bench", "plug"]


class Rack(Batch):
    """A batch, some of whose lines name ports."""

    def __init__(self, bench, directory):
        super().__init__(bench.site, directory)
        self.bench, self.out = bench, bench.out

    def command(self, *args, **kwargs):
        return super().command("--esptool", self.bench.esptool, *args, **kwargs)

    def list(self, *lines):
        """(port or board, MAC, label) a line"""
        self.write("port,mac,site", *(f"{getattr(where, 'port', where)},{name},{site}" for where, name, site in lines))

    def results_of(self, *columns):
        return sorted(tuple(row[c] for c in columns) for row in self.rows())

    def check_verified(self, *boards):
        rows = {row["port"]: row for row in self.rows()}
        for board in boards:
            row = rows[str(board.port)]
            assert (row["mac"], row["status"], row["board"], row["error"]) == (board.mac, "issued", "verified", "")
            check_nvs(self.bench, board)
            assert self.bench.list(board) == ["verified"] and not self.bench.has_key(board)
            assert x509.load_pem_x509_certificate((self.bench.folder(board) / "device.crt").read_bytes()).serial_number \
                == int(row["serial"], 16)


@pytest.fixture
def rack(bench, tmp_path):
    return Rack(bench, tmp_path)


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_batch(bench, rack, plug):
    """Boards at ports between MACs; the port alone, or with the MAC."""
    one, two, loose = plug(), plug("esp32c3"), mac(next(MACS))
    rack.list((one, "", "hall 1"), ("", loose, "hall 2"), (two, two.mac, "hall 3"))
    *boards, last = objects(rack.run("--flash", "--json"))
    by_mac = {o["mac"]: o for o in boards}
    assert last == {"status": "OK", "boards": 3, "issued": 3, "already": 0, "verified": 2, "results": str(rack.results)}
    assert by_mac[one.mac]["port"] == str(one.port) and by_mac[one.mac]["labels"] == {"site": "hall 1"}
    assert by_mac[two.mac]["verified"] and by_mac[two.mac]["line"] == 4 and "flashed" not in by_mac[loose]
    rack.check_verified(one, two)
    assert rack.results_of("mac", "port", "board", "site") == sorted([
        (one.mac, str(one.port), "verified", "hall 1"), (loose, "", "issued", "hall 2"),
        (two.mac, str(two.port), "verified", "hall 3")])
    assert (rack.folder(loose) / "device.key").exists() and not (rack.folder(loose) / "board.json").exists()

    text = rack.results.read_bytes()
    one.writes.clear(), two.writes.clear(), two.seen.clear()
    assert "3 boards: each has its certificate, 2 at ports flashed and verified (3 done before this run)" in \
        rack.run("--flash").stdout
    rack.results.write_bytes(text[:-30])  # killed before the last line was there: the folder tells
    assert objects(rack.run("--flash", "--json"))[-1]["already"] == 3
    assert one.writes == two.writes == [] and sorted(rack.results.read_bytes().splitlines()) == sorted(text.splitlines())


def test_batch_goes_on_beside_boards_that_fail(rack, plug):
    mute, pulled, good = plug("esp32c3"), plug(), plug("esp32c3")
    mute.mute, pulled.pull_at = True, 5
    rack.list((mute, "", ""), (pulled, "", ""), (good, "", ""))
    done = rack.run("--flash", code=5)
    assert "2 of 3 boards failed, 1 done" in done.stderr and f"boards.csv:2: {mute.port}: " in done.stderr
    assert rack.results_of("port", "mac", "status", "board", "error") == sorted([
        (str(mute.port), "", "failed", "", "no_answer"), (str(good.port), good.mac, "issued", "verified", ""),
        (str(pulled.port), pulled.mac, "failed", "issued", "board_gone")])
    (serial,) = (row["serial"] for row in rack.rows() if row["mac"] == pulled.mac)
    good.writes.clear(), mend(mute), mend(pulled)
    rack.run("--flash")
    rack.check_verified(mute, pulled, good)
    assert good.writes == [] and [r["serial"] for r in rack.rows() if r["mac"] == pulled.mac] == [serial]


def test_batch_and_another_board(bench, rack, plug):
    """Not the one that the line names; not the one that was done; swapped in the middle."""
    named, done_board, swapped = plug("esp32c3"), plug("esp32c3"), plug("esp32c3")
    other, first = mac(next(MACS)), swapped.mac
    rack.list((named, other, ""), (done_board, "", ""), (swapped, "", ""))
    swapped.after(STUB_READ, lambda b: setattr(b, "mac", mac(next(MACS))))
    rack.run("--flash", code=5)
    assert {r["port"]: (r["mac"], r["error"]) for r in rack.rows()} == {
        str(named.port): (other, "other_board"), str(done_board.port): (done_board.mac, ""),
        str(swapped.port): (first, "board_swapped")}
    assert named.writes == swapped.writes == [] and not bench.folder(named).exists()

    before, done_board.mac, swapped.mac = done_board.mac, mac(next(MACS)), first
    rack.list((named, named.mac, ""), (done_board, "", ""), (swapped, "", ""))
    done_board.writes.clear()
    done = rack.run("--flash", code=5)
    assert f"{done_board.port} is {done_board.mac} now, but {before} was done there" in done.stderr
    assert done_board.writes == [] and bench.list(done_board) == [] and not bench.pending(done_board).exists()
    rack.check_verified(named, swapped)
    assert sorted((r["mac"], r["error"]) for r in rack.rows() if r["port"] == str(done_board.port)) == \
        sorted([(before, ""), (done_board.mac, "other_board")])

    taken_off = done_board.port
    done_board.unplug()
    done = rack.run("--flash")  # nobody there is no failure of a board that was done
    assert f"{before} was done at {taken_off}" in done.stderr and len(rack.rows()) == 3
    done_board.plug()
    rack.list((done_board, "", ""))
    rack.run("--flash", "--results", rack.dir / "next.csv")  # a new round
    rack.results = rack.dir / "next.csv"
    rack.check_verified(done_board)


@pytest.mark.parametrize("operation", [READ_SLOW, FLASH_DATA, FLASH_MD5] if FULL else [FLASH_DATA])
def test_batch_killed_in_the_middle(bench, rack, plug, operation):
    first, second, loose = plug(), plug(), mac(next(MACS))
    rack.list((first, "", ""), (second, "", ""), ("", loose, ""))
    process = None
    second.after(operation, lambda _: os.killpg(process.pid, signal.SIGKILL))
    process = rack.start("--flash")
    assert process.wait(PATIENCE) == -signal.SIGKILL
    wait_for(lambda: not esptool_runs(second), "esptool has ended with it")
    assert bench.has_key(second) and bench.list(second) == ["issued"]
    first.writes.clear()
    rack.run("--flash")
    rack.check_verified(first, second)
    assert first.writes == [] and len(rack.rows()) == 3


def test_batch_finds_a_board_twice(bench, rack, plug, tmp_path):
    """A port twice, also by another of its names, is known before the first request; a MAC when it is read."""
    board, other = plug("esp32c3"), plug("esp32c3")
    (tmp_path / "alias").symlink_to(board.port)
    rack.list((board, "", ""), (tmp_path / "alias", "", ""), (board, mac(next(MACS)), ""), ("", "", ""))
    done = rack.run("--flash", code=2)
    assert done.stderr.count("is on line 2 already") == 2 and "boards.csv:5: it names neither" in done.stderr
    assert board.seen == [] and not rack.results.exists()
    other.mac = board.mac
    loose = plug()
    rack.list((board, "", ""), (other, "", ""), ("", loose.mac, ""), (loose, "", ""))
    done = rack.run("--flash", code=5)
    assert f"{other.port} is {board.mac}, which is that of line 2" in done.stderr
    assert f"{loose.port} is {loose.mac}, which is that of line 4" in done.stderr
    assert {r["port"]: r["error"] for r in rack.rows()} == {
        str(board.port): "", str(other.port): "mac_doubled", "": "", str(loose.port): "mac_doubled"}
    assert other.writes == loose.writes == [] and bench.list(board) == ["verified"]
    other.mac = mac(next(MACS))
    rack.list((board, "", ""), (other, "", ""))
    rack.run("--flash")
    rack.check_verified(board, other)


def test_batch_with_the_server_gone_while_flashing(bench, rack, plug):
    """What was flashed is told by the next run, not flashed again."""
    board, left = plug(), plug()
    rack.list((board, "", ""), (left, "", ""))
    board.after(FLASH_BEGIN, lambda _: bench.site.stop())
    try:
        done = rack.run("--flash", "--timeout", "1", code=3)
        assert "is flashed and verified" in done.stderr and "0 of 2 boards are done" in done.stderr
        assert rack.rows() == [] and left.seen == []
    finally:
        bench.site.start()
    assert bench.list(board) == ["issued"]
    board.writes.clear()
    rack.list((board, "", ""))
    rack.run("--flash")
    rack.check_verified(board)
    assert board.writes == []


def test_batch_with_another_operators_role(bench, rack, plug):
    """That a report of one board's certificate is refused ends nothing: of the other it is not."""
    theirs, ours = plug("esp32c3"), plug("esp32c3")
    bench.site.signet("provision", "--mac", theirs.mac, "--out", bench.out, "--key-type", "ec:p256")
    other = bench.site.operator("other", "provisioner")
    rack.list((theirs, "", ""), (ours, "", ""))
    rack.run("--flash", "--cert", other.cert, "--key", other.key, code=4)
    assert {r["port"]: (r["board"], r["error"]) for r in rack.rows()} == {
        str(theirs.port): ("verified", "role_refused"), str(ours.port): ("verified", "")}
    check_nvs(bench, theirs)


def test_batch_without_flash(bench, rack, plug):
    """Then the same with it: what is there is flashed, if it is what the line wants."""
    board, revoked = plug("esp32c3"), plug("esp32c3")
    rack.list((board, "", ""), (revoked, "", ""))
    rack.run()
    assert rack.results_of("port", "mac", "board") == sorted((str(b.port), b.mac, "issued") for b in (board, revoked))
    assert bench.has_key(board) and board.writes == []
    bench.site.signet("revoke", "--mac", revoked.mac)
    rack.run("--flash", code=5)
    assert revoked.writes == [] and {r["port"]: r["error"] for r in rack.rows()} == {
        str(board.port): "", str(revoked.port): "already_exists"}
    rack.check_verified(board)


def test_batch_usage(rack, plug):
    board = plug()
    rack.list(("", mac(next(MACS)), ""))
    assert "no line of" in rack.run("--flash", code=2).stderr
    rack.list((board, "", ""))
    assert "go with --flash" in rack.run("--keep-key", code=2).stderr
    assert "cannot open /nonexistent" in rack.run("--flash", "--firmware", "0x10000=/nonexistent", code=5).stderr
    rack.bench = type("", (), {"esptool": "/nonexistent"})
    assert "cannot run /nonexistent" in rack.run(code=5).stderr
    assert board.seen == [] and not rack.results.exists()
