"""`ImageImportService`: images from URLs, as operations."""

from typing import Any

from qcontroller.controller.v1 import image_import_pb2 as pb
from qcontroller.controller.v1 import image_import_pb2_grpc

from controller.domain.image_source import FetchWish
from controller.instances.image_imports import ImageImporting
from controller.servicers.operation_messages import operation_message
from controller.servicers.requests import options_of


class ImageImportServicer(image_import_pb2_grpc.ImageImportServiceServicer):
    """Reads requests, hands them on, writes answers."""

    def __init__(self, importing: ImageImporting) -> None:
        self._importing = importing

    async def ImportImage(self, request: pb.ImportImageRequest, context: Any) -> pb.ImportImageResponse:
        wish = FetchWish(request.name, request.url, request.digest, request.arch, dict(request.labels))
        mutated = await self._importing.take(wish, options_of(request, request.options))
        operation = None if mutated.operation is None else operation_message(mutated.operation)
        return pb.ImportImageResponse(operation=operation, replayed=mutated.replayed)
