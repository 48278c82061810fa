"""Where weights come from: checkpoint files, the manifest, the bundled models and the Hub."""
