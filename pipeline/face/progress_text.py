"""The progress of a run as a line of text. It does not know where the line is shown."""

from pipeline.planning.account import Progress


class ProgressText:
    """Describes progress. The rate counts from the first finished block, so that start-up does not lower it."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def rate(self, progress: Progress) -> float | None:
        """Return images/s; None until there is a second block."""
        first_s, first_rows = self._first = self._first or (progress.elapsed_s, progress.predicted)
        seconds, rows = progress.elapsed_s - first_s, progress.predicted - first_rows
        return rows / seconds if seconds > 0 and rows > 0 else None

    def describe(self, progress: Progress) -> str:
        """Return images done and in all, images/s, the time left as hours:minutes:seconds, and errors."""
        text = f"{progress.predicted:,} / {progress.pending:,} images"
        if rate := self.rate(progress):
            left_s = (progress.pending - progress.predicted) / rate
            text += f"  {rate:,.1f} images/s  ETA {_duration(left_s)}"
        failed = progress.account.total.failed
        return f"{text}  {failed:,} error{'' if failed == 1 else 's'}"


def _duration(seconds: float) -> str:
    """Return a duration as 30:00:00, however many hours it is."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"
