"""The ground: everything that DESIGN §2 and §3 need from the database."""

from spectrum.db.migrations import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_script("0001_ground.up.sql")


def downgrade() -> None:
    run_script("0001_ground.down.sql")
