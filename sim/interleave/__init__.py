"""Ring 2: pairs of transactions on a real PostgreSQL, interleaved statement by statement as a seed says."""
