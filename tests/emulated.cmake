# 64-bit Arm in QEMU, which takes the CPU model from QEMU_CPU: the kernels on a core of Armv8.0, on one with dot products of
# bytes and on one with all that the emulator has (i8mm, SVE2), and which target must be chosen there.
# kernels_on MODEL TARGET [arguments of doctest]
function(kernels_on model target)
  add_test(NAME kernels_${model} COMMAND kernels_test ${ARGN})
  set_tests_properties(kernels_${model} PROPERTIES ENVIRONMENT "QEMU_CPU=${model};LETHE_TEST_TARGET=${target}")
endfunction()
# The first core has all tests but those of a hundred thousand tokens, which take a minute here; the others have what
# depends on products of bytes.
kernels_on(cortex-a72 NEON "--test-case-exclude=*a hundred thousand tokens*")
kernels_on(cortex-a76 NEON_DOTPROD --source-file=*linear_test.cc,*attention_test.cc,*targets_test.cc)
kernels_on(max NEON_DOTPROD --source-file=*linear_test.cc,*targets_test.cc)
