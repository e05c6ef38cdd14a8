"""What every store must do, and what only a server can go wrong with."""

import hashlib
import json
import logging
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.models_to_publish import model
from ops.seaweed import KEY, SECRET

from trimgate.errors import InvalidInput
from trimgate.models.directory import read
from trimgate.ops import store as stores
from trimgate.ops.store import MANIFEST, Manifest, StoreError, _s3, open_store, split

MIB = 1 << 20


@pytest.fixture(params=["folder", "pvc", "oci", "s3"])
def store(request, tmp_path):
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(tmp_path / "a store")
    if request.param == "pvc":
        (tmp_path / "mount").mkdir()
        return open_store("pvc://claim/models", mounts={"claim": tmp_path / "mount"})
    if request.param == "oci":
        return open_store(f"oci-layout://{tmp_path}/layout")
    request.getfixturevalue("s3")
    return open_store(f"s3://models/{request.node.name[:40].strip('[]')}-{tmp_path.name}")


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


class TestEveryStore:
    def test_put_fetch_verify(self, store, tmp_path):
        source = model(tmp_path / "model")
        uri = store.put(source)
        root, name, sha256 = split(uri)
        assert (root, name) == (store.uri, "m")
        assert uri.endswith(f"/m/{sha256}/")
        assert store.exists(uri)
        assert store.verify(uri).digest == read(source).digest
        copy = store.fetch(uri, tmp_path / "copy")
        got = files(copy)
        assert hashlib.sha256(got.pop(MANIFEST)).hexdigest() == sha256
        assert got == files(source)

    def test_equal_bytes_have_one_uri(self, store, tmp_path):
        uri = store.put(model(tmp_path / "a"))
        assert store.put(model(tmp_path / "b")) == uri
        assert store.put(store.fetch(uri, tmp_path / "c")) == uri
        assert store.put(model(tmp_path / "d", weight=2.0)) != uri

    def test_list(self, store, tmp_path):
        assert store.list() == []
        one = store.put(model(tmp_path / "a"))
        two = store.put(model(tmp_path / "b", name="other"))
        assert {s.uri for s in store.list()} == {one, two}
        (only,) = store.list("other")
        assert (only.uri, only.name, only.digest) == (two, "other", read(tmp_path / "b").digest)

    def test_what_is_not_there(self, store, tmp_path):
        uri = f"{store.uri}/m/{'0' * 64}/"
        assert not store.exists(uri)
        for ask in (store.verify, store.manifest, lambda u: store.fetch(u, tmp_path / "x")):
            with pytest.raises(InvalidInput, match="no model is published there"):
                ask(uri)
        assert not (tmp_path / "x").exists()

    def test_only_a_whole_model_is_there(self, store, tmp_path, monkeypatch):
        last = "_add" if hasattr(store, "_add") else "_write_bytes"
        source = model(tmp_path / "model")
        uri = f"{store.uri}/m/{Manifest.of(source).sha256}/"
        with monkeypatch.context() as broken:
            written = getattr(store, last)

            def stop(*given):
                if any(str(each).endswith(MANIFEST) for each in given) or last == "_add":
                    raise KeyboardInterrupt
                written(*given)

            broken.setattr(store, last, stop)
            with pytest.raises(KeyboardInterrupt):
                store.put(source)
        assert not store.exists(uri)
        assert store.list() == []
        with pytest.raises(InvalidInput, match="no model is published there"):
            store.verify(uri)
        assert store.put(source) == uri
        store.verify(uri)

    def test_two_at_once(self, store, tmp_path):
        sources = [model(tmp_path / n, weight=w) for n, w in (("a", 1), ("b", 1), ("c", 2))]
        found, threads = [], []
        for source in sources:
            threads.append(
                threading.Thread(target=lambda s=source: found.append((s.name, store.put(s))))
            )
            threads[-1].start()
        for thread in threads:
            thread.join()
        uris = dict(found)
        assert uris["a"] == uris["b"] != uris["c"]
        assert len(store.list()) == 2
        for uri in uris.values():
            store.verify(uri)

    def test_altered_source(self, store, tmp_path):
        source = model(tmp_path / "model")
        (source / "model.onnx").write_bytes(b"evil")
        with pytest.raises(InvalidInput, match="altered"):
            store.put(source)
        assert store.list() == []

    def test_link_in_the_source(self, store, tmp_path):
        source = model(tmp_path / "model")
        (source / "more.txt").symlink_to("/etc/hostname")
        with pytest.raises(InvalidInput, match=r"more\.txt: is a link"):
            store.put(source)

    def test_unsafe_source(self, store, tmp_path):
        source = model(tmp_path / "model")
        (source / "extra.json").write_bytes(b"\x80\x04N.")
        with pytest.raises(InvalidInput, match=r"extra\.json: is a pickle"):
            store.put(source)

    def test_another_store(self, store, tmp_path):
        with pytest.raises(InvalidInput, match="lies in another store"):
            store.verify(f"file:///elsewhere/m/{'0' * 64}/")


