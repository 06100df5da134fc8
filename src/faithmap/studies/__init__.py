"""The same question under many settings."""
