"""ELF shared libraries, as far as a loader looks at them: segments, needed libraries, exported symbols (System V gABI)."""

import struct
from collections import namedtuple

Segment = namedtuple("Segment", "type offset address file_size align")

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SYMTAB = 0, 1, 5, 6
SHT_DYNSYM = 11
STB_LOCAL = 0


class ElfFile:
    """bits: 32 or 64; machine: e_machine; loads: [Segment]; needed, exports: lists of names. Little-endian only, as Android
    is. Raises ValueError on bytes that are no such library."""

    def __init__(self, data):
        self._data = data
        if data[:4] != b"\x7fELF" or len(data) < 64:
            raise ValueError("not an ELF file")
        if data[4] not in (1, 2) or data[5] != 1:
            raise ValueError("not a little-endian ELF file of 32 or 64 bits")
        self.bits = 32 * data[4]
        try:
            (kind, self.machine) = struct.unpack_from("<HH", data, 16)
            if kind != 3:
                raise ValueError("not a shared library")
            segments = self._segments()
            self.loads = [s for s in segments if s.type == PT_LOAD]
            dynamic = self._dynamic(next((s for s in segments if s.type == PT_DYNAMIC), None))
            strings = self._file_offset(dynamic[DT_STRTAB][0])
            self.needed = [self._text(strings + offset) for offset in dynamic.get(DT_NEEDED, [])]
            self.exports = self._exports(strings)
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError(f"damaged ELF file: {error}") from None

    def _words(self, layout, at):
        """`layout` of struct with W for a word of the file's class."""
        return struct.unpack_from("<" + layout.replace("W", "Q" if self.bits == 64 else "I"), self._data, at)

    def _text(self, at):
        end = self._data.index(b"\0", at)
        return self._data[at:end].decode("utf-8", "replace")

    def _segments(self):
        (table,) = self._words("W", 32 if self.bits == 64 else 28)
        size, count = struct.unpack_from("<HH", self._data, 54 if self.bits == 64 else 42)
        segments = []
        for at in range(table, table + size * count, size):
            if self.bits == 64:
                kind, _, offset, address, _, file_size, _, align = self._words("IIWWWWWW", at)
            else:
                kind, offset, address, _, file_size, _, _, align = self._words("IWWWWWIW", at)
            segments.append(Segment(kind, offset, address, file_size, align))
        return segments

    def _file_offset(self, address):
        for segment in self.loads:
            if segment.address <= address < segment.address + segment.file_size:
                return address - segment.address + segment.offset
        raise ValueError(f"address {address:#x} is in no segment")

    def _dynamic(self, segment):
        """Tag -> its values."""
        if segment is None:
            raise ValueError("no dynamic section")
        entries, entry = {}, self.bits // 4
        for at in range(segment.offset, segment.offset + segment.file_size, entry):
            tag, value = self._words("WW", at)
            if tag == DT_NULL:
                break
            entries.setdefault(tag, []).append(value)
        return entries

    def _exports(self, strings):
        """Names of defined symbols that others can bind to."""
        (table,) = self._words("W", 40 if self.bits == 64 else 32)
        size, count = struct.unpack_from("<HH", self._data, 58 if self.bits == 64 else 46)
        names = []
        for at in range(table, table + size * count, size):
            _, kind, _, _, offset, length, _, _, _, entry = self._words("IIWWWWIIWW", at)
            if kind != SHT_DYNSYM:
                continue
            for symbol in range(offset + entry, offset + length, entry):  # the first is none
                if self.bits == 64:
                    name, info, _, section = struct.unpack_from("<IBBH", self._data, symbol)
                else:
                    name, _, _, info, _, section = struct.unpack_from("<IIIBBH", self._data, symbol)
                if section != 0 and info >> 4 != STB_LOCAL:
                    names.append(self._text(strings + name))
            return names
        raise ValueError("no table of dynamic symbols")
