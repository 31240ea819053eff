"""The client library: HTTP, models and the core, nothing of the server."""
