"""`python -m kao`."""

from kao.cli import main

if __name__ == "__main__":
    main()
