"""Servers that speak as the clouds' object stores do, each with an empty bucket named ``bucket``.

S3 is moto and Azure is Azurite. Of Google's store no emulator that pip or npm installs speaks the
XML interface that clients written in Rust use: gcp-storage-emulator knows neither HEAD nor DELETE nor
uploads in parts there. Its stand-in is below, after Google's description of that interface.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

#: Only a guard against a test that hangs.
PATIENCE_S = 60.0
BIN = Path(sys.executable).parent


class Bucket:
    """An address for ``--artifacts``, the environment that leads to it, and what it holds."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self.address, self.environment = address, environment

    def names(self) -> list[str]:
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Without what the server writes first, to see whether it may."""
        return [name for name in self.names() if not name.endswith("/probe")]

    def delete(self, key: str) -> None:
        raise NotImplementedError


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def process(command: list[str], ready) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                ready()
                break
            except (OSError, http.client.HTTPException) as error:
                assert time.monotonic() < deadline, f"{command[0]} does not start: {error}"
                time.sleep(0.1)
        yield
    finally:
        server.kill()
        server.wait()


def ask(method: str, url: str, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


class S3(Bucket):
    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            "s3://bucket",
            {
                "AWS_ENDPOINT": url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "someone",
                "AWS_SECRET_ACCESS_KEY": "s3cret-of-someone",
                "AWS_REGION": "us-east-1",
            },
        )

    def names(self) -> list[str]:
        return re.findall("<Key>(.*?)</Key>", ask("GET", f"{self.url}/bucket").decode())

    def delete(self, key: str) -> None:
        ask("DELETE", f"{self.url}/bucket/{key}")


@contextmanager
def s3() -> Iterator[Bucket]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with process(command, lambda: ask("PUT", f"{url}/bucket")):
        yield S3(url)


class Azure(Bucket):
    #: The account and key that every Azurite has.
    ACCOUNT = "devstoreaccount1"
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, url: str) -> None:
        self.url = url
        environment = {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": url}
        super().__init__("az://bucket", environment)

    def ask(self, method: str, path: str, **query: str) -> bytes:
        date = format_datetime(datetime.now(timezone.utc), usegmt=True)
        version = "2021-08-06"
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        signed = (
            f"{method}{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n"
            f"/{self.ACCOUNT}/{self.ACCOUNT}{path}{asked}"
        )
        digest = hmac.digest(base64.b64decode(self.KEY), signed.encode(), "sha256")
        signature = base64.b64encode(digest).decode()
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return ask(
            method,
            f"{self.url}/{self.ACCOUNT}{path}" + (f"?{text}" if text else ""),
            {
                "x-ms-date": date,
                "x-ms-version": version,
                "Authorization": f"SharedKey {self.ACCOUNT}:{signature}",
            },
        )

    def names(self) -> list[str]:
        listed = self.ask("GET", "/bucket", restype="container", comp="list")
        return re.findall("<Name>(.*?)</Name>", listed.decode())

    def delete(self, key: str) -> None:
        self.ask("DELETE", f"/bucket/{key}")


@contextmanager
def azure() -> Iterator[Bucket]:
    port = free_port()
    program = os.environ["AZURITE"]
    bucket = Azure(f"http://127.0.0.1:{port}")
    command = ["node", program, "--silent", "--inMemoryPersistence", "--blobPort", str(port)]
    command.append("--skipApiVersionCheck")
    with process(command, lambda: bucket.ask("PUT", "/bucket", restype="container")):
        yield bucket


class _Google(BaseHTTPRequestHandler):
    """The part of the XML interface that reads, writes (whole and in parts), lists and deletes."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[bytes, datetime]]
    uploads: dict[str, dict[int, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def xml(self, name: str, **fields: str) -> None:
        inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in fields.items())
        self.answer(200, f"<?xml version='1.0'?><{name}>{inner}</{name}>".encode())

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        asked = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if bucket != "bucket":
            self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not key:
            self.list(asked)
        elif self.command == "POST" and "uploads" in asked:
            upload = f"upload-{len(self.uploads)}"
            self.uploads[upload] = {}
            self.xml("InitiateMultipartUploadResult", Bucket=bucket, Key=key, UploadId=upload)
        elif self.command == "PUT" and "partNumber" in asked:
            self.uploads[asked["uploadId"]][int(asked["partNumber"])] = body
            self.answer(200, ETag=self.tag(body))
        elif self.command == "POST" and "uploadId" in asked:
            stored = self.uploads.pop(asked["uploadId"])
            wanted = re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())
            whole = b"".join(stored[int(number)] for number in wanted)
            self.objects[key] = (whole, datetime.now(timezone.utc))
            fields = {"Bucket": bucket, "Key": key, "ETag": self.tag(whole)}
            self.xml("CompleteMultipartUploadResult", **fields)
        elif self.command == "PUT":
            self.objects[key] = (body, datetime.now(timezone.utc))
            self.answer(200, ETag=self.tag(body))
        elif key not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.command == "DELETE":
            del self.objects[key]
            self.answer(204)
        else:
            content, stored_at = self.objects[key]
            self.answer(
                200,
                content,
                ETag=self.tag(content),
                Last_Modified=format_datetime(stored_at, usegmt=True),
            )

    def tag(self, content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'

    def list(self, asked: dict[str, str]) -> None:
        begins = asked.get("prefix", "")
        listed = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<ETag>{escape(self.tag(content))}</ETag>"
            f"<LastModified>{at.isoformat().replace('+00:00', 'Z')}</LastModified></Contents>"
            for key, (content, at) in sorted(self.objects.items())
            if key.startswith(begins)
        )
        self.answer(
            200, f"<ListBucketResult><Name>bucket</Name>{listed}</ListBucketResult>".encode()
        )

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one


class Google(Bucket):
    def __init__(self, url: str, objects: dict[str, tuple[bytes, datetime]]) -> None:
        self.objects = objects
        account = {
            "gcs_base_url": url,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
        super().__init__("gs://bucket", environment)

    def names(self) -> list[str]:
        return sorted(self.objects)

    def delete(self, key: str) -> None:
        del self.objects[key]


@contextmanager
def google() -> Iterator[Bucket]:
    handler = type("Handler", (_Google,), {"objects": {}, "uploads": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Google(f"http://127.0.0.1:{server.server_address[1]}", handler.objects)
    finally:
        server.shutdown()
        server.server_close()
