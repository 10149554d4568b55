// The metrics of LongBench, SCROLLS and InfiniteBench, to the letter: tests/data/eval_metrics.json holds them to what
// the original code gives. A pair of texts, 0 ... 1.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lethe::eval {

// SQuAD's F1 over words in lower case, without punctuation and articles.
double f1_words(std::string_view reply, std::string_view truth);
// Equal after the same normalisation.
double exact_match(std::string_view reply, std::string_view truth);
// F1 over characters in lower case, without white space and punctuation: InfiniteBench's for Chinese. LongBench's and
// ChouBun's cut words with jieba and MeCab first, which we do not have: those are approximated by it.
double f1_characters(std::string_view reply, std::string_view truth);

// ROUGE-L of the PyPI package `rouge` (LongBench): union LCS over sentences, over sets of words.
double rouge_l(std::string_view reply, std::string_view truth);
// The same over characters as words: an approximation of LongBench's over jieba's and ChouBun's over MeCab's words.
double rouge_l_characters(std::string_view reply, std::string_view truth);

// F-measures of the PyPI package `rouge_score`, without stemmer (SCROLLS, InfiniteBench): words are runs of a-z and
// 0-9.
double rouge_n_fmeasure(std::string_view reply, std::string_view truth, size_t n);
double rouge_l_fmeasure(std::string_view reply, std::string_view truth);
double rouge_lsum_fmeasure(std::string_view reply, std::string_view truth);

// LongBench's classification_score: 1 / the number of classes that the reply names, if the truth is one of them.
double classification(std::string_view reply, std::string_view truth, std::span<const std::string> classes);
// Share of the reply's numbers that are the truth's: the first number after `marker` in it ("Paragraph ", "段落").
double retrieval(std::string_view reply, std::string_view truth, std::string_view marker);
// Share of the reply's numbers that are the truth.
double count_score(std::string_view reply, std::string_view truth);
// fuzz.ratio / 100 of the first line that is neither a comment nor a fence: whole per cents, as fuzzywuzzy has them.
double code_similarity(std::string_view reply, std::string_view truth);

// LongBench's first line: newlines in front do not count.
std::string_view first_line(std::string_view reply);

}  // namespace lethe::eval
