"""The one schema behind YAML files, the command line and Python."""
