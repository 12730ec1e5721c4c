"""Writes files into a C++ source, as a function that finds them by name.

Usage: embed.py FUNCTION FILE... > OUT.cc

The function, in esper::config, has the signature
  const std::map<std::string, std::string>& FUNCTION();
and maps each file's name, without folder and extension, to its bytes.
"""
import pathlib
import sys


def literal(data):
    """The bytes as adjacent string literals; octal escapes end by themselves."""
    lines = []
    for start in range(0, len(data), 16):
        chunk = data[start:start + 16]
        lines.append('"' + "".join(f"\\{byte:03o}" for byte in chunk) + '"')
    return "\n".join(lines) or '""'


def main():
    function, *files = sys.argv[1:]
    print("#include <map>\n#include <string>\n\nnamespace esper::config {\n"
          f"const std::map<std::string, std::string>& {function}() {{\n"
          "static const auto& files =\n"
          "*new std::map<std::string, std::string>{")
    for file in files:
        data = pathlib.Path(file).read_bytes()
        print(f'{{"{pathlib.Path(file).stem}", std::string({literal(data)}, '
              f"{len(data)})}},")
    print("};\nreturn files;\n}\n}  // namespace esper::config")


if __name__ == "__main__":
    main()
