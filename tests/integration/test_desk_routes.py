"""Every route × method × content type × login, with the answer it must give. A route that is added to the source has to
be added here."""

import re

import pytest

from desk import check_books, device, edit, http, new_key, pem_of, plain, post, profile, signature, text_of, tls
from front_harness import read_answer
from signet_site import REPO, Site
from test_desk_refusals import STATUS_OF, serial_from, server_csr
from test_once import foreign_operator

# Who may do what, when the request is right in every other way. "OK", or the code of the refusal.
OPERATIONS = """
                  | nobody | foreign | revoked | device         | provisioner | revoker        | admin          | auditor
req_client_cert   | none   | foreign | revoked | role           | OK          | role           | role           | role
renew_client_cert | none   | foreign | revoked | OK             | profile     | profile        | profile        | profile
req_server_cert   | none   | foreign | revoked | role           | role        | role           | OK             | role
revoke_cert       | none   | foreign | revoked | role           | role        | OK             | role           | role
report_device     | none   | foreign | revoked | role           | OK          | role           | role           | role
get_cert          | none   | foreign | revoked | role           | OK          | OK             | OK             | OK
list_certs        | none   | foreign | revoked | role           | OK          | OK             | OK             | OK
get_ca_chain      | OK     | OK      | OK      | OK             | OK          | OK             | OK             | OK
get_crl           | OK     | OK      | OK      | OK             | OK          | OK             | OK             | OK
get_status        | OK     | OK      | OK      | OK             | OK          | OK             | OK             | OK
"""
CODES = {"OK": "OK", "none": "certificate_required", "foreign": "certificate_unknown", "revoked": "certificate_revoked",
         "role": "role_refused", "profile": "profile_refused"}

# What POST /v1 says to a request by its content type, before it looks at who asks.
TYPES = {"application/json": None, "application/json; charset=utf-8": None, "Application/JSON": None,
         "text/json": "content_type", "text/plain": "content_type", "application/x-www-form-urlencoded": "content_type",
         "multipart/form-data; boundary=x": "content_type", None: "content_type"}

# path: by port. GET and HEAD give what is there, every other method 405; for anyone, whatever the content type.
PATHS = {
    "/v1": {"tls": "POST", "plain": "POST"},
    "/healthz": {"tls": "GET", "plain": "GET"},
    "/readyz": {"tls": "GET", "plain": "GET"},
    "/crl": {"tls": "GET", "plain": "GET"},
    "/ca.cer": {"tls": "GET", "plain": "GET"},
    "/root.cer": {"tls": "GET", "plain": "GET"},
    "/root-crl": {"tls": "GET", "plain": "GET"},
    "/": {"tls": None, "plain": None},
    "/v1/": {"tls": None, "plain": None},
    "/crl/": {"tls": None, "plain": None},
    "/crl.pem": {"tls": None, "plain": None},
    "/v2": {"tls": None, "plain": None},
    "*": {"tls": None, "plain": None},
}
ELSEWHERE = {"/ocsp", "/ocsp/"}  # in test_ocsp_front.py; EST's paths are in test_est_front.py
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
WITH_BODY = ("POST", "PUT", "PATCH")
CONTENT = {"application/json": "application/json", "/crl": "application/pkix-crl", "/root-crl": "application/pkix-crl",
           "/ca.cer": "application/pkix-cert", "/root.cer": "application/pkix-cert"}


def rows(table):
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in table.strip("\n").splitlines()]
    return {line[0]: dict(zip(head[1:], line[1:])) for line in lines}


