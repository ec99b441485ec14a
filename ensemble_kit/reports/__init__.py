"""What a person reads: tables, pages and pictures of values."""
