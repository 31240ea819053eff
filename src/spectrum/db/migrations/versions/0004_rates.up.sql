-- The moment by which a token has earned again what it has asked for: all there is to know for its rate, over all copies.
ALTER TABLE tokens ADD COLUMN spent_until timestamptz;
GRANT SELECT (spent_until), UPDATE (spent_until) ON tokens TO spectrum_system;
