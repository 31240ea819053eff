"""The command line: `spectrum NOUN VERB`."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command in `sys.argv`; ends the process with an exit code of INTERFACES §5."""
    try:
        from spectrum.cli.app import build  # late, so that importing the package costs nothing

        if "_SPECTRUM_COMPLETE" in os.environ:
            from typer._completion_classes import completion_init

            completion_init()
        build()(prog_name="spectrum")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
