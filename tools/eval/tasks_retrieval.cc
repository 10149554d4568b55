// One fact among many: passkey, number string and KV retrieval (InfiniteBench, Zhang et al. 2024), LongEval's lines (Li
// et al. 2023), HashHop (Magic 2024) and multi-query associative recall (Zoology, Arora et al. 2023).
#include "tools/eval/draw.h"
#include "tools/eval/scores.h"
#include "tools/eval/task_table.h"
#include "tools/eval/words.h"

namespace lethe::eval {
namespace {

const Filler& filler_of(const Recipe& recipe) { return recipe.filler != nullptr ? *recipe.filler : Filler::repeated(); }

double score_first_integer(Answers answers, std::string_view reply) {
  return first_integer(reply) == answers[0] ? 1 : 0;
}

double score_retrieval_word(Answers answers, std::string_view reply) {
  for (const std::string& word : retrieval_words(reply)) {
    if (word == answers[0]) return 1;
  }
  return 0;
}

// What stands before the closing quote.
double score_quoted(Answers answers, std::string_view reply) {
  return reply.substr(0, reply.find('\'')) == answers[0] ? 1 : 0;
}

Sample hidden_number(const Recipe& recipe, Random& random, const std::string& number, const std::string& what,
                     const std::string& needle) {
  const Needle needles[] = {{recipe.depth, needle}};
  return {.context =
              "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I "
              "will quiz you about the important information there.\n\n" +
              filler_of(recipe).hide(random, recipe.size, needles, " "),
          .question = "\n\nWhat is the " + what + "? Answer with the number.",
          .reply_start = " The " + what + " is",
          .gold = " " + number,
          .answers = {number},
          .recalls = {}};
}

Sample passkey(const Recipe& recipe) {
  Random random(recipe.seed);
  const std::string key = draw_number(random, 5);
  return hidden_number(recipe, random, key, "pass key",
                       "The pass key is " + key + ". Remember it. " + key + " is the pass key.");
}

// Five random digits, and five times one of the digits so far doubled.
Sample number_string(const Recipe& recipe) {
  Random random(recipe.seed);
  std::string digits = draw_number(random, 5);
  for (int i = 0; i < 5; ++i) {
    const size_t at = below(random, digits.size());
    digits.insert(at, 1, digits[at]);
  }
  return hidden_number(
      recipe, random, digits, "sequence of digits",
      "The sequence of digits is " + digits + ". Remember it. " + digits + " is the sequence of digits.");
}

Sample kv_retrieval(const Recipe& recipe) {
  Random random(recipe.seed);
  const std::string key = draw_uuid(random), value = draw_uuid(random);
  const size_t place = boundary_at(recipe.depth, recipe.size);
  std::string pairs;
  for (size_t i = 0; i <= recipe.size; ++i) {
    const std::string other_key = i == place ? key : draw_uuid(random);
    const std::string other_value = i == place ? value : draw_uuid(random);
    pairs += (i == 0 ? "{\"" : ", \"") + other_key + "\": \"" + other_value + "\"";
  }
  return {.context = "Extract the value corresponding to the specified key in the JSON object below.\n\n" + pairs + "}",
          .question = "\n\nKey: \"" + key + "\"",
          .reply_start = " The value associated with the specified key is:",
          .gold = " \"" + value + "\"",
          .answers = {value},
          .recalls = {}};
}

Sample lines(const Recipe& recipe) {
  Random random(recipe.seed);
  Used used;
  const std::string key = draw_compound(random, used), number = std::to_string(1 + below(random, 50000));
  const size_t place = boundary_at(recipe.depth, recipe.size);
  std::string record;
  for (size_t i = 0; i <= recipe.size; ++i) {
    const std::string name = i == place ? key : draw_compound(random, used);
    const std::string content = i == place ? number : std::to_string(1 + below(random, 50000));
    record += (i == 0 ? "line " : "\nline ") + name + ": REGISTER_CONTENT is <" + content + ">";
  }
  return {.context =
              "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and "
              "contains a '<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line "
              "index, memorize its corresponding <REGISTER_CONTENT>. At the end of the record, I will ask you "
              "to retrieve the corresponding <REGISTER_CONTENT> of a certain line index. Now the record "
              "start:\n\n" +
              record,
          .question = "\n\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line " + key +
                      "? I need the number.",
          .reply_start = " The <REGISTER_CONTENT> in line " + key + " is",
          .gold = " <" + number + ">",
          .answers = {number},
          .recalls = {}};
}

// Chains of two hops, shuffled: "A = B", and at the end of a chain "B = 'C'". The start of one is given.
Sample hash_hop(const Recipe& recipe) {
  constexpr int kHops = 2;
  Random random(recipe.seed);
  const auto hash = [&] { return draw_characters(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 16); };
  std::string start, end;
  std::vector<std::string> assignments;
  for (size_t chain = 0; chain <= recipe.size; ++chain) {
    std::string from = hash();
    if (chain == 0) start = from;
    for (int hop = 1; hop <= kHops; ++hop) {
      const std::string to = hash();
      assignments.push_back(from + (hop == kHops ? " = '" + to + "'" : " = " + to));
      from = to;
    }
    if (chain == 0) end = from;
  }
  shuffle(random, assignments);
  std::string context;
  for (const std::string& line : assignments) context += (context.empty() ? "" : "\n") + line;
  return {.context = std::move(context),
          .question = "\n\nHops=" + std::to_string(kHops) + "\nCoT=False",
          .reply_start = " " + start + " = '",
          .gold = end + "'",
          .answers = {end},
          .recalls = {}};
}

// Pairs of a key and a value; then 16 of the keys again (all, where there are fewer), each to be followed by its value.
Sample mqar(const Recipe& recipe) {
  constexpr size_t kQueries = 16;
  Random random(recipe.seed);
  Used used;
  std::vector<Recall> pairs;
  std::string context;
  for (size_t i = 0; i <= recipe.size; ++i) {
    const std::string key = draw_new(used, [&] { return draw_characters(random, "abcdefghijklmnopqrstuvwxyz", 4); });
    pairs.push_back({" " + key, " " + std::string(nouns()[below(random, nouns().size())])});
    context += (i == 0 ? key : pairs.back().cue) + pairs.back().answer;
  }
  shuffle(random, pairs);
  if (pairs.size() > kQueries) pairs.resize(kQueries);
  return {.context = std::move(context),
          .question = {},
          .reply_start = {},
          .gold = {},
          .answers = {},
          .recalls = std::move(pairs)};
}

}  // namespace

const Task kPasskey = {
    "passkey", "a five-digit number in filler text", FillerUse::kOptional, true, 32, passkey, score_first_integer};
const Task kNumberString = {"numstring",
                            "a ten-digit number with doubled digits in filler text",
                            FillerUse::kOptional,
                            true,
                            32,
                            number_string,
                            score_first_integer};
const Task kKvRetrieval = {
    "kvretrieval",       "one value of a JSON object of UUIDs", FillerUse::kNone, true, 64, kv_retrieval,
    score_retrieval_word};
const Task kLines = {"lines",
                     "the number of one named line among many (LongEval)",
                     FillerUse::kNone,
                     true,
                     32,
                     lines,
                     score_first_integer};
const Task kHashHop = {"hashhop",   "two assignments of random names to follow", FillerUse::kNone, false, 32, hash_hop,
                       score_quoted};
const Task kMqar = {"mqar",
                    "16 keys to complete from a list of pairs (multi-query associative recall)",
                    FillerUse::kNone,
                    false,
                    0,
                    mqar,
                    nullptr};

}  // namespace lethe::eval
