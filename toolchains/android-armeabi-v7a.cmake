# Android, armeabi-v7a. See android.cmake.
set(ANDROID_ABI armeabi-v7a)
include(${CMAKE_CURRENT_LIST_DIR}/android.cmake)
