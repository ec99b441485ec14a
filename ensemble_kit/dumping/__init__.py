"""From images and a model to a store: what `ensk dump-logits` does, as `dump_logits`."""

from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.dumping.run import Dumped, dump_logits, member_name

__all__ = ["Dumped", "Recipe", "dump_logits", "member_name"]