class Everyone:
    def __init__(self, site):
        self.site = site
        edit(site, profile("server", more="allowed_names = .example.com"))
        site.start()
        self.who = {role: site.operator(role, role) for role in ("provisioner", "revoker", "admin", "auditor")}
        self.who["revoked"] = site.operator("revoked", "provisioner,revoker,admin")
        site.ctl("operator", "revoke", "--name", "revoked")
        self.who["foreign"] = foreign_operator(site)
        self.who["nobody"] = None
        self.key = new_key()
        self.pem = self.issue(self.key)
        self.who["device"] = device(site, "board", self.pem, self.key)
        self.broker = server_csr(site, "mqtt.example.com")
        self.count = 0

    def issue(self, key):
        return pem_of(post(self.site, self.who["provisioner"], {"operation": "req_client_cert", "csr": key.csr}))

    def request(self, operation, login):
        """(body, headers) of one that is right, but perhaps for who asks."""
        self.count += 1
        request_id, headers = f"routes-{self.count}", []
        fields = {"req_client_cert": lambda: {"csr": new_key().csr, "request_id": request_id},
                  "renew_client_cert": lambda: {"csr": self.key.csr, "request_id": request_id},
                  "req_server_cert": lambda: {"csr": self.broker, "request_id": request_id},
                  "revoke_cert": lambda: {"serial": self.serial() if login == "revoker" else "4f01"},
                  "report_device": lambda: {"serial": serial_from(self.pem), "state": "flashed"},
                  "get_cert": lambda: {"serial": serial_from(self.pem)},
                  "list_certs": lambda: {"limit": 1}}.get(operation, dict)()
        body = text_of(operation=operation, **fields)
        if operation == "req_server_cert":
            headers = ["Signet-Signature: " + signature(self.who[login] or self.who["admin"], body)]
        return body.encode(), headers

    def serial(self):
        return serial_from(self.issue(new_key()))


@pytest.fixture(scope="module")
def everyone(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("routes") / "site") as site:
        yield Everyone(site)
        check_books(site)


def test_the_tables_are_whole():
    """Each operation, each route of the front, each document that the authority gives it."""
    operations = re.findall(r'= \{"(\w+)"', (REPO / "src/server/request/operations.c").read_text())
    assert len(operations) >= 9 and set(operations) == set(rows(OPERATIONS))
    routes = re.findall(r'^\s+\{"(/[^"]*)", "', (REPO / "src/server/front/routes.c").read_text(), re.M)
    assert "/v1" in routes
    documents = re.findall(r'send_(?:document|bytes)\(f, "(/[^"]*)"', (REPO / "src/server/authority/fronts.c").read_text())
    assert "/root-crl" in documents
    known = {path for path, ports in PATHS.items() if any(ports.values())}
    assert known | ELSEWHERE == set(routes) | set(documents) | {"/crl"}


@pytest.mark.parametrize("login", next(iter(rows(OPERATIONS).values())))
def test_operations(everyone, login):
    for operation, expected in rows(OPERATIONS).items():
        code = CODES[expected[login]]
        with tls(everyone.site, everyone.who[login]) as s:
            for kind, refusal in TYPES.items():
                body, headers = everyone.request(operation, login)
                s.sendall(http(headers=headers, body=body, kind=kind))
                answer = read_answer(s)
                wanted = refusal or code
                row = (operation, login, kind, answer)
                assert answer.headers["content-type"] == "application/json", row
                assert answer.headers["cache-control"] == "no-store", row
                if wanted == "OK":
                    assert answer.status == 200 and answer.json["status"] == "OK", row
                else:
                    assert (answer.status, answer.code) == (int(STATUS_OF[wanted]), wanted), row
                assert answer.json["operation"] == ("" if refusal else operation), row
        with plain(everyone.site) as s:
            s.sendall(http(headers=headers, body=body))
            assert read_answer(s).code == "not_found", operation


@pytest.mark.parametrize("port", ["tls", "plain"])
def test_paths(everyone, port):
    site = everyone.site
    site.crl()
    logins = ("nobody", "foreign", "device", "admin") if port == "tls" else ("nobody",)
    for login in logins:
        with (tls(site, everyone.who[login]) if port == "tls" else plain(site)) as s:
            for path, ports in PATHS.items():
                for method in METHODS:
                    if method == ports[port] == "POST":
                        continue  # test_operations
                    for kind in ("application/json", "text/plain", None):
                        s.sendall(http(method, path, kind=kind, body=b"{}" if method in WITH_BODY else b"",
                                       length=method in WITH_BODY))
                        check(path, method, ports[port], read_answer(s, head_only=method == "HEAD"), login)


def check(path, method, kind, answer, login):
    row = (path, method, login, answer)
    if kind is None and path == "*":
        assert answer.status in (400, 404), row
    elif kind is None:
        assert answer.status == 404, row
    elif kind == "GET" and method in ("GET", "HEAD"):
        assert answer.status == 200 and answer.headers["content-type"] == CONTENT.get(path, "application/json"), row
        assert (len(answer.body) > 0) == (method == "GET") and int(answer.headers["content-length"]) > 0, row
    else:
        assert answer.status == 405 and answer.headers["allow"] == ("POST" if kind == "POST" else "GET, HEAD"), row
    if answer.status != 200 and method != "HEAD":
        assert answer.code in ("not_found", "method_not_allowed", "http_malformed"), row
