from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tests.tuner.server.finished_job import JOB, NUM_POINTS, add_finished_job
from tuner.domain.job_queue import FileKind, Role
from tuner.report.launch_files import TARGETS

COMMAND_JOB = """
[workload]
command = "torchrun --nnodes {nodes} train.py --lr {learning_rate} --batch {batch_size} --out {metrics}"
[workload.environment]
SECRET_KEY = "hunter2"
[cluster]
nodes = [1, 2]
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64]
learning_rate = [0.05]
"""


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of(Role.READ)


def test_what_a_job_has_measured_can_be_read(client: TestClient, store: Storage) -> None:
    url = f"/api/v1/jobs/{add_finished_job(store)}"
    assert client.get(url).json()["progress"] == {"text": "half", "seconds": None}
    (probe,) = client.get(f"{url}/probes").json()["probes"]
    assert (probe["outcome"], probe["configuration"]["nodes"], probe["samples"]) == ("reached", 2, 1920)
    (curve,) = client.get(f"{url}/curves").json()["curves"]
    assert len(curve["points"]) == NUM_POINTS
    assert curve["points"][4]["value"] is None
    assert len(client.get(f"{url}/curves?points=5").json()["curves"][0]["points"]) <= 5
    (prediction,) = client.get(f"{url}/predictions").json()["predictions"]
    assert prediction["quantiles"] == {"0.05": 100.0, "0.5": 200.0, "0.95": None}
    assert prediction["measured_seconds"] == pytest.approx(300.0, abs=0.01)
    assert prediction["share_observed"] == pytest.approx(0.1, abs=0.001)
    assert client.get(f"{url}/recommendation").json()["choice"]["configuration"]["batch_size"] == 64
    assert client.get(f"{url}/log").text == "one line\n"
    files = client.get(f"{url}/files").json()
    assert {"kind": "report", "path": "report.md", "num_bytes": 8} in files


def test_probes_come_in_pages(client: TestClient, store: Storage) -> None:
    url = f"/api/v1/jobs/{add_finished_job(store)}/probes"
    first = client.get(f"{url}?limit=1").json()
    assert first["next_after"] == first["probes"][0]["probe_id"]
    assert client.get(f"{url}?after={first['next_after']}").json() == {"probes": [], "next_after": None}


@pytest.mark.parametrize(
    ("name", "media_type", "text"),
    [
        ("html", "text/html; charset=utf-8", "<h1>report</h1>"),
        ("md", "text/markdown; charset=utf-8", "# report"),
        ("csv", "text/csv; charset=utf-8", "a,b"),
        ("json", "application/json", "{}"),
    ],
)
def test_a_report_is_served_in_each_format(
    client: TestClient, store: Storage, name: str, media_type: str, text: str
) -> None:
    answer = client.get(f"/api/v1/jobs/{add_finished_job(store)}/report?format={name}")
    assert (answer.text, answer.headers["content-type"]) == (text, media_type)
    assert "attachment" in answer.headers["content-disposition"]


def test_a_job_without_results_says_so(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    job_id = client.post("/api/v1/jobs", json={"job_file": JOB}).json()["job_id"]
    url = f"/api/v1/jobs/{job_id}"
    assert client.get(f"{url}/probes").json() == {"probes": [], "next_after": None}
    assert client.get(f"{url}/curves").json() == {"curves": [], "next_after": None}
    assert client.get(f"{url}/predictions").json() == {"predictions": [], "next_after": None}
    for path in ("recommendation", "report", "log", "export?target=env"):
        answer = client.get(f"{url}/{path}")
        assert (answer.status_code, "yet" in answer.json()["detail"]) == (404, True), path


@pytest.mark.parametrize("target", TARGETS)
def test_a_launch_file_names_the_folder_of_the_client_and_none_of_the_server(
    client: TestClient, store: Storage, target: str
) -> None:
    url = f"/api/v1/jobs/{add_finished_job(store)}/export?target={target}&folder=/home/me/digits"
    answer = client.get(url)
    assert answer.status_code == (200 if target in ("torchrun", "env", "slurm") else answer.status_code)
    assert str(Path.cwd()) not in answer.text
    assert "paceline-export" not in answer.text
    if target == "torchrun":
        assert "\ncd /home/me/digits || exit\n" in answer.text
        assert "paceline train /home/me/digits/digits.toml --nodes 2" in answer.text


@pytest.mark.parametrize("target", TARGETS)
def test_a_launch_file_has_no_private_values(client: TestClient, store: Storage, target: str) -> None:
    job_id = add_finished_job(store, COMMAND_JOB)
    store.queue.add_job_file(job_id, FileKind.WORKSPACE, "train.py", b"import paceline_client")
    answer = client.get(f"/api/v1/jobs/{job_id}/export?target={target}&folder=/home/me/x")
    assert answer.status_code == 200, answer.text
    assert "hunter2" not in answer.text
    assert "paceline-export" not in answer.text


@pytest.mark.parametrize("job_file", [JOB, COMMAND_JOB])
def test_a_launch_file_reports_to_the_server_without_a_token(
    client: TestClient, store: Storage, job_file: str
) -> None:
    job_id = add_finished_job(store, job_file)
    store.queue.add_job_file(job_id, FileKind.WORKSPACE, "train.py", b"import paceline_client")
    address = {"report_to": "https://paceline.example.org", "target": "torchrun"}
    text = client.get(f"/api/v1/jobs/{job_id}/export", params=address).text
    study_id = store.queue.job(job_id).study_id
    assert f"PACELINE_REPORT_TO='https://paceline.example.org/api/v1/outcomes?study={study_id}&" in text
    assert "PACELINE_TOKEN=" not in text
    wrong = client.get(f"/api/v1/jobs/{job_id}/export", params={**address, "report_to": "ftp://x"})
    assert wrong.status_code == 422, wrong.text
    assert "is not the address of a server" in wrong.json()["detail"]


def test_a_folder_that_could_change_the_script_is_refused(client: TestClient, store: Storage) -> None:
    url = f"/api/v1/jobs/{add_finished_job(store)}/export"
    for folder in ("/a;reboot", "/a b", "a", "/a$(x)", "/a\n"):
        answer = client.get(url, params={"target": "torchrun", "folder": folder})
        assert answer.status_code == 422, folder
    for target in ("nothing", "../x", ""):
        assert client.get(url, params={"target": target}).status_code == 422
