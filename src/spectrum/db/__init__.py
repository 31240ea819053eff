"""The system of record: PostgreSQL, its schema and roles, named SQL, and the engine's store."""
