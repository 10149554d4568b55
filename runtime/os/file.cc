#include "runtime/os/file.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime/os/pages.h"

namespace lethe::os {
namespace {

// strerror_r comes in two kinds: XSI's returns an int and fills the buffer, GNU's returns the text.
[[maybe_unused]] const char* error_text(int result, const char* buffer) {
  return result == 0 ? buffer : "unknown error";
}
[[maybe_unused]] const char* error_text(const char* text, const char*) { return text; }

Status io_error(const char* action, const char* path, int error) {
  char buffer[96] = "";
  const char* text = error_text(strerror_r(error, buffer, sizeof buffer), buffer);
  const bool full = error == ENOSPC || error == EDQUOT;
  return Status::error(full ? ErrorCode::kDiskFull : ErrorCode::kIo, "cannot %s %.140s: %s", action, path, text);
}

// Makes a rename in this folder durable. Folders that cannot be opened or synced (some file systems) are no error: the
// file itself is complete and synced.
Status sync_folder_of(const char* path) {
  char folder[4096] = ".";
  if (const char* slash = strrchr(path, '/'); slash != nullptr) {
    const auto length = std::max<size_t>(1, static_cast<size_t>(slash - path));
    memcpy(folder, path, length);
    folder[length] = '\0';
  }
  const int fd = ::open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return {};
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == EIO || error == ENOSPC || error == EDQUOT ? io_error("sync the folder", folder, error) : Status();
}

// Of the calling thread, unique on the machine: two threads that write the same file do not share a partial one.
long thread_number() {
#if defined(__linux__)
  return syscall(SYS_gettid);
#else
  uint64_t id = 0;
  pthread_threadid_np(nullptr, &id);
  return static_cast<long>(id);
#endif
}

}  // namespace

FileMap::FileMap(FileMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileMap::~FileMap() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

void FileMap::release(const uint8_t* begin, uint64_t bytes) const {
  const uint64_t page = page_size();
  const auto map = reinterpret_cast<uintptr_t>(data_);  // at a page
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (std::max(address, map) + page - 1) / page * page;
  const uintptr_t end = std::min(address + bytes, map + size_) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

Result<FileMap> FileMap::open(const char* path) {
  // O_NONBLOCK: a FIFO must be an error, not a wait.
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return io_error("open", path, errno);
  struct stat info;
  Status status;
  FileMap map;
  if (fstat(fd, &info) != 0) {
    status = io_error("open", path, errno);
  } else if (!S_ISREG(info.st_mode)) {
    status = Status::error(ErrorCode::kIo, "%.200s is not a regular file", path);
  } else if (info.st_size == 0) {
    status = Status::error(ErrorCode::kIo, "%.200s is empty (0 bytes)", path);
  } else {
    const auto size = static_cast<uint64_t>(info.st_size);
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
      status = io_error("map", path, errno);
    } else {
#if defined(__linux__)
      // Where the file system has large folios, one entry of the page table for 2 MiB: weights are then read at the
      // speed of memory, with 4 KiB pages at three quarters of it.
      madvise(data, size, MADV_HUGEPAGE);
#endif
      map.data_ = static_cast<const uint8_t*>(data);
      map.size_ = size;
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return map;
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(partial_path_);
}

Status AtomicFile::open(const char* path) {
  if (fd_ >= 0) return Status::error(ErrorCode::kInvalidArgument, "%.200s is still being written", path_);
  const size_t length = strlen(path);
  if (length == 0 || length > 4000) {
    return Status::error(ErrorCode::kInvalidArgument, "a path of %zu bytes: it must have 1 to 4000", length);
  }
  memcpy(path_, path, length + 1);
  struct stat existing;
  if (stat(path, &existing) == 0 && !S_ISREG(existing.st_mode)) {  // e.g. /dev/null, which a rename would replace
    return Status::error(ErrorCode::kIo, "cannot write %.200s: it exists and is not a regular file", path);
  }
  snprintf(partial_path_, sizeof partial_path_, "%.4000s.partial-%ld", path, thread_number());
  // O_TRUNC, not O_EXCL: a crashed process may have left a partial file under the same number.
  fd_ = ::open(partial_path_, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) return io_error("create", partial_path_, errno);
  position_ = 0;
  return {};
}

Status AtomicFile::append(const void* data, uint64_t bytes) {
  LETHE_RETURN_IF_ERROR(write_at(position_, data, bytes));
  position_ += bytes;
  return {};
}

Status AtomicFile::write_at(uint64_t offset, const void* data, uint64_t bytes) {
  if (fd_ < 0) return Status::error(ErrorCode::kInvalidArgument, "a write to a file that is not open");
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes != 0) {
    // Linux moves at most 2 GiB - 4 KiB a call and Apple refuses more: ask for 1 GiB.
    const uint64_t chunk = std::min<uint64_t>(bytes, 1u << 30);
    const ssize_t written = pwrite(fd_, from, chunk, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return io_error("write", path_, errno);
    }
    from += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
  return {};
}

Status AtomicFile::commit() {
  if (fd_ < 0) return Status::error(ErrorCode::kInvalidArgument, "a commit of a file that is not open");
  int error = fsync(fd_) == 0 ? 0 : errno;
#if defined(__linux__)
  // What was written in small pieces is cached in small pages; read again, it comes in large ones (FileMap::open). And
  // a saved session leaves the cache to the weights.
  if (error == 0) posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
#endif
  // close() may be where a network file system reports a full disk.
  if (close(std::exchange(fd_, -1)) != 0 && error == 0) error = errno;
  if (error == 0 && rename(partial_path_, path_) != 0) error = errno;
  if (error != 0) {
    unlink(partial_path_);
    return io_error("finish", path_, error);
  }
  return sync_folder_of(path_);
}

Status write_file(const char* path, const void* data, uint64_t bytes) {
  AtomicFile file;
  LETHE_RETURN_IF_ERROR(file.open(path));
  LETHE_RETURN_IF_ERROR(file.append(data, bytes));
  return file.commit();
}

Status AppendFile::open(const char* path) {
  if (fd_ >= 0) return Status::error(ErrorCode::kInvalidArgument, "%.200s is still being written", path_);
  snprintf(path_, sizeof path_, "%s", path);
  // O_NONBLOCK: a FIFO without a reader must be an error, not a wait.
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  if (fd < 0) return io_error("create", path, errno);
  struct stat info;
  if (fstat(fd, &info) != 0 || S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode)) {
    ::close(fd);
    return Status::error(ErrorCode::kIo, "cannot write %.200s: it is a pipe or a socket", path);
  }
  fd_ = fd;
  position_ = 0;
  return {};
}

Status AppendFile::append(const void* data, uint64_t bytes) {
  if (fd_ < 0) return Status::error(ErrorCode::kInvalidArgument, "a write to a file that is not open");
  const auto* from = static_cast<const uint8_t*>(data);
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t written = ::write(fd_, from + done, bytes - done);
    if (written < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      // Not left half-written, where that can be helped; a device cannot be cut.
      [[maybe_unused]] const int cut = done == 0 ? 0 : ftruncate(fd_, static_cast<off_t>(position_));
      return io_error("write", path_, error);
    }
    done += static_cast<uint64_t>(written);
  }
  position_ += bytes;
  return {};
}

void AppendFile::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

}  // namespace lethe::os
