// The eight needle tasks of RULER (Hsieh et al. 2024; scripts/data/synthetic/niah.py).
#include "tools/eval/draw.h"
#include "tools/eval/scores.h"
#include "tools/eval/task_table.h"
#include "tools/eval/words.h"

namespace lethe::eval {
namespace {

enum class Haystack { kNoise, kEssay, kNeedles };
enum class Kind { kWords, kNumbers, kUuids };

struct Variant {
  Haystack haystack;
  Kind key, value;
  int keys, values, queries;  // `values` of the key that is asked for
};

std::string draw(Random& random, Kind kind, Used& used) {
  switch (kind) {
    case Kind::kWords: return draw_compound(random, used);
    case Kind::kNumbers: return draw_new(used, [&] { return draw_number(random, 7); });
    case Kind::kUuids: return draw_new(used, [&] { return draw_uuid(random); });
  }
  return {};
}

// "a", "a, and b", "a, b, and c"
std::string listed(std::span<const std::string> items) {
  std::string out = items[0];
  for (size_t i = 1; i < items.size(); ++i) out += (i + 1 == items.size() ? ", and " : ", ") + items[i];
  return out;
}

template <Variant kVariant>
Sample niah(const Recipe& recipe) {
  Random random(recipe.seed);
  Used used;
  const std::string type = kVariant.value == Kind::kUuids ? "uuid" : "number";
  const auto needle = [&](const std::string& key, const std::string& value) {
    return "One of the special magic " + type + "s for " + key + " is: " + value + ".";
  };
  // RULER's 40 depths, evenly from the front to the end; what is asked for first lies at the recipe's.
  const auto any_depth = [&] { return static_cast<double>(below(random, 40)) / 39; };
  std::vector<std::string> asked, answers;
  std::vector<Needle> needles;
  for (int key = 0; key < std::max(kVariant.keys, kVariant.queries); ++key) {
    const std::string name = draw(random, kVariant.key, used);
    const bool is_asked = key < kVariant.queries;
    if (is_asked) asked.push_back(name);
    for (int i = 0; i < (key == 0 ? kVariant.values : 1); ++i) {
      const std::string value = draw(random, kVariant.value, used);
      if (is_asked) answers.push_back(value);
      needles.push_back({needles.empty() ? recipe.depth : any_depth(), needle(name, value)});
    }
  }
  std::string haystack;
  if (kVariant.haystack == Haystack::kNeedles) {
    const size_t place = boundary_at(recipe.depth, recipe.size);
    for (size_t i = 0; i <= recipe.size; ++i) {
      if (i != 0) haystack += "\n";
      if (i == place) {
        haystack += needles[0].text;
      } else {
        const std::string key = draw(random, kVariant.key, used);
        haystack += needle(key, draw(random, kVariant.value, used));
      }
    }
  } else if (kVariant.haystack == Haystack::kNoise) {
    haystack = Filler::repeated().hide(random, recipe.size, needles, "\n");
  } else {
    haystack = recipe.filler->hide(random, recipe.size, needles, " ");
  }
  const std::string query = listed(asked);
  const bool one = answers.size() == 1;
  const std::string of = (one ? type : type + "s") + " for " + query + " mentioned in the provided text";
  return {.context = (one ? "A special magic " + type + " is" : "Some special magic " + type + "s are") +
                     " hidden within the following text. Make sure to memorize it. I will quiz you about the " +
                     (one ? type : type + "s") + " afterwards.\n" + haystack,
          .question = (one ? "\nWhat is the special magic " : "\nWhat are all the special magic ") + of + "?",
          .reply_start = " The special magic " + of + (one ? " is" : " are"),
          .gold = " " + listed(answers),
          .answers = answers,
          .recalls = {}};
}

double score(Answers answers, std::string_view reply) { return string_match_all(reply, answers); }

template <Variant kVariant>
constexpr Task task(const char* name, const char* summary) {
  return {name, summary, kVariant.haystack == Haystack::kEssay ? FillerUse::kRequired : FillerUse::kNone,
          true, 128,     niah<kVariant>,
          score};
}

constexpr Kind kWords = Kind::kWords, kNumbers = Kind::kNumbers, kUuids = Kind::kUuids;

}  // namespace

const Task kNiahSingle1 = task<Variant{Haystack::kNoise, kWords, kNumbers, 1, 1, 1}>(
    "niah-single-1", "RULER: a number in repeated sentences");
const Task kNiahSingle2 =
    task<Variant{Haystack::kEssay, kWords, kNumbers, 1, 1, 1}>("niah-single-2", "RULER: a number in a text");
const Task kNiahSingle3 =
    task<Variant{Haystack::kEssay, kWords, kUuids, 1, 1, 1}>("niah-single-3", "RULER: a UUID in a text");
const Task kNiahMultikey1 = task<Variant{Haystack::kEssay, kWords, kNumbers, 4, 1, 1}>(
    "niah-multikey-1", "RULER: one of four numbers in a text");
const Task kNiahMultikey2 = task<Variant{Haystack::kNeedles, kWords, kNumbers, 1, 1, 1}>(
    "niah-multikey-2", "RULER: one of many numbers, nothing else");
const Task kNiahMultikey3 = task<Variant{Haystack::kNeedles, kUuids, kUuids, 1, 1, 1}>(
    "niah-multikey-3", "RULER: one of many UUIDs, nothing else");
const Task kNiahMultivalue = task<Variant{Haystack::kEssay, kWords, kNumbers, 1, 4, 1}>(
    "niah-multivalue", "RULER: four numbers of one key in a text");
const Task kNiahMultiquery = task<Variant{Haystack::kEssay, kWords, kNumbers, 1, 1, 4}>(
    "niah-multiquery", "RULER: the numbers of four keys in a text");

}  // namespace lethe::eval