@pytest.mark.parametrize("change", ["altered", "longer", "missing", "manifest"])
def test_tampered_folder(tmp_path, change):
    store = open_store(tmp_path / "store")
    source = model(tmp_path / "model")
    uri = store.put(source)
    place = store.local(uri)
    named = place / (MANIFEST if change == "manifest" else "model.onnx")
    if change == "missing":
        named.unlink()
    else:
        content = named.read_bytes()
        named.write_bytes(content + b" " if change == "longer" else content[:-1] + b"!")
    for ask in (
        store.verify,
        lambda u: store.fetch(u, tmp_path / "x"),
        lambda u: store.put(source),
    ):
        with pytest.raises(InvalidInput, match=r"altered|missing") as caught:
            ask(uri)
        assert named.name in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_link_out_of_the_store(tmp_path):
    store = open_store(tmp_path / "store")
    uri = store.put(model(tmp_path / "model"))
    file = store.local(uri) / "model.onnx"
    (tmp_path / "outside.onnx").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(StoreError, match="leads out of the store"):
        store.verify(uri)


def test_manifest_that_leads_out(tmp_path):
    store = open_store(tmp_path / "store")
    made = Manifest.of(model(tmp_path / "model"))
    evil = made.model_copy(update={"files": {"../../../evil": made.files["model.json"]}})
    uri = f"{store.uri}/m/{evil.sha256}/"
    store.local(uri).mkdir(parents=True)
    (store.local(uri) / MANIFEST).write_bytes(evil.encoded())
    with pytest.raises(InvalidInput, match="leads out of the model's folder"):
        store.fetch(uri, tmp_path / "x")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ftp://host/models", "is not a store"),
        ("s3://Bad_Bucket/x", "is not a store"),
        ("s3://models/../other", "no user, no query"),
        ("s3://key:secret@models/x", "no user, no query"),
        ("file://host/models", "is not a store"),
        ("pvc://claim/models", "'claim' is not mounted here"),
    ],
)
def test_no_store(uri, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)


@given(
    st.sampled_from(["s3://b/p", "file:///a%20b", "pvc://c", "oci-layout:///x"]),
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    st.binary(max_size=8),
)
def test_split(root, name, content):
    sha256 = hashlib.sha256(content).hexdigest()
    assert split(f"{root}/{name}/{sha256}/") == (root, name, sha256)
    with pytest.raises(InvalidInput, match="with the slash"):
        split(f"{root}/{name}/{sha256}")


def test_image_follows_the_specification(tmp_path):
    store = open_store(f"oci-layout://{tmp_path}/layout")
    uri = store.put(model(tmp_path / "model"))
    layout = tmp_path / "layout"

    def blob(descriptor):
        content = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
        return content

    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    (entry,) = index["manifests"]
    tag, digest = store.image(uri)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    assert entry["digest"] == digest
    image = json.loads(blob(entry))
    assert image["schemaVersion"] == 2
    assert image["mediaType"] == entry["mediaType"]
    config = json.loads(blob(image["config"]))
    assert {"architecture", "os", "rootfs"} <= set(config)
    (layer,) = image["layers"]
    blob(layer)
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]


