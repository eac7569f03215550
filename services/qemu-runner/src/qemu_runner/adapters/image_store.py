"""Blobs from the image store, by gRPC.

Every message has a deadline: a store that falls silent in the middle counts as away.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from qcontroller.image.v1 import internal_pb2, internal_pb2_grpc
from servicekit.rpc_errors import decode

from qemu_runner.domain.machine import DiskFormat
from qemu_runner.errors import ImageNotFoundError, ImageStoreUnavailableError
from qemu_runner.ports import BlobInfo

_SILENCE_S: Final = 15.0


class GrpcBlobSource:
    """The image store behind a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = internal_pb2_grpc.BlobServiceStub(channel)

    async def read(self, digest: str) -> AsyncIterator[BlobInfo | bytes]:
        """Yield what the blob is, then its bytes in order."""
        call = self._stub.ReadBlob(internal_pb2.ReadBlobRequest(stored_digest=digest))
        first = True
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                if first:
                    first = False
                    yield BlobInfo(message.size_bytes, DiskFormat(message.format or DiskFormat.RAW))
                if message.chunk:
                    yield message.chunk
        except TimeoutError as exc:
            raise ImageStoreUnavailableError(f"it was silent for {_SILENCE_S:g} s") from exc
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.NOT_FOUND:
                raise ImageNotFoundError(digest) from exc
            raise ImageStoreUnavailableError(decode(exc).message) from exc
        finally:
            call.cancel()
