"""Commands of the service that need its database: `paceline serve`, `paceline token`, `paceline worker`."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.domain.errors import JobError, TunerError
from tuner.domain.job_queue import Quota, Role, TokenRecord
from tuner.domain.section import parse_duration
from tuner.service.options import Format, FormatOption
from tuner.service.output import print_rows, say, show
from tuner.service.worker_command import add_worker_commands

if TYPE_CHECKING:
    from tuner.server.context import Store

#: Opens the database at a URL.
OpenStore = Callable[[str], AbstractContextManager["Store"]]

#: Database of the service unless --storage names another one.
DEFAULT_STORAGE = "sqlite:///paceline-service.db"

#: Seconds for which a request waits while the database is locked or cannot be reached.
_ANSWER_SECONDS = 5.0

ServiceStorage = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="PACELINE_STORAGE",
        help="SQLAlchemy URL of the database: SQLite for one host, PostgreSQL for many.",
    ),
]


def add_commands(app: typer.Typer, database: typer.Typer, open_store: OpenStore) -> None:
    """Adds the commands of the service to the command line.

    Args:
        app: The command line.
        database: The commands `paceline db`.
        open_store: Opens the database at a URL.
    """
    open_store = _private(open_store)
    add_worker_commands(app, open_store, DEFAULT_STORAGE)
    tokens = typer.Typer(help="Access tokens of the service.", no_args_is_help=True)
    app.add_typer(tokens, name="token")

    @app.command()
    def serve(
        storage: ServiceStorage = DEFAULT_STORAGE,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[
            int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")
        ] = 8080,
        settings: Annotated[
            Path | None,
            typer.Option(
                envvar="PACELINE_SETTINGS", help="Settings file (TOML) of the server.", show_default=False
            ),
        ] = None,
        certificate: Annotated[
            Path | None, typer.Option(help="TLS certificate (PEM) of the server.", show_default=False)
        ] = None,
        key: Annotated[
            Path | None, typer.Option(help="Private key (PEM) of the certificate.", show_default=False)
        ] = None,
        proxy: Annotated[
            str | None,
            typer.Option(
                help="Address of a proxy whose X-Forwarded-* headers are trusted.", show_default=False
            ),
        ] = None,
    ) -> None:
        """Serve the REST API and the web pages."""
        _serve(open_store, storage, host, port, settings, certificate, key, proxy)

    @database.command()
    def clean(
        unused: Annotated[
            str, typer.Option(help="Remove files that no job uses and that are older than this time.")
        ] = "1d",
        ended: Annotated[
            str | None,
            typer.Option(
                help="Also remove workspaces, reports and logs of jobs that ended before this time, such as "
                "90d.",
                show_default=False,
            ),
        ] = None,
        storage: ServiceStorage = DEFAULT_STORAGE,
    ) -> None:
        """Remove files of the service that are not needed. Jobs, measurements and answers stay."""
        now = time.time()
        unused_before = now - _seconds(unused, "--unused")
        ended_before = None if ended is None else now - _seconds(ended, "--ended")
        with open_store(storage) as store:
            removed = store.queue.clean_files(unused_before=unused_before, ended_before=ended_before)
            store.tokens.audit("local", "files.clean", f"{removed.num_files} files", detail=asdict(removed))
        noun = "file" if removed.num_files == 1 else "files"
        show(f"removed {removed.num_files} {noun} with {removed.num_bytes / 2**20:.1f} MiB")

    @tokens.command()
    def create(
        name: Annotated[str, typer.Argument(help="Name, such as that of a person or a program.")],
        role: Annotated[Role, typer.Option(help="Rights of the token.")] = Role.SUBMIT,
        days: Annotated[
            str, typer.Option("--expires", help="Time until the token expires, such as 90d, or `never`.")
        ] = "90d",
        max_jobs: Annotated[
            int | None,
            typer.Option(min=0, help="Maximum number of jobs that have not ended.", show_default=False),
        ] = None,
        max_node_hours: Annotated[
            float | None, typer.Option(min=0, help="Maximum node hours of all jobs.", show_default=False)
        ] = None,
        max_dollars: Annotated[
            float | None, typer.Option(min=0, help="Maximum dollars of all jobs.", show_default=False)
        ] = None,
        max_megabytes: Annotated[
            int | None,
            typer.Option(
                min=0,
                help="Maximum size of uploads, reports and logs; [limits] stored_bytes by default.",
                show_default=False,
            ),
        ] = None,
        storage: ServiceStorage = DEFAULT_STORAGE,
        output_format: FormatOption = Format.TABLE,
    ) -> None:
        """Create an access token and print it. It cannot be shown again."""
        expires_at = _expiry(days)
        quota = Quota(
            jobs=max_jobs,
            node_hours=max_node_hours,
            dollars=max_dollars,
            stored_bytes=None if max_megabytes is None else max_megabytes * 2**20,
        )
        with open_store(storage) as store:
            token, text = store.tokens.create(name, role, expires_at=expires_at, quota=quota)
            store.tokens.audit("local", "token.create", f"token {token.token_id}", detail={"role": str(role)})
        if output_format is Format.JSON:
            show(json.dumps({**_token_row(token), "token": text}, indent=2))
        elif output_format is Format.CSV:
            print_rows([{**_token_row(token), "token": text}], output_format)
        else:
            if sys.stdout.isatty():
                say(f"token {token.token_id} ({role}) for {name}; it is shown only once:")
            show(text)

    @tokens.command("list")
    def list_tokens(
        storage: ServiceStorage = DEFAULT_STORAGE, output_format: FormatOption = Format.TABLE
    ) -> None:
        """List all tokens, without their secrets."""
        with open_store(storage) as store:
            rows = [_token_row(token) for token in store.tokens.tokens()]
        if not rows:
            say("there are no tokens yet; `paceline token create NAME --role admin` makes the first one")
        print_rows(rows, output_format)

    @tokens.command()
    def revoke(
        token_id: Annotated[int, typer.Argument(metavar="NUMBER", help="Number of the token.")],
        storage: ServiceStorage = DEFAULT_STORAGE,
    ) -> None:
        """Revoke a token. Its jobs continue; cancel them if they should not."""
        with open_store(storage) as store:
            token = store.tokens.revoke(token_id)
            store.tokens.audit("local", "token.revoke", f"token {token_id}")
        show(f"token {token_id} of {token.name} is revoked")


def _serve(
    open_store: OpenStore,
    storage: str,
    host: str,
    port: int,
    settings_path: Path | None,
    certificate: Path | None,
    key: Path | None,
    proxy: str | None,
) -> None:
    try:
        import uvicorn

        from tuner.server.app import create_app
    except ModuleNotFoundError as error:
        raise TunerError(
            f"paceline serve needs {error.name}, which is not installed; pip install 'paceline[serve]'"
        ) from error
    from tuner.server.settings import load_settings

    if (certificate is None) != (key is None):
        raise JobError("--certificate and --key belong together; give both, or none of them")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise JobError(f"{path}: there is no such file; give a PEM file")
    settings = load_settings(settings_path)
    if certificate is None and proxy is None and not _is_loopback(host):
        say(
            f"warning: {host} can be reached from other hosts, and the connection is not encrypted, so that "
            "others can read tokens. Give --certificate and --key, or listen on 127.0.0.1 behind a proxy "
            "with TLS (--proxy)"
        )
    with open_store(storage) as store:
        # Clients get the status 503 then, and try again.
        store.answer_within(_ANSWER_SECONDS)
        if not any(token.revoked_at is None for token in store.tokens.tokens()):
            say("there are no tokens yet; `paceline token create NAME --role admin` makes the first one")
        config = uvicorn.Config(
            create_app(store, settings),
            host=host,
            port=port,
            log_level="warning",
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy,
            timeout_graceful_shutdown=5,
            # A client cannot fill the memory with headers, or keep idle connections for long.
            h11_max_incomplete_event_size=64 * 1024,
            timeout_keep_alive=10,
        )
        server = uvicorn.Server(config)
        sockets = [_listening(host, port)]
        bound = sockets[0].getsockname()[1]
        scheme = "http" if certificate is None else "https"
        name = f"[{host}]" if ":" in host else host
        say(f"serving {store.url} at {scheme}://{name}:{bound}; Ctrl-C stops the server")
        # After the requests under way have ended, uvicorn repeats the signal that stopped it.
        with suppress(KeyboardInterrupt):
            server.run(sockets=sockets)
        say("the server has stopped")


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        raise JobError(
            f"the server cannot listen on {host}, port {port}: {_cause(error)}; choose another "
            "--port, or end the program that uses it"
        ) from error


def _cause(error: OSError) -> str:
    # Python adds the address to the text, and errors of names have numbers of their own.
    return str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)


def _private(open_store: OpenStore) -> OpenStore:
    """Returns a function that opens databases, and makes new files of SQLite for this user alone.

    The database of the service contains job files, workspaces and logs.
    """

    @contextmanager
    def opened(url: str) -> Iterator[Store]:
        with ExitStack() as stack:
            before = os.umask(0o077)
            try:
                store = stack.enter_context(open_store(url))
            finally:
                os.umask(before)
            yield store

    return opened


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _expiry(words: str) -> float | None:
    return None if words == "never" else time.time() + _seconds(words, "--expires", "; or write never")


def _seconds(words: str, option: str, remedy: str = "") -> float:
    try:
        return float(parse_duration(words))
    except ValueError as error:
        raise JobError(f"{option}: {error}{remedy}") from error


def _token_row(token: TokenRecord) -> dict[str, Any]:
    quota = {f"max_{name}": value for name, value in asdict(token.quota).items()}
    return {
        "number": token.token_id,
        "name": token.name,
        "role": str(token.role),
        **quota,
        "created": _when(token.created_at),
        "expires": _when(token.expires_at),
        "revoked": _when(token.revoked_at),
        "last used": _when(token.last_used_at),
    }


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
