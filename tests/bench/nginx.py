"""nginx with one worker: what a front's TLS and plain answers are measured against."""

import shutil
import subprocess
import urllib.request

from cryptography.hazmat.primitives.serialization import Encoding

from signet_site import PATIENCE, free_port, wait_for

CONFIG = """
daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{plain}; root {dir}/files; }}
  server {{
    listen 127.0.0.1:{port} ssl; root {dir}/files;
    ssl_certificate {dir}/listener.pem; ssl_certificate_key {dir}/listener-key.pem;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
    ssl_client_certificate {dir}/ca-chain.pem; ssl_verify_client on; ssl_verify_depth 3;
  }}
}}
"""


def is_there():
    return shutil.which("nginx", path="/usr/sbin:/usr/bin") is not None


class Nginx:
    """With the listener's certificate and key of a site, and its CRL as a static file."""

    def __init__(self, site, where):
        self.dir = where
        (where / "files").mkdir(parents=True)
        for name in ("listener.pem", "listener-key.pem", "ca-chain.pem"):
            shutil.copy(site.state / name, where / name)
        (where / "files/crl").write_bytes(site.crl().public_bytes(Encoding.DER))
        self.site, self.port, self.http_port = site, free_port(), free_port()
        (where / "nginx.conf").write_text(CONFIG.format(dir=where, port=self.port, plain=self.http_port))

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/crl", timeout=PATIENCE) as r:
                return r.status == 200
        except OSError:
            return False

    def __enter__(self):
        self.process = subprocess.Popen(["/usr/sbin/nginx", "-c", self.dir / "nginx.conf", "-p", self.dir],
                                        stdin=subprocess.DEVNULL)
        wait_for(self.answers, "nginx answers")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def add(self, name, data):
        (self.dir / "files" / name).write_bytes(data)

    def plain(self):
        return ("--plain", "--server", f"127.0.0.1:{self.http_port}")

    def tls(self):
        who = self.site.admin
        return ("--server", f"127.0.0.1:{self.port}", "--ca", self.site.root, "--cert", who.cert, "--key", who.key)
