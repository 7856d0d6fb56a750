"""Reads the forms that browsers send, with uploaded files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import Message
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from tuner.server.problems import RefusedError

#: Maximum number of fields and files of a form.
_MAX_PARTS = 2500
_QUOTED = re.compile(r';\s*(name|filename)="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form that a browser sent.

    Args:
        fields: Pairs of the name of a field and its text; a name may occur several times.
        files: Triples of the name of a field, the name of an uploaded file, and its content.
    """

    fields: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str, bytes], ...] = field(default=(), repr=False)

    def text(self, name: str, default: str = "") -> str:
        """Returns the text of a field, with the line ends of Unix."""
        found = next((text for key, text in self.fields if key == name), default)
        return found.replace("\r\n", "\n")

    def texts(self, name: str) -> list[str]:
        """Returns the texts of all fields with a name."""
        return [text for key, text in self.fields if key == name]


async def read_form(request: Request, most_bytes: int) -> Form:
    """Reads the form of a request, and does not read more than a limit.

    Raises:
        RefusedError: The form is too large, or is no form.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise RefusedError(
                413,
                "Too large",
                f"the form has more than {most_bytes:,} bytes; send less, or raise [limits] in the settings "
                "file of the server",
                {"Connection": "close"},
            )
    header = Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    kind = header.get_content_type()
    try:
        if kind == "application/x-www-form-urlencoded":
            found = parse_qsl(
                body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARTS
            )
            return Form(fields=tuple(found))
        if kind == "multipart/form-data":
            return _multipart(bytes(body), str(header.get_param("boundary", "")))
    except ValueError as error:
        raise RefusedError(400, "Form not valid", "the form cannot be read; reload the page") from error
    raise RefusedError(415, "No form", f"a page takes forms, and this request has the type {kind}")


def _multipart(body: bytes, boundary: str) -> Form:
    """Reads a form of RFC 7578. Raises `ValueError` if it is not valid."""
    if not boundary:
        raise ValueError("the form names no boundary")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(parts) > _MAX_PARTS or not parts[-1].startswith(b"--"):
        raise ValueError("the form has too many parts, or no end")
    fields, files = [], []
    for part in parts[1:-1]:
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            raise ValueError("a part of the form has no content")
        name, filename = _names(head.decode())
        if filename is None:
            fields.append((name, content.decode()))
        elif filename or content:
            files.append((name, filename, content))
    return Form(fields=tuple(fields), files=tuple(files))


def _names(head: str) -> tuple[str, str | None]:
    """Returns the name of the field of a part, and the name of the file if it is one."""
    for line in head.split("\r\n"):
        kind, _, disposition = line.partition(":")
        if kind.lower() == "content-disposition":
            # Browsers write quotation marks in names as %22.
            quoted = dict(_QUOTED.findall(disposition))
            if "name" in quoted:
                return quoted["name"], quoted.get("filename")
    raise ValueError("a part of the form has no name")


def _posted(request: Request) -> Form:
    form: Form = request.state.form
    return form


#: Dependency: the form of a request. `PageRoute` has read it, and has checked where it comes from.
Posted = Annotated[Form, Depends(_posted)]
