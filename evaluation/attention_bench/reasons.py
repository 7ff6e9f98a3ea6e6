def first_line(error: Exception) -> str:
    """What an error is and says, as a table has room for."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
