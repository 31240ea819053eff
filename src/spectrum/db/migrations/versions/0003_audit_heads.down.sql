-- Without heads nothing is sealed. Up again, each chain goes on after its last sealed record.
DROP INDEX audit_chain;
DROP TABLE audit_heads;
