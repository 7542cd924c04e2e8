"""tmp"""


def new() -> None:
    """tmp"""
