"""The product format: what a vendor publishes, and how it becomes the resources of one instance."""
