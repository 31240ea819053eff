-- Every token starts with a full allowance once the column is there again.
ALTER TABLE tokens DROP COLUMN spent_until;
