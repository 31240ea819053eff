"""What a worker does its work to: one contract, and a sibling module for each kind of target. Siblings do not know each other."""
