#include <doctest/doctest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/os/file.h"
#include "runtime/os/pages.h"
#include "runtime/os/process.h"

using namespace lethe;
namespace fs = std::filesystem;

namespace {

// A folder of its own that is removed at the end.
struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "lethe_os_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
  size_t entries() const { return static_cast<size_t>(std::distance(fs::directory_iterator(path), {})); }
  fs::path path;
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

uint64_t bytes_of_status_line(const char* key) {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    uint64_t kib = 0;
    if (word == key && in >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace

TEST_CASE("pages: zeroed, writable, and discard gives back exactly the whole pages inside") {
  const uint64_t page = os::page_size();
  CHECK(page >= 4096);
  CHECK((page & (page - 1)) == 0);
  const uint64_t bytes = 4 * page;
  Result<uint8_t*> mapped = os::map_pages(bytes);
  REQUIRE(mapped.ok());
  uint8_t* pages = mapped.value();
  CHECK(reinterpret_cast<uintptr_t>(pages) % page == 0);
  bool zero = true;
  for (uint64_t i = 0; i < bytes; ++i) zero = zero && pages[i] == 0;
  CHECK(zero);

  memset(pages, 7, bytes);
  os::discard_pages(pages + 1, 3 * page - 1);  // page 0 is not wholly inside, pages 1 and 2 are
  bool right = true;
  for (uint64_t i = 0; i < bytes; ++i) right = right && pages[i] == (i / page == 1 || i / page == 2 ? 0 : 7);
  CHECK(right);
  os::discard_pages(pages + page - 1, page);  // no whole page inside
  CHECK(pages[page - 1] == 7);
  os::unmap_pages(pages, bytes);

  const Result<uint8_t*> refused = os::map_pages(uint64_t{1} << 60);
  CHECK(refused.status().code() == ErrorCode::kOutOfMemory);
}

TEST_CASE("file map: reads what stands there, moves once, and refuses what is not a file") {
  const Folder folder;
  const std::string path = folder / "data";
  std::ofstream(path, std::ios::binary) << "hello";
  Result<os::FileMap> opened = os::FileMap::open(path.c_str());
  REQUIRE(opened.ok());
  os::FileMap map = std::move(opened).value();
  CHECK(std::string(reinterpret_cast<const char*>(map.data()), map.size()) == "hello");
  os::FileMap moved = std::move(map);
  CHECK(map.data() == nullptr);
  CHECK(moved.size() == 5);
  map = std::move(moved);
  CHECK(map.size() == 5);

  const auto error = [](const std::string& name) {
    const Result<os::FileMap> result = os::FileMap::open(name.c_str());
    CHECK(result.status().code() == ErrorCode::kIo);
    return std::string(result.status().message());
  };
  const std::string missing = folder / "missing";
  CHECK(error(missing) == "cannot open " + missing + ": " + strerror(ENOENT));
  std::ofstream(folder / "empty").close();
  CHECK(error(folder / "empty").find("0 bytes") != std::string::npos);
  CHECK(error(folder.path.string()).find("not a regular file") != std::string::npos);
  REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
  CHECK(error(folder / "fifo").find("not a regular file") != std::string::npos);  // and did not wait for a writer
}

TEST_CASE("atomic file: appears whole on commit, and not at all without") {
  const Folder folder;
  const std::string path = folder / "session";
  {
    os::AtomicFile file;
    REQUIRE(file.open(path.c_str()).ok());
    REQUIRE(file.append("....world", 9).ok());
    CHECK(file.position() == 9);
    REQUIRE(file.write_at(0, "hey ", 4).ok());
    CHECK(file.position() == 9);
    CHECK_FALSE(fs::exists(path));
    REQUIRE(file.commit().ok());
  }
  CHECK(read_file(path) == "hey world");
  CHECK(folder.entries() == 1);
  {
    os::AtomicFile file;
    REQUIRE(file.open(path.c_str()).ok());
    REQUIRE(file.append("half", 4).ok());
  }
  CHECK(read_file(path) == "hey world");
  CHECK(folder.entries() == 1);
}

TEST_CASE("atomic file: errors leave nothing behind") {
  const Folder folder;
  const std::string path = folder / "session";
  {
    os::AtomicFile file;
    CHECK(file.open((folder / "missing/session").c_str()).code() == ErrorCode::kIo);
    CHECK(file.append("x", 1).code() == ErrorCode::kInvalidArgument);
    CHECK(file.commit().code() == ErrorCode::kInvalidArgument);
    CHECK(file.open(std::string(4001, 'a').c_str()).code() == ErrorCode::kInvalidArgument);
    CHECK(file.open("").code() == ErrorCode::kInvalidArgument);
    REQUIRE(file.open(path.c_str()).ok());
    CHECK(file.open(path.c_str()).code() == ErrorCode::kInvalidArgument);
  }
  CHECK(folder.entries() == 0);
  {
    // The device that is always full stands in for a full disk.
    fs::create_symlink("/dev/full", path + ".partial-" + std::to_string(getpid()));
    os::AtomicFile file;
    REQUIRE(file.open(path.c_str()).ok());
    const Status status = file.append("x", 1);
    CHECK(status.code() == ErrorCode::kDiskFull);
    CHECK(std::string(status.message()).find(path) != std::string::npos);
  }
  CHECK(folder.entries() == 0);
  {
    os::AtomicFile file;
    REQUIRE(file.open(path.c_str()).ok());
    fs::create_directory(path);  // the rename must fail
    CHECK(file.commit().code() == ErrorCode::kIo);
  }
  CHECK(folder.entries() == 1);
  {
    os::AtomicFile file;  // what is not a regular file is never replaced
    CHECK(file.open(path.c_str()).code() == ErrorCode::kIo);
    const std::string device = folder / "device";
    fs::create_symlink("/dev/null", device);
    CHECK(file.open(device.c_str()).code() == ErrorCode::kIo);
    CHECK(fs::is_symlink(device));
  }
  CHECK(folder.entries() == 2);
}

TEST_CASE("process: memory follows what is touched, time passes, cores are ones we may use") {
  CHECK(os::monotonic_ns() > 0);
  const uint64_t begin = os::monotonic_ns();
  usleep(2000);
  CHECK(os::monotonic_ns() - begin >= 2'000'000);
  CHECK(os::monotonic_ns() - begin < 60'000'000'000);

  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  CHECK(os::fast_core_count() >= 1);
  CHECK(os::fast_core_count() <= static_cast<uint32_t>(CPU_COUNT(&set)));

  const uint64_t bytes = 64 << 20;
  uint8_t* pages = os::map_pages(bytes).value();
  const os::ProcessMemory before = os::process_memory();
  memset(pages, 1, bytes);
  const os::ProcessMemory after = os::process_memory();
  os::unmap_pages(pages, bytes);
  // Where the kernel tells the private part (gVisor's does not), it must be seen; elsewhere it must read as zero.
  const bool told = bytes_of_status_line("RssAnon:") != 0;
  CHECK((after.private_bytes >= before.private_bytes + bytes * 9 / 10) == told);
  CHECK((after.private_bytes != 0) == told);
  CHECK((after.file_bytes != 0) == (bytes_of_status_line("RssFile:") != 0));
}

TEST_CASE("released pages of a map stop to count and are read again") {
  const Folder folder;
  constexpr uint64_t kBytes = 16 << 20;
  {
    std::ofstream out(folder / "file", std::ios::binary);
    for (uint64_t i = 0; i < kBytes; i += 8) out.write(reinterpret_cast<const char*>(&i), 8);
  }
  Result<os::FileMap> map = os::FileMap::open((folder / "file").c_str());
  REQUIRE(map.ok());
  const auto sum = [&] {
    uint64_t total = 0;
    for (uint64_t i = 0; i < kBytes; i += 8) total += *reinterpret_cast<const uint64_t*>(map.value().data() + i);
    return total;
  };
  constexpr uint64_t kSum = kBytes / 8 * (kBytes - 8) / 2;
  CHECK(sum() == kSum);
  const uint64_t before = bytes_of_status_line("RssFile:");
  map.value().release(map.value().data() + 1, 8 << 20);
  const uint64_t half = bytes_of_status_line("RssFile:");
  CHECK(half <= before - (7 << 20));
  CHECK(half >= before - (9 << 20));
  uint64_t other = 0;
  map.value().release(reinterpret_cast<const uint8_t*>(&other), sizeof other);  // not in the map: nothing happens
  map.value().release(map.value().data() - 4096, kBytes + 8192);
  CHECK(bytes_of_status_line("RssFile:") <= before - (15 << 20));
  CHECK(sum() == kSum);
}
