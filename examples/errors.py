"""What can be wrong with what the scripts are given."""


class DataError(ValueError):
    """Data, or an option, that cannot be used, said in one line."""
