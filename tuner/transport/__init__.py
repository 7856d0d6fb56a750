"""Transports: send vectors and status numbers between the ranks of one job.

A transport is one-sided: a rank can send while the receiving rank does something else. With
`torch.distributed.send` or a collective, both ranks must make a call at the same time. `Transport` is the
interface, `MessageTransport` the implementation by ZeroMQ.
"""

from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, Received, Transport
from tuner.transport.zmq_transport import MessageTransport

__all__ = ["NUM_CHANNELS", "STATUS_WIDTH", "MessageTransport", "Received", "Transport"]
