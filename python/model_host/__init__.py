"""Serves a model of a SageMaker inference script over a Unix socket. Needs nothing but the standard library."""
