// The tasks of the benchmarks: prompts, longest replies and metrics as published (LongBench: Bai et al. 2023,
// config/dataset2prompt.json and dataset2maxlen.json, MIT; InfiniteBench: Zhang et al. 2024, src/prompt.py for base
// models, MIT; SCROLLS: Shaham et al. 2022, whose inputs are whole prompts). ChouBun's prompts are ours.
#include <algorithm>

#include "tools/eval/file_task.h"
#include "tools/eval/infinitebench.h"
#include "tools/eval/metrics.h"

namespace lethe::eval {
namespace {

using Parts = FileTask::Parts;
using infinitebench::first_number, infinitebench::retrieved, infinitebench::name_of_speaker,
    infinitebench::letter_of_choice, infinitebench::letter_of_bug, infinitebench::last_number,
    infinitebench::found_number, infinitebench::right_prefix;

// The best over the references.
template <typename Score>
Parts best(const FileSample& sample, Score&& score) {
  double most = 0;
  for (const std::string& answer : sample.answers) most = std::max(most, static_cast<double>(score(answer)));
  return {most};
}

template <double (*kMetric)(std::string_view, std::string_view)>
Parts over_references(const FileSample& sample, std::string_view reply) {
  return best(sample, [&](const std::string& truth) { return kMetric(reply, truth); });
}

constexpr auto words_f1 = over_references<f1_words>;
constexpr auto characters_f1 = over_references<f1_characters>;
constexpr auto words_rouge = over_references<rouge_l>;
constexpr auto characters_rouge = over_references<rouge_l_characters>;
constexpr auto lines_rouge = over_references<rouge_lsum_fmeasure>;
constexpr auto exact = over_references<exact_match>;
constexpr auto counts = over_references<count_score>;
constexpr auto code = over_references<code_similarity>;

Parts classes(const FileSample& sample, std::string_view reply) {
  return best(sample, [&](const std::string& truth) { return classification(reply, truth, sample.classes); });
}
Parts paragraphs_en(const FileSample& sample, std::string_view reply) {
  return best(sample, [&](const std::string& truth) { return retrieval(reply, truth, "Paragraph "); });
}
Parts paragraphs_zh(const FileSample& sample, std::string_view reply) {
  return best(sample, [&](const std::string& truth) { return retrieval(reply, truth, "段落"); });
}
// Each the best over the references by itself, as SCROLLS has it.
Parts three_rouges(const FileSample& sample, std::string_view reply) {
  return {best(sample, [&](const std::string& truth) { return rouge_n_fmeasure(reply, truth, 1); })[0],
          best(sample, [&](const std::string& truth) { return rouge_n_fmeasure(reply, truth, 2); })[0],
          best(sample, [&](const std::string& truth) { return rouge_l_fmeasure(reply, truth); })[0]};
}
// InfiniteBench's own look at all labels at once.
template <auto kScore>
Parts infinite(const FileSample& sample, std::string_view reply) {
  return {static_cast<double>(kScore(sample.answers, reply))};
}

constexpr const char* kPassages =
    "Answer the question based on the given passages. Only give me the answer and do not output any other "
    "words.\n\nThe following are given passages.\n{context}\n\nAnswer the question based on the given passages. Only "
    "give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:";
constexpr const char* kJapaneseQuestion =
    "次の文書を読んで、質問に簡潔に答えてください。\n\n{context}\n\n質問：{input}\n答え：";

constexpr FileTask kTasks[] = {
    {"longbench", "narrativeqa",
     "You are given a story, which can be either a novel or a movie script, and a question. Answer the question as "
     "concisely as you can, using a single phrase if possible. Do not provide any explanation.\n\nStory: "
     "{context}\n\nNow, answer the question based on the story as concisely as you can, using a single phrase if "
     "possible. Do not provide any explanation.\n\nQuestion: {input}\n\nAnswer:",
     128, true, false, words_f1},
    {"longbench", "qasper",
     "You are given a scientific article and a question. Answer the question as concisely as you can, using a single "
     "phrase or sentence if possible. If the question cannot be answered based on the information in the article, "
     "write \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do "
     "not provide any explanation.\n\nArticle: {context}\n\n Answer the question based on the above article as "
     "concisely as you can, using a single phrase or sentence if possible. If the question cannot be answered based on "
     "the information in the article, write \"unanswerable\". If the question is a yes/no question, answer \"yes\", "
     "\"no\", or \"unanswerable\". Do not provide any explanation.\n\nQuestion: {input}\n\nAnswer:",
     128, true, false, words_f1},
    {"longbench", "multifieldqa_en",
     "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following question based on the "
     "above text, only give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:",
     64, true, false, words_f1},
    {"longbench", "multifieldqa_zh",
     "阅读以下文字并用中文简短回答：\n\n{context}"
     "\n\n现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n问题：{input}\n回答：",
     64, true, false, characters_f1},
    {"longbench", "hotpotqa", kPassages, 32, true, false, words_f1},
    {"longbench", "2wikimqa", kPassages, 32, true, false, words_f1},
    {"longbench", "musique", kPassages, 32, true, false, words_f1},
    {"longbench", "dureader",
     "请基于给定的文章回答下述问题。\n\n文章：{context}\n\n请基于上述文章回答下面的问题。\n\n问题：{input}\n回答：",
     128, true, false, characters_rouge},
    {"longbench", "gov_report",
     "You are given a report by a government agency. Write a one-page summary of the "
     "report.\n\nReport:\n{context}\n\nNow, write a one-page summary of the report.\n\nSummary:",
     512, true, false, words_rouge},
    {"longbench", "qmsum",
     "You are given a meeting transcript and a query containing a question or instruction. Answer the query in one or "
     "more sentences.\n\nTranscript:\n{context}\n\nNow, answer the query based on the above meeting transcript in one "
     "or more sentences.\n\nQuery: {input}\nAnswer:",
     512, true, false, words_rouge},
    {"longbench", "multi_news",
     "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n{context}\n\nNow, write a "
     "one-page summary of all the news.\n\nSummary:",
     512, true, false, words_rouge},
    {"longbench", "vcsum",
     "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n会议总结：", 512, true,
     false, characters_rouge},
    {"longbench", "trec",
     "Please determine the type of the question below. Here are some examples of questions.\n\n{context}\n{input}", 64,
     false, true, classes},
    {"longbench", "triviaqa",
     "Answer the question based on the given passage. Only give me the answer and do not output any other words. The "
     "following are some examples.\n\n{context}\n\n{input}",
     32, false, true, words_f1},
    {"longbench", "samsum",
     "Summarize the dialogue into a few short sentences. The following are some examples.\n\n{context}\n\n{input}", 128,
     false, true, words_rouge},
    {"longbench", "lsht", "请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{input}", 64, false, true, classes},
    {"longbench", "passage_count",
     "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please carefully read "
     "these paragraphs and determine how many unique paragraphs there are after removing duplicates. In other words, "
     "how many non-repeating paragraphs are there in total?\n\n{context}\n\nPlease enter the final count of unique "
     "paragraphs after removing duplicates. The output format should only contain the number, such as 1, 2, 3, and so "
     "on.\n\nThe final answer is: ",
     32, true, false, counts},
    {"longbench", "passage_retrieval_en",
     "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the abstract is "
     "from.\n\n{context}\n\nThe following is an abstract.\n\n{input}\n\nPlease enter the number of the paragraph that "
     "the abstract is from. The answer format must be like \"Paragraph 1\", \"Paragraph 2\", etc.\n\nThe answer is: ",
     32, true, false, paragraphs_en},
    {"longbench", "passage_retrieval_zh",
     "以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n{context}\n\n下面是一个摘要\n\n{"
     "input}\n\n请输入摘要所属段落的编号。答案格式必须是\"段落1\"，\"段落2\"等格式\n\n答案是：",
     32, true, false, paragraphs_zh},
    {"longbench", "lcc", "Please complete the code given below. \n{context}Next line of code:\n", 64, false, false,
     code},
    {"longbench", "repobench-p", "Please complete the code given below. \n{context}{input}Next line of code:\n", 64,
     false, false, code},
    {"infinitebench", "passkey",
     "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
     "about the important information there.\n\n{context}\n\n{input}\n\nThe pass key is",
     6, true, false, infinite<first_number>},
    {"infinitebench", "number_string",
     "There is an important info hidden inside a lot of irrelevant text. Find it. I will quiz you about the important "
     "information there.\n\n{context}\n\n{input}\n\nThe sequence of digits is",
     12, true, false, infinite<first_number>},
    {"infinitebench", "kv_retrieval",
     "Extract the value corresponding to the specified key in the JSON object below.\n\n{context}\n\n{input}", 50, true,
     false, infinite<retrieved>},
    {"infinitebench", "longbook_sum_eng", "Summarize the book below.\n\n{context}\n\nSummary:", 1200, true, false,
     lines_rouge},
    {"infinitebench", "longbook_choice_eng",
     "Read the book and answer the question.\n\n{context}\n\nQuestion: {question}\nA. {OPTION_A}\nB. {OPTION_B}\nC. "
     "{OPTION_C}\nD. {OPTION_D}\n\nThe letter of the correct answer is",
     40, true, false, infinite<letter_of_choice>},
    {"infinitebench", "longbook_qa_eng",
     "Read the book and answer the question. Be very concise in your answer.\n\n{context}\n\nQuestion: "
     "{question}\nAnswer:",
     40, true, false, words_f1},
    {"infinitebench", "longbook_qa_chn", "阅读以下书籍然后回答问题。\n\n{context}\n\n问题：{question}\n答案：", 40,
     true, false, characters_f1},
    {"infinitebench", "longdialogue_qa_eng",
     "Below is a dialogue script where one random occurrence of a character name is replaced with \"$$MASK$$\", and "
     "you should try to guess who that character is.\n\n{context}\n\nThe name that has been replaced with $$MASK$$ is "
     "likely",
     40, true, false, infinite<name_of_speaker>},
    {"infinitebench", "math_find", "{prefix}\n\n{context}\n\n{input}", 3, true, false, infinite<found_number>},
    {"infinitebench", "math_calc",
     "Let us calculate the intermediate values of an expression.\n\nExpression: 1 + 3 + 4\nValues: [1, 4, "
     "8]\n\nExpression: 8 - 3 + 2 - 4\nValues: [8, 5, 7, 3]\n\nExpression: {context}\nValues:",
     30000, true, false, infinite<right_prefix>},
    {"infinitebench", "code_run",
     "There is a function called {func} in the following Python code.\n\n{context}\n\nPlease compute the exact value "
     "of {func_call}. The value of {func_call} is",
     5, true, false, infinite<last_number>},
    {"infinitebench", "code_debug",
     "Following is a Python code where exactly one of the functions/methods has a deliberate error that makes it "
     "crash.\n\n{context}\n\nOptions:\nA. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}\n\nThe correct "
     "option is:",
     5, true, false, infinite<letter_of_bug>},
    {"choubun", "wiki_qa", kJapaneseQuestion, 64, true, false, characters_f1},
    {"choubun", "edinet_qa", kJapaneseQuestion, 64, true, false, characters_f1},
    {"choubun", "corp_sec_qa", kJapaneseQuestion, 64, true, false, characters_f1},
    {"choubun", "corp_sec_sum", "次の文書を要約してください。\n\n{context}\n\n{input}\n要約：", 128, true, false,
     characters_rouge},
    {"scrolls", "gov_report", "{input}\n\n", 512, true, false, three_rouges},
    {"scrolls", "summ_screen_fd", "{input}\n\n", 512, true, false, three_rouges},
    {"scrolls", "qmsum", "{input}\n\n", 512, true, false, three_rouges},
    {"scrolls", "qasper", "{input}\n\n", 128, true, false, words_f1},
    {"scrolls", "narrative_qa", "{input}\n\n", 128, true, false, words_f1},
    {"scrolls", "quality", "{input}\n\n", 64, true, false, exact},
    {"scrolls", "contract_nli", "{input}\n\n", 16, true, false, exact},
};

}  // namespace

std::span<const FileTask> file_tasks() { return kTasks; }

}  // namespace lethe::eval
