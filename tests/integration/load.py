"""Many clients at once, on connections of their own, that ask again until there is an answer; a Witness keeps it."""

import base64
import threading
import time

from desk import device
from signet_site import PATIENCE, Key, mac
from witness import LOST

BOARDS = []


def boards(count):
    """Keys for that many boards, made once for all sites of a run."""
    while len(BOARDS) < count:
        BOARDS.append(Key(mac(0x800000 + len(BOARDS))))
    return BOARDS[:count]


class Load:
    """Each key is a board of its own: it is certified, and of every n-th more is done, as the mix says: {"lookup": n,
    "listing": n, "crl": n, "renew": n, "hold": n, "replace": n, "revoke": n}, in this order. Replacing and the like
    want an operator who may."""

    def __init__(self, site, operator, witness, keys, connections=16, mix=None, patience=120, longest_wait=0.2):
        self.site, self.operator, self.witness, self.mix = site, operator, witness, mix or {}
        self.keys, self.longest_wait = list(keys), longest_wait
        self.next, self.allowed, self.done, self.refused, self.errors = 0, len(self.keys), 0, [], []
        self.lock, self.end = threading.Condition(), time.monotonic() + patience
        self.threads = [threading.Thread(target=self.work) for _ in range(connections)]

    def start(self, allowed=None):
        """allowed: how many boards may be taken up so far."""
        self.allowed = len(self.keys) if allowed is None else allowed
        for t in self.threads:
            t.start()
        return self

    def allow(self, count):
        with self.lock:
            self.allowed = min(count, len(self.keys))
            self.lock.notify_all()

    def join(self):
        """Lets all be done. Nothing was refused, and every board is done."""
        self.allow(len(self.keys))
        for t in self.threads:
            t.join()
        if self.errors:
            raise self.errors[0]
        assert self.refused == [] and self.done == len(self.keys), (self.done, self.refused[:5])

    def stop(self):
        """In a test that failed: nobody asks any more."""
        self.end = 0
        with self.lock:
            self.lock.notify_all()
        for t in self.threads:
            if t.ident:
                t.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def take(self):
        """(number, key) of the next board, None when there is none left."""
        with self.lock:
            while self.next >= self.allowed and self.next < len(self.keys) and time.monotonic() < self.end:
                self.lock.wait(0.2)
            if self.next >= len(self.keys) or time.monotonic() >= self.end:
                return None
            self.next += 1
            return self.next - 1, self.keys[self.next - 1]

    def work(self):
        with Line(self, self.operator) as line:
            try:
                while board := self.take():
                    self.serve(line, *board)
                    with self.lock:
                        self.done += 1
            except BaseException as e:  # the test has it from join()
                self.errors.append(e)

    def serve(self, line, number, key):
        # every other one without request_id: then it is known by its CSR
        fields = {"request_id": f"board-{number}"} if number % 2 else {}
        board = Board(key, line.persist("req_client_cert", csr=key.csr, **fields))
        for action in ("lookup", "listing", "crl", "renew", "hold", "replace", "revoke"):
            every = self.mix.get(action)
            if every and number % every == every - 1 and board.answer:
                getattr(self, action)(line, board)

    # ---- what is done with a board ----

    def lookup(self, line, board):
        line.persist("get_cert", serial=board.serial)

    def listing(self, line, board):
        line.persist("list_certs", mac=board.key.name)

    def crl(self, line, board):
        self.witness.crl(self.site)

    def renew(self, line, board):
        caller = device(self.site, board.key.name.replace(":", ""), board.pem, board.key)
        with Line(self, caller) as own:
            own.persist("renew_client_cert", csr=board.key.csr)

    def hold(self, line, board):
        line.persist("revoke_cert", serial=board.serial, reason="certificateHold")
        # again without request_id, it would be one that is on no hold
        line.persist("revoke_cert", serial=board.serial, reason="removeFromCRL", request_id=f"unhold-{board.serial}")

    def replace(self, line, board):
        key = Key(board.key.name)
        board.become(key, line.persist("req_client_cert", csr=key.csr, replace=True))

    def revoke(self, line, board):
        line.persist("revoke_cert", serial=board.serial, reason="keyCompromise")


class Board:
    def __init__(self, key, answer):
        self.become(key, answer)

    def become(self, key, answer):
        self.key, self.answer = key, answer
        self.serial = answer and answer["serial"]

    @property
    def pem(self):
        return base64.b64decode(self.answer["certificate"])


class Line:
    """One client's connection, made anew when it is lost."""

    def __init__(self, load, who):
        self.load, self.who, self.connection = load, who, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hang_up()

    def hang_up(self):
        if self.connection:
            self.connection.http.close()
        self.connection = None

    def persist(self, operation, **fields):
        """The answer, asked for again after a lost connection and a 503; None: refused, or never answered."""
        load, status, said = self.load, 0, "no answer"
        while time.monotonic() < load.end:
            try:
                self.connection = self.connection or load.site.connect(self.who, timeout=PATIENCE)
                status, said = load.witness.ask(self.connection, operation, **fields)
                if status == 200:
                    return said
                if status != 503:
                    break
                time.sleep(min(int(self.connection.headers["Retry-After"]), load.longest_wait))
            except LOST:
                self.hang_up()
                time.sleep(0.02)
        load.refused.append((operation, fields, status, said))
        return None
