"""Where the audit chains end, signed (DESIGN §3.20)."""

from spectrum.db.migrations import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_script("0003_audit_heads.up.sql")


def downgrade() -> None:
    run_script("0003_audit_heads.down.sql")
