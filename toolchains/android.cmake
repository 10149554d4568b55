# What the toolchain files of Android's ABIs share: they set ANDROID_ABI and include this. ANDROID_NDK, a CMake variable or an
# environment variable, names the folder of the NDK (r27 or later), whose own toolchain file does the work.
if(NOT ANDROID_NDK)
  set(ANDROID_NDK $ENV{ANDROID_NDK})
endif()
set(ndk_toolchain ${ANDROID_NDK}/build/cmake/android.toolchain.cmake)
if(NOT EXISTS ${ndk_toolchain})
  message(FATAL_ERROR "ANDROID_NDK must name the folder of the Android NDK (-DANDROID_NDK=DIR, or in the environment): there is "
    "no ${ndk_toolchain}")
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_NDK)

set(ANDROID_PLATFORM android-28)
set(ANDROID_STL c++_static)  # one library to ship
# Segments for pages of 16 KiB, which Google Play asks for. NDK r28 does so by itself, r27 when it is asked, older ones by the
# linker's flag.
set(ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES ON)
foreach(kind EXE SHARED MODULE)
  set(CMAKE_${kind}_LINKER_FLAGS_INIT "-Wl,-z,max-page-size=16384")
endforeach()
include(${ndk_toolchain})
