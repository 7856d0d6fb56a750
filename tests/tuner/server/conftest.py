from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import Quota, Role

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from tuner.server.app import create_app
from tuner.server.settings import ServerSettings


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        yield store


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings()


@pytest.fixture
def client_of(store: Storage, settings: ServerSettings) -> Callable[..., TestClient]:
    """Makes clients with a new token of a role."""
    app = create_app(store, settings)

    def make(role: Role = Role.SUBMIT, quota: Quota | None = None) -> TestClient:
        _, text = store.tokens.create(f"a {role} token", role, quota=quota)
        return TestClient(app, headers={"Authorization": f"Bearer {text}"}, raise_server_exceptions=False)

    return make
