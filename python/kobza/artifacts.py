"""The store of artifacts: files named by the SHA-256 of what they hold.

The folder ``KOBZA_ARTIFACTS`` is the store, or, with a store elsewhere (a bucket), what this machine
has of it: see ``remote``.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import ArtifactError

_CHUNK = 1 << 20
KEY = "$artifact"
#: In the folder: the address of the store elsewhere. The server writes it.
REMOTE = "remote"


def store_folder() -> Path:
    folder = os.environ.get("KOBZA_ARTIFACTS")
    if not folder:
        raise ArtifactError(
            "there is no artifact store: the environment variable KOBZA_ARTIFACTS names no folder"
        )
    return Path(folder)


def path_of(digest: str) -> Path:
    """Where an artifact lies. Refuses what is not a digest, so that no name becomes a path."""
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        raise ArtifactError(f"{digest[:80]!r} is not the digest of an artifact")
    return store_folder() / digest[:2] / digest


@contextmanager
def incoming() -> Iterator[Path]:
    folder = store_folder() / "incoming-tasks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def keep(path: Path) -> tuple[str, int]:
    """Moves a finished file into the store. Answers digest and length."""
    hasher = hashlib.sha256()
    length = 0
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            hasher.update(piece)
            length += len(piece)
        digest = hasher.hexdigest()
        target = path_of(digest)
        if not target.exists():
            os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(path, 0o640)
            try:
                os.link(path, target)
            except FileExistsError:
                pass  # Another task has kept the same.
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        else:
            # It is wanted anew: retention goes by its age.
            os.utime(target)
    _move("put", digest)
    return digest, length


def _move(what: str, digest: str) -> None:
    """Brings an artifact to the store elsewhere, or from there, if there is one. The binary does
    it, in a process of its own: it knows the stores, and streams."""
    folder = store_folder()
    program = os.environ.get("KOBZA_PROGRAM")
    if not program or not (folder / REMOTE).exists():
        return
    import subprocess

    command = [program, "exec", "artifact", what, str(folder), digest]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise ArtifactError(f"{program} could not be started: {error}") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise ArtifactError(f"the artifact {digest[:12]} could not be moved ({what}): {words}")


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file in the store. A parameter annotated so gets this instead of the loaded value."""

    digest: str
    type: str
    bytes: int
    media_type: str = "application/octet-stream"
    name: str | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def file(
        cls, path: str | os.PathLike[str], *, media_type: str | None = None, name: str | None = None
    ) -> Artifact:
        """Stores a copy of a file. Of a Parquet file, schema and first rows are told."""
        import mimetypes
        import shutil

        from .formats import PARQUET, describe_parquet

        source = Path(path)
        known = PARQUET if source.suffix in (".parquet", ".pq") else None
        guessed = (
            media_type
            or known
            or mimetypes.guess_type(source.name)[0]
            or "application/octet-stream"
        )
        more = describe_parquet(source) if guessed == PARQUET else {}
        with incoming() as temporary:
            shutil.copyfile(source, temporary)
            digest, length = keep(temporary)
        return cls(digest, "file", length, guessed, name or source.name, more)

    @classmethod
    def of_bytes(
        cls,
        data: builtins.bytes,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
        type: str = "bytes",
    ) -> Artifact:
        with incoming() as temporary:
            temporary.write_bytes(data)
            digest, length = keep(temporary)
        return cls(digest, type, length, media_type, name)

    @property
    def path(self) -> Path:
        found = path_of(self.digest)
        if not found.exists():
            _move("get", self.digest)
        if not found.exists():
            raise ArtifactError(f"the artifact {self.digest} is not in the store")
        return found

    def open(self) -> IO[builtins.bytes]:
        return open(self.path, "rb")

    def load(self) -> Any:
        """The value that it holds."""
        from .decoding import load

        return load(self, None)

    def reference(self) -> dict[str, Any]:
        body = {
            "digest": self.digest,
            "type": self.type,
            "bytes": self.bytes,
            "media_type": self.media_type,
            "name": self.name,
            **self.more,
        }
        return {KEY: {key: value for key, value in body.items() if value is not None}}

    @classmethod
    def of(cls, reference: Mapping[str, Any]) -> Artifact:
        body = dict(reference[KEY])
        try:
            digest, kind, length = body.pop("digest"), body.pop("type"), body.pop("bytes")
        except KeyError as error:
            raise ArtifactError(f"a reference to an artifact without {error}") from None
        return cls(
            digest,
            kind,
            length,
            body.pop("media_type", "application/octet-stream"),
            body.pop("name", None),
            body,
        )
