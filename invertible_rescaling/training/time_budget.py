"""How long a run's parts take in this process, and from that whether another step still fits."""

_SLACK = 2.0  # seconds: what no figure here covers, such as leaving


class TimeBudget:
    """Durations in seconds, of this process alone: another machine, or another day, has others.

    The first step compiles and fills caches, so that it says little of the later ones: once there are others,
    they alone count, and until then it is not taken to need more than half of what is left.
    """

    def __init__(self) -> None:
        self.save = 0.0
        self.validation: float | None = None
        self._first: float | None = None
        self._later: float | None = None

    def stepped(self, seconds: float) -> None:
        """Note a training step."""
        if self._first is None:
            self._first = seconds
        else:
            self._later = max(self._later or 0.0, seconds)

    def saved(self, seconds: float) -> None:
        """Note a save."""
        self.save = max(self.save, seconds)

    def validated(self, seconds: float) -> None:
        """Note a validation."""
        self.validation = max(self.validation or 0.0, seconds)

    def fits(self, left: float, *, validation: bool) -> bool:
        """Return whether a step, a save and a validation, if one follows, end within ``left`` seconds.

        Example:
            >>> pace = TimeBudget()
            >>> pace.stepped(300.0)  # compiling
            >>> pace.fits(200.0, validation=False)
            True
            >>> pace.stepped(150.0)
            >>> pace.fits(200.0, validation=False)
            False
        """
        if self._later is not None:
            step = 1.5 * self._later
        else:
            step = min(1.5 * (self._first or 0.0), max(0.0, left / 2))
        after = 1.2 * (self.validation or 0.0) if validation else 0.0
        return step + self.save + after + _SLACK <= left

    def is_cheap_to_validate(self, limit: float | None) -> bool:
        """Return whether a validation takes little of a time limit, as far as is known."""
        return limit is not None and self.validation is not None and self.validation < limit / 5

    def outruns(self, limit: float | None) -> bool:
        """Return whether a step and a validation take more than all of a time limit."""
        return limit is not None and not self.fits(limit, validation=True)


def in_words(seconds: float) -> str:
    """A duration as one says it.

    Example:
        >>> in_words(50), in_words(2000), in_words(20000), in_words(2e6)
        ('50 s', '33 min', '5.6 h', '23 days')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} days"
