"""Requests that are not jobs: when instances are looked at, and streams that come back (DESIGN §3.16)."""

from spectrum.db.migrations import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_script("0002_watching.up.sql")


def downgrade() -> None:
    run_script("0002_watching.down.sql")
