"""Figures anyone can check: cost, quality, the paper's tables, and reports of them."""
