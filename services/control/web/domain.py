"""What a release is, and how a request for one of its files is answered. No file is touched here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from mimetypes import MimeTypes
from pathlib import PurePosixPath

from oa_wire.strict.text import read_json
from services.control.web.limits import ASSET_MAX_AGE_S, MAX_FILES

MANIFEST = "asset-manifest.json"
"""The file in a release's folder that names all others."""
INDEX = "index.html"
PACKINGS: Mapping[str, str] = {"br": ".br", "gzip": ".gz"}
"""Content coding -> ending of a packed sibling; the best first."""
_HASHED = re.compile(r"-[A-Za-z0-9_-]{8,64}\.[A-Za-z0-9.]+$")
_NO_WORD = re.compile(r"[0-9A-Z_]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_WEIGHT = re.compile(r"q=0(\.0{0,3})?")
_TYPES = MimeTypes()
for _ending, _type in {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".map": "application/json",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".avif": "image/avif",
}.items():
    _TYPES.add_type(_type, _ending)
_TEXT = frozenset({"application/json", "application/manifest+json", "image/svg+xml"})


class ManifestError(ValueError):
    """A manifest is not what it should be. The text says how."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as the manifest describes it."""

    name: str
    sha256: str
    size: int

    @property
    def etag(self) -> str:
        """A strong validator: it identifies the content."""
        return f'"{self.sha256}"'


def read_manifest(content: bytes) -> Mapping[str, File]:
    """Parse `{"files": {"index.html": {"sha256": "…", "size": 123}, …}}` into name -> file. Raises ManifestError."""
    try:
        entries = read_json(content)["files"].items()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ManifestError(f'{MANIFEST} is not {{"files": {{name: {{"sha256", "size"}}}}}}') from None
    if len(entries) > MAX_FILES:
        raise ManifestError(f"{MANIFEST} names more than {MAX_FILES} files")
    files = {name: _file(name, entry) for name, entry in entries}
    if INDEX not in files:
        raise ManifestError(f"{MANIFEST} does not name {INDEX}")
    return files


def _file(name: str, entry: object) -> File:
    path = PurePosixPath(name)
    plain = str(path) == name and not path.is_absolute() and ".." not in path.parts and name not in ("", ".", MANIFEST)
    if not plain or "\\" in name or "\0" in name:
        raise ManifestError(f"{MANIFEST} names a file that is no plain path below its folder")
    match entry:
        case {"sha256": str(digest), "size": int(size)} if _SHA256.fullmatch(digest) and size >= 0:
            return File(name, digest, size)
        case _:
            raise ManifestError(f"{MANIFEST} has no sha256 and size for a file that it names")


def is_hashed(name: str) -> bool:
    """Whether a file is named by its content, as bundlers do: `app-5f3a91c2.js`. A plain word is not a hash."""
    match = _HASHED.search(name.rpartition("/")[2])
    return match is not None and _NO_WORD.search(match[0].split(".")[0]) is not None


def is_packed(name: str, files: Mapping[str, File]) -> bool:
    """Whether a file is the packed form of another one, and can't be asked for by its name."""
    return any(name.endswith(ending) and name.removesuffix(ending) in files for ending in PACKINGS.values())


def asked_for(path: str, *, page: bool, files: Mapping[str, File]) -> str | None:
    """The file that a path asks for. `page`: a browser wants a page, whose path may be any within the app."""
    name = path.removeprefix("/") or INDEX
    if name in files and not is_packed(name, files):
        return name
    return INDEX if page and not is_hashed(name) else None


def packing_for(accept_encoding: str, file: File, files: Mapping[str, File]) -> tuple[str, File]:
    """The coding and the file to send: the best sibling that the client takes, else the file itself (identity)."""
    taken = _codings(accept_encoding)
    for coding, ending in PACKINGS.items():
        sibling = files.get(file.name + ending)
        if sibling is not None and taken.get(coding, taken.get("*", False)):
            return coding, sibling
    return "identity", file


def has_packings(file: File, files: Mapping[str, File]) -> bool:
    """Whether the answer depends on Accept-Encoding."""
    return any(file.name + ending in files for ending in PACKINGS.values())


def cache_control(name: str) -> str:
    """How long a browser keeps a file: forever if it is named by its content, otherwise not at all."""
    return f"public, max-age={ASSET_MAX_AGE_S}, immutable" if is_hashed(name) else "no-store"


def media_type(name: str) -> str:
    """The media type of a file, by its ending."""
    kind = _TYPES.guess_type(name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXT else kind


def content_security_policy(connects_to: str) -> str:
    """The policy for what a page of the shell may load and reach: its own origin, and that of Khala (`connects_to`)."""
    return (
        f"default-src 'self'; connect-src 'self' {connects_to}; img-src 'self' data: blob:; "
        "script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


def _codings(accept_encoding: str) -> Mapping[str, bool]:
    """Content coding -> whether it is taken."""
    found = {}
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        found[coding.strip().lower()] = not _NO_WEIGHT.fullmatch(weight.strip())
    return found
