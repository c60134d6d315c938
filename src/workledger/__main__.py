"""`python -m workledger` is the command line."""

from workledger.cli.main import main

if __name__ == "__main__":
    main()
