// RULER's tasks beside the needles (Hsieh et al. 2024): variable tracking, common words, frequent coded words. They ask
// for what lies all over the text.
#include <algorithm>
#include <numbers>

#include "tools/eval/draw.h"
#include "tools/eval/scores.h"
#include "tools/eval/task_table.h"
#include "tools/eval/words.h"

namespace lethe::eval {
namespace {

double score(Answers answers, std::string_view reply) { return string_match_all(reply, answers); }

// The parts of a worked example, as one text.
std::string written_out(const Sample& sample) {
  return sample.context + sample.question + sample.reply_start + sample.gold + "\n\n";
}

// One chain of four assignments in the repeated sentences; names of `letters` letters.
Sample variable_chain(Random& random, size_t sentences, size_t letters) {
  constexpr size_t kNames = 5;
  Used used;
  std::vector<std::string> names;
  while (names.size() < kNames) {
    names.push_back(draw_new(used, [&] { return draw_characters(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", letters); }));
  }
  const std::string value = draw_number(random, 5);
  std::vector<double> depths;
  while (depths.size() < kNames) depths.push_back(random.uniform());
  std::sort(depths.begin(), depths.end());
  std::vector<Needle> needles;
  std::string gold;
  for (size_t i = 0; i < kNames; ++i) {
    needles.push_back({depths[i], "VAR " + names[i] + " = " + (i == 0 ? value : "VAR " + names[i - 1])});
    gold += " " + names[i];
  }
  return {.context = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n" +
                     Filler::repeated().hide(random, sentences, needles, "\n"),
          .question = "\nQuestion: Find all variables that are assigned the value " + value + " in the text above.",
          .reply_start = " Answer: According to the chain(s) of variable assignment in the text above, " +
                         std::to_string(kNames) + " variables are assigned the value " + value + ", they are:",
          .gold = gold,
          .answers = names,
          .recalls = {}};
}

Sample variable_tracking(const Recipe& recipe) {
  Random random(recipe.seed);
  const std::string example = written_out(variable_chain(random, 10, 3));
  Sample sample = variable_chain(random, recipe.size, 5);
  sample.context = example + sample.context;
  return sample;
}

// Ten words `common_repeats` times each and `others` words `other_repeats` times each, numbered, in any order.
Sample word_list(Random& random, size_t others, int common_repeats, int other_repeats) {
  constexpr size_t kCommon = 10;
  std::vector<std::string> words(nouns().begin(), nouns().end());
  words.insert(words.end(), adjectives().begin(), adjectives().end());
  shuffle(random, words);
  Used used;
  while (words.size() < kCommon + others) words.push_back(draw_compound(random, used));
  words.resize(kCommon + others);
  const std::vector<std::string> common(words.begin(), words.begin() + kCommon);
  std::vector<const std::string*> list;
  for (size_t i = 0; i < words.size(); ++i) {
    list.insert(list.end(), static_cast<size_t>(i < kCommon ? common_repeats : other_repeats), &words[i]);
  }
  shuffle(random, list);
  std::string numbered, gold;
  for (size_t i = 0; i < list.size(); ++i) {
    numbered += (i == 0 ? "" : " ") + std::to_string(i + 1) + ". " + *list[i];
  }
  for (size_t i = 0; i < kCommon; ++i) gold += " " + std::to_string(i + 1) + ". " + common[i];
  return {.context =
              "Below is a numbered list of words. In these words, some appear more often than others. Memorize "
              "the ones that appear most often.\n" +
              numbered,
          .question = "\nQuestion: What are the 10 most common words in the above list?",
          .reply_start = " Answer: The top 10 words that appear most often in the list are:",
          .gold = gold,
          .answers = common,
          .recalls = {}};
}

// Fewer repeats where the prompt is short, as in RULER.
Sample common_words(const Recipe& recipe) {
  Random random(recipe.seed);
  const bool is_short = recipe.length < 4096;
  const std::string example = written_out(is_short ? word_list(random, 10, 3, 1) : word_list(random, 30, 10, 3));
  Sample sample = is_short ? word_list(random, recipe.size, 6, 1) : word_list(random, recipe.size, 30, 3);
  sample.context = example + sample.context;
  return sample;
}

// Coded words whose counts fall as 1 / rank^2; the most frequent one is "...", and the next three are asked for.
Sample frequent_words(const Recipe& recipe) {
  constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
  Random random(recipe.seed);
  const size_t words = 100 + recipe.size;
  std::vector<std::string> list, top;
  Used used;
  for (size_t rank = 1;; ++rank) {
    const auto count = static_cast<size_t>(static_cast<double>(words) /
                                           (kZeta2 * static_cast<double>(rank) * static_cast<double>(rank)));
    if (count == 0) break;
    const std::string word =
        rank == 1 ? "..." : draw_new(used, [&] { return draw_characters(random, "abcdefghijklmnopqrstuvwxyz", 6); });
    if (rank >= 2 && rank <= 4) top.push_back(word);
    list.insert(list.end(), count, word);
  }
  shuffle(random, list);
  std::string coded;
  for (const std::string& word : list) coded += (coded.empty() ? "" : " ") + word;
  return {.context =
              "Read the following coded text and track the frequency of each coded word. Find the three most "
              "frequently appeared coded words. " +
              coded,
          .question =
              "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
              "most frequently appeared words in the above coded text?",
          .reply_start = " Answer: According to the coded text above, the three most frequently appeared words are:",
          .gold = " " + top[0] + ", " + top[1] + ", and " + top[2],
          .answers = top,
          .recalls = {}};
}

}  // namespace

const Task kVariableTracking = {
    "vt", "RULER: a chain of assignments in repeated sentences", FillerUse::kNone, false, 30, variable_tracking, score};
const Task kCommonWords = {
    "cwe", "RULER: the ten most common words of a list", FillerUse::kNone, false, 120, common_words, score};
const Task kFrequentWords = {
    "fwe", "RULER: the three most frequent coded words", FillerUse::kNone, false, 50, frequent_words, score};

}  // namespace lethe::eval
