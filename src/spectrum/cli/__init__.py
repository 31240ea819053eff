"""The command line: `spectrum NOUN VERB`."""


def main() -> None:
    raise SystemExit("spectrum: nothing to run yet")
