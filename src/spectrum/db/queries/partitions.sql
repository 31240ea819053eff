-- name: partitions_make
-- Makes the weekly partitions of what grows, from this week on, so many days ahead.
SELECT make_partitions(clock_timestamp(), clock_timestamp() + make_interval(days => $1));
