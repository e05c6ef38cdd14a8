"""Signing, provenance, and the way from a winner to a URI that can be trusted."""

import json
import time
from functools import partial

import jwt
import pytest
from ops.kserve.samples import linear_model
from ops.models_to_publish import model
from report.sample_edge_cards import SAMPLES

from trimgate.errors import InvalidInput
from trimgate.models.directory import read
from trimgate.ops import provenance, signing
from trimgate.ops.kserve import add_layout
from trimgate.ops.publish import Trust, check, check_settings, publish
from trimgate.ops.store import open_store


@pytest.fixture
def source(tmp_path):
    return model(tmp_path / "winner")


@pytest.fixture
def card(source):
    """A run that passed with `source` as its winner."""
    return a_card(source)


def a_card(folder, kind="passing", **changes):
    sample = SAMPLES[kind]()
    return sample.model_copy(update={"winner": read(folder), "run": "run-1", **changes})


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class TestSignature:
    def test_sign_and_verify(self, source, keys):
        signing.sign(source, key=keys / "a.pem")
        signing.verify(source, key=keys / "a.pub")
        signing.sign(source, key=keys / "a.pem")
        signing.verify(source, key=keys / "a.pub")
        assert read(source, verify=True)
        assert not [p for p in source.parent.iterdir() if p.name.startswith(".")]

    def test_without_a_key_and_without_a_way_to_sigstore(self, source, card, tmp_path, monkeypatch):
        """As far as it goes without the network: nothing is sent, and nothing half-published."""
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        for variable in ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "https_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        trust = Trust(identity="bot@example.org", issuer="https://accounts.example.org")
        now = int(time.time())
        good = {
            "iss": trust.issuer, "sub": "1", "email": trust.identity, "aud": "sigstore",
            "iat": now - 10, "nbf": now - 10, "exp": now + 600,
        }  # fmt: skip

        def use(**claims):
            token = jwt.encode({**good, **claims}, "k" * 32, algorithm="HS256")
            monkeypatch.setenv("SIGSTORE_ID_TOKEN", token)

        monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
        with pytest.raises(InvalidInput, match="neither a key nor an identity"):
            check_settings(str(tmp_path / "store"), trust=trust)
        for claims in ({"exp": now - 5}, {"aud": "another"}):
            use(**claims)
            with pytest.raises(InvalidInput, match=r"^SIGSTORE_ID_TOKEN: the identity token"):
                check_settings(str(tmp_path / "store"), trust=trust)
        use()
        check_settings(str(tmp_path / "store"), trust=trust)
        before = files(source)
        with pytest.raises(signing.SigstoreError, match=r"sign with a key: promote\.signing\.key"):
            publish(source, card, tmp_path / "store", trust=trust)
        assert not (tmp_path / "store").exists()
        assert files(source) == before
        (source / "signature.json").write_text("{}")
        with pytest.raises(signing.SigstoreError):
            trust.verify(source)

    def test_unsigned(self, source, keys):
        with pytest.raises(InvalidInput, match="is not signed"):
            signing.verify(source, key=keys / "a.pub")

    def test_wrong_key(self, source, keys):
        signing.sign(source, key=keys / "b.pem")
        with pytest.raises(InvalidInput, match=r"signature\.json: another key signed it"):
            signing.verify(source, key=keys / "a.pub")

    @pytest.mark.parametrize("name", ["model.onnx", "deeper/notes.txt", "model.json"])
    def test_altered(self, source, keys, name):
        signing.sign(source, key=keys / "a.pem")
        file = source / name
        file.write_bytes(file.read_bytes() + b"\n")
        with pytest.raises(InvalidInput, match="is not what was signed") as caught:
            signing.verify(source, key=keys / "a.pub")
        assert str(caught.value).startswith(str(file))

    @pytest.mark.parametrize("name", ["more.txt", ".gitattributes", ".git/config"])
    def test_added(self, source, keys, name):
        signing.sign(source, key=keys / "a.pem")
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
        with pytest.raises(InvalidInput, match="is not what was signed") as caught:
            signing.verify(source, key=keys / "a.pub")
        assert str(caught.value).startswith(str(source / name))

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
    def test_planted_signature(self, source, keys, content):
        (source / signing.SIGNATURE).write_bytes(content)
        with pytest.raises(InvalidInput, match="the signature is not valid"):
            signing.verify(source, key=keys / "a.pub")

    def test_signature_of_another_model(self, source, keys, tmp_path):
        other = model(tmp_path / "other", weight=2.0)
        signing.sign(other, key=keys / "a.pem").rename(source / signing.SIGNATURE)
        with pytest.raises(InvalidInput, match=r"model\.\w+: is not what was signed"):
            signing.verify(source, key=keys / "a.pub")

    def test_keys_that_are_none(self, source, keys, tmp_path, monkeypatch):
        monkeypatch.delenv(signing.TOKEN, raising=False)
        with pytest.raises(InvalidInput, match="the key is missing"):
            signing.sign(source, key=tmp_path / "none.pem")
        with pytest.raises(InvalidInput, match="is not a private EC key"):
            signing.sign(source, key=keys / "a.pub")
        with pytest.raises(InvalidInput, match="neither a key nor an identity"):
            signing.sign(source)
        signing.sign(source, key=keys / "a.pem")
        with pytest.raises(InvalidInput, match="is not a public EC key"):
            signing.verify(source, key=keys / "a.pem")
        with pytest.raises(InvalidInput, match="nothing to verify the signature with"):
            signing.verify(source)

    def test_key_with_a_password(self, source, keys, tmp_path, monkeypatch):
        from cryptography.hazmat.primitives import serialization as s

        private = s.load_pem_private_key((keys / "a.pem").read_bytes(), None)
        locked = tmp_path / "locked.pem"
        encryption = s.BestAvailableEncryption(b"open-sesame")
        locked.write_bytes(private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption))
        with pytest.raises(InvalidInput, match="the key has a password; set TRIMGATE_SIGN_PASS"):
            signing.sign(source, key=locked)
        monkeypatch.setenv(signing.PASSWORD, "wrong")
        with pytest.raises(InvalidInput, match="or its password is wrong"):
            signing.sign(source, key=locked)
        monkeypatch.setenv(signing.PASSWORD, "open-sesame")
        signing.sign(source, key=locked)
        signing.verify(source, key=keys / "a.pub")
        assert b"open-sesame" not in b"".join(files(source).values())


