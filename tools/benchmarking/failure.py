"""What is said where nothing can be measured."""


class MeasurementError(Exception):
    """A measurement that failed, or that cannot begin; its text is one line for the user."""
