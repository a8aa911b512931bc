"""From the attached board to the verified flash; the board is board.py's, esptool a real one."""

import os

import pytest

from board import CHIPS, DEFL_BEGIN, FLASH_BEGIN, NVS_AT, TABLE, TABLE_AT, Board, esptool
from signet_site import run


def drive(board, *command, code=0):
    return run(esptool(), "--port", board.port, "--before", "no_reset", "--after", "no_reset", *command, code=code)


# Debian's 4.7 has no stub for the ESP32 itself.
@pytest.mark.parametrize("chip, how", [(chip, "--no-stub") for chip in CHIPS] + [("esp32c3", ""), ("esp32c6", "")])
def test_the_board_itself(tmp_path, chip, how):
    """What the other tests stand on: esptool reads and writes it, by the ROM and by its stub."""
    how = [how] if how else []
    data = os.urandom(20000)
    (tmp_path / "data").write_bytes(data)
    with Board(tmp_path / "board", chip) as board:
        said = drive(board, *how, "read_mac").stdout
        assert f"MAC: {board.mac}\n" in said and ("BASE MAC" in said) == (chip == "esp32c6")
        drive(board, *how, "read_flash", hex(TABLE_AT), "0xc00", tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == TABLE
        for kind, begin in (("--no-compress", FLASH_BEGIN), ("--compress", DEFL_BEGIN)):
            board.seen.clear()
            said = drive(board, *how, "write_flash", kind, hex(NVS_AT), tmp_path / "data").stdout
            assert said.count("Hash of data verified") == 1 and begin in board.seen
            assert board.flash[NVS_AT:NVS_AT + len(data)] == data
        drive(board, *how, "read_flash", hex(NVS_AT), len(data), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        board.bad_md5 = True
        assert "MD5 of file does not match" in \
            drive(board, *how, "write_flash", hex(NVS_AT), tmp_path / "data", code=2).stdout
