"""`PYTHONPATH=tests python -m pages` writes every page."""

import pages

pages.write_all()
