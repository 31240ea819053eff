"""A real Apache Kafka for tests, fetched once through Maven."""
