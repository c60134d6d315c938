"""Deliveries to a real server that fails in every way a server can."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from support import wait_until
from training.journal import SCHEMA, Journal
from workledger.assembly import make_loops, open_ledger
from workledger.cli.main import app
from workledger.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from workledger.flows import log_to_webhooks
from workledger.flows.log_to_webhooks import Courier, Couriers, add_webhook, pause_after, redeliver, rotate, send_test
from workledger.flows.up import Supervisor
from workledger.log import consumers
from workledger.metrics.prometheus import render
from workledger.settings import Settings
from workledger.synapse import endpoints
from workledger.synapse.webhook import Outcome, Sender, check_url, new_secret, sign, verify

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "webhooks.md"
PATIENT, IMPATIENT = Sender(timeout_s=60), Sender(timeout_s=0.5)

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "5")
        request.end_headers()
        request.wfile.write(b"owls!")

    return answer


def hang(request: BaseHTTPRequestHandler) -> None:
    request.server.over.wait(100)


def drip(request: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000:
            request.wfile.write(bytes([byte]))
            if request.server.over.wait(0.05):
                return


def drip_headers(request: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        drip(request)


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


def babble(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\xff no http \r\n\r\n")


def flood(request: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 5_000_000)


class Receiver:
    """A server that answers as it is told: with each of `script` once, and then with `always`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.script: list[Answer] = []
        self.always: Answer = status(200)
        self.requests: list[SimpleNamespace] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(
                    SimpleNamespace(path=self.path, headers=self.headers, body=body, at=time.time())
                )
                answer = receiver.script.pop(0) if receiver.script else receiver.always
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.over = threading.Event()  # then answers that last for ever end
        self.server.handle_error = lambda *_: None
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://localhost:{self.server.server_address[1]}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def positions(self) -> list[int]:
        return [json.loads(request.body)["data"]["position"] for request in self.requests]

    def close(self) -> None:
        self.server.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def hook(journal: Journal, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Courier]:
    """Add a webhook to the receiver, and give its courier. It tries again in minutes, not seconds, unless told `now`."""
    monkeypatch.setattr(log_to_webhooks, "pause_after", lambda *failure: 60 * pause_after(*failure))
    with ExitStack() as stack:

        def hook(name: str = "h", **options) -> Courier:
            options = {"after": 0, "allow_private": True, "url": receiver.url, **options}
            add_webhook(journal.connection, name, options.pop("url"), schema=SCHEMA, **options)
            courier = Courier(name, connect=journal.connect, schema=SCHEMA, sender=PATIENT)
            return stack.enter_context(closing(courier))

        yield hook


def now(journal: Journal) -> None:
    """Let no webhook wait for its next try."""
    journal.connection.execute("UPDATE webhooks SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")


def run(courier: Courier, journal: Journal, *, tries: int = 1) -> None:
    for _ in range(tries):
        now(journal)
        while courier.step():
            pass


def endpoint(journal: Journal, name: str = "h") -> endpoints.Endpoint:
    return endpoints.get(journal.connection, name)


def record(journal: Journal, count: int) -> None:
    journal.events(count)
    journal.sequence()


# -- what is sent -----------------------------------------------------------------------------------------------


def test_a_delivery_is_a_signed_cloudevent(journal: Journal, receiver: Receiver, hook) -> None:
    secret = new_secret()
    courier = hook(secret=secret)
    journal.start("wf-1", input={"text": 'owls\n"fly" 🦉'})
    journal.sequence()
    run(courier, journal)
    (request,) = receiver.requests
    event = json.loads(request.body)
    data = event.pop("data")
    assert data["payload"]["input"] == {"text": 'owls\n"fly" 🦉'}
    assert event == {
        "specversion": "1.0",
        "id": data["event_id"],
        "source": "urn:workledger:workledger",
        "type": "workflow.started",
        "subject": "workflow/wf-1",
        "time": data["created_at"],
        "partitionkey": "wf-1",
        "sequence": "00000000000000000001",
        "datacontenttype": "application/json",
    }
    assert request.path == "/hook?x=1"
    assert request.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert request.headers["webhook-id"] == data["event_id"]
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 100
    # As the specification says it, without our own code.
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert verify(secret=secret, headers=request.headers, body=request.body)


