"""Entry point: `python -m gateway --config FILE`."""

from qcontroller.settings.v1.settings_pb2 import GatewaySettings
from servicekit.process import run_service

from gateway.app import application

if __name__ == "__main__":
    run_service("gateway", GatewaySettings(), application)