def test_buildah_reads_the_image(tmp_path):
    if which("buildah") is None:
        pytest.skip("buildah is not installed")
    store = open_store(f"oci-layout://{tmp_path}/layout")
    tag, _ = store.image(store.put(model(tmp_path / "model")))
    places = [f"--root={tmp_path}/root", f"--runroot={tmp_path}/run", "--storage-driver=vfs"]

    def buildah(*arguments):
        done = subprocess.run(
            ["buildah", *places, *arguments], capture_output=True, text=True, timeout=120
        )
        if done.returncode and "permit" in done.stderr:
            pytest.skip(f"buildah may not work here: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = buildah("from", f"oci:{tmp_path}/layout:{tag}")
    mounted = Path(buildah("mount", container))
    assert read(mounted / "models", verify=True).name == "m"
    buildah("rm", container)


@pytest.fixture
def impatient(monkeypatch):
    """A small part size, and no second attempt: what is cut stays cut."""
    monkeypatch.setattr(_s3, "PART_SIZE", 5 * MIB)
    monkeypatch.setattr(_s3, "_ATTEMPTS", 1)


def test_cut_connection_goes_on_where_it_was(proxy, tmp_path, impatient):
    source = model(tmp_path / "model", large=22 * MIB)
    store = open_store("s3://models/cut")
    proxy.budget = 12 * MIB
    with pytest.raises(StoreError, match="the same command goes on from there"):
        store.put(source)
    proxy.budget, proxy.sent = None, 0
    assert store.list() == []
    uri = store.put(source)
    assert proxy.sent < 13 * MIB, "the two parts that had arrived were not sent again"
    store.verify(uri)
    proxy.sent = 0
    assert store.put(source) == uri
    assert proxy.sent < MIB


def test_cut_download_goes_on(proxy, tmp_path, monkeypatch):
    uri = (store := open_store("s3://models/down")).put(model(tmp_path / "m", large=6 * MIB))
    proxy.down_budget = 3 * MIB
    monkeypatch.setattr(_s3.time, "sleep", lambda _: setattr(proxy, "down_budget", None))
    store.fetch(uri, tmp_path / "copy")
    assert proxy.down_budget is None
    assert read(tmp_path / "copy", verify=True) == read(tmp_path / "m")


def test_server_killed_and_restarted_while_it_is_sent(s3, proxy, tmp_path, impatient):
    source = model(tmp_path / "model", large=22 * MIB)
    store = open_store("s3://models/killed")
    done = threading.Event()

    def kill():
        while proxy.sent < 8 * MIB and not done.wait(0.005):
            pass
        s3.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(StoreError):
            store.put(source)
    finally:
        done.set()
        killer.join()
    with pytest.raises(StoreError, match="cannot be reached"):
        store.put(source)
    s3.start()
    assert store.list() == []
    store.verify(store.put(source))


def test_altered_object(s3, tmp_path):
    source = model(tmp_path / "model")
    store = open_store("s3://models/altered")
    uri = store.put(source)
    key = uri.removeprefix("s3://models/") + "model.onnx"
    s3.client().put_object(Bucket="models", Key=key, Body=b"evil")
    for ask in (
        store.verify,
        lambda u: store.fetch(u, tmp_path / "x"),
        lambda u: store.put(source),
    ):
        with pytest.raises(InvalidInput, match=r"model\.onnx: was altered"):
            ask(uri)
    s3.client().delete_object(Bucket="models", Key=key)
    with pytest.raises(InvalidInput, match=r"model\.onnx: the file is missing"):
        stores.verify(uri)


@pytest.mark.parametrize(
    ("changes", "bucket", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "models", "the secret key is wrong"),
        ({"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, "models", "the access key is not known"),
        ({"AWS_ACCESS_KEY_ID": ""}, "models", "there are no credentials"),
        ({}, "no-such-bucket", "there is no such bucket"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "models", "not usable"),
    ],
)
def test_refusals_are_one_line_without_a_secret(
    s3, tmp_path, monkeypatch, caplog, changes, bucket, says
):
    caplog.set_level(logging.INFO)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=says) as caught:
        open_store(f"s3://{bucket}/x").put(model(tmp_path / "model"))
    text = str(caught.value) + caplog.text
    assert "\n" not in str(caught.value)
    assert SECRET not in text
    assert "wrong-secret" not in text
    assert KEY not in text


def test_expired_token(s3, tmp_path, monkeypatch):
    """As S3 answers it; SeaweedFS without an STS has no tokens that expire."""

    class Expired(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Expired)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old-token")
    try:
        with pytest.raises(InvalidInput, match="has expired") as caught:
            open_store("s3://models/x").put(model(tmp_path / "model"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "old-token" not in str(caught.value)
    assert "AWS_SESSION_TOKEN" in str(caught.value)
