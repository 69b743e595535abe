"""Combinations of kind and colour that no training room shows, so that evaluation can ask for what was never seen."""

_KINDS_BY_COLOUR: dict[str, tuple[str, ...]] = {
    "black": ("crate", "house", "drum", "table", "sofa"),
    "blue": ("clock", "cushion", "boat"),
    "brown": ("basket", "robot", "ball"),
    "green": ("books", "suitcase", "dice"),
    "grey": ("keyboard", "shoe", "car", "bed"),
    "orange": ("bottle", "plate", "kettle", "box", "bin", "bucket"),
    "pink": ("rocket", "chair", "stool"),
    "purple": ("mug", "bowl", "teapot", "cake"),
    "red": ("pot", "vase", "book", "fan", "backpack", "round table", "cabinet"),
    "white": ("laptop", "phone", "armchair"),
    "wooden": ("radio", "elephant"),
    "yellow": ("toaster", "umbrella", "bear", "duck", "desk"),
}

HELD_OUT_COMBINATIONS: tuple[tuple[str, str], ...] = tuple(
    (kind, colour) for colour, kinds in _KINDS_BY_COLOUR.items() for kind in kinds
)
