"""What can be done to an instance: one file per operation, versioned code that yields a plan of steps."""
