"""Run the controller: `python -m controller --config FILE`."""

from qcontroller.settings.v1.settings_pb2 import ControllerSettings
from servicekit.process import run_service

from controller.app import application

if __name__ == "__main__":
    run_service("controller", ControllerSettings(), application)
