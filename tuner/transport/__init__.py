"""Transports: send vectors and status numbers between the ranks of one job.

A transport is one-sided: the receiving rank does not have to call anything at the same time, as it would for
`torch.distributed.send` or a collective. `Transport` is the interface, `MessageTransport` the implementation
by ZeroMQ.
"""

from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, Received, Transport
from tuner.transport.zmq_transport import MessageTransport

__all__ = ["NUM_CHANNELS", "STATUS_WIDTH", "MessageTransport", "Received", "Transport"]
