#include "tools/eval/words.h"

namespace lethe::eval {
namespace {

constexpr std::string_view kAdjectives[] = {
    "able",   "ample",   "ancient", "angry",  "apt",    "bitter",   "bleak",    "blue",    "bold",   "brave",
    "brief",  "bright",  "broad",   "calm",   "civil",  "clean",    "clear",    "clever",  "coarse", "cold",
    "common", "crisp",   "curious", "damp",   "dark",   "deep",     "dense",    "dry",     "dull",   "eager",
    "early",  "easy",    "empty",   "exact",  "faint",  "fair",     "famous",   "fierce",  "firm",   "flat",
    "fond",   "formal",  "frail",   "fresh",  "gentle", "glad",     "golden",   "grand",   "grave",  "great",
    "green",  "grim",    "harsh",   "hasty",  "heavy",  "hollow",   "honest",   "humble",  "idle",   "jolly",
    "keen",   "kind",    "large",   "late",   "lavish", "lazy",     "level",    "light",   "lively", "lonely",
    "loose",  "loud",    "loyal",   "lucky",  "meek",   "mellow",   "merry",    "mild",    "modest", "narrow",
    "neat",   "nimble",  "noble",   "odd",    "pale",   "patient",  "plain",    "polite",  "proud",  "pure",
    "quaint", "quick",   "quiet",   "rapid",  "rare",   "restless", "rich",     "rough",   "round",  "royal",
    "rude",   "rustic",  "sad",     "sharp",  "shy",    "silent",   "simple",   "sincere", "slim",   "slow",
    "smooth", "sober",   "soft",    "solemn", "solid",  "sour",     "spare",    "steady",  "steep",  "stern",
    "stout",  "strange", "strict",  "sturdy", "subtle", "sudden",   "sweet",    "swift",   "tall",   "tame",
    "tender", "thick",   "thin",    "tidy",   "tiny",   "tough",    "tranquil", "upright", "urban",  "vague",
    "vast",   "vivid",   "warm",    "wary",   "weary",  "wide",     "wild",     "wise",    "witty",  "worthy",
    "young",  "zealous"};

constexpr std::string_view kNouns[] = {
    "acorn",    "actor",    "album",    "anchor",   "anthem",  "apple",    "apron",   "arch",    "arrow",    "atlas",
    "attic",    "autumn",   "badge",    "bakery",   "ballad",  "bamboo",   "banner",  "barn",    "barrel",   "basin",
    "basket",   "beach",    "beacon",   "bell",     "bench",   "bicycle",  "blanket", "blossom", "boat",     "bonfire",
    "bottle",   "boulder",  "bowl",     "bracelet", "branch",  "brick",    "bridge",  "brook",   "broom",    "bucket",
    "buffalo",  "button",   "cabin",    "cactus",   "camel",   "canal",    "candle",  "canoe",   "canyon",   "carpet",
    "carriage", "castle",   "cavern",   "cellar",   "chapel",  "cherry",   "chimney", "circus",  "clay",     "cliff",
    "clock",    "cloud",    "coal",     "coast",    "coffee",  "comet",    "compass", "copper",  "coral",    "cottage",
    "cotton",   "cradle",   "crater",   "creek",    "crown",   "crystal",  "curtain", "dancer",  "desert",   "diamond",
    "dolphin",  "donkey",   "door",     "dragon",   "drawer",  "drum",     "eagle",   "easel",   "elbow",    "ember",
    "engine",   "envelope", "falcon",   "farmer",   "feather", "fence",    "ferry",   "fiddle",  "field",    "flute",
    "forest",   "fortress", "fossil",   "fountain", "fox",     "galaxy",   "garden",  "garlic",  "gate",     "geyser",
    "ginger",   "glacier",  "glove",    "goat",     "grape",   "gravel",   "guitar",  "hammer",  "harbour",  "harp",
    "harvest",  "hawk",     "hazel",    "helmet",   "heron",   "honey",    "horizon", "horse",   "island",   "ivory",
    "jacket",   "jewel",    "journal",  "jungle",   "kettle",  "kite",     "ladder",  "lagoon",  "lake",     "lantern",
    "laurel",   "lemon",    "lens",     "library",  "lily",    "lion",     "lizard",  "loom",    "lute",     "magnet",
    "mango",    "maple",    "marble",   "market",   "meadow",  "medal",    "melon",   "meteor",  "mill",     "mirror",
    "monkey",   "moon",     "mosaic",   "mountain", "museum",  "napkin",   "needle",  "nest",    "notebook", "oak",
    "oasis",    "ocean",    "olive",    "onion",    "orchard", "organ",    "otter",   "owl",     "oyster",   "paddle",
    "palace",   "paper",    "parcel",   "parrot",   "pebble",  "pelican",  "pencil",  "pepper",  "piano",    "pigeon",
    "pillow",   "pilot",    "pine",     "planet",   "plough",  "plum",     "pocket",  "pond",    "poplar",   "potato",
    "prairie",  "prism",    "pumpkin",  "puzzle",   "quarry",  "quilt",    "rabbit",  "raft",    "rainbow",  "raven",
    "reef",     "ribbon",   "river",    "road",     "robin",   "rocket",   "rope",    "rose",    "saddle",   "sail",
    "salmon",   "scarf",    "school",   "shadow",   "shell",   "shepherd", "silver",  "sketch",  "sparrow",  "spider",
    "spoon",    "spring",   "squirrel", "stable",   "statue",  "stone",    "storm",   "stove",   "street",   "summit",
    "sunset",   "swan",     "table",    "tailor",   "temple",  "thistle",  "thunder", "ticket",  "tiger",    "timber",
    "torch",    "tower",    "trail",    "train",    "tulip",   "tunnel",   "turtle",  "valley",  "velvet",   "village",
    "violin",   "volcano",  "wagon",    "walnut",   "water",   "whale",    "wheat",   "wheel",   "willow",   "window",
    "winter",   "wolf",     "wool",     "yard"};

}  // namespace

std::span<const std::string_view> adjectives() { return kAdjectives; }
std::span<const std::string_view> nouns() { return kNouns; }

std::string draw_compound(Random& random, Used& used) {
  const auto pair = [&] {
    std::string out(kAdjectives[below(random, std::size(kAdjectives))]);
    out += "-";
    out += kNouns[below(random, std::size(kNouns))];
    return out;
  };
  const bool is_short = used.size() < 10000;
  return draw_new(used, [&] {
    std::string out = pair();
    if (!is_short) out += "-" + pair();
    return out;
  });
}

}  // namespace lethe::eval
