"""Java class files, as far as their methods (Java Virtual Machine Specification, chapter 4)."""

import struct
from collections import namedtuple

Method = namedtuple("Method", "name descriptor native")

NATIVE = 0x0100
# Size in bytes of a constant after its tag.
CONSTANT_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}


class ClassFile:
    """name: with slashes; methods: [Method]. Raises ValueError on bytes that are no class file."""

    def __init__(self, data):
        self._data, self._at = data, 0
        try:
            if self._take(">I")[0] != 0xCAFEBABE:
                raise ValueError("not a class file")
            self._take(">HH")
            constants = self._constants()
            _, this, _ = self._take(">HHH")
            self.name = constants[constants[this]]
            (interfaces,) = self._take(">H")
            self._at += 2 * interfaces
            self._members(constants)  # fields
            self.methods = self._members(constants)
            self._skip_attributes(*self._take(">H"))
            if self._at != len(data):
                raise ValueError(f"a class file of {self._at} bytes in {len(data)}")
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError(f"damaged class file: {error}") from None

    def _take(self, layout):
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _constants(self):
        """Index -> text of a Utf8, or the name index of a Class."""
        constants = {}
        (count,) = self._take(">H")
        index = 1
        while index < count:
            (tag,) = self._take(">B")
            if tag == 1:
                (size,) = self._take(">H")
                constants[index] = self._data[self._at:self._at + size].decode("utf-8", "replace")
                self._at += size
            else:
                if tag == 7:
                    (constants[index],) = struct.unpack_from(">H", self._data, self._at)
                self._at += CONSTANT_SIZES[tag]
            index += 2 if tag in (5, 6) else 1  # long and double take two places
        return constants

    def _members(self, constants):
        members = []
        (count,) = self._take(">H")
        for _ in range(count):
            flags, name, descriptor, attributes = self._take(">HHHH")
            self._skip_attributes(attributes)
            members.append(Method(constants[name], constants[descriptor], bool(flags & NATIVE)))
        return members

    def _skip_attributes(self, count):
        for _ in range(count):
            _, size = self._take(">HI")
            self._at += size
