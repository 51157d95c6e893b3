"""The bundled suites, one a file."""
