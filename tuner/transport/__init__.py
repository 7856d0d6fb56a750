"""Transports: how ranks pass vectors to each other without matching calls; one contract, one file each."""

from tuner.transport.shared_memory import SharedMemoryTransport, shared_memory_is_safe
from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, Received, Transport
from tuner.transport.zmq_transport import MessageTransport, open_transport

__all__ = [
    "NUM_CHANNELS",
    "STATUS_WIDTH",
    "MessageTransport",
    "Received",
    "SharedMemoryTransport",
    "Transport",
    "open_transport",
    "shared_memory_is_safe",
]
