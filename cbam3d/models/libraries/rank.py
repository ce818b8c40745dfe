"""The rank that a network has, and the one that is asked for."""


def check_rank(name: str, has: int, asked: int | None) -> None:
    """Raise ValueError where a network of one rank is asked for as one of the other."""
    if asked not in (None, has):
        raise ValueError(f"{name} is a network of {'images' if has == 2 else 'clips'} (ndim={has}), got ndim={asked}")
