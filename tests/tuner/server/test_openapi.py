"""The whole REST API behaves as its OpenAPI description says, for requests made by schemathesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tests.tuner.server.finished_job import JOB, add_finished_job
from tuner.domain.job_queue import Role
from tuner.server import events
from tuner.server.app import create_app
from tuner.server.settings import LimitsSection, ServerSettings

try:
    import schemathesis
    from hypothesis import HealthCheck, settings
except ImportError:
    schemathesis = None  # type: ignore[assignment]

UNLIMITED = ServerSettings(
    limits=LimitsSection(requests_per_minute=10**7, refused_per_minute=10**7, attempts=3)
)


def test_every_operation_is_described(client_of: Callable[..., TestClient]) -> None:
    found = client_of().get("/api/v1/openapi.json").json()
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert len(operations) > 30
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["tags"], operation["operationId"]
        assert operation["description"], operation["operationId"]
        errors = {s: answer for s, answer in operation["responses"].items() if int(s) >= 400}
        assert {"413", "503"} <= set(errors)
        for answer in errors.values():
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }


def test_a_wrong_method_names_the_methods_of_all_routes(client_of: Callable[..., TestClient]) -> None:
    answer = client_of().delete("/api/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert client_of().get("/api/v1/jobs/", follow_redirects=False).status_code == 404
    assert answer.json()["detail"] == "DELETE is not possible here; allowed is GET, POST"


@pytest.fixture(scope="module")
def described_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from storage import open_storage

    folder = tmp_path_factory.mktemp("openapi")
    with open_storage(f"sqlite:///{folder}/service.db") as store, pytest.MonkeyPatch.context() as patch:
        # Streams of jobs that have not ended would be open for minutes.
        patch.setattr(events, "_LONGEST_SECONDS", 0.02)
        patch.setattr(events, "_POLL_SECONDS", 0.01)
        app = create_app(store, UNLIMITED)
        _seed(app, store)
        _, app.state.text = store.tokens.create("schemathesis", Role.ADMIN)
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


def _seed(app: Any, store: Storage) -> None:
    """Adds jobs in several states."""
    _, text = store.tokens.create("user", Role.SUBMIT)
    client = TestClient(app, headers={"Authorization": f"Bearer {text}"})
    for _ in range(3):
        add_finished_job(store)
    for _ in range(20):
        assert client.post("/api/v1/jobs", json={"job_file": JOB}).status_code == 201


if schemathesis is not None:
    from schemathesis.specs.openapi.checks import (
        negative_data_rejection,
        positive_data_acceptance,
        unsupported_method,
    )

    #: A valid request may be refused: there is no such job, or it is in another state. Unknown parameters of
    #: the query are ignored. `GET /jobs/plan` is answered as a job with a wrong number.
    EXCLUDED = [positive_data_acceptance, negative_data_rejection, unsupported_method]

    described = schemathesis.pytest.from_fixture("described_api")

    @pytest.mark.slow
    @described.parametrize()
    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def test_the_api_answers_as_described(case: Any) -> None:
        headers = {"Authorization": f"Bearer {case.operation.app.state.text}"}
        case.call_and_validate(headers=headers, excluded_checks=EXCLUDED)
