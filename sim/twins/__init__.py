"""Twins: what stands in for the outside world behind each port. Each takes its faults from the swarm, and keeps a ledger."""
