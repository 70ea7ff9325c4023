"""`python -m shardman` is the program `shardman`."""

from shardman.cli.main import main

if __name__ == "__main__":
    main()
