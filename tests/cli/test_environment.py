"""The command line knows the same variables as the settings, without loading them."""

from spectrum import settings
from spectrum.cli import environment


def test_both_lists_of_variables_are_one() -> None:
    assert environment.KNOWN == settings.KNOWN