class TestProvenance:
    def test_says_where_it_comes_from(self, source, card):
        provenance.write(card, source)
        found = provenance.check(source)
        assert (found.run, found.verdict, found.digest) == ("run-1", "pass", read(source).digest)
        said = json.loads((source / provenance.PROVENANCE).read_bytes())
        assert said["_type"] == "https://in-toto.io/Statement/v1"
        assert said["predicateType"] == "https://slsa.dev/provenance/v1"
        assert said["subject"][0]["digest"] == {"sha256": found.digest.removeprefix("sha256:")}
        made = said["predicate"]["buildDefinition"]
        assert made["externalParameters"]["recipe"]["name"] == card.selection.winner
        assert made["externalParameters"]["recipe"]["steps"][0]["technique"]
        named = {d["name"]: d["digest"]["sha256"] for d in made["resolvedDependencies"]}
        for split in card.data.splits:
            assert split.digest == f"sha256:{named[f'{split.name} rows']}"
        assert named["baseline"] == card.baseline.digest.removeprefix("sha256:")
        assert made["internalParameters"]["environment"] == card.environment
        assert said["predicate"]["runDetails"]["builder"]["version"]["trimgate"]
        rules = said["predicate"]["trimgate_gate"]["rules"]
        assert [r["rule"] for r in rules] == [r.rule for r in card.rules]

    def test_in_toto_reads_it(self, source, card):
        """The reference implementation of the statement takes it, and finds it valid."""
        from google.protobuf.json_format import Parse
        from in_toto_attestation.v1 import statement_pb2
        from in_toto_attestation.v1.statement import Statement

        provenance.write(card, source)
        text = (source / provenance.PROVENANCE).read_text()
        statement = Statement.copy_from_pb(Parse(text, statement_pb2.Statement()))
        statement.validate()

    @pytest.mark.parametrize("kind", [k for k in SAMPLES if k != "passing"])
    def test_only_a_pass(self, source, kind):
        card = a_card(source, kind)
        provenance.write(card, source)
        if card.status == "pass":
            assert provenance.check(source).verdict == "pass"
        else:
            with pytest.raises(InvalidInput, match="only a model that passed"):
                provenance.check(source)

    def test_another_model(self, source, card, tmp_path):
        other = model(tmp_path / "other", weight=2.0)
        with pytest.raises(InvalidInput, match="is not the winner of the run"):
            provenance.write(card, other)
        provenance.write(card, source).rename(other / provenance.PROVENANCE)
        with pytest.raises(InvalidInput, match="is about another model"):
            provenance.check(other)

    def test_none_and_nonsense(self, source, card):
        with pytest.raises(InvalidInput, match="has no provenance"):
            provenance.check(source)
        provenance.write(card, source)
        file = source / provenance.PROVENANCE
        good = json.loads(file.read_bytes())
        for bad in ({}, {**good, "more": 1}, {**good, "subject": []}, {**good, "_type": "x"}):
            file.write_text(json.dumps(bad))
            with pytest.raises(InvalidInput, match="is no provenance statement"):
                provenance.check(source)


