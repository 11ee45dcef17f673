"""From YAML text to a Policy value, or to a list of problems that name file, line and column."""
