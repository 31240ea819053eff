"""FastAPI: handlers translate, nothing else."""
