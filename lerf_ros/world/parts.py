"""The names of parts. A part mask holds 1 + the index in `PARTS`, 0 is the unnamed body, in every room alike."""

PARTS: tuple[str, ...] = (
    "antenna", "arms", "back", "ball", "band", "base", "beak", "bells", "blades", "blanket", "body", "boiler",
    "border", "brim", "bulb", "cab", "cage", "canopy", "cap", "cherry", "chimney", "cone", "cover",
    "dial", "door", "doors", "dots", "drawers", "ears", "eyes", "face", "feet", "fins", "flame", "flash",
    "flower", "frame", "glass", "handle", "hands", "head", "headboard", "hull", "keyboard", "keys", "knobs",
    "laces", "leaf", "leaves", "legs", "lens", "lever", "lid", "lights", "mast", "mattress", "neck", "nose",
    "pages", "panels", "paper", "pillow", "pocket", "pot", "receiver", "ribbon", "rim", "roof", "sail", "screen",
    "seat", "shade", "shelves", "sides", "sill", "sole", "spout", "stand", "stem", "sticks", "straps", "strings",
    "tail", "tip", "title", "toast", "top", "trunk", "tusks", "water", "wheels", "window", "windows", "wings",
    "zip",
)  # fmt: skip
# What belongs to another part although it juts out of it (what lies inside it is found by geometry: `Room.things`).
PARTS_OF_PARTS: dict[str, tuple[str, ...]] = {"head": ("beak", "ears", "eyes", "nose", "trunk", "tusks")}
