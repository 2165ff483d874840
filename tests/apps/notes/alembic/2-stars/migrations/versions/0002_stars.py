"""By Alembic's batch mode, as SQLite wants it: into a table of the new shape, which takes the old one's name."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.batch_alter_table("notes", recreate="always") as notes:
        notes.add_column(sa.Column("stars", sa.Integer, nullable=False, server_default="0"))


def downgrade():
    with op.batch_alter_table("notes") as notes:
        notes.drop_column("stars")
