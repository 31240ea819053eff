"""Apache Kafka: how it is reached, the facts that go there, and the topics that it must have."""
