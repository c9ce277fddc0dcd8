"""`python -m meshd`: the same as the command `meshd`."""

from meshd.cli.main import main

if __name__ == "__main__":
    main()
