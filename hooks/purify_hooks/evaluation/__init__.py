"""Measuring: `purify eval`, `tune`, `bench` and `demo`, their suites, and the test bed they run on."""
