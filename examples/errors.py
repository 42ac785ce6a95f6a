"""What the scripts end with, said in one line."""


class DataError(ValueError):
    """Data, or an option, that cannot be used."""


class RunError(RuntimeError):
    """A training that cannot go on, but from its last checkpoint."""
