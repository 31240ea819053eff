"""What decides and persists: the engine, the sweeper, the sequencer, and what the API asks for."""
