"""A PostgreSQL cluster of its own, reached by a Unix socket alone, and an MLflow server on it."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path


def programs():
    """The folder with initdb and pg_ctl, or None."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "pg_ctl").is_file()), None)


class Postgres:
    """initdb, start and stop; as root they run as the user `postgres` or `nobody`."""

    def __init__(self):
        self.bin = programs()
        # the user must reach it, and a socket's path is short
        self.folder = Path(tempfile.mkdtemp(prefix="tg-pg-", dir="/tmp"))
        self.user = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self.folder, self.user)

    def _run(self, *command):
        done = subprocess.run(
            command, user=self.user, cwd=self.folder, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self):
        data = self.folder / "data"
        self._run(str(self.bin / "initdb"), "-D", str(data), "-U", "trimgate", "--auth=trust",
                  "--no-sync")  # fmt: skip
        self._run(
            str(self.bin / "pg_ctl"), "-D", str(data), "-w", "-t", "120", "-l",
            str(self.folder / "log"), "-o", f"-k {self.folder} -c listen_addresses='' -F", "start",
        )  # fmt: skip
        return f"postgresql+psycopg://trimgate@/postgres?host={self.folder}"

    def stop(self):
        data = self.folder / "data"
        if (data / "postmaster.pid").exists():
            self._run(str(self.bin / "pg_ctl"), "-D", str(data), "-w", "-m", "fast", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


class MlflowServer:
    """`mlflow server` on loopback."""

    def __init__(self, backend, folder):
        self.backend, self.folder = backend, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend,
                    "--artifacts-destination", str(self.folder / "artifacts"), "--host",
                    "127.0.0.1", "--port", str(self.port), "--workers", "1",
                ],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",
                     "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        deadline = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()[-3000:]) from error
                time.sleep(0.3)

    def kill(self):
        """Ends the server and its workers, which are its process group, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
