"""Soak run `api`: bad tokens, sizes and names against a real server, beside workers that replay recordings.

Nothing may be let in: no request without a valid token is answered with anything but 401 or 429, no bad
request with 2xx or 5xx. An honest client measures how long its requests take.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.made_recording import MADE_TRAININGS, made_problem
from benchmarks.soak_record import SoakRecord, quantile
from storage import open_storage
from tuner.domain.job_queue import Role

_NUM_WORKERS = 8
_NUM_ATTACKERS = 4
#: Runs shorter than this start one worker: eight take that long to start on two cores.
_SHORT_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
_SETTINGS = """
[limits]
requests_per_minute = 10000000
refused_per_minute = 10000000
"""
_JOB = f"""
[probe]
kind = "recorded"
recording = "made.jsonl.gz"
[goal]
trainings = {MADE_TRAININGS}
"""
_SMALL_JOB = '[probe]\nkind = "recorded"\nrecording = "made.jsonl.gz"\n'


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A request that must be refused.

    Args:
        method: Method of HTTP.
        path: Path and query.
        headers: Headers.
        body: Body, or its parts, which are sent without a stated length.
        allowed: Statuses that refuse the request as they should.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | list[bytes] | None = None
    allowed: frozenset[int]


_NO_TOKEN = frozenset({401, 429})
_REFUSED = frozenset({400, 403, 404, 405, 409, 413, 422})


def run_api(record: SoakRecord) -> None:
    """Attacks a server until the time is up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paceline-soak-api-")))
        url = f"sqlite:///{folder}/service.db"
        good = _tokens(url)
        port = stack.enter_context(_server(folder, url))
        recording = _recording(folder)
        num_workers = _NUM_WORKERS if record.seconds >= _SHORT_SECONDS else 1
        for _ in range(num_workers):
            _submit(port, good["submit"], recording)
        for number in range(num_workers):
            stack.enter_context(_process(folder, "worker", "--storage", url, "--output", f"out{number}"))
        _wait_for_workers(port, good["read"], num_workers)
        record.counts["workers"] = num_workers
        seconds: dict[str, list[float]] = {"attack": [], "honest": []}
        started = time.monotonic()
        threads = [
            threading.Thread(target=_attack, args=(record, port, good, recording, seed, seconds["attack"]))
            for seed in range(_NUM_ATTACKERS)
        ]
        threads.append(threading.Thread(target=_honest, args=(record, port, good["read"], seconds["honest"])))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _check_nothing_was_added(record, url, num_workers)
        record.counts["attacks"] = len(seconds["attack"])
        record.counts["honest requests"] = len(seconds["honest"])
        record.figures |= {
            "attacks_per_second": round(len(seconds["attack"]) / (time.monotonic() - started), 1),
            **{
                f"{name}_{level:g}_seconds": quantile(found, level)
                for name, found in seconds.items()
                for level in (0.5, 0.99)
            },
        }


def _tokens(url: str) -> dict[str, str]:
    """Creates a token of each role, an expired one and a revoked one. Returns their texts by name."""
    with open_storage(url) as store:
        made = {str(role): store.tokens.create(str(role), role)[1] for role in Role}
        made["expired"] = store.tokens.create("expired", Role.ADMIN, expires_at=1.0)[1]
        revoked, made["revoked"] = store.tokens.create("revoked", Role.ADMIN)
        store.tokens.revoke(revoked.token_id)
    return made


