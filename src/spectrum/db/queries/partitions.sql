-- name: partitions_make
-- Makes the weekly partitions of what grows, from this week on, so many days ahead.
SELECT make_partitions(clock_timestamp(), clock_timestamp() + make_interval(days => $1));

-- name: partitions_drop
-- Drops the partitions that ended before a moment and that nobody needs any more.
SELECT drop_partitions($1) AS name;
