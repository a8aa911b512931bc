"""An OCSP answer that a front has signed once and keeps for everybody."""

import base64
import urllib.parse

from cryptography import x509

from ocsp_client import Ocsp, answers_begin, request
from signet_site import serial_of


class KeptAnswer:
    """For the operator's certificate of a site: der, the verified answer; request: a file with what asks for it."""

    def __init__(self, site):
        self.site = site
        answers_begin(site)
        with Ocsp(site) as client:
            serial = serial_of(x509.load_pem_x509_certificate(site.admin.cert.read_bytes()))
            asked = request(client.issuer, serial)
            answer = client.send(asked)
            assert answer.status == "SUCCESSFUL" and list(answer.words) == [serial], answer.status
        self.der, self.request = answer.der, site.dir / "ocsp-request"
        self.request.write_bytes(asked)
        self.path = "/ocsp/" + urllib.parse.quote(base64.b64encode(asked).decode(), safe="")

    def ask(self):
        status, der = self.site.get(self.path)
        assert status == 200, status
        return der
