"""How a worker learns of work, and how facts travel."""
