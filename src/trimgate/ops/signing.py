"""Signatures over model directories, by model-signing: a Sigstore bundle over all files.

A key is an EC key (P-256, P-384 or P-521) as PEM: `openssl ecparam -name prime256v1 -genkey -noout
-out sign.pem`, and `openssl ec -in sign.pem -pubout -out verify.pem`. Without one, the identity
token in `SIGSTORE_ID_TOKEN`, or the one that the CI system gives, signs through Sigstore's public
service, which is reached over the network.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput, MissingExtra, TrimgateError
from trimgate.models import directory
from trimgate.ops.store import MANIFEST

SIGNATURE = "signature.json"
TOKEN = "SIGSTORE_ID_TOKEN"  # noqa: S105, the variable's name
PASSWORD = "TRIMGATE_SIGN_PASSWORD"  # noqa: S105, the variable's name

# the library shows a list, in which quotes may be escaped
_NAMED = re.compile(
    r"(?:Hash mismatch for \\?'|(?:Extra|Missing) files [^']*'[^']*': )([^',\"\\]+)"
)


class SigstoreError(TrimgateError):
    """Sigstore's public service cannot be reached, or refuses."""


def sign(model: str | Path, *, key: str | Path | None = None) -> Path:
    """Signs every file of a model directory.

    Args:
        model: The directory; what is added to it later makes the signature invalid.
        key: The private key, PEM; its password, if it has one, is in `TRIMGATE_SIGN_PASSWORD`.
            None signs by Sigstore with an identity token.

    Returns:
        The signature's file, `signature.json` in the directory; one that is there is replaced.

    Raises:
        InvalidInput: The key or the token cannot be used, or there is neither.
        SigstoreError: Sigstore cannot be reached, or refuses the token.
        MissingExtra: model-signing is not installed.
    """
    model_signing = _library()
    model = Path(model)
    directory.read(model, verify=True)
    config = model_signing.signing.Config()
    if key is not None:
        try:
            config.use_elliptic_key_signer(private_key=Path(key), password=_password())
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise _unusable(key, "private", error) from error
    else:
        token = _identity_token()
        with _through_sigstore():
            config.use_sigstore_signer(identity_token=token)
    config.set_hashing_config(_hashing(model_signing))
    target = model / SIGNATURE
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".") as folder:
        partial = Path(folder, SIGNATURE)
        with _through_sigstore() if key is None else contextlib.nullcontext():
            config.sign(model, partial)
        partial.replace(target)
    return target


def verify(
    model: str | Path,
    *,
    key: str | Path | None = None,
    identity: str | None = None,
    issuer: str | None = None,
) -> None:
    """Checks that a model directory is what its signer signed: no file altered, none added.

    Args:
        model: The directory, as `trimgate.ops.store.fetch` gives it.
        key: The public key, PEM.
        identity: Without a key: who must have signed (an e-mail address or a workflow's URI).
        issuer: Without a key: the OpenID Connect issuer that vouches for the identity.

    Raises:
        InvalidInput: It is not signed, a file is not the signed one (it is named), somebody else
            signed, or there is nothing to verify with.
        SigstoreError: Without a key: Sigstore's own keys cannot be fetched.
        MissingExtra: model-signing is not installed.
    """
    model_signing = _library()
    model = Path(model)
    signature = model / SIGNATURE
    if not signature.is_file():
        raise InvalidInput(
            f"the model is not signed (it has no {SIGNATURE})",
            file=model,
            mend="sign it when it is published: promote.signing.key",
        )
    directory.read(model)
    config = model_signing.verifying.Config()
    if key is not None:
        try:
            config.use_elliptic_key_verifier(public_key=Path(key))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise _unusable(key, "public", error) from error
    elif identity and issuer:
        with _through_sigstore():
            config.use_sigstore_verifier(identity=identity, oidc_issuer=issuer)
    else:
        raise InvalidInput(
            "there is nothing to verify the signature with",
            key="promote.signing.verify_key",
            mend="give the public key, or the signer's identity and issuer",
        )
    config.set_hashing_config(_hashing(model_signing))
    try:
        config.verify(model, signature)
    # a planted signature fails in as many ways as it has bytes
    except Exception as error:
        raise _refusal(model, error) from error


@contextlib.contextmanager
def public_key(key: str | Path) -> Iterator[Path]:
    """The public half of a private key, as a PEM file that is there while the block runs.

    Args:
        key: The private key, as for `sign`.

    Raises:
        InvalidInput: The key cannot be used.
    """
    _library()
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(Path(key).read_bytes(), _password())
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(key, "private", error) from error
    encoded = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        file = Path(folder, "verify.pem")
        file.write_bytes(encoded)
        yield file


def check_public(key: str | Path) -> None:
    """Checks that a public key could be used by `verify`.

    Raises:
        InvalidInput: It could not.
    """
    try:
        _library().verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(key, "public", error) from error


def _password() -> bytes | None:
    value = os.environ.get(PASSWORD)
    return value.encode() if value else None


def _refusal(model: Path, error: Exception) -> InvalidInput:
    text = str(error)
    if "Signature mismatch" in text:
        named = _NAMED.search(text)
        return InvalidInput(
            "is not what was signed", file=model / named[1] if named else model,
            mend="publish the model again from the run that made it",
        )  # fmt: skip
    reason = "another key signed it" if "Key mismatch" in text else "the signature is not valid"
    return InvalidInput(
        reason,
        file=model / SIGNATURE,
        mend="verify with the key of who signed, or refuse the model",
    )


def _hashing(model_signing: Any) -> Any:
    # the store's manifest holds the signature's digest, so that the signature cannot hold its;
    # files of git are signed as any other
    return model_signing.hashing.Config().set_ignored_paths(
        paths=[SIGNATURE, MANIFEST], ignore_git_paths=False
    )


def check_identity() -> None:
    """Checks that there is an identity token that is good now; nothing is sent.

    Raises:
        InvalidInput: There is none, or it has expired or is for something else.
        MissingExtra: model-signing is not installed.
    """
    _library()
    _identity_token()


def _identity_token() -> str:
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential

    token = os.environ.get(TOKEN)
    where = TOKEN if token else "CI"
    try:
        token = token or detect_credential()
        if token:
            IdentityToken(token)
    except IdentityError as error:
        raise InvalidInput(
            f"the identity token cannot be used ({' '.join(str(error).split())})", key=where,
            mend="get a new one; it lasts for minutes, and its audience is sigstore",
        ) from error  # fmt: skip
    if not token:
        raise InvalidInput(
            "there is neither a key nor an identity to sign with",
            key="promote.signing.key",
            mend=f"give a private key, or set {TOKEN}",
        )
    return token


@contextlib.contextmanager
def _through_sigstore() -> Iterator[None]:
    """Turns what Sigstore's client says into one line."""
    from requests import RequestException
    from sigstore.errors import Error

    try:
        yield
    except (Error, RequestException, OSError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise SigstoreError(
            f"Sigstore's public service does not do it ({told}); without a way to it, sign with a "
            "key: promote.signing.key"
        ) from error


def _unusable(key: str | Path, kind: str, error: Exception) -> InvalidInput:
    if isinstance(error, FileNotFoundError):
        return InvalidInput("the key is missing", file=key)
    if isinstance(error, TypeError):
        return InvalidInput("the key has a password", file=key, mend=f"set {PASSWORD}")
    return InvalidInput(
        f"is not a {kind} EC key as PEM (P-256, P-384 or P-521), or its password is wrong",
        file=key,
    )


def _library() -> Any:
    try:
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise MissingExtra("model_signing", "signing") from error
    return model_signing
