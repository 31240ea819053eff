"""How much each token has spent of its rate (DESIGN §7)."""

from spectrum.db.migrations import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_script("0004_rates.up.sql")


def downgrade() -> None:
    run_script("0004_rates.down.sql")
