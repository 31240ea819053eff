"""The process that executes steps. It has two key pairs and no database."""
