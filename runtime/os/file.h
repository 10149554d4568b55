// Files: read-only maps, and writers that leave nothing half-written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/status.h"

namespace lethe::os {

// A file mapped read-only. Move-only; unmaps when destroyed. Reading a mapped file that another process truncates
// raises SIGBUS: the caller must not let that happen.
class FileMap {
 public:
  FileMap() = default;
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;
  ~FileMap();

  // kIo (with errno's text and the path) when the file cannot be opened or mapped; an empty file is kIo too.
  static Result<FileMap> open(const char* path);

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

  // Lets go of the whole pages that lie in this map and inside [begin, begin + bytes): they stop to count as memory of
  // the process, and are read from the file again if they are touched again.
  void release(const uint8_t* begin, uint64_t bytes) const;

 private:
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// Writes PATH.partial-<thread> and renames it to PATH on commit(); destroyed without commit() it removes the partial
// file. Not copyable or movable; one thread. Errors: kDiskFull for ENOSPC/EDQUOT, kIo otherwise, with the path.
class AtomicFile {
 public:
  AtomicFile() = default;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  Status open(const char* path);                    // path of at most 4,000 bytes
  Status append(const void* data, uint64_t bytes);  // at the end; handles short writes
  Status write_at(uint64_t offset, const void* data, uint64_t bytes);
  uint64_t position() const { return position_; }  // bytes appended so far
  Status commit();                                 // fsync, close, rename, fsync of the folder

 private:
  int fd_ = -1;
  uint64_t position_ = 0;
  char path_[4096];
  char partial_path_[4096];
};

// A file of these bytes, by an AtomicFile.
Status write_file(const char* path, const void* data, uint64_t bytes);

// A file that grows record by record and can be read at any moment: what append() has written stays, also when the
// process is killed. Whoever opens it closes it: there is no destructor, so that it can lie in an arena. Not copyable
// or movable; one thread; obtains no memory. Errors as of AtomicFile.
class AppendFile {
 public:
  AppendFile() = default;
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Creates or empties the file. Pipes and sockets are kIo: writing to one whose reader has gone ends the process.
  Status open(const char* path);
  // All of it at the end, or (where the system allows) none.
  Status append(const void* data, uint64_t bytes);
  void close();
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
  uint64_t position_ = 0;
  char path_[141];  // as much as an error tells
};

}  // namespace lethe::os
