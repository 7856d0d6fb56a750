"""The web pages: login, protection against other sites, roles, and hostile texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from markupsafe import Markup

from storage.database import Storage
from tests.tuner.server.seeded import PROBES, ended_job, job_under_way
from tuner.domain.job_queue import FileKind, JobState, NewJob, Role
from tuner.domain.ledger import RecommendationRecord
from tuner.report.content import AnalysisContent
from tuner.report.pages import analysis_html
from tuner.server.app import create_app
from tuner.server.page_sessions import SESSION_COOKIE, Sessions
from tuner.server.settings import ServerSettings

JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64, 128]
learning_rate = [0.1, 0.2]
[budget]
time = "2m"
"""
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
FROM_HERE = {"Origin": "http://testserver"}
Visit = Callable[..., TestClient]


@pytest.fixture
def app(store: Storage, settings: ServerSettings) -> FastAPI:
    return create_app(store, settings)


def csrf_of(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def log_in(client: TestClient, token: str, following: str = "/") -> int:
    csrf = csrf_of(client.get("/login").text)
    answer = client.post(
        "/login", data={"csrf": csrf, "token": token, "next": following}, follow_redirects=False
    )
    return answer.status_code


@pytest.fixture
def visit(app: FastAPI, store: Storage) -> Visit:
    """Makes browsers that are logged in with a new token of a role."""

    def make(role: Role = Role.SUBMIT, **values: float) -> TestClient:
        client = TestClient(app, headers=FROM_HERE, raise_server_exceptions=False)
        _, token = store.tokens.create(f"a {role} token", role, **values)
        assert log_in(client, token) == 303
        client.params = {}
        return client

    return make


def post(client: TestClient, path: str, **data: str) -> int:
    csrf = csrf_of(client.get("/workers").text)
    return client.post(path, data={"csrf": csrf, **data}, follow_redirects=False).status_code


def test_a_login_needs_a_valid_token_and_leads_back(app: FastAPI, store: Storage) -> None:
    client = TestClient(app, headers=FROM_HERE)
    sent_away = client.get("/jobs/7/plan", follow_redirects=False)
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/login?next=%2Fjobs%2F7%2Fplan")
    assert log_in(client, "paceline_1_wrong") == 401
    _, token = store.tokens.create("reader", Role.READ)
    csrf = csrf_of(client.get("/login").text)
    data = {"csrf": csrf, "token": token, "next": "/jobs/7/plan"}
    answer = client.post("/login", data=data, follow_redirects=False)
    assert answer.headers["location"] == "/jobs/7/plan"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert token not in cookie
    assert "No jobs yet" in client.get("/").text


def test_the_cookie_is_secure_under_https(app: FastAPI, store: Storage) -> None:
    client = TestClient(app, base_url="https://testserver", headers={"Origin": "https://testserver"})
    _, token = store.tokens.create("reader", Role.READ)
    csrf = csrf_of(client.get("/login").text)
    answer = client.post("/login", data={"csrf": csrf, "token": token}, follow_redirects=False)
    assert any("Secure" in c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb"])
def test_a_login_leads_to_no_other_server(app: FastAPI, store: Storage, following: str) -> None:
    client = TestClient(app, headers=FROM_HERE)
    _, token = store.tokens.create("reader", Role.READ)
    csrf = csrf_of(client.get("/login").text)
    data = {"csrf": csrf, "token": token, "next": following}
    assert client.post("/login", data=data, follow_redirects=False).headers["location"] == "/"


def test_a_session_ends_with_its_token_and_at_logout(visit: Visit, store: Storage) -> None:
    client, other = visit(Role.READ), visit(Role.READ)
    cookie = client.cookies[SESSION_COOKIE]
    assert post(client, "/logout") == 303
    client.cookies.set(SESSION_COOKIE, cookie)
    assert client.get("/", follow_redirects=False).status_code == 303
    store.tokens.revoke(store.tokens.tokens()[1].token_id)
    assert other.get("/", follow_redirects=False).status_code == 303


def test_sessions_expire_and_are_limited_for_each_token() -> None:
    now = 1000.0
    sessions = Sessions(lambda: now)
    other = sessions.open("text", 2)
    keys = [sessions.open("text", 1) for _ in range(60)]
    assert sum(sessions.find(key) is not None for key in keys) == 50
    assert sessions.find(keys[0]) is None
    assert sessions.find(other) is not None
    now += 13 * 3600
    assert sessions.find(other) is None


def test_no_form_is_accepted_without_the_token_of_its_session(app: FastAPI, visit: Visit) -> None:
    client = visit(Role.ADMIN)
    csrf = csrf_of(client.get("/").text)
    posts = [
        route.path.replace("{job_id}", "1").replace("{token_id}", "1")
        for route in pages_of(app)
        if "POST" in route.methods
    ]
    assert len(posts) >= 10
    for path in posts:
        for headers, data in (
            ({}, {"other": ""}),
            ({}, {"csrf": csrf[:-1] + "_"}),
            ({"Origin": "http://evil.example"}, {"csrf": csrf}),
            ({"Sec-Fetch-Site": "cross-site"}, {"csrf": csrf}),
            ({"Sec-Fetch-Site": "same-site"}, {"csrf": csrf}),
            ({"Origin": ""}, {"csrf": csrf}),
        ):
            answer = client.post(path, data=data, headers=headers, follow_redirects=False)
            assert answer.status_code == 403, (path, headers, data)


def test_large_forms_are_read_only_after_a_login(app: FastAPI) -> None:
    stranger = TestClient(app, headers=FROM_HERE, follow_redirects=False)

    header = {"Content-Type": "application/x-www-form-urlencoded"}
    # Somebody who is logged in would get 413.
    refused = stranger.post("/tokens", content=b"name=" + b"x" * 2**20, headers=header)
    assert (refused.status_code, refused.headers["location"]) == (303, "/login")
    assert stranger.post("/login", content=b"token=" + b"x" * 20_000, headers=header).status_code == 413


def test_large_forms_are_read_only_from_who_may_submit(
    app: FastAPI, visit: Visit, store: Storage, settings: ServerSettings
) -> None:
    large = b"name=" + b"x" * (settings.limits.request_bytes + 1)
    header = {"Content-Type": "application/x-www-form-urlencoded"}
    reader, submitter = visit(Role.READ), visit(Role.SUBMIT)
    assert reader.post("/submit", content=large, headers=header).status_code == 413
    # It is read, and has no CSRF token.
    assert submitter.post("/submit", content=large, headers=header).status_code == 403
    for token in store.tokens.tokens():
        store.tokens.revoke(token.token_id)
    refused = submitter.post("/submit", content=large, headers=header, follow_redirects=False)
    assert (refused.status_code, refused.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(("published", "is_shown"), [("", False), ("publish_environment = true", True)])
def test_private_values_are_shown_to_no_other_token(
    visit: Visit, store: Storage, published: str, is_shown: bool
) -> None:
    text = f'[workload]\ncommand = "x"\n{published}\n[workload.environment]\nAPI_KEY = "s3cret"\n'
    owner = visit()
    token_id = store.tokens.tokens()[-1].token_id
    number = store.queue.submit(NewJob(name="a", job_file=text, token_id=token_id))[0].job_id
    for client, sees in ((owner, True), (visit(Role.ADMIN), True), (visit(), is_shown)):
        for path in (f"/jobs/{number}/plan", f"/submit?job={number}"):
            assert ("s3cret" in client.get(path).text) is sees
    assert ("s3cret" in visit(Role.READ).get(f"/jobs/{number}/plan").text) is is_shown


def pages_of(app: FastAPI) -> list[APIRoute]:
    def walk(routes: list[object]) -> list[APIRoute]:
        found = []
        for route in routes:
            if isinstance(route, APIRoute):
                found.append(route)
            else:
                inner = getattr(route, "original_router", None)
                found += walk(inner.routes if inner is not None else [])
        return found

    return [route for route in walk(app.routes) if not route.path.startswith("/api/")]


def test_each_role_sees_and_changes_what_it_may(visit: Visit, store: Storage) -> None:
    reader, submitter, owner, admin = visit(Role.READ), visit(), visit(), visit(Role.ADMIN)
    owner_id = store.tokens.tokens()[2].token_id
    job = NewJob(name="digits", job_file=JOB, token_id=owner_id, state=JobState.AWAITING_APPROVAL)
    number = store.queue.submit(job)[0].job_id
    path = f"/jobs/{number}"
    for action in ("approve", "cancel", "pause", "resume"):
        assert post(reader, f"{path}/{action}") == 403
        assert post(submitter, f"{path}/{action}") == 403
    for hidden in ("/tokens", "/audit"):
        assert submitter.get(hidden).status_code == 403
        assert admin.get(hidden).status_code == 200
    assert reader.get("/submit").status_code == 403
    assert "Cancel…" not in reader.get(path).text
    assert "Cancel…" not in submitter.get(path).text
    assert "Cancel…" in owner.get(path).text
    assert post(owner, f"{path}/approve") == 403
    assert post(admin, f"{path}/approve") == 303
    assert post(owner, f"{path}/priority", priority="7") == 303
    assert post(owner, f"{path}/priority", priority="7.5") == 422
    assert post(owner, f"{path}/priority", priority="11") == 403
    assert post(owner, f"{path}/pause") == 303
    assert store.queue.job(number).state is JobState.PAUSED
    assert post(owner, f"{path}/resume") == 303
    assert post(owner, f"{path}/cancel") == 303
    assert post(owner, f"{path}/cancel") == 409
    ended = store.queue.job(number)
    assert (ended.state, ended.priority, ended.approved_by) == (JobState.CANCELLED, 7, "a admin token")
    assert [e.action for e in store.tokens.audit_log(limit=2)] == ["job.cancel", "job.resume"]


def test_a_job_is_planned_changed_and_submitted_once(visit: Visit, store: Storage) -> None:
    client = visit()
    csrf = csrf_of(client.get("/submit?example=true").text)
    faulty = client.post("/submit", data={"csrf": csrf, "job_file": JOB.replace("target", "targte")})
    assert faulty.status_code == 422
    assert "goal.targte" in faulty.text
    data = {"csrf": csrf, "name": "digits", "parallel": "2", "labels": "gpu, slurm", "priority": "3"}
    data["folder"] = "data"
    uploads = [
        ("job_upload", ("digits.toml", JOB.replace("\n", "\r\n").encode())),
        ("files", ("data <b>.csv", b"1,2\r\n\x00\xff")),
    ]
    plan = client.post("/submit", data=data, files=uploads)
    assert plan.status_code == 200, plan.text
    assert "Submit this job" in plan.text
    assert not store.queue.jobs()
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', plan.text))
    hidden["job_file"] = JOB
    hidden["file"] = hidden["file"].replace("&lt;", "<").replace("&gt;", ">")
    changed = client.post("/submit", data={**hidden, "step": "change"})
    assert "data/data &lt;b&gt;.csv" in changed.text
    for _ in range(2):
        made = client.post("/submit/confirm", data=hidden, follow_redirects=False)
        assert made.headers["location"] == "/jobs/1", made.text
    (job,) = store.queue.jobs()
    assert (job.name, job.labels, job.priority, job.options["parallel"]) == ("digits", ("gpu", "slurm"), 3, 2)
    files = store.queue.job_files(1, FileKind.WORKSPACE)
    assert store.queue.file(files["data/data <b>.csv"]) == b"1,2\r\n\x00\xff"


def test_hostile_texts_are_shown_as_text(visit: Visit, store: Storage) -> None:
    token, _ = store.tokens.create(HOSTILE, Role.SUBMIT)
    number = store.queue.submit(NewJob(name=HOSTILE, job_file=HOSTILE, token_id=token.token_id))[0].job_id
    store.queue.add_event(number, "decision", HOSTILE)
    store.queue.add_job_file(number, FileKind.LOG, "log.txt", HOSTILE.encode())
    store.queue.add_job_file(number, FileKind.REPORT, f"a/{HOSTILE}.csv", b"1")
    store.tokens.audit(HOSTILE, "x", HOSTILE, detail={HOSTILE: HOSTILE})
    lease = store.queue.claim(HOSTILE, labels=[], lease_seconds=60, most_failures=3)
    assert lease is not None
    store.queue.renew(
        lease, lease_seconds=60, progress={"text": HOSTILE, "slices": HOSTILE, "finish": HOSTILE}
    )
    client = visit(Role.ADMIN)
    path = f"/jobs/{number}"
    pages = (
        "/",
        path,
        f"{path}/plan",
        f"{path}/report",
        f"{path}/log",
        "/tokens",
        "/audit",
        f"/submit?job={number}",
    )
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, answer.text
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
        assert "&lt;script&gt;" in answer.text, page
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_report_is_shown_in_a_sandbox_and_other_files_are_stored(visit: Visit, store: Storage) -> None:
    number = store.queue.submit(NewJob(name="digits", job_file=JOB))[0].job_id
    store.queue.add_job_file(number, FileKind.REPORT, "report.html", b"<p>report</p>")
    store.queue.add_job_file(number, FileKind.REPORT, "trials.csv", b"1")
    client = visit(Role.READ)
    assert 'sandbox="' in client.get(f"/jobs/{number}/report").text
    report = client.get(f"/jobs/{number}/files/report/report.html")
    assert report.text == "<p>report</p>"
    assert report.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in report.headers["content-security-policy"]
    table = client.get(f"/jobs/{number}/files/report/trials.csv")
    assert table.headers["content-disposition"].startswith("attachment")
    assert client.get(f"/jobs/{number}/files/report/..%2F..%2Flog").status_code == 404
    assert client.get(f"/jobs/{number}/files/report/missing.html").status_code == 404


def test_the_page_of_an_ended_job_shows_the_analysis_of_its_recommendation(
    visit: Visit, store: Storage
) -> None:
    number = ended_job(store, None, "report", HOSTILE)
    running = job_under_way(store, None)
    client = visit(Role.READ)
    text = client.get(f"/jobs/{number}").text
    assert "<h2>What would change the answer</h2>" in text
    assert "The critical batch size is about 800 samples" in text
    assert text.count("<figure>") == len(PROBES)
    assert "&lt;script&gt;" in text[text.index("<h2>Asked for and used</h2>") :]
    assert "What would change" not in client.get(f"/jobs/{running}").text


def test_an_analysis_is_drawn_once(visit: Visit, store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(content: AnalysisContent) -> Markup:
        drawn.append(content)
        return analysis_html(content)

    monkeypatch.setattr("tuner.server.page_analysis.analysis_html", draw)
    path = f"/jobs/{ended_job(store, None, 'report')}"
    client = visit(Role.READ)
    texts = [client.get(path).text for _ in range(3)]
    assert len(drawn) == 1
    assert all("<h2>Measured curves and their forecasts</h2>" in text for text in texts)


def test_an_analysis_in_an_unknown_form_is_left_out(visit: Visit, store: Storage) -> None:
    number = ended_job(store, None, "report")
    study_id = store.queue.job(number).study_id
    assert study_id is not None
    newer = RecommendationRecord(study_id=study_id, created_at=3e9, recommendation={"schema_version": "9.0"})
    store.ledger.add_recommendation(newer)
    answer = visit(Role.READ).get(f"/jobs/{number}")
    assert answer.status_code == 200
    assert "What would change" not in answer.text


def test_a_new_token_is_shown_once(visit: Visit, store: Storage) -> None:
    client = visit(Role.ADMIN)
    csrf = csrf_of(client.get("/tokens").text)
    data = {"csrf": csrf, "name": "Ada", "role": "submit", "days": "30", "jobs": "2", "dollars": "9.5"}
    made = client.post("/tokens", data=data)
    text = re.search(r"paceline_\d+_[\w-]+", made.text)
    assert text is not None
    token = store.tokens.find(text[0])
    assert token is not None
    assert (token.name, token.quota.jobs, token.quota.dollars) == ("Ada", 2, 9.5)
    assert text[0] not in client.get("/tokens").text
    assert client.post("/tokens", data={**data, "dollars": "nan"}).status_code == 422
    assert post(client, f"/tokens/{token.token_id}/revoke") == 303
    assert store.tokens.find(text[0]) is None


def test_pages_that_do_not_exist_say_so(visit: Visit) -> None:
    client = visit(Role.READ)
    for path in ("/jobs/99", "/jobs/0", "/jobs/x", "/jobs/99999999999999999999", "/?before=x"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "Go to the jobs" in answer.text


def test_pages_request_nothing_from_elsewhere(visit: Visit, store: Storage) -> None:
    client = visit(Role.ADMIN)
    job = f"/jobs/{ended_job(store, None, 'report')}"
    for page in ("/", "/submit", "/workers", "/tokens", "/audit", job, f"{job}/report"):
        text = client.get(page).text
        for address in re.findall(r'(?:href|src|action)="([^"]+)"', text):
            assert not urlsplit(address).netloc, address
            if "/static/" in address:
                assert client.get(address).status_code == 200
        assert not re.search(r"<(style|script)>|\sstyle=|\son\w+=", text)


def test_a_job_without_recommendation_has_no_launch_file(visit: Visit, store: Storage) -> None:
    number = store.queue.submit(NewJob(name="digits", job_file=JOB))[0].job_id
    answer = visit(Role.READ).get(f"/jobs/{number}/export?target=slurm&folder=/home/me")
    assert answer.status_code == 404
    assert "no recommendation" in answer.text
