"""The studio: a server on this machine, its stories on disk, and the pages of the browser."""
