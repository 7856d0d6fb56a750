"""REST API of files: upload the files of a workspace, each named by the SHA-256 of its content."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from tuner.domain.job_queue import NotFoundError
from tuner.server.context import Caller, Context, ServerContext, Submitter, quota_of
from tuner.server.problems import ALWAYS, RefusedError, documented
from tuner.server.schemas import Digest

router = APIRouter(prefix="/api/v1/files", tags=["files"], responses=documented(*ALWAYS))

FileDigest = Annotated[
    Digest,
    Path(
        description="SHA-256 of the content in hexadecimal digits",
        examples=[hashlib.sha256(b"").hexdigest()],
    ),
]


class StoredFile(BaseModel):
    """A stored file."""

    sha256: str
    num_bytes: int


@router.put(
    "/{sha256}",
    responses=documented(408),
    openapi_extra={
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_file(
    sha256: FileDigest, request: Request, context: Context, caller: Submitter
) -> StoredFile:
    """Stores a file, unless it is stored already. The body is the content."""
    with context.uploads.counted(caller.token.token_id, context.settings.limits.uploads):
        return await _stored(sha256, request, context, caller)


async def _stored(sha256: str, request: Request, context: ServerContext, caller: Caller) -> StoredFile:
    content = bytearray()
    seconds = context.settings.limits.upload_seconds
    try:
        async with asyncio.timeout(seconds):
            # The size is limited by `BodyLimit`.
            async for part in request.stream():
                content += part
    except TimeoutError as error:
        words = (
            f"the file did not arrive within {seconds:g} s; try again, or put it where the workers read it"
        )
        raise RefusedError(408, "Too slow", words, {"Connection": "close"}) from error
    found = await run_sync(lambda: hashlib.sha256(content).hexdigest())
    if found != sha256:
        raise RefusedError(
            422,
            "Request not valid",
            f"the content has the SHA-256 {found}, not {sha256}; upload the file again, or correct the URL",
        )
    quota = quota_of(context, caller)
    put = partial(context.store.queue.put_file, token_id=caller.token.token_id, quota=quota)
    await run_sync(put, bytes(content))
    return StoredFile(sha256=sha256, num_bytes=len(content))


@router.head("/{sha256}", response_class=Response, responses=documented(404))
def find_file(sha256: FileDigest, context: Context, caller: Submitter) -> Response:
    """Says whether a file is stored, so that it need not be uploaded again."""
    size = context.store.reads.file_size(sha256)
    if size is None:
        raise NotFoundError(f"there is no file with the SHA-256 {sha256}; upload it with PUT")
    return Response(headers={"X-Paceline-Bytes": str(size)})
