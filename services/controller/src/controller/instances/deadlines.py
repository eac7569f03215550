"""How long an operation on an instance may take."""

from dataclasses import dataclass

from controller.domain.instance import Instance


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: of what concerns the machine, and of the fetch of its image before."""

    operation_s: float
    fetch_s: float

    def of(self, instance: Instance) -> float:
        """Return the deadline of an operation that may have to fetch the instance's image."""
        return self.operation_s + (0.0 if instance.image.resolved else self.fetch_s)
