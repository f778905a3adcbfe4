"""Few-shot heads: labelled samples sharpen zero-shot scores; names are handed on, nothing more."""
