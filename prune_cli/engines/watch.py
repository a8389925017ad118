"""How does a user see several workers? As one bar, with a note of how many there are and what they say."""

from dataclasses import dataclass, field

from ..terminal import Progress


@dataclass
class Watch:
    """What is known of the workers of an engine; `status` has it for --status-file."""

    workers: int = 0
    tries: int = 0  # jobs that were tried again
    done: int = 0
    of: int = 0
    notes: dict[int, str] = field(default_factory=dict)  # the last note of each worker

    def alive(self, workers: int) -> None:
        """So many workers are alive."""
        self.workers = workers

    def tried_again(self) -> None:
        """A job goes to another worker."""
        self.tries += 1

    def finished(self, done: int, of: int) -> None:
        """So many jobs of the stage are done."""
        self.done = done
        self.of = of

    def note(self, number: int, text: str, progress: Progress) -> None:
        """A worker shows a note."""
        self.notes[number] = text
        progress.describe(self.text())

    def text(self) -> str:
        """The note beside the bar."""
        again = f", {self.tries} tried again" if self.tries else ""
        return f"{self.done} of {self.of} parts  {self.workers} workers{again}"
