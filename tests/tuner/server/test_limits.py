from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi import Request
from fastapi.testclient import TestClient
from httpx2 import Response

from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import StorageError
from tuner.domain.job_queue import Role
from tuner.server import limits
from tuner.server.app import create_app
from tuner.server.limits import RateLimit
from tuner.server.settings import LimitsSection, ServerSettings

SMALL = ServerSettings(
    limits=LimitsSection(
        request_bytes=1000, file_bytes=2000, requests_per_minute=5, refused_per_minute=3, attempts=3
    )
)


@pytest.fixture
def settings() -> ServerSettings:
    return SMALL


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 100):
        yield b" " * 100


@pytest.mark.parametrize("stated", [True, False])
def test_a_large_request_is_refused_with_and_without_its_size(
    client_of: Callable[..., TestClient], stated: bool
) -> None:
    body = b" " * 5000 if stated else chunks(5000)
    answer = client_of().post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "the request is larger than 1000 bytes, the limit of this server"


@pytest.mark.parametrize("size", ["-1", "1e9", "9" * 30, "x"])
def test_a_strange_size_is_refused(client_of: Callable[..., TestClient], size: str) -> None:
    answer = client_of().post("/api/v1/jobs", content=b"{}", headers={"Content-Length": size})
    assert answer.status_code == 413


def test_a_token_and_an_address_without_token_have_a_rate(client_of: Callable[..., TestClient]) -> None:
    client = client_of(Role.READ)
    statuses = [client.get("/api/v1/jobs").status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    other = client_of(Role.READ)
    assert other.get("/api/v1/jobs").status_code == 200
    good = other.headers["Authorization"]
    other.headers["Authorization"] = "Bearer wrong"
    answers = [other.get("/api/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert "without a valid access token; try again in" in answers[-1].json()["detail"]
    # Other clients of the address are not locked out.
    other.headers["Authorization"] = good
    assert other.get("/api/v1/jobs").status_code == 200


def test_a_rate_recovers_with_time_and_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_COUNTED", 3)
    now = 0.0
    rate = RateLimit(60, lambda: now)
    assert [rate.wait_seconds("a") for _ in range(61)] == [0.0] * 60 + [1.0]
    now = 2.0
    assert [rate.wait_seconds("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    for client in "bcdefg":
        rate.wait_seconds(client)
    assert len(rate._left) == 3


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.0.0.7", "10.0.0.7"), ("2001:db8::1:2:3", "2001:db8::/64"), ("testclient", "testclient")],
)
def test_addresses_of_one_ipv6_network_count_as_one(address: str, network: str) -> None:
    assert limits._network(address) == network


def test_every_answer_has_security_headers(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    for path in ("/api/v1/jobs", "/api/v1/jobs/7", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"


def test_a_fault_shows_no_details(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = store.tokens.create("r", Role.READ)
    monkeypatch.setattr(type(store.queue), "jobs", lambda *_, **__: 1 / 0)
    app = create_app(store, ServerSettings())
    client = TestClient(app, headers={"Authorization": f"Bearer {text}"}, raise_server_exceptions=False)
    answer = client.get("/api/v1/jobs")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "the server has a fault; its log has the details"
    assert "ZeroDivision" not in answer.text


def test_a_database_that_is_not_available_is_503_without_its_path(
    client_of: Callable[..., TestClient], store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the study database sqlite:////srv/secret.db is locked by another process")

    client = client_of(Role.READ)
    monkeypatch.setattr(type(store.queue), "jobs", fail)
    answer = client.get("/api/v1/jobs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "secret" not in answer.text


def test_a_token_has_a_limited_number_of_uploads_and_bytes(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = ServerSettings(limits=LimitsSection(uploads=1, stored_bytes=100, upload_seconds=0.05))
    app = create_app(store, limited)
    token, secret = store.tokens.create("t", Role.SUBMIT)
    client = TestClient(app, headers={"Authorization": f"Bearer {secret}"})

    def upload(content: bytes) -> Response:
        return client.put(f"/api/v1/files/{hashlib.sha256(content).hexdigest()}", content=content)

    assert upload(b"a" * 60).status_code == 200
    refused = upload(b"b" * 60)
    assert (refused.status_code, refused.json()["title"]) == (403, "Quota exceeded")
    assert "its quota is 100" in refused.json()["detail"]
    with app.state.context.uploads.counted(token.token_id, 1):
        refused = upload(b"c")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert upload(b"c").status_code == 200

    async def slow(_request: Request) -> AsyncIterator[bytes]:
        await asyncio.sleep(5)
        yield b"d"

    monkeypatch.setattr(Request, "stream", slow)
    refused = upload(b"d")
    assert (refused.status_code, "did not arrive within 0.05 s" in refused.json()["detail"]) == (408, True)


def test_the_server_removes_old_uploads_that_no_job_uses(store: Storage) -> None:
    with open_storage(store.url, lambda: time.time() - 1e6) as past:
        old = past.queue.put_file(b"old")
    new = store.queue.put_file(b"new")
    with TestClient(create_app(store, SMALL)):
        for _ in range(100):
            if store.reads.file_size(old) is None:
                break
            time.sleep(0.02)
    assert (store.reads.file_size(old), store.reads.file_size(new)) == (None, 3)
