"""Real Git repositories over HTTP and SSH, on loopback.

`git http-backend` behind a small CGI server, and OpenSSH's `sshd` as the user who runs the tests.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


def git(folder, *arguments, **options):
    """What a person does with Git."""
    done = subprocess.run(
        ["git", "-C", str(folder), *map(str, arguments)],
        capture_output=True, text=True, check=True, **options,
    )  # fmt: skip
    return done.stdout


class _Backend(BaseHTTPRequestHandler):
    def do_GET(self):
        self._run(b"")

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._run(body)

    def _run(self, body):
        server = self.server
        server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        wanted = base64.b64encode(f"{server.user}:{server.token}".encode()).decode()
        if server.token and self.headers.get("Authorization") != f"Basic {wanted}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        url = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(server.root),
            "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": url.path, "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command, "REMOTE_USER": server.user, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "HOME": str(server.root),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().splitlines()]
        status = next((int(v.split()[0]) for k, v in fields if k == "Status"), 200)
        self.send_response(status)
        for key, value in fields:
            if key != "Status":
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def http_server(root: Path, token: str = "", user: str = "x-access-token"):
    """Serves the bare repositories in a folder; with a token, to who has it alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    server.root, server.token, server.user, server.seen = root, token, user, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def bare(folder: Path) -> Path:
    """An empty bare repository that takes pushes over HTTP."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(folder)],
        check=True,
    )
    git(folder, "config", "http.receivepack", "true")
    return folder


SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def ssh_server(folder):
    """Its port; `folder` then holds the keys `client` and `stranger`, and `known_hosts`."""
    for name in ("host", "client", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copyfile(folder / "client.pub", folder / "authorized")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    chroot = Path("/run/sshd")  # asked for when root runs it
    made = os.getuid() == 0 and not chroot.exists()
    if made:
        chroot.mkdir(mode=0o755)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)
    try:
        deadline = time.monotonic() + 30
        while "Server listening" not in (folder / "log").read_text():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)
        yield port
    finally:
        server.terminate()
        server.wait()
        if made:
            chroot.rmdir()
