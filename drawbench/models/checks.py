"""What every model asks of its settings."""


def check_counts(**counts: int) -> None:
    """Nothing, if all counts are 1 or more.

    Raises:
        ValueError: one is not; the message tells them all by name.
    """
    if min(counts.values()) < 1:
        raise ValueError(
            f"every count must be at least 1, got {', '.join(f'{name} {count}' for name, count in counts.items())}"
        )
