/* The parts of abi_test.c that are written in C, for the C++ test that runs them. Each gives the number of failed
 * checks and prints them. */
#ifndef LETHE_TESTS_C_API_ABI_TEST_H_
#define LETHE_TESTS_C_API_ABI_TEST_H_

#ifdef __cplusplus
extern "C" {
#endif

int abi_names_and_numbers(void);
int abi_defaults(void);
int abi_null_arguments(const char* model_path);
int abi_struct_sizes(const char* model_path);
int abi_whole_run(const char* model_path, const char* snapshot_path);

#ifdef __cplusplus
}
#endif
#endif /* LETHE_TESTS_C_API_ABI_TEST_H_ */
