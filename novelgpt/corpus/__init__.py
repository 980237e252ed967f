"""Raw bytes of a novel -> token ids on disk. Never imports torch."""