def test_the_signature_is_the_one_of_the_specification() -> None:
    # The vector that the Standard Webhooks libraries are tested with.
    signature = sign(
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("spoil", ["body", "webhook-id", "webhook-timestamp", "webhook-signature", "secret", "late"])
def test_a_delivery_that_was_touched_or_is_old_does_not_verify(spoil: str) -> None:
    secret, body, at = new_secret(), b"{}", int(time.time())
    headers = {"webhook-id": "1", "webhook-timestamp": str(at)}
    headers["webhook-signature"] = "v1a,zzz " + sign(secret=secret, webhook_id="1", timestamp_s=at, body=body)
    assert verify(secret=secret, headers=headers, body=body)
    if spoil in headers:
        headers[spoil] = "2"
    assert not verify(
        secret=new_secret() if spoil == "secret" else secret,
        headers=headers,
        body=b"[]" if spoil == "body" else body,
        now_s=at + 301 if spoil == "late" else None,
    )
    assert not verify(secret=secret, headers={}, body=body)


def test_events_arrive_in_the_order_of_the_log_and_each_once(journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook()
    record(journal, 300)
    run(courier, journal)
    assert receiver.positions == list(range(1, 301))
    assert consumers.position_of(journal.connection, "webhook:h") == 300


def test_only_the_types_asked_for_are_delivered_and_the_cursor_passes_the_others(
    journal: Journal, receiver: Receiver, hook
) -> None:
    courier = hook(event_types=["workflow.completed", "task.*"])
    record(journal, 250)
    journal.workflow("w-1")
    record(journal, 250)
    run(courier, journal)
    types = {json.loads(request.body)["type"] for request in receiver.requests}
    assert types == {"workflow.completed", "task.started", "task.completed"}
    assert endpoint(journal).position == 512


def test_a_new_webhook_begins_with_what_is_new(journal: Journal, receiver: Receiver, hook) -> None:
    record(journal, 5)
    courier = hook(after=None)
    record(journal, 2)
    run(courier, journal)
    assert receiver.positions == [6, 7]


def test_secrets_are_rotated_without_a_delivery_that_is_refused(journal: Journal, receiver: Receiver, hook) -> None:
    old = new_secret()
    courier = hook(secret=old)
    new = rotate(journal.connection, "h")
    record(journal, 1)
    run(courier, journal)
    endpoints.set_secrets(journal.connection, "h", [new])
    record(journal, 1)
    run(courier, journal)
    both, last = receiver.requests
    assert verify(secret=old, headers=both.headers, body=both.body)
    assert verify(secret=new, headers=both.headers, body=both.body)
    assert not verify(secret=old, headers=last.headers, body=last.body)
    assert verify(secret=new, headers=last.headers, body=last.body)


def test_a_secret_may_stay_in_the_environment(
    journal: Journal, receiver: Receiver, hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = hook(secret="env:HOOK_SECRET")
    record(journal, 1)
    run(courier, journal)
    assert receiver.requests == []
    assert "HOOK_SECRET" in (endpoint(journal).last_error or "")
    secret = new_secret()
    monkeypatch.setenv("HOOK_SECRET", secret)
    run(courier, journal)
    assert verify(secret=secret, headers=receiver.requests[0].headers, body=receiver.requests[0].body)
    assert journal.sql("SELECT secrets FROM webhooks") == [(["env:HOOK_SECRET"],)]


# -- servers that fail ------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[Answer, str]] = {
    "500": (status(500), "500 Internal Server Error owls!"),
    "503": (status(503), "503"),
    "404": (status(404), "404"),
    "a redirect": (status(302, Location="http://127.0.0.1:1/"), "302"),
    "no answer": (hang, "no answer within 0.5 s"),
    "an answer that trickles in": (drip, "no answer within 0.5 s"),
    "headers that trickle in": (drip_headers, "no answer within 0.5 s"),
    "a connection that ends": (hang_up, "RemoteDisconnected"),
    "no http": (babble, "BadStatusLine"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failure_the_same_event_comes_again_before_those_behind_it(
    failure: str, journal: Journal, receiver: Receiver, hook
) -> None:
    courier = hook()
    record(journal, 1)
    run(courier, journal)
    record(journal, 2)
    answer, reason = FAILURES[failure]
    receiver.always = answer
    courier._sender = IMPATIENT if "no answer" in reason else PATIENT
    run(courier, journal)
    assert (endpoint(journal).attempts, endpoint(journal).position) == (1, 1)
    assert (endpoint(journal).last_error or "").startswith(reason)
    assert 30 < (endpoint(journal).next_attempt_in_s or 0) <= 60
    assert courier.step() == 0  # not yet
    run(courier, journal)
    wait_until(lambda: len(receiver.requests) == 3, timeout_s=60)  # it may be late for a call that was given up
    courier._sender, receiver.always = PATIENT, status(200)
    run(courier, journal)
    assert receiver.positions == [1, 2, 2, 2, 3]
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 3
    assert (endpoint(journal).attempts, endpoint(journal).last_error) == (0, None)


def test_a_server_that_is_not_there_is_tried_again(journal: Journal, hook) -> None:
    courier = hook(url="http://localhost:1/")
    record(journal, 1)
    run(courier, journal, tries=3)
    assert endpoint(journal).attempts == 3
    assert "ConnectionRefused" in (endpoint(journal).last_error or "")


def test_an_endless_answer_is_not_read_to_its_end(journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook()
    receiver.script = [flood]
    record(journal, 1)
    run(courier, journal)
    assert endpoint(journal).position == 1


def test_the_pauses_grow_to_an_hour_and_give_what_the_receiver_asks_for() -> None:
    failed = Outcome(status=503, reason="")
    pauses = [pause_after(attempt, failed) for attempt in range(1, 30)]
    assert all(0.75 * 2 ** (n - 1) <= pauses[n - 1] <= 2 ** (n - 1) for n in range(1, 12))
    assert all(2700 <= pause <= 3600 for pause in pauses[12:])
    assert 60 <= pause_after(1, Outcome(status=429, reason="", retry_after_s=60)) < 61
    assert pause_after(1, Outcome(status=429, reason="", retry_after_s=1e9)) == 3600


@pytest.mark.parametrize("header", ["1200", "date"])
def test_retry_after_is_kept_to(
    header: str, journal: Journal, receiver: Receiver, hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_to_webhooks, "pause_after", pause_after)
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1200)
    value = at.strftime("%a, %d %b %Y %H:%M:%S GMT") if header == "date" else header
    receiver.script = [status(429, Retry_After=value)]
    courier = hook()
    record(journal, 1)
    run(courier, journal)
    assert 1100 < (endpoint(journal).next_attempt_in_s or 0) <= 1201


def test_after_the_last_try_an_event_is_a_dead_letter_and_the_others_go_on(
    journal: Journal, receiver: Receiver, hook, caplog: pytest.LogCaptureFixture
) -> None:
    courier = hook(max_attempts=3)
    record(journal, 3)
    receiver.script = [status(200), *[status(500)] * 3]
    with caplog.at_level(logging.WARNING):
        run(courier, journal, tries=3)
    assert receiver.positions == [1, 2, 2, 2, 3]
    (letter,) = endpoints.dead_letters(journal.connection, "h")
    assert (letter.position, letter.event_type, letter.attempts) == (2, "cache.hit", 3)
    assert letter.reason == "500 Internal Server Error owls!"
    assert letter.event_id == receiver.requests[1].headers["webhook-id"]
    said = [record.message.split()[0] for record in caplog.records if record.name == log_to_webhooks.__name__]
    assert said == ["webhook.failing", "webhook.dead_letter"]


def test_an_event_that_the_receiver_refuses_is_not_tried_for_hours(journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook()
    record(journal, 1)
    receiver.always = status(400)
    run(courier, journal, tries=9)
    assert len(receiver.requests) == 5
    assert [each.position for each in endpoints.dead_letters(journal.connection, "h")] == [1]


def test_dead_letters_can_be_delivered_after_all(journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook(max_attempts=1)
    record(journal, 4)
    receiver.always = status(500)
    run(courier, journal)
    receiver.always, receiver.script = status(200), [status(200), status(500)]
    tried = redeliver(journal.connection, "h", schema=SCHEMA, sender=PATIENT)
    assert [(letter.position, outcome.status) for letter, outcome in tried] == [(1, 200), (2, 500), (3, 200), (4, 200)]
    assert [each.position for each in endpoints.dead_letters(journal.connection, "h")] == [2]
    assert endpoint(journal).dead_letters == 1


def test_gone_disables_the_webhook_until_it_is_enabled(journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook()
    record(journal, 2)
    receiver.script = [status(410)]
    run(courier, journal, tries=3)
    assert receiver.positions == [1]
    assert endpoint(journal).disabled_reason == "410 Gone owls!"
    endpoints.enable(journal.connection, "h")
    run(courier, journal)
    assert receiver.positions == [1, 1, 2]


# -- where deliveries may go ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "[::ffff:10.0.0.1]"],
)
def test_addresses_that_are_not_public_are_refused_unless_allowed(host: str) -> None:
    outcome = PATIENT.send(f"http://{host}/", secret_values=[new_secret()], webhook_id="1", body=b"{}")
    assert outcome.status is None
    assert "--allow-private" in outcome.reason


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h/", "http://", "https://user:x@h/", "http://h:0/", "http://h:x/", "http://h/ b", "http://h/#f", "h/p"],
)
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="https://HOST/PATH"):
        check_url(url)


def test_https_needs_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with closing(Receiver(context)) as receiver:

        def send() -> Outcome:
            return PATIENT.send(
                receiver.url, secret_values=[new_secret()], webhook_id="1", body=b"{}", allow_private=True
            )

        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        assert "certificate verify failed" in send().reason
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send().status == 200


def _certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


# -- several of everything --------------------------------------------------------------------------------------


def test_a_slow_webhook_delays_no_other(journal: Journal, receiver: Receiver) -> None:
    with closing(Receiver()) as slow:
        slow.always = hang
        for name, url in (("slow", slow.url), ("quick", receiver.url)):
            add_webhook(journal.connection, name, url, schema=SCHEMA, allow_private=True)
        with closing(Couriers(journal.connect, schema=SCHEMA, sender=Sender(timeout_s=100))) as couriers:
            couriers.step()
            record(journal, 50)
            wait_until(lambda: slow.requests, timeout_s=60)
            wait_until(lambda: receiver.positions == list(range(1, 51)), timeout_s=60)
            assert endpoint(journal, "slow").attempts == 0  # it is still at its first
            assert len(slow.requests) == 1
            slow.server.over.set()


def test_webhooks_come_and_go_while_couriers_run(journal: Journal, receiver: Receiver) -> None:
    with closing(Couriers(journal.connect, schema=SCHEMA, sender=PATIENT)) as couriers:
        assert couriers.step() == 0
        add_webhook(journal.connection, "h", receiver.url, schema=SCHEMA, allow_private=True)
        assert couriers.step() == 1
        record(journal, 3)
        wait_until(lambda: endpoint(journal).position == 3, timeout_s=60)
        endpoints.remove(journal.connection, "h")
        wait_until(lambda: not any(thread.is_alive() for thread in couriers._threads.values()), timeout_s=60)
        record(journal, 3)
        assert couriers.step() == 0
    assert receiver.positions == [1, 2, 3]
    assert journal.sql("SELECT count(*) FROM consumers WHERE name LIKE 'webhook:%%'") == [(0,)]


def test_two_processes_that_deliver_share_the_work_without_a_repetition(
    journal: Journal, receiver: Receiver, hook
) -> None:
    one = hook()
    two = Courier("h", connect=journal.connect, schema=SCHEMA, sender=PATIENT)
    record(journal, 20)
    assert one.step() == 20
    record(journal, 5)
    assert two.step() == 0
    one.close()
    assert two.step() == 5
    two.close()
    assert receiver.positions == list(range(1, 26))


def test_when_a_deliverer_dies_another_goes_on_with_the_event_that_was_not_acknowledged(
    journal: Journal, receiver: Receiver, hook
) -> None:
    record(journal, 1)
    dead = hook()
    run(dead, journal)
    record(journal, 2)
    receiver.script, dead._sender = [hang], IMPATIENT
    dead.step()
    wait_until(lambda: len(receiver.requests) == 2, timeout_s=60)
    journal.connection.execute("UPDATE webhooks SET taken_until = now() - interval '1 second', next_attempt_at = NULL")
    with closing(Courier("h", connect=journal.connect, schema=SCHEMA, sender=PATIENT)) as another:
        run(another, journal)
    assert receiver.positions == [1, 2, 2, 3]
    record(journal, 1)
    dead._renew_at_s, dead._sender = 0, PATIENT  # its minute is over
    assert dead.step() == 1


def test_a_database_that_is_away_is_waited_for_and_that_is_said_once(
    journal: Journal, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    from support.proxy import Proxy
    from workledger.postgres.connection import connect

    add_webhook(journal.connection, "h", receiver.url, schema=SCHEMA, allow_private=True)
    with Proxy(journal.url) as proxy, caplog.at_level(logging.WARNING):
        couriers = Couriers(lambda: connect(proxy.url, schema=SCHEMA), schema=SCHEMA)
        with closing(couriers):
            couriers.step()
            record(journal, 2)
            wait_until(lambda: receiver.positions == [1, 2], timeout_s=60)
            proxy.refuse()
            wait_until(lambda: "webhook.waiting" in caplog.text, timeout_s=60)
            record(journal, 2)
            time.sleep(1)
            proxy.heal()
            # The second may come again: the connection may have been cut before it was noted as delivered.
            wait_until(lambda: sorted(set(receiver.positions)) == [1, 2, 3, 4], timeout_s=60)
    assert caplog.text.count("webhook.waiting") == 1


# -- what people ask for ----------------------------------------------------------------------------------------


def test_what_cannot_be_a_webhook_is_refused(journal: Journal) -> None:
    connection = journal.connection
    add_webhook(connection, "h", "https://h/", schema=SCHEMA)
    with pytest.raises(Conflict, match="'h' already"):
        add_webhook(connection, "h", "https://h/", schema=SCHEMA)
    for wrong in ({"name": "a b"}, {"secret": "whsec_short"}, {"event_types": ["*"]}, {"max_attempts": 0}):
        values = {"name": "i", "url": "https://h/", **wrong}
        with pytest.raises(InvalidInput):
            add_webhook(connection, values.pop("name"), values.pop("url"), schema=SCHEMA, **values)
    for ask in (endpoints.get, endpoints.remove, endpoints.enable):
        with pytest.raises(NotFound, match="no webhook 'x'"):
            ask(connection, "x")


def test_a_test_event_is_sent_at_once_and_is_in_no_log(journal: Journal, receiver: Receiver, hook) -> None:
    hook()
    outcome = send_test(endpoint(journal), schema=SCHEMA)
    assert (outcome.status, outcome.is_delivered) == (200, True)
    assert json.loads(receiver.requests[0].body)["type"] == "webhook.test"
    assert journal.sql("SELECT count(*) FROM events") == [(0,)]


@pytest.fixture
def cli(journal: Journal, tmp_path: Path) -> Callable[..., object]:
    options = ("--database-url", journal.url, "--home", str(tmp_path))

    def run_command(*arguments: str, group: str = "webhooks"):
        return CliRunner().invoke(app, [*options, group, *arguments], catch_exceptions=False)

    return run_command


def test_webhooks_are_added_listed_tried_rotated_and_removed_by_command(
    cli, journal: Journal, receiver: Receiver, hook
) -> None:
    added = json.loads(
        cli(
            "add", receiver.url, "--name", "ours", "--type", "task.*", "--after", "0", "--allow-private", "--json"
        ).stdout
    )
    assert added["secret"].startswith("whsec_")
    assert cli("test", "ours").stdout == "Delivered: 200 OK owls!\n"
    assert verify(secret=added["secret"], headers=receiver.requests[0].headers, body=receiver.requests[0].body)
    rotated = json.loads(cli("rotate", "ours", "--json").stdout)
    assert endpoint(journal, "ours").secrets == [rotated["secret"], added["secret"]]
    cli("rotate", "ours", "--finish")
    assert endpoint(journal, "ours").secrets == [rotated["secret"]]
    receiver.always = status(500)
    assert cli("test", "ours").exit_code == 1
    (listed,) = json.loads(cli("list", "--json").stdout)["webhooks"]
    assert (listed["name"], listed["event_types"], listed["lag"]) == ("ours", ["task.*"], 0)
    assert "secrets" not in listed
    assert "ours" in cli("list").stdout
    assert cli("remove", "ours").exit_code == 0
    assert "no webhooks" in cli("list").stdout


def test_dead_letters_are_listed_and_tried_again_by_command(cli, journal: Journal, receiver: Receiver, hook) -> None:
    courier = hook(max_attempts=1)
    record(journal, 2)
    receiver.always = status(500)
    run(courier, journal)
    receiver.always = status(410)
    record(journal, 1)
    run(courier, journal)
    assert "disabled: 410 Gone owls!" in cli("list").stdout
    told = cli("--json", group="doctor").stdout
    assert "h is disabled: 410 Gone owls!" in told
    assert "h has 2 dead letters" in told
    assert cli("enable", "h").exit_code == 0
    assert "500 Internal Server Error" in cli("dead", "h").stdout
    receiver.always, receiver.script = status(200), [status(500)]
    assert cli("dead", "h", "--redeliver").exit_code == 1
    assert [each["position"] for each in json.loads(cli("dead", "h", "--json").stdout)["dead_letters"]] == [1]
    assert cli("dead", "h", "--redeliver").exit_code == 0
    assert "no dead letters" in cli("dead", "h").stdout


def test_up_delivers_and_shows_how_far_each_webhook_is(
    cli, journal: Journal, receiver: Receiver, hook, tmp_path: Path
) -> None:
    hook()
    settings = Settings(database_url=journal.url, home=tmp_path, metrics_url="")
    receiver.always = status(500)
    with open_ledger(settings) as ledger:
        loops = [loop for loop in make_loops(settings, ledger) if loop.name == "webhooks"]
        with Supervisor(loops) as supervisor:
            record(journal, 3)
            wait_until(lambda: endpoint(journal, "h").attempts, timeout_s=60)
            assert "h failed 1 time with the event after 0: 500" in cli("--json", group="doctor").stdout
            receiver.always = status(200)
            now(journal)
            wait_until(lambda: endpoint(journal, "h").position == 3, timeout_s=60)
            assert supervisor.errors() == {}
    assert 'workledger_consumer_lag_positions{consumer="webhook:h"} 0.0' in render(journal.connection).decode()


def test_the_receiver_in_the_how_to_accepts_our_deliveries_and_no_others(journal: Journal, monkeypatch) -> None:
    import re

    (code,) = re.findall(r"```python\n(# receive\.py\n.*?)```", HOW_TO.read_text(), re.DOTALL)
    secret = new_secret()
    monkeypatch.setenv("HOOK_SECRET", secret)
    scope: dict[str, object] = {"__name__": "receive"}
    exec(compile(code, "receive.py", "exec"), scope)
    server = scope["make_server"](0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    add_webhook(journal.connection, "ours", url, schema=SCHEMA, secret=secret, allow_private=True)
    add_webhook(journal.connection, "theirs", url, schema=SCHEMA, allow_private=True)
    assert send_test(endpoint(journal, "ours"), schema=SCHEMA).status == 204
    assert send_test(endpoint(journal, "theirs"), schema=SCHEMA).status == 401
    server.shutdown()
    server.server_close()


def test_a_secret_that_is_not_in_the_environment_is_named() -> None:
    with pytest.raises(ConfigurationError, match="NOT_THERE"):
        sign(secret="env:NOT_THERE", webhook_id="1", timestamp_s=1, body=b"")
    assert log_to_webhooks.WEBHOOK_CONSUMER == "webhook:"
