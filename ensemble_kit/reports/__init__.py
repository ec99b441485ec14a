"""Reports for the user: tables, HTML and plots of values."""
