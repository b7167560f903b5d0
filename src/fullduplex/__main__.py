"""``python -m fullduplex``: the same as the program ``fullduplex``."""

from .cli import main

if __name__ == "__main__":
    main()
