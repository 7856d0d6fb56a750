"""Keys that the ranks of a job derive from the job's secret, and the sockets that they protect."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

import zmq
from zmq.utils import z85

from tuner.domain.errors import TunerError

#: Capacity of the queue of connections that a socket has not accepted yet. On one host all ranks connect at
#: the same moment, and a connection that is refused is not tried again.
_BACKLOG = 4096

#: Events of a ZeroMQ socket that show that it has refused a connection. "No detail" means that the other end
#: closed it during the handshake, as a client without CURVE often does first.
REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_ACCEPT_FAILED
)


class JobKeys:
    """Opens ZeroMQ connections that only the ranks of one job can use, and signs texts of these ranks.

    - TCP connections use CURVE (Curve25519 and XSalsa20-Poly1305), so they are also encrypted. All ranks have
      the same key pair, derived from the secret. Its public key is never sent over the network: only a
      process that knows the secret can complete a handshake, as a client or as a server.
    - Unix sockets are not encrypted. A rank refuses processes of other users (`SO_PEERCRED`).

    Args:
        secret: The secret of the job, which the launcher passed to each rank.
    """

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError("the secret of a job must not be empty")
        self._secret = secret.encode()
        self._secret_key = z85.encode(self._derived("curve"))
        self._public_key = zmq.curve_public(self._secret_key)

    def bind(self, listening: zmq.Socket[bytes], host: str) -> str:
        """Binds a socket to a free port of an address; returns the endpoint that other ranks connect to.

        If no network interface of this host has the address (`host` is a name, or an address that a router
        translates), the socket listens at all addresses.

        Args:
            listening: The socket to bind.
            host: Address at which other ranks reach this rank, or `SAME_HOST`.
        """
        listening.backlog = _BACKLOG
        if host == "ipc":
            listening.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
            # An abstract name, which disappears with its process.
            endpoint = f"ipc://@paceline-{secrets.token_hex(16)}"
            listening.bind(endpoint)
            return endpoint
        listening.curve_server = True
        listening.curve_secretkey = self._secret_key
        bracketed = f"[{host}]" if ":" in host else host
        listening.ipv6 = ":" in host
        try:
            listening.bind(f"tcp://{bracketed}:*")
        except zmq.ZMQError:
            listening.bind("tcp://*:*")
        port = listening.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2].rstrip("\0")
        return f"tcp://{bracketed}:{port}"

    def connect(self, connecting: zmq.Socket[bytes], endpoint: str) -> None:
        """Connects a socket to the endpoint of another rank, which that rank got from `bind`."""
        if endpoint.startswith("ipc:"):
            # If the other rank ends, messages to it are dropped at once.
            connecting.linger = 0
        else:
            connecting.curve_serverkey = connecting.curve_publickey = self._public_key
            connecting.curve_secretkey = self._secret_key
            connecting.ipv6 = "[" in endpoint
        connecting.connect(endpoint)

    def signed(self, rank: int, text: str) -> str:
        """Returns a text with the signature of a rank, which `verified` checks on other ranks."""
        return self._signature(rank, text) + text

    def verified(self, rank: int, signed: str) -> str:
        """Checks the signature of a text from another rank, and returns the text without the signature.

        Raises:
            TunerError: The signature is wrong.
        """
        length = 2 * hashlib.sha256().digest_size
        text = signed[length:]
        if not hmac.compare_digest(signed[:length].encode(), self._signature(rank, text).encode()):
            raise TunerError(
                f"The rendezvous store has an address of rank {rank} that this rank did not sign with the "
                "secret of the job. Another process on the network may have written it: let only trusted "
                "hosts connect to the ports of the nodes."
            )
        return text

    def _signature(self, rank: int, text: str) -> str:
        return hmac.digest(self._derived("signature"), f"{rank}:{text}".encode(), "sha256").hex()

    def _derived(self, purpose: str) -> bytes:
        """Derives a key of 32 bytes from the secret of the job, a different one for each purpose."""
        return hmac.digest(self._secret, f"paceline {purpose}".encode(), "sha256")
