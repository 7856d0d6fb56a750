"""Transports: how ranks pass vectors to each other without matching calls; one contract, one file each."""

from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, Received, Transport
from tuner.transport.zmq_transport import MessageTransport

__all__ = ["NUM_CHANNELS", "STATUS_WIDTH", "MessageTransport", "Received", "Transport"]
