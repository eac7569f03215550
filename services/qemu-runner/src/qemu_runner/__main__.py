"""`python -m qemu_runner --config FILE`: run the service until SIGTERM."""

from qcontroller.settings.v1.settings_pb2 import RunnerSettings
from servicekit.process import run_service

from qemu_runner.app import application


def main() -> None:
    """Run the service."""
    run_service("qemu-runner", RunnerSettings(), application)


if __name__ == "__main__":
    main()
