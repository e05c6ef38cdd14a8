"""A store in a bucket of S3 or of a server that speaks its protocol.

Endpoint, region and credentials come from the variables that every AWS tool reads
(`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...), and from nowhere else.
"""

import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput, MissingExtra
from trimgate.models.directory import FileInfo
from trimgate.ops.store._base import Absent, FileStore, StoreError

PART_SIZE = 16 << 20
"""Bytes of a part: a file that is larger is sent in parts, and goes on with the next one."""

_CHUNK = 1 << 20
_ATTEMPTS = 4
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
_REFUSED = {
    "AccessDenied": "the credentials may not do this there",
    "ExpiredToken": "the session token has expired",
    "ExpiredTokenException": "the session token has expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "403": "the credentials are not accepted there",
}
_RENEW = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if there is one, AWS_SESSION_TOKEN anew"


class S3Store(FileStore):
    """Published models in a bucket.

    Args:
        bucket: Its name; it must be there.
        prefix: Folder in it, or empty.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        super().__init__("/".join(("s3:/", bucket, *filter(None, [prefix]))))
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client()

    def _upload(self, source: Path, key: str, file: FileInfo) -> None:
        if self._size(key) == file.size and self._digest(key) == file.sha256:
            return
        if file.size > PART_SIZE:
            self._upload_parts(source, key, file)
        else:
            self._write_bytes(source.read_bytes(), key)

    def _write_bytes(self, content: bytes, key: str) -> None:
        md5 = base64.b64encode(_md5(content).digest()).decode()
        self._call("put_object", key, Body=content, ContentMD5=md5)

    def _upload_parts(self, source: Path, key: str, file: FileInfo) -> None:
        upload, present = self._unfinished(key)
        parts = []
        with source.open("rb") as stream:
            for number in range(1, -(-file.size // PART_SIZE) + 1):
                content = stream.read(PART_SIZE)
                md5 = _md5(content)
                tag = present.get(number, "")
                if tag != md5.hexdigest():
                    sent = self._call(
                        "upload_part",
                        key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=content,
                        ContentMD5=base64.b64encode(md5.digest()).decode(),
                    )
                    tag = sent["ETag"].strip('"')
                parts.append({"PartNumber": number, "ETag": tag})
        try:
            self._call(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except Absent:
            # somebody else sent the same file and ended this upload; what is there is read back
            if self._size(key) != file.size:
                raise StoreError(f"{self.uri}/{key}: the upload was ended by another") from None

    def _unfinished(self, key: str) -> tuple[str, dict[int, str]]:
        """An upload of this key that was cut, with the MD5 of its parts, or a new one."""
        full = self._prefix + key
        found = self._call("list_multipart_uploads", None, Prefix=full).get("Uploads", [])
        for upload in sorted(found, key=lambda u: u["Initiated"], reverse=True):
            if upload["Key"] != full:
                continue
            parts: dict[int, str] = {}
            marker = 0
            with contextlib.suppress(Absent):  # ended meanwhile
                while True:
                    page = self._call(
                        "list_parts", key, UploadId=upload["UploadId"], PartNumberMarker=marker
                    )
                    parts |= {p["PartNumber"]: p["ETag"].strip('"') for p in page.get("Parts", [])}
                    marker = page.get("NextPartNumberMarker") or 0
                    if not page.get("IsTruncated"):
                        return str(upload["UploadId"]), parts
        return str(self._call("create_multipart_upload", key)["UploadId"]), {}

    def _size(self, key: str) -> int | None:
        try:
            return int(self._call("head_object", key)["ContentLength"])
        except Absent:
            return None

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._read(key):
            digest.update(chunk)
        return digest.hexdigest()

    def _read(self, key: str) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        offset, failures = 0, 0
        while True:
            ranged = {"Range": f"bytes={offset}-"} if offset else {}
            answer = self._call("get_object", key, **ranged)
            try:
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    offset += len(chunk)
                    yield chunk
                return
            except (BotoCoreError, OSError) as error:  # cut in the middle: go on from there
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._unreachable(error) from error
                time.sleep(0.2 * 2**failures)
            finally:
                answer["Body"].close()

    def _folders(self, prefix: str) -> Iterator[str]:
        full = self._prefix + prefix
        more: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=full, Delimiter="/", **more)
            for found in page.get("CommonPrefixes", []):
                yield str(found["Prefix"]).removeprefix(full).rstrip("/")
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, method: str, key: str | None, **arguments: Any) -> Any:
        """Makes a call; what goes wrong becomes one line that holds no secret.

        Raises:
            Absent: There is no such object, or no such upload.
            InvalidInput: The bucket, the endpoint or the credentials are wrong.
            StoreError: The server cannot be reached, or fails.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        call: Callable[..., Any] = getattr(self._client, method)
        if key is not None:
            arguments["Key"] = self._prefix + key
        try:
            return call(Bucket=self.bucket, **arguments)
        except ClientError as error:
            raise self._explained(error) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _explained(self, error: Any) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code == "NoSuchBucket":
            return InvalidInput(
                "there is no such bucket", key="store", value=self.uri, mend="make it first"
            )
        if code in ("NoSuchKey", "NoSuchUpload", "404", "NotFound"):
            return Absent()
        if code in _REFUSED or status in (401, 403):
            reason = _REFUSED.get(code, f"the credentials are not accepted there ({code})")
            return InvalidInput(reason, key="store", value=self.uri, mend=_RENEW)
        return StoreError(f"{self.uri}: the server answers {code or status}; {_AGAIN}")

    def _unreachable(self, error: Exception) -> Exception:
        from botocore.exceptions import NoCredentialsError, PartialCredentialsError

        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return _no_credentials(self.uri)
        if isinstance(error, ValueError):  # botocore refuses a malformed endpoint or bucket name
            return InvalidInput(
                f"is not usable ({error})", key="store", value=self.uri,
                mend="check the bucket's name, and AWS_ENDPOINT_URL",
            )  # fmt: skip
        endpoint = self._client.meta.endpoint_url
        return StoreError(f"{self.uri}: {endpoint} cannot be reached or was cut off; {_AGAIN}")


_AGAIN = "what was sent is kept, and the same command goes on from there"


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingExtra("boto3", "s3") from error
    if not any(os.environ.get(name) for name in _CREDENTIALS):
        raise _no_credentials("s3://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # servers other than AWS have no names of buckets in their DNS
        s3={"addressing_style": "path"} if endpoint else {},
        # Content-MD5 is sent instead, which every server knows
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.Session().client(
            "s3", endpoint_url=endpoint or None, region_name=region, config=config
        )
    except ValueError as error:
        raise InvalidInput(
            f"is not usable ({error})", key="AWS_ENDPOINT_URL", mend="give http(s)://host:port"
        ) from error


def _no_credentials(uri: str) -> InvalidInput:
    return InvalidInput(
        "there are no credentials",
        key="store",
        value=uri,
        mend="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL for a server "
        "other than AWS",
    )


def _md5(content: bytes) -> Any:
    return hashlib.md5(content, usedforsecurity=False)
