"""`python -m spectrum.cli` is `spectrum`: what the supervisor starts, whatever is on its path."""

from spectrum.cli import main

if __name__ == "__main__":
    main()
