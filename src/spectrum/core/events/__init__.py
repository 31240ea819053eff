"""Events as the world sees them: which there are, what each says, and how it is read whatever version it was written in."""
