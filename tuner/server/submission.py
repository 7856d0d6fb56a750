"""Turns a request into a job of the queue: checks the job file, and computes its plan and price."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath

from tuner.domain.errors import JobError, TunerError
from tuner.domain.job_queue import JobState, NewJob
from tuner.job import load_job
from tuner.server.context import Caller, ServerContext
from tuner.server.schemas import SubmitBody
from tuner.service.opening import OpenedJob
from tuner.service.plan import plan_lines, worst_dollars


def new_job(body: SubmitBody, context: ServerContext, caller: Caller, idempotency_key: str | None) -> NewJob:
    """Returns the job to add to the queue for a request.

    Raises:
        JobError: The job file is not valid, or names something that the settings of the server do not allow.
        NotFoundError: A file of the workspace was not uploaded.
    """
    with tempfile.TemporaryDirectory(prefix="paceline-submit-") as folder:
        path = write_workspace(Path(folder), body, context)
        try:
            job = load_job(path)
        except TunerError as error:
            # The folder is one of the server, which the client does not know.
            raise type(error)(str(error).replace(f"{folder}/", "")) from error
        # The digest of the code is not computed here, since that may import packages of the workspace.
        opened = OpenedJob(job=job, path=path, fingerprint="")
        parallel = body.options.parallel
        candidates = job.search_space().candidates()
        lines = plan_lines(opened, storage="", output="", spent_seconds=0.0, parallel=parallel)
        dollars = worst_dollars(opened, candidates, parallel) if opened.cluster.has_prices else 0.0
        limit = {"seconds": job.budget.time, "node_hours": job.budget.node_hours, "dollars": dollars}
    approval = context.settings.approval.model_dump()
    needs_approval = any(
        allowed is not None and ((most := limit[name]) is None or most > allowed)
        for name, allowed in approval.items()
    )
    return NewJob(
        name=job.name,
        job_file=body.job_file,
        options=body.options.model_dump(),
        files=body.files,
        labels=body.labels,
        priority=body.priority,
        state=JobState.AWAITING_APPROVAL if needs_approval else JobState.QUEUED,
        plan={"lines": lines},
        limit=limit,
        token_id=caller.token.token_id,
        idempotency_key=idempotency_key,
        request_digest=hashlib.sha256(body.model_dump_json().encode()).hexdigest(),
    )


def write_workspace(folder: Path, body: SubmitBody, context: ServerContext) -> Path:
    """Writes the job file and the files of the workspace to a folder. Returns the path of the job file.

    Raises:
        JobError: A path leads out of the folder.
        NotFoundError: A file was not uploaded.
    """
    for name, digest in body.files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.parts or "\\" in name or "\0" in name:
            raise JobError(
                f"files: {name!r} is not a path inside the workspace; give a path relative to the job file"
            )
        path = folder.joinpath(*place.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(context.store.queue.file(digest))
    path = folder / f"{body.name or 'job'}.toml"
    path.write_text(body.job_file)
    return path
