"""What callers may ask for, checked once at the edge; every fault is named, not only the first."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from image_store.digest import Digest, parse_digest
from image_store.errors import Fault, InvalidRequestError
from image_store.image import Arch, ImageName, ImageState, Preconditions

DIGEST_FAULT: Final = 'a digest is "sha256:" and 64 lower-case hex digits'
NAME_PATTERN: Final = "[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?"
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
_LABELS: Final = 64
_LABEL_KEY_CHARACTERS: Final = 128
_LABEL_VALUE_CHARACTERS: Final = 256
_REQUEST_ID_CHARACTERS: Final = 1024
_ETAG_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """The promise that opens an upload.

    Attributes:
        name: None while the sender does not know it yet.
        content_length: Bytes that will come; None if the sender does not know.
        request_id: Idempotency key in the caller's scope; "" if there is none.
    """

    name: ImageName | None
    expected_digest: Digest | None = None
    content_length: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    arch: Arch = Arch.X86_64
    request_id: str = ""
    preconditions: Preconditions = field(default_factory=Preconditions)


@dataclass(frozen=True, slots=True)
class UploadEnd:
    """The sender's word that all has come; `total_bytes` is None if it did not count."""

    total_bytes: int | None


UploadPart = bytes | ImageName | UploadEnd


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images a list shows: those with all of `labels` and any of `states` (none: any state)."""

    labels: tuple[tuple[str, str], ...] = ()
    states: tuple[ImageState, ...] = ()

    def fingerprint(self) -> str:
        """Return what binds a page token to this filter, whatever the order of its parts."""
        document = json.dumps([sorted(set(self.labels)), sorted(set(self.states))])
        return hashlib.sha256(document.encode()).hexdigest()[:16]


def parse_name(text: str) -> ImageName:
    """Return `text` as an image's name.

    Raises:
        InvalidRequestError: It is not one.
    """
    if _NAME.fullmatch(text) is None:
        raise InvalidRequestError.at(
            "/name",
            "a name has 1 to 128 of a-z, 0-9, dot, underscore, hyphen; a letter or digit begins and ends it",
        )
    return ImageName(text)


def parse_upload(
    *,
    name: str,
    expected_digest: str,
    content_length: int,
    labels: Mapping[str, str],
    arch: str,
    request_id: str,
    preconditions: Preconditions,
) -> UploadRequest:
    """Return the request that these fields make; empty ones are not given.

    Raises:
        InvalidRequestError: With all faults.
    """
    faults: list[Fault] = []
    parsed_name: ImageName | None = None
    if name:
        try:
            parsed_name = parse_name(name)
        except InvalidRequestError as exc:
            faults.extend(exc.faults)
    digest = parse_digest(expected_digest) if expected_digest else None
    if expected_digest and digest is None:
        faults.append(Fault("/expectedDigest", DIGEST_FAULT))
    faults.extend(_label_faults(labels))
    if arch and arch not in set(Arch):
        faults.append(Fault("/arch", f"an architecture is one of {', '.join(Arch)}"))
    faults.extend(_request_id_faults(request_id))
    for pointer, etag in (
        ("/ifMatch", preconditions.if_match),
        ("/ifNoneMatch", preconditions.if_none_match),
    ):
        if len(etag) > _ETAG_CHARACTERS:
            faults.append(Fault(pointer, 'give one entity tag, or "*"'))
    if faults:
        raise InvalidRequestError(faults)
    return UploadRequest(
        name=parsed_name,
        expected_digest=digest,
        content_length=content_length or None,
        labels=dict(labels),
        arch=Arch(arch) if arch else Arch.X86_64,
        request_id=request_id,
        preconditions=preconditions,
    )


def parse_filter(labels: Sequence[str], states: Sequence[ImageState]) -> ImageFilter:
    """Return the filter of `labels`, each "key=value", and `states`.

    Raises:
        InvalidRequestError: A label is not of that form.
    """
    pairs: list[tuple[str, str]] = []
    faults: list[Fault] = []
    for index, text in enumerate(labels):
        key, separator, value = text.partition("=")
        if not key or not separator:
            faults.append(Fault(f"/labels/{index}", "a label is given as key=value"))
        pairs.append((key, value))
    if faults:
        raise InvalidRequestError(faults)
    return ImageFilter(tuple(pairs), tuple(states))


def parse_request_id(text: str) -> str:
    """Return `text` as an idempotency key.

    Raises:
        InvalidRequestError: It is too long.
    """
    if faults := _request_id_faults(text):
        raise InvalidRequestError(faults)
    return text


def _request_id_faults(text: str) -> list[Fault]:
    if len(text) > _REQUEST_ID_CHARACTERS:
        return [Fault("/requestId", f"a request id has at most {_REQUEST_ID_CHARACTERS} characters")]
    return []


def _label_faults(labels: Mapping[str, str]) -> list[Fault]:
    faults = []
    if len(labels) > _LABELS:
        faults.append(Fault("/labels", f"at most {_LABELS} labels"))
    for key, value in labels.items():
        pointer = "/labels/" + key.replace("~", "~0").replace("/", "~1")
        # Lists are filtered by "key=value", so a key with "=" could never be asked for.
        if not key or len(key) > _LABEL_KEY_CHARACTERS or "=" in key or not key.isprintable():
            faults.append(
                Fault(pointer, f'a key has 1 to {_LABEL_KEY_CHARACTERS} printable characters without "="')
            )
        if len(value) > _LABEL_VALUE_CHARACTERS:
            faults.append(Fault(pointer, f"a value has at most {_LABEL_VALUE_CHARACTERS} characters"))
    return faults
