// The tasks, by the file that defines them; the table in task.cc names them all.
#pragma once

#include "tools/eval/task.h"

namespace lethe::eval {

// tasks_retrieval.cc
extern const Task kPasskey, kNumberString, kKvRetrieval, kLines, kHashHop, kMqar;
// tasks_needle.cc
extern const Task kNiahSingle1, kNiahSingle2, kNiahSingle3, kNiahMultikey1, kNiahMultikey2, kNiahMultikey3,
    kNiahMultivalue, kNiahMultiquery;
// tasks_counting.cc
extern const Task kVariableTracking, kCommonWords, kFrequentWords;

}  // namespace lethe::eval
