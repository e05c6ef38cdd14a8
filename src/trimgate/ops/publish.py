"""From a winner that passed to an immutable URI that can be trusted, and the check of one."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trimgate.errors import InvalidInput
from trimgate.models import directory, safety
from trimgate.ops import provenance, signing
from trimgate.ops.provenance import Provenance
from trimgate.ops.store import Store, open_store, split
from trimgate.report import CardInput


class Trust(BaseModel):
    """Whose signatures count.

    Attributes:
        sign_key: Private key to sign with, PEM.
        verify_key: Public key to verify with, PEM; that of `sign_key` when left out.
        identity: Without keys: who signs and must have signed, by Sigstore.
        issuer: The OpenID Connect issuer that vouches for the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    sign_key: Path | None = None
    verify_key: Path | None = None
    identity: str | None = None
    issuer: str | None = None

    @property
    def signs(self) -> bool:
        """Whether models are signed when they are published."""
        return self.sign_key is not None or (self.verify_key is None and self.identity is not None)

    def verify(self, model: Path) -> None:
        """Refuses a model directory that is not signed by who must have signed.

        Without a key and an identity nothing is asked.
        """
        if self.verify_key is not None:
            signing.verify(model, key=self.verify_key)
        elif self.sign_key is not None:
            with signing.public_key(self.sign_key) as key:
                signing.verify(model, key=key)
        elif self.identity is not None:
            signing.verify(model, identity=self.identity, issuer=self.issuer)


def check_settings(
    store: str, *, trust: Trust | None = None, mounts: Mapping[str, str | Path] | None = None
) -> None:
    """Checks that models could be published, without asking a server.

    Args:
        store: As for `open_store`.
        trust: Keys, which must be there and usable.
        mounts: As for `open_store`.

    Raises:
        InvalidInput: The store's URI, a claim, a key or an identity token cannot be used.
        MissingExtra: What they need is not installed.
    """
    open_store(store, mounts=mounts)
    trust = trust or Trust()
    if trust.sign_key is not None:
        with signing.public_key(trust.sign_key):
            pass
    elif trust.signs:
        signing.check_identity()
    if trust.verify_key is not None:
        signing.check_public(trust.verify_key)


def publish(
    model: str | Path,
    card: CardInput,
    store: str | Path | Store,
    *,
    trust: Trust | None = None,
    mounts: Mapping[str, str | Path] | None = None,
    layout: Callable[[Path], Sequence[str]] | None = None,
) -> str:
    """Scans, describes, signs and stores a run's winner.

    The same model is published once: what is stored of it already is taken when it verifies.

    Args:
        model: The winner's directory; it is not changed.
        card: The run that judged it.
        store: As for `open_store`.
        trust: Keys; without any, the model is not signed.
        mounts: As for `open_store`.
        layout: Adds what another model server reads to a directory, and names the files.

    Returns:
        The immutable URI.

    Raises:
        InvalidInput: The run did not pass, chose another model, or the model is unsafe; or a key
            or the store cannot be used.
        StoreError: The store cannot be reached.
    """
    trust = trust or Trust()
    if card.status != "pass":
        raise InvalidInput(
            "only a model that passed the gate is published", key="verdict", value=card.status
        )
    place = store if isinstance(store, Store) else open_store(store, mounts=mounts)
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        unit = Path(folder, "model")
        shutil.copytree(model, unit, symlinks=True)
        safety.check(unit)
        provenance.write(card, unit)
        info = directory.read(unit)
        added = layout(unit) if layout is not None else ()
        wanted = {name: directory.file_sha256(unit / name) for name in added}
        for known in place.list(info.name):
            if known.digest == info.digest and _is_good(place, known.uri, trust, wanted):
                return known.uri
        if trust.signs:
            signing.sign(unit, key=trust.sign_key)
            trust.verify(unit)
        return place.put(unit)


def _is_good(store: Store, uri: str, trust: Trust, wanted: Mapping[str, str]) -> bool:
    """Whether it can be promoted as it is, and holds the files that are wanted in folders."""
    try:
        check(uri, store=store, trust=trust)
    except InvalidInput:
        return False
    files = store.manifest(uri).files
    return {name: files[name].sha256 for name in files if name in wanted} == wanted


def check(
    uri: str,
    *,
    digest: str | None = None,
    trust: Trust | None = None,
    mounts: Mapping[str, str | Path] | None = None,
    store: Store | None = None,
) -> Provenance:
    """Checks a published model before it is promoted: bytes, signature, provenance, verdict.

    Args:
        uri: Its immutable URI.
        digest: The content digest that it must have; any when left out.
        trust: Who must have signed; without keys and identity signatures are not asked for.
        mounts: As for `open_store`.
        store: The store, if it is open.

    Returns:
        Its provenance: the run, the recipe, the rows, the verdict.

    Raises:
        InvalidInput: Something about it is not right; the message names the file.
        StoreError: The store cannot be reached.
    """
    place = store or open_store(split(uri)[0], mounts=mounts)
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        model = place.fetch(uri, Path(folder, "model"))
        info = directory.read(model)
        if digest is not None and info.digest != digest:
            raise InvalidInput("holds another model", key="digest", value=info.digest, mend=digest)
        (trust or Trust()).verify(model)
        return provenance.check(model)