class TestPublish:
    def test_publish_and_check(self, source, card, tmp_path, keys):
        before = files(source)
        trust = Trust(sign_key=keys / "a.pem")
        uri = publish(source, card, tmp_path / "store", trust=trust)
        assert files(source) == before
        for who in (trust, Trust(verify_key=keys / "a.pub"), None):
            found = check(uri, digest=read(source).digest, trust=who)
            assert (found.run, found.verdict) == ("run-1", "pass")
        with pytest.raises(InvalidInput, match="another key signed it"):
            check(uri, trust=Trust(verify_key=keys / "b.pub"))
        with pytest.raises(InvalidInput, match="holds another model"):
            check(uri, digest="sha256:" + "0" * 64)

    def test_again_is_the_same(self, source, card, tmp_path, keys):
        store = open_store(tmp_path / "store")
        trust = Trust(sign_key=keys / "a.pem")
        uri = publish(source, card, store, trust=trust)
        assert publish(source, card, store, trust=trust) == uri
        later = card.model_copy(update={"run": "run-2"})
        assert publish(source, later, store, trust=trust) == uri
        assert len(store.list()) == 1

    def test_signed_anew_when_the_signer_changes(self, source, card, tmp_path, keys):
        store = open_store(tmp_path / "store")
        plain = publish(source, card, store)
        with pytest.raises(InvalidInput, match="is not signed"):
            check(plain, trust=Trust(verify_key=keys / "a.pub"))
        uris = [publish(source, card, store, trust=Trust(sign_key=keys / f"{n}.pem")) for n in "ab"]
        assert len({plain, *uris}) == 3
        for uri, name in zip(uris, "ab", strict=True):
            check(uri, trust=Trust(verify_key=keys / f"{name}.pub"))

    def test_for_another_server(self, tmp_path, keys):
        source, store = linear_model(tmp_path / "winner"), open_store(tmp_path / "store")
        card, trust = a_card(source), Trust(sign_key=keys / "a.pem")
        plain = publish(source, card, store, trust=trust)
        uris = {
            threads: publish(
                source, card, store, trust=trust,
                layout=partial(add_layout, kind="triton", threads=threads),
            )
            for threads in (1, 2, 1)
        }  # fmt: skip
        assert len({plain, *uris.values()}) == len(store.list()) == 3
        assert publish(source, card, store, trust=trust) in (plain, *uris.values())
        config = store.local(uris[1]) / "fraud" / "config.pbtxt"
        check(uris[1], digest=read(source).digest, trust=trust)
        config.write_text(config.read_text() + "# more\n")
        with pytest.raises(InvalidInput, match=r"fraud/config\.pbtxt: was altered"):
            check(uris[1], trust=trust)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda s: s.replace("onnxruntime", "python"), "for another backend"),
            (lambda s: s + 'platform: "onnxruntime_onnx"\n', "sets platform of Triton"),
            (lambda s: s + 'model_operations { op_library_filename: "/x.so" }\n', "sets model_op"),
            (
                lambda s: s.replace("backend:", "backend # \n:").replace(
                    '"onnxruntime"', '"python" # backend: "onnxruntime"\n'
                ),
                "does not write",
            ),
            (lambda s: s.replace('"onnxruntime"', "'python'"), "does not write"),
        ],
    )
    def test_what_would_make_triton_run_code(self, tmp_path, change, problem):
        source = linear_model(tmp_path / "winner")
        add_layout(source, "triton")
        config = source / "fraud" / "config.pbtxt"
        config.write_text(change(config.read_text()))
        with pytest.raises(InvalidInput, match=rf"config\.pbtxt: .*{problem}"):
            publish(source, a_card(source), tmp_path / "store")

    @pytest.mark.parametrize("kind", ["rejected", "inconclusive"])
    def test_rejected(self, source, tmp_path, kind):
        with pytest.raises(InvalidInput, match="only a model that passed the gate is published"):
            publish(source, a_card(source, kind), tmp_path / "store")
        assert not (tmp_path / "store").exists()

    def test_unsafe(self, source, card, tmp_path):
        (source / "extra.json").write_bytes(b"\x80\x04N.")
        with pytest.raises(InvalidInput, match=r"extra\.json: is a pickle"):
            publish(source, card, tmp_path / "store")

    def test_put_by_hand(self, source, tmp_path):
        uri = open_store(tmp_path / "store").put(source)
        with pytest.raises(InvalidInput, match="has no provenance"):
            check(uri)

    def test_tampered_after_publishing(self, source, card, tmp_path, keys):
        store = open_store(tmp_path / "store")
        trust = Trust(sign_key=keys / "a.pem")
        uri = publish(source, card, store, trust=trust)
        (store.local(uri) / "model.onnx").write_bytes(b"evil")
        with pytest.raises(InvalidInput, match=r"model\.onnx: was altered"):
            check(uri, trust=trust)
        assert publish(source, card, store, trust=trust) != uri, "published beside it, anew"

    def test_settings(self, tmp_path, keys):
        check_settings(str(tmp_path), trust=Trust(sign_key=keys / "a.pem"))
        for trust in (Trust(sign_key=tmp_path / "no"), Trust(verify_key=tmp_path / "no")):
            with pytest.raises(InvalidInput, match="the key is missing"):
                check_settings(str(tmp_path), trust=trust)
        with pytest.raises(InvalidInput, match="is not mounted here"):
            check_settings("pvc://claim/x")
