"""What the matrix has covered, in figures."""

from collections import Counter
from dataclasses import dataclass, field

from killmatrix.plan import Fault


@dataclass(frozen=True, slots=True)
class Cell:
    """One operation that a fault has hit: which, at which step (or none yet), walking on or back."""

    kind: str
    step: str
    undoing: bool
    fault: Fault

    def __str__(self) -> str:
        walk = "undoing " if self.undoing else ""
        return f"{walk}{self.kind} at {self.step or 'its beginning'}"


@dataclass
class Report:
    """Counts of a run."""

    cells: Counter[Cell] = field(default_factory=Counter)
    strikes: Counter[Fault] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """How many cells."""
        return self.cells.total()

    def add(self, other: "Report") -> None:
        """Take another run's figures over."""
        self.cells += other.cells
        self.strikes += other.strikes
        self.outcomes += other.outcomes
        self.refusals += other.refusals
        self.rounds += other.rounds
        self.seconds += other.seconds

    def text(self) -> str:
        """Return the figures as Markdown."""
        rate = self.total / self.seconds if self.seconds else 0.0
        operations = self.outcomes.total()
        played = f"{operations} operations in {self.rounds} rounds, {self.strikes.total()} strikes"
        lines = [
            f"{self.total} cells of {len(self.cells)} different kinds in {self.seconds:.0f} s.",
            f"{rate:.0f} cells a second: {played}.",
            "",
            "| Fault | Strikes | Cells |",
            "|---|---|---|",
        ]
        by_fault: Counter[Fault] = Counter()
        by_place: Counter[str] = Counter()
        for cell, count in self.cells.items():
            by_fault[cell.fault] += count
            by_place[f"{'undoing ' if cell.undoing else ''}{cell.kind}"] += count
        lines += [f"| {fault} | {self.strikes[fault]} | {by_fault[fault]} |" for fault in Fault]
        lines += ["", "| Operation | Cells | Steps hit |", "|---|---|---|"]
        for place, count in sorted(by_place.items()):
            steps = {
                cell.step or "(before the first)"
                for cell in self.cells
                if f"{'undoing ' if cell.undoing else ''}{cell.kind}" == place
            }
            lines.append(f"| {place} | {count} | {', '.join(sorted(steps))} |")
        outcomes = ", ".join(f"{count} {state}" for state, count in self.outcomes.most_common())
        refusals = ", ".join(f"{count} {reason}" for reason, count in self.refusals.most_common())
        lines += ["", f"Operations ended: {outcomes}. Requests refused: {refusals or 'none'}."]
        return "\n".join(lines)
