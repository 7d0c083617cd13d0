"""The one exception of this package that callers may want to catch."""


class DataError(ValueError):
    """A data file is missing, incomplete, altered or could not be downloaded; the message names path and remedy."""
