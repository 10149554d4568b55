# pthreadpool, static, with cpuinfo when it was built with it. Defines PthreadPool::PthreadPool.
include(FindPackageHandleStandardArgs)
find_package(Threads REQUIRED)
find_path(PthreadPool_INCLUDE_DIR pthreadpool.h)
find_library(PthreadPool_LIBRARY NAMES libpthreadpool.a pthreadpool)
find_library(PthreadPool_CPUINFO_LIBRARY NAMES libcpuinfo.a cpuinfo)
find_package_handle_standard_args(PthreadPool REQUIRED_VARS PthreadPool_LIBRARY PthreadPool_INCLUDE_DIR)
if(PthreadPool_FOUND AND NOT TARGET PthreadPool::PthreadPool)
  add_library(PthreadPool::PthreadPool STATIC IMPORTED)
  set_target_properties(PthreadPool::PthreadPool PROPERTIES
    IMPORTED_LOCATION "${PthreadPool_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${PthreadPool_INCLUDE_DIR}")
  target_link_libraries(PthreadPool::PthreadPool INTERFACE Threads::Threads)
  if(PthreadPool_CPUINFO_LIBRARY)
    target_link_libraries(PthreadPool::PthreadPool INTERFACE "${PthreadPool_CPUINFO_LIBRARY}")
  endif()
endif()
