"""Rivals of A2-LLM under one protocol: same data, same motion codes, same metrics."""
