"""Command line: ``python -m image_store --config FILE``."""

from qcontroller.settings.v1.settings_pb2 import ImageStoreSettings
from servicekit.process import run_service

from image_store.app import application

if __name__ == "__main__":
    run_service("image-store", ImageStoreSettings(), application)
