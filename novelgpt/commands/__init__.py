"""The eight commands: a script at the top level each, and `novelgpt NAME` where the package is installed."""