@contextmanager
def _process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a command of Paceline in a process, which gets SIGTERM at the end of the block."""
    log = (folder / f"{arguments[0]}.log").open("a")
    command = [sys.executable, "-m", "cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (
        log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _server(folder: Path, url: str) -> Iterator[int]:
    """Starts the server. Yields its port."""
    settings = folder / "serve.toml"
    settings.write_text(_SETTINGS)
    with _process(folder, "serve", "--storage", url, "--port", "0", "--settings", str(settings)) as process:
        while process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", (folder / "serve.log").read_text())
            if found:
                yield int(found[1])
                return
            time.sleep(0.1)
        raise RuntimeError(f"the server ended: {(folder / 'serve.log').read_text()}")


def _recording(folder: Path) -> bytes:
    made_problem(folder)
    return (folder / "made.jsonl.gz").read_bytes()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _sent(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | list[bytes] | None = None,
) -> tuple[int, bytes]:
    """Sends a request. Returns the status and the body of the answer; status 0 if the server hung up."""
    try:
        if isinstance(body, list):
            connection.request(method, path, iter(body), headers, encode_chunked=True)
        else:
            connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        # The server refused the body before all of it was sent; its answer can still be read.
        pass
    try:
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError):
        connection.close()
        return 0, b""


def _submit(port: int, token: str, recording: bytes) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        digest = hashlib.sha256(recording).hexdigest()
        _sent(connection, "PUT", f"/api/v1/files/{digest}", _bearer(token), recording)
        body = json.dumps({"job_file": _JOB, "name": "made", "files": {"made.jsonl.gz": digest}}).encode()
        headers = {**_bearer(token), "Content-Type": "application/json"}
        status, answer = _sent(connection, "POST", "/api/v1/jobs", headers, body)
        if status != 201:
            raise RuntimeError(f"the job was refused: {status} {answer.decode()}")


def _wait_for_workers(port: int, token: str, number: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for _ in range(600):
            _, answer = _sent(connection, "GET", "/api/v1/jobs?state=running", _bearer(token))
            if len(json.loads(answer)["jobs"]) >= number:
                return
            time.sleep(0.2)
        raise RuntimeError("the workers did not start")


def _honest(record: SoakRecord, port: int, token: str, seconds: list[float]) -> None:
    """Lists jobs, reads a job and its probes, as a page or `paceline watch` does."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        paths = ("/api/v1/jobs", "/api/v1/jobs/1", "/api/v1/jobs/1/probes?limit=20", "/api/v1/workers")
        while not record.is_over:
            for path in paths:
                started = time.perf_counter()
                status, answer = _sent(connection, "GET", path, _bearer(token))
                seconds.append(time.perf_counter() - started)
                if status != 200:
                    record.breaks(
                        "an honest request is answered", path=path, status=status, answer=str(answer)
                    )
                time.sleep(_PAUSE_SECONDS)
            record.progress(f"{len(seconds)} honest requests")


def _attack(
    record: SoakRecord, port: int, good: dict[str, str], recording: bytes, seed: int, seconds: list[float]
) -> None:
    rng = random.Random(f"{record.seed} {seed}")
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        kinds: list[Callable[[], Attack]] = [
            lambda: bad_token(rng, good),
            lambda: bad_token(rng, good),
            lambda: bad_name(rng, good, recording),
            lambda: bad_size(rng, good),
        ]
        while not record.is_over:
            attack = rng.choice(kinds)()
            started = time.perf_counter()
            status, answer = _sent(connection, attack.method, attack.path, attack.headers, attack.body)
            seconds.append(time.perf_counter() - started)
            if status not in attack.allowed:
                record.breaks(
                    "a bad request is refused",
                    request=f"{attack.method} {attack.path[:200]} {attack.headers}",
                    status=status,
                    answer=answer.decode(errors="replace")[:300],
                )


def bad_token(rng: random.Random, good: dict[str, str]) -> Attack:
    """A request without a valid token."""
    text = good[rng.choice(("read", "submit", "admin"))]
    prefix, number, secret = text.split("_", 2)
    noise = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789_-=.", k=rng.choice((0, 1, 43, 500))))
    token = rng.choice(
        (
            noise,
            text[:-1],
            text + "x",
            text.swapcase(),
            f"{prefix}_{number}_{noise}",
            f"{prefix}_{int(number) + 1}_{secret}",
            f"{prefix}_0{number}x_{secret}",
            f"{prefix}_{'9' * 30}_{secret}",
            f"{prefix}_{number}_{secret}\u00e9",
            f"{prefix}_{number}_' OR 1=1 --",
            good["expired"],
            good["revoked"],
        )
    )
    basic = base64.b64encode(f"admin:{text}".encode()).decode()
    headers = rng.choice(
        (
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"Basic {basic}"},
            {"Authorization": text},
            {"Authorization": f"Token {text}"},
            {"Cookie": f"token={text}; session={text}; paceline={text}"},
            {"X-Api-Key": text},
            {},
        )
    )
    path = rng.choice(
        (
            "/api/v1/jobs",
            f"/api/v1/jobs?token={text}&access_token={text}",
            "/api/v1/jobs/1",
            "/api/v1/tokens",
            "/api/v1/audit",
            "/api/v1/me",
            "/api/v1/jobs/1/events",
            "/api/v1/jobs/1/log",
            "/metrics",
        )
    )
    return Attack(method="GET", path=path, headers=headers, allowed=_NO_TOKEN)


_NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".",
    "",
    "a\0b",
    "C:\\x",
    "..\\x",
    "a\nb",
    "x" * 5000,
    "<script>alert(1)</script>",
    "${HOME}",
    "\u202e",
)


def bad_name(rng: random.Random, good: dict[str, str], recording: bytes) -> Attack:
    """A request with a name that leads elsewhere, or that is none."""
    name = rng.choice(_NAMES)
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    headers = {**_bearer(good["submit"]), "Content-Type": "application/json"}
    digest = hashlib.sha256(recording).hexdigest()
    fine = {"made.jsonl.gz": digest}
    bodies = (
        {"job_file": _SMALL_JOB, "name": f"{name}/..", "files": fine},
        {"job_file": _SMALL_JOB, "files": {**fine, f"../{name}": digest}},
        {"job_file": _SMALL_JOB.replace("made.jsonl", f"../{quoted}"), "files": fine},
        {"job_file": _SMALL_JOB, "files": {**fine, "made.jsonl.gz/x": digest}},
        {"job_file": _SMALL_JOB, "files": {"made.jsonl.gz": "0" * 64}},
        {"job_file": _SMALL_JOB, "files": fine, "labels": [f"{name}!"]},
        {"job_file": name, "files": fine},
        {"job_file": f'[workload]\ncommand = "python {quoted}; id"', "files": fine},
        {"job_file": '[workload]\npath = "os:system"\n[goal]\ntarget = 0.9', "files": {}},
    )
    if rng.random() < 0.6:
        body = json.dumps(rng.choice(bodies)).encode()
        path = rng.choice(("/api/v1/jobs", "/api/v1/jobs/plan"))
        return Attack(method="POST", path=path, headers=headers, body=body, allowed=_REFUSED)
    path = rng.choice(
        (
            f"/api/v1/jobs/{quoted}%2f",
            f"/api/v1/jobs/1/report?format={quoted}%2f",
            f"/api/v1/jobs/1/export?target={quoted}%2f",
            f"/api/v1/jobs/1/export?target=torchrun&folder={quoted}%3b",
            f"/api/v1/files/{quoted}%2f",
            "/api/v1/jobs/99999999999999999999",
            "/api/v1/jobs/-1/probes",
            f"/static/{quoted}%2f..%2f..%2fapp.py",
            "/static/..%2f..%2fapp.py",
            "/api/v1/jobs/1/../../../../etc/passwd",
        )
    )
    return Attack(method="GET", path=path, headers=headers, allowed=_REFUSED)


def bad_size(rng: random.Random, good: dict[str, str]) -> Attack:
    """A request that is larger than allowed, or whose size is a lie."""
    headers = {**_bearer(good["submit"]), "Content-Type": "application/json"}
    kind = rng.randrange(5)
    if kind == 0:
        # The head states a size, and no body follows: the server must answer at once.
        return Attack(
            method="POST",
            path="/api/v1/jobs",
            headers={**headers, "Content-Length": str(rng.choice((2**20 + 1, 2**40, 10**17)))},
            allowed=frozenset({413}),
        )
    if kind == 1:
        parts = [b" " * 2**16] * 20
        return Attack(
            method="POST", path="/api/v1/jobs", headers=headers, body=parts, allowed=frozenset({413, 0})
        )
    if kind == 2:
        body = json.dumps({"job_file": "#" * 300_000}).encode()
    elif kind == 3:
        body = b'{"job_file": ' + b"[" * rng.choice((1000, 200_000))
    else:
        files = {f"f{i}": "0" * 64 for i in range(1001)}
        body = json.dumps({"job_file": "", "files": files}).encode()
    return Attack(method="POST", path="/api/v1/jobs", headers=headers, body=body, allowed=_REFUSED)


def _check_nothing_was_added(record: SoakRecord, url: str, num_jobs: int) -> None:
    with open_storage(url) as store:
        jobs = store.queue.jobs(limit=200)
        if len(jobs) != num_jobs:
            record.breaks("no attack adds a job", jobs=[job.job_id for job in jobs])
        if len(store.tokens.tokens()) != len(Role) + 2:
            record.breaks("no attack adds a token")
